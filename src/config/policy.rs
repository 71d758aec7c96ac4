//! Reads `[[pay]]` and `[deposit]`: what the user allows.

use std::sync::Arc;
use std::time::Duration;

use ::config::Value;

use super::section::{Faults, Section, Wrong, entries, quoted};
use super::values::show_duration;
use super::{hooks, values};
use crate::protocol::Amount;
use crate::protocol::policy::{Allow, Browsers, Deposit, DepositSize, Hooks, HostPattern, OnExit, Rule};

/// The keys of one `[[pay]]` entry.
pub(super) const PAY: &[&str] =
    &["host", "port", "max_price", "receivers", "send_ahead", "browsers", "hooks", "deny"];
/// The keys of `[deposit]`.
pub(super) const DEPOSIT: &[&str] = &[
    "initial",
    "top_up",
    "channels",
    "close_idle_after",
    "max_per_channel",
    "retry_after",
    "max_count",
    "count_window",
    "on_exit",
];

const MAX_RULES: usize = 10_000;
const MAX_MULTIPLE: u64 = 1_000_000;
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const LONGEST_SURPLUS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads all `[[pay]]` entries, in order. `otherwise` are the hooks of those that name none.
pub(super) fn rules(value: Option<Value>, otherwise: &Arc<Hooks>, faults: &Faults) -> Vec<Rule> {
    let entries = entries("pay", value, MAX_RULES, faults).into_iter().enumerate();
    entries
        .filter_map(|(index, entry)| {
            rule(Section::new(format!("pay[{index}]"), Some(entry), PAY, faults), otherwise, faults)
        })
        .collect()
}

/// Reads `[deposit]`.
pub(super) fn deposit(section: &Section<'_>) -> Deposit {
    let default = Deposit::default();
    let largest = default.max_per_channel;
    let size = |key, default| section.read(key, |value| deposit_size(value, largest)).unwrap_or(default);
    Deposit {
        initial: size("initial", default.initial),
        top_up: size("top_up", default.top_up),
        channels: section.bounded("channels", default.channels, 1..=1000, values::small_integer, |number| {
            number.to_string()
        }),
        // The default is also what the contract accepts at most.
        max_per_channel: section.bounded(
            "max_per_channel",
            default.max_per_channel,
            Amount::from(1)..=default.max_per_channel,
            values::amount,
            |amount| amount.to_string(),
        ),
        retry_after: section.bounded(
            "retry_after",
            default.retry_after,
            Duration::from_secs(1)..=LONGEST,
            values::duration,
            show_duration,
        ),
        max_count: section.bounded(
            "max_count",
            default.max_count,
            1..=1_000_000,
            values::small_integer,
            |number| number.to_string(),
        ),
        count_window: section.bounded(
            "count_window",
            default.count_window,
            Duration::from_secs(1)..=LONGEST_SURPLUS,
            values::duration,
            show_duration,
        ),
        on_exit: section.read("on_exit", on_exit).unwrap_or(default.on_exit),
        close_idle_after: section
            .read("close_idle_after", close_idle_after)
            .unwrap_or(default.close_idle_after),
    }
}

/// A number is a factor of the price; a string with the word "units" is an amount, whatever the price.
fn deposit_size(value: &Value, largest: Amount) -> Result<DepositSize, Wrong> {
    let remedy = format!(
        "write a factor of the price from 1 to {MAX_MULTIPLE}, or an amount such as \"1000 units\", at most {largest}"
    );
    let units = values::text(value).ok().and_then(|text| text.trim().strip_suffix("units"));
    let size = match units {
        Some(amount) => match amount.trim().parse::<Amount>() {
            Ok(amount) if !amount.is_zero() && amount <= largest => Some(DepositSize::Units(amount)),
            Ok(_) | Err(_) => None,
        },
        None => values::integer(value)
            .ok()
            .filter(|factor| (1..=MAX_MULTIPLE).contains(factor))
            .map(DepositSize::Times),
    };
    let written = values::text(value).map_or_else(|_| value.to_string(), quoted);
    size.ok_or_else(|| Wrong::new(format!("{written} is not a deposit"), remedy))
}

fn on_exit(value: &Value) -> Result<OnExit, Wrong> {
    match values::text(value)? {
        "never" => Ok(OnExit::Never),
        "cooperative" => Ok(OnExit::Cooperative),
        other => Err(Wrong::new(
            format!("{} is not a valid value", quoted(other)),
            "write \"never\", or \"cooperative\" to close the channels together with their sellers",
        )),
    }
}

fn close_idle_after(value: &Value) -> Result<Option<Duration>, Wrong> {
    if values::text(value).is_ok_and(|text| text == "never") {
        return Ok(None);
    }
    let remedy = "write \"never\", or how long a channel may be idle, from \"1s\" to \"30d\"";
    let within = values::duration(value).map_err(|Wrong { wrong, .. }| Wrong::new(wrong, remedy))?;
    if !(Duration::from_secs(1)..=LONGEST_SURPLUS).contains(&within) {
        return Err(Wrong::new(format!("{} is out of range", show_duration(within)), remedy));
    }
    Ok(Some(within))
}

/// Rules that can never match because an earlier one does, and prices that no channel can hold.
pub(super) fn warnings(rules: &[Rule], deposit: &Deposit) -> Vec<String> {
    let hidden = rules.iter().enumerate().filter_map(|(index, rule)| {
        let earlier = rules[..index].iter().position(|earlier| covers(place(earlier), place(rule)))?;
        let host = &rule.host;
        Some(format!("pay[{index}] ({host}) never matches: pay[{earlier}] above it matches first"))
    });
    let costly = rules.iter().enumerate().filter_map(|(index, rule)| match &rule.allow {
        Allow::Pay { max_price, .. } if *max_price > deposit.max_per_channel => Some(format!(
            "pay[{index}] ({}) allows more than a channel may hold: {max_price} is above \
             deposit.max_per_channel = {}",
            rule.host, deposit.max_per_channel
        )),
        Allow::Pay { .. } | Allow::Deny => None,
    });
    hidden.chain(costly).collect()
}

fn rule(mut entry: Section<'_>, otherwise: &Arc<Hooks>, faults: &Faults) -> Option<Rule> {
    let (host, port) = (host(&entry), port(&entry));
    let allow = allow(&mut entry, otherwise, faults);
    Some(Rule { host: host?, port, allow: allow? })
}

/// Reads the pattern of an entry that is for some hosts.
pub(super) fn host(entry: &Section<'_>) -> Option<HostPattern> {
    entry.require("host", "\"api.example.com\", or \"*.example.com\"", |value| {
        let text = values::text(value)?;
        text.parse::<HostPattern>().map_err(|error| {
            Wrong::new(format!("{} is {error}", quoted(text)), "write such as \"api.example.com\"")
        })
    })
}

/// Reads the port of an entry that may be for one port only.
pub(super) fn port(entry: &Section<'_>) -> Option<u16> {
    entry.read("port", |value| match values::integer(value)? {
        number @ 1..=65_535 => Ok(number as u16),
        number => Err(Wrong::new(
            format!("{number} is not a valid port"),
            "write 1 to 65535, or leave it out for any port",
        )),
    })
}

fn allow(entry: &mut Section<'_>, otherwise: &Arc<Hooks>, faults: &Faults) -> Option<Allow> {
    let deny = if entry.has("deny") { entry.read("deny", values::boolean)? } else { false };
    if deny {
        for key in ["max_price", "receivers", "send_ahead", "browsers", "hooks"] {
            if entry.has(key) {
                entry.fault(key, "means nothing where deny = true", "remove one of the two");
            }
        }
        return Some(Allow::Deny);
    }
    let max_price = entry.require("max_price", "the highest price of one request, in base units", |value| {
        let price = values::amount(value)?;
        if price.is_zero() {
            return Err(Wrong::new("0 would pay nothing", "write a price above 0, or deny = true instead"));
        }
        Ok(price)
    });
    let receivers = entry.read("receivers", |value| {
        let receivers = values::addresses(value)?;
        if receivers.is_empty() {
            return Err(Wrong::new("an empty list", "name who may be paid, or leave the key out for anyone"));
        }
        Ok(receivers)
    });
    // A list that is wrong must not turn into "anyone".
    if entry.has("receivers") && receivers.is_none() {
        return None;
    }
    let send_ahead = entry.read("send_ahead", values::boolean).unwrap_or(true);
    let browsers = entry.read("browsers", browsers);
    let path = entry.path_of("hooks");
    let hooks = match entry.take("hooks") {
        None => Arc::clone(otherwise),
        written => Arc::new(hooks::hooks(written, &path, otherwise, faults)),
    };
    let receivers = receivers.unwrap_or_default();
    Some(Allow::Pay { max_price: max_price?, receivers, send_ahead, browsers, hooks })
}

fn browsers(value: &Value) -> Result<Browsers, Wrong> {
    let text = values::text(value)?;
    Browsers::ALL.into_iter().find(|browsers| browsers.name() == text).ok_or_else(|| {
        Wrong::new(
            format!("{} does not say which requests of browsers to pay", quoted(text)),
            "write \"never\", \"navigations\", \"same-origin\" or \"any\"",
        )
    })
}

/// Hosts, and the port on them.
type Place<'a> = (&'a HostPattern, Option<u16>);

fn place(rule: &Rule) -> Place<'_> {
    (&rule.host, rule.port)
}

/// Whether an entry above leaves nothing to one below it.
pub(super) fn covers(earlier: Place<'_>, later: Place<'_>) -> bool {
    let port = earlier.1.is_none() || earlier.1 == later.1;
    port && match (earlier.0, later.0) {
        (HostPattern::Any, _) => true,
        (HostPattern::Below(above), HostPattern::Below(below)) => below.ends_with(above.as_str()),
        (pattern, HostPattern::Exactly(host)) => pattern.matches(host),
        (HostPattern::Below(_) | HostPattern::Exactly(_), HostPattern::Any)
        | (HostPattern::Exactly(_), HostPattern::Below(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::policy::*;

    #[test]
    fn an_earlier_rule_covers_a_later_one() {
        for (earlier, later, expected) in [
            (("*", None), ("*", None), true),
            (("*", None), ("a.example", Some(80)), true),
            (("*", Some(80)), ("a.example", None), false),
            (("*", Some(80)), ("a.example", Some(80)), true),
            (("*.example", None), ("a.example", None), true),
            (("*.example", None), ("example", None), false),
            (("*.example", None), ("*.a.example", None), true),
            (("*.a.example", None), ("*.example", None), false),
            (("*.a.example", None), ("*.ba.example", None), false),
            (("a.example", None), ("*", None), false),
            (("a.example", None), ("*.a.example", None), false),
            (("A.example", None), ("a.example.", None), true),
        ] {
            let rule = |(host, port): (&str, Option<u16>)| Rule {
                host: host.parse().unwrap(),
                port,
                allow: Allow::Deny,
            };
            assert_eq!(covers(place(&rule(earlier)), place(&rule(later))), expected, "{earlier:?} {later:?}");
        }
    }
}
