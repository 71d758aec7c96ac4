//! Reads `[[budget]]`: how much may be spent together.

use std::sync::Arc;

use ::config::Value;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use serde_json::json;

use super::hooks;
use super::issue::{ConfigIssue, nearest};
use super::key::{HOST_PATTERN, Shape, Table, keys, words};
use super::price;
use super::raw_value::{InvalidValue, quoted};
use super::rules::is_set;
use super::section::{Issues, Section, entries};
use super::values;
use crate::protocol::Amount;
use crate::protocol::budget::{Budget, BudgetAmount, BudgetLimits, BudgetUnit, Calendar};
use crate::protocol::policy::{Allow, HostPattern, KnownAsset, PriceLimit, ProxyClient, Rule};

pub(super) const MAX_BUDGETS: usize = 1000;
const MAX_HOSTS: usize = 1000;
const MOST_PAYMENTS: u64 = 1_000_000_000_000;
/// The name of a budget.
pub(super) const NAME: Shape = Shape::Text("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$");

/// The keys of one `[[budget]]` entry.
pub(super) static BUDGET: Table = Table::new(
    "budget",
    "How much may be spent together, across requests and restarts. Each payment counts in every budget that applies to it, \
     and none is exceeded at any moment.",
    keys! {
        /// Its name, with which [[pay]] and [[client]] entries refer to it: letters, digits, ".", "_" and "-".
        "name": NAME; required(),
        /// true: it applies to every payment, and an asset that it cannot count is not paid. Otherwise it applies to the
        /// hosts below, and where an entry names it.
        "wallet": Shape::Boolean(false),
        /// It applies to these hosts: names, "*.example.com" or "*".
        "hosts": Shape::List(&HOST_PATTERN, 1, MAX_HOSTS),
        /// true: every host has a budget of its own with these limits, instead of sharing one.
        "each": Shape::Boolean(false),
        /// The most within the last hour: "0.5 USDC" counts this token and allows no other; "$0.50" counts every token
        /// with a value in dollars; a bare integer counts base units of the µRaiden token. All limits of a budget are in
        /// the same unit. 0 allows nothing.
        "per_hour": price::SUM,
        /// The most within the last 24 hours.
        "per_day": price::SUM,
        /// The most within the last 30 days.
        "per_30_days": price::SUM,
        /// The most within a day of the calendar, from midnight to midnight in time_zone. Unlike per_day, it allows this much
        /// shortly before midnight and again shortly after.
        "per_calendar_day": price::SUM,
        /// The most within a week of the calendar, which begins on week_start.
        "per_calendar_week": price::SUM,
        /// The most within a month of the calendar.
        "per_calendar_month": price::SUM,
        /// The time zone of the calendar, by its IANA name such as "Europe/Berlin".
        "time_zone": Shape::Text("^[A-Za-z0-9][A-Za-z0-9_+/-]{0,63}$"); or(|| json!("UTC")),
        /// The first day of a week.
        "week_start": Shape::Word(&const { words(&DAYS) }); or(|| json!("monday")),
        /// The most ever; `tollpass budget` shows what is left.
        "total": price::SUM,
        /// The most payments ever. Each payment is then recorded on disk before it is sent, which takes longer.
        "payments": Shape::Integer(0, MOST_PAYMENTS),
        /// A plain http URL that is notified once per period when 80 % and 100 % of a limit on an amount are spent, as the
        /// log is.
        "webhook": hooks::WEBHOOK,
        /// How long this webhook may take to respond.
        "webhook_timeout": Shape::Quantity(hooks::WEBHOOK_TIMEOUT),
    },
)
.with_rules(|| vec![json!({"anyOf": LIMITS.map(is_set)})]);

/// The keys of limits, of which one is required.
const LIMITS: [&str; 8] = [
    "per_hour",
    "per_day",
    "per_30_days",
    "per_calendar_day",
    "per_calendar_week",
    "per_calendar_month",
    "total",
    "payments",
];
/// The limits that follow the calendar.
const OF_CALENDAR: &[&str] = &["per_calendar_day", "per_calendar_week", "per_calendar_month"];

const DAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];

/// Reads all `[[budget]]` entries.
pub(super) fn budgets(value: Option<Value>, known: &[KnownAsset], issues: &Issues) -> Vec<Arc<Budget>> {
    let mut budgets: Vec<Arc<Budget>> = Vec::new();
    for (index, entry) in entries("budget", value, MAX_BUDGETS, issues).into_iter().enumerate() {
        let section = Section::new(format!("budget[{index}]"), Some(entry), &BUDGET, issues);
        let Some(budget) = budget(&section, known) else { continue };
        if budgets.iter().any(|other| other.name == budget.name) {
            section.issue("name", "another [[budget]] has the same name", "give each its own");
            continue;
        }
        budgets.push(Arc::new(budget));
    }
    budgets
}

fn budget(section: &Section<'_>, known: &[KnownAsset]) -> Option<Budget> {
    let name = section.require("name", "\"daily\"", name);
    let wallet = section.read("wallet", values::boolean).unwrap_or_default();
    let hosts = section.read("hosts", |value| values::list(value, MAX_HOSTS, host));
    let each = section.read("each", values::boolean).unwrap_or_default();
    let payments = section.read("payments", |value| match values::integer(value)? {
        number if number <= MOST_PAYMENTS => Ok(number),
        number => Err(InvalidValue::new(
            format!("{number} is out of range"),
            format!("write a number from 0 to {MOST_PAYMENTS}"),
        )),
    });
    let mut sums: Vec<(&'static str, BudgetUnit, BudgetAmount)> = Vec::new();
    for key in LIMITS.iter().filter(|key| **key != "payments") {
        match section.read(key, |value| sum(value, known)) {
            Some((unit, cost)) => sums.push((key, unit, cost)),
            // An invalid limit must not mean that there is none.
            None if section.has(key) => return None,
            None => {}
        }
    }
    let calendar = calendar(section)?;
    let webhook = hooks::webhook(section);
    // The same goes for what it applies to.
    let is_invalid = |key: &str, is_read: bool| section.has(key) && !is_read;
    if is_invalid("hosts", hosts.is_some()) || is_invalid("payments", payments.is_some()) {
        return None;
    }
    if sums.is_empty() && payments.is_none() {
        section.issue(
            "",
            "has no limit, so it would allow everything",
            "write one of its limits, such as per_day",
        );
        return None;
    }
    if wallet && hosts.is_some() {
        section.issue("hosts", "has no effect with wallet = true", "remove one of the two");
        return None;
    }
    if each && hosts.is_none() {
        section.issue("each", "has no effect without hosts", "write hosts, such as [\"*\"], or remove it");
        return None;
    }
    let unit = match sums.first() {
        Some((_, unit, _)) => unit.clone(),
        // A number of payments counts those in any token: each is worth nothing here.
        None => BudgetUnit::Payments,
    };
    if let Some((key, ..)) = sums.iter().find(|(_, other, _)| *other != unit) {
        section.issue(key, "is in another unit than the other limits", "write a budget for each unit");
        return None;
    }
    let limit = |key| sums.iter().find(|(other, ..)| *other == key).map(|(.., cost)| *cost);
    let limits = BudgetLimits {
        per_hour: limit("per_hour"),
        per_day: limit("per_day"),
        per_30_days: limit("per_30_days"),
        per_calendar_day: limit("per_calendar_day"),
        per_calendar_week: limit("per_calendar_week"),
        per_calendar_month: limit("per_calendar_month"),
        total: limit("total"),
        payments,
    };
    let mut budget = Budget::new(&name?, unit, limits);
    (budget.scope.wallet, budget.scope.each) = (wallet, each);
    budget.scope.hosts = hosts.unwrap_or_default();
    (budget.calendar, budget.webhook) = (calendar, webhook);
    Some(budget)
}

/// Reads when its days, weeks and months begin; `None` if that is invalid, which is then reported.
fn calendar(section: &Section<'_>) -> Option<Calendar> {
    let zone = section.read("time_zone", |value| {
        let name = values::text(value)?;
        TimeZone::get(name).map_err(|_| {
            InvalidValue::new(
                format!("{} is not a known time zone", quoted(name)),
                "write an IANA name such as \"Europe/Berlin\" or \"UTC\"",
            )
        })
    });
    let week_start = section.read("week_start", |value| values::word(value, &DAYS));
    for (key, limits, is_read) in [
        ("time_zone", OF_CALENDAR, zone.is_some()),
        ("week_start", &["per_calendar_week"], week_start.is_some()),
    ] {
        if section.has(key) && !is_read {
            return None;
        }
        if section.has(key) && !limits.iter().any(|limit| section.has(limit)) {
            let problem = format!("has no effect without {}", limits.join(", "));
            section.issue(key, problem, "write such a limit, or remove it");
            return None;
        }
    }
    Some(Calendar::new(zone.unwrap_or(TimeZone::UTC), week_start.unwrap_or(Weekday::Monday)))
}

fn name(value: &Value) -> Result<String, InvalidValue> {
    let text = values::text(value)?;
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=64).contains(&text.len())
        && text.bytes().all(is_usual)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if is_name {
        return Ok(text.to_owned());
    }
    Err(InvalidValue::new(format!("{} is not a valid name", quoted(text)), "write one such as \"daily\""))
}

fn host(value: &Value) -> Result<HostPattern, InvalidValue> {
    values::host_pattern(value, |_| "write one such as \"api.example.com\"".to_owned())
}

/// Reads a limit: its unit, and its amount in the smallest unit of a budget.
fn sum(value: &Value, known: &[KnownAsset]) -> Result<(BudgetUnit, BudgetAmount), InvalidValue> {
    let too_large = || InvalidValue::new("too large", "write a smaller amount");
    let all: Vec<&KnownAsset> = known.iter().collect();
    match price::price(value, known, &all)? {
        PriceLimit::ChannelToken(most) => Ok((BudgetUnit::ChannelToken, BudgetAmount::ONE.of(most))),
        PriceLimit::Usd(most, tokens) => {
            Ok((BudgetUnit::Usd(tokens), BudgetUnit::cost_of_usd(most).ok_or_else(too_large)?))
        }
        PriceLimit::Tokens(tokens) => {
            let cost =
                |(most, known): &(Amount, KnownAsset)| BudgetUnit::cost_of_units(*most, known.decimals);
            let costs: Option<Vec<BudgetAmount>> = tokens.iter().map(cost).collect();
            let costs = costs.ok_or_else(too_large)?;
            let Some(first) = costs.first() else { return Err(too_large()) };
            if costs.iter().any(|cost| cost != first) {
                return Err(InvalidValue::new(
                    "the token has other decimals on another network, so that a base unit is not the same amount",
                    "write the amount in tokens, such as \"0.5 USDC\"",
                ));
            }
            let symbol = tokens.first().map_or("", |(_, known)| known.symbol.as_str());
            let tokens_only = tokens.iter().map(|(_, known)| known.clone()).collect();
            Ok((BudgetUnit::Tokens { symbol: symbol.into(), tokens: tokens_only }, *first))
        }
    }
}

/// What to write instead of an amount without a unit if there is no `[chain]`.
const WITH_UNIT: &str = "write an amount with a unit, such as \"$5\" or \"5 USDC\"";

/// Why budgets refuse every payment that they apply to if there is no `[chain]`.
pub(super) fn unpayable(budgets: &[Arc<Budget>]) -> impl Iterator<Item = String> {
    let dead = budgets.iter().enumerate().filter(|(_, budget)| budget.unit == BudgetUnit::ChannelToken);
    dead.map(|(index, budget)| {
        format!(
            "budget[{index}] ({}) refuses every payment that it applies to: its limits are base units of the µRaiden token, \
             and no [chain] is configured; {WITH_UNIT}",
            budget.name
        )
    })
}

/// Reads the budget of a run.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub(super) fn of_run(
    text: &str,
    known: &[KnownAsset],
    has_chain: bool,
) -> Result<(BudgetUnit, BudgetAmount), String> {
    let value = Value::new(None, text);
    match sum(&value, known) {
        Ok((BudgetUnit::ChannelToken, _)) if !has_chain => Err(format!(
            "{} means base units of the µRaiden token, and no [chain] is configured, so nothing could be paid; {WITH_UNIT}",
            quoted(text)
        )),
        read => read.map_err(|InvalidValue { problem, remedy }| format!("{problem}; {remedy}")),
    }
}

/// Reports budgets that apply to nothing.
pub(super) fn check_use<'a>(
    budgets: &[Arc<Budget>],
    rules: &[&'a [Rule]],
    clients: impl Iterator<Item = &'a ProxyClient>,
    issues: &Issues,
) {
    let of_rule = |rule: &'a Rule| match &rule.allow {
        Allow::Pay { budgets, .. } => budgets.as_slice(),
        Allow::Deny => &[],
    };
    let of_rules = rules.iter().copied().flatten().map(of_rule);
    let named: Vec<_> = of_rules.chain(clients.map(|client| client.budgets.as_slice())).flatten().collect();
    for budget in budgets {
        let scope = &budget.scope;
        let is_named = named.iter().any(|named| Arc::ptr_eq(named, budget));
        if !scope.wallet && scope.hosts.is_empty() && !is_named {
            issues.push(ConfigIssue::new(
                "budget",
                format!("the budget {} applies to nothing", quoted(&budget.name)),
                "write wallet = true or hosts, or name it in the budgets of a [[pay]] or [[client]] entry",
            ));
        }
    }
}

/// Reads the names of budgets in another entry.
pub(super) fn named(entry: &Section<'_>, budgets: &[Arc<Budget>]) -> Option<Vec<Arc<Budget>>> {
    let names = entry.read("budgets", |value| values::list(value, MAX_BUDGETS, name));
    if entry.has("budgets") && names.is_none() {
        return None;
    }
    let mut named = Vec::new();
    for name in names.unwrap_or_default() {
        let Some(budget) = budgets.iter().find(|budget| *budget.name == *name) else {
            let remedy = match nearest(&name, budgets.iter().map(|budget| &*budget.name)) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "write a [[budget]] with this name".to_owned(),
            };
            entry.issue("budgets", format!("no [[budget]] is named {}", quoted(&name)), remedy);
            return None;
        };
        named.push(Arc::clone(budget));
    }
    Some(named)
}
