//! One row of the ledger.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::parties::LedgerParties;
use super::signed_amount::SignedAmount;
use crate::protocol::Amount;

/// The state of a payment after a row, or what else the row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerState {
    /// The authorization is recorded and about to be signed.
    Held,
    /// The payment was sent, and its response is outstanding.
    Sent,
    /// The seller took it and served.
    Paid,
    /// The seller took it and withheld the response.
    PaidNotDelivered,
    /// The seller did not accept it; it may still redeem it.
    Refused,
    /// The outcome is unknown.
    InDoubt,
    /// It expired, provably unused.
    Expired,
    /// It provably never left this machine.
    Unsent,
    /// Up to this much was paid on a channel for unknown requests.
    Recovered,
    /// The channel was settled: what the chain did not pay out was never taken.
    Settled,
    /// Rows before this one are missing: the journal is older than the copy of the ledger's head.
    Gap,
}

const STATES: [(LedgerState, &str); 11] = [
    (LedgerState::Held, "held"),
    (LedgerState::Sent, "sent"),
    (LedgerState::Paid, "paid"),
    (LedgerState::PaidNotDelivered, "paid-not-delivered"),
    (LedgerState::Refused, "refused"),
    (LedgerState::InDoubt, "in-doubt"),
    (LedgerState::Expired, "expired"),
    (LedgerState::Unsent, "unsent"),
    (LedgerState::Recovered, "recovered"),
    (LedgerState::Settled, "settled"),
    (LedgerState::Gap, "gap"),
];

impl LedgerState {
    /// Its name in the journal and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    /// The state with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        STATES.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }

    /// Whether another row of the same payment is to follow.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Held | Self::Sent)
    }

    /// Whether the row is about a payment, not about a channel or the ledger itself.
    #[must_use]
    pub fn is_payment(self) -> bool {
        !matches!(self, Self::Recovered | Self::Settled | Self::Gap)
    }
}

impl fmt::Display for LedgerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the chain has shown about the authorization of a payment, in a confirmed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnChainUse {
    /// The seller has used it.
    Used,
    /// It has expired, and the seller never used it.
    Unused,
}

impl OnChainUse {
    /// Its name in the journal and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Unused => "unused",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Used, Self::Unused].into_iter().find(|known| known.name() == name)
    }
}

/// What version 17 of the journal and older ones have as the receipt of a payment that the chain has confirmed.
const CONFIRMED: &str = "confirmed";
/// In the encoding of a row, what no string's length can be.
const NO_LENGTH: u64 = u64::MAX;

/// One row. A change of a payment's state is another row with the same `payment`. Absent strings are empty.
///
/// Per channel, `counts` of the last row of each payment and `adjusts` of all rows add up to the most that the payee can
/// redeem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerRow {
    /// Its number, without gaps.
    pub seq: u64,
    /// When it was made, in milliseconds since 1970.
    pub at: u64,
    /// The payment, unique in the journal; for a gap, the number of the last row that existed.
    #[serde(serialize_with = "hexadecimal")]
    pub payment: u64,
    /// The state.
    pub state: LedgerState,
    /// The state before, and what counted then; absent in the first row of a payment.
    pub previous: Option<(LedgerState, Amount)>,
    /// Who is paid, for which host, and under which rule.
    #[serde(flatten, serialize_with = "flattened")]
    pub parties: Arc<LedgerParties>,
    /// The method of the request.
    pub method: String,
    /// The path, without query and without what may be a token.
    pub path: String,
    /// The price, in base units.
    pub price: Amount,
    /// How much of the price adds to what the payee can redeem.
    pub counts: Amount,
    /// What this row adds to or takes from the part of the channel's total that belongs to no known payment.
    pub adjusts: SignedAmount,
    /// The channel's total with this payment.
    pub total: Option<Amount>,
    /// The nonce of the authorization, in hexadecimal digits.
    pub nonce: String,
    /// What the seller states about the payment: a claim.
    pub receipt: String,
    /// What the chain has shown about it.
    pub confirmation: Option<OnChainUse>,
    /// The offer that the seller has signed, as it came: a claim.
    pub offer: String,
}

/// The amounts of a row as texts, which are made once for its code and its columns.
#[derive(Debug)]
pub(super) struct AmountTexts {
    pub(super) counted: String,
    pub(super) price: String,
    pub(super) counts: String,
    pub(super) adjusts: String,
    pub(super) total: String,
}

fn hexadecimal<S: serde::Serializer>(payment: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    // A JSON number loses precision above 2^53.
    serializer.collect_str(&format_args!("{payment:x}"))
}

fn flattened<S: serde::Serializer>(parties: &Arc<LedgerParties>, serializer: S) -> Result<S::Ok, S::Error> {
    parties.as_ref().serialize(serializer)
}

impl LedgerRow {
    /// The row as this version would have written it: older ones put what the chain has shown elsewhere. It has another
    /// encoding.
    #[must_use]
    pub fn modernized(self) -> Self {
        match self.confirmation {
            None if self.receipt == CONFIRMED => {
                Self { receipt: String::new(), confirmation: Some(OnChainUse::Used), ..self }
            }
            None if self.state == LedgerState::Expired => {
                Self { confirmation: Some(OnChainUse::Unused), ..self }
            }
            _ => self,
        }
    }

    /// What the seller states, in short.
    #[must_use]
    pub fn claim(&self) -> String {
        let receipt = if self.receipt.starts_with('{') { "receipt" } else { &self.receipt };
        let offer = if self.offer.is_empty() { "" } else { "signed offer" };
        [receipt, offer].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
    }

    /// The canonical encoding: every number in 8 bytes, every string after its length. Two rows that differ have different
    /// encodings.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(&self.amounts())
    }

    /// Its amounts as the journal has them.
    pub(super) fn amounts(&self) -> AmountTexts {
        AmountTexts {
            counted: self.previous.map(|(_, counted)| counted.to_string()).unwrap_or_default(),
            price: self.price.to_string(),
            counts: self.counts.to_string(),
            adjusts: self.adjusts.to_string(),
            total: self.total.map(|total| total.to_string()).unwrap_or_default(),
        }
    }

    /// The same encoding, with its amounts.
    pub(super) fn encode_with(&self, amounts: &AmountTexts) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        for number in [self.seq, self.at, self.payment] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let before = self.previous.map_or("", |(state, _)| state.name());
        let LedgerParties { host, client, rule, budgets, scheme, payee, network, token, channel } =
            &*self.parties;
        let texts = [
            self.state.name(),
            before,
            &amounts.counted,
            &self.method,
            host,
            &self.path,
            client,
            rule,
            scheme,
            payee,
            network,
            token,
            &amounts.price,
            &amounts.counts,
            &amounts.adjusts,
            channel,
            &amounts.total,
            &self.nonce,
            &self.receipt,
        ];
        let add = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        for text in texts.into_iter().chain(budgets.iter().map(String::as_str)) {
            add(&mut bytes, text);
        }
        let confirmation = self.confirmation.map(OnChainUse::name).unwrap_or_default();
        // Rows of older versions have neither, and keep their codes.
        if !confirmation.is_empty() || !self.offer.is_empty() {
            bytes.extend_from_slice(&NO_LENGTH.to_le_bytes());
            add(&mut bytes, confirmation);
            add(&mut bytes, &self.offer);
        }
        bytes
    }
}
