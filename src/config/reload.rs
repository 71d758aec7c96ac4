//! Which keys a running proxy takes over when it reads its configuration again; all others need a restart.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ::config::{Map, Value, ValueKind};

use super::key::Table;
use super::renamed::rename;
use super::shown;

/// The keys at the top, and those in tables there, that apply without a restart.
const APPLIED: [&str; 10] = [
    "asset",
    "budget",
    "client",
    "deposit",
    "hooks",
    "intercept.hosts",
    "local",
    "log.access",
    "log.filter",
    "pay",
];

/// What a configuration was read from.
#[derive(Clone)]
pub(super) struct ConfigSource {
    /// The file's table with the variables applied.
    pub root: Map<String, Value>,
    /// The text of the file, for the lines of keys.
    pub text: String,
    /// The base of relative paths.
    pub directory: PathBuf,
    /// The variables.
    pub environment: BTreeMap<String, String>,
}

/// Whether a key applies without a restart.
pub(super) fn applies(key: &str) -> bool {
    let is_it = |applied: &str| {
        key.strip_prefix(applied).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    APPLIED.into_iter().any(is_it)
}

impl ConfigSource {
    /// The keys whose values differ in `newer`; of a list of tables, its name.
    pub(super) fn differences(&self, newer: &Self, top: &'static Table) -> Vec<String> {
        let (old, new) = (shown::values(top, self.root.clone()), shown::values(top, newer.root.clone()));
        let mut differences: Vec<String> = Vec::new();
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        for key in new.keys().filter(|key| old.get(*key) != new.get(*key)).chain(gone) {
            let name = key.split('[').next().unwrap_or(key);
            if !differences.iter().any(|known| known == name) {
                differences.push(name.to_owned());
            }
        }
        differences.sort_unstable();
        differences
    }

    /// The keys of `newer` that apply without a restart, and all others as they are here.
    pub(super) fn reloaded(&self, newer: &Self, top: &'static Table) -> Self {
        let mut old = self.root.clone();
        let mut new = newer.root.clone();
        for root in [&mut old, &mut new] {
            rename(root, top);
        }
        for applied in APPLIED {
            match applied.split_once('.') {
                None => take(&mut old, &mut new, applied),
                Some((table, key)) => {
                    let (into, from) = (inner(&mut old, table), inner(&mut new, table));
                    if let (Some(into), Some(from)) = (into, from) {
                        take(into, from, key);
                    }
                }
            }
        }
        Self { root: old, ..newer.clone() }
    }
}

/// Takes a value over, or that there is none.
fn take(into: &mut Map<String, Value>, from: &mut Map<String, Value>, key: &str) {
    into.remove(key);
    if let Some(value) = from.remove(key) {
        into.insert(key.to_owned(), value);
    }
}

/// The table of this name, which need not be written; `None` if something else is.
fn inner<'a>(root: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let empty = || Value::new(None, ValueKind::Table(Map::new()));
    match &mut root.entry(name.to_owned()).or_insert_with(empty).kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}

impl fmt::Debug for ConfigSource {
    /// Shows no values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSource").field("directory", &self.directory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use crate::config::reload::*;

    fn config(text: &str) -> Config {
        let environment = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
        Config::parse(text, Path::new("/etc"), &environment).unwrap()
    }

    #[test]
    fn each_key_either_applies_or_needs_a_restart() {
        for (key, expected) in [
            ("pay", true),
            ("pay[0].host", true),
            ("budget", true),
            ("hooks.init.action", true),
            ("intercept.hosts", true),
            ("intercept.ca_cert", false),
            ("log.file", false),
            ("log.access", true),
            ("payments", false),
            ("listen", false),
            ("wallet.keystore", false),
        ] {
            assert_eq!(applies(key), expected, "{key}");
        }
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named_and_the_rest_applies() {
        let old = config(
            "listen = 8402\nworkers = 2\n[wallet]\nkey_file = \"key\"\n[log]\nfile = \"a\"\n\
             [[pay]]\nhost = \"a.example\"\nmax_price = 1\n",
        );
        let new = config(
            "listen = 8403\nworkers = 2\n[wallet]\nkey_file = \"other\"\n[log]\nfile = \"b\"\naccess = true\n\
             [limits]\npay_within = \"9s\"\n[deposit]\nmax_total = 7\n[[budget]]\nname = \"b\"\nwallet = true\ntotal = 5\n\
             [[pay]]\nhost = \"b.example\"\nmax_price = 1\n",
        );
        let reloaded = old.reloaded(&new).unwrap();
        assert_eq!(reloaded.changed, ["budget", "deposit.max_total", "log.access", "pay"]);
        assert_eq!(reloaded.needs_restart, ["limits.pay_timeout", "listen", "log.file", "wallet.key_file"]);
        let config = reloaded.config;
        assert_eq!((config.listen.port(), config.log.file.unwrap()), (8402, PathBuf::from("/etc/a")));
        assert!(config.log.access && config.policy.rule("b.example", 80).is_some());
        assert!(config.policy.rule("a.example", 80).is_none());
        assert_eq!(config.policy.pay_timeout, old.policy.pay_timeout);
        assert_eq!(config.policy.budgets.len(), 1);
        // The interception list follows the rules.
        assert!(config.intercept.covers("b.example", 443) && !config.intercept.covers("a.example", 443));
        let same = old.reloaded(&old).unwrap();
        assert!(same.changed.is_empty() && same.needs_restart.is_empty());
    }

    #[test]
    fn a_list_that_is_empty_is_not_one_that_is_missing() {
        let client = "[[client]]\nname = \"a\"\ntoken_file = \"a\"\n";
        let (all, none) = (config(client), config(&format!("{client}pay = []\n")));
        assert_eq!(all.reloaded(&none).unwrap().changed, ["client"]);
        assert_eq!(none.reloaded(&all).unwrap().changed, ["client"]);
    }

    #[test]
    fn new_keys_must_be_valid_together_with_those_that_stay() {
        let exposed = "listen = \"0.0.0.0:8402\"\nallow_remote = true\n[wallet]\nkey_file = \"key\"\n\
                       [[client]]\nname = \"a\"\ntoken_file = \"a\"\n";
        let error = config(exposed).reloaded(&config("[wallet]\nkey_file = \"key\"\n")).unwrap_err();
        assert!(error.to_string().contains("listen"), "{error}");
        let routed = "[[client]]\nname = \"a\"\ntoken_file = \"a\"\n[[route]]\nprefix = \"/a\"\n\
                      origin = \"http://a.example\"\nclient = \"a\"\n";
        let error = config(routed).reloaded(&config("")).unwrap_err();
        assert!(error.to_string().contains("route[0].client"), "{error}");
    }

    #[test]
    fn no_value_is_shown() {
        let shown = format!(
            "{:?}",
            config(
                "[chain]\nrpc_url = \"http://u:hidden@h\"\nchannel_manager = \"0x1440317CB15499083dEE3dDf49C2bD51D0d92e33\"\n[wallet]\nkey_file = \"k\"\n"
            )
        );
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
