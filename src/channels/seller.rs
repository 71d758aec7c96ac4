//! The seller's REST interface: the state of a channel and the signature for closing it.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::protocol::{Address, Amount, Signature};

/// Requests to sellers. `url` is that of a seller's REST interface, such as `http://bob.example/api/1`.
pub trait SellerEndpoint: fmt::Debug + Send + Sync {
    /// The seller's state of a channel.
    fn state<'a>(
        &'a self,
        url: &'a str,
        payer: Address,
        open_block: u32,
    ) -> BoxFuture<'a, Result<SellerState, SellerError>>;

    /// The seller's signature of the channel's last total, with which it can be closed at once.
    fn closing_signature<'a>(
        &'a self,
        url: &'a str,
        payer: Address,
        open_block: u32,
        total: Amount,
    ) -> BoxFuture<'a, Result<Signature, SellerError>>;
}

/// The state of a channel as its seller reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SellerState {
    /// The last registered total.
    pub total: Amount,
    /// The payer's signature of it, if anything was paid.
    pub signature: Option<Signature>,
}

/// Why a request to a seller failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SellerError {
    /// It could not be reached, or did not respond in time.
    #[error("cannot reach the seller: {0}")]
    Unreachable(String),
    /// It refused.
    #[error("the seller refused ({status}): {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        text: String,
    },
    /// Its response is invalid.
    #[error("the seller's response is invalid: {0}")]
    NotUnderstood(String),
}
