//! One channel: its promised and acknowledged totals, and its deposit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::{Address, Amount, ChannelId, Signature};

/// One of our channels.
///
/// Always `acknowledged <= presented <= promised`, counting our own signatures. Nothing above `durable_limit` or
/// `deposit` is ever signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The deposit including top-ups, as on the chain.
    pub deposit: Amount,
    /// Everything sent into the channel, including pending top-ups; the chain may lag behind it. Limits on deposits
    /// count this.
    pub funded: Amount,
    /// The highest total ever signed. It never falls.
    pub promised: Amount,
    /// The highest total presented to the seller, as far as known. Presenting more counts as new exposure of the
    /// request that presents it: totals that were signed but never sent lie between this and `promised`, as may
    /// everything that a crash left unknown.
    pub presented: Amount,
    /// The recorded limit: totals up to here may be signed without another durable write. If a crash leaves it above
    /// `presented`, everything in between may have been signed and sent.
    pub durable_limit: Amount,
    /// The total that the seller is believed to hold, to which the next price is added. It may be corrected downwards
    /// at any time, upwards only by our own signature.
    pub acknowledged: Amount,
    /// A signed payment with unknown outcome.
    pub in_doubt: Option<InDoubt>,
    /// The most that may have been signed, while that is unknown: after a crash, or for a channel on the chain that the
    /// journal does not have. Only our own signature or the chain ends it.
    pub doubt: Option<Amount>,
    /// True until the seller has stated its total in this run, since the journal may be older than the seller's state.
    /// Not recorded.
    pub must_query: bool,
    /// The highest total signed in this run. Not recorded.
    pub signed: Amount,
    /// How many payments were signed in this run. Not recorded.
    pub payments: u64,
    /// The channel's state.
    pub phase: Phase,
}

/// A signed payment that may or may not have reached the seller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// The signed total.
    pub total: Amount,
    /// The price that it was to pay.
    pub price: Amount,
}

/// The state of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It can pay.
    Open,
    /// A unilateral close was requested; it can be settled after this block.
    Closing {
        /// The last block of the challenge period.
        settle_block: u32,
    },
    /// It does not exist on the chain: settled, or its opening was undone by a reorganisation.
    Gone,
}

impl Phase {
    /// Its name: `open`, `closing` or `gone`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closing { .. } => "closing",
            Self::Gone => "gone",
        }
    }
}

impl Channel {
    /// A channel that was just opened: nothing was signed on it yet.
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

    /// A channel on the chain that the journal does not have. Up to its whole deposit may have been signed.
    pub fn found(on_chain: OnChain) -> Self {
        let channel = Self::new(on_chain);
        Self { doubt: Some(channel.deposit), must_query: true, ..channel }
    }

    /// Updates the channel from the contract's state; `None` means that there is no such channel.
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
        // The contract verified our signature before it paid this out.
        self.promised = self.promised.max(on_chain.withdrawn);
        self.presented = self.presented.max(on_chain.withdrawn);
        self.acknowledged = self.acknowledged.max(on_chain.withdrawn);
    }

    /// A recorded channel at startup. After a crash, everything up to the durable limit may have been signed and sent.
    /// In any case the seller is queried first, since the journal may be an old copy.
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

    /// The highest total that the seller may hold. Of a channel in use, this is what it was presented.
    pub fn may_be_held(&self) -> Amount {
        self.doubt.map_or(self.presented, |doubt| doubt.max(self.presented))
    }

    /// True while more may have been signed than is known.
    pub fn has_doubt(&self) -> bool {
        self.exposure() > self.promised
    }

    /// True while a payment is in doubt, or more may have been signed than is known.
    pub fn is_uncertain(&self) -> bool {
        self.in_doubt.is_some() || self.has_doubt()
    }

    /// Whether presenting this total only queries the seller.
    pub fn is_query(&self, total: Amount) -> bool {
        self.must_query && total <= self.acknowledged
    }

    /// The durable limit that allows signing `ahead` beyond what is promised, as far as the deposit covers it.
    pub fn bound(&self, ahead: Amount) -> Amount {
        self.promised.saturating_add(ahead).min(self.deposit).max(self.promised)
    }

    /// Whether an earlier request may have signed this total and presented it to the seller.
    pub fn may_have_sent(&self, total: Amount) -> bool {
        let is_unclear = self.in_doubt.is_some_and(|unclear| unclear.total == total);
        is_unclear || (self.must_query && self.doubt.is_some_and(|doubt| total <= doubt))
    }

    /// The total to sign for `price`, or `None` if the deposit does not cover it.
    ///
    /// Until the seller has stated its total, the certain total is presented, which queries without paying. A payment
    /// of the same price that is in doubt is presented again: if it never arrived, it pays now.
    pub fn next_total(&self, price: Amount) -> Option<Amount> {
        let next = self.acknowledged.checked_add(price)?;
        let total = match self.in_doubt {
            _ if self.must_query => return (next <= self.deposit).then_some(self.acknowledged),
            Some(unclear) if unclear.price == price => unclear.total,
            Some(_) | None => next,
        };
        (total <= self.deposit).then_some(total)
    }

    /// Records that this total was presented to the seller.
    pub fn present(&mut self, total: Amount) {
        self.presented = self.presented.max(total);
    }

    /// Records that the seller holds `total`, which ends the doubt about a payment. A lower total is accepted without
    /// proof, since it never costs anything; a higher one only if `proven` by our own signature.
    ///
    /// A proof also ends `doubt`, unless it proves no more than this run has presented to the seller itself.
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

    /// The funds sent into the channel that are not visible on the chain yet.
    pub fn unseen(&self) -> Amount {
        self.funded.saturating_sub(self.deposit)
    }

    /// The remaining balance, as far as known.
    pub fn left(&self) -> Amount {
        self.deposit.saturating_sub(self.acknowledged)
    }
}

/// A total to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelDraft {
    /// The channel that pays.
    pub channel: ChannelId,
    /// The new total.
    pub total: Amount,
    /// The part of it that pays for this request.
    pub price: Amount,
    /// Whether it raises nothing: it only asks the seller for its total.
    pub is_query: bool,
}

/// The contract's state of a channel (`getChannelInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnChain {
    /// The deposit including top-ups, in base units.
    pub deposit: Amount,
    /// The block after which the channel can be settled; 0 if no close was requested.
    pub settle_block: u32,
    /// The total of the unilateral close; meaningful only with a settle block.
    pub closing_balance: Amount,
    /// The total that the receiver has withdrawn.
    pub withdrawn: Amount,
}

/// An operation that funds or ends a channel. The journal stores it under its original name, `order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum ChannelOp {
    /// Open a channel.
    Open {
        /// The payee.
        receiver: Address,
        /// The deposit, in base units.
        deposit: Amount,
    },
    /// Add to a channel's deposit.
    TopUp {
        /// The channel.
        channel: ChannelId,
        /// The amount to add, in base units.
        added: Amount,
    },
    /// Close a channel at once, at a total that both have signed.
    CloseTogether {
        /// The channel.
        channel: ChannelId,
        /// The receiver's part of the deposit, in base units.
        total: Amount,
        /// The payer's signature of the total.
        balance_signature: Signature,
        /// The receiver's closing signature.
        closing_signature: Signature,
    },
    /// Request a unilateral close, which starts the challenge period.
    CloseAlone {
        /// The channel.
        channel: ChannelId,
        /// The receiver's part of the deposit, in base units.
        total: Amount,
    },
    /// Settle a channel whose challenge period is over.
    Settle {
        /// The channel.
        channel: ChannelId,
    },
}

impl ChannelOp {
    /// The payee.
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

/// A signed transaction. It is recorded before it is sent, so that after a crash it can be looked up by its hash, or
/// sent again unchanged. One that an external signer is asked for is recorded before that, too, unsigned.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The operation that it is part of.
    #[serde(rename = "order")]
    pub op: ChannelOp,
    /// True for the transaction that completes the operation, false for an `approve` before it and for a zero-value
    /// transfer that fills a nonce gap.
    pub moves: bool,
    /// The account nonce.
    pub nonce: u64,
    /// Its hash; if it is not signed, the hash to sign.
    pub hash: [u8; 32],
    /// The raw signed transaction for `eth_sendRawTransaction`; if it is not signed, its fields as a JSON object.
    pub raw: Vec<u8>,
    /// The host that a channel is opened for; `None` for user operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Intent {
    /// False for a transaction that an external signer was asked for, unless it has answered.
    pub fn is_signed(&self) -> bool {
        // A signed one begins with its type, or as a list in RLP.
        self.raw.first() != Some(&b'{')
    }
}

impl std::fmt::Debug for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the raw transaction, which is signed, long and redundant.
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
