//! Reads `[hooks]` and the `hooks` of a `[[pay]]` entry: what to do at each step of a payment, and which webhook to ask.

use std::time::Duration;

use ::config::Value;
use serde_json::json;

use super::key::{KeySpec, Shape, Table, keys, word_for, words};
use super::raw_value::{InvalidValue, quoted};
use super::rules::is_set;
use super::section::{Issues, Section};
use super::values;
use super::values::show_duration;
use crate::limits::{DAY, MILLISECOND, MINUTE, Quantity, SECOND, count, time};
use crate::protocol::policy::{
    Abort, Adopt, CloseDenied, Exit, Hook, Hooks, Init, Marks, Missing, OnError, OnResponse, Requested,
    Retry, Success, Webhook,
};

const INIT: [(&str, Init); 2] = [("pass", Init::Pass), ("ask", Init::Ask)];
const REQUESTED: [(&str, Requested); 3] =
    [("pay", Requested::Pay), ("ask", Requested::Ask), ("abort", Requested::Abort)];
/// True: retry.
const RETRY: [(&str, bool); 2] = [("retry", true), ("abort", false)];
/// Some(true): reopen. Some(false): retry.
const MISSING: [(&str, Option<bool>); 3] = [("retry", Some(false)), ("reopen", Some(true)), ("abort", None)];
/// True: adopt.
const ADOPT: [(&str, bool); 3] = [("adopt", true), ("retry", true), ("abort", false)];
const ABORT: [(&str, Abort); 1] = [("abort", Abort)];
const ERROR: [(&str, OnError); 3] =
    [("pass", OnError::Pass), ("ask", OnError::Ask), ("abort", OnError::Abort)];
const RESPONSE: [(&str, ResponseAction); 3] =
    [("pass", ResponseAction::Pass), ("ask", ResponseAction::Ask), ("abort", ResponseAction::Abort)];
const SUCCESS: [(&str, Success); 2] = [("log", Success::Log), ("webhook", Success::Tell)];
const EXIT: [(&str, Exit); 2] = [("pass", Exit::Pass), ("webhook", Exit::Tell)];
const CLOSE_DENIED: [(&str, CloseDenied); 3] =
    [("keep", CloseDenied::Keep), ("close_alone", CloseDenied::CloseAlone), ("abort", CloseDenied::Abort)];

/// The actions of `http_response`.
#[derive(Clone, Copy)]
enum ResponseAction {
    Pass,
    Ask,
    Abort,
}

/// How often, and for how long, the same payment is presented again.
struct Repeat {
    every: Quantity,
    times: Quantity,
    timeout: Quantity,
}

const REPEAT: Repeat = repeat(Retry::DEFAULT);
const REPEAT_SHORT: Repeat = repeat(Retry::SHORT);
const TIMES: Quantity = count(
    match Adopt::DEFAULT {
        Adopt::Adopt { times } => times as u64,
        Adopt::Abort => 1,
    },
    1..=MAX_TIMES,
);
pub(super) const WEBHOOK_TIMEOUT: Quantity = time(2 * SECOND, MILLISECOND..=MINUTE);
const MAX_TIMES: u64 = 10_000;
const MAX_MARKS: usize = 1000;

const fn repeat(default: Retry) -> Repeat {
    let (every, times, timeout) = match default {
        Retry::Retry { every, times, within } => {
            (every.as_nanos() as u64, times as u64, within.as_nanos() as u64)
        }
        Retry::Abort => (MILLISECOND, 1, MILLISECOND),
    };
    Repeat {
        every: time(every, MILLISECOND..=DAY),
        times: count(times, 1..=MAX_TIMES),
        timeout: time(timeout, MILLISECOND..=DAY),
    }
}

const fn action(words: &'static [&'static str]) -> KeySpec {
    KeySpec::new("action", Shape::Word(words), &["What to do."]).required()
}

const fn every(repeat: &Repeat) -> KeySpec {
    KeySpec::new("every", Shape::Quantity(repeat.every), &["The pause before each further attempt."])
}

const fn times(quantity: Quantity) -> KeySpec {
    KeySpec::new("times", Shape::Quantity(quantity), &["The most further attempts."])
}

const fn timeout(repeat: &Repeat) -> KeySpec {
    KeySpec::new(
        "timeout",
        Shape::Quantity(repeat.timeout),
        &["The time for all attempts; no shorter than every."],
    )
}

/// The URL of a webhook.
pub(super) const WEBHOOK: Shape = Shape::Text("^[hH][tT][tT][pP]://[^@/]");
const WEBHOOK_KEY: KeySpec = KeySpec::new("webhook", WEBHOOK, &["The plain http URL to ask or to notify."]);
const WEBHOOK_TIMEOUT_KEY: KeySpec = KeySpec::new(
    "webhook_timeout",
    Shape::Quantity(WEBHOOK_TIMEOUT),
    &["The time for the webhook to reply."],
);

static INIT_TABLE: Table = Table::new(
    "init",
    "Before a request.",
    &[action(&const { words(&INIT) }), WEBHOOK_KEY, WEBHOOK_TIMEOUT_KEY],
)
.with_rules(|| vec![asks("ask")]);
static REQUESTED_TABLE: Table = Table::new(
    "payment_requested",
    "A price that the entry allows.",
    &[action(&const { words(&REQUESTED) }), WEBHOOK_KEY, WEBHOOK_TIMEOUT_KEY],
)
.with_rules(|| vec![only("ask"), may_ask()]);
static RETRY_TABLE: Table = Table::new(
    "insufficient_confirmations",
    "Too few confirmations.",
    &[
        action(&const { words(&RETRY) }),
        every(&REPEAT),
        times(REPEAT.times),
        timeout(&REPEAT),
        WEBHOOK_KEY,
        WEBHOOK_TIMEOUT_KEY,
    ],
)
.with_rules(|| vec![alone("abort"), may_ask()]);
static MISSING_TABLE: Table = Table::new(
    "nonexisting_channel",
    "A channel that the seller does not know.",
    &[
        action(&const { words(&MISSING) }),
        every(&REPEAT),
        times(REPEAT.times),
        timeout(&REPEAT),
        WEBHOOK_KEY,
        WEBHOOK_TIMEOUT_KEY,
    ],
)
.with_rules(|| vec![alone("abort"), may_ask()]);
static PROOF_TABLE: Table = Table::new(
    "invalid_balance_proof",
    "A signature that the seller refuses.",
    &[
        action(&const { words(&RETRY) }),
        every(&REPEAT_SHORT),
        times(REPEAT_SHORT.times),
        timeout(&REPEAT_SHORT),
        WEBHOOK_KEY,
        WEBHOOK_TIMEOUT_KEY,
    ],
)
.with_rules(|| vec![alone("abort"), may_ask()]);
static ADOPT_TABLE: Table = Table::new(
    "invalid_amount",
    "A seller whose total differs from ours.",
    &[action(&const { words(&ADOPT) }), times(TIMES), WEBHOOK_KEY, WEBHOOK_TIMEOUT_KEY],
)
.with_rules(|| vec![alone("abort"), may_ask()]);
static ABORT_TABLE: Table = Table::new(
    "invalid_contract_address",
    "Another contract than ours.",
    &[action(&const { words(&ABORT) })],
);
static ERROR_TABLE: Table = Table::new(
    "http_error",
    "An error response.",
    &[action(&const { words(&ERROR) }), WEBHOOK_KEY, WEBHOOK_TIMEOUT_KEY],
)
.with_rules(|| vec![asks("ask")]);
static RESPONSE_TABLE: Table = Table::new(
    "http_response",
    "Any response.",
    &[
        action(&const { words(&RESPONSE) }),
        KeySpec::new(
            "status",
            Shape::List(&Shape::Integer(200, 599), 1, MAX_MARKS),
            &["The statuses that the action is about."],
        ),
        KeySpec::new(
            "header",
            Shape::List(&Shape::Text("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), 1, MAX_MARKS),
            &["The names of the headers that the action is about, whatever their values."],
        ),
        WEBHOOK_KEY,
        WEBHOOK_TIMEOUT_KEY,
    ],
)
.with_rules(|| {
    let marks = json!({"anyOf": [is_set("status"), is_set("header")]});
    vec![alone("pass"), asks("ask"), json!({"if": is_action("abort"), "then": marks})]
});
static SUCCESS_TABLE: Table = Table::new(
    "success",
    "A paid request.",
    &[action(&const { words(&SUCCESS) }), WEBHOOK_KEY, WEBHOOK_TIMEOUT_KEY],
)
.with_rules(|| vec![asks("webhook")]);
static EXIT_TABLE: Table = Table::new(
    "exit",
    "The end of a request.",
    &[action(&const { words(&EXIT) }), WEBHOOK_KEY, WEBHOOK_TIMEOUT_KEY],
)
.with_rules(|| vec![asks("webhook")]);
static CLOSE_DENIED_TABLE: Table = Table::new(
    "cooperative_close_denied",
    "A close that the seller does not sign.",
    &[action(&const { words(&CLOSE_DENIED) }), WEBHOOK_KEY, WEBHOOK_TIMEOUT_KEY],
)
.with_rules(|| {
    let webhook = json!({"anyOf": [is_set("webhook"), is_set("webhook_timeout")]});
    vec![json!({"if": webhook, "then": is_action("close_alone")}), may_ask()]
});

fn is_action(word: &str) -> serde_json::Value {
    json!({"required": ["action"], "properties": {"action": {"const": word}}})
}

/// The webhook is required with this action, and has no effect with another.
fn asks(word: &str) -> serde_json::Value {
    let webhook = [is_set("webhook"), is_set("webhook_timeout")];
    json!({"if": is_action(word), "then": is_set("webhook"), "else": {"not": {"anyOf": webhook}}})
}

/// A webhook is optional with this action, and has no effect with another.
fn only(word: &str) -> serde_json::Value {
    let webhook = json!({"anyOf": [is_set("webhook"), is_set("webhook_timeout")]});
    json!({"if": webhook, "then": is_action(word)})
}

/// A webhook is optional.
fn may_ask() -> serde_json::Value {
    json!({"if": is_set("webhook_timeout"), "then": is_set("webhook")})
}

/// No other key has an effect with this action.
fn alone(word: &str) -> serde_json::Value {
    let others = ["every", "times", "timeout", "status", "header", "webhook", "webhook_timeout"].map(is_set);
    json!({"if": is_action(word), "then": {"not": {"anyOf": others}}})
}

/// The keys of `[hooks]`.
pub(super) static HOOKS: Table = Table::new(
    "hooks",
    "What to do at each step of a payment.",
    keys! {
        /// Before each request to a host that a [[pay]] entry pays, whether or not it meets a 402.
        "init": Shape::Table(&INIT_TABLE); or(|| json!({"action": word_for(&INIT, Init::Pass)})),
        /// A seller asks for a price that the entry allows.
        "payment_requested": Shape::Table(&REQUESTED_TABLE); or(|| json!({"action": word_for(&REQUESTED, Requested::Pay)})),
        /// The channel or its top-up does not have enough confirmations for the seller.
        "insufficient_confirmations": Shape::Table(&RETRY_TABLE); or(|| repeated(&REPEAT)),
        /// The seller does not know the channel, often because its node has not seen the block yet.
        "nonexisting_channel": Shape::Table(&MISSING_TABLE); or(|| repeated(&REPEAT)),
        /// The seller recovers another address than yours from the signature.
        "invalid_balance_proof": Shape::Table(&PROOF_TABLE); or(|| repeated(&REPEAT_SHORT)),
        /// The seller's total differs from ours.
        "invalid_amount": Shape::Table(&ADOPT_TABLE); or(|| json!({"action": "adopt", "times": TIMES.default})),
        /// The seller asks for payment through another contract than yours.
        "invalid_contract_address": Shape::Table(&ABORT_TABLE); or(|| json!({"action": word_for(&ABORT, Abort)})),
        /// The response has a status of 400 or above, except 402.
        "http_error": Shape::Table(&ERROR_TABLE); or(|| json!({"action": word_for(&ERROR, OnError::Pass)})),
        /// Every response, including each 402.
        "http_response": Shape::Table(&RESPONSE_TABLE); or(|| json!({"action": "pass"})),
        /// A request was paid.
        "success": Shape::Table(&SUCCESS_TABLE); or(|| json!({"action": word_for(&SUCCESS, Success::Log)})),
        /// A request for which init ran has ended.
        "exit": Shape::Table(&EXIT_TABLE); or(|| json!({"action": word_for(&EXIT, Exit::Pass)})),
        /// The seller refuses to sign the close of a channel.
        "cooperative_close_denied": Shape::Table(&CLOSE_DENIED_TABLE); or(|| json!({"action": word_for(&CLOSE_DENIED, CloseDenied::Keep)})),
    },
);

fn repeated(Repeat { every, times, timeout }: &Repeat) -> serde_json::Value {
    let [every, timeout] = [every, timeout].map(|time| show_duration(Duration::from_nanos(time.default)));
    json!({"action": "retry", "every": every, "times": times.default, "timeout": timeout})
}

/// Reads hooks. A hook that is not set is as in `otherwise`; what a hook leaves out is as in the defaults.
pub(super) fn hooks(value: Option<Value>, path: &str, otherwise: &Hooks, issues: &Issues) -> Hooks {
    let mut all = Section::new(path, value, &HOOKS, issues);
    let mut hook = |table: &'static Table| {
        let path = all.path_of(table.name);
        Section::new(path, all.take(table.name), table, issues)
    };
    Hooks {
        init: init(&hook(&INIT_TABLE)).unwrap_or_else(|| otherwise.init.clone()),
        payment_requested: requested(&hook(&REQUESTED_TABLE))
            .unwrap_or_else(|| otherwise.payment_requested.clone()),
        ask_above: otherwise.ask_above.clone(),
        insufficient_confirmations: retry(&hook(&RETRY_TABLE), &REPEAT)
            .unwrap_or_else(|| otherwise.insufficient_confirmations.clone()),
        nonexisting_channel: missing(&hook(&MISSING_TABLE))
            .unwrap_or_else(|| otherwise.nonexisting_channel.clone()),
        invalid_balance_proof: retry(&hook(&PROOF_TABLE), &REPEAT_SHORT)
            .unwrap_or_else(|| otherwise.invalid_balance_proof.clone()),
        invalid_amount: adopt(&hook(&ADOPT_TABLE)).unwrap_or_else(|| otherwise.invalid_amount.clone()),
        invalid_contract_address: abort(&hook(&ABORT_TABLE)),
        http_error: on_error(&hook(&ERROR_TABLE)).unwrap_or_else(|| otherwise.http_error.clone()),
        http_response: on_response(&hook(&RESPONSE_TABLE)).unwrap_or_else(|| otherwise.http_response.clone()),
        success: success(&hook(&SUCCESS_TABLE)).unwrap_or_else(|| otherwise.success.clone()),
        exit: exit(&hook(&EXIT_TABLE)).unwrap_or_else(|| otherwise.exit.clone()),
        cooperative_close_denied: close_denied(&hook(&CLOSE_DENIED_TABLE))
            .unwrap_or_else(|| otherwise.cooperative_close_denied.clone()),
    }
}

fn init(hook: &Section<'_>) -> Option<Hook<Init>> {
    let action = word(hook, &INIT, "")?;
    Some(Hook { action, webhook: asked(hook, action == Init::Ask, "ask") })
}

fn exit(hook: &Section<'_>) -> Option<Hook<Exit>> {
    let action = word(hook, &EXIT, "")?;
    Some(Hook { action, webhook: asked(hook, action == Exit::Tell, "webhook") })
}

fn requested(hook: &Section<'_>) -> Option<Hook<Requested>> {
    let action = word(hook, &REQUESTED, "")?;
    let is_asking = action == Requested::Ask;
    // Without a webhook, the operator is asked.
    Some(Hook { action, webhook: if is_asking { webhook(hook) } else { asked(hook, false, "ask") } })
}

fn retry(hook: &Section<'_>, repeat: &Repeat) -> Option<Hook<Retry>> {
    if !word(hook, &RETRY, "")? {
        nothing_but_action(hook, &["every", "times", "timeout", "webhook", "webhook_timeout"], "abort");
        return Some(Retry::Abort.into());
    }
    let (every, times, within) = repetition(hook, repeat);
    Some(Hook { action: Retry::Retry { every, times, within }, webhook: webhook(hook) })
}

fn missing(hook: &Section<'_>) -> Option<Hook<Missing>> {
    let Some(reopens) = word(hook, &MISSING, "")? else {
        nothing_but_action(hook, &["every", "times", "timeout", "webhook", "webhook_timeout"], "abort");
        return Some(Missing::Abort.into());
    };
    let (every, times, within) = repetition(hook, &REPEAT);
    let action = match reopens {
        true => Missing::Reopen { every, times, within },
        false => Missing::Retry { every, times, within },
    };
    Some(Hook { action, webhook: webhook(hook) })
}

fn adopt(hook: &Section<'_>) -> Option<Hook<Adopt>> {
    if !word(hook, &ADOPT, "")? {
        nothing_but_action(hook, &["times", "webhook", "webhook_timeout"], "abort");
        return Some(Adopt::Abort.into());
    }
    let times = hook.count("times", TIMES);
    Some(Hook { action: Adopt::Adopt { times }, webhook: webhook(hook) })
}

fn abort(hook: &Section<'_>) -> Abort {
    let why = ": the seller asks for payment through a contract that holds none of our money, and a retry does not \
               change that";
    word(hook, &ABORT, why).unwrap_or(Abort)
}

fn on_error(hook: &Section<'_>) -> Option<Hook<OnError>> {
    let why = if hook.has("action") { ": the response is already paid for" } else { "" };
    let action = word(hook, &ERROR, why)?;
    Some(Hook { action, webhook: asked(hook, action == OnError::Ask, "ask") })
}

fn on_response(hook: &Section<'_>) -> Option<Hook<OnResponse>> {
    let what = word(hook, &RESPONSE, "")?;
    if matches!(what, ResponseAction::Pass) {
        nothing_but_action(hook, &["status", "header", "webhook", "webhook_timeout"], "pass");
        return Some(OnResponse::Pass.into());
    }
    let status =
        hook.read("status", |value| values::list(value, MAX_MARKS, values::status)).unwrap_or_default();
    let header =
        hook.read("header", |value| values::list(value, MAX_MARKS, values::header_name)).unwrap_or_default();
    let is_asking = matches!(what, ResponseAction::Ask);
    let is_any = !hook.has("status") && !hook.has("header");
    if is_any && !is_asking {
        hook.issue("", "neither status nor header is set", "write status = [404] or header = [\"x-name\"]");
    }
    let marks = Marks { status, header };
    let action = match what {
        ResponseAction::Ask if is_any => OnResponse::AskAlways,
        ResponseAction::Ask => OnResponse::Ask(marks),
        ResponseAction::Pass | ResponseAction::Abort => OnResponse::Abort(marks),
    };
    Some(Hook { action, webhook: asked(hook, is_asking, "ask") })
}

fn success(hook: &Section<'_>) -> Option<Hook<Success>> {
    let action = word(hook, &SUCCESS, "")?;
    Some(Hook { action, webhook: asked(hook, action == Success::Tell, "webhook") })
}

fn close_denied(hook: &Section<'_>) -> Option<Hook<CloseDenied>> {
    let action = word(hook, &CLOSE_DENIED, "")?;
    if action != CloseDenied::CloseAlone {
        return Some(Hook { action, webhook: asked(hook, false, "close_alone") });
    }
    Some(Hook { action, webhook: webhook(hook) })
}

/// Reads the action of a hook that is set. An invalid one is reported and counts as not set.
fn word<T: Copy>(hook: &Section<'_>, words: &[(&str, T)], why_not: &str) -> Option<T> {
    if !hook.is_written {
        return None;
    }
    let example = format!("\"{}\"", words.first().map_or("abort", |(word, _)| word));
    hook.require("action", &example, |value| {
        let text = values::text(value)?;
        words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            InvalidValue::new(
                format!("{} is not possible here{why_not}", quoted(text)),
                format!("write action = {}", words.join(" or ")),
            )
        })
    })
}

fn nothing_but_action(hook: &Section<'_>, others: &[&str], word: &str) {
    for key in others.iter().filter(|key| hook.has(key)) {
        hook.issue(key, format!("has no effect with action = \"{word}\""), "remove it");
    }
}

/// A webhook that is required if the hook asks, and has no effect otherwise.
fn asked(hook: &Section<'_>, is_asking: bool, asking: &str) -> Option<Webhook> {
    for key in ["webhook", "webhook_timeout"].iter().filter(|key| !is_asking && hook.has(key)) {
        hook.issue(key, format!("has an effect only with action = \"{asking}\""), "remove one of the two");
    }
    if is_asking && !hook.has("webhook") {
        hook.issue("webhook", "missing", "write webhook = \"http://127.0.0.1:9000/\"");
    }
    webhook(hook)
}

/// The keys `webhook` and `webhook_timeout` of a section.
pub(super) fn webhook(hook: &Section<'_>) -> Option<Webhook> {
    let within = hook.time("webhook_timeout", WEBHOOK_TIMEOUT);
    if hook.has("webhook_timeout") && !hook.has("webhook") {
        hook.issue(
            "webhook_timeout",
            "has no effect without webhook",
            "remove it, or write webhook = \"http://…\"",
        );
    }
    let url = hook.read("webhook", values::webhook)?;
    Some(Webhook { url, within })
}

fn repetition(hook: &Section<'_>, repeat: &Repeat) -> (Duration, u32, Duration) {
    let every = hook.time("every", repeat.every);
    let times = hook.count("times", repeat.times);
    let timeout = hook.time("timeout", repeat.timeout);
    if timeout < every {
        hook.issue(
            "timeout",
            format!("{} is shorter than every = {}", show_duration(timeout), show_duration(every)),
            "write a timeout that leaves time for at least one attempt",
        );
    }
    (every, times, timeout)
}
