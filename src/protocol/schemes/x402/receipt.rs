//! The seller's receipt: a statement that nothing proves. Only the chain knows.

use http::HeaderMap;
use serde::Deserialize;

use super::encoding::decode;
use super::headers::{PAYMENT_RESPONSE, X_PAYMENT_RESPONSE};

/// What a seller states about the settlement of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SettlementReceipt {
    pub(super) success: bool,
}

/// The receipt of a response; `None` if there is none that can be read.
pub(super) fn read(headers: &HeaderMap) -> Option<SettlementReceipt> {
    let value = headers.get(&PAYMENT_RESPONSE).or_else(|| headers.get(&X_PAYMENT_RESPONSE))?;
    serde_json::from_slice(&decode(value.as_bytes())?).ok()
}
