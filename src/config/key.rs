//! The declaration of a key: its type, default, bounds and documentation. The tables in the sibling modules are made of
//! these; the reader, its error messages and the JSON Schema all come from them.

use serde_json::Value;

use crate::limits::{Limit, Quantity};
use crate::protocol::Amount;

/// The keys of one table of the configuration.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name, which also names it in the schema.
    pub name: &'static str,
    /// One sentence about it.
    pub documentation: &'static str,
    /// Its keys, in the order of `proxy.toml`.
    pub keys: &'static [KeySpec],
    /// What no single key can express, as JSON Schemas that all apply.
    pub rules: fn() -> Vec<Value>,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeySpec {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub shape: Shape,
    /// The value if it is not set, unless `shape` contains it or there is none.
    pub default: Option<fn() -> Value>,
    /// True if its table is invalid without it.
    pub is_required: bool,
    /// Its documentation, one string per line.
    pub documentation: &'static [&'static str],
}

/// What a key may hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// True or false, and the default.
    Boolean(bool),
    /// A number, size or duration with a default.
    Quantity(Quantity),
    /// An integer without a default, and its inclusive bounds.
    Integer(u64, u64),
    /// A duration without a default, in nanoseconds, and its inclusive bounds.
    Time(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A string that matches this regular expression.
    Text(&'static str),
    /// The path of a file or directory.
    Path,
    /// An amount in base units, and its inclusive bounds.
    Amount(u64, Option<Amount>),
    /// An amount of ether.
    Ether,
    /// Any of these.
    Any(&'static [Self]),
    /// A list, with the least and the most entries.
    List(&'static Self, usize, usize),
    /// A table.
    Table(&'static Table),
    /// A list of tables, with the most entries.
    Tables(&'static Table, usize),
}

/// The address of an account or a contract.
pub(super) const ADDRESS: Shape = Shape::Text("^0[xX][0-9a-fA-F]{40}$");

/// An IP address and a port, or only a port, as `values::socket` reads them.
pub(super) const SOCKET: Shape = Shape::Any(&[
    Shape::Integer(0, 65_535),
    Shape::Text(
        r"^\s*(((\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:.%]+\]|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*|[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt])?:)?\d{1,5})\s*$",
    ),
]);

/// A pattern for hosts, as `hosts` reads it.
pub(super) const HOST_PATTERN: Shape = Shape::Text("^[^/]+$");

impl Table {
    /// A table without rules.
    pub(super) const fn new(
        name: &'static str,
        documentation: &'static str,
        keys: &'static [KeySpec],
    ) -> Self {
        Self { name, documentation, keys, rules: Vec::new }
    }

    /// The same with rules.
    pub(super) const fn with_rules(mut self, rules: fn() -> Vec<Value>) -> Self {
        self.rules = rules;
        self
    }

    /// The names of its keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }

    /// True if it has a key of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }
}

impl KeySpec {
    /// An optional key whose default, if any, is part of its shape.
    pub(super) const fn new(
        name: &'static str,
        shape: Shape,
        documentation: &'static [&'static str],
    ) -> Self {
        Self { name, shape, default: None, is_required: false, documentation }
    }

    /// A limit.
    pub(super) const fn limit(limit: &Limit) -> Self {
        Self::new(limit.key, Shape::Quantity(limit.quantity), limit.documentation)
    }

    /// The same with a default.
    pub(super) const fn or(mut self, default: fn() -> Value) -> Self {
        self.default = Some(default);
        self
    }

    /// The same as a required key.
    pub(super) const fn required(mut self) -> Self {
        self.is_required = true;
        self
    }
}

/// The keys of a table: documentation, name, shape, and `required()` or `or(default)`.
macro_rules! keys {
    ($($(#[doc = $line:literal])+ $name:literal: $shape:expr $(; $method:ident($($default:expr)?))?,)+) => {
        &[$($crate::config::key::KeySpec::new($name, $shape, &[$($line),+])$(.$method($($default)?))?),+]
    };
}
pub(super) use keys;

/// The words of `choices`, for [`Shape::Word`].
pub(super) const fn words<T: Copy, const N: usize>(choices: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut index = 0;
    while index < N {
        words[index] = choices[index].0;
        index += 1;
    }
    words
}

/// The word for `meaning`.
pub(super) fn word_for<T: PartialEq>(choices: &[(&'static str, T)], meaning: T) -> &'static str {
    choices.iter().find(|(_, choice)| *choice == meaning).map_or("", |(word, _)| word)
}
