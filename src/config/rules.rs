//! JSON Schema rules that relate the keys of a table.

use serde_json::{Value, json};

/// A schema that holds if the key is set: an empty string counts as unset.
pub(super) fn is_set(key: &str) -> Value {
    json!({"required": [key], "properties": {key: {"not": {"type": "string", "pattern": r"^\s*$"}}}})
}

/// A schema that holds if both keys are set, or neither is.
pub(super) fn both_or_neither(one: &str, other: &str) -> Value {
    json!({"if": {"anyOf": [is_set(one), is_set(other)]}, "then": {"allOf": [is_set(one), is_set(other)]}})
}
