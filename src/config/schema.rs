//! The JSON Schema of the configuration file, made from the tables of its keys.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::key::{KeySpec, Shape, Table};
use super::load::TOP;
use super::values::{show_duration, show_size};
use crate::limits::{Quantity, Unit};

/// Durations as `humantime` reads them.
const DURATION: &str = r"^\s*(\d+\s*[A-Za-z]+\s*)+$";
/// A number of bytes with a unit.
const SIZE: &str = r"^\d+(\.\d+)?\s*([KkMmGgTtPpEe][Ii]?)?[Bb]$|^\d+$";
/// An amount of ether with a unit.
const ETHER: &str = r"^\d+(\.\d+)?\s*([Ww][Ee][Ii]|[Gg][Ww][Ee][Ii]|[Ee][Tt][Hh]([Ee][Rr])?)$|^\d+$";

const NOTE: &str = "The configuration of tollpass, in TOML. This schema asks for values in their usual form. \
                    tollpass also accepts a number, true or false in quotes, a list of strings as one string with commas, \
                    an empty string for a key that is not set, and old names of keys, with a warning. x-minimum and \
                    x-maximum are the bounds of values that are strings with a unit.";

/// The JSON Schema (draft 2020-12) of a configuration file.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let mut schema = object(&TOP, &mut definitions);
    if let Value::Object(schema) = &mut schema {
        schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        schema.insert("title".to_owned(), json!("proxy.toml"));
        schema.insert("description".to_owned(), json!(NOTE));
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

fn object(table: &Table, definitions: &mut Map<String, Value>) -> Value {
    let properties: Map<String, Value> =
        table.keys.iter().map(|key| (key.name.to_owned(), property(key, definitions))).collect();
    let required: Vec<_> = table.keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
    let mut object = json!({
        "type": "object",
        "description": table.documentation,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    let rules = (table.rules)();
    if !rules.is_empty() {
        object["allOf"] = json!(rules);
    }
    object
}

fn property(key: &KeySpec, definitions: &mut Map<String, Value>) -> Value {
    let mut property = shape(&key.shape, definitions);
    let lines: Vec<_> = key.documentation.iter().map(|line| line.trim()).collect();
    property["description"] = json!(lines.join(" "));
    if let Some(default) = key.default {
        property["default"] = default();
    }
    property
}

fn shape(shape: &Shape, definitions: &mut Map<String, Value>) -> Value {
    match *shape {
        Shape::Boolean(default) => json!({"type": "boolean", "default": default}),
        Shape::Quantity(bounds) => quantity(bounds),
        Shape::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Shape::Time(min, max) => {
            let [min, max] = [min, max].map(|time| show_duration(Duration::from_nanos(time)));
            json!({"type": "string", "pattern": DURATION, "x-minimum": min, "x-maximum": max})
        }
        Shape::Word(words) => json!({"enum": words}),
        Shape::Text(pattern) => json!({"type": "string", "pattern": pattern}),
        Shape::Path => json!({"type": "string"}),
        Shape::Amount(min, max) => {
            let bare = json!({"type": "integer", "minimum": min});
            let mut amount = json!({"anyOf": [bare, {"type": "string", "pattern": "^[0-9]+$"}]});
            amount["x-minimum"] = json!(min.to_string());
            if let Some(max) = max {
                amount["x-maximum"] = json!(max.to_string());
            }
            amount
        }
        Shape::Ether => {
            json!({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": ETHER}]})
        }
        Shape::Any(shapes) => {
            let shapes: Vec<_> = shapes.iter().map(|shape| self::shape(shape, definitions)).collect();
            json!({"anyOf": shapes})
        }
        Shape::List(of, min, max) => {
            json!({"type": "array", "items": self::shape(of, definitions), "minItems": min, "maxItems": max})
        }
        Shape::Table(table) => reference(table, definitions),
        Shape::Tables(table, max) => {
            json!({"type": "array", "items": reference(table, definitions), "maxItems": max})
        }
    }
}

fn quantity(Quantity { unit, default, min, max }: Quantity) -> Value {
    match unit {
        Unit::Count => json!({"type": "integer", "minimum": min, "maximum": max, "default": default}),
        Unit::Bytes => json!({
            "anyOf": [
                {"type": "integer", "minimum": min, "maximum": max},
                {"type": "string", "pattern": SIZE},
            ],
            "default": show_size(default),
            "x-minimum": show_size(min),
            "x-maximum": show_size(max),
        }),
        Unit::Time => {
            let [default, min, max] =
                [default, min, max].map(|time| show_duration(Duration::from_nanos(time)));
            json!({
                "type": "string",
                "pattern": DURATION,
                "default": default,
                "x-minimum": min,
                "x-maximum": max,
            })
        }
    }
}

fn reference(table: &Table, definitions: &mut Map<String, Value>) -> Value {
    if !definitions.contains_key(table.name) {
        // Tables do not contain themselves, so this ends.
        let definition = object(table, definitions);
        definitions.insert(table.name.to_owned(), definition);
    }
    json!({"$ref": format!("#/$defs/{}", table.name)})
}
