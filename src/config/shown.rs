//! The keys that apply, with where each comes from, for people and scripts to read. URLs and commands are shortened: they may
//! contain secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use ::config::{Map, Value, ValueKind};
use serde::Serialize;
use serde_json::json;

use super::issue::ConfigIssue;
use super::key::{KeySpec, Shape, Table};
use super::lines::KeyLines;
use super::raw_value::{FROM_ENVIRONMENT, is_blank};
use super::renamed::rename;
use super::source;
use super::values::{show_duration, show_size};
use super::variables::variable;
use crate::limits::{Quantity, Unit};
use crate::private::is_secret;

/// The tables that mean something only if they are written.
const OPTIONAL: [&str; 2] = ["wallet", "chain"];

/// A key that applies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownKey {
    /// Its path, such as `limits.pay_timeout`.
    pub key: String,
    /// Its value; of a URL, only scheme, host and port, and of a command, only its name.
    pub value: serde_json::Value,
    /// Where the value comes from.
    pub from: KeyOrigin,
}

/// Where the value of a key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyOrigin {
    /// It is the default.
    Default,
    /// An environment variable.
    Variable(String),
    /// The file, and the line there if it is known.
    Line(Option<usize>),
}

/// The keys of a text and of these variables that apply, in the order of `proxy.toml`.
pub(super) fn shown(
    top: &'static Table,
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<ShownKey>, ConfigIssue> {
    let (values, _) = source::merge(text, environment)?;
    let mut listing = KeyListing { lines: KeyLines::new(text), keys: Vec::new(), is_public: true };
    listing.table(top, values, "", true);
    Ok(listing.keys)
}

/// The whole values of all keys that apply, to compare them. They may contain secrets.
pub(super) fn values(top: &'static Table, root: Map<String, Value>) -> BTreeMap<String, serde_json::Value> {
    let mut listing = KeyListing { lines: KeyLines::new(""), keys: Vec::new(), is_public: false };
    listing.table(top, root, "", true);
    listing.keys.into_iter().map(|shown| (shown.key, shown.value)).collect()
}

struct KeyListing<'a> {
    lines: KeyLines<'a>,
    keys: Vec<ShownKey>,
    /// Whether what may be a secret is left out.
    is_public: bool,
}

impl KeyListing<'_> {
    fn table(
        &mut self,
        table: &'static Table,
        mut values: Map<String, Value>,
        path: &str,
        has_defaults: bool,
    ) {
        // Issues with both names are reported when the configuration is loaded.
        rename(&mut values, table);
        for spec in table.keys {
            let path = if path.is_empty() { spec.name.to_owned() } else { format!("{path}.{}", spec.name) };
            let value = values.remove(spec.name).filter(|value| !is_blank(value));
            match (spec.shape, value.map(|value| (value.origin() == Some(FROM_ENVIRONMENT), value.kind))) {
                (Shape::Table(inner), Some((_, ValueKind::Table(values)))) => {
                    self.table(inner, values, &path, has_defaults);
                }
                (Shape::Table(inner), None) if has_defaults && spec.default.is_none() => {
                    if !OPTIONAL.contains(&spec.name) {
                        self.table(inner, Map::new(), &path, true);
                    }
                }
                (Shape::Tables(inner, _), Some((_, ValueKind::Array(entries)))) => {
                    if !self.is_public {
                        // An empty list differs from none.
                        self.add(path.clone(), json!(entries.len()), KeyOrigin::Default);
                    }
                    for (index, entry) in entries.into_iter().enumerate() {
                        if let ValueKind::Table(values) = entry.kind {
                            self.table(inner, values, &format!("{path}[{index}]"), false);
                        }
                    }
                }
                (_, Some((is_variable, value))) => {
                    let from = match is_variable {
                        true => KeyOrigin::Variable(variable(&path)),
                        false => KeyOrigin::Line(self.lines.of(&path)),
                    };
                    let value = json(&value);
                    self.add(path, if self.is_public { public(spec, value) } else { value }, from);
                }
                (_, None) => {
                    if let Some(default) = default_of(spec).filter(|_| has_defaults) {
                        self.add(path, default, KeyOrigin::Default);
                    }
                }
            }
        }
    }

    fn add(&mut self, key: String, value: serde_json::Value, from: KeyOrigin) {
        self.keys.push(ShownKey { key, value, from });
    }
}

/// The value of a key that is not set, if it has one.
fn default_of(spec: &KeySpec) -> Option<serde_json::Value> {
    let default = spec.default.map(|default| default());
    default.or_else(|| match spec.shape {
        Shape::Boolean(default) => Some(json!(default)),
        Shape::Quantity(Quantity { unit, default, .. }) => Some(match unit {
            Unit::Count => json!(default),
            Unit::Bytes => json!(show_size(default)),
            Unit::Time => json!(show_duration(Duration::from_nanos(default))),
        }),
        _ => None,
    })
}

/// A value of the file as JSON.
fn json(value: &ValueKind) -> serde_json::Value {
    match value {
        ValueKind::Nil => serde_json::Value::Null,
        ValueKind::Boolean(value) => json!(value),
        ValueKind::I64(number) => json!(number),
        ValueKind::U64(number) => json!(number),
        ValueKind::I128(number) => json!(number.to_string()),
        ValueKind::U128(number) => json!(number.to_string()),
        ValueKind::Float(number) => json!(number),
        ValueKind::String(text) => json!(text),
        ValueKind::Array(items) => items.iter().map(|item| json(&item.kind)).collect(),
        ValueKind::Table(values) => {
            // In the order of names: the table has none.
            let values: BTreeMap<_, _> = values.iter().map(|(key, value)| (key, json(&value.kind))).collect();
            json!(values)
        }
    }
}

/// The value without what may be a secret: the user, path and query of a URL, the arguments of a command, and what looks like a
/// key.
fn public(spec: &KeySpec, value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) => json!(public_text(spec, &text)),
        serde_json::Value::Array(items) => items.into_iter().map(|item| public(spec, item)).collect(),
        serde_json::Value::Object(values) => {
            values.into_iter().map(|(key, value)| (key, public(spec, value))).collect()
        }
        other => other,
    }
}

fn public_text(spec: &KeySpec, text: &str) -> String {
    if is_secret(text) {
        return "...".to_owned();
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit('@').next().unwrap_or_default();
        let is_whole = host == authority && path.len() < 2;
        return format!("{scheme}://{host}{}", if is_whole { path } else { "/..." });
    }
    match text.split_once(char::is_whitespace) {
        Some((program, _)) if spec.name == "signer" => format!("{program} ..."),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load::TOP;
    use crate::config::shown::*;

    #[test]
    fn each_key_says_where_it_comes_from() {
        let text = "listen = 8403\n[limits]\npay_within = \"5s\"\n[[pay]]\nhost = \"a.example\"\n\
                    [chain]\nrpc_url = \"http://node\"\n";
        let environment = BTreeMap::from([("TOLLPASS_LIMITS__MAX_ATTEMPTS".to_owned(), "2".to_owned())]);
        let keys = shown(&TOP, text, &environment).unwrap();
        let find =
            |key: &str| keys.iter().find(|shown| shown.key == key).map(|shown| (&shown.value, &shown.from));
        for (key, value, from) in [
            ("listen", json!(8403), KeyOrigin::Line(Some(1))),
            ("limits.pay_timeout", json!("5s"), KeyOrigin::Line(Some(2))),
            (
                "limits.max_attempts",
                json!("2"),
                KeyOrigin::Variable("TOLLPASS_LIMITS__MAX_ATTEMPTS".to_owned()),
            ),
            ("pay[0].host", json!("a.example"), KeyOrigin::Line(Some(5))),
            ("allow_remote", json!(false), KeyOrigin::Default),
            ("chain.confirmations", json!(1), KeyOrigin::Default),
        ] {
            let found = find(key).unwrap_or_else(|| panic!("{key} is not shown"));
            assert_eq!(found.1, &from, "{key}");
            assert!(key == "chain.confirmations" || found.0 == &value, "{key}: {found:?}");
        }
        assert!(find("wallet.keystore").is_none() && find("pay[0].send_ahead").is_none());
    }

    #[test]
    fn no_secret_is_shown() {
        let text = "[wallet]\nsigner = \"sign --token hidden\"\n[chain]\nrpc_url = \"https://u:hidden@node:1/hidden\"\n\
                    [hooks.init]\naction = \"ask\"\nwebhook = \"http://h/?hidden\"\n[[budget]]\nwebhook = \"http://h/hidden\"\n";
        let keys = shown(&TOP, text, &BTreeMap::new()).unwrap();
        let all = json!(keys).to_string();
        assert!(!all.contains("hidden"), "{all}");
        assert!(all.contains("\"https://node:1/...\"") && all.contains("\"sign ...\""), "{all}");
    }
}
