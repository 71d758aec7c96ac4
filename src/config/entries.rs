//! Entries of lists of tables from the environment: `TOLLPASS_PAY__0__HOST` is `host` of the first `[[pay]]`. A list comes from
//! the file or from the environment, never from both: their order decides, and a mixture would have none.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ::config::{Map, Value, ValueKind};

use super::issue::ConfigIssue;
use super::origin;
use super::raw_value::FROM_ENVIRONMENT;
use super::variables::variable;

/// Lists of tables, whose entries have numbers in the names of variables.
const LISTS: [&str; 7] = ["pay", "asset", "network", "budget", "client", "route", origin::NAME];
/// Such lists within entries.
const NESTED: [&str; 1] = ["client.pay"];

/// The most parts of a name after that of the list: TOLLPASS_CLIENT__0__PAY__0__HOOKS__SUCCESS__ACTION has six.
const DEEPEST: usize = 6;

/// What variables set at one place.
enum Setting {
    Value(String),
    Within(BTreeMap<String, Self>),
}

/// The list that a variable sets or changes, in any notation that the crate `config` accepts (`PAY__0`, `PAY[0]`).
pub(super) fn list_of(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    LISTS.into_iter().find(|list| {
        let rest = name.strip_prefix(&variable(list));
        rest.is_some_and(|rest| rest.is_empty() || ["__", "[", "."].iter().any(|next| rest.starts_with(next)))
    })
}

/// Adds the entries that variables set to the file's table. Returns what is wrong with them.
pub(super) fn add(root: &mut Map<String, Value>, environment: &BTreeMap<String, String>) -> Vec<ConfigIssue> {
    let mut issues = Vec::new();
    let mut lists: BTreeMap<&'static str, (&str, BTreeMap<String, Setting>)> = BTreeMap::new();
    for (name, value) in environment.iter().filter(|(_, value)| !value.trim().is_empty()) {
        let Some(list) = list_of(name) else { continue };
        let path = name.get(variable(list).len()..).unwrap_or_default().to_ascii_lowercase();
        let is_plain = |path: &&str| !path.contains(['[', ']', '.']) && path.split("__").count() <= DEEPEST;
        let Some(path) = path.strip_prefix("__").filter(is_plain) else {
            issues.push(unnumbered(list, name));
            continue;
        };
        let (_, entries) = lists.entry(list).or_insert_with(|| (name.as_str(), BTreeMap::new()));
        if !set(entries, path, value) {
            let problem = format!("{name} and another variable set the same key, or a table and a key in it");
            issues.push(ConfigIssue::new(list, problem, "unset one of them"));
        }
    }
    for (list, (name, entries)) in lists {
        let entries = from_environment(self::list(list, list, entries, &mut issues));
        let (above, key) = list.rsplit_once('.').unwrap_or(("", list));
        let Some(table) = table_at(root, above) else { continue };
        if table.contains_key(key) {
            let problem = format!("entries are in the file, and in variables ({name})");
            issues.push(ConfigIssue::new(list, problem, "write all of them in one place"));
        } else {
            table.insert(key.to_owned(), entries);
        }
    }
    issues
}

/// The table at the top or one below it, which is made if it does not exist; `None` if there is something else.
fn table_at<'a>(root: &'a mut Map<String, Value>, path: &str) -> Option<&'a mut Map<String, Value>> {
    if path.is_empty() {
        return Some(root);
    }
    let empty = || ValueKind::Table(Map::new()).into();
    match &mut root.entry(path.to_owned()).or_insert_with(empty).kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}

/// Sets the value at a path; false if it is set, or a part of it has a value.
fn set(table: &mut BTreeMap<String, Setting>, path: &str, value: &str) -> bool {
    let (first, rest) = match path.split_once("__") {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let place = table.entry(first.to_owned());
    let Some(rest) = rest else {
        let is_new = matches!(place, Entry::Vacant(_));
        place.or_insert_with(|| Setting::Value(value.to_owned()));
        return is_new;
    };
    match place.or_insert_with(|| Setting::Within(BTreeMap::new())) {
        Setting::Within(within) => set(within, rest, value),
        Setting::Value(_) => false,
    }
}

/// The entries of the list `kind` at `path`, which has the numbers of entries around it.
fn list(
    kind: &str,
    path: &str,
    entries: BTreeMap<String, Setting>,
    issues: &mut Vec<ConfigIssue>,
) -> ValueKind {
    let mut numbered = BTreeMap::new();
    for (key, setting) in entries {
        let name = format!("{}__{}", variable(path), key.to_ascii_uppercase());
        match (number(&key), setting) {
            (Some(number), Setting::Within(keys)) => drop(numbered.insert(number, keys)),
            (None, _) | (_, Setting::Value(_)) => issues.push(unnumbered(path, &name)),
        }
    }
    let mut values: Vec<Value> = Vec::with_capacity(numbered.len());
    for (place, (number, keys)) in numbered.into_iter().enumerate() {
        if place != number {
            let [missing, found] = [place, number].map(|number| format!("{}__{number}", variable(path)));
            let problem = format!("there is an entry {found}, and no {missing}");
            let remedy = "number the entries 0, 1, 2 and so on: their order counts";
            issues.push(ConfigIssue::new(path, problem, remedy));
            break;
        }
        values.push(from_environment(table(kind, &format!("{path}[{number}]"), keys, issues)));
    }
    ValueKind::Array(values)
}

/// The keys of a table of `kind` at `path`.
fn table(
    kind: &str,
    path: &str,
    keys: BTreeMap<String, Setting>,
    issues: &mut Vec<ConfigIssue>,
) -> ValueKind {
    let mut values = Map::new();
    for (key, setting) in keys {
        let [kind, path] = [kind, path].map(|above| format!("{above}.{key}"));
        let value = match setting {
            Setting::Value(_) if NESTED.contains(&kind.as_str()) => {
                issues.push(unnumbered(&path, &variable(&path)));
                continue;
            }
            Setting::Value(text) => ValueKind::String(text),
            Setting::Within(keys) if NESTED.contains(&kind.as_str()) => list(&kind, &path, keys, issues),
            Setting::Within(keys) => table(&kind, &path, keys, issues),
        };
        values.insert(key, from_environment(value));
    }
    ValueKind::Table(values)
}

fn from_environment(value: ValueKind) -> Value {
    Value::new(Some(&FROM_ENVIRONMENT.to_owned()), value)
}

/// A number as it is written without a sign and without leading zeros.
fn number(text: &str) -> Option<usize> {
    text.parse::<usize>().ok().filter(|number| number.to_string() == text)
}

/// The issue of a variable that does not set a key of an entry of the list at `path`.
fn unnumbered(path: &str, name: &str) -> ConfigIssue {
    let problem = format!("{name} does not set a key of an entry");
    let remedy = format!("write {}__0__KEY for a key of the first entry, and so on", variable(path));
    ConfigIssue::new(path, problem, remedy)
}
