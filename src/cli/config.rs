//! `tollpass config`: describes the configuration format, shows what applies, and sets single keys.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde_json::json;

use super::config_args::{ConfigArgs, default_file};
use super::output::print;
use crate::app;
use crate::config::{Config, ConfigError, ConfigIssue, KeyOrigin, ShownKey, schema};
use crate::telemetry::{FILTER_VARIABLE, LogLevels};

/// What `tollpass config schema --help` shows below the options.
const ABOUT_SCHEMA: &str = "\
Editors and validators can check a configuration file with it: every key, its type,
default, bounds and description (JSON Schema, draft 2020-12). With Taplo, for example,
save it as schema.json and begin proxy.toml with the line:  #:schema ./schema.json

`tollpass check` checks more, such as files, the node and the contract.";

/// What `tollpass config show --help` shows below the options.
const ABOUT_SHOW: &str = "\
The keys that the file or an environment variable sets; with --all, also the defaults of
the others. Of URLs and commands, only what cannot be secret is shown.

An option of a command overrides the environment, and the environment overrides the file.
The file is that of --config, or of TOLLPASS_CONFIG, or else
$XDG_CONFIG_HOME/tollpass/proxy.toml (~/.config/tollpass/proxy.toml).";

/// What `tollpass config set --help` shows below the options.
const ABOUT_SET: &str = "\
VALUE is TOML, such as 5, true or [443, \"8000-8999\"]; anything else is a string. The file
keeps its comments and its order. It is written only if it is valid with the new value. A
running proxy reads it on `tollpass reload` or, for the keys that this does not change,
when it is started again.";

/// Show, change and document the configuration
#[derive(Clone, Debug, Args)]
pub struct ConfigCommand {
    /// The configuration.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// The action.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// The actions of `tollpass config`.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigAction {
    /// Print a JSON Schema of the configuration file
    #[command(after_long_help = ABOUT_SCHEMA)]
    Schema,
    /// Show the keys that are set, and where
    #[command(after_long_help = ABOUT_SHOW)]
    Show {
        /// Also show the defaults of all other keys
        #[arg(long)]
        all: bool,
        /// Write the keys as JSON
        #[arg(long)]
        json: bool,
    },
    /// Set a key in the configuration file
    #[command(after_long_help = ABOUT_SET)]
    Set {
        /// The key, such as `limits.pay_timeout` or `pay[0].max_price`
        key: String,
        /// The value
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
}

/// Prints the schema or the keys, or sets a key.
///
/// # Errors
/// The file cannot be read or written, or would be invalid; standard output cannot be written.
pub fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    match &command.action {
        ConfigAction::Schema => print(format!("{:#}\n", schema())),
        ConfigAction::Show { all, json } => show(&command.place, *all, *json),
        ConfigAction::Set { key, value } => set(&command.place, key, value),
    }
}

fn show(place: &ConfigArgs, has_defaults: bool, as_json: bool) -> anyhow::Result<()> {
    let file = place.file();
    let mut keys = Config::shown_keys(file.as_deref())?;
    keys.retain(|shown| has_defaults || shown.from != KeyOrigin::Default);
    if as_json {
        return print(serde_json::to_string_pretty(&json!({ "file": file, "keys": keys }))? + "\n");
    }
    let file = file.map_or_else(|| "no configuration file".to_owned(), |file| file.display().to_string());
    let lines = keys.iter().map(|ShownKey { key, value, from }| {
        let from = match from {
            KeyOrigin::Default => "default".to_owned(),
            KeyOrigin::Variable(name) => name.clone(),
            KeyOrigin::Line(Some(line)) => format!("line {line}"),
            KeyOrigin::Line(None) => "file".to_owned(),
        };
        format!("{key} = {value}  # {from}\n")
    });
    print(format!("# {file}\n{}", lines.collect::<String>()))
}

fn set(place: &ConfigArgs, key: &str, value: &str) -> anyhow::Result<()> {
    let file = place.file().ok_or_else(|| {
        let path = default_file().unwrap_or_default();
        anyhow!("{} does not exist; `tollpass init` creates it, or name a file with --config", path.display())
    })?;
    let edited = Config::edited(&file, key, value).map_err(|error| not_set(key, error))?;
    let (text, config) = edited.with_context(|| format!("cannot set {key}"))?;
    let levels = LogLevels::new(config.log.filter.as_deref(), app::DEFAULT_FILTER)
        .with_context(|| format!("cannot set {key}"))?;
    replace(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    let of_log = || (key == "log.filter" && levels.is_overridden()).then(|| FILTER_VARIABLE.to_owned());
    if let Some(variable) = Config::overriding(&file, key)?.or_else(of_log) {
        return print(format!(
            "set {key} in {}; but the variable {variable} is set and overrides it: unset it where the proxy is started\n",
            file.display()
        ));
    }
    let when = match Config::reload_applies(key) {
        true => "run `tollpass reload` to apply it to a running proxy",
        false => "a running proxy reads it when it is started again",
    };
    print(format!("set {key} in {}; {when}\n", file.display()))
}

/// Why a key is not set: the file is invalid anyway, or would be with the new value.
fn not_set(key: &str, error: ConfigError) -> anyhow::Error {
    if error.file.is_some() {
        return error.into();
    }
    let said = error.issues.iter().map(|ConfigIssue { key: of, problem, remedy, .. }| {
        let of = if of.is_empty() || of == key { String::new() } else { format!("{of}: ") };
        format!("{of}{problem}; {remedy}")
    });
    anyhow!("cannot set {key}: {}", said.collect::<Vec<_>>().join("\n  "))
}

/// Replaces a file at once, with the same owner, group and permissions. A symbolic link stays.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let path = fs::canonicalize(path)?;
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    file.write_all(text.as_bytes())?;
    let (ours, before) = (file.as_file().metadata()?, fs::metadata(&path)?);
    let (owner, group) = (before.uid(), before.gid());
    if (ours.uid(), ours.gid()) != (owner, group) {
        // The service that reads it may run as that user.
        fchown(file.as_file(), Some(owner), Some(group)).with_context(|| match ours.uid() == owner {
            true => format!(
                "it would not keep its group (gid {group}), to which you do not belong; run this as root"
            ),
            false => format!("it would not keep its owner (uid {owner}, gid {group}); run this as its owner"),
        })?;
    }
    file.as_file().set_permissions(before.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(())
}
