//! The headers of the scheme.

use http::HeaderName;

/// Seller: its offer.
pub static OFFER: HeaderName = HeaderName::from_static("test-token-offer");
/// Payer: the signed payment.
pub static PAYMENT: HeaderName = HeaderName::from_static("test-token-payment");
/// Seller: the nonce of the payment that it took.
pub static RECEIPT: HeaderName = HeaderName::from_static("test-token-receipt");
/// Seller: `later` if it may accept the same payment later.
pub static COMPLAINT: HeaderName = HeaderName::from_static("test-token-complaint");
