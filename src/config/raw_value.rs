//! Values of the file and the environment before they are parsed, and why one is invalid.

use std::fmt;

use ::config::{Value, ValueKind};

use crate::private::is_secret;

/// Why a value is invalid, and what to write instead.
pub(super) struct InvalidValue {
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl InvalidValue {
    pub(super) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// What the crate `config` calls values of environment variables.
pub(super) const FROM_ENVIRONMENT: &str = "the environment";

/// The type of a value in terms of the file format; never its content.
pub(super) fn kind(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "an integer",
        ValueKind::Float(_) => "a number with a decimal point",
        ValueKind::String(_) => "a string",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// A string quoted for a message, truncated if it is long; of what may be a secret, only its length.
pub(super) fn quoted(text: impl fmt::Display) -> String {
    let text = text.to_string();
    if is_secret(&text) {
        return format!("a value of {} characters, which looks like a secret,", text.chars().count());
    }
    if text.chars().count() <= 60 {
        return format!("{text:?}");
    }
    format!("{:?}...", text.chars().take(60).collect::<String>())
}

pub(super) fn is_blank(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Nil => true,
        ValueKind::String(text) => text.trim().is_empty(),
        _ => false,
    }
}
