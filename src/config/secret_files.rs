//! Values from files that variables name, as Docker and Kubernetes provide secrets: `TOLLPASS_CHAIN__RPC_URL_FILE` names a
//! file that contains `rpc_url` of `[chain]`.

use std::collections::BTreeMap;

use super::issue::ConfigIssue;
use super::key::{KeySpec, Shape, Table};
use super::source::is_key;
use super::values::BasePaths;
use super::variables::ENVIRONMENT_PREFIX;
use crate::private;

/// The end of the names of such variables.
pub(super) const END: &str = "_FILE";

/// Replaces each variable that names a file by the one that has its content. Returns the names of the latter, and what is
/// wrong with the files.
pub(super) fn resolve(
    environment: &mut BTreeMap<String, String>,
    top: &'static Table,
    base: &BasePaths,
) -> (Vec<String>, Vec<ConfigIssue>) {
    let names = environment.keys().filter_map(|name| {
        let of = name.strip_suffix(END).filter(|of| is_key(name) && of.starts_with(ENVIRONMENT_PREFIX))?;
        // Some keys have this end themselves.
        let is_meant = !is_value(top, name) && is_value(top, of);
        is_meant.then(|| (name.clone(), of.to_owned()))
    });
    let (mut from_files, mut issues) = (Vec::new(), Vec::new());
    for (name, of) in names.collect::<Vec<_>>() {
        let Some(path) = environment.remove(&name).filter(|path| !path.trim().is_empty()) else { continue };
        let mut report =
            |problem: String, remedy: &str| issues.push(ConfigIssue::new(&name, problem, remedy));
        if environment.get(&of).is_some_and(|value| !value.trim().is_empty()) {
            report(format!("{of} is set, too"), "unset one of them");
            continue;
        }
        // A URL is meant for the variable without this end, and may contain a secret.
        let Some(path) = base.resolve(path.trim()).ok().filter(|_| !path.contains("://")) else {
            report("not the path of a file".to_owned(), "write the path of a file that contains the value");
            continue;
        };
        match private::read(&path) {
            Ok(bytes) => match std::str::from_utf8(private::without_mark(&bytes)) {
                Ok(text) => {
                    environment.insert(of.clone(), text.trim().to_owned());
                    from_files.push(of);
                }
                Err(_) => report(format!("{} is not UTF-8", path.display()), "write the value as plain text"),
            },
            Err(error) => {
                let remedy = "name a file that contains the value, and that only this user and root can read";
                report(format!("cannot be read: {error}"), remedy);
            }
        }
    }
    (from_files, issues)
}

/// Whether a variable sets a key that has a single value.
fn is_value(top: &'static Table, variable: &str) -> bool {
    let path = variable.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or_default().to_ascii_lowercase();
    let (mut table, mut parts) = (top, path.split("__"));
    while let Some(part) = parts.next() {
        let Some(KeySpec { shape, .. }) = table.keys.iter().find(|key| key.name == part) else {
            return false;
        };
        match shape {
            Shape::Table(within) => table = within,
            Shape::Tables(within, _) if parts.next().is_some() => table = within,
            Shape::Tables(..) => return false,
            _ => return parts.next().is_none(),
        }
    }
    false
}
