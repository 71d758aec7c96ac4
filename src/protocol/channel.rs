//! One channel: what was promised, what the seller is believed to hold, what is locked up.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::{Address, Amount, ChannelId, Signature};

/// One of our channels.
///
/// Always `acknowledged <= presented <= promised`, as far as our own signatures go. Nothing above `durable_limit` is ever
/// signed, and no payment is above `deposit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What is locked up, top ups included, as the chain shows it.
    pub deposit: Amount,
    /// All that was sent into the channel, top ups on their way included: what the chain shows may lag behind it. Limits
    /// on deposits count this.
    pub funded: Amount,
    /// The highest total ever signed. It never falls.
    pub promised: Amount,
    /// The highest total that the seller was shown, as far as can be told. What is presented above it counts for the request
    /// that presents it: a total that was signed and never sent lies between this and `promised`, and so may all that a
    /// crash left unknown.
    pub presented: Amount,
    /// The bound on disk: totals up to here may be signed without another durable write. Where a crash leaves it above
    /// `presented`, everything in between may have been signed and sent.
    pub durable_limit: Amount,
    /// What the seller is believed to hold: the next price is added to it. It may be corrected downwards at any
    /// time, upwards only by our own signature.
    pub acknowledged: Amount,
    /// A payment that was signed and whose fate is not known.
    pub in_doubt: Option<InDoubt>,
    /// The most that may have been signed, while that is not known: after a crash, or when the chain shows a channel
    /// that the journal does not have. Only our own signature or the chain ends it.
    pub doubt: Option<Amount>,
    /// True until the seller has said in this run what it holds: the journal may be older than the seller's state. Not
    /// kept on disk.
    pub must_query: bool,
    /// The highest payment that was signed in this run. Not kept on disk.
    pub signed: Amount,
    /// How many payments were signed in this run. Not kept on disk.
    pub payments: u64,
    /// Where it is in its life.
    pub phase: Phase,
}

/// A payment that was signed and may or may not have reached the seller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// The signed total.
    pub total: Amount,
    /// What of it was meant to be paid.
    pub price: Amount,
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
    /// A channel that we have just opened: nothing was signed on it yet.
    pub fn new(on_chain: OnChain) -> Self {
        let mut channel = Self {
            deposit: Amount::ZERO,
            funded: Amount::ZERO,
            promised: Amount::ZERO,
            presented: Amount::ZERO,
            durable_limit: Amount::ZERO,
            acknowledged: Amount::ZERO,
            in_doubt: None,
            doubt: None,
            must_query: false,
            signed: Amount::ZERO,
            payments: 0,
            phase: Phase::Open,
        };
        channel.observe(Some(on_chain));
        channel
    }

    /// A channel that the chain shows and the journal does not have. Up to its whole deposit may have been signed.
    pub fn found(on_chain: OnChain) -> Self {
        let channel = Self::new(on_chain);
        Self { doubt: Some(channel.deposit), must_query: true, ..channel }
    }

    /// Takes over what the contract says; `None` means that it knows no such channel.
    pub fn observe(&mut self, on_chain: Option<OnChain>) {
        let Some(on_chain) = on_chain else {
            self.phase = Phase::Gone;
            return;
        };
        self.deposit = on_chain.deposit;
        self.funded = self.funded.max(on_chain.deposit);
        self.phase = match on_chain.settle_block {
            0 => Phase::Open,
            settle_block => Phase::Closing { settle_block },
        };
        // The contract checked our signature before it paid this out.
        self.promised = self.promised.max(on_chain.withdrawn);
        self.presented = self.presented.max(on_chain.withdrawn);
        self.acknowledged = self.acknowledged.max(on_chain.withdrawn);
    }

    /// A channel as the journal has it at a start. After a crash everything up to the bound may have been signed and
    /// sent. In any case the seller is asked first: the journal may be an old copy.
    pub fn recover(mut self) -> Self {
        if self.durable_limit > self.presented {
            self.doubt = Some(self.durable_limit.max(self.exposure()));
        }
        Self { must_query: true, signed: Amount::ZERO, payments: 0, ..self }
    }

    /// The most that may have been signed.
    pub fn exposure(&self) -> Amount {
        self.doubt.map_or(self.promised, |doubt| doubt.max(self.promised))
    }

    /// True while more may have been signed than is known.
    pub fn has_doubt(&self) -> bool {
        self.exposure() > self.promised
    }

    /// True while a payment is unclear, or more may have been signed than is known.
    pub fn is_uncertain(&self) -> bool {
        self.in_doubt.is_some() || self.has_doubt()
    }

    /// True when this total only asks the seller what it holds.
    pub fn is_query(&self, total: Amount) -> bool {
        self.must_query && total <= self.acknowledged
    }

    /// The bound on disk up to which `ahead` can be signed beyond what is promised, as far as the deposit covers it.
    pub fn bound(&self, ahead: Amount) -> Amount {
        self.promised.saturating_add(ahead).min(self.deposit).max(self.promised)
    }

    /// True when an earlier request may have signed this total and shown it to the seller.
    pub fn may_have_sent(&self, total: Amount) -> bool {
        let is_unclear = self.in_doubt.is_some_and(|unclear| unclear.total == total);
        is_unclear || (self.must_query && self.doubt.is_some_and(|doubt| total <= doubt))
    }

    /// The total to sign for `price`, or `None` when the deposit does not cover it.
    ///
    /// Until the seller has said what it holds, the total that is certain is presented, which asks and does not pay. A
    /// payment of the same price whose fate is not known is presented again: if it never arrived it pays now.
    pub fn next_total(&self, price: Amount) -> Option<Amount> {
        let next = self.acknowledged.checked_add(price)?;
        let total = match self.in_doubt {
            _ if self.must_query => return (next <= self.deposit).then_some(self.acknowledged),
            Some(unclear) if unclear.price == price => unclear.total,
            Some(_) | None => next,
        };
        (total <= self.deposit).then_some(total)
    }

    /// The seller was shown this total, as far as can be told.
    pub fn present(&mut self, total: Amount) {
        self.presented = self.presented.max(total);
    }

    /// The seller holds `total`, and no payment is unclear any more. What it says is believed downwards, which never
    /// costs anything, and otherwise `proven` by our own signature.
    ///
    /// A proof ends a doubt too, unless it proves no more than this run has shown the seller itself.
    pub fn correct(&mut self, total: Amount, proven: bool) {
        let is_proof = proven && !total.is_zero();
        if is_proof && total > self.signed {
            self.doubt = None;
        }
        if is_proof {
            self.present(total);
        }
        self.promised = self.promised.max(total);
        self.acknowledged = total;
        (self.in_doubt, self.must_query) = (None, false);
        if !self.has_doubt() {
            self.doubt = None;
        }
    }

    /// What was sent into the channel and does not show on the chain.
    pub fn unseen(&self) -> Amount {
        self.funded.saturating_sub(self.deposit)
    }

    /// What can still be paid, as far as is known.
    pub fn left(&self) -> Amount {
        self.deposit.saturating_sub(self.acknowledged)
    }
}

/// A total that is about to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelDraft {
    /// The channel that pays.
    pub channel: ChannelId,
    /// The new total.
    pub total: Amount,
    /// What of it is paid for this request.
    pub price: Amount,
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

/// An operation that puts money into a channel, or ends one. The journal stores it under its first name, `order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum ChannelOp {
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

impl ChannelOp {
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

impl fmt::Display for ChannelOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { receiver, deposit } => write!(f, "open a channel to {receiver} with {deposit}"),
            Self::TopUp { channel, added } => write!(f, "top up {channel} by {added}"),
            Self::CloseTogether { channel, total, .. } => {
                write!(f, "close {channel} cooperatively at {total}")
            }
            Self::CloseAlone { channel, total } => write!(f, "close {channel} unilaterally at {total}"),
            Self::Settle { channel } => write!(f, "settle {channel}"),
        }
    }
}

/// A signed transaction that was, or is about to be, handed to the node. It is journalled before it is sent,
/// so that after a crash it can be looked up by its hash, or sent again byte by byte.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The operation that it is part of.
    #[serde(rename = "order")]
    pub op: ChannelOp,
    /// True for the transaction that carries out the order, false for an `approve` on the way there and for a transfer of
    /// nothing that fills a gap between nonces.
    pub moves: bool,
    /// The account nonce it uses.
    pub nonce: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// The signed transaction, ready for `eth_sendRawTransaction`.
    pub raw: Vec<u8>,
    /// The host that a channel is opened for; `None` for what the user orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl std::fmt::Debug for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The raw transaction is left out: it is signed, long and says nothing that the rest does not.
        f.debug_struct("Intent")
            .field("op", &self.op)
            .field("moves", &self.moves)
            .field("nonce", &self.nonce)
            .field("hash", &ethers_core::utils::hex::encode_prefixed(self.hash))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use crate::protocol::channel::*;

    #[test]
    fn orders_are_kept_as_ever_and_signatures_as_hexadecimal_digits() {
        let receiver = Address([0xbb; 20]);
        let channel = ChannelId { receiver, open_block: 9 };
        let (balance_signature, closing_signature) = (Signature([1; 65]), Signature([0xfe; 65]));
        let total = Amount::from(7);
        let id = json!({ "receiver": receiver.to_string(), "open_block": 9 });
        let digits = |byte: &str| format!("0x{}", byte.repeat(65));
        for (op, kept) in [
            (
                ChannelOp::Open { receiver, deposit: total },
                json!({ "order": "open", "receiver": receiver.to_string(), "deposit": "7" }),
            ),
            (
                ChannelOp::TopUp { channel, added: total },
                json!({ "order": "top_up", "channel": id, "added": "7" }),
            ),
            (
                ChannelOp::CloseTogether { channel, total, balance_signature, closing_signature },
                json!({
                    "order": "close_together",
                    "channel": id,
                    "total": "7",
                    "balance_signature": digits("01"),
                    "closing_signature": digits("fe"),
                }),
            ),
            (
                ChannelOp::CloseAlone { channel, total },
                json!({ "order": "close_alone", "channel": id, "total": "7" }),
            ),
            (ChannelOp::Settle { channel }, json!({ "order": "settle", "channel": id })),
        ] {
            assert_eq!(to_value(op).unwrap(), kept);
            assert_eq!(from_value::<ChannelOp>(kept).unwrap(), op);
            assert_eq!(op.receiver(), receiver);
            assert!(!format!("{op:?}").contains("0101"), "{op:?}");
        }
        assert!(from_value::<Signature>(json!("0x01")).is_err());
    }
}
