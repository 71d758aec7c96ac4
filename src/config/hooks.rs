//! Reads `[hooks]` and the `hooks` of a `[[pay]]` entry: what to do at each turn of a purchase, and whom to ask.

use std::time::Duration;

use ::config::Value;

use super::section::{Faults, Section, Wrong, quoted};
use super::values;
use super::values::show_duration;
use crate::protocol::policy::{
    Abort, Adopt, CloseDenied, Exit, Hook, Hooks, Init, Marks, Missing, OnError, OnResponse, Requested,
    Retry, Success, Webhook,
};

/// The keys of `[hooks]`.
pub(super) const HOOKS: &[&str] = &[
    "init",
    "payment_requested",
    "insufficient_confirmations",
    "nonexisting_channel",
    "invalid_balance_proof",
    "invalid_amount",
    "invalid_contract_address",
    "http_error",
    "http_response",
    "success",
    "exit",
    "cooperative_close_denied",
];

const ASK: &[&str] = &["action", "webhook", "webhook_timeout"];
const RETRY: &[&str] = &["action", "every", "times", "timeout", "webhook", "webhook_timeout"];
const ADOPT: &[&str] = &["action", "times", "webhook", "webhook_timeout"];
const RESPONSE: &[&str] = &["action", "status", "header", "webhook", "webhook_timeout"];
const DO: &[&str] = &["action"];

const MAX_TIMES: u32 = 10_000;
const MAX_MARKS: usize = 1000;
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const WEBHOOK_WITHIN: Duration = Duration::from_secs(2);
const LONGEST_WEBHOOK: Duration = Duration::from_secs(60);

/// Reads hooks. One that is not written is as in `otherwise`; what is left out within one is as in the defaults.
pub(super) fn hooks(value: Option<Value>, path: &str, otherwise: &Hooks, faults: &Faults) -> Hooks {
    let mut all = Section::new(path, value, HOOKS, faults);
    let mut hook = |name, keys| {
        let path = all.path_of(name);
        Section::new(path, all.take(name), keys, faults)
    };
    let default = Hooks::default();
    Hooks {
        init: init(&hook("init", ASK)).unwrap_or_else(|| otherwise.init.clone()),
        payment_requested: requested(&hook("payment_requested", ASK))
            .unwrap_or_else(|| otherwise.payment_requested.clone()),
        insufficient_confirmations: retry(
            &hook("insufficient_confirmations", RETRY),
            default.insufficient_confirmations.action,
        )
        .unwrap_or_else(|| otherwise.insufficient_confirmations.clone()),
        nonexisting_channel: missing(&hook("nonexisting_channel", RETRY), default.nonexisting_channel.action)
            .unwrap_or_else(|| otherwise.nonexisting_channel.clone()),
        invalid_balance_proof: retry(
            &hook("invalid_balance_proof", RETRY),
            default.invalid_balance_proof.action,
        )
        .unwrap_or_else(|| otherwise.invalid_balance_proof.clone()),
        invalid_amount: adopt(&hook("invalid_amount", ADOPT), default.invalid_amount.action)
            .unwrap_or_else(|| otherwise.invalid_amount.clone()),
        invalid_contract_address: abort(&hook("invalid_contract_address", DO)),
        http_error: on_error(&hook("http_error", ASK)).unwrap_or_else(|| otherwise.http_error.clone()),
        http_response: on_response(&hook("http_response", RESPONSE))
            .unwrap_or_else(|| otherwise.http_response.clone()),
        success: success(&hook("success", ASK)).unwrap_or_else(|| otherwise.success.clone()),
        exit: exit(&hook("exit", ASK)).unwrap_or_else(|| otherwise.exit.clone()),
        cooperative_close_denied: close_denied(&hook("cooperative_close_denied", ASK))
            .unwrap_or_else(|| otherwise.cooperative_close_denied.clone()),
    }
}

fn init(hook: &Section<'_>) -> Option<Hook<Init>> {
    let action = word(hook, &[("pass", Init::Pass), ("ask", Init::Ask)], "")?;
    Some(Hook { action, webhook: asked(hook, action == Init::Ask, "ask") })
}

fn exit(hook: &Section<'_>) -> Option<Hook<Exit>> {
    let action = word(hook, &[("pass", Exit::Pass), ("webhook", Exit::Tell)], "")?;
    Some(Hook { action, webhook: asked(hook, action == Exit::Tell, "webhook") })
}

fn requested(hook: &Section<'_>) -> Option<Hook<Requested>> {
    let words = [("pay", Requested::Pay), ("ask", Requested::Ask), ("abort", Requested::Abort)];
    let action = word(hook, &words, "")?;
    Some(Hook { action, webhook: asked(hook, action == Requested::Ask, "ask") })
}

fn retry(hook: &Section<'_>, default: Retry) -> Option<Hook<Retry>> {
    let goes_on = word(hook, &[("retry", true), ("abort", false)], "")?;
    if !goes_on {
        nothing_but_do(hook, RETRY, "abort");
        return Some(Retry::Abort.into());
    }
    Some(Hook { action: patience(hook, default), webhook: webhook(hook) })
}

fn missing(hook: &Section<'_>, default: Missing) -> Option<Hook<Missing>> {
    let what = word(hook, &[("retry", Some(false)), ("reopen", Some(true)), ("abort", None)], "")?;
    let Some(reopens) = what else {
        nothing_but_do(hook, RETRY, "abort");
        return Some(Missing::Abort.into());
    };
    let action = match patience(hook, default.into()) {
        Retry::Abort => Missing::Abort,
        Retry::Retry { every, times, within } if reopens => Missing::Reopen { every, times, within },
        Retry::Retry { every, times, within } => Missing::Retry { every, times, within },
    };
    Some(Hook { action, webhook: webhook(hook) })
}

fn adopt(hook: &Section<'_>, default: Adopt) -> Option<Hook<Adopt>> {
    let goes_on = word(hook, &[("adopt", true), ("retry", true), ("abort", false)], "")?;
    let Adopt::Adopt { times } = default else { return Some(default.into()) };
    if !goes_on {
        nothing_but_do(hook, ADOPT, "abort");
        return Some(Adopt::Abort.into());
    }
    let times = hook.bounded("times", times, 1..=MAX_TIMES, values::small_integer, |times| times.to_string());
    Some(Hook { action: Adopt::Adopt { times }, webhook: webhook(hook) })
}

fn abort(hook: &Section<'_>) -> Abort {
    let why =
        ": the seller wants money from a contract that holds none of ours, and asking again changes nothing";
    word(hook, &[("abort", Abort)], why).unwrap_or(Abort)
}

fn on_error(hook: &Section<'_>) -> Option<Hook<OnError>> {
    let words = [("pass", OnError::Pass), ("ask", OnError::Ask), ("abort", OnError::Abort)];
    let why = if hook.has("action") { ": what was paid for is not paid for again" } else { "" };
    let action = word(hook, &words, why)?;
    Some(Hook { action, webhook: asked(hook, action == OnError::Ask, "ask") })
}

fn on_response(hook: &Section<'_>) -> Option<Hook<OnResponse>> {
    #[derive(Clone, Copy)]
    enum Do {
        Pass,
        Ask,
        Abort,
    }
    let what = word(hook, &[("pass", Do::Pass), ("ask", Do::Ask), ("abort", Do::Abort)], "")?;
    if matches!(what, Do::Pass) {
        nothing_but_do(hook, RESPONSE, "pass");
        return Some(OnResponse::Pass.into());
    }
    let status =
        hook.read("status", |value| values::list(value, MAX_MARKS, values::status)).unwrap_or_default();
    let header =
        hook.read("header", |value| values::list(value, MAX_MARKS, values::field_name)).unwrap_or_default();
    let is_asking = matches!(what, Do::Ask);
    let is_any = !hook.has("status") && !hook.has("header");
    if is_any && !is_asking {
        hook.fault("", "neither status nor header is there", "write status = [404] or header = [\"x-name\"]");
    }
    let marks = Marks { status, header };
    let action = match what {
        Do::Ask if is_any => OnResponse::AskAlways,
        Do::Ask => OnResponse::Ask(marks),
        Do::Pass | Do::Abort => OnResponse::Abort(marks),
    };
    Some(Hook { action, webhook: asked(hook, is_asking, "ask") })
}

fn success(hook: &Section<'_>) -> Option<Hook<Success>> {
    let action = word(hook, &[("log", Success::Log), ("webhook", Success::Tell)], "")?;
    Some(Hook { action, webhook: asked(hook, action == Success::Tell, "webhook") })
}

fn close_denied(hook: &Section<'_>) -> Option<Hook<CloseDenied>> {
    let words = [
        ("keep", CloseDenied::Keep),
        ("close_alone", CloseDenied::CloseAlone),
        ("abort", CloseDenied::Abort),
    ];
    let action = word(hook, &words, "")?;
    if action != CloseDenied::CloseAlone {
        return Some(Hook { action, webhook: asked(hook, false, "close_alone") });
    }
    Some(Hook { action, webhook: webhook(hook) })
}

/// Reads `do` of a hook that is written. A word that is wrong has left a fault, and counts as not written.
fn word<T: Copy>(hook: &Section<'_>, words: &[(&str, T)], else_why: &str) -> Option<T> {
    if !hook.is_written {
        return None;
    }
    let example = format!("\"{}\"", words.first().map_or("abort", |(word, _)| word));
    hook.require("action", &example, |value| {
        let text = values::text(value)?;
        words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            Wrong::new(
                format!("{} is not possible here{else_why}", quoted(text)),
                format!("write action = {}", words.join(" or ")),
            )
        })
    })
}

fn nothing_but_do(hook: &Section<'_>, keys: &[&str], word: &str) {
    for key in keys.iter().filter(|key| **key != "action" && hook.has(key)) {
        hook.fault(key, format!("means nothing where action = \"{word}\""), "remove it");
    }
}

/// A webhook that must be there where the hook asks, and must not be where it does not.
fn asked(hook: &Section<'_>, is_asking: bool, asking: &str) -> Option<Webhook> {
    for key in ["webhook", "webhook_timeout"].iter().filter(|key| !is_asking && hook.has(key)) {
        hook.fault(key, format!("is only asked where action = \"{asking}\""), "remove one of the two");
    }
    if is_asking && !hook.has("webhook") {
        hook.fault("webhook", "missing", "write webhook = \"http://127.0.0.1:9000/\"");
    }
    webhook(hook)
}

fn webhook(hook: &Section<'_>) -> Option<Webhook> {
    let shortest = Duration::from_millis(1);
    let within = hook.bounded(
        "webhook_timeout",
        WEBHOOK_WITHIN,
        shortest..=LONGEST_WEBHOOK,
        values::duration,
        show_duration,
    );
    if hook.has("webhook_timeout") && !hook.has("webhook") {
        hook.fault(
            "webhook_timeout",
            "means nothing without webhook",
            "remove it, or write webhook = \"http://…\"",
        );
    }
    let url = hook.read("webhook", values::webhook)?;
    Some(Webhook { url, within })
}

fn patience(hook: &Section<'_>, default: Retry) -> Retry {
    let Retry::Retry { every, times, within } = default else { return default };
    let shortest = Duration::from_millis(1);
    let every = hook.bounded("every", every, shortest..=LONGEST, values::duration, show_duration);
    let times = hook.bounded("times", times, 1..=MAX_TIMES, values::small_integer, |times| times.to_string());
    let within = hook.bounded("timeout", within, shortest..=LONGEST, values::duration, show_duration);
    if within < every {
        hook.fault(
            "timeout",
            format!("{} is shorter than every = {}", show_duration(within), show_duration(every)),
            "write a timeout that leaves time for one attempt at least",
        );
    }
    Retry::Retry { every, times, within }
}
