//! Hooks: what to do at each step of a purchase, and whom to ask first. Values only: the engine and the payment layer
//! apply them.

use std::fmt;
use std::time::Duration;

use http::Uri;

use super::complaint::Complaint;
use super::marks::Marks;
use super::price_limit::PriceLimit;

/// `[hooks]`, with the overrides of a `[[pay]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Before a request that a rule pays, whether or not it gets a 402.
    pub init: Hook<Init>,
    /// A seller asks for a price that the rule allows.
    pub payment_requested: Hook<Requested>,
    /// An approver is asked only about prices above this, also if `payment_requested` pays.
    pub ask_above: Option<PriceLimit>,
    /// The channel or its top-up does not have enough confirmations for the seller.
    pub insufficient_confirmations: Hook<Retry>,
    /// The seller does not know the channel.
    pub nonexisting_channel: Hook<Missing>,
    /// The seller recovers another address than ours from the signature.
    pub invalid_balance_proof: Hook<Retry>,
    /// The seller's total differs from ours.
    pub invalid_amount: Hook<Adopt>,
    /// The seller uses another channel contract than ours. This can only abort, since no other contract holds our
    /// money.
    pub invalid_contract_address: Abort,
    /// A response with a status of 400 or above, except 402.
    pub http_error: Hook<OnError>,
    /// Any response.
    pub http_response: Hook<OnResponse>,
    /// A request was paid.
    pub success: Hook<Success>,
    /// A request for which `init` ran has ended.
    pub exit: Hook<Exit>,
    /// The seller does not sign the close of a channel.
    pub cooperative_close_denied: Hook<CloseDenied>,
}

/// What to do, and which webhook to ask first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook<T> {
    /// The action.
    pub action: T,
    /// The webhook that is asked first, and may stop the purchase.
    pub webhook: Option<Webhook>,
}

/// A webhook. Its path and query may contain a secret, so only its origin is displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// An absolute `http` URL.
    pub url: Uri,
    /// The timeout for its whole response.
    pub within: Duration,
}

/// What to do before a request that a rule pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Send it.
    Pass,
    /// Send it if the approver approves.
    Ask,
}

/// What to do when a request that a rule pays has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Zero.
    Pass,
    /// Notify the webhook, without waiting for a response.
    Tell,
}

/// What to do when a seller asks for payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// Pay.
    Pay,
    /// Pay if the approver approves.
    Ask,
    /// Return the seller's 402 to the client.
    Abort,
}

/// Whether to present the same payment again after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Return the seller's 402 to the client.
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

/// What to do if the seller does not know the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Return the seller's 402 to the client.
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
    /// If the chain does not have the channel either, pay from another one, once per client request; otherwise present
    /// the same payment again. What the channel was settled at stays paid.
    Reopen {
        /// The pause before each attempt.
        every: Duration,
        /// The largest number of attempts.
        times: u32,
        /// The longest time from the first such complaint.
        within: Duration,
    },
}

/// Whether to continue from the seller's total if that is harmless or proven by our own signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// Return the seller's 402 to the client.
    Abort,
    /// Continue from the seller's total.
    Adopt {
        /// The largest number of times within one client request.
        times: u32,
    },
}

/// Abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort;

/// What to do with a response of 400 or above, except 402.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Return it to the client.
    Pass,
    /// Return it to the client if the approver approves.
    Ask,
    /// Return an error of the proxy instead.
    Abort,
}

/// What to do with any response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnResponse {
    /// Zero.
    Pass,
    /// Ask about each one, and stop unless the approver approves.
    AskAlways,
    /// Ask about those that match, and stop unless the approver approves.
    Ask(Marks),
    /// Stop at those that match.
    Abort(Marks),
}

/// What to do when a request was paid, besides logging it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// Zero.
    Log,
    /// Notify the webhook, without waiting for a response.
    Tell,
}

/// What to do if the seller does not sign the close of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseDenied {
    /// Leave the channel open, and continue with others.
    Keep,
    /// Close it unilaterally, at the highest promised total; if a webhook is set, only with its approval.
    CloseAlone,
    /// Leave it and all further channels of the seller open; at exit this is an error.
    Abort,
}

impl Retry {
    /// For complaints that end once the seller's node has seen more blocks.
    pub const DEFAULT: Self =
        Self::Retry { every: Duration::from_secs(5), times: 60, within: Duration::from_secs(300) };
    /// For complaints that a retry seldom resolves.
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
            ask_above: None,
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
    /// The retries for a transient complaint; `None` for an invalid amount, which is not transient.
    pub fn retry(&self, complaint: Complaint) -> Option<Retry> {
        match complaint {
            Complaint::InsufficientConfirmations => Some(self.insufficient_confirmations.action),
            Complaint::InvalidAmount => None,
            Complaint::InvalidBalanceProof => Some(self.invalid_balance_proof.action),
            Complaint::NonexistingChannel => Some(self.nonexisting_channel.action.into()),
        }
    }

    /// Whether an approver may be asked about a price.
    pub fn may_ask_price(&self) -> bool {
        self.payment_requested.action == Requested::Ask || self.ask_above.is_some()
    }

    /// Whether a channel that neither the seller nor the chain knows is replaced by another one.
    pub fn reopens(&self) -> bool {
        matches!(self.nonexisting_channel.action, Missing::Reopen { .. })
    }

    /// The webhook to ask before handling a complaint.
    pub fn webhook(&self, complaint: Complaint) -> Option<&Webhook> {
        match complaint {
            Complaint::InsufficientConfirmations => self.insufficient_confirmations.webhook.as_ref(),
            Complaint::InvalidAmount => self.invalid_amount.webhook.as_ref(),
            Complaint::InvalidBalanceProof => self.invalid_balance_proof.webhook.as_ref(),
            Complaint::NonexistingChannel => self.nonexisting_channel.webhook.as_ref(),
        }
    }

    /// Whether a complaint ends the purchase at once, so that there is nothing to ask.
    pub fn aborts(&self, complaint: Complaint) -> bool {
        match self.retry(complaint) {
            Some(retry) => retry == Retry::Abort,
            None => self.invalid_amount.action == Adopt::Abort,
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
    fn a_webhook_shows_its_origin_only() {
        let url = Uri::from_static("http://127.0.0.1:9/hush?token=hush");
        let webhook = Webhook { url, within: Duration::from_secs(2) };
        assert_eq!(
            format!("{webhook} {webhook:?}"),
            "http://127.0.0.1:9 Webhook(http://127.0.0.1:9, within 2s)"
        );
    }
}
