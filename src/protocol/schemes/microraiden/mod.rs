//! µRaiden: a seller asks with `RDN-*` headers, a payer responds with ever higher signed totals.
//!
//! Three pure steps: [`read`] a 402, [`judge`] what it says of the payment just presented, [`attach`](Scheme::attach) a new one.

pub mod contract;
pub mod headers;
pub mod proof;

mod malformed;
mod offer;
mod verdict;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub use malformed::MalformedChannelOffer;
pub use offer::{ChannelOffer, SellerRecord, read};
pub use verdict::{complaint, is_ours, judge};

use super::SchemeName;
use super::{Assessment, Payer, Receipt, Scheme};
use crate::protocol::answer::Answer;
use crate::protocol::asset::Money;
use crate::protocol::channel::ChannelDraft;
use crate::protocol::terms::Terms;
use crate::protocol::{Signature, SigningRequest};

/// The scheme.
#[derive(Clone, Copy, Debug)]
pub enum MicroRaiden {}

impl Scheme for MicroRaiden {
    type Offer = ChannelOffer;
    type Draft = ChannelDraft;
    type Malformed = MalformedChannelOffer;

    const PUBLIC_HEADERS: &'static [&'static HeaderName] = &[
        &headers::CONTRACT_ADDRESS,
        &headers::COST,
        &headers::GATEWAY_PATH,
        &headers::INSUFFICIENT_CONFIRMATIONS,
        &headers::INVALID_AMOUNT,
        &headers::INVALID_BALANCE_PROOF,
        &headers::NONEXISTING_CHANNEL,
        &headers::PRICE,
        &headers::RECEIVER_ADDRESS,
        &headers::SENDER_BALANCE,
        &headers::TOKEN_ADDRESS,
    ];

    /// Offers consist of headers only.
    fn wants_body(_: StatusCode, _: &HeaderMap) -> bool {
        false
    }

    fn is_payment_name(name: &[u8]) -> bool {
        name.get(..headers::PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(headers::PREFIX.as_bytes()))
    }

    fn read(answer: &Answer<'_>) -> Option<Result<Vec<ChannelOffer>, MalformedChannelOffer>> {
        if answer.status != StatusCode::PAYMENT_REQUIRED {
            return None;
        }
        read(answer.headers).map(|read| read.map(|offer| vec![offer]))
    }

    fn terms(offer: &ChannelOffer) -> Terms {
        Terms {
            price: Money::channel_token(offer.price),
            payee: offer.receiver,
            scheme: SchemeName::MicroRaiden,
        }
    }

    fn digest(draft: &ChannelDraft, payer: &Payer) -> Option<[u8; 32]> {
        let contract = payer.account?.contract;
        Some(proof::balance_digest(draft.channel, draft.total, contract))
    }

    fn signing_request(draft: &ChannelDraft, payer: &Payer) -> Option<SigningRequest> {
        let contract = payer.account?.contract;
        Some(proof::balance_request(draft.channel, draft.total, contract))
    }

    fn attach(draft: &ChannelDraft, payer: &Payer, signature: &Signature, to: &mut HeaderMap) {
        // Nothing is signed without an account.
        let Some(account) = payer.account else { return };
        let mut add = |name: &'static HeaderName, text: String| {
            // Hexadecimal and decimal digits are always a valid header value.
            if let Ok(value) = HeaderValue::try_from(text) {
                to.insert(name, value);
            }
        };
        add(&headers::CONTRACT_ADDRESS, account.contract.to_string());
        add(&headers::RECEIVER_ADDRESS, draft.channel.receiver.to_string());
        add(&headers::SENDER_ADDRESS, payer.address.to_string());
        add(&headers::OPEN_BLOCK, draft.channel.open_block.to_string());
        add(&headers::BALANCE, draft.total.to_string());
        add(&headers::BALANCE_SIGNATURE, signature.to_hex());
        if let Some(signature) = to.get_mut(&headers::BALANCE_SIGNATURE) {
            signature.set_sensitive(true);
        }
    }

    /// Sellers take the payment before they run the resource, so 4xx responses are paid for, too.
    fn assess(answer: &Answer<'_>) -> Assessment {
        let Answer { status, headers: got, .. } = answer;
        if *status == StatusCode::PAYMENT_REQUIRED {
            return Assessment::Asked;
        }
        // For a 5xx, the seller itself may have failed, before or after it took the payment.
        if *status == StatusCode::CONFLICT || status.is_server_error() {
            return Assessment::InDoubt;
        }
        let states_total = got.contains_key(&headers::SENDER_BALANCE);
        Assessment::Paid(if states_total || got.contains_key(&headers::COST) {
            Receipt::Stated
        } else if status.is_client_error() {
            Receipt::NotCharged
        } else {
            Receipt::Unstated
        })
    }
}
