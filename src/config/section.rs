//! Reads one table of the merged file and environment, key by key, and collects every issue on the way.

use std::{cell::RefCell, ops::RangeInclusive, time::Duration};

use ::config::{Map, Value, ValueKind};

use super::issue::{ConfigIssue, nearest};
use super::key::{Shape, Table};
use super::raw_value::{FROM_ENVIRONMENT, InvalidValue, is_blank, kind, quoted};
use super::renamed::{Renamed, old_names, rename};
use super::values;
use super::values::{show_duration, show_size};
use super::variables::{ENVIRONMENT_PREFIX, OTHER_VARIABLES, from_variable, variable};
use crate::limits::{Quantity, Unit};

/// Collects issues, and warnings about outdated names.
pub(super) struct Issues {
    /// The table of the whole file, to suggest where an unknown key belongs.
    top: &'static Table,
    issues: RefCell<Vec<ConfigIssue>>,
    warnings: RefCell<Vec<String>>,
}

impl Issues {
    /// Starts with these. `top` is the table of the whole file.
    pub(super) fn new(issues: Vec<ConfigIssue>, top: &'static Table) -> Self {
        Self { top, issues: RefCell::new(issues), warnings: RefCell::default() }
    }

    /// Adds an issue.
    pub(super) fn push(&self, issue: ConfigIssue) {
        self.issues.borrow_mut().push(issue);
    }

    /// Adds several.
    pub(super) fn extend(&self, issues: impl IntoIterator<Item = ConfigIssue>) {
        self.issues.borrow_mut().extend(issues);
    }

    /// The issues, if there are any, else the warnings.
    pub(super) fn into_result(self) -> Result<Vec<String>, Vec<ConfigIssue>> {
        let issues = self.issues.into_inner();
        if issues.is_empty() { Ok(self.warnings.into_inner()) } else { Err(issues) }
    }
}

/// One table.
pub(super) struct Section<'a> {
    path: String,
    values: Map<String, Value>,
    table: &'static Table,
    issues: &'a Issues,
    /// True if the table is present, even if it is empty.
    pub is_written: bool,
    /// True if it is something else than a table, which has been reported: then nothing more is to be said of it.
    is_broken: bool,
}

/// What to write instead of another value where a table is expected.
fn instead_of(value: &ValueKind, path: &str, table: &'static Table) -> String {
    match value {
        ValueKind::String(word) if table.has("action") => {
            let key = path.rsplit('.').next().unwrap_or(path);
            format!("write {key} = {{ action = {} }}", quoted(word))
        }
        ValueKind::Array(_) if !path.contains('[') => format!("write [{path}], with one bracket"),
        _ => format!("write a table, such as [{path}] and its keys below it"),
    }
}

/// What is meant by keys that are too far from the names of those that exist.
const SYNONYMS: [(&str, &str, &str); 2] = [
    ("budget", "per_month", "did you mean per_30_days or per_calendar_month?"),
    ("budget", "per_week", "did you mean per_calendar_week?"),
];
/// How many known keys a message lists.
const MOST_LISTED: usize = 30;

impl<'a> Section<'a> {
    /// Takes the value found at `path`, and reports each key that `table` does not declare.
    pub(super) fn new(
        path: impl Into<String>,
        value: Option<Value>,
        table: &'static Table,
        issues: &'a Issues,
    ) -> Self {
        let path = path.into();
        let (is_written, mut is_broken) = (value.is_some(), false);
        let values = match value.map(|value| value.kind) {
            None => Map::new(),
            Some(ValueKind::Table(values)) => values,
            Some(other) => {
                is_broken = true;
                issues.push(ConfigIssue::new(
                    &path,
                    format!("expected a table, found {}", kind(&other)),
                    instead_of(&other, &path, table),
                ));
                Map::new()
            }
        };
        let mut section = Self { path, values, table, issues, is_written, is_broken };
        section.rename();
        section.report_unknown();
        section
    }

    /// Moves values from old names to the current ones.
    fn rename(&mut self) {
        for Renamed { old, new, is_twice } in rename(&mut self.values, self.table) {
            let (path, now) = (self.path_of(old), self.path_of(new));
            if is_twice {
                self.issues.push(ConfigIssue::new(
                    path,
                    format!("the old name of {now}, which is also set"),
                    "remove it",
                ));
            } else {
                let warning = format!("{path} is now called {now}; the old name still works");
                self.issues.warnings.borrow_mut().push(warning);
            }
        }
    }

    /// The path of a key of this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// True if the key is set, whether or not its value is valid. An empty string counts as unset.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|value| !is_blank(value))
    }

    /// Takes the raw value out, to read a nested table as a section of its own.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        debug_assert!(self.table.has(key), "{key} is read but not declared");
        self.values.remove(key)
    }

    /// Reads a value; `None` if it is unset or invalid.
    pub(super) fn read<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&Value) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        debug_assert!(self.table.has(key), "{key} is read but not declared");
        let value = self.values.get(key).filter(|value| !is_blank(value))?;
        match parse(value) {
            Ok(read) => Some(read),
            Err(InvalidValue { problem, remedy }) => {
                let path = self.path_of(key);
                let from = if value.origin() == Some(FROM_ENVIRONMENT) {
                    from_variable(&variable(&path))
                } else {
                    String::new()
                };
                self.issues.push(ConfigIssue::new(path, problem + &from, remedy));
                None
            }
        }
    }

    /// Reads a required value; `None` if it is unset or invalid, which is then reported.
    pub(super) fn require<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl FnOnce(&Value) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        if !self.has(key) {
            let are_variables = !self.values.is_empty()
                && self.values.values().all(|value| value.origin() == Some(FROM_ENVIRONMENT));
            let remedy = match are_variables {
                true => format!("set {} to {example}", variable(&self.path_of(key))),
                false => format!("write {key} = {example}"),
            };
            self.issue(key, "missing", remedy);
        }
        self.read(key, parse)
    }

    /// Reads a value within `range`, or takes the default.
    pub(super) fn bounded<T: Copy + PartialOrd>(
        &self,
        key: &str,
        default: T,
        range: RangeInclusive<T>,
        parse: impl FnOnce(&Value) -> Result<T, InvalidValue>,
        show: impl Fn(T) -> String,
    ) -> T {
        let check = |value: &Value| {
            let read = parse(value)?;
            if range.contains(&read) {
                return Ok(read);
            }
            Err(InvalidValue::new(
                format!("{} is out of range", show(read)),
                format!("write a value from {} to {}", show(*range.start()), show(*range.end())),
            ))
        };
        self.read(key, check).unwrap_or(default)
    }

    /// Reads a quantity in its unit, or takes its default.
    pub(super) fn quantity(&self, key: &str, quantity: Quantity) -> u64 {
        let Quantity { unit, default, min, max } = quantity;
        match unit {
            Unit::Count => self.bounded(key, default, min..=max, values::integer, |count| count.to_string()),
            Unit::Bytes => self.bounded(key, default, min..=max, values::size, show_size),
            Unit::Time => {
                let [default, min, max] = [default, min, max].map(Duration::from_nanos);
                let read = self.bounded(key, default, min..=max, values::duration, show_duration);
                // It is within bounds that are `u64`s of nanoseconds.
                u64::try_from(read.as_nanos()).unwrap_or(u64::MAX)
            }
        }
    }

    /// Reads a quantity of time.
    pub(super) fn time(&self, key: &str, quantity: Quantity) -> Duration {
        Duration::from_nanos(self.quantity(key, quantity))
    }

    /// Reads a quantity whose upper bound fits in 32 bits.
    pub(super) fn count(&self, key: &str, quantity: Quantity) -> u32 {
        u32::try_from(self.quantity(key, quantity)).unwrap_or(u32::MAX)
    }

    /// Reports an issue with a key of this table.
    pub(super) fn issue(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        if self.is_broken {
            return;
        }
        let path = if key.is_empty() { self.path.clone() } else { self.path_of(key) };
        self.issues.push(ConfigIssue::new(path, problem, remedy));
    }

    /// Reports an issue that is not about a key of this table, such as one with another program's variable.
    pub(super) fn foreign(&self, issue: ConfigIssue) {
        self.issues.push(issue);
    }

    fn report_unknown(&self) {
        let mut unknown: Vec<_> = self.values.iter().filter(|(key, _)| !self.table.has(key)).collect();
        unknown.sort_by_key(|(key, _)| key.as_str());
        for (key, value) in unknown {
            let path = self.path_of(key);
            let is_variable = value.origin() == Some(FROM_ENVIRONMENT);
            let synonym = SYNONYMS.iter().find(|(table, word, _)| *table == self.table.name && word == key);
            let remedy = match self.meant(key, is_variable) {
                _ if let Some((.., remedy)) = synonym => (*remedy).to_owned(),
                Some((meant, formerly)) => {
                    let meant = if is_variable { variable(&meant) } else { meant };
                    let formerly = formerly.map(|old| format!(" (formerly {old})")).unwrap_or_default();
                    format!("did you mean {meant}?{formerly}")
                }
                None if is_variable => format!("remove the variable {}", variable(&path)),
                None => self.elsewhere(key).unwrap_or_else(|| {
                    let known: Vec<_> = self.table.names().collect();
                    match known.len() {
                        0..=MOST_LISTED => format!("remove it; the known keys here are {}", known.join(", ")),
                        _ => "remove it; `tollpass config show --all` lists the known keys".to_owned(),
                    }
                }),
            };
            let from = if is_variable { from_variable(&variable(&path)) } else { String::new() };
            self.issue(key, format!("unknown key{from}"), remedy);
        }
    }

    /// The remedy if an unknown key belongs in another table, also if it is misspelt.
    fn elsewhere(&self, key: &str) -> Option<String> {
        if let Some(place) = tables_with(self.issues.top, key).next() {
            return Some(format!("move it to {place}"));
        }
        let all: Vec<&str> = tables(self.issues.top).flat_map(|(_, _, table)| table.names()).collect();
        let near = nearest(key, all)?;
        let place = tables_with(self.issues.top, near).next()?;
        Some(format!("did you mean {near}? It belongs in {place}"))
    }

    /// The path of the key that an unknown one is probably a typo of, and the old name of that key if the typo is in it.
    fn meant(&self, key: &str, is_variable: bool) -> Option<(String, Option<&'static str>)> {
        // A variable with one underscore instead of two looks like a key of the top level.
        let split = || {
            every_path(self.issues.top)
                .find(|known| is_variable && known.replace('.', "_") == self.path_of(key))
        };
        // With two instead of one, it looks like a key of a table.
        let joined = || {
            let path = self.path_of(key).replace('.', "_");
            OTHER_VARIABLES.iter().any(|name| is_variable && *name == variable(&path)).then_some(path)
        };
        let other =
            || nearest(key, OTHER_VARIABLES.iter().filter_map(|name| name.strip_prefix(ENVIRONMENT_PREFIX)));
        let is_at_top = self.path.is_empty();
        let path = split().or_else(joined).or_else(|| {
            let is_name = is_variable && is_at_top;
            is_name.then(|| other().map(str::to_owned).or_else(|| path_below(key, self.issues.top)))?
        });
        if let Some(path) = path {
            return Some((path, None));
        }
        let renamed = || old_names(self.table);
        let near = nearest(key, self.table.names().chain(renamed().map(|(old, _)| old)))?;
        // A name may have been given to another key since.
        let old = renamed().find(|(old, _)| *old == near && !self.table.has(near));
        let (new, formerly) = old.map_or((near, None), |(old, new)| (new, Some(old)));
        Some((self.path_of(new), formerly))
    }
}

/// The entries of the list of tables `name`, at most `most`; each is then read as a section of its own.
pub(super) fn entries(name: &str, value: Option<Value>, most: usize, issues: &Issues) -> Vec<Value> {
    let report = |problem: String, remedy: String| issues.push(ConfigIssue::new(name, problem, remedy));
    match value.map(|value| value.kind) {
        None => return Vec::new(),
        Some(ValueKind::Array(entries)) if entries.len() <= most => return entries,
        Some(ValueKind::Array(entries)) => {
            report(
                format!("{} entries are too many", entries.len()),
                format!("write at most {most} entries"),
            );
        }
        Some(other) => {
            // Without the positions of the tables around it.
            let list: String = name.split(['[', ']']).step_by(2).collect();
            let remedy = format!("write [[{list}]], with two brackets");
            report(format!("expected a list of tables, found {}", kind(&other)), remedy);
        }
    }
    Vec::new()
}

/// Every table at the top of the file and below `[upstream]`, with its path and how to open it.
fn tables(top: &'static Table) -> impl Iterator<Item = (String, String, &'static Table)> {
    fn within(path: &str, table: &'static Table) -> Vec<(String, String, &'static Table)> {
        let nested = table.keys.iter().filter_map(|key| {
            let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match key.shape {
                Shape::Table(table) => Some((path.clone(), format!("[{path}]"), table)),
                Shape::Tables(table, _) => Some((path.clone(), format!("[[{path}]]"), table)),
                _ => None,
            }
        });
        nested.collect()
    }
    let outer = within("", top);
    let below =
        outer.iter().filter(|(path, ..)| path == "upstream").flat_map(|(path, _, table)| within(path, table));
    let mut all: Vec<_> = below.collect();
    all.extend(outer);
    std::iter::once((String::new(), "the top of the file".to_owned(), top)).chain(all)
}

/// The tables that have a key of this name.
fn tables_with(top: &'static Table, key: &str) -> impl Iterator<Item = String> {
    tables(top).filter(move |(_, _, table)| table.has(key)).map(|(_, place, _)| place)
}

/// The path of a key in a nested table that has a variable with one underscore instead of two, such as `pay_0_host`.
fn path_below(key: &str, table: &'static Table) -> Option<String> {
    table.keys.iter().find_map(|above| {
        let rest = key.strip_prefix(above.name)?.strip_prefix('_')?;
        let (place, rest, table) = match above.shape {
            Shape::Table(table) => (above.name.to_owned(), rest, table),
            Shape::Tables(table, _) => {
                let (number, rest) = rest.split_once('_')?;
                let number: u16 = number.parse().ok()?;
                (format!("{}[{number}]", above.name), rest, table)
            }
            _ => return None,
        };
        let own = || nearest(rest, table.names()).map(str::to_owned);
        Some(format!("{place}.{}", path_below(rest, table).or_else(own)?))
    })
}

fn every_path(top: &'static Table) -> impl Iterator<Item = String> {
    tables(top).flat_map(|(path, _, table)| {
        table.names().map(move |key| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") })
    })
}
