//! µRaiden: a seller asks with `RDN-*` header fields, a payer answers with an ever higher signed total.
//!
//! Three pure steps: [`read`] a 402, [`judge`] what it says of the payment just presented, [`attach`] a new one.

pub mod contract;
pub mod headers;
pub mod proof;

mod offer;
mod verdict;

use http::{HeaderMap, HeaderName, HeaderValue};

pub use offer::{Complaint, Malformed, Offer, State, read};
pub use verdict::{Holding, Nowhere, Verdict, complaint, is_ours, judge};

use crate::protocol::{Address, Amount, ChannelId, Signature};

/// A total that is about to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The channel that pays.
    pub channel: ChannelId,
    /// The new total.
    pub total: Amount,
    /// What of it is paid for this request.
    pub price: Amount,
}

/// Sets the header fields that present a signed `draft` to the seller.
pub fn attach(
    fields: &mut HeaderMap,
    draft: &Draft,
    payer: Address,
    contract: Address,
    signature: &Signature,
) {
    let mut add = |name: &'static HeaderName, text: String| {
        // Hexadecimal and decimal digits are always a valid field value.
        if let Ok(value) = HeaderValue::try_from(text) {
            fields.insert(name, value);
        }
    };
    add(&headers::CONTRACT_ADDRESS, contract.to_string());
    add(&headers::RECEIVER_ADDRESS, draft.channel.receiver.to_string());
    add(&headers::SENDER_ADDRESS, payer.to_string());
    add(&headers::OPEN_BLOCK, draft.channel.open_block.to_string());
    add(&headers::BALANCE, draft.total.to_string());
    add(&headers::BALANCE_SIGNATURE, signature.to_hex());
    if let Some(signature) = fields.get_mut(&headers::BALANCE_SIGNATURE) {
        signature.set_sensitive(true);
    }
}
