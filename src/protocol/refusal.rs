//! Why a request is not paid, in one line each: what happened and, where there is something, what to do.

use std::time::Duration;

use crate::protocol::policy::{Browsers, Complaint, Mark};
use crate::protocol::schemes::Malformed;
use crate::protocol::{Address, Amount, AssetId, ChannelId, ChannelOp};

/// Why a request is not paid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No rule matches.
    #[error("no [[pay]] rule matches {host}")]
    NoRule {
        /// Who asked for money.
        host: String,
    },
    /// The first rule that matches forbids it.
    #[error("a [[pay]] rule denies {host}")]
    Denied {
        /// Who asked for money.
        host: String,
    },
    /// A page of another site made a browser send this request.
    #[error("a page of another site made the request ({mark})")]
    AnotherSite {
        /// The field that tells, and what it says if that is all it ever says.
        mark: &'static str,
    },
    /// A browser loads a page that its user may never open.
    #[error("the request is a prefetch ({mark}): its user may never see the answer")]
    Prefetch {
        /// The field that tells.
        mark: &'static str,
    },
    /// A browser asks whether a page may send a request.
    #[error("the request is a CORS preflight (Access-Control-Request-Method)")]
    Preflight,
    /// The rule does not pay for this request of a browser.
    #[error("a browser sent the request, and its [[pay]] entry {} browsers = \"{}\"{}", said(*written), browsers.name(), remedy(*is_plain))]
    Browser {
        /// What the rule says.
        browsers: Browsers,
        /// False where the rule says nothing and this is the default.
        written: bool,
        /// The request goes over plain http.
        is_plain: bool,
    },
    /// The 402 is in no scheme that is known here.
    #[error("the 402 is in no payment scheme that tollpass knows")]
    UnknownScheme,
    /// The 402 cannot be understood.
    #[error("the 402 is malformed: {0}")]
    Malformed(Malformed),
    /// The 402's own body is larger than can be held back.
    #[error("the 402's own body is larger than limits.max_402_body ({limit} bytes)")]
    OfferTooLarge {
        /// The limit.
        limit: u64,
    },
    /// The 402's own body takes longer than it can be held back.
    #[error("timed out reading the body of the 402 (limits.offer_timeout)")]
    OfferTooSlow,
    /// The 402's own body broke off.
    #[error("the 402's own body broke off")]
    OfferBroken,
    /// The request cannot be sent again.
    #[error("the request cannot be sent again: {0}")]
    NotReplayable(String),
    /// There is no wallet.
    #[error("no wallet and chain are configured")]
    NoWallet,
    /// The key is not unlocked or the chain not synced yet.
    #[error("not ready to pay: {0}")]
    NotReady(String),
    /// Too many requests wait for a payment.
    #[error("too many requests wait for a payment (limits.max_pending)")]
    Busy,
    /// The price is 0.
    #[error("the seller asks for a price of 0")]
    PriceZero,
    /// The price is above what the rule allows.
    #[error("the price {price} is above max_price {max_price}")]
    TooExpensive {
        /// What the seller asks for.
        price: Amount,
        /// What the rule allows.
        max_price: Amount,
    },
    /// The rule permits another asset.
    #[error("the seller asks for {}, the rule permits {}", assets.0, assets.1)]
    ForeignAsset {
        /// The seller's and the rule's; boxed, as refusals travel with every payment.
        assets: Box<(AssetId, AssetId)>,
    },
    /// The rule names other receivers.
    #[error("the receiver {0} is not among the rule's receivers")]
    ForeignReceiver(Address),
    /// The seller wants a channel of another contract.
    #[error("the seller uses the channel contract {theirs}, chain.channel_manager is {ours}")]
    ForeignContract {
        /// The seller's.
        theirs: Address,
        /// Ours.
        ours: Address,
    },
    /// The seller wants another token than the contract holds.
    #[error("the seller wants the token {theirs}, the channel contract holds {ours}")]
    ForeignToken {
        /// The seller's.
        theirs: Address,
        /// Ours.
        ours: Address,
    },
    /// The seller changed who is paid after it was shown a payment.
    #[error("the seller changed the receiver to {0} after it was shown a payment")]
    ReceiverChanged(Address),
    /// The seller answers with the state of somebody else's channel.
    #[error("the seller answered with the state of another sender's channel")]
    ForeignState,
    /// The seller claims a total that we did not sign.
    #[error("the seller claims to hold {claimed}, but has no signature of ours for it")]
    UnprovenTotal {
        /// What it claims.
        claimed: Amount,
    },
    /// The seller does not say why it asks again.
    #[error("the seller was shown a payment and asks again without saying why")]
    NotAccepted,
    /// The seller's correction leads to the payment that it just refused.
    #[error("the seller refuses the payment that follows from its own total")]
    NoProgress,
    /// The seller presents the payment just made as an old one, or denies the channel that was settled with it.
    #[error(
        "paid, answer lost: the seller registered {total} and then asked for the same payment again (if another program or \
         state directory pays with the same key, that one was paid for: give each a key of its own)"
    )]
    PaidAnswerLost {
        /// The registered total.
        total: Amount,
    },
    /// The same request was paid for before, and its answer could not be read.
    #[error(
        "this request was paid for before, and its answer could not be read (see limits.head_bytes): it would be lost \
         again; it is paid for again after a restart"
    )]
    AnswerUnreadable,
    /// Another payment for this request would go beyond one allowed price.
    #[error("paying again for the same request would exceed its price of {price}")]
    SecondPrice {
        /// The price of one request.
        price: Amount,
    },
    /// The seller was shown payments often enough.
    #[error("gave up after {rounds} payments presented (limits.max_attempts)")]
    Rounds {
        /// How often.
        rounds: u32,
    },
    /// A hook says to abort.
    #[error("{complaint}: hooks.{} aborts", complaint.hook())]
    HookAborts {
        /// What the seller complains about.
        complaint: Complaint,
    },
    /// A hook's patience is at its end.
    #[error("{complaint}: gave up after {attempts} attempts (hooks.{})", complaint.hook())]
    HookGaveUp {
        /// What the seller complains about.
        complaint: Complaint,
        /// How often the payment was presented again.
        attempts: u32,
    },
    /// The seller denies a channel that the chain knows, so that what was signed on it can still be redeemed.
    #[error(
        "the seller does not know the channel {channel}, but the chain does, so that no other one is opened: gave up \
         after {attempts} attempts (hooks.nonexisting_channel)"
    )]
    ChannelExists {
        /// The channel.
        channel: ChannelId,
        /// How often the payment was presented again.
        attempts: u32,
    },
    /// The hook on a demand for money says to abort.
    #[error("hooks.payment_requested aborts")]
    NotWanted,
    /// The hook requires approval, but no approver is configured.
    #[error("hooks.{hook} asks, but no webhook is configured: set one")]
    NoApprover {
        /// The key below `[hooks]`.
        hook: &'static str,
    },
    /// The approver refused, or its answer is invalid.
    #[error("hooks.{hook}: {reason}")]
    ApproverRefused {
        /// The key below `[hooks]`.
        hook: &'static str,
        /// The approver's reason, or why its answer is invalid.
        reason: String,
    },
    /// A hook does not let the origin's answer through.
    #[error("the origin answered {status}{}: hooks.{hook} aborts", field(mark))]
    AnswerAborts {
        /// The key below `[hooks]`.
        hook: &'static str,
        /// The answer's status.
        status: u16,
        /// What it was known by.
        mark: Mark,
    },
    /// The time for one client request is over.
    #[error("not paid within limits.pay_timeout: {waited_for}")]
    Deadline {
        /// What it was waiting for.
        waited_for: Awaited,
    },
    /// The price does not fit into a channel.
    #[error("the price {price} does not fit into deposit.max_per_channel {cap}")]
    DepositCap {
        /// What the seller asks for.
        price: Amount,
        /// The largest deposit.
        cap: Amount,
    },
    /// A channel could not be opened or topped up.
    #[error("could not {}: {reason}{}", verb(op), when(*remembered))]
    FundFailed {
        /// What was tried; boxed, as it is the largest part of any refusal.
        op: Box<ChannelOp>,
        /// Why it failed.
        reason: String,
        /// Set when nothing was tried for this request, because another one failed shortly before.
        remembered: Option<Remembered>,
    },
    /// A channel was opened or topped up for this request already, and still none can pay for it.
    #[error(
        "one transaction was made for this request, and no channel can pay for it yet: see `tollpass channels`"
    )]
    FundedOnce,
    /// Money was sent into channels too often.
    #[error(
        "money was put into channels to {receiver} for this host {max} times within {}: raise deposit.top_up, or \
         deposit.max_count if that is right",
        humantime::format_duration(*within)
    )]
    TooManyDeposits {
        /// Who is paid by the channels.
        receiver: Address,
        /// How often it may happen.
        max: u32,
        /// Within which time.
        within: Duration,
    },
    /// Money was sent into a channel, and the chain does not show it.
    #[error(
        "{sent} was put into the channel {channel}, but the chain shows {shown}: no more is sent until it does. Check the \
         node; if the money came back, `tollpass channels sync` says so"
    )]
    DepositUnseen {
        /// The channel.
        channel: ChannelId,
        /// All that was sent.
        sent: Amount,
        /// What the chain shows.
        shown: Amount,
    },
    /// The journal could not be written, so nothing may be signed.
    #[error("the journal cannot be written, so nothing is signed: {0}")]
    StoreFailed(String),
    /// The client left before it was paid.
    #[error("the client left before the request was paid")]
    ClientLeft,
    /// The proxy is shutting down.
    #[error("tollpass is shutting down")]
    ShuttingDown,
}

/// A failure that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// How long ago it was tried.
    pub ago: Duration,
    /// After how long it is tried again.
    pub next: Duration,
}

/// What a request was waiting for when its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Awaited {
    /// A channel that another request is using.
    #[error("the channel was in use by other requests")]
    Channel,
    /// A transaction.
    #[error("the transaction that opens or tops up a channel is not confirmed yet")]
    Funding,
    /// The seller.
    #[error("the seller did not accept the payment in time")]
    Seller,
    /// The record that must be on disk before the payment is signed.
    #[error("the record of the payment was not on disk in time")]
    Journal,
    /// The key or the chain.
    #[error("the key is not unlocked or the chain not synced yet")]
    Start,
    /// The client's request itself.
    #[error("most of that time went into the request's own body")]
    Upload,
}

impl Refusal {
    /// True when another offer of the seller might be accepted: the trouble is with what it asks for.
    pub fn is_about_terms(&self) -> bool {
        matches!(
            self,
            Self::PriceZero
                | Self::TooExpensive { .. }
                | Self::ForeignReceiver(_)
                | Self::ForeignAsset { .. }
                | Self::ForeignContract { .. }
                | Self::ForeignToken { .. }
                | Self::DepositCap { .. }
        )
    }
}

impl Refusal {
    /// True when no money is put into a channel now, though a channel that comes back may still pay.
    pub fn is_about_funding(&self) -> bool {
        matches!(
            self,
            Self::FundFailed { .. }
                | Self::FundedOnce
                | Self::TooManyDeposits { .. }
                | Self::DepositUnseen { .. }
        )
    }
}

fn said(written: bool) -> &'static str {
    if written { "says" } else { "says nothing, which means" }
}

fn remedy(is_plain: bool) -> &'static str {
    if is_plain { "; over plain http only \"any\" pays, as browsers mark no requests there" } else { "" }
}

fn field(mark: &Mark) -> String {
    match mark {
        Mark::Status => String::new(),
        Mark::Field(name) => format!(" with the field {name}"),
    }
}

fn when(remembered: Option<Remembered>) -> String {
    let seconds = |time: Duration| time.as_secs_f64().ceil();
    remembered.map_or(String::new(), |Remembered { ago, next }| {
        format!(" (tried {:.0} s ago, next attempt in {:.0} s)", seconds(ago), seconds(next))
    })
}

fn verb(op: &ChannelOp) -> String {
    match op {
        ChannelOp::Open { receiver, deposit } => format!("open a channel of {deposit} to {receiver}"),
        ChannelOp::TopUp { channel, added } => format!("top up the channel {channel} by {added}"),
        ChannelOp::CloseTogether { channel, total, .. } | ChannelOp::CloseAlone { channel, total } => {
            format!("close the channel {channel} on {total}")
        }
        ChannelOp::Settle { channel } => format!("settle the channel {channel}"),
    }
}
