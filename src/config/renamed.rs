//! Keys that were renamed. A file or variable that uses the old name keeps working, with a warning.

use ::config::{Map, Value};

use super::key::Table;
use super::raw_value::{FROM_ENVIRONMENT, is_blank};

/// Old and new names. An old name applies only to tables that have the new one.
const RENAMED: &[(&str, &str)] = &[
    ("answer_within", "answer_timeout"),
    ("confirm_within", "confirm_timeout"),
    ("connect_within", "connect_timeout"),
    ("continue_within", "expect_continue_timeout"),
    ("count_within", "count_window"),
    ("do", "action"),
    ("drain_within", "drain_timeout"),
    ("exchange_within", "exchange_timeout"),
    ("head_within", "head_timeout"),
    ("idle_within", "keepalive_timeout"),
    ("leaves", "certificate_cache"),
    ("linger_within", "linger_timeout"),
    ("offer_body", "max_402_body"),
    ("offer_within", "offer_timeout"),
    ("pay_first", "send_ahead"),
    ("pay_within", "pay_timeout"),
    ("payees", "report_payees"),
    ("pool_idle_within", "pool_idle_timeout"),
    ("ready_within", "ready_timeout"),
    ("request_within", "request_timeout"),
    ("reserve_ahead", "sign_ahead"),
    ("retry_within", "retry_timeout"),
    ("rounds", "max_attempts"),
    ("stalled_within", "stream_idle_timeout"),
    ("surplus_within", "close_idle_after"),
    ("waiting", "max_pending"),
    ("webhook_within", "webhook_timeout"),
    ("within", "timeout"),
];

/// An old name in a table.
pub(super) struct Renamed {
    pub(super) old: &'static str,
    pub(super) new: &'static str,
    /// True if the same place sets both names, so that it is unclear which one counts.
    pub(super) is_twice: bool,
}

/// The old names of keys of `table`, with the new ones.
pub(super) fn old_names(table: &'static Table) -> impl Iterator<Item = (&'static str, &'static str)> {
    RENAMED.iter().copied().filter(|(old, new)| table.has(new) && !table.has(old))
}

/// Moves each value under an old name to the new one. A variable takes precedence over the file, whichever name each
/// uses.
pub(super) fn rename(values: &mut Map<String, Value>, table: &'static Table) -> Vec<Renamed> {
    let mut renamed = Vec::new();
    for (old, new) in old_names(table) {
        let Some(value) = values.remove(old).filter(|value| !is_blank(value)) else { continue };
        let is_variable = |value: &Value| value.origin() == Some(FROM_ENVIRONMENT);
        let other = values.get(new).filter(|other| !is_blank(other)).map(is_variable);
        if other.is_none_or(|other| is_variable(&value) && !other) {
            values.insert(new.to_owned(), value.clone());
        }
        renamed.push(Renamed { old, new, is_twice: other == Some(is_variable(&value)) });
    }
    renamed
}
