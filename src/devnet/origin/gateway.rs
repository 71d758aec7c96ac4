//! The seller's REST interface: the state of a channel, and the signature for closing it. Open to anyone.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use revm::primitives::hex;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ledger::{ChannelKey, Ledger, NotClosed, SellerChannel, SellerPhase};
use super::paths::GATEWAY_PATH;
use super::resources::{BodyLost, ResourceBody, take, typed};
use super::shared::SellerShared;
use crate::protocol::Amount;

pub(super) async fn answer(
    request: Request<Incoming>,
    shared: &SellerShared,
) -> Result<Response<ResourceBody>, BodyLost> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let form = take(request).await?.start;
    let path = uri.path().strip_prefix(GATEWAY_PATH).unwrap_or_default();
    let segments = path.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>();
    let (status, json) = match (segments.as_slice(), method) {
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
    Ok(typed(status, "application/json", json + "\n"))
}

fn show(shared: &SellerShared, key: ChannelKey) -> (StatusCode, String) {
    let ledger = shared.ledger();
    match ledger.channels.get(&key).filter(|channel| channel.phase != SellerPhase::Settled) {
        None => failure(StatusCode::NOT_FOUND, "no such channel"),
        // The original server fails to serialise a channel with an unconfirmed top-up.
        Some(_) if ledger.topping_up.contains(&key) => {
            failure(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
        Some(channel) => (StatusCode::OK, described(shared, key, channel)),
    }
}

fn list(shared: &SellerShared) -> String {
    let ledger = shared.ledger();
    let channels = open(&ledger).map(|(key, channel)| described(shared, *key, channel)).collect::<Vec<_>>();
    format!("[{}]", channels.join(", "))
}

/// Formats the JSON by hand: amounts are numbers of any length, and no string in it needs escaping.
fn described(shared: &SellerShared, (sender, open_block): ChannelKey, channel: &SellerChannel) -> String {
    let receiver = shared.notary.receiver();
    let SellerChannel { deposit, balance, last_signature, withdrawn, phase } = channel;
    let signature =
        last_signature.map_or("null".to_owned(), |bytes| format!("\"{}\"", hex::encode_prefixed(bytes)));
    let is_closed = *phase != SellerPhase::Open;
    format!(
        r#"{{"sender": "{sender}", "receiver": "{receiver}", "open_block_number": {open_block}, "deposit": {deposit}, "balance": {balance}, "last_signature": {signature}, "is_closed": {is_closed}, "withdrawn": {withdrawn}}}"#
    )
}

fn stats(shared: &SellerShared) -> String {
    let ledger = shared.ledger();
    let sum = |of: fn(&SellerChannel) -> Amount| {
        open(&ledger).map(|(_, channel)| of(channel)).fold(Amount::ZERO, Amount::saturating_add)
    };
    let (deposits, balances) = (sum(|channel| channel.deposit), sum(|channel| channel.balance));
    let senders =
        open(&ledger).map(|((sender, _), _)| sender).collect::<std::collections::BTreeSet<_>>().len();
    let open = open(&ledger).filter(|(_, channel)| channel.phase == SellerPhase::Open).count();
    let pending = ledger.unconfirmed.len();
    let (receiver, contract, token) = (shared.notary.receiver(), shared.notary.contract(), shared.token);
    format!(
        r#"{{"open_channels": {open}, "pending_channels": {pending}, "unique_senders": {senders}, "deposit_sum": {deposits}, "balance_sum": {balances}, "receiver_address": "{receiver}", "contract_address": "{contract}", "token_address": "{token}"}}"#
    )
}

fn close(shared: &SellerShared, key: ChannelKey, query: &str, form: &[u8]) -> (StatusCode, String) {
    let Some(total) = balance(query, form) else {
        return failure(StatusCode::BAD_REQUEST, "balance is missing or not a decimal number");
    };
    match shared.with_ledger(|ledger| ledger.close(key, total, &shared.notary)) {
        Ok(signature) => {
            let signature = hex::encode_prefixed(signature);
            (StatusCode::OK, format!(r#"{{"close_signature": "{signature}"}}"#))
        }
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

/// The JSON body of a closing request; the number may have any length.
#[derive(Deserialize)]
struct Closing<'a> {
    #[serde(borrow)]
    balance: &'a RawValue,
}

/// The total to close on, from the query, a form or a JSON object.
fn balance(query: &str, form: &[u8]) -> Option<Amount> {
    if let Ok(Closing { balance }) = serde_json::from_slice(form) {
        return balance.get().trim_matches('"').parse().ok();
    }
    let form = std::str::from_utf8(form).unwrap_or_default();
    form.split('&')
        .chain(query.split('&'))
        .find_map(|pair| pair.trim().strip_prefix("balance=")?.parse().ok())
}

fn open(ledger: &Ledger) -> impl Iterator<Item = (&ChannelKey, &SellerChannel)> {
    ledger.channels.iter().filter(|(_, channel)| channel.phase != SellerPhase::Settled)
}

fn key(sender: &str, block: &str) -> Option<ChannelKey> {
    Some((sender.parse().ok()?, block.parse().ok()?))
}

fn failure(status: StatusCode, text: &str) -> (StatusCode, String) {
    (status, format!("\"{text}\""))
}
