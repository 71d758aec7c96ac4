//! What can go wrong between us and the chain. Every message says where and what to do, and none of them
//! carries a secret: a node is named by scheme, host and port alone.

use std::fmt;
use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::utils::hex;

use crate::chain::end::Obstacle;
use crate::chain::signer::NotSigned;
use crate::protocol::{Address, Amount, ChannelId};

/// A question to the chain that got no usable answer. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// `rpc_url` cannot be used.
    #[error(
        "chain.rpc_url is not usable: {why}; give a URL such as http://127.0.0.1:8545 or https://host/path"
    )]
    Url {
        /// What is wrong with it, without the URL itself.
        why: String,
    },
    /// Another setting cannot be used.
    #[error("chain.{name} must be at least {least}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// The smallest value that makes sense.
        least: &'static str,
    },
    /// No connection, or it broke.
    #[error("the node {node} cannot be reached ({why}): is it running, and is chain.rpc_url right?")]
    NodeUnreachable {
        /// Scheme, host and port.
        node: String,
        /// What the network said.
        why: String,
    },
    /// The node took too long for one call.
    #[error("the node {node} did not answer {method} within {within:?}")]
    Timeout {
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// The limit.
        within: Duration,
    },
    /// The node answered with an HTTP status of its own or of something in front of it.
    #[error(
        "the node {node} answered {method} with HTTP status {status}: is the key in chain.rpc_url right, \
         and its quota left?"
    )]
    NodeRejected {
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// The node answered with a JSON-RPC error that is no revert.
    #[error("the node {node} refused {method}: {message} (code {code})")]
    NodeRefused {
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// The JSON-RPC error code.
        code: i32,
        /// What the node said.
        message: String,
    },
    /// The answer is not what the method answers.
    #[error("the node {node} answered {method} with something else: {why}")]
    NotUnderstood {
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// What was expected or seen.
        why: String,
    },
    /// The contract refused the call.
    #[error("the contract refused the call: {message}")]
    Reverted {
        /// The reason it gave, or what the node said.
        message: String,
    },
    /// There is no contract at the address.
    #[error(
        "there is no contract at {contract} on chain {chain_id} ({node}): \
         check chain.channel_manager and that the node follows the right network"
    )]
    NoCode {
        /// The address.
        contract: Address,
        /// The chain that was asked.
        chain_id: u64,
        /// Scheme, host and port.
        node: String,
    },
    /// The contract is of a version that we do not speak.
    #[error("the contract {contract} has version {version:?}; 0.2.x is needed: check chain.channel_manager")]
    WrongVersion {
        /// Where it is.
        contract: Address,
        /// What it says of itself.
        version: String,
    },
    /// The contract does not answer as a channel contract does.
    #[error("the contract {contract} is no channel contract ({why}): check chain.channel_manager")]
    WrongContract {
        /// Where it is.
        contract: Address,
        /// Which call gave it away.
        why: String,
    },
    /// Signing failed.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
}

/// An order that was not carried out, or whose outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The chain could not be asked, or refused; nothing that moves the money was sent.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The intent could not be journalled, so nothing was sent.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    /// Too little to pay with; nothing was sent.
    #[error("{0}")]
    Underfunded(Box<Underfunded>),
    /// The channel cannot be ended as ordered; nothing was sent.
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    /// The contract would refuse the transaction; nothing was sent.
    #[error("the transaction would fail and was not sent: {why}")]
    WouldFail {
        /// The reason, or the rules that could have been broken.
        why: String,
    },
    /// The transaction was mined and undone; nothing moved but its fee.
    #[error("transaction {hash} failed: {why}")]
    TransactionFailed {
        /// Which one.
        hash: TransactionHash,
        /// The reason, or the rules that could have been broken.
        why: String,
    },
    /// The transaction was sent, or may have been, and its outcome is not known yet.
    #[error(
        "transaction {hash} is not confirmed after {waited:?}{}: it may still be; it is looked up again \
         before anything else is ordered for this receiver",
        last.as_ref().map(|error| format!(" ({error})")).unwrap_or_default()
    )]
    StillPending {
        /// Which one.
        hash: TransactionHash,
        /// How long it was waited for.
        waited: Duration,
        /// What the node said last, if it could not be asked.
        last: Option<Box<ChainError>>,
    },
    /// Another transaction of the account took the nonce; this one can never be mined.
    #[error(
        "transaction {hash} was replaced: nonce {nonce} was used by another transaction of this account; \
         does another program use the same key?"
    )]
    Replaced {
        /// Which one.
        hash: TransactionHash,
        /// The nonce of both.
        nonce: u64,
    },
    /// The transaction is confirmed, but the node does not show yet what it did to the channel.
    #[error("transaction {hash} is confirmed, but channel {channel} does not show it: is the node behind?")]
    Unseen {
        /// The transaction.
        hash: TransactionHash,
        /// The channel.
        channel: ChannelId,
    },
}

impl OrderError {
    /// True when money may have moved, or may still: the order's intents must be resumed before it is repeated.
    pub fn is_unclear(&self) -> bool {
        matches!(self, Self::StillPending { .. } | Self::Unseen { .. })
    }
}

/// The journal did not take a record, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the intent could not be recorded, so the transaction was not sent: {0}")]
pub struct NotRecorded(pub String);

/// Too little to pay with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Underfunded {
    /// Too few tokens.
    #[error("{payer} holds {has} base units of the token {token} and needs {needs}: send it {} more", needs.saturating_sub(*has))]
    Token {
        /// Who pays.
        payer: Address,
        /// The token.
        token: Address,
        /// What it holds, in base units.
        has: Amount,
        /// What the order locks up, in base units.
        needs: Amount,
    },
    /// Too little ether for the fee.
    #[error("{payer} holds {has} wei and the transaction can cost {needs}: send it {} wei more", needs.saturating_sub(*has))]
    Ether {
        /// Who pays.
        payer: Address,
        /// What it holds, in wei.
        has: U256,
        /// The most that the transaction can cost, in wei.
        needs: U256,
    },
}

/// The hash of a transaction; printed as `0x` and 64 digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TransactionHash(pub [u8; 32]);

impl fmt::Display for TransactionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_prefixed(self.0))
    }
}

impl fmt::Debug for TransactionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
