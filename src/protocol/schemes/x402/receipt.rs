//! The seller's receipt: a statement that nothing proves. Only the chain knows.

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::encoding::decode;
use super::headers::{PAYMENT_RESPONSE, X_PAYMENT_RESPONSE};
use crate::protocol::safe_text::safe_text;

/// The longest statement that is kept, in bytes: a signed receipt has about 600.
pub(super) const LONGEST_STATEMENT: usize = 2 * 1024;
/// How much is kept of a member of a longer one, in characters: a transaction has 66.
const LONGEST_MEMBER: usize = 100;

/// What a seller states about the settlement of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SettlementReceipt {
    pub(super) success: bool,
}

/// What is kept of a receipt.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptReceipt {
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_reason: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payer: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<Value>,
}

/// The receipt of a response; `None` if there is none that can be read.
pub(super) fn read(headers: &HeaderMap) -> Option<SettlementReceipt> {
    serde_json::from_slice(&json(headers)?).ok()
}

/// What the receipt states, as JSON in printable ASCII. `with_signed` keeps what the seller has signed, which names the URL
/// of the request with its query.
pub(super) fn statement(headers: &HeaderMap, with_signed: bool) -> Option<String> {
    let mut statement: KeptReceipt = serde_json::from_slice(&json(headers)?).ok()?;
    if !with_signed {
        statement.extensions = None;
    }
    let whole = serde_json::to_string(&statement).ok()?;
    if whole.len() <= LONGEST_STATEMENT {
        return Some(safe_text(&whole, LONGEST_STATEMENT));
    }
    let cut = |member: Option<Value>| {
        let text = member.map(|member| member.as_str().map_or_else(|| member.to_string(), str::to_owned));
        text.map(|text| Value::String(safe_text(&text, LONGEST_MEMBER)))
    };
    let KeptReceipt { success, error_reason, transaction, network, amount, payer, .. } = statement;
    let members = [error_reason, transaction, network, amount, payer];
    let [error_reason, transaction, network, amount, payer] = members.map(cut);
    let cut = KeptReceipt { success, error_reason, transaction, network, amount, payer, extensions: None };
    serde_json::to_string(&cut).ok()
}

fn json(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(&PAYMENT_RESPONSE).or_else(|| headers.get(&X_PAYMENT_RESPONSE))?;
    decode(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_statement_is_bounded_and_safe_to_show() {
        let long = "x".repeat(3000);
        let signed =
            r#""extensions":{"offer-receipt":{"info":{"receipt":{"format":"jws","signature":"e30."}}}}"#;
        let known = r#""transaction":"0x33","network":"eip155:8453","amount":"7""#;
        for (receipt, with_signed, kept) in [
            (format!(r#"{{"success":true,{known}}}"#), true, Some(format!(r#"{{"success":true,{known}}}"#))),
            (
                format!(r#"{{{known},"success":false,"errorReason":"no","errorMessage":"words"}}"#),
                true,
                Some(format!(r#"{{"success":false,"errorReason":"no",{known}}}"#)),
            ),
            (format!(r#"{{{known},{signed}}}"#), true, Some(format!("{{{known},{signed}}}"))),
            (format!(r#"{{{known},{signed}}}"#), false, Some(format!("{{{known}}}"))),
            (
                r#"{"transaction":"\u001b[2J\u202e"}"#.to_owned(),
                true,
                Some(r#"{"transaction":"\u001b[2J?"}"#.to_owned()),
            ),
            (
                format!(r#"{{"success":false,"errorReason":"{long}","payer":[7],{signed}}}"#),
                true,
                Some(format!(r#"{{"success":false,"errorReason":"{}","payer":"[7]"}}"#, &long[..100])),
            ),
            ("{}".to_owned(), true, Some("{}".to_owned())),
            ("[1".to_owned(), true, None),
        ] {
            let value = STANDARD.encode(&receipt).parse().unwrap();
            let headers = HeaderMap::from_iter([(PAYMENT_RESPONSE.clone(), value)]);
            assert_eq!(statement(&headers, with_signed), kept, "{receipt}");
        }
        assert_eq!(statement(&HeaderMap::new(), true), None);
    }
}
