//! One channel: what was promised, what the seller is believed to hold, what is locked up.

use serde::{Deserialize, Serialize};

use crate::protocol::{Amount, ChannelId};

/// What the contract says of a channel (`getChannelInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnChain {
    /// What is locked up, top ups included, in base units.
    pub deposit: Amount,
    /// The block after which the channel can be settled; 0 while nobody asked to close it.
    pub settle_block: u32,
    /// The total the sender asked to close on; meaningful only with a settle block.
    pub closing_balance: Amount,
    /// What the receiver has taken out so far.
    pub withdrawn: Amount,
}

/// An order to put money into a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum Order {
    /// Open a channel.
    Open {
        /// Who will be paid.
        receiver: crate::protocol::Address,
        /// What to lock up, in base units.
        deposit: Amount,
    },
    /// Add to a channel.
    TopUp {
        /// Which one.
        channel: ChannelId,
        /// How much, in base units.
        added: Amount,
    },
}

impl Order {
    /// Whose channel is opened or topped up.
    pub fn receiver(&self) -> crate::protocol::Address {
        match self {
            Self::Open { receiver, .. } => *receiver,
            Self::TopUp { channel, .. } => channel.receiver,
        }
    }
}

/// A signed transaction that was, or is about to be, handed to the node. It is journalled before it is sent,
/// so that after a crash it can be looked up by its hash, or sent again byte by byte.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What it is part of.
    pub order: Order,
    /// True for the transaction that moves the money, false for an `approve` on the way there.
    pub moves: bool,
    /// The account nonce it uses.
    pub nonce: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// The signed transaction, ready for `eth_sendRawTransaction`.
    pub raw: Vec<u8>,
}

impl std::fmt::Debug for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The raw transaction is left out: it is signed, long and says nothing that the rest does not.
        f.debug_struct("Intent")
            .field("order", &self.order)
            .field("moves", &self.moves)
            .field("nonce", &self.nonce)
            .field("hash", &ethers_core::utils::hex::encode_prefixed(self.hash))
            .finish_non_exhaustive()
    }
}
