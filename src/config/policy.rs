//! Reads `[[pay]]`, `[deposit]` and `[hooks]`: what the user allows.

use std::time::Duration;

use ::config::{Value, ValueKind};

use super::{
    fault::Fault,
    section::{Faults, Section, Wrong, kind, quoted},
    values::{self, show_duration},
};
use crate::protocol::{
    Amount,
    policy::{Abort, Adopt, Allow, Deposit, Hooks, HostPattern, Retry, Rule},
};

/// The keys of one `[[pay]]` entry.
pub(super) const PAY: &[&str] = &["host", "port", "max_price", "receivers", "pay_first", "deny"];
/// The keys of `[deposit]`.
pub(super) const DEPOSIT: &[&str] = &["initial", "top_up", "channels", "max_per_channel", "retry_after"];
/// The keys of `[hooks]`.
pub(super) const HOOKS: &[&str] = &[
    "insufficient_confirmations",
    "nonexisting_channel",
    "invalid_balance_proof",
    "invalid_amount",
    "invalid_contract_address",
];

const RETRY: &[&str] = &["do", "every", "times", "within"];
const ADOPT: &[&str] = &["do", "times"];
const ABORT: &[&str] = &["do"];
const MAX_RULES: usize = 10_000;
const MAX_TIMES: u32 = 10_000;
const MAX_MULTIPLE: u64 = 1_000_000;
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads all `[[pay]]` entries, in order.
pub(super) fn rules(value: Option<Value>, faults: &Faults) -> Vec<Rule> {
    let fault = |wrong: String, remedy: &str| faults.borrow_mut().push(Fault::new("pay", wrong, remedy));
    let Some(value) = value else { return Vec::new() };
    match value.kind {
        ValueKind::Array(entries) if entries.len() > MAX_RULES => {
            fault(format!("{} entries are too many", entries.len()), "write at most 10000 entries");
            Vec::new()
        }
        ValueKind::Array(entries) => entries
            .into_iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                rule(&Section::new(format!("pay[{index}]"), Some(entry), PAY, faults))
            })
            .collect(),
        other => {
            fault(format!("expected entries, found {}", kind(&other)), "write [[pay]], with two brackets");
            Vec::new()
        }
    }
}

/// Reads `[deposit]`.
pub(super) fn deposit(section: &Section<'_>) -> Deposit {
    let default = Deposit::default();
    let multiple = |key, default| {
        section.bounded(key, default, 1..=MAX_MULTIPLE, values::integer, |number| number.to_string())
    };
    Deposit {
        initial: multiple("initial", default.initial),
        top_up: multiple("top_up", default.top_up),
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
    }
}

/// Reads `[hooks]`.
pub(super) fn hooks(section: &mut Section<'_>, faults: &Faults) -> Hooks {
    let default = Hooks::default();
    Hooks {
        insufficient_confirmations: retry(
            hook(section, "insufficient_confirmations", RETRY, faults),
            default.insufficient_confirmations,
        ),
        nonexisting_channel: retry(
            hook(section, "nonexisting_channel", RETRY, faults),
            default.nonexisting_channel,
        ),
        invalid_balance_proof: retry(
            hook(section, "invalid_balance_proof", RETRY, faults),
            default.invalid_balance_proof,
        ),
        invalid_amount: adopt(hook(section, "invalid_amount", ADOPT, faults), default.invalid_amount),
        invalid_contract_address: abort(&hook(section, "invalid_contract_address", ABORT, faults)),
    }
}

/// Rules that can never match because an earlier one does, and prices that no channel can hold.
pub(super) fn warnings(rules: &[Rule], deposit: &Deposit) -> Vec<String> {
    let hidden = rules.iter().enumerate().filter_map(|(index, rule)| {
        let earlier = rules[..index].iter().position(|earlier| covers(earlier, rule))?;
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

fn rule(entry: &Section<'_>) -> Option<Rule> {
    let host = entry.require("host", "\"api.example.com\", or \"*.example.com\"", |value| {
        let text = values::text(value)?;
        text.parse::<HostPattern>().map_err(|error| {
            Wrong::new(format!("{} is {error}", quoted(text)), "write such as \"api.example.com\"")
        })
    });
    let port = entry.read("port", |value| match values::integer(value)? {
        number @ 1..=65_535 => Ok(number as u16),
        number => {
            Err(Wrong::new(format!("{number} is no port"), "write 1 to 65535, or leave it out for any port"))
        }
    });
    let allow = allow(entry);
    Some(Rule { host: host?, port, allow: allow? })
}

fn allow(entry: &Section<'_>) -> Option<Allow> {
    let deny = if entry.has("deny") { entry.read("deny", values::boolean)? } else { false };
    if deny {
        for key in ["max_price", "receivers", "pay_first"] {
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
    let pay_first = entry.read("pay_first", values::boolean).unwrap_or(true);
    Some(Allow::Pay { max_price: max_price?, receivers: receivers.unwrap_or_default(), pay_first })
}

fn hook<'a>(
    hooks: &mut Section<'_>,
    name: &str,
    keys: &'static [&'static str],
    faults: &'a Faults,
) -> Section<'a> {
    let path = hooks.path_of(name);
    Section::new(path, hooks.take(name), keys, faults)
}

/// Reads `do` of a hook that is written, and says whether it is to go on rather than to abort.
fn goes_on(hook: &Section<'_>, words: &[&str], else_why: &str) -> Option<bool> {
    if !hook.is_written {
        return None;
    }
    let example = format!("\"{}\"", words.first().unwrap_or(&"abort"));
    hook.require("do", &example, |value| match values::text(value)? {
        "abort" => Ok(false),
        word if words.contains(&word) => Ok(true),
        word => {
            let words: Vec<_> = words.iter().chain(&["abort"]).map(|word| format!("\"{word}\"")).collect();
            Err(Wrong::new(
                format!("{} is not possible here{else_why}", quoted(word)),
                format!("write do = {}", words.join(" or ")),
            ))
        }
    })
}

fn nothing_but_do(hook: &Section<'_>, keys: &[&str]) {
    for key in keys.iter().filter(|key| hook.has(key)) {
        hook.fault(key, "means nothing where do = \"abort\"", "remove it");
    }
}

fn retry(hook: Section<'_>, default: Retry) -> Retry {
    match goes_on(&hook, &["retry"], "") {
        None => return default,
        Some(false) => {
            nothing_but_do(&hook, &["every", "times", "within"]);
            return Retry::Abort;
        }
        Some(true) => {}
    }
    let Retry::Retry { every, times, within } = default else { return default };
    let shortest = Duration::from_millis(1);
    let every = hook.bounded("every", every, shortest..=LONGEST, values::duration, show_duration);
    let times = hook.bounded("times", times, 1..=MAX_TIMES, values::small_integer, |times| times.to_string());
    let within = hook.bounded("within", within, shortest..=LONGEST, values::duration, show_duration);
    if within < every {
        hook.fault(
            "within",
            format!("{} is shorter than every = {}", show_duration(within), show_duration(every)),
            "write a within that leaves time for one attempt at least",
        );
    }
    Retry::Retry { every, times, within }
}

fn adopt(hook: Section<'_>, default: Adopt) -> Adopt {
    match goes_on(&hook, &["adopt", "retry"], "") {
        None => return default,
        Some(false) => {
            nothing_but_do(&hook, &["times"]);
            return Adopt::Abort;
        }
        Some(true) => {}
    }
    let Adopt::Adopt { times } = default else { return default };
    Adopt::Adopt {
        times: hook.bounded("times", times, 1..=MAX_TIMES, values::small_integer, |times| times.to_string()),
    }
}

fn abort(hook: &Section<'_>) -> Abort {
    goes_on(
        hook,
        &[],
        ": the seller wants money from a contract that holds none of ours, and asking again changes nothing",
    );
    Abort
}

fn covers(earlier: &Rule, later: &Rule) -> bool {
    let port = earlier.port.is_none() || earlier.port == later.port;
    port && match (&earlier.host, &later.host) {
        (HostPattern::Any, _) => true,
        (HostPattern::Below(above), HostPattern::Below(below)) => below.ends_with(above.as_str()),
        (pattern, HostPattern::Exactly(host)) => pattern.matches(host),
        (HostPattern::Below(_) | HostPattern::Exactly(_), HostPattern::Any)
        | (HostPattern::Exactly(_), HostPattern::Below(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(covers(&rule(earlier), &rule(later)), expected, "{earlier:?} {later:?}");
        }
    }
}
