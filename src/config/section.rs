//! Reads one table of the merged file and environment, key by key, and notes every fault on the way.

use std::{cell::RefCell, fmt, ops::RangeInclusive};

use ::config::{Map, Value, ValueKind};

use super::fault::{Fault, nearest};
use super::renamed::{Renamed, rename};

/// Gathers faults, and warnings about names that are out of date.
#[derive(Default)]
pub(super) struct Faults {
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<String>>,
}

impl Faults {
    /// Begins with these.
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self { faults: RefCell::new(faults), ..Self::default() }
    }

    /// Notes a fault.
    pub(super) fn push(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Notes several.
    pub(super) fn extend(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.borrow_mut().extend(faults);
    }

    /// The faults, if there are any, else the warnings.
    pub(super) fn into_result(self) -> Result<Vec<String>, Vec<Fault>> {
        let faults = self.faults.into_inner();
        if faults.is_empty() { Ok(self.warnings.into_inner()) } else { Err(faults) }
    }
}

/// Why a value is refused: what is wrong, and what to write.
pub(super) struct Wrong {
    /// What is wrong with it.
    pub wrong: String,
    /// What to write instead.
    pub remedy: String,
}

impl Wrong {
    /// A refusal.
    pub(super) fn new(wrong: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { wrong: wrong.into(), remedy: remedy.into() }
    }
}

/// One table.
pub(super) struct Section<'a> {
    path: String,
    table: Map<String, Value>,
    known: &'static [&'static str],
    faults: &'a Faults,
    /// True when the table was written, even if it is empty.
    pub is_written: bool,
}

impl<'a> Section<'a> {
    /// Takes the table `value` found at `path`, and reports each key that is not in `known`.
    pub(super) fn new(
        path: impl Into<String>,
        value: Option<Value>,
        known: &'static [&'static str],
        faults: &'a Faults,
    ) -> Self {
        let path = path.into();
        let is_written = value.is_some();
        let table = match value.map(|value| value.kind) {
            None => Map::new(),
            Some(ValueKind::Table(table)) => table,
            Some(other) => {
                faults.push(Fault::new(
                    &path,
                    format!("expected a table, found {}", kind(&other)),
                    format!("write a table, such as [{path}] and its keys below it"),
                ));
                Map::new()
            }
        };
        let mut section = Self { path, table, known, faults, is_written };
        section.rename();
        section.report_unknown();
        section
    }

    /// Takes old names for the new ones.
    fn rename(&mut self) {
        for Renamed { old, new, is_twice } in rename(&mut self.table, self.known) {
            let (path, now) = (self.path_of(old), self.path_of(new));
            if is_twice {
                self.faults.push(Fault::new(
                    path,
                    format!("the old name of {now}, which is set too"),
                    "remove it",
                ));
            } else {
                let warning = format!("{path} is now called {now}; the old name still works");
                self.faults.warnings.borrow_mut().push(warning);
            }
        }
    }

    /// The path of a key of this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// True when the key is there, right or wrong. An empty text counts as absent.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| !is_blank(value))
    }

    /// Takes the raw value out, so that a table within can be read as a section of its own.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        debug_assert!(self.known.contains(&key), "{key} is read but not known");
        self.table.remove(key)
    }

    /// Reads a value; `None` when it is absent or wrong.
    pub(super) fn read<T>(&self, key: &str, parse: impl FnOnce(&Value) -> Result<T, Wrong>) -> Option<T> {
        debug_assert!(self.known.contains(&key), "{key} is read but not known");
        let value = self.table.get(key).filter(|value| !is_blank(value))?;
        match parse(value) {
            Ok(read) => Some(read),
            Err(Wrong { wrong, remedy }) => {
                let path = self.path_of(key);
                let from = if value.origin() == Some(FROM_ENVIRONMENT) {
                    format!(" (from {})", variable(&path))
                } else {
                    String::new()
                };
                self.faults.push(Fault::new(path, wrong + &from, remedy));
                None
            }
        }
    }

    /// Reads a value that must be there; `None` when it is wrong, which is then reported.
    pub(super) fn require<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl FnOnce(&Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.has(key) {
            self.fault(key, "missing", format!("write {key} = {example}"));
        }
        self.read(key, parse)
    }

    /// Reads a value that must lie within `range`, or takes the default.
    pub(super) fn bounded<T: Copy + PartialOrd>(
        &self,
        key: &str,
        default: T,
        range: RangeInclusive<T>,
        parse: impl FnOnce(&Value) -> Result<T, Wrong>,
        show: impl Fn(T) -> String,
    ) -> T {
        let check = |value: &Value| {
            let read = parse(value)?;
            if range.contains(&read) {
                return Ok(read);
            }
            Err(Wrong::new(
                format!("{} is out of range", show(read)),
                format!("write something from {} to {}", show(*range.start()), show(*range.end())),
            ))
        };
        self.read(key, check).unwrap_or(default)
    }

    /// Notes a fault at a key of this table.
    pub(super) fn fault(&self, key: &str, wrong: impl Into<String>, remedy: impl Into<String>) {
        let path = if key.is_empty() { self.path.clone() } else { self.path_of(key) };
        self.faults.push(Fault::new(path, wrong, remedy));
    }

    /// Notes a fault that is none of a key of this table, such as that of a variable of another program.
    pub(super) fn foreign(&self, fault: Fault) {
        self.faults.push(fault);
    }

    fn report_unknown(&self) {
        let mut unknown: Vec<_> =
            self.table.iter().filter(|(key, _)| !self.known.contains(&key.as_str())).collect();
        unknown.sort_by_key(|(key, _)| key.as_str());
        for (key, value) in unknown {
            let path = self.path_of(key);
            let is_variable = value.origin() == Some(FROM_ENVIRONMENT);
            // A variable with one underscore where two belong looks like a key of the top level.
            let split = every_path().find(|known| is_variable && known.replace('.', "_") == path);
            let meant = split
                .or_else(|| nearest(key, self.known.iter().copied()).map(|known| self.path_of(known)))
                .map(|known| if is_variable { variable(&known) } else { known });
            let remedy = match meant {
                Some(meant) => format!("did you mean {meant}?"),
                None if is_variable => format!("remove the variable {}", variable(&path)),
                None => format!("remove it; known here are {}", self.known.join(", ")),
            };
            self.fault(key, "unknown key", remedy);
        }
    }
}

/// The entries of the list of tables `name`, at most `most`; each is then read as a section of its own.
pub(super) fn entries(name: &str, value: Option<Value>, most: usize, faults: &Faults) -> Vec<Value> {
    let fault = |wrong: String, remedy: String| faults.push(Fault::new(name, wrong, remedy));
    match value.map(|value| value.kind) {
        None => return Vec::new(),
        Some(ValueKind::Array(entries)) if entries.len() <= most => return entries,
        Some(ValueKind::Array(entries)) => {
            fault(format!("{} entries are too many", entries.len()), format!("write at most {most} entries"));
        }
        Some(other) => {
            let remedy = format!("write [[{name}]], with two brackets");
            fault(format!("expected entries, found {}", kind(&other)), remedy);
        }
    }
    Vec::new()
}

/// What the crate `config` calls values of environment variables.
pub(super) const FROM_ENVIRONMENT: &str = "the environment";

/// The environment variable of a key.
pub(super) fn variable(path: &str) -> String {
    format!("{}{}", super::ENVIRONMENT_PREFIX, path.to_ascii_uppercase().replace('.', "__"))
}

/// What a value is, in a word of the file format; never its content.
pub(super) fn kind(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "an integer",
        ValueKind::Float(_) => "a number with a point",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// A text quoted for a message, cut where it is long.
pub(super) fn quoted(text: impl fmt::Display) -> String {
    let text = text.to_string();
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

fn every_path() -> impl Iterator<Item = String> {
    super::KEYS.iter().flat_map(|(section, keys)| {
        keys.iter()
            .map(move |key| if section.is_empty() { (*key).to_owned() } else { format!("{section}.{key}") })
    })
}
