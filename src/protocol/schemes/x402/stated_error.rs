//! The errors that sellers state in a 402.

use crate::protocol::safe_text::safe_text;

/// What a seller's `error` tells about a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatedError {
    /// The seller states none, or says that it saw no payment.
    NoPayment,
    /// The facilitator refused the payment before anything moved.
    Refused(Box<str>),
    /// The payment was redeemed before.
    AlreadyUsed,
    /// The payer's allowance of Permit2 does not cover the payment. A facilitator says so too of one that was redeemed
    /// and used the allowance up.
    AllowanceRequired,
    /// Any other text: what happened is not clear.
    Unclear(Box<str>),
}

/// Texts of a seller that saw no payment.
const NO_PAYMENT: &[&str] = &["Payment required", "X-PAYMENT header is required"];

/// Texts, or their ends after the prefix of a scheme, with which facilitators refuse a payment in verification.
const REFUSED: &[&str] = &[
    "_signature",
    "_payload_authorization_value_mismatch",
    "_payload_authorization_value",
    "_authorization_value",
    "_recipient_mismatch",
    "_payload_authorization_valid_before",
    "_payload_authorization_valid_after",
    "_insufficient_balance",
    "_token_name_mismatch",
    "_token_version_mismatch",
    "_transaction_simulation_failed",
];
const REFUSED_WHOLE: &[&str] = &[
    "No matching payment requirements",
    "Unable to find matching payment requirements",
    "extension_echo_mismatch",
    "insufficient_funds",
    "invalid_permit2_recipient_mismatch",
    "invalid_permit2_signature",
    "invalid_permit2_spender",
    "permit2_amount_mismatch",
    "permit2_deadline_expired",
    "permit2_insufficient_balance",
    "permit2_not_yet_valid",
    "permit2_token_mismatch",
];
/// A facilitator of Permit2 says so if the allowance is too small.
const ALLOWANCE_REQUIRED: &str = "permit2_allowance_required";
/// The prefixes of the scheme `exact`.
const EXACT: &str = "invalid_exact_evm";

/// The longest text to keep of an error, in characters.
const LONGEST: usize = 120;

impl StatedError {
    /// Reads the text; `None` if the seller states none.
    pub(super) fn read(text: Option<&str>) -> Self {
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Self::NoPayment };
        if NO_PAYMENT.iter().any(|known| known.eq_ignore_ascii_case(text)) {
            return Self::NoPayment;
        }
        if text == ALLOWANCE_REQUIRED {
            return Self::AllowanceRequired;
        }
        let rest = text.strip_prefix(EXACT).unwrap_or_default();
        if rest.ends_with("_nonce_already_used") {
            return Self::AlreadyUsed;
        }
        let is_refusal = REFUSED_WHOLE.contains(&text)
            || text.starts_with("Unsupported x402 version")
            || REFUSED.contains(&rest);
        let kept = safe_text(text, LONGEST);
        if is_refusal { Self::Refused(kept.into()) } else { Self::Unclear(kept.into()) }
    }

    /// Whether the facilitator refused the validity of the payment: one of the two clocks may be wrong.
    pub(super) fn is_about_time(&self) -> bool {
        let ends = ["_valid_before", "_valid_after", "_deadline_expired", "_not_yet_valid"];
        matches!(self, Self::Refused(text) if ends.iter().any(|end| text.ends_with(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_texts_mean_that_nothing_moved() {
        for (text, expected) in [
            (None, StatedError::NoPayment),
            (Some(""), StatedError::NoPayment),
            (Some("Payment required"), StatedError::NoPayment),
            (Some("X-PAYMENT header is required"), StatedError::NoPayment),
            (Some("invalid_exact_evm_nonce_already_used"), StatedError::AlreadyUsed),
            (Some("permit2_allowance_required"), StatedError::AllowanceRequired),
        ] {
            assert_eq!(StatedError::read(text), expected, "{text:?}");
        }
        for text in [
            "invalid_exact_evm_signature",
            "invalid_exact_evm_payload_authorization_valid_before",
            "invalid_exact_evm_payload_authorization_value",
            "invalid_exact_evm_insufficient_balance",
            "No matching payment requirements",
            "Unsupported x402 version: 1",
            "permit2_amount_mismatch",
            "permit2_deadline_expired",
            "invalid_permit2_spender",
        ] {
            assert_eq!(StatedError::read(Some(text)), StatedError::Refused(text.into()));
        }
        for text in [
            "fetch failed",
            "Failed to settle payment: 502 Bad Gateway",
            "Unexpected token < in JSON",
            "unexpected_settle_error",
            "settlement_pending",
            "something_signature",
            "invalid_exact_evm_transaction_failed",
            // Also of a payment that was redeemed before.
            "permit2_simulation_failed",
            "permit2_invalid_nonce",
        ] {
            assert_eq!(StatedError::read(Some(text)), StatedError::Unclear(text.into()));
        }
        assert!(
            StatedError::read(Some("invalid_exact_evm_payload_authorization_valid_after")).is_about_time()
        );
        let evil = StatedError::read(Some(&format!("\u{1b}[2J{}", "x".repeat(10_000))));
        assert!(matches!(evil, StatedError::Unclear(text) if text.len() == 120 && text.starts_with("?[2J")));
    }
}
