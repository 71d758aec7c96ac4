//! What can go wrong between us and the chain. Every message says where and what to do, and none of them
//! carries a secret: a node is named by scheme, host and port alone.

use std::fmt;
use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::utils::hex;

use crate::chain::refusal;
use crate::chain::signer::NotSigned;
use crate::protocol::schemes::microraiden::contract::UnmetPrecondition;
use crate::protocol::{Address, Amount, ChannelId, OnChain, Wei};

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
        /// After what time to ask again, if that was said.
        retry_after: Option<Duration>,
    },
    /// The answer is no JSON-RPC at all.
    #[error(
        "the node {node} answered {method} with {poll}: is chain.rpc_url the address of a JSON-RPC interface, its \
         path included, and is nothing in between, such as a log-in page or another proxy?"
    )]
    NotJsonRpc {
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// What the answer looks like.
        poll: String,
    },
    /// The node follows another chain than the one to pay on.
    #[error(
        "the node {node} answers the chain id {found}, but {pinned} is the one to pay on, as {source_of_pin}: nothing is \
         signed. Check chain.rpc_url; set chain.chain_id = {found} if you mean that chain"
    )]
    WrongChain {
        /// Scheme, host and port.
        node: String,
        /// What it answers.
        found: u64,
        /// What it should.
        pinned: u64,
        /// Who says so.
        source_of_pin: PinSource,
    },
    /// The contract names another token than before.
    #[error(
        "the contract {contract} names the token {found}, but it named {pinned} before, which never changes: the node \
         {node} does not tell the truth; nothing is signed. Use another node (chain.rpc_url)"
    )]
    WrongToken {
        /// The contract.
        contract: Address,
        /// Scheme, host and port.
        node: String,
        /// What it answers.
        found: Address,
        /// What it answered before.
        pinned: Address,
    },
    /// The node does not have the block of a channel's opening, so it says nothing of the channel.
    #[error(
        "the node {node} does not have the block in which channel {channel} was opened: wait until it has caught up, or \
         check the channel's name"
    )]
    Behind {
        /// Scheme, host and port.
        node: String,
        /// The channel.
        channel: ChannelId,
    },
    /// A fee above the configured limit.
    #[error(
        "{what} would cost {asked}, and chain.{key} allows {allowed}: nothing was sent. Wait until fees are lower, check \
         what the node suggests, or raise chain.{key}"
    )]
    TooDear {
        /// One unit of gas, or the transaction.
        what: &'static str,
        /// The key of the limit.
        key: &'static str,
        /// What it would cost at least.
        asked: Wei,
        /// The limit.
        allowed: Wei,
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
        "no contract found at {contract} on chain {chain_id} ({node}): \
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
    #[error("the contract {contract} is not a channel contract ({why}): check chain.channel_manager")]
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

/// Who says which chain to pay on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// The configuration.
    Configured,
    /// The node itself, earlier.
    SeenBefore,
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "chain.chain_id says",
            Self::SeenBefore => "this node answered before (chain.chain_id is not set)",
        })
    }
}

impl ChainError {
    /// True when the same question may well be answered a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::NodeUnreachable { .. } | Self::NotJsonRpc { .. } => true,
            // A slow query for logs is not asked again as it is: a smaller range helps.
            Self::Timeout { method, .. } => *method != "eth_getLogs",
            Self::NotUnderstood { why, .. } => why == Self::NULL,
            Self::NodeRejected { method: "eth_getLogs", status, .. } => {
                matches!(status, 408 | 425 | 429 | 503)
            }
            Self::NodeRejected { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::NodeRefused { method, code, message, .. } => refusal::may_pass(method, *code, message),
            Self::Url { .. }
            | Self::Setting { .. }
            | Self::Reverted { .. }
            | Self::NoCode { .. }
            | Self::WrongVersion { .. }
            | Self::WrongContract { .. }
            | Self::WrongChain { .. }
            | Self::WrongToken { .. }
            | Self::Behind { .. }
            | Self::TooDear { .. }
            | Self::NotSigned(_) => false,
        }
    }

    /// After what time the node wants to be asked again, if it says so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NodeRejected { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What is said of a null that is no answer.
    pub(super) const NULL: &str = "null: it may not have that block yet";
}

/// An order that was not carried out, or whose outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
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
    Precondition(#[from] UnmetPrecondition),
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
    /// Another transaction of the account took the nonce; this one can never be mined. It was found, or the node knows
    /// nothing of ours after many blocks and a long time, neither its hash nor its effect.
    #[error(
        "transaction {hash} was replaced: nonce {nonce} was used by {}. If tollpass did not send that, another program or \
         state directory uses the same key: give each a key of its own",
        by.map_or("another transaction of this account".to_owned(), |by| format!("transaction {by} of this account"))
    )]
    Replaced {
        /// Which one.
        hash: TransactionHash,
        /// The nonce of both.
        nonce: u64,
        /// The other one, if it was found.
        by: Option<TransactionHash>,
    },
    /// The transaction is confirmed, but neither the contract's state nor its events prove what it did to the channel. Its
    /// money may have moved: it counts as sent and not back until a later look proves the one or the other.
    #[error(
        "transaction {hash} is confirmed, but its effect on channel {channel} does not show: {}. Nothing more is sent for \
         this receiver before it does; is the node behind, or does it not tell the truth (chain.rpc_url)?",
        describe(shows.as_deref())
    )]
    Unseen {
        /// The transaction.
        hash: TransactionHash,
        /// The channel.
        channel: ChannelId,
        /// What the node showed last: `None` where it showed nothing, `Some(None)` where it knows no such channel.
        shows: Option<Box<Option<OnChain>>>,
    },
}

fn describe(shows: Option<&Option<OnChain>>) -> String {
    match shows {
        None => "the node is behind, or cannot be asked".to_owned(),
        Some(None) => "the contract knows no such channel".to_owned(),
        Some(Some(OnChain { deposit, settle_block: 0, .. })) => format!("it holds {deposit}"),
        Some(Some(OnChain { deposit, settle_block, .. })) => {
            format!("it holds {deposit} and is being closed (settle block {settle_block})")
        }
    }
}

impl OpError {
    /// True when money may have moved, or may still: the order's intents must be resumed before it is repeated, and count
    /// as sent until then. False when it is certain that this order moves nothing: it was not sent, it failed, or its
    /// nonce is used or will be used by another transaction.
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
