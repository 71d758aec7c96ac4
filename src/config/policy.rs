//! Reads `[[pay]]` and `[deposit]`: what the user allows.

use std::sync::Arc;
use std::time::Duration;

use ::config::Value;
use serde_json::json;

use super::key::{ADDRESS, HOST_PATTERN, Shape, Table, keys, word_for, words};
use super::raw_value::{InvalidValue, quoted};
use super::rules::is_set;
use super::section::{Issues, Section, entries};
use super::values::show_duration;
use super::{asset, budget, hooks, price, values};
use crate::limits::{DAY, Quantity, SECOND, count, time};
use crate::protocol::Amount;
use crate::protocol::budget::Budget;
use crate::protocol::policy::{
    Allow, Browsers, Deposit, DepositSize, Hooks, HostPattern, KnownAsset, OnExit, Preference, PriceLimit,
    Requested, Rule,
};
use crate::protocol::schemes::SchemeName;

pub(super) const MAX_RULES: usize = 10_000;
const MAX_RECEIVERS: usize = 10_000;
const MAX_MULTIPLE: u64 = 1_000_000;
const LONGEST_IDLE: u64 = 30 * DAY;

/// One port.
pub(super) const PORT: Shape = Shape::Integer(1, 65_535);
const BROWSERS: [(&str, Browsers); 4] = {
    let mut words = [("", Browsers::Never); 4];
    let mut index = 0;
    while index < words.len() {
        words[index] = (Browsers::ALL[index].name(), Browsers::ALL[index]);
        index += 1;
    }
    words
};

/// The payment schemes.
const SCHEMES: [(&str, SchemeName); 2] =
    [(SchemeName::MicroRaiden.name(), SchemeName::MicroRaiden), (SchemeName::X402.name(), SchemeName::X402)];
const SCHEME: Shape = Shape::Word(&const { words(&SCHEMES) });

/// The keys of one `[[pay]]` entry.
pub(super) static PAY: Table = Table::new(
    "pay",
    "Which hosts may be paid, and how much. The first entry that matches decides.",
    keys! {
        /// A host name, an IP address, "*.example.com" (every name below it, not the name itself) or "*" (every host).
        "host": HOST_PATTERN; required(),
        /// Only this port; every port if omitted.
        "port": PORT,
        /// The highest price of one request: an amount such as "0.05 USDC" or "1000 units of RDN" (base units), which
        /// allows only tokens with this symbol; a value such as "$0.05", which allows the tokens with a value in dollars;
        /// or a bare integer, base units of the µRaiden token, which allows no other.
        "max_price": price::PRICE,
        /// An approver is asked only about prices above this, written like max_price; 0 asks about each one.
        "ask_above": price::PRICE_OR_ZERO,
        /// The only tokens that may be paid, by their symbols; any that max_price allows if omitted.
        "assets": Shape::List(&asset::SYMBOL, 1, price::MAX_NAMES),
        /// The only networks on which they may be paid, by their CAIP-2 IDs; any if omitted.
        "networks": Shape::List(&asset::NETWORK, 1, price::MAX_NAMES),
        /// The only payment schemes: "microraiden", "x402"; any if omitted. If a seller offers several ways to pay, the order
        /// in this list decides, then the order in networks, then in assets, and then the lower value in dollars.
        "schemes": Shape::List(&SCHEME, 1, SCHEMES.len()),
        /// The only addresses that may be paid; any address if omitted.
        "receivers": Shape::List(&ADDRESS, 1, MAX_RECEIVERS),
        /// Whether a request carries a payment at once if its price is known from an earlier 402.
        "send_ahead": Shape::Boolean(true),
        /// Whether sellers on other machines are paid over unencrypted http.
        "allow_plain_http": Shape::Boolean(false),
        /// The names of budgets that its payments count in, in addition to those that apply anyway.
        "budgets": Shape::List(&budget::NAME, 1, budget::MAX_BUDGETS),
        /// Which requests from browsers are paid: "never"; "navigations", the pages that you open or that you reach
        /// from the same site; "same-origin", these and what a page requests from its own origin; "any".
        "browsers": Shape::Word(&const { words(&BROWSERS) }),
        /// Hooks for this entry only.
        "hooks": Shape::Table(&hooks::HOOKS),
        /// true: never pay these hosts.
        "deny": Shape::Boolean(false),
    },
)
.with_rules(|| {
    let denies = json!({"required": ["deny"], "properties": {"deny": {"const": true}}});
    let pays = PAYING.map(is_set);
    vec![json!({"if": denies, "then": {"not": {"anyOf": pays}}, "else": is_set("max_price")})]
});

/// The keys that have no effect in an entry that denies.
const PAYING: [&str; 11] = [
    "max_price",
    "ask_above",
    "assets",
    "networks",
    "schemes",
    "receivers",
    "send_ahead",
    "allow_plain_http",
    "budgets",
    "browsers",
    "hooks",
];

const CHANNELS: Quantity = count(Deposit::DEFAULT.channels as u64, 1..=1000);
const RETRY_AFTER: Quantity = time(Deposit::DEFAULT.retry_after.as_nanos() as u64, SECOND..=DAY);
const MAX_COUNT: Quantity = count(Deposit::DEFAULT.max_count as u64, 1..=1_000_000);
const COUNT_WINDOW: Quantity = time(Deposit::DEFAULT.count_window.as_nanos() as u64, SECOND..=30 * DAY);
const ON_EXIT: [(&str, OnExit); 2] = [("never", OnExit::Never), ("cooperative", OnExit::Cooperative)];
/// A multiple of the price, or an amount.
const SIZE: Shape = Shape::Any(&[Shape::Integer(1, MAX_MULTIPLE), Shape::Text("^[0-9]+\\s*units$")]);

/// The keys of `[deposit]`.
pub(super) static DEPOSIT: Table = Table::new(
    "deposit",
    "How much to lock up in channels.",
    keys! {
        /// The deposit of a new channel: a multiple of the price, or an amount in base units such as "1000 units".
        "initial": SIZE; or(|| size_json(Deposit::DEFAULT.initial)),
        /// A channel that runs low is topped up until it can pay this much again: a multiple of the price, or an
        /// amount.
        "top_up": SIZE; or(|| size_json(Deposit::DEFAULT.top_up)),
        /// How many channels a host may have open to one receiver.
        "channels": Shape::Quantity(CHANNELS),
        /// When to close, together with the seller, an idle channel beyond the first one to a receiver: after this time
        /// without a payment, such as "10m", or "never".
        "close_idle_after": Shape::Any(&[Shape::Word(&["never"]), Shape::Time(SECOND, LONGEST_IDLE)]); or(|| json!("never")),
        /// The most that one channel may hold, including top-ups and transactions that are not confirmed yet.
        "max_per_channel": Shape::Amount(1, Some(Deposit::DEFAULT.max_per_channel)); or(|| json!(Deposit::DEFAULT.max_per_channel)),
        /// The most that all channels to one receiver may hold together, counted in the same way; unlimited if omitted.
        "max_per_receiver": Shape::Amount(1, None),
        /// The most that all channels may hold together, counted in the same way; unlimited if omitted. A seller that
        /// names a new receiver in each 402 gets a deposit for each, unless the [[pay]] entry lists the receivers.
        "max_total": Shape::Amount(1, None),
        /// After a failed transaction, how long to send none for the same receiver and host; doubled with each further
        /// failure, up to an hour.
        "retry_after": Shape::Quantity(RETRY_AFTER),
        /// How many deposits may be made for one receiver and host within this time.
        "max_count": Shape::Quantity(MAX_COUNT),
        /// How many deposits may be made for one receiver and host within this time.
        "count_window": Shape::Quantity(COUNT_WINDOW),
        /// What to do with open channels at shutdown: "never" leaves them open for the next start; "cooperative" closes
        /// each one that has paid, together with its seller, within limits.drain_timeout.
        "on_exit": Shape::Word(&const { words(&ON_EXIT) }); or(|| json!(word_for(&ON_EXIT, Deposit::DEFAULT.on_exit))),
    },
);

fn size_json(size: DepositSize) -> serde_json::Value {
    match size {
        DepositSize::Times(multiple) => json!(multiple),
        DepositSize::Units(amount) => json!(format!("{amount} units")),
    }
}

/// What `[[pay]]` entries refer to.
#[derive(Clone, Copy)]
pub(super) struct PayContext<'a> {
    /// The tokens that an entry can name.
    pub assets: &'a [KnownAsset],
    /// The budgets that an entry can name.
    pub budgets: &'a [Arc<Budget>],
    /// The hooks that an entry does not set.
    pub hooks: &'a Arc<Hooks>,
}

/// Reads the `[[pay]]` entries at `path`, in order.
pub(super) fn rules(path: &str, value: Option<Value>, context: PayContext<'_>, issues: &Issues) -> Vec<Rule> {
    let entries = entries(path, value, MAX_RULES, issues).into_iter().enumerate();
    entries
        .filter_map(|(index, entry)| {
            rule(Section::new(format!("{path}[{index}]"), Some(entry), &PAY, issues), context, issues)
        })
        .collect()
}

/// Reads `[deposit]`.
pub(super) fn deposit(section: &Section<'_>) -> Deposit {
    let default = Deposit::DEFAULT;
    let largest = default.max_per_channel;
    let size = |key, default| section.read(key, |value| deposit_size(value, largest)).unwrap_or(default);
    Deposit {
        initial: size("initial", default.initial),
        top_up: size("top_up", default.top_up),
        channels: section.count("channels", CHANNELS),
        // The default is also the most that the contract accepts.
        max_per_channel: section.bounded(
            "max_per_channel",
            default.max_per_channel,
            Amount::from(1)..=largest,
            values::amount,
            |amount| amount.to_string(),
        ),
        max_per_receiver: section.read("max_per_receiver", deposit_limit),
        max_total: section.read("max_total", deposit_limit),
        retry_after: section.time("retry_after", RETRY_AFTER),
        max_count: section.count("max_count", MAX_COUNT),
        count_window: section.time("count_window", COUNT_WINDOW),
        on_exit: section.read("on_exit", |value| values::word(value, &ON_EXIT)).unwrap_or(default.on_exit),
        close_idle_after: section
            .read("close_idle_after", close_idle_after)
            .unwrap_or(default.close_idle_after),
    }
}

/// The most that several channels may hold together.
fn deposit_limit(value: &Value) -> Result<Amount, InvalidValue> {
    match values::amount(value)? {
        Amount::ZERO => {
            Err(InvalidValue::new("0 would allow no channel", "write an amount above 0, or remove the key"))
        }
        limit => Ok(limit),
    }
}

/// A number is a multiple of the price; a string that ends with "units" is an amount, whatever the price.
fn deposit_size(value: &Value, largest: Amount) -> Result<DepositSize, InvalidValue> {
    let remedy = format!(
        "write a multiple of the price from 1 to {MAX_MULTIPLE}, or an amount such as \"1000 units\", at most {largest}"
    );
    let units = values::text(value).ok().and_then(|text| text.trim().strip_suffix("units"));
    let size = match units {
        Some(amount) => match amount.trim().parse::<Amount>() {
            Ok(amount) if !amount.is_zero() && amount <= largest => Some(DepositSize::Units(amount)),
            Ok(_) | Err(_) => None,
        },
        None => values::integer(value)
            .ok()
            .filter(|multiple| (1..=MAX_MULTIPLE).contains(multiple))
            .map(DepositSize::Times),
    };
    let written = values::text(value).map_or_else(|_| value.to_string(), quoted);
    size.ok_or_else(|| InvalidValue::new(format!("{written} is not a valid deposit"), remedy))
}

fn close_idle_after(value: &Value) -> Result<Option<Duration>, InvalidValue> {
    if values::text(value).is_ok_and(|text| text == "never") {
        return Ok(None);
    }
    let remedy = "write \"never\", or how long a channel may be idle, from \"1s\" to \"30d\"";
    let idle =
        values::duration(value).map_err(|InvalidValue { problem, .. }| InvalidValue::new(problem, remedy))?;
    if !(Duration::from_nanos(SECOND)..=Duration::from_nanos(LONGEST_IDLE)).contains(&idle) {
        return Err(InvalidValue::new(format!("{} is out of range", show_duration(idle)), remedy));
    }
    Ok(Some(idle))
}

/// Warnings about rules that an earlier one hides, and about prices that no channel can hold.
pub(super) fn warnings(path: &str, rules: &[Rule], deposit: &Deposit) -> Vec<String> {
    let hidden = rules.iter().enumerate().filter_map(|(index, rule)| {
        let earlier = rules[..index].iter().position(|earlier| covers(place(earlier), place(rule)))?;
        let host = &rule.host;
        Some(format!("{path}[{index}] ({host}) never matches: {path}[{earlier}] above it matches first"))
    });
    let costly = rules.iter().enumerate().filter_map(|(index, rule)| match &rule.allow {
        Allow::Pay { max_price: PriceLimit::ChannelToken(most), .. } if *most > deposit.max_per_channel => {
            Some(format!(
                "{path}[{index}] ({}) allows more than a channel may hold: {most} is above \
                 deposit.max_per_channel = {}",
                rule.host, deposit.max_per_channel
            ))
        }
        Allow::Pay { .. } | Allow::Deny => None,
    });
    hidden.chain(costly).collect()
}

/// Why entries can never pay without a `[chain]`.
pub(super) fn unpayable(path: &str, rules: &[Rule]) -> Vec<String> {
    let told = |(index, rule): (usize, &Rule)| {
        let why = needs_chain(&rule.allow)?;
        Some(format!("{path}[{index}] ({}) can never pay: {why}", rule.host))
    };
    rules.iter().enumerate().filter_map(told).collect()
}

fn needs_chain(allow: &Allow) -> Option<String> {
    match allow {
        Allow::Pay { max_price: PriceLimit::ChannelToken(most), .. } => {
            let units = if *most == Amount::from(1) { "base unit" } else { "base units" };
            Some(format!(
                "{most} means {most} {units} of the µRaiden token, and no [chain] is configured; write an amount with a \
                 unit, such as \"$0.05\" or \"0.05 USDC\""
            ))
        }
        Allow::Pay { preference, .. } if preference.requires_channels() => {
            let why = "its schemes pay from channels only, and no [chain] is configured; add one, or name other schemes";
            Some(why.to_owned())
        }
        Allow::Pay { .. } | Allow::Deny => None,
    }
}

fn rule(mut entry: Section<'_>, context: PayContext<'_>, issues: &Issues) -> Option<Rule> {
    let (host, port) = (host(&entry), port(&entry));
    let allow = allow(&mut entry, context, issues);
    Some(Rule { host: host?, port, allow: allow? })
}

/// Reads the host pattern of an entry.
pub(super) fn host(entry: &Section<'_>) -> Option<HostPattern> {
    entry.require("host", "\"api.example.com\", or \"*.example.com\"", |value| {
        values::host_pattern(value, |text| {
            within_url(text).unwrap_or_else(|| "write one such as \"api.example.com\"".to_owned())
        })
    })
}

/// What to write instead of a URL, or of a host and a port.
fn within_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && !host.ends_with(':') => {
            (host, Some(port.parse::<u16>().ok()?))
        }
        _ => (authority.trim_end_matches(':'), None),
    };
    let host: HostPattern = host.parse().ok()?;
    let port = port.or(match scheme {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    });
    let port = port.map(|port| format!(" and port = {port}")).unwrap_or_default();
    Some(format!("write host = \"{host}\"{port}"))
}

/// Reads the port of an entry; `None` means every port.
pub(super) fn port(entry: &Section<'_>) -> Option<u16> {
    entry.read("port", |value| match values::integer(value)? {
        number @ 1..=65_535 => Ok(number as u16),
        number => Err(InvalidValue::new(
            format!("{number} is not a valid port"),
            "write a value from 1 to 65535, or remove it for every port",
        )),
    })
}

fn allow(entry: &mut Section<'_>, context: PayContext<'_>, issues: &Issues) -> Option<Allow> {
    let deny = if entry.has("deny") { entry.read("deny", values::boolean)? } else { false };
    if deny {
        for key in PAYING {
            if entry.has(key) {
                entry.issue(key, "has no effect with deny = true", "remove one of the two");
            }
        }
        return Some(Allow::Deny);
    }
    let prices = price::prices(entry, context.assets);
    let receivers = entry.read("receivers", |value| {
        let receivers = values::addresses(value)?;
        if receivers.is_empty() {
            return Err(InvalidValue::new(
                "an empty list",
                "write the addresses that may be paid, or remove the key for any address",
            ));
        }
        Ok(receivers)
    });
    let schemes = entry
        .read("schemes", |value| values::list(value, SCHEMES.len(), |scheme| values::word(scheme, &SCHEMES)));
    // An invalid list must not permit every address or scheme.
    let are_valid =
        (receivers.is_some() || !entry.has("receivers")) && (schemes.is_some() || !entry.has("schemes"));
    let send_ahead = entry.read("send_ahead", values::boolean).unwrap_or(true);
    let allow_plain_http = entry.read("allow_plain_http", values::boolean).unwrap_or(false);
    let budgets = budget::named(entry, context.budgets);
    let browsers = entry.read("browsers", |value| values::word(value, &BROWSERS));
    let path = entry.path_of("hooks");
    let hooks = match entry.take("hooks") {
        None => Arc::clone(context.hooks),
        written => Arc::new(hooks::hooks(written, &path, context.hooks, issues)),
    };
    if !are_valid {
        return None;
    }
    let receivers = receivers.unwrap_or_default();
    let (price::PricesOfRule { max_price, ask_above, assets, networks }, budgets) = (prices?, budgets?);
    let preference = Arc::new(Preference { schemes: schemes.unwrap_or_default(), networks, assets });
    let hooks = match ask_above {
        None => hooks,
        Some(_) if hooks.payment_requested.action == Requested::Abort => {
            entry.issue("ask_above", "has no effect if payment_requested aborts", "remove one of the two");
            return None;
        }
        Some(_) => Arc::new(Hooks { ask_above, ..Hooks::clone(&hooks) }),
    };
    Some(Allow::Pay {
        max_price,
        receivers,
        preference,
        send_ahead,
        allow_plain_http,
        browsers,
        hooks,
        budgets,
    })
}

/// Hosts and, if not all, one port on them.
type HostAndPort<'a> = (&'a HostPattern, Option<u16>);

fn place(rule: &Rule) -> HostAndPort<'_> {
    (&rule.host, rule.port)
}

/// True if no request reaches `later` because `earlier` matches all of its requests.
pub(super) fn covers(earlier: HostAndPort<'_>, later: HostAndPort<'_>) -> bool {
    let port = earlier.1.is_none() || earlier.1 == later.1;
    port && match (earlier.0, later.0) {
        (HostPattern::Any, _) => true,
        (HostPattern::Below(above), HostPattern::Below(below)) => below.ends_with(&**above),
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
