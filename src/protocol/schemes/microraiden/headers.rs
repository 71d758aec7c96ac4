//! The names of the `RDN-*` header fields, as the original server and client spell them.

use http::HeaderName;

/// What every name of the protocol starts with, in lower case.
pub const PREFIX: &str = "rdn-";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub static $name: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    /// Seller and payer: the channel contract.
    CONTRACT_ADDRESS = "rdn-contract-address";
    /// Seller and payer: who is paid.
    RECEIVER_ADDRESS = "rdn-receiver-address";
    /// Seller and payer: who pays.
    SENDER_ADDRESS = "rdn-sender-address";
    /// Seller: the price in base units, decimal.
    PRICE = "rdn-price";
    /// Seller: the token the contract holds.
    TOKEN_ADDRESS = "rdn-token-address";
    /// Seller: where its REST interface is, for example `/api/1`.
    GATEWAY_PATH = "rdn-gateway-path";
    /// Seller: the last total that it registered.
    SENDER_BALANCE = "rdn-sender-balance";
    /// Seller: the payer's last registered signature. Payer: the signature of the new total.
    BALANCE_SIGNATURE = "rdn-balance-signature";
    /// Payer: the block that holds the channel's opening.
    OPEN_BLOCK = "rdn-open-block";
    /// Payer: the new total.
    BALANCE = "rdn-balance";
    /// Seller: the channel is mined, but not deep enough for it.
    INSUFFICIENT_CONFIRMATIONS = "rdn-insufficient-confirmations";
    /// Seller: it knows no such channel.
    NONEXISTING_CHANNEL = "rdn-nonexisting-channel";
    /// Seller: the signature is not the sender's.
    INVALID_BALANCE_PROOF = "rdn-invalid-balance-proof";
    /// Seller: the new total is not the last one plus the price.
    INVALID_AMOUNT = "rdn-invalid-amount";
    /// Seller: what the answer cost.
    COST = "rdn-cost";
    /// Never to be sent: the original server answers 409.
    #[cfg(any(feature = "demo", feature = "testing"))]
    PAYMENT = "rdn-payment";
}
