//! Errors of the chain layer. Each message names the place and the remedy and contains no secret: a node is identified
//! by scheme, host and port only.

use std::fmt;
use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::utils::hex;

use crate::chain::refusal;
use crate::chain::signer::NotSigned;
use crate::protocol::{Address, Amount, ChannelId, OnChain, UnmetPrecondition, Wei};

/// A request to the chain that returned no usable result. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// `rpc_url` cannot be used.
    #[error("{key} is not usable: {why}; give a URL such as http://127.0.0.1:8545 or https://host/path")]
    Url {
        /// Where it is written.
        key: String,
        /// What is wrong with it, without the URL itself.
        why: String,
    },
    /// Another setting is invalid.
    #[error("chain.{name} must be at least {least}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// The smallest value that makes sense.
        least: &'static str,
    },
    /// Connecting failed, or the connection broke.
    #[error("the node {node} cannot be reached ({why}): is it running, and is {key} right?")]
    NodeUnreachable {
        /// Where its URL is written.
        key: String,
        /// Scheme, host and port.
        node: String,
        /// The network error.
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
    /// The node, or a gateway in front of it, returned an HTTP error status.
    #[error(
        "the node {node} answered {method} with HTTP status {status}: is the key in {key} right, \
         and its quota left?"
    )]
    NodeRejected {
        /// Where its URL is written.
        key: String,
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` of the response, if any.
        retry_after: Option<Duration>,
    },
    /// The response is not JSON-RPC.
    #[error(
        "the node {node} returned {content} for {method}: is {key} the address of a JSON-RPC interface, its \
         path included, and is nothing in between, such as a log-in page or another proxy?"
    )]
    NotJsonRpc {
        /// Where its URL is written.
        key: String,
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// A description of the response.
        content: String,
    },
    /// The node follows a different chain from the one to pay on.
    #[error(
        "the node {node} is on chain {found}, but payments are for chain {pinned} ({source_of_pin}): nothing is \
         signed. Check chain.rpc_url; set chain.chain_id = {found} if you mean that chain"
    )]
    WrongChain {
        /// Scheme, host and port.
        node: String,
        /// The chain ID it reports.
        found: u64,
        /// The chain ID expected.
        pinned: u64,
        /// Where the expected ID comes from.
        source_of_pin: PinSource,
    },
    /// The node of a `[[network]]` follows another one.
    #[error(
        "the node {node} is on chain {found}, but it is configured for eip155:{wanted}: it counts as no node. Correct the rpc_url \
         of that [[network]] entry"
    )]
    OtherNetwork {
        /// Scheme, host and port.
        node: String,
        /// The chain ID it reports.
        found: u64,
        /// The chain ID of the network.
        wanted: u64,
    },
    /// The contract reports a different token from the one recorded.
    #[error(
        "the contract {contract} reports the token {found}, but earlier it reported {pinned}, which cannot change: the node \
         {node} returns false data; nothing is signed. Use another node (chain.rpc_url)"
    )]
    WrongToken {
        /// The contract.
        contract: Address,
        /// Scheme, host and port.
        node: String,
        /// The token it reports.
        found: Address,
        /// The token it reported earlier.
        pinned: Address,
    },
    /// The node does not have the block of a channel's opening, so it knows nothing of the channel.
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
    /// A fee exceeds the configured limit.
    #[error(
        "{what} would cost {asked}, and {table}.{key} allows {allowed}: nothing was sent. Wait until fees are lower, check \
         what the node suggests, or raise {table}.{key}"
    )]
    TooDear {
        /// One unit of gas, or the transaction.
        what: &'static str,
        /// The table of the configuration that the limit is in.
        table: &'static str,
        /// The key of the limit.
        key: &'static str,
        /// What it would cost at least.
        asked: Wei,
        /// The limit.
        allowed: Wei,
    },
    /// The fees of one day exceed the configured limit.
    #[error(
        "all transactions of one day would cost {asked}, and {table}.max_fees_per_day allows {allowed}: nothing was sent. {}, \
         or raise {table}.max_fees_per_day", remedy_of_day(*free_in)
    )]
    DayTooDear {
        /// The table of the configuration that the limit is in.
        table: &'static str,
        /// What they would cost at most.
        asked: Wei,
        /// The limit.
        allowed: Wei,
        /// When enough of the earlier ones no longer count; `None` if the new one alone exceeds the limit.
        free_in: Option<Duration>,
    },
    /// The node returned a JSON-RPC error that is not a revert.
    #[error("the node {node} refused {method}: {message} (code {code})")]
    NodeRefused {
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// The JSON-RPC error code.
        code: i32,
        /// The node's message.
        message: String,
    },
    /// The result does not have the type that the method returns.
    #[error("the node {node} returned an invalid result for {method}: {why}")]
    NotUnderstood {
        /// Scheme, host and port.
        node: String,
        /// The JSON-RPC method.
        method: &'static str,
        /// What was expected or received.
        why: String,
    },
    /// The contract refused the call.
    #[error("the contract refused the call: {message}")]
    Reverted {
        /// The contract's reason, or the node's message.
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
        /// The chain ID.
        chain_id: u64,
        /// Scheme, host and port.
        node: String,
    },
    /// The contract has an unsupported version.
    #[error("the contract {contract} has version {version:?}; 0.2.x is needed: check chain.channel_manager")]
    WrongVersion {
        /// The contract.
        contract: Address,
        /// The version it reports.
        version: String,
    },
    /// The contract does not behave like a channel contract.
    #[error("the contract {contract} is not a channel contract ({why}): check chain.channel_manager")]
    WrongContract {
        /// The contract.
        contract: Address,
        /// The call that showed it.
        why: String,
    },
    /// Signing failed.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
}

/// Where the expected chain ID comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// The configuration.
    Configured,
    /// An earlier answer of the node.
    SeenBefore,
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "set by chain.chain_id",
            Self::SeenBefore => "reported by this node earlier; chain.chain_id is not set",
        })
    }
}

impl ChainError {
    /// Whether the same request may succeed if retried.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::NodeUnreachable { .. } | Self::NotJsonRpc { .. } => true,
            // A slow log query is not retried as it is: a smaller range helps.
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
            | Self::OtherNetwork { .. }
            | Self::WrongToken { .. }
            | Self::Behind { .. }
            | Self::TooDear { .. }
            | Self::DayTooDear { .. }
            | Self::NotSigned(_) => false,
        }
    }

    /// The delay that the node asks for before a retry.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NodeRejected { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The reason in [`Self::NotUnderstood`] for a `null` that is not a valid result.
    pub(super) const NULL: &str = "null: it may not have that block yet";
}

/// Why an allowance was not set, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum AllowanceError {
    /// A request to the chain failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The transaction could not be journalled, so nothing was sent.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    /// There is no token at the address.
    #[error("{token} is not a token on eip155:{chain_id} ({node}): check the address and the network")]
    NoToken {
        /// The address.
        token: Address,
        /// The chain ID.
        chain_id: u64,
        /// Scheme, host and port of the node.
        node: Box<str>,
    },
    /// There is no contract that could use the allowance.
    #[error(
        "eip155:{chain_id} has no contract at {spender}, which would get the allowance: nothing was sent"
    )]
    NoSpender {
        /// The address.
        spender: Address,
        /// The chain ID.
        chain_id: u64,
    },
    /// Too little ether for the fee; nothing was sent.
    #[error("{payer} holds {has} wei and the transaction can cost {needs}: send it {} wei more", needs.saturating_sub(*has))]
    Underfunded {
        /// The payer.
        payer: Address,
        /// Its balance, in wei.
        has: U256,
        /// The most that the transaction can cost, in wei.
        needs: U256,
    },
    /// The token would refuse the transaction; nothing was sent.
    #[error("the token would refuse the allowance, so nothing was sent: {why}")]
    WouldFail {
        /// The revert reason.
        why: String,
    },
    /// The transaction cannot be described to the external signer.
    #[error("the transaction cannot be described to the signer: {0}")]
    Unreadable(String),
    /// The transaction was mined but reverted; only its fee was spent.
    #[error("the token refused the allowance in transaction {hash}; only its fee was spent")]
    Failed {
        /// The transaction.
        hash: TransactionHash,
    },
    /// The transaction was, or may have been, sent, and its outcome is unknown.
    #[error(
        "transaction {hash} is not confirmed after {waited:?}{} and may still be mined: look again with \
         `tollpass approve-token --show`",
        last.as_ref().map(|error| format!(" ({error})")).unwrap_or_default()
    )]
    StillPending {
        /// The transaction.
        hash: TransactionHash,
        /// How long tollpass waited.
        waited: Duration,
        /// The last error of the node, if any.
        last: Option<Box<ChainError>>,
    },
    /// The token wanted the allowance to be 0 before it is changed, and what follows that was not confirmed.
    #[error(
        "the allowance has been set to 0, as the token wants that first, and not to the amount: {why}. Until it is, Permit2 moves \
         nothing of this token: run the same command again"
    )]
    LeftAtZero {
        /// Why not.
        why: Box<Self>,
    },
    /// An external signer was asked to sign the transaction and gave no clear answer.
    #[error("{why}. It was asked for the transaction with nonce {nonce}, which tollpass did not send")]
    UnclearSignature {
        /// The nonce.
        nonce: u64,
        /// What the signer answered.
        why: NotSigned,
    },
}

/// An operation that failed, or whose outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// A request to the chain failed; no transaction that moves the money was sent.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The intent could not be journalled, so nothing was sent.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    /// The wallet holds too little; nothing was sent.
    #[error("{0}")]
    Underfunded(Box<Underfunded>),
    /// The channel cannot be ended this way; nothing was sent.
    #[error(transparent)]
    Precondition(#[from] UnmetPrecondition),
    /// The contract would refuse the transaction; nothing was sent.
    #[error("the transaction would fail and was not sent: {why}")]
    WouldFail {
        /// The revert reason, or the contract rules that may have been violated.
        why: String,
    },
    /// The transaction was mined but reverted; only its fee was spent.
    #[error("transaction {hash} failed: {why}")]
    TransactionFailed {
        /// The transaction.
        hash: TransactionHash,
        /// The revert reason, or the contract rules that may have been violated.
        why: String,
    },
    /// The transaction was, or may have been, sent, and its outcome is unknown.
    #[error(
        "transaction {hash} is not confirmed after {waited:?}{} and may still be mined; tollpass checks it again \
         before any other operation for this receiver",
        last.as_ref().map(|error| format!(" ({error})")).unwrap_or_default()
    )]
    StillPending {
        /// The transaction.
        hash: TransactionHash,
        /// How long tollpass waited.
        waited: Duration,
        /// The last error of the node, if any.
        last: Option<Box<ChainError>>,
    },
    /// An external signer was asked to sign the transaction and gave no clear answer: it counts as signed.
    #[error(
        "{why}. It was asked for the transaction with nonce {nonce}, which may be sent and mined; tollpass asks it for the same \
         one again before any other operation for this receiver"
    )]
    UnclearSignature {
        /// The nonce.
        nonce: u64,
        /// What the signer answered.
        why: NotSigned,
    },
    /// Another transaction of the account used the nonce, so this one can never be mined. Either it was found, or the node
    /// has no trace of ours, neither hash nor effect, after many blocks and a long time.
    #[error(
        "transaction {hash} was replaced: nonce {nonce} was used by {}. If tollpass did not send that, another program or \
         state directory uses the same key: give each a key of its own",
        by.map_or("another transaction of this account".to_owned(), |by| format!("transaction {by} of this account"))
    )]
    Replaced {
        /// The transaction.
        hash: TransactionHash,
        /// The nonce of both.
        nonce: u64,
        /// The other transaction, if it was found.
        by: Option<TransactionHash>,
    },
    /// The transaction is confirmed, but neither the contract's state nor its events prove its effect on the channel. The
    /// money may have moved: it counts as sent until a later check proves the outcome.
    #[error(
        "transaction {hash} is confirmed, but its effect on channel {channel} is not visible: {}. Nothing more is sent for \
         this receiver until it is; is the node behind, or does it return false data (chain.rpc_url)?",
        describe(shows.as_deref())
    )]
    Unseen {
        /// The transaction.
        hash: TransactionHash,
        /// The channel.
        channel: ChannelId,
        /// The state last read: `None` if it could not be read, `Some(None)` if there is no such channel.
        shows: Option<Box<Option<OnChain>>>,
    },
}

fn describe(shows: Option<&Option<OnChain>>) -> String {
    match shows {
        None => "the node is behind, or cannot be asked".to_owned(),
        Some(None) => "the contract has no such channel".to_owned(),
        Some(Some(OnChain { deposit, settle_block: 0, .. })) => format!("it holds {deposit}"),
        Some(Some(OnChain { deposit, settle_block, .. })) => {
            format!("it holds {deposit} and is being closed (settle block {settle_block})")
        }
    }
}

impl OpError {
    /// True if money may have moved or may still move: the operation's intents must be resumed before it is repeated, and
    /// count as sent until then. False if it is certain that this operation moves nothing: it was not sent, it failed, or
    /// another transaction has or will have its nonce.
    pub fn is_unclear(&self) -> bool {
        matches!(self, Self::StillPending { .. } | Self::UnclearSignature { .. } | Self::Unseen { .. })
    }
}

/// The journal could not write a record, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the intent could not be recorded, so the transaction was not sent: {0}")]
pub struct NotRecorded(pub String);

/// The wallet holds too little.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Underfunded {
    /// Too few tokens.
    #[error("{payer} holds {has} base units of the token {token} and needs {needs}: send it {} more", needs.saturating_sub(*has))]
    Token {
        /// The payer.
        payer: Address,
        /// The token.
        token: Address,
        /// Its balance, in base units.
        has: Amount,
        /// The amount the operation locks up, in base units.
        needs: Amount,
    },
    /// Too little ether for the fee.
    #[error("{payer} holds {has} wei and the transaction can cost {needs}: send it {} wei more", needs.saturating_sub(*has))]
    Ether {
        /// The payer.
        payer: Address,
        /// Its balance, in wei.
        has: U256,
        /// The most that the transaction can cost, in wei.
        needs: U256,
    },
}

/// What to do if the fees of one day would be too high.
fn remedy_of_day(free_in: Option<Duration>) -> String {
    match free_in {
        // Whole minutes, rounded up.
        Some(left) => {
            let minutes = Duration::from_secs(left.as_secs().div_ceil(60).max(1) * 60);
            format!("Earlier fees stop counting after 24 hours: wait {}", humantime::format_duration(minutes))
        }
        None => "This one alone costs more: wait until fees are lower".to_owned(),
    }
}

/// A transaction hash; displayed as `0x` and 64 hexadecimal digits.
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
