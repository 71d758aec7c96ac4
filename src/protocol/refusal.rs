//! Why a request is not paid: one line each, with the cause and, if possible, the remedy.

mod told;

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::budget::OverBudget;
use crate::protocol::policy::{Browsers, Complaint, DepositLimit, Mark};
use crate::protocol::safe_text::in_a_row;
use crate::protocol::schemes::{Malformed, SchemeName};
use crate::protocol::{Address, Amount, AssetId, ChannelId, ChannelOp};

/// Why a request is not paid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No rule matches.
    #[error("no [[pay]] rule matches {host}")]
    NoRule {
        /// The host that asks for payment.
        host: String,
    },
    /// None of the client's own rules matches.
    #[error(
        "no [[client.pay]] rule of the client {client} matches {host}; the [[pay]] rules do not apply to it"
    )]
    NoClientRule {
        /// The client.
        client: String,
        /// The host that asks for payment.
        host: String,
    },
    /// The client was removed, or has another token, since the request or its connection began.
    #[error(
        "the [[client]] {client} of this request or connection was removed since, or has another token: connect again with one \
         that is still valid"
    )]
    ClientRemoved {
        /// The client.
        client: String,
    },
    /// The first matching rule denies it.
    #[error("a [[pay]] rule denies {host}")]
    Denied {
        /// The host that asks for payment.
        host: String,
    },
    /// A page of another site made a browser send this request.
    #[error("a page of another site made the request ({mark})")]
    AnotherSite {
        /// The header that shows it, with its value if that is constant.
        mark: &'static str,
    },
    /// A browser prefetches a page that its user may never open.
    #[error("the request is a prefetch ({mark}): its user may never see the response")]
    Prefetch {
        /// The header that shows it.
        mark: &'static str,
    },
    /// A browser sends a CORS preflight.
    #[error("the request is a CORS preflight (Access-Control-Request-Method)")]
    Preflight,
    /// The applicable setting does not pay this request of a browser.
    #[error("a browser sent the request, and its [[pay]] entry {} browsers = \"{}\"{}", origin_of_setting(*written), browsers.name(), remedy(*is_plain))]
    Browser {
        /// The applicable setting.
        browsers: Browsers,
        /// False if the setting is the default rather than the rule's.
        written: bool,
        /// Whether the request goes over plain http.
        is_plain: bool,
    },
    /// A program of another user sent the request, without a token.
    #[error(
        "the program that made the request belongs to the user {owner}, and without a token only those of the user {own} \
         may spend: give it the token of a [[client]], or set local = \"any\""
    )]
    OtherUser {
        /// The user ID of its owner.
        owner: u32,
        /// The user ID of the owner of this process.
        own: u32,
    },
    /// It is not known which user's program sent the request, and it has no token.
    #[error(
        "cannot find out which user's program made the request ({reason}), and only those of the user {own} may spend \
         without a token: give it the token of a [[client]], or set local = \"any\""
    )]
    UnknownUser {
        /// The user ID of the owner of this process.
        own: u32,
        /// Why the owner is not known.
        reason: Box<str>,
    },
    /// The payment would go unencrypted to another machine.
    #[error(
        "the seller is on another machine{}, and plain http does not encrypt the payment: set allow_plain_http = true in \
         its [[pay]] entry to pay anyway", at(*peer)
    )]
    PlainHttp {
        /// The seller's address; unknown behind an outbound proxy.
        peer: Option<IpAddr>,
    },
    /// The 402 uses no supported scheme.
    #[error("the 402 uses no payment scheme that tollpass supports")]
    UnknownScheme,
    /// The body of the 402 is compressed, and its headers have no offer.
    #[error("the body of the 402 has the content coding {coding}, and offers in it cannot be read")]
    Compressed {
        /// The coding as the seller names it.
        coding: Box<str>,
    },
    /// The 402 is malformed.
    #[error("the 402 is malformed: {0}")]
    Malformed(Malformed),
    /// The body of the 402 is too large to buffer.
    #[error("the body of the 402 is larger than limits.max_402_body ({limit} bytes)")]
    OfferTooLarge {
        /// The limit.
        limit: u64,
    },
    /// The body of the 402 takes too long.
    #[error("timed out reading the body of the 402 (limits.offer_timeout)")]
    OfferTooSlow,
    /// The body of the 402 ended early.
    #[error("the body of the 402 ended early")]
    OfferBroken,
    /// The request cannot be sent again.
    #[error("the request cannot be sent again: {0}")]
    NotReplayable(String),
    /// The request authenticates its connection, but a payment would use another one.
    #[error(
        "the request cannot be sent again: it authenticates its connection (NTLM or Negotiate), and a payment would use \
         another one"
    )]
    BoundConnection,
    /// The request asks for a protocol other than HTTP.
    #[error("the request cannot be sent again: it requests another protocol (Upgrade)")]
    OtherProtocol,
    /// There is no wallet.
    #[error("no [wallet] is configured")]
    NoWallet,
    /// The offer is paid from a channel, and there is no chain that could hold one.
    #[error("the seller is paid from a channel, and no [chain] is configured")]
    NoChain,
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
        /// The seller's price.
        price: Box<str>,
        /// The rule's limit.
        max_price: Box<str>,
    },
    /// The rule does not allow the asset.
    #[error(
        "the seller asks for {asset}, which the rule's max_price ({max_price}) does not allow: see [[asset]] for tokens \
         that tollpass does not know"
    )]
    ForeignAsset {
        /// The seller's; boxed, as refusals travel with every payment.
        asset: Box<AssetId>,
        /// The rule's limit.
        max_price: Box<str>,
    },
    /// A budget does not allow it; boxed because of its size.
    #[error("{0}")]
    OverBudget(Box<OverBudget>),
    /// The rule lists other receivers.
    #[error("the receiver {0} is not among the rule's receivers")]
    ForeignReceiver(Address),
    /// The seller uses another channel contract.
    #[error("the seller uses the channel contract {theirs}, chain.channel_manager is {ours}")]
    ForeignContract {
        /// The seller's.
        theirs: Address,
        /// Ours.
        ours: Address,
    },
    /// The seller wants another token than the contract's.
    #[error("the seller wants the token {theirs}, the channel contract holds {ours}")]
    ForeignToken {
        /// The seller's.
        theirs: Address,
        /// Ours.
        ours: Address,
    },
    /// The seller changed the payee after a payment was presented.
    #[error("the seller changed the receiver to {0} after a payment was presented")]
    ReceiverChanged(Address),
    /// The seller changed the channel contract after a payment was presented.
    #[error("the seller changed the channel contract to {0} after a payment was presented")]
    ContractChanged(Address),
    /// The seller sent the state of another payer's channel.
    #[error("the seller sent the state of another sender's channel")]
    ForeignState,
    /// The seller claims a total without our signature.
    #[error("the seller claims to hold {claimed}, but has no signature of ours for it")]
    UnprovenTotal {
        /// The claimed total.
        claimed: Amount,
    },
    /// The seller sends another 402 without a reason.
    #[error("the seller was presented a payment and asks again without giving a reason")]
    NotAccepted,
    /// The seller's correction leads to the payment that it just rejected.
    #[error("the seller rejects the payment that follows from its own total")]
    NoProgress,
    /// The seller claims that the payment just made is an old one, or denies the channel that was settled with it.
    #[error(
        "paid, answer lost: the seller registered {total} and then asked for the same payment again (if another program or \
         state directory pays with the same key, that one was paid for: give each a key of its own)"
    )]
    PaidAnswerLost {
        /// The registered total.
        total: Amount,
    },
    /// The seller took a payment that expires, and did not deliver.
    #[error(
        "paid, not delivered: the seller says that it has taken the payment for this request. The request is not paid for \
         again for the time being (limits.retry_window)"
    )]
    PaidNotDelivered {
        /// The time until it may be paid for again.
        retry_after: Duration,
    },
    /// A payment for the same purchase may have been taken.
    #[error(
        "an earlier payment for this request may have been taken, and its outcome is not known: the request is not paid for \
         again until that payment has expired and limits.retry_window has passed"
    )]
    OutcomeUnclear {
        /// The time until then.
        retry_after: Duration,
    },
    /// Presenting the same payment again did not tell what happened to it.
    #[error(
        "a payment was presented {attempts} times, and it is not clear whether the seller took it; the same request presents it \
         again as long as it is valid"
    )]
    StillUnclear {
        /// How often.
        attempts: u32,
    },
    /// The seller's facilitator refused a payment.
    #[error("the seller refuses the payment: {reason}")]
    SellerRefused {
        /// The seller's text, made safe to show.
        reason: Box<str>,
    },
    /// Permit2 may not move enough of the payer's tokens.
    #[error(
        "the seller says that Permit2 may not move the price: `{command}` lets it, or the same with a larger amount for later \
         payments; then the same request presents this payment again, as long as it is valid"
    )]
    NoAllowance {
        /// The command that gives the allowance.
        command: Box<str>,
    },
    /// The facilitator refused the time in a payment, and the seller's clock differs from ours.
    #[error(
        "the seller refuses the time in the payment, and its clock differs from this machine's by {seconds} s: correct this \
         machine's clock"
    )]
    ClockSkew {
        /// The difference, in seconds.
        seconds: u64,
    },
    /// The rule does not allow the scheme.
    #[error("the seller asks for a payment in the scheme {scheme}, which the rule's schemes do not allow")]
    SchemeNotAllowed {
        /// The scheme.
        scheme: SchemeName,
    },
    /// None of the offers of a known protocol can be paid.
    #[error("tollpass cannot pay any of the offers: {}", in_a_row(.offers))]
    UnsupportedOffers {
        /// The offers, and why; each is safe to show.
        offers: Vec<String>,
    },
    /// A payment in this token is signed with its EIP-712 name, which is not known.
    #[error("payments in {asset} need its eip712_name and eip712_version in an [[asset]] entry")]
    NoTokenDomain {
        /// The token.
        asset: Box<AssetId>,
    },
    /// The seller claims another name or version of the token than the known one, and would refuse a payment under that.
    #[error("the seller gives the token the {claimed}, but it is {known}: it would refuse the payment")]
    TokenNamedWrongly {
        /// Which of the two the seller claims, and as what, made safe to show.
        claimed: Box<str>,
        /// The known one.
        known: Box<str>,
    },
    /// Too many payments that expire are in use or unclear.
    #[error(
        "limits.open_authorizations payments are in use, or their outcome is unclear: wait until some have expired"
    )]
    TooManyOpen,
    /// The same request was paid before, and its response could not be parsed.
    #[error(
        "this request was paid for before, and its answer could not be read (see limits.head_bytes): it would be lost \
         again; it is paid for again after a restart"
    )]
    AnswerUnreadable,
    /// Another payment for this request would exceed one allowed price.
    #[error("paying again for the same request would exceed its price of {price}")]
    SecondPrice {
        /// The price of one request.
        price: Amount,
    },
    /// The limit on presented payments is reached.
    #[error("gave up after presenting {rounds} payments (limits.max_attempts)")]
    Rounds {
        /// The limit.
        rounds: u32,
    },
    /// A hook aborts.
    #[error("{complaint}: hooks.{} aborts", complaint.hook())]
    HookAborts {
        /// The seller's complaint.
        complaint: Complaint,
    },
    /// A hook's retries are used up.
    #[error("{complaint}: gave up after {attempts} attempts (hooks.{})", complaint.hook())]
    HookGaveUp {
        /// The seller's complaint.
        complaint: Complaint,
        /// How often the payment was presented again.
        attempts: u32,
    },
    /// The seller denies a channel that exists on the chain, so that what was signed on it can still be redeemed.
    #[error(
        "the seller does not know the channel {channel}, but the chain does, so tollpass opens no other one: gave up \
         after {attempts} attempts (hooks.nonexisting_channel)"
    )]
    ChannelExists {
        /// The channel.
        channel: ChannelId,
        /// How often the payment was presented again.
        attempts: u32,
    },
    /// The hook `payment_requested` aborts.
    #[error("hooks.payment_requested aborts")]
    NotWanted,
    /// The hook requires approval, but no approver is configured.
    #[error("hooks.{hook} asks, but no webhook is configured: set one")]
    NoApprover {
        /// The key below `[hooks]`.
        hook: &'static str,
    },
    /// The approver refused, or its reply is invalid.
    #[error("hooks.{hook}: {reason}")]
    ApproverRefused {
        /// The key below `[hooks]`.
        hook: &'static str,
        /// The approver's reason, or why its reply is invalid.
        reason: String,
    },
    /// A dry run would pay now.
    #[error("dry run: would pay {price}")]
    DryRun {
        /// The price.
        price: Box<str>,
    },
    /// The operator did not decide in time.
    #[error(
        "timed out: approval {id} was neither approved nor denied within {} (limits.approval_timeout); this is not a \
         denial, and sending the request again asks again",
        humantime::format_duration(*within)
    )]
    ApprovalTimedOut {
        /// The ID of the approval.
        id: u64,
        /// The limit.
        within: Duration,
    },
    /// The operator denied the payment.
    #[error("denied: the operator denied approval {id} (`tollpass deny`)")]
    ApprovalDenied {
        /// The ID of the approval.
        id: u64,
    },
    /// Too many requests wait for approval.
    #[error(
        "{limit} other requests wait for approval (limits.max_approvals): see `tollpass pending`, and try again"
    )]
    TooManyApprovals {
        /// The limit.
        limit: usize,
    },
    /// The seller changed its terms after a payment, and its rule asks before it pays them.
    #[error(
        "the seller changed its terms after a payment was presented, and the new ones need approval: send the request \
         again to be asked about them"
    )]
    TermsNeedApproval,
    /// A hook withholds the origin's response.
    #[error("the origin answered {status}{}: hooks.{hook} aborts", field(mark))]
    AnswerAborts {
        /// The key below `[hooks]`.
        hook: &'static str,
        /// The response's status.
        status: u16,
        /// What it matched by.
        mark: Mark,
    },
    /// The deadline of the client request has passed.
    #[error("not paid within limits.pay_timeout: {waited_for}")]
    Deadline {
        /// What it was waiting for.
        waited_for: Awaited,
    },
    /// The price exceeds the deposit limit.
    #[error("the price {price} does not fit into deposit.max_per_channel {cap}")]
    DepositCap {
        /// The seller's price.
        price: Amount,
        /// The limit.
        cap: Amount,
    },
    /// A deposit for the price would exceed what channels may hold together.
    #[error("no deposit for the price {price} is possible: {limit}")]
    DepositLimit {
        /// The seller's price.
        price: Amount,
        /// The limit; boxed because of its size.
        limit: Box<DepositLimit>,
    },
    /// A channel could not be opened or topped up.
    #[error("could not {}: {reason}{}", verb(op), when(*retry))]
    FundFailed {
        /// The operation; boxed because of its size.
        op: Box<ChannelOp>,
        /// Why it failed.
        reason: String,
        /// When the next attempt is.
        retry: FundingRetry,
    },
    /// A channel was already opened or topped up for this request, and still none can pay for it.
    #[error(
        "one transaction was made for this request, and no channel can pay for it yet: see `tollpass channels`"
    )]
    FundedOnce,
    /// The limit on the number of deposits is reached.
    #[error(
        "channels to {receiver} for this host received {max} deposits within {}: raise deposit.top_up, or \
         deposit.max_count if that is right",
        humantime::format_duration(*within)
    )]
    TooManyDeposits {
        /// The payee of the channels.
        receiver: Address,
        /// The limit.
        max: u32,
        /// Its time window.
        within: Duration,
        /// The time until the window has room for another deposit.
        free_in: Option<Duration>,
    },
    /// Funds were sent into a channel, but are not visible on the chain.
    #[error(
        "{sent} was put into the channel {channel}, but the chain shows {shown}: no more is sent until it does. Check the \
         node; if the money came back, `tollpass channels sync` says so"
    )]
    DepositUnseen {
        /// The channel.
        channel: ChannelId,
        /// The total sent.
        sent: Amount,
        /// The deposit on the chain.
        shown: Amount,
    },
    /// The host is paused.
    #[error("{host} is paused: it {reason}; `tollpass resume {host}` ends that")]
    Paused {
        /// The host, without a port.
        host: Box<str>,
        /// Why it is.
        reason: PauseReason,
    },
    /// The run of the program is over, or its time is.
    #[error("the `tollpass run` of the program pays nothing any more: {0}")]
    RunOver(RunOver),
    /// It is not known whether the program belongs to a run, or it uses the port of another one.
    #[error("cannot tell in the budget of which `tollpass run` the payment would count: {0}")]
    UnknownRun(Box<str>),
    /// The user wants nothing to be signed.
    #[error("tollpass is frozen and signs nothing; run `tollpass thaw`")]
    Frozen,
    /// The external signer refused.
    #[error("the signer refused to sign: {0}")]
    SignerRefused(Box<str>),
    /// The external signer could not be asked.
    #[error(
        "the signer cannot be asked, so nothing was signed: {0}; `tollpass check` asks whether it is there"
    )]
    SignerUnavailable(Box<str>),
    /// The external signer gave no usable answer.
    #[error(
        "the signer gave no clear answer, so this payment counts as signed: {0}; `tollpass status` shows what is held"
    )]
    SignerUnclear(Box<str>),
    /// The journal could not be written, so nothing may be signed.
    #[error("the journal cannot be written, so nothing is signed: {0}")]
    StoreFailed(String),
    /// The client disconnected before the payment.
    #[error("the client disconnected before the request was paid")]
    ClientLeft,
    /// The proxy is shutting down.
    #[error("tollpass is shutting down")]
    ShuttingDown,
}

/// Why a host is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PauseReason {
    /// It took several payments in a row without delivering.
    #[error("took several payments in a row without delivering (limits.undelivered_payments)")]
    Undelivered,
    /// It asked for much more than it was paid before.
    #[error("raised a price by more than limits.price_rise_percent")]
    PriceRise,
}

/// Why a run pays nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunOver {
    /// Its time is over.
    #[error("its time (--for {}) is over", humantime::format_duration(*.0))]
    Time(Duration),
    /// It has ended, or its command has ended it.
    #[error("it has ended")]
    Ended,
}

/// When to fund a channel again after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FundingRetry {
    /// How long ago it was attempted: 0 for this request, or longer for an earlier one, so that this one did not try.
    pub ago: Duration,
    /// The time until the next attempt.
    pub next: Duration,
}

/// What a request was waiting for at its deadline.
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
    /// What comes before a payment: the request's own body, or the approval of the payment.
    #[error(
        "most of that time passed before a payment was asked for, in the request's own body or an approval"
    )]
    Request,
}

impl Refusal {
    /// Whether another offer of the seller might be acceptable: the problem is in its terms.
    pub fn is_about_terms(&self) -> bool {
        matches!(
            self,
            Self::PriceZero
                | Self::TooExpensive { .. }
                | Self::ForeignReceiver(_)
                | Self::ForeignAsset { .. }
                | Self::SchemeNotAllowed { .. }
                | Self::ForeignContract { .. }
                | Self::ForeignToken { .. }
                | Self::DepositCap { .. }
        )
    }
}

impl Refusal {
    /// Whether a payment ends for this reason because the seller rejected it, or took it without delivering. False if the
    /// seller's terms are not acceptable, if it waits for the chain, and for all reasons on our side.
    pub fn is_failure_of_seller(&self) -> bool {
        match self {
            Self::HookAborts { complaint } | Self::HookGaveUp { complaint, .. } => {
                !matches!(complaint, Complaint::InsufficientConfirmations | Complaint::NonexistingChannel)
            }
            _ => matches!(
                self,
                Self::ReceiverChanged(_)
                    | Self::ContractChanged(_)
                    | Self::ForeignState
                    | Self::UnprovenTotal { .. }
                    | Self::NotAccepted
                    | Self::NoProgress
                    | Self::PaidAnswerLost { .. }
                    | Self::PaidNotDelivered { .. }
                    | Self::StillUnclear { .. }
                    | Self::SecondPrice { .. }
                    | Self::Rounds { .. }
                    | Self::Deadline { waited_for: Awaited::Seller }
            ),
        }
    }

    /// Whether nothing was signed for the refused offer, and another offer of the same 402 may be paid instead.
    pub fn leaves_other_offers(&self) -> bool {
        self.is_about_terms()
            || self.is_about_funding()
            || matches!(
                self,
                Self::OverBudget(_)
                    | Self::NoChain
                    | Self::NotReady(_)
                    | Self::NoTokenDomain { .. }
                    | Self::TokenNamedWrongly { .. }
            )
    }

    /// Whether funding is not possible now, although a channel that returns may still pay.
    pub fn is_about_funding(&self) -> bool {
        matches!(
            self,
            Self::FundFailed { .. }
                | Self::DepositLimit { .. }
                | Self::FundedOnce
                | Self::TooManyDeposits { .. }
                | Self::DepositUnseen { .. }
        )
    }
}

fn origin_of_setting(written: bool) -> &'static str {
    if written { "says" } else { "says nothing, which means" }
}

fn at(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| " or behind a proxy".to_owned(), |peer| format!(" ({peer})"))
}

fn remedy(is_plain: bool) -> &'static str {
    if is_plain { "; over plain http only \"any\" pays, as browsers mark no requests there" } else { "" }
}

fn field(mark: &Mark) -> String {
    match mark {
        Mark::Status => String::new(),
        Mark::Field(name) => format!(" with the header {name}"),
    }
}

fn when(FundingRetry { ago, next }: FundingRetry) -> String {
    if ago.is_zero() {
        return String::new();
    }
    let seconds = |time: Duration| time.as_secs_f64().ceil();
    format!(" (tried {:.0} s ago, next attempt in {:.0} s)", seconds(ago), seconds(next))
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
