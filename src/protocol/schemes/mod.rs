//! The payment schemes, one directory each, and the closed dispatch over them.
//!
//! A scheme is an implementation of [`Scheme`] and one variant in each of [`Offer`], [`Draft`] and [`Malformed`]. Its
//! headers, statuses and signing are unknown outside this module.

mod channel_verdict;
mod malformed;
pub mod microraiden;
mod name;
mod scheme;
#[cfg(feature = "testing")]
pub mod test_token;
mod use_query;
pub mod x402;

use http::header::{HeaderMap, HeaderName};
use http::{StatusCode, Uri};

pub use channel_verdict::{Holding, Verdict, Violation};
pub use malformed::Malformed;
pub use name::SchemeName;
pub use scheme::{Assessment, DrawContext, OneShot, Payer, Receipt, Reply, Scheme};
pub use use_query::UseQuery;
pub use x402::{PERMIT2, SignIn};

use crate::protocol::answer::Answer;
use crate::protocol::asset::Money;
use crate::protocol::channel::{Channel, ChannelDraft};
use crate::protocol::policy::{Complaint, KnownAsset, SpendLimit};
use crate::protocol::terms::Terms;
use crate::protocol::{Account, Address, Amount, ChannelId, Refusal, Signature, SigningRequest};

/// One way in which a seller accepts payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// µRaiden.
    MicroRaiden(microraiden::ChannelOffer),
    /// x402.
    X402(x402::ExactOffer),
    /// The scheme for tests.
    #[cfg(feature = "testing")]
    TestToken(test_token::TokenOffer),
}

/// A payment to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Draft {
    /// µRaiden.
    MicroRaiden(ChannelDraft),
    /// x402.
    X402(x402::ExactDraft),
    /// The scheme for tests.
    #[cfg(feature = "testing")]
    TestToken(test_token::TokenDraft),
}

/// Evaluates an expression for the scheme of a value, as `$scheme`.
macro_rules! dispatch {
    ($kind:ident, $value:expr, $scheme:ident, $inner:pat => $result:expr) => {
        match $value {
            $kind::MicroRaiden($inner) => {
                type $scheme = microraiden::MicroRaiden;
                $result
            }
            $kind::X402($inner) => {
                type $scheme = x402::Exact;
                $result
            }
            #[cfg(feature = "testing")]
            $kind::TestToken($inner) => {
                type $scheme = test_token::TestToken;
                $result
            }
        }
    };
}

/// Whether a response may ask for a payment, judging by its head.
#[must_use]
pub fn may_ask(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::PAYMENT_REQUIRED || wants_body(status, headers)
}

/// Whether a response with this head may have offers in its body.
#[must_use]
pub fn wants_body(status: StatusCode, headers: &HeaderMap) -> bool {
    #[cfg(feature = "testing")]
    if test_token::TestToken::wants_body(status, headers) {
        return true;
    }
    microraiden::MicroRaiden::wants_body(status, headers) || x402::Exact::wants_body(status, headers)
}

/// Whether the seller may have answered a browser with a page that holds no offers, judging by the head.
#[must_use]
pub fn may_hide_offers(status: StatusCode, headers: &HeaderMap) -> bool {
    x402::may_hide_offers(status, headers)
}

/// The proof of who pays that a seller wants instead of a payment: its 402 has no offers. It is for a network on which
/// `limit` allows payments. `headers` are those of the 402, and `url` is that of the request.
#[must_use]
pub fn sign_in_alone(headers: &HeaderMap, url: &Uri, limit: &SpendLimit) -> Option<SignIn> {
    let networks = &limit.preference.networks;
    let allowed = |network: &str| {
        (networks.is_empty() || networks.iter().any(|named| named == network))
            && limit.max_price.assets().any(|known| known.network == network)
    };
    limit.preference.check(SchemeName::X402).ok()?;
    SignIn::without_offers(headers, url, allowed)
}

/// What an offer within another message contains, in any encoding of its quotes.
pub const WORDS_OF_OFFERS: &[&str] = &x402::WORDS_OF_OFFERS;

/// Whether a header belongs to the hop between payer and seller: clients neither send nor receive it.
#[must_use]
pub fn is_payment_header(name: &HeaderName) -> bool {
    is_payment_name(name.as_str().as_bytes())
}

/// Like [`is_payment_header`], also for the name of an equivalent cookie, in any case.
#[must_use]
pub fn is_payment_name(name: &[u8]) -> bool {
    #[cfg(feature = "testing")]
    if test_token::TestToken::is_payment_name(name) {
        return true;
    }
    microraiden::MicroRaiden::is_payment_name(name) || x402::Exact::is_payment_name(name)
}

/// The headers of all schemes that contain no secret.
pub fn public_headers() -> impl Iterator<Item = &'static HeaderName> {
    let headers = microraiden::MicroRaiden::PUBLIC_HEADERS.iter().chain(x402::Exact::PUBLIC_HEADERS).copied();
    #[cfg(feature = "testing")]
    let headers = headers.chain(test_token::TestToken::PUBLIC_HEADERS.iter().copied());
    headers
}

/// Parses the offers of a response, in the order in which to try them. A malformed offer in one scheme does not hide a
/// valid one in another.
///
/// # Errors
/// [`Refusal::Malformed`] if no offer can be parsed, [`Refusal::UnsupportedOffers`] if none can be paid,
/// [`Refusal::UnknownScheme`] if there is none.
pub fn read(answer: &Answer<'_>) -> Result<Vec<Offer>, Refusal> {
    let mut offers = Vec::new();
    let (mut malformed, mut unsupported) = (None, None);
    match microraiden::MicroRaiden::read(answer) {
        Some(Ok(read)) => offers.extend(read.into_iter().map(Offer::MicroRaiden)),
        Some(Err(error)) => malformed = malformed.or(Some(Malformed::MicroRaiden(error))),
        None => {}
    }
    match x402::Exact::read(answer) {
        Some(Ok(read)) => offers.extend(read.into_iter().map(Offer::X402)),
        Some(Err(x402::MalformedExactOffer::NoneSupported(others))) => unsupported = Some(others),
        Some(Err(error)) => malformed = malformed.or(Some(Malformed::X402(error))),
        None => {}
    }
    #[cfg(feature = "testing")]
    match test_token::TestToken::read(answer) {
        Some(Ok(read)) => offers.extend(read.into_iter().map(Offer::TestToken)),
        Some(Err(error)) => malformed = malformed.or(Some(Malformed::TestToken(error))),
        None => {}
    }
    match (malformed, unsupported) {
        _ if !offers.is_empty() => Ok(offers),
        (Some(malformed), _) => Err(Refusal::Malformed(malformed)),
        (None, Some(offers)) => Err(Refusal::UnsupportedOffers { offers }),
        (None, None) => Err(Refusal::UnknownScheme),
    }
}

/// The offers of a response in a known protocol that cannot be paid, and why; each is safe to show.
#[must_use]
pub fn unsupported(answer: &Answer<'_>) -> Vec<String> {
    x402::unsupported(answer)
}

impl Offer {
    /// The scheme-neutral terms.
    #[must_use]
    pub fn terms(&self) -> Terms {
        dispatch!(Self, self, S, offer => S::terms(offer))
    }

    /// Whether it is paid without a channel.
    #[must_use]
    pub fn is_one_shot(&self) -> bool {
        match self {
            Self::MicroRaiden(_) => false,
            Self::X402(_) => true,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => true,
        }
    }

    /// The payment of a one-shot offer.
    ///
    /// # Errors
    /// Why it cannot be drawn; in a scheme with channels, always.
    pub fn draw_one_shot(&self, context: &DrawContext<'_>) -> Result<Draft, Refusal> {
        match self {
            Self::MicroRaiden(_) => Err(Refusal::UnknownScheme),
            Self::X402(offer) => x402::Exact::draw(offer, context).map(Draft::X402),
            #[cfg(feature = "testing")]
            Self::TestToken(offer) => test_token::TestToken::draw(offer, context).map(Draft::TestToken),
        }
    }

    /// What to do after this offer came in response to a payment in a one-shot scheme. `now` is in seconds since 1970.
    #[must_use]
    pub fn judge_one_shot(&self, presented: &Draft, now: u64) -> Reply {
        match (self, presented) {
            (Self::X402(offer), Draft::X402(draft)) => x402::Exact::judge(offer, draft, now),
            #[cfg(feature = "testing")]
            (Self::TestToken(offer), Draft::TestToken(draft)) => {
                test_token::TestToken::judge(offer, draft, now)
            }
            _ => Reply::Stop(Refusal::NotAccepted),
        }
    }

    /// Whether a later request can present the same payment again.
    #[must_use]
    pub fn can_be_continued(&self) -> bool {
        matches!(self, Self::X402(_))
    }

    /// Whether a later request may carry its payment at once, at the same price: not if the payer may only have to sign in.
    #[must_use]
    pub fn can_go_ahead(&self) -> bool {
        !matches!(self, Self::X402(offer) if offer.has_sign_in)
    }

    /// Whether `presented` is a payment for exactly this offer.
    #[must_use]
    pub fn is_paid_by(&self, presented: &Draft) -> bool {
        match (self, presented) {
            (Self::X402(offer), Draft::X402(draft)) => offer.requirement == draft.requirement,
            _ => self.terms() == presented.terms(),
        }
    }

    /// Whether the seller, which was presented a payment before it asked for one, wants another one: it will not take that
    /// one for this request, and can redeem it nevertheless.
    #[must_use]
    pub fn outdates(&self, presented: &Draft) -> bool {
        match (self, presented) {
            (Self::X402(offer), Draft::X402(draft)) => x402::outdates(offer, draft),
            _ => false,
        }
    }

    /// The proof of who pays that the seller of this offer would take instead of another payment for what was bought before.
    /// `headers` are those of the 402, and `url` is that of the request.
    #[must_use]
    pub fn sign_in(&self, headers: &HeaderMap, url: &Uri) -> Option<SignIn> {
        match self {
            Self::X402(offer) => offer.sign_in(headers, url),
            Self::MicroRaiden(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// Judges this offer as the response to a channel payment. `signed` are the totals of the channel that were first
    /// signed for the same client request.
    #[must_use]
    pub fn judge(
        &self,
        channel: &Channel,
        presented: &ChannelDraft,
        signed: &[Amount],
        account: &Account,
    ) -> Verdict {
        match self {
            Self::MicroRaiden(offer) => microraiden::judge(offer, channel, presented, signed, account),
            Self::X402(_) => Verdict::Violation(Violation::Silent),
            #[cfg(feature = "testing")]
            Self::TestToken(_) => Verdict::Violation(Violation::Silent),
        }
    }

    /// What the seller has signed of the offer, for the records: nothing proves it. It may name the URL of the request with its
    /// query.
    #[must_use]
    pub fn statement(&self) -> Option<String> {
        match self {
            Self::X402(offer) => offer.statement(),
            Self::MicroRaiden(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// The part of the offer that holds for the next request too: without what the seller stated of one payment.
    #[must_use]
    pub fn as_quote(&self) -> Self {
        match self {
            Self::MicroRaiden(offer) => Self::MicroRaiden(offer.as_quote()),
            Self::X402(offer) => Self::X402(offer.as_quote()),
            #[cfg(feature = "testing")]
            Self::TestToken(offer) => {
                Self::TestToken(test_token::TokenOffer { is_later: false, ..offer.clone() })
            }
        }
    }

    /// The payment that promises a total on a channel.
    #[must_use]
    pub fn on_channel(&self, draft: ChannelDraft) -> Draft {
        match self {
            // One-shot offers never reach a channel.
            #[cfg(feature = "testing")]
            Self::TestToken(_) => Draft::MicroRaiden(draft),
            Self::MicroRaiden(_) | Self::X402(_) => Draft::MicroRaiden(draft),
        }
    }

    /// Checks that the offer uses the account's contract and token.
    ///
    /// # Errors
    /// [`Refusal::ForeignContract`] or [`Refusal::ForeignToken`].
    pub fn check_account(&self, account: &Account) -> Result<(), Refusal> {
        match self {
            Self::MicroRaiden(offer) => offer.check_account(account),
            Self::X402(_) => Ok(()),
            #[cfg(feature = "testing")]
            Self::TestToken(_) => Ok(()),
        }
    }

    /// Checks that what is known about the price's token is enough to sign a payment in it that the seller accepts.
    ///
    /// # Errors
    /// Why not.
    pub fn check_token(&self, known: Option<&KnownAsset>) -> Result<(), Refusal> {
        match self {
            Self::X402(offer) => offer.verifier(known).map(drop),
            Self::MicroRaiden(_) => Ok(()),
            #[cfg(feature = "testing")]
            Self::TestToken(_) => Ok(()),
        }
    }

    /// What the payer must have done before a payment can succeed, for people; `None` if nothing.
    #[must_use]
    pub fn condition(&self) -> Option<String> {
        match self {
            Self::X402(offer) => offer.condition(),
            Self::MicroRaiden(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// Checks the channel contract only, before the account is known.
    ///
    /// # Errors
    /// [`Refusal::ForeignContract`].
    pub fn check_contract(&self, ours: Address) -> Result<(), Refusal> {
        match self {
            Self::MicroRaiden(offer) => offer.check_contract(ours),
            Self::X402(_) => Ok(()),
            #[cfg(feature = "testing")]
            Self::TestToken(_) => Ok(()),
        }
    }

    /// The path of the seller's REST interface at its origin, if the offer names one.
    #[must_use]
    pub fn rest_path(&self) -> Option<&str> {
        match self {
            Self::MicroRaiden(offer) => offer.gateway.as_deref(),
            Self::X402(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// The total that the seller claims to hold of the presented channel.
    #[must_use]
    pub fn claimed_total(&self) -> Option<Amount> {
        match self {
            Self::MicroRaiden(offer) => offer.state.map(|state| state.total),
            Self::X402(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// Whether the payer's own signature proves that total.
    #[must_use]
    pub fn proves_total(&self, channel: ChannelId, payer: &Payer) -> bool {
        let Some(account) = &payer.account else { return false };
        match self {
            Self::MicroRaiden(offer) => {
                offer.state.is_some_and(|state| microraiden::is_ours(&state, channel, account))
            }
            Self::X402(_) => false,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => false,
        }
    }

    /// The seller's complaint about a payment on a channel, explicit or implied by its state.
    #[must_use]
    pub fn complaint(&self, presented: &ChannelDraft) -> Option<Complaint> {
        match self {
            Self::MicroRaiden(offer) => microraiden::complaint(offer, presented),
            Self::X402(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }
}

impl Draft {
    /// The price.
    #[must_use]
    pub fn price(&self) -> Money {
        match self {
            Self::MicroRaiden(draft) => Money::channel_token(draft.price),
            Self::X402(draft) => draft.price(),
            #[cfg(feature = "testing")]
            Self::TestToken(draft) => Money { amount: draft.price, asset: test_token::asset() },
        }
    }

    /// The payee.
    #[must_use]
    pub fn payee(&self) -> Address {
        match self {
            Self::MicroRaiden(draft) => draft.channel.receiver,
            Self::X402(draft) => draft.requirement.payee,
            #[cfg(feature = "testing")]
            Self::TestToken(draft) => draft.payee,
        }
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> SchemeName {
        match self {
            Self::MicroRaiden(_) => SchemeName::MicroRaiden,
            Self::X402(_) => SchemeName::X402,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => SchemeName::TestToken,
        }
    }

    /// The channel draft, if it draws on a channel.
    #[must_use]
    pub fn on_channel(&self) -> Option<&ChannelDraft> {
        match self {
            Self::MicroRaiden(draft) => Some(draft),
            Self::X402(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// The scheme-neutral terms that it pays.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms { price: self.price(), payee: self.payee(), scheme: self.scheme() }
    }

    /// What makes a one-shot payment unique.
    #[must_use]
    pub fn nonce(&self) -> Option<[u8; 32]> {
        match self {
            Self::MicroRaiden(_) => None,
            Self::X402(draft) => Some(draft.nonce),
            #[cfg(feature = "testing")]
            Self::TestToken(draft) => Some(draft.nonce),
        }
    }

    /// When a payment expires, in seconds since 1970, if it does.
    #[must_use]
    pub fn valid_before(&self) -> Option<u64> {
        match self {
            Self::X402(draft) => Some(draft.valid_before),
            Self::MicroRaiden(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// How a chain tells whether the payment of this payer was used; `None` if none does.
    #[must_use]
    pub fn use_query(&self, payer: Address) -> Option<UseQuery> {
        match self {
            Self::X402(draft) => Some(draft.use_query(payer)),
            Self::MicroRaiden(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// Whether a seller can still take it at this time, in seconds since 1970.
    #[must_use]
    pub fn is_usable(&self, now: u64) -> bool {
        match self {
            Self::X402(draft) => draft.is_usable(now),
            Self::MicroRaiden(_) => true,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => true,
        }
    }

    /// Whether the seller recognizes a payment that is presented a second time, so that any request may repeat it.
    #[must_use]
    pub fn is_identified(&self) -> bool {
        match self {
            Self::X402(draft) => draft.requirement.identifier.is_some(),
            Self::MicroRaiden(_) => false,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => false,
        }
    }

    /// What the journal keeps of a payment beside its nonce and terms, so that it can be presented again.
    #[must_use]
    pub fn to_stored(&self) -> Option<String> {
        match self {
            Self::X402(draft) => draft.to_stored(),
            Self::MicroRaiden(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// The payment that the journal kept for the scheme of this name; `None` if it cannot be read.
    #[must_use]
    pub fn from_stored(scheme: &str, nonce: [u8; 32], stored: &str) -> Option<Self> {
        if scheme != SchemeName::X402.name() {
            return None;
        }
        x402::ExactDraft::from_stored(nonce, stored).map(Self::X402)
    }

    /// The 32-byte digest that the payer signs; `None` if the scheme needs an account and there is none.
    #[must_use]
    pub fn digest(&self, payer: &Payer) -> Option<[u8; 32]> {
        dispatch!(Self, self, S, draft => S::digest(draft, payer))
    }

    /// The digest with the values that it consists of; `None` in the same case.
    #[must_use]
    pub fn signing_request(&self, payer: &Payer) -> Option<SigningRequest> {
        dispatch!(Self, self, S, draft => S::signing_request(draft, payer))
    }

    /// Sets the headers that present the signed payment to the seller.
    pub fn attach(&self, payer: &Payer, signature: &Signature, headers: &mut HeaderMap) {
        dispatch!(Self, self, S, draft => S::attach(draft, payer, signature, headers));
    }

    /// What the seller states about this payment, for the records: nothing proves it. `with_signed` keeps what it has signed,
    /// which may name the URL of the request with its query.
    #[must_use]
    pub fn statement(&self, answer: &Answer<'_>, with_signed: bool) -> Option<String> {
        match self {
            Self::X402(_) => x402::statement(answer, with_signed),
            Self::MicroRaiden(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// Assesses this payment by the head of the response.
    #[must_use]
    pub fn assess(&self, answer: &Answer<'_>) -> Assessment {
        dispatch!(Self, self, S, _ => S::assess(answer))
    }
}
