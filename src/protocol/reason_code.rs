//! Machine-readable reasons: a program, or a user's rule for alerts, tells by them why a request was not paid or not
//! forwarded, and what to change.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reason_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// Why a request was not paid or not forwarded, for programs. Codes are stable, unlike the texts next to them.
        ///
        #[doc = include_str!("reason_codes.md")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ReasonCode {
            $($(#[doc = $doc])+ $name,)+
        }

        impl ReasonCode {
            /// All codes, in the order of their table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code: lower-case words with hyphens between them, a token of RFC 8941.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

reason_codes! {
    /// No `[[pay]]` entry matches the host.
    NoRule = "no-rule",
    /// None of the client's own `[[client.pay]]` entries matches the host.
    NoClientRule = "no-client-rule",
    /// The first matching entry denies the host.
    DeniedByRule = "denied-by-rule",
    /// The price is above `max_price`.
    AboveMaxPrice = "above-max-price",
    /// `max_price`, `assets` or `networks` do not allow the token.
    AssetNotAllowed = "asset-not-allowed",
    /// The rule's `schemes` do not allow the scheme.
    SchemeNotAllowed = "scheme-not-allowed",
    /// The payee is not among the `receivers`.
    ReceiverNotAllowed = "receiver-not-allowed",
    /// A budget does not allow the payment.
    OverBudget = "over-budget",
    /// A budget cannot count the token.
    BudgetCannotCount = "budget-cannot-count",
    /// The payment would go to another machine unencrypted.
    PlainHttp = "plain-http",
    /// The program belongs to another user of this machine.
    OtherUser = "other-user",
    /// It is not known which user the program belongs to.
    UnknownUser = "unknown-user",
    /// A browser made the request.
    Browser = "browser",
    /// A page of another site made the request.
    AnotherSite = "another-site",
    /// A browser prefetches a page.
    Prefetch = "prefetch",
    /// A browser sends a CORS preflight.
    Preflight = "preflight",
    /// The user has frozen all payments.
    Frozen = "frozen",
    /// The host took payments without delivering, or raised a price by too much.
    HostPaused = "host-paused",
    /// The `tollpass run` of the program has ended, or its time is over.
    RunOver = "run-over",
    /// It is not known whether the program belongs to a `tollpass run`.
    UnknownRun = "unknown-run",
    /// `hooks.payment_requested` aborts.
    NotWanted = "not-wanted",
    /// A hook asks, and nothing can answer.
    NoApprover = "no-approver",
    /// The approver refused, or its reply is invalid.
    ApproverRefused = "approver-refused",
    /// The operator denied the payment.
    ApprovalDenied = "approval-denied",
    /// The operator did not decide in time.
    ApprovalTimedOut = "approval-timed-out",
    /// Too many requests wait for approval.
    TooManyApprovals = "too-many-approvals",
    /// The seller's new terms need approval.
    TermsNeedApproval = "terms-need-approval",
    /// A dry run would have paid.
    DryRun = "dry-run",
    /// There is no wallet.
    NoWallet = "no-wallet",
    /// There is no chain.
    NoChain = "no-chain",
    /// The key is not unlocked, or the chain not synced.
    NotReady = "not-ready",
    /// The external signer refused.
    SignerRefused = "signer-refused",
    /// The external signer could not be asked, and signed nothing.
    SignerUnavailable = "signer-unavailable",
    /// The external signer gave no clear answer, which counts as signed.
    SignerUnclear = "signer-unclear",
    /// Too many requests wait for a payment.
    Busy = "busy",
    /// `limits.pay_timeout` has passed.
    PayTimeout = "pay-timeout",
    /// The client left.
    ClientLeft = "client-left",
    /// The proxy is shutting down.
    ShuttingDown = "shutting-down",
    /// The journal cannot be written.
    JournalUnwritable = "journal-unwritable",
    /// The request's body cannot be sent a second time.
    NotReplayable = "not-replayable",
    /// The request authenticates its connection.
    BoundConnection = "bound-connection",
    /// The request asks for a protocol other than HTTP.
    OtherProtocol = "other-protocol",
    /// The price does not fit into one channel.
    ChannelLimit = "channel-limit",
    /// A deposit would exceed the limits on all channels.
    DepositLimit = "deposit-limit",
    /// The channels received too many deposits.
    TooManyDeposits = "too-many-deposits",
    /// A deposit is not visible on the chain.
    DepositUnseen = "deposit-unseen",
    /// Opening or topping up a channel failed.
    FundingFailed = "funding-failed",
    /// A transaction was made for the request, and no channel can pay yet.
    FundedOnce = "funded-once",
    /// The 402 has no scheme that tollpass knows.
    UnknownScheme = "unknown-scheme",
    /// The offer in the 402 is malformed.
    OfferMalformed = "offer-malformed",
    /// The body of the 402 is too large.
    OfferTooLarge = "offer-too-large",
    /// The body of the 402 takes too long.
    OfferTooSlow = "offer-too-slow",
    /// The body of the 402 ended early.
    OfferIncomplete = "offer-incomplete",
    /// The price is 0.
    PriceZero = "price-zero",
    /// The seller uses another channel contract.
    OtherContract = "other-contract",
    /// The seller wants another token than the contract's.
    OtherToken = "other-token",
    /// The seller changed the payee after a payment.
    ReceiverChanged = "receiver-changed",
    /// The seller sent the state of another payer.
    OtherPayer = "other-payer",
    /// The seller claims a total without our signature.
    UnprovenTotal = "unproven-total",
    /// The seller asks again without a reason.
    NotAccepted = "not-accepted",
    /// The seller rejects the payment that follows from its own total.
    NoProgress = "no-progress",
    /// Paying again would exceed one price.
    SecondPrice = "second-price",
    /// `limits.max_attempts` is reached.
    MaxAttempts = "max-attempts",
    /// A hook for a complaint of the seller aborts.
    HookAborts = "hook-aborts",
    /// The retries of a hook are used up.
    HookGaveUp = "hook-gave-up",
    /// The seller denies a channel that exists.
    ChannelDenied = "channel-denied",
    /// The response to an earlier payment could not be read.
    AnswerUnreadable = "answer-unreadable",
    /// The seller took the payment and withholds the response.
    PaidAnswerLost = "paid-answer-lost",
    /// The seller took a payment that expires, and did not deliver.
    PaidNotDelivered = "paid-not-delivered",
    /// The seller's facilitator refused the payment.
    SellerRefused = "seller-refused",
    /// Permit2 may not move enough of the payer's tokens.
    NoAllowance = "no-allowance",
    /// The clocks of the seller and of this machine differ.
    ClockSkew = "clock-skew",
    /// None of the offers of a known protocol can be paid.
    UnsupportedOffers = "unsupported-offers",
    /// The EIP-712 name of the token is not known.
    NoTokenName = "no-token-name",
    /// The seller claims another name of the token.
    WrongTokenName = "wrong-token-name",
    /// Too many payments that expire are open.
    TooManyOpen = "too-many-open",
    /// A payment was sent, and no response came.
    PaymentInDoubt = "payment-in-doubt",
    /// A hook withholds the origin's response.
    AnswerWithheld = "answer-withheld",
    /// The proxy needs the token of a client.
    TokenRequired = "token-required",
    /// No client has this name and token, or no longer.
    WrongToken = "wrong-token",
    /// Too many attempts with a wrong name or token.
    TooManyAttempts = "too-many-attempts",
    /// The path of a route needs its token.
    RouteTokenRequired = "route-token-required",
    /// No route has the path.
    NoRoute = "no-route",
    /// The path could leave the route.
    PathClimbs = "path-climbs",
    /// The path is too long for the route.
    PathTooLong = "path-too-long",
    /// The port serves routes only.
    NotAProxy = "not-a-proxy",
    /// An https target outside a tunnel.
    HttpsUnencrypted = "https-unencrypted",
    /// The request needs one valid `Host`.
    BadHost = "bad-host",
    /// The `Host` is not one of the proxy's names.
    OtherHost = "other-host",
    /// The set-up page is elsewhere.
    NoSuchPage = "no-such-page",
    /// The request in a tunnel is for another host.
    OtherTunnel = "other-tunnel",
    /// The port is not among the `connect_ports`.
    PortNotAllowed = "port-not-allowed",
    /// The address may not be reached.
    AddressNotAllowed = "address-not-allowed",
    /// The target of the request is not valid.
    BadTarget = "bad-target",
    /// The request is malformed.
    MalformedRequest = "malformed-request",
    /// The request has too many headers.
    HeadTooLarge = "head-too-large",
    /// The client expects something unknown.
    UnknownExpectation = "unknown-expectation",
    /// The target's scheme is not supported.
    UnsupportedScheme = "unsupported-scheme",
    /// The body has an unsupported transfer coding.
    UnsupportedCoding = "unsupported-coding",
    /// The request has passed through this proxy before.
    RequestLoop = "request-loop",
    /// The request's body ended early.
    RequestIncomplete = "request-incomplete",
    /// Reading https is not possible now.
    CannotIntercept = "cannot-intercept",
    /// The name has no address.
    NameNotFound = "name-not-found",
    /// The connection to the origin took too long.
    ConnectTimeout = "connect-timeout",
    /// The origin refused the connection.
    ConnectionRefused = "connection-refused",
    /// The system could not connect.
    Unreachable = "unreachable",
    /// The origin's certificate is not valid.
    BadCertificate = "bad-certificate",
    /// The TLS handshake with the origin failed.
    TlsFailed = "tls-failed",
    /// The trusted root certificates cannot be read.
    RootsUnreadable = "roots-unreadable",
    /// The outbound proxy refused.
    OutboundProxyRefused = "outbound-proxy-refused",
    /// The outbound proxy gave no valid response.
    OutboundProxyInvalid = "outbound-proxy-invalid",
    /// The connection was lost before the request was sent.
    ConnectionLost = "connection-lost",
    /// The origin did not process the request.
    NotProcessed = "not-processed",
    /// The origin closed the connection without a response.
    NoAnswer = "no-answer",
    /// The head of the response is too large.
    AnswerTooLarge = "answer-too-large",
    /// The response is malformed.
    AnswerMalformed = "answer-malformed",
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::protocol::reason_code::*;

    #[test]
    fn codes_are_tokens_and_each_has_one_meaning() {
        let codes: BTreeSet<&str> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), ReasonCode::ALL.len());
        for code in codes {
            let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(code.split('-').all(is_word) && code.len() <= 32, "{code}");
        }
    }

    #[test]
    fn the_table_has_each_code_once_with_its_meaning_and_a_remedy() {
        let rows = include_str!("reason_codes.md").lines().filter(|line| line.starts_with("| `"));
        let rows: Vec<Vec<&str>> = rows.map(|row| row.split(" | ").collect()).collect();
        let codes: Vec<&str> =
            rows.iter().map(|cells| cells[0].trim_start_matches("| ").trim_matches('`')).collect();
        assert_eq!(codes, ReasonCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
        for cells in rows {
            let [code, meaning, remedy] = cells.as_slice() else { panic!("{cells:?}") };
            assert!(meaning.len() > 5 && remedy.len() > 8 && remedy.ends_with(" |"), "{code}");
        }
    }
}
