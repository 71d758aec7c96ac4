//! The names of the `RDN-*` headers, as the original server and client spell them.

use http::HeaderName;

/// The prefix of every header name of the protocol, in lower case.
pub const PREFIX: &str = "rdn-";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub static $name: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    /// Seller and payer: the channel contract.
    CONTRACT_ADDRESS = "rdn-contract-address";
    /// Seller and payer: the payee.
    RECEIVER_ADDRESS = "rdn-receiver-address";
    /// Seller and payer: the payer.
    SENDER_ADDRESS = "rdn-sender-address";
    /// Seller: the price in base units, decimal.
    PRICE = "rdn-price";
    /// Seller: the contract's token.
    TOKEN_ADDRESS = "rdn-token-address";
    /// Seller: the path of its REST interface, for example `/api/1`.
    GATEWAY_PATH = "rdn-gateway-path";
    /// Seller: the last total that it registered.
    SENDER_BALANCE = "rdn-sender-balance";
    /// Seller: the payer's last registered signature. Payer: the signature of the new total.
    BALANCE_SIGNATURE = "rdn-balance-signature";
    /// Payer: the block of the channel's opening.
    OPEN_BLOCK = "rdn-open-block";
    /// Payer: the new total.
    BALANCE = "rdn-balance";
    /// Seller: the channel does not have enough confirmations.
    INSUFFICIENT_CONFIRMATIONS = "rdn-insufficient-confirmations";
    /// Seller: it does not know the channel.
    NONEXISTING_CHANNEL = "rdn-nonexisting-channel";
    /// Seller: the signature is not the sender's.
    INVALID_BALANCE_PROOF = "rdn-invalid-balance-proof";
    /// Seller: the new total is not the last one plus the price.
    INVALID_AMOUNT = "rdn-invalid-amount";
    /// Seller: what the response cost.
    COST = "rdn-cost";
    /// Never sent by payers: the original server responds 409.
    #[cfg(any(feature = "demo", feature = "testing"))]
    PAYMENT = "rdn-payment";
}
