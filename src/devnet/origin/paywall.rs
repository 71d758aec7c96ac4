//! The paywall: parses payments, and writes the 402 with its `RDN-*` headers.

use http::header::{ACCEPT, COOKIE, HeaderMap, SET_COOKIE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use revm::primitives::hex;

use super::ledger::{ChannelState, Payment, Total};
use super::paths::GATEWAY_PATH;
use super::proofs::Notary;
use super::resources::{ResourceBody, html, plain};
use super::shared::SellerShared;
use crate::protocol::money::NotAnAmount;
use crate::protocol::schemes::microraiden::headers as rdn;
use crate::protocol::{Address, Amount};

/// Parses a payment; `None` without a signature. An error is the body of a 409.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<Payment>, String> {
    if value_of(headers, &rdn::PAYMENT).is_some() {
        return Err(format!("{} is not for payers to send", spelled(&rdn::PAYMENT)));
    }
    // Not used, but validated.
    for name in [&rdn::CONTRACT_ADDRESS, &rdn::RECEIVER_ADDRESS] {
        address(headers, name)?;
    }
    for name in [&rdn::PRICE, &rdn::SENDER_BALANCE] {
        units(headers, name)?;
    }
    let sender = address(headers, &rdn::SENDER_ADDRESS)?;
    // A block number that does not fit uint32 is a number of a channel that cannot exist.
    let open_block = match units(headers, &rdn::OPEN_BLOCK)? {
        Total::Of(block) => block.to_string().parse().ok(),
        Total::Missing | Total::TooLarge => None,
    };
    let total = units(headers, &rdn::BALANCE)?;
    let signature = value_of(headers, &rdn::BALANCE_SIGNATURE).filter(|text| !text.is_empty());
    Ok(signature.map(|signature| Payment { sender, open_block, total, signature }))
}

/// The headers that are the same in every 402 of a seller: its interface, payee and contract.
pub(super) fn letterhead(notary: &Notary, token: Address) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, &rdn::GATEWAY_PATH, GATEWAY_PATH);
    set(&mut headers, &rdn::RECEIVER_ADDRESS, &notary.receiver().to_string());
    set(&mut headers, &rdn::CONTRACT_ADDRESS, &notary.contract().to_string());
    set(&mut headers, &rdn::TOKEN_ADDRESS, &token.to_string());
    headers
}

/// The headers that every 402 has.
pub(super) fn base(shared: &SellerShared, price: Amount) -> HeaderMap {
    let mut headers = shared.letterhead.clone();
    set(&mut headers, &rdn::PRICE, &price.to_string());
    headers
}

/// Adds the seller's state of the channel.
pub(super) fn show(headers: &mut HeaderMap, state: &ChannelState) {
    set(headers, &rdn::SENDER_ADDRESS, &state.sender.to_string());
    set(headers, &rdn::SENDER_BALANCE, &state.balance.to_string());
    if let Some(signature) = state.signature {
        set(headers, &rdn::BALANCE_SIGNATURE, &hex::encode_prefixed(signature));
    }
}

/// Adds a complaint.
pub(super) fn complain(headers: &mut HeaderMap, complaint: &'static HeaderName) {
    headers.insert(complaint, HeaderValue::from_static("1"));
}

/// The 402 with these `RDN-*` headers; with a page and cookies for clients that prefer HTML.
pub(super) fn reply(rdn_headers: HeaderMap, request_headers: &HeaderMap) -> Response<ResourceBody> {
    let mut response = if wants_page(request_headers) {
        let mut page = html(StatusCode::PAYMENT_REQUIRED, PAGE.to_owned());
        for (name, value) in &rdn_headers {
            let cookie = [spelled(name).as_bytes(), b"=", value.as_bytes(), b"; Path=/"].concat();
            // Names and values are visible ASCII, and so is the cookie.
            if let Ok(cookie) = HeaderValue::from_bytes(&cookie) {
                page.headers_mut().append(SET_COOKIE, cookie);
            }
        }
        page
    } else {
        plain(
            StatusCode::PAYMENT_REQUIRED,
            "Payment required. See the RDN headers for price and payee.\n".to_owned(),
        )
    };
    response.headers_mut().extend(rdn_headers);
    response
}

const PAGE: &str = "<!doctype html><title>Payment required</title>\
    <h1>Payment required</h1><p>The RDN headers and cookies of this answer say how much, and to whom.</p>\n";

fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|range| {
            range.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
        })
}

/// The value under this name: the cookie if present, else the header. Repeated headers are joined with a comma, which
/// makes them invalid as a number or an address.
fn value_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    cookie(headers, name).or_else(|| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.map(String::from).reduce(|all, next| format!("{all},{next}"))
    })
}

fn cookie(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    pairs.flat_map(|text| text.split(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name.as_str()).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn address(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Address>, String> {
    let Some(text) = value_of(headers, name).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| format!("{}: {error}", spelled(name)))
}

fn units(headers: &HeaderMap, name: &HeaderName) -> Result<Total, String> {
    let Some(text) = value_of(headers, name).filter(|text| !text.is_empty()) else {
        return Ok(Total::Missing);
    };
    match text.parse() {
        Ok(amount) => Ok(Total::Of(amount)),
        Err(NotAnAmount::TooLarge) => Ok(Total::TooLarge),
        Err(error @ NotAnAmount::NotDecimal) => Err(format!("{}: {error}", spelled(name))),
    }
}

/// The name as the original server writes it, `RDN-Sender-Balance`.
fn spelled(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| match word.split_at_checked(1) {
        _ if word == "rdn" => "RDN".to_owned(),
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => String::new(),
    });
    words.collect::<Vec<_>>().join("-")
}

fn set(headers: &mut HeaderMap, name: &'static HeaderName, text: &str) {
    // Digits, hexadecimal digits and the gateway's path are valid header values.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
