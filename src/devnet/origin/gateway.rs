//! The seller's REST interface: what it holds of a channel, and its consent to close one. Open to anyone.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use revm::primitives::hex;
use serde_json::{Value, json};

use super::ledger::{Channel, Key, Ledger, NotClosed, Phase};
use super::resources::{Body, BodyLost, take, typed};
use super::{GATEWAY_PATH, Shared};
use crate::protocol::Amount;

pub(super) async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Body>, BodyLost> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let form = take(request).await?.start;
    let path = uri.path().strip_prefix(GATEWAY_PATH).unwrap_or_default();
    let segments = path.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>();
    let (status, value) = match (segments.as_slice(), method) {
        (["stats"], Method::GET) => (StatusCode::OK, stats(shared)),
        (["channels"], Method::GET) => (StatusCode::OK, list(shared)),
        (["channels", sender, block], method) => match (key(sender, block), method) {
            (None, _) => failure(StatusCode::NOT_FOUND, "no such channel"),
            (Some(key), Method::GET) => show(shared, key),
            (Some(key), Method::DELETE) => close(shared, key, uri.query().unwrap_or_default(), &form),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "GET and DELETE only"),
        },
        (["stats" | "channels"], _) => failure(StatusCode::METHOD_NOT_ALLOWED, "GET only"),
        _ => failure(StatusCode::NOT_FOUND, "no such page"),
    };
    Ok(typed(status, "application/json", format!("{value}\n")))
}

fn show(shared: &Shared, key: Key) -> (StatusCode, Value) {
    let ledger = shared.ledger();
    match ledger.channels.get(&key).filter(|channel| channel.phase != Phase::Settled) {
        None => failure(StatusCode::NOT_FOUND, "no such channel"),
        // The original server fails to write a channel with an unconfirmed top up.
        Some(_) if ledger.topping_up.contains(&key) => {
            failure(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
        Some(channel) => (StatusCode::OK, described(shared, key, channel)),
    }
}

fn list(shared: &Shared) -> Value {
    let ledger = shared.ledger();
    open(&ledger).map(|(key, channel)| described(shared, *key, channel)).collect()
}

fn described(shared: &Shared, (sender, open_block): Key, channel: &Channel) -> Value {
    json!({
        "sender": sender,
        "receiver": shared.notary.receiver(),
        "open_block_number": open_block,
        "deposit": number(channel.deposit),
        "balance": number(channel.balance),
        "last_signature": channel.last_signature.map(hex::encode_prefixed),
        "is_closed": channel.phase != Phase::Open,
        "withdrawn": number(channel.withdrawn),
    })
}

fn stats(shared: &Shared) -> Value {
    let ledger = shared.ledger();
    let sum = |of: fn(&Channel) -> Amount| {
        number(open(&ledger).map(|(_, channel)| of(channel)).fold(Amount::ZERO, Amount::saturating_add))
    };
    let senders = open(&ledger).map(|((sender, _), _)| sender).collect::<std::collections::BTreeSet<_>>();
    json!({
        "open_channels": open(&ledger).filter(|(_, channel)| channel.phase == Phase::Open).count(),
        "pending_channels": ledger.unconfirmed.len(),
        "unique_senders": senders.len(),
        "deposit_sum": sum(|channel| channel.deposit),
        "balance_sum": sum(|channel| channel.balance),
        "receiver_address": shared.notary.receiver(),
        "contract_address": shared.notary.contract(),
        "token_address": shared.token,
    })
}

fn close(shared: &Shared, key: Key, query: &str, form: &[u8]) -> (StatusCode, Value) {
    let Some(total) = balance(query, form) else {
        return failure(StatusCode::BAD_REQUEST, "balance is missing or no decimal number");
    };
    match shared.with_ledger(|ledger| ledger.close(key, total, &shared.notary)) {
        Ok(signature) => (StatusCode::OK, json!({ "close_signature": hex::encode_prefixed(signature) })),
        Err(NotClosed::Unknown) => {
            failure(StatusCode::BAD_REQUEST, "Channel does not exist, is not confirmed or has been closed.")
        }
        Err(NotClosed::AlreadyClosing) => {
            failure(StatusCode::BAD_REQUEST, "Channel closing has been requested already.")
        }
        Err(NotClosed::WrongTotal) => {
            failure(StatusCode::BAD_REQUEST, "Requested closing balance does not match the latest one.")
        }
        Err(NotClosed::NeverPaid) => failure(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
    }
}

/// The total to close on, from the query, a form or a JSON object.
fn balance(query: &str, form: &[u8]) -> Option<Amount> {
    if let Ok(Value::Object(object)) = serde_json::from_slice(form) {
        return match object.get("balance")? {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        };
    }
    let form = std::str::from_utf8(form).unwrap_or_default();
    form.split('&')
        .chain(query.split('&'))
        .find_map(|pair| pair.trim().strip_prefix("balance=")?.parse().ok())
}

fn open(ledger: &Ledger) -> impl Iterator<Item = (&Key, &Channel)> {
    ledger.channels.iter().filter(|(_, channel)| channel.phase != Phase::Settled)
}

fn key(sender: &str, block: &str) -> Option<Key> {
    Some((sender.parse().ok()?, block.parse().ok()?))
}

/// A JSON number where it fits into 64 bits, as in the original, else its digits as a string.
fn number(amount: Amount) -> Value {
    let digits = amount.to_string();
    digits.parse::<u64>().map_or(Value::String(digits), Value::from)
}

fn failure(status: StatusCode, text: &str) -> (StatusCode, Value) {
    (status, Value::String(text.to_owned()))
}
