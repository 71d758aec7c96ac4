//! The headers of x402.

use http::HeaderName;

/// The seller's offers, in version 2.
pub static PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
/// The payment, in version 2.
pub static PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
/// The seller's receipt, in version 2.
pub static PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");
/// The payment, in version 1.
pub static X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");
/// The seller's receipt, in version 1.
pub static X_PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("x-payment-response");

/// The proof of who the payer is, from the extension of this name.
pub static SIGN_IN_WITH_X: HeaderName = HeaderName::from_static("sign-in-with-x");

/// Those that clients neither send nor receive.
pub(super) static ALL: [&HeaderName; 5] =
    [&PAYMENT_REQUIRED, &PAYMENT_SIGNATURE, &PAYMENT_RESPONSE, &X_PAYMENT, &X_PAYMENT_RESPONSE];
