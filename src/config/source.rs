//! Merges the file with the environment variables that override it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use ::config::{Environment, File as Source, FileFormat, Map, Value, ValueKind};

use super::entries;
use super::issue::{ConfigIssue, nearest};
use super::lines::KeyLines;
use super::upstream;
use super::variables::{ENVIRONMENT_PREFIX, OTHER_VARIABLES};
use crate::private::is_secret;

/// The prefix of the variables of a Service named tollpass.
const SERVICE: &str = "TOLLPASS";
/// The largest file that is read, far larger than a handwritten one.
const MAX_FILE: u64 = 16 << 20;

/// The file's table with the variables applied, and what is wrong with those that set entries of lists.
pub(super) fn merge(
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<(Map<String, Value>, Vec<ConfigIssue>), ConfigIssue> {
    let variables = Environment::with_prefix(ENVIRONMENT_PREFIX.trim_end_matches('_'))
        .prefix_separator("_")
        .separator("__")
        .ignore_empty(true);
    let mut sources = ::config::Config::builder().add_source(Source::from_str(text, FileFormat::Toml));
    // One by one, since they may conflict: the name of a table is set after its keys, and is then reported.
    for (name, value) in
        environment.iter().rev().filter(|(name, _)| is_key(name) && entries::list_of(name).is_none())
    {
        let variable = Map::from([(name.clone(), value.clone())]);
        sources = sources.add_source(variables.clone().source(Some(variable)));
    }
    let merged = sources.build().map_err(|error| syntax(&error, text))?;
    let mut root = match merged.cache.kind {
        ValueKind::Table(table) => table,
        _ => Map::new(),
    };
    let issues = entries::add(&mut root, environment);
    Ok((root, issues))
}

/// Reads a file of at most [`MAX_FILE`] bytes.
pub(super) fn read(path: &Path) -> Result<String, ConfigIssue> {
    let remedy = "pass a readable file with --config; `tollpass init` creates one";
    let unread = |error: io::Error| ConfigIssue::new("", format!("cannot be read: {error}"), remedy);
    let mut bytes = Vec::new();
    // The path may be a pipe, which has no size to check first.
    let opened = File::open(path).map_err(unread)?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unread(io::Error::other(format!("larger than {MAX_FILE} bytes"))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = Some(before.filter(|byte| **byte == b'\n').count() + 1);
        ConfigIssue { line, ..ConfigIssue::new("", "not UTF-8", "save the file as UTF-8") }
    })
}

/// Removes the variables that Kubernetes sets in every container for a Service whose name begins with tollpass, and returns
/// a warning that names them.
pub(super) fn without_services(environment: &mut BTreeMap<String, String>) -> Option<String> {
    let is_service = |name: &String| {
        let Some(service) = service_of(name) else { return false };
        // Another name could be a typo; for a Service, all variables are set.
        let is_there = |end: &str| environment.contains_key(&format!("{service}{end}"));
        service == SERVICE || (is_there("_SERVICE_HOST") && is_there("_SERVICE_PORT"))
    };
    let names: Vec<String> = environment.keys().filter(|name| is_service(name)).cloned().collect();
    environment.retain(|name, _| !names.contains(name));
    let [first, rest @ ..] = names.as_slice() else { return None };
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more like it", rest.len()) };
    Some(format!(
        "ignoring the variable {first}{more}: Kubernetes sets it for a Service of this name (enableServiceLinks: false in \
         the Pod keeps such variables out). The address to listen on is TOLLPASS_LISTEN"
    ))
}

/// The name of the Service, as in variables, for which Kubernetes would set this variable: `X_SERVICE_HOST`,
/// `X_SERVICE_PORT`, `X_SERVICE_PORT_HTTP`, `X_PORT`, `X_PORT_8402_TCP` and `X_PORT_8402_TCP_ADDR` are for `X`.
fn service_of(variable: &str) -> Option<&str> {
    // Two underscores separate a table from its key.
    if !variable.starts_with(ENVIRONMENT_PREFIX) || variable.contains("__") {
        return None;
    }
    let service = |at: usize| variable.get(..at).filter(|name| name.starts_with(SERVICE));
    if let Some((at, _)) = variable.rmatch_indices("_SERVICE_").next() {
        let rest = variable.get(at + "_SERVICE_".len()..)?;
        let is_one = rest == "HOST" || rest == "PORT" || rest.starts_with("PORT_");
        return service(at).filter(|_| is_one);
    }
    if let Some(at) = variable.find("_PORT_") {
        let mut words = variable.get(at + "_PORT_".len()..)?.split('_');
        let number = words.next()?;
        let is_one = !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(words.next(), None | Some("PROTO" | "PORT" | "ADDR"))
            && words.next().is_none();
        return service(at).filter(|_| is_one);
    }
    variable.strip_suffix("_PORT").filter(|name| name.starts_with(SERVICE))
}

/// Removes the variables whose prefix is misspelt, and returns a warning for each.
pub(super) fn without_misspelt(environment: &mut BTreeMap<String, String>) -> Vec<String> {
    let meant: Vec<(String, String)> =
        environment.keys().filter_map(|name| Some((name.clone(), meant(name)?))).collect();
    let warn = |(name, meant): (String, String)| {
        environment.remove(&name);
        format!("ignoring the variable {name}: did you mean {meant}?")
    };
    meant.into_iter().map(warn).collect()
}

/// The variable of tollpass that one with a misspelt prefix probably stands for.
fn meant(variable: &str) -> Option<String> {
    if variable.starts_with(ENVIRONMENT_PREFIX) {
        return None;
    }
    let name = variable.to_ascii_uppercase();
    let (word, rest) = match name.strip_prefix("TOLL_PASS_") {
        Some(rest) => (SERVICE, rest),
        None => name.split_once('_')?,
    };
    let is_ours = !rest.is_empty() && nearest(word, [SERVICE]).is_some();
    is_ours.then(|| format!("{ENVIRONMENT_PREFIX}{rest}"))
}

/// The environment variables that the configuration reads, and those that are probably meant for it.
pub(super) fn environment() -> Result<BTreeMap<String, String>, ConfigIssue> {
    let mut variables = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let is_others = |name: &str| {
            matches!(name, "HOME" | "XDG_STATE_HOME")
                || upstream::VARIABLES.contains(&name)
                || meant(name).is_some()
        };
        let Some(name) = name.to_str().filter(|name| is_key(name) || is_others(name)) else {
            continue;
        };
        let value = value.into_string().map_err(|_| {
            ConfigIssue::new(name, "the variable is not UTF-8", "set it to plain text, or unset it")
        })?;
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

pub(super) fn is_key(variable: &str) -> bool {
    variable.starts_with(ENVIRONMENT_PREFIX) && !OTHER_VARIABLES.contains(&variable)
}

/// Describes a syntax error without the parser's excerpt, which may contain a secret.
fn syntax(error: &::config::ConfigError, file: &str) -> ConfigIssue {
    if let Some((key, line)) = KeyLines::new(file).too_large() {
        let remedy =
            "write a smaller number, or an amount of base units above 9223372036854775807 in \"quotes\"";
        return ConfigIssue { line: Some(line), ..ConfigIssue::new(key, "the number is too large", remedy) };
    }
    let text = match error {
        ::config::ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let is_excerpt =
        |line: &str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let said: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_excerpt(line)).collect();
    let said = said.join(": ");
    match duplicate(&said, file) {
        Some(name) => ConfigIssue::new("", format!("{said} {name}"), "merge the two, or remove one"),
        None => ConfigIssue::new("", said, "correct this line (TOML syntax)"),
    }
}

/// The key or table that the parser calls a duplicate.
fn duplicate<'a>(said: &str, file: &'a str) -> Option<&'a str> {
    let (_, place) = said.strip_suffix(": duplicate key")?.split_once("at line ")?;
    let (line, column) = place.split_once(", column ")?;
    let line = file.lines().nth(line.parse::<usize>().ok()?.checked_sub(1)?)?;
    let column = column.parse::<usize>().ok()?.checked_sub(1)?;
    let from = line.get(line.char_indices().nth(column)?.0..)?;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let name = from.get(..from.find(|letter| !is_name(letter)).unwrap_or(from.len()))?;
    (!name.is_empty() && !is_secret(name)).then_some(name)
}
