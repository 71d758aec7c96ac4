//! The messages of the actor.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::closing_signatures::ClosingSignature;
use super::error::ChannelAccessError;
use super::journal::{Journal, JournalError, StoredAccount};
use super::listing::Listing;
use crate::chain::WalletSigner;
use crate::chain::{Chain, NotRecorded, Synced, TransactionHash};
use crate::protocol::engine::{OpFailure, OpRefused};
use crate::protocol::{Account, Address, Amount, Channel, ChannelId, ChannelOp, Intent, OnChain};

/// A message to the actor.
pub(super) enum Message {
    Load {
        account: Account,
        is_chosen: bool,
        reply: oneshot::Sender<Result<StoredAccount, JournalError>>,
    },
    Unlocked {
        signer: Arc<WalletSigner>,
        has_chain: bool,
    },
    Ready(Box<StartupState>),
    Unready(String),
    Intent {
        intent: Intent,
        reply: oneshot::Sender<Result<(), NotRecorded>>,
    },
    OpFinished {
        receiver: Address,
        result: Result<Option<ChangedChannel>, OpFailure>,
    },
    ChannelOp {
        op: ChannelOp,
        reply: oneshot::Sender<OpReply>,
    },
    Look {
        channel: ChannelId,
        reply: oneshot::Sender<Option<Channel>>,
    },
    Lock {
        channel: ChannelId,
        lock: LockId,
        reply: LockReply,
    },
    Unlock {
        channel: ChannelId,
        lock: LockId,
    },
    Learned {
        channel: ChannelId,
        total: Amount,
        proven: bool,
    },
    ClosingSignature {
        channel: ChannelId,
        signature: ClosingSignature,
        reply: oneshot::Sender<()>,
    },
    Watched(Synced),
    Synced(Synced),
    ChainContext(oneshot::Sender<Option<ChainContext>>),
    List(oneshot::Sender<Listing>),
    SellerUrlLearned,
    AwaitTransactions(oneshot::Sender<()>),
    /// Work on the journal that concerns no account. It reports its result itself.
    Journal(JournalWork),
    Freeze {
        is_frozen: bool,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Finish,
    Stop,
}

/// Work on the journal.
pub(super) type JournalWork = Box<dyn FnOnce(&mut Journal) + Send>;

/// A channel that an operation changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangedChannel {
    pub(crate) channel: ChannelId,
    /// Its state on the chain; `None` if it is settled.
    pub(crate) on_chain: Option<OnChain>,
    /// Our transaction that changed it; `None` if the operation was done without it.
    pub(crate) transaction: Option<TransactionHash>,
}

/// The outcome of a user operation.
pub(super) type OpReply = Result<Result<Option<ChangedChannel>, OpFailure>, OpRefused>;

/// The key of a lock on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LockId(pub(super) u64);

/// Receives the channel once no request uses it.
pub(super) type LockReply = oneshot::Sender<Result<Channel, ChannelAccessError>>;

/// Everything the actor needs to become ready.
pub(super) struct StartupState {
    pub(super) account: Account,
    pub(super) stored: StoredAccount,
    pub(super) synced: Synced,
    pub(super) chain: Chain,
    pub(super) signer: Arc<WalletSigner>,
}

/// What channel operations need to act on the chain.
#[derive(Clone)]
pub(crate) struct ChainContext {
    pub(crate) account: Account,
    pub(crate) chain: Chain,
    pub(crate) signer: Arc<WalletSigner>,
    /// The block at which the next sync starts.
    pub(crate) cursor: u64,
}
