//! The seller's REST interface: the state of a channel, and the signature that closes it.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::protocol::{Address, Amount, Signature};

/// Asks sellers. `url` is that of a seller's REST interface, such as `http://bob.example/api/1`.
pub trait SellerEndpoint: fmt::Debug + Send + Sync {
    /// What the seller holds of a channel.
    fn state<'a>(
        &'a self,
        url: &'a str,
        payer: Address,
        open_block: u32,
    ) -> BoxFuture<'a, Result<SellerState, SellerError>>;

    /// The seller's signature under the channel's last total, with which it can be closed at once.
    fn closing_signature<'a>(
        &'a self,
        url: &'a str,
        payer: Address,
        open_block: u32,
        total: Amount,
    ) -> BoxFuture<'a, Result<Signature, SellerError>>;
}

/// What a seller claims to hold of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SellerState {
    /// The last registered total.
    pub total: Amount,
    /// The payer's signature of it, if anything was paid.
    pub signature: Option<Signature>,
}

/// Why a seller did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SellerError {
    /// It was not reached, or did not answer in time.
    #[error("the seller was not reached: {0}")]
    Unreachable(String),
    /// It refused.
    #[error("the seller refused ({status}): {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        text: String,
    },
    /// Its answer is not valid.
    #[error("the seller's answer is not understood: {0}")]
    NotUnderstood(String),
}
