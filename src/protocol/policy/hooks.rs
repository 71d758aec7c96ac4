//! Hooks: what to do at each turn of a purchase, and whom to ask about it first. Values only: carrying them out is the
//! business of the book and of the payment layer.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, Uri};

/// `[hooks]`, or what one `[[pay]]` entry makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// A request begins for which a rule pays, whether or not it meets a 402.
    pub init: Hook<Init>,
    /// A price that the rule allows is asked for.
    pub payment_requested: Hook<Requested>,
    /// The channel is mined, but not deep enough for the seller (or a top up is).
    pub insufficient_confirmations: Hook<Retry>,
    /// The seller knows no such channel.
    pub nonexisting_channel: Hook<Missing>,
    /// The seller does not recover our address from the signature.
    pub invalid_balance_proof: Hook<Retry>,
    /// The seller holds another total than we believe.
    pub invalid_amount: Hook<Adopt>,
    /// The seller asks for a channel of another contract than ours. It can only abort: no other contract
    /// holds our money.
    pub invalid_contract_address: Abort,
    /// An answer of 400 or above, but 402.
    pub http_error: Hook<OnError>,
    /// Any answer.
    pub http_response: Hook<OnResponse>,
    /// A request was paid.
    pub success: Hook<Success>,
    /// A request ends for which `init` was called.
    pub exit: Hook<Exit>,
    /// The seller does not sign that a channel be closed.
    pub cooperative_close_denied: Hook<CloseDenied>,
}

/// What a seller can find wrong with a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Complaint {
    /// The channel is mined, but not deep enough for the seller.
    InsufficientConfirmations,
    /// The total is not the last one plus the price.
    InvalidAmount,
    /// The signature does not recover to the sender.
    InvalidBalanceProof,
    /// The seller knows no such channel.
    NonexistingChannel,
}

/// What to do, and whom to ask first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook<T> {
    /// What to do.
    pub action: T,
    /// Who is asked about it first, and may stop it.
    pub webhook: Option<Webhook>,
}

/// A program that is asked over HTTP. Its path and query may hold a secret, so that only its origin is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// An absolute `http` URL.
    pub url: Uri,
    /// How long the whole answer may take.
    pub within: Duration,
}

/// What to do before a request is sent for which a rule pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Send it.
    Pass,
    /// Send it when the one who is asked says so.
    Ask,
}

/// What to do when a request has ended for which a rule pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing.
    Pass,
    /// Tell of it, without waiting for an answer.
    Tell,
}

/// What to do when a seller asks for money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// Pay.
    Pay,
    /// Pay when the one who is asked says so.
    Ask,
    /// Give the seller's 402 to the client.
    Abort,
}

/// Wait and present the same payment again, or give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Give the seller's 402 to the client.
    Abort,
    /// Present the same payment again.
    Retry {
        /// The pause before each attempt.
        every: Duration,
        /// The largest number of attempts.
        times: u32,
        /// The longest time from the first such complaint.
        within: Duration,
    },
}

/// What to do when the seller knows no such channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Give the seller's 402 to the client.
    Abort,
    /// Present the same payment again.
    Retry {
        /// The pause before each attempt.
        every: Duration,
        /// The largest number of attempts.
        times: u32,
        /// The longest time from the first such complaint.
        within: Duration,
    },
    /// Where the chain does not know the channel either, pay from another one, once within one client request; as
    /// long as the chain knows it, present the same payment again. What the channel was settled on stays paid.
    Reopen {
        /// The pause before each attempt.
        every: Duration,
        /// The largest number of attempts.
        times: u32,
        /// The longest time from the first such complaint.
        within: Duration,
    },
}

/// Take over the seller's total where it is harmless or proven by our own signature, or give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// Give the seller's 402 to the client.
    Abort,
    /// Go on from the seller's total.
    Adopt {
        /// The largest number of times within one client request.
        times: u32,
    },
}

/// Give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort;

/// What to do with an answer of 400 or above, but 402.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Give it to the client.
    Pass,
    /// Give it to the client unless the one who is asked says no.
    Ask,
    /// Tell the client of it by an answer of our own.
    Abort,
}

/// What to do with any answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnResponse {
    /// Nothing.
    Pass,
    /// Ask about each one, and stop if the one who is asked says no.
    AskAlways,
    /// Ask about those with such marks, and stop if the one who is asked says no.
    Ask(Marks),
    /// Stop at those with such marks.
    Abort(Marks),
}

/// What answers are known by: any one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Statuses.
    pub status: Vec<StatusCode>,
    /// Fields, whatever they hold.
    pub header: Vec<HeaderName>,
}

/// What an answer was known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Its status.
    Status,
    /// This field.
    Field(HeaderName),
}

/// What to do when a request was paid, besides the line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// Nothing.
    Log,
    /// Tell of it, without waiting for an answer.
    Tell,
}

/// What to do when the seller does not sign that a channel be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseDenied {
    /// Leave the channel open, and go on with others.
    Keep,
    /// Close it without the seller, on the highest total that was promised; where somebody is to be asked first, if
    /// they say so.
    CloseAlone,
    /// Leave it and all further channels of the seller open; at the end of the program that is an error.
    Abort,
}

impl Retry {
    /// For complaints that pass once the seller's node has seen more blocks.
    pub const DEFAULT: Self =
        Self::Retry { every: Duration::from_secs(5), times: 60, within: Duration::from_secs(300) };
    /// For complaints that another attempt seldom changes.
    pub const SHORT: Self =
        Self::Retry { every: Duration::from_secs(5), times: 2, within: Duration::from_secs(30) };
}

impl Missing {
    /// As [`Retry::DEFAULT`].
    pub const DEFAULT: Self =
        Self::Retry { every: Duration::from_secs(5), times: 60, within: Duration::from_secs(300) };
}

impl Adopt {
    /// What applies if nothing is configured.
    pub const DEFAULT: Self = Self::Adopt { times: 3 };
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            init: Init::Pass.into(),
            payment_requested: Requested::Pay.into(),
            insufficient_confirmations: Retry::DEFAULT.into(),
            nonexisting_channel: Missing::DEFAULT.into(),
            invalid_balance_proof: Retry::SHORT.into(),
            invalid_amount: Adopt::DEFAULT.into(),
            invalid_contract_address: Abort,
            http_error: OnError::Pass.into(),
            http_response: OnResponse::Pass.into(),
            success: Success::Log.into(),
            exit: Exit::Pass.into(),
            cooperative_close_denied: CloseDenied::Keep.into(),
        }
    }
}

impl Hooks {
    /// The patience with a complaint that passes by itself; `None` for an invalid amount, which does not.
    pub fn retry(&self, complaint: Complaint) -> Option<Retry> {
        match complaint {
            Complaint::InsufficientConfirmations => Some(self.insufficient_confirmations.action),
            Complaint::InvalidAmount => None,
            Complaint::InvalidBalanceProof => Some(self.invalid_balance_proof.action),
            Complaint::NonexistingChannel => Some(self.nonexisting_channel.action.into()),
        }
    }

    /// True when a channel that neither the seller nor the chain knows is replaced by another one.
    pub fn reopens(&self) -> bool {
        matches!(self.nonexisting_channel.action, Missing::Reopen { .. })
    }

    /// Who is asked before anything is done about a complaint.
    pub fn webhook(&self, complaint: Complaint) -> Option<&Webhook> {
        match complaint {
            Complaint::InsufficientConfirmations => self.insufficient_confirmations.webhook.as_ref(),
            Complaint::InvalidAmount => self.invalid_amount.webhook.as_ref(),
            Complaint::InvalidBalanceProof => self.invalid_balance_proof.webhook.as_ref(),
            Complaint::NonexistingChannel => self.nonexisting_channel.webhook.as_ref(),
        }
    }

    /// True when a complaint ends the purchase at once, so that there is nothing to ask about.
    pub fn aborts(&self, complaint: Complaint) -> bool {
        match self.retry(complaint) {
            Some(retry) => retry == Retry::Abort,
            None => self.invalid_amount.action == Adopt::Abort,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InsufficientConfirmations => "the seller waits for more confirmations of the channel",
            Self::InvalidAmount => "the seller holds another total",
            Self::InvalidBalanceProof => "the seller does not accept the signature",
            Self::NonexistingChannel => "the seller does not know the channel",
        })
    }
}

impl Complaint {
    /// The key below `[hooks]` that decides about it.
    pub fn hook(self) -> &'static str {
        match self {
            Self::InsufficientConfirmations => "insufficient_confirmations",
            Self::InvalidAmount => "invalid_amount",
            Self::InvalidBalanceProof => "invalid_balance_proof",
            Self::NonexistingChannel => "nonexisting_channel",
        }
    }
}

impl<T> From<T> for Hook<T> {
    fn from(action: T) -> Self {
        Self { action, webhook: None }
    }
}

impl From<Missing> for Retry {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Abort => Self::Abort,
            Missing::Retry { every, times, within } | Missing::Reopen { every, times, within } => {
                Self::Retry { every, times, within }
            }
        }
    }
}

impl Marks {
    /// The first of these that an answer has.
    pub fn found(&self, status: StatusCode, fields: &HeaderMap) -> Option<Mark> {
        if self.status.contains(&status) {
            return Some(Mark::Status);
        }
        self.header.iter().find(|name| fields.contains_key(*name)).cloned().map(Mark::Field)
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host().unwrap_or_default();
        match self.url.port() {
            Some(port) => write!(f, "http://{host}:{port}"),
            None => write!(f, "http://{host}"),
        }
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({self}, within {:?})", self.within)
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::policy::hooks::*;

    #[test]
    fn marks_are_any_one_of_them() {
        let marks = Marks {
            status: vec![StatusCode::GONE, StatusCode::OK],
            header: vec![HeaderName::from_static("x-old"), HeaderName::from_static("rdn-cost")],
        };
        let mut fields = HeaderMap::new();
        assert_eq!(marks.found(StatusCode::NOT_FOUND, &fields), None);
        assert_eq!(marks.found(StatusCode::GONE, &fields), Some(Mark::Status));
        fields.insert("rdn-cost", http::HeaderValue::from_static("3"));
        assert_eq!(
            marks.found(StatusCode::NOT_FOUND, &fields),
            Some(Mark::Field(HeaderName::from_static("rdn-cost")))
        );
        assert_eq!(Marks::default().found(StatusCode::OK, &fields), None);
    }

    #[test]
    fn a_webhook_shows_its_origin_only() {
        let url = Uri::from_static("http://127.0.0.1:9/hush?token=hush");
        let webhook = Webhook { url, within: Duration::from_secs(2) };
        assert_eq!(
            format!("{webhook} {webhook:?}"),
            "http://127.0.0.1:9 Webhook(http://127.0.0.1:9, within 2s)"
        );
    }
}
