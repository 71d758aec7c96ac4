//! The headers of payment schemes, which are for the seller and its payer only.

use http::HeaderMap;

use crate::protocol::schemes::is_payment_header;

/// Removes every payment header.
pub(crate) fn strip(headers: &mut HeaderMap) {
    if !headers.keys().any(is_payment_header) {
        return;
    }
    let mut is_payment = false;
    // Only the first of several values with one name carries the name.
    let others = std::mem::take(headers).into_iter().filter(|(name, _)| {
        is_payment = name.as_ref().map_or(is_payment, is_payment_header);
        !is_payment
    });
    headers.extend(others);
}
