//! One channel: what was promised, what the seller is believed to hold, what is locked up.

use serde::{Deserialize, Serialize};

use crate::protocol::{Address, Amount, ChannelId, Signature};

/// One of our channels.
///
/// Always `acknowledged <= promised <= deposit`, as far as our own signatures go, and nothing above `reserved` is
/// ever signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What is locked up, top ups included.
    pub deposit: Amount,
    /// The highest total ever signed. It never falls.
    pub promised: Amount,
    /// The bound on disk: totals up to here may be signed without another durable write. After a crash it is what
    /// may have been promised, until the seller's own state says more.
    pub reserved: Amount,
    /// What the seller is believed to hold: the next price is added to it. It may be corrected downwards at any
    /// time, upwards only by our own signature.
    pub acknowledged: Amount,
    /// A payment that was signed and whose fate is not known.
    pub unclear: Option<Unclear>,
    /// Where it is in its life.
    pub phase: Phase,
}

/// A payment that was signed and may or may not have reached the seller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear {
    /// The signed total.
    pub total: Amount,
    /// What of it was meant to be paid; `None` after a crash, when any total up to this one may have been signed.
    pub price: Option<Amount>,
}

/// Where a channel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It can pay.
    Open,
    /// We asked to close it; it can be settled after this block.
    Closing {
        /// The last block of the challenge period.
        settle_block: u32,
    },
    /// The contract does not know it: settled, or its opening was undone by a reorganisation.
    Gone,
}

impl Phase {
    /// One word for it: `open`, `closing` or `gone`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closing { .. } => "closing",
            Self::Gone => "gone",
        }
    }
}

impl Channel {
    /// A channel as the contract shows it, before anything was paid as far as we know.
    pub fn new(on_chain: OnChain) -> Self {
        let mut channel = Self {
            deposit: Amount::ZERO,
            promised: Amount::ZERO,
            reserved: Amount::ZERO,
            acknowledged: Amount::ZERO,
            unclear: None,
            phase: Phase::Open,
        };
        channel.observe(Some(on_chain));
        channel
    }

    /// Takes over what the contract says; `None` means that it knows no such channel.
    pub fn observe(&mut self, on_chain: Option<OnChain>) {
        let Some(on_chain) = on_chain else {
            self.phase = Phase::Gone;
            return;
        };
        self.deposit = on_chain.deposit;
        self.phase = match on_chain.settle_block {
            0 => Phase::Open,
            settle_block => Phase::Closing { settle_block },
        };
        // The contract checked our signature before it paid this out.
        self.promised = self.promised.max(on_chain.withdrawn);
        self.acknowledged = self.acknowledged.max(on_chain.withdrawn);
    }

    /// A channel as a crash left it on disk: everything up to the bound may have been signed and sent.
    pub fn recover(mut self) -> Self {
        if self.reserved > self.promised {
            // An earlier crash may have left more in doubt.
            let total = self.reserved.max(self.exposure());
            self.unclear = Some(Unclear { total, price: None });
        }
        self
    }

    /// The most that may have been promised.
    pub fn exposure(&self) -> Amount {
        self.unclear.map_or(self.promised, |unclear| unclear.total.max(self.promised))
    }

    /// True while a crash leaves it in doubt what was promised.
    pub fn is_in_doubt(&self) -> bool {
        self.unclear.is_some_and(|unclear| unclear.price.is_none())
    }

    /// True when this total only asks the seller what it holds.
    pub fn is_question(&self, total: Amount) -> bool {
        self.is_in_doubt() && total <= self.acknowledged
    }

    /// The bound on disk up to which `ahead` can be signed beyond what is promised, as far as the deposit covers it.
    pub fn bound(&self, ahead: Amount) -> Amount {
        self.promised.saturating_add(ahead).min(self.deposit).max(self.promised)
    }

    /// True when an earlier request may have signed this total and shown it to the seller.
    pub fn may_have_sent(&self, total: Amount) -> bool {
        self.unclear.is_some_and(|unclear| match unclear.price {
            Some(_) => unclear.total == total,
            None => total <= unclear.total,
        })
    }

    /// The total to sign for `price`, or `None` when the deposit does not cover it.
    ///
    /// A payment of the same price whose fate is not known is presented again: if it never arrived it pays now. While
    /// a crash leaves everything in doubt, the total that is certain is presented, which asks and does not pay.
    pub fn next_total(&self, price: Amount) -> Option<Amount> {
        let total = match self.unclear {
            Some(Unclear { price: None, .. }) => self.acknowledged,
            Some(Unclear { total, price: Some(same) }) if same == price => total,
            Some(_) | None => self.acknowledged.checked_add(price)?,
        };
        (total <= self.deposit).then_some(total)
    }

    /// What can still be paid, as far as is known.
    pub fn left(&self) -> Amount {
        self.deposit.saturating_sub(self.acknowledged)
    }
}

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

/// An order to put money into a channel, or to end one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum Order {
    /// Open a channel.
    Open {
        /// Who will be paid.
        receiver: Address,
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
    /// End a channel at once, on a total that both have signed.
    CloseTogether {
        /// Which one.
        channel: ChannelId,
        /// What the receiver gets of the deposit, in base units.
        total: Amount,
        /// The payer's signature under the total.
        balance_signature: Signature,
        /// The receiver's.
        closing_signature: Signature,
    },
    /// Ask to end a channel without the receiver, which starts the challenge period.
    CloseAlone {
        /// Which one.
        channel: ChannelId,
        /// What the receiver is to get of the deposit, in base units.
        total: Amount,
    },
    /// End a channel whose challenge period is over.
    Settle {
        /// Which one.
        channel: ChannelId,
    },
}

impl Order {
    /// Who is paid by the channel.
    pub fn receiver(&self) -> Address {
        match self {
            Self::Open { receiver, .. } => *receiver,
            Self::TopUp { channel, .. }
            | Self::CloseTogether { channel, .. }
            | Self::CloseAlone { channel, .. }
            | Self::Settle { channel } => channel.receiver,
        }
    }
}

/// A signed transaction that was, or is about to be, handed to the node. It is journalled before it is sent,
/// so that after a crash it can be looked up by its hash, or sent again byte by byte.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What it is part of.
    pub order: Order,
    /// True for the transaction that carries out the order, false for an `approve` on the way there.
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

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn orders_are_kept_as_ever_and_signatures_as_hexadecimal_digits() {
        let receiver = Address([0xbb; 20]);
        let channel = ChannelId { receiver, open_block: 9 };
        let (balance_signature, closing_signature) = (Signature([1; 65]), Signature([0xfe; 65]));
        let total = Amount::from(7);
        let id = json!({ "receiver": receiver.to_string(), "open_block": 9 });
        let digits = |byte: &str| format!("0x{}", byte.repeat(65));
        for (order, kept) in [
            (
                Order::Open { receiver, deposit: total },
                json!({ "order": "open", "receiver": receiver.to_string(), "deposit": "7" }),
            ),
            (
                Order::TopUp { channel, added: total },
                json!({ "order": "top_up", "channel": id, "added": "7" }),
            ),
            (
                Order::CloseTogether { channel, total, balance_signature, closing_signature },
                json!({
                    "order": "close_together",
                    "channel": id,
                    "total": "7",
                    "balance_signature": digits("01"),
                    "closing_signature": digits("fe"),
                }),
            ),
            (
                Order::CloseAlone { channel, total },
                json!({ "order": "close_alone", "channel": id, "total": "7" }),
            ),
            (Order::Settle { channel }, json!({ "order": "settle", "channel": id })),
        ] {
            assert_eq!(to_value(order).unwrap(), kept);
            assert_eq!(from_value::<Order>(kept).unwrap(), order);
            assert_eq!(order.receiver(), receiver);
            assert!(!format!("{order:?}").contains("0101"), "{order:?}");
        }
        assert!(from_value::<Signature>(json!("0x01")).is_err());
    }
}
