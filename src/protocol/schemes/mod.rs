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

use http::StatusCode;
use http::header::{HeaderMap, HeaderName};

pub use channel_verdict::{Holding, Verdict, Violation};
pub use malformed::Malformed;
pub use name::SchemeName;
#[cfg(feature = "testing")]
pub use scheme::OneShot;
pub use scheme::{Assessment, Payer, Receipt, Reply, Scheme};

use crate::protocol::answer::Answer;
use crate::protocol::asset::Money;
use crate::protocol::channel::{Channel, ChannelDraft};
use crate::protocol::policy::Complaint;
use crate::protocol::terms::Terms;
use crate::protocol::{Account, Address, Amount, ChannelId, Refusal, Signature};

/// One way in which a seller accepts payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// µRaiden.
    MicroRaiden(microraiden::ChannelOffer),
    /// The scheme for tests.
    #[cfg(feature = "testing")]
    TestToken(test_token::TokenOffer),
}

/// A payment to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Draft {
    /// µRaiden.
    MicroRaiden(ChannelDraft),
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
    microraiden::MicroRaiden::wants_body(status, headers)
}

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
    microraiden::MicroRaiden::is_payment_name(name)
}

/// The headers of all schemes that contain no secret.
pub fn public_headers() -> impl Iterator<Item = &'static HeaderName> {
    let headers = microraiden::MicroRaiden::PUBLIC_HEADERS.iter().copied();
    #[cfg(feature = "testing")]
    let headers = headers.chain(test_token::TestToken::PUBLIC_HEADERS.iter().copied());
    headers
}

/// Parses the offers of a response, in the order in which to try them. A malformed offer in one scheme does not hide a
/// valid one in another.
///
/// # Errors
/// [`Refusal::Malformed`] if no offer can be parsed, [`Refusal::UnknownScheme`] if there is none.
pub fn read(answer: &Answer<'_>) -> Result<Vec<Offer>, Refusal> {
    let mut offers = Vec::new();
    let mut malformed = None;
    match microraiden::MicroRaiden::read(answer) {
        Some(Ok(read)) => offers.extend(read.into_iter().map(Offer::MicroRaiden)),
        Some(Err(error)) => malformed = malformed.or(Some(Malformed::MicroRaiden(error))),
        None => {}
    }
    #[cfg(feature = "testing")]
    match test_token::TestToken::read(answer) {
        Some(Ok(read)) => offers.extend(read.into_iter().map(Offer::TestToken)),
        Some(Err(error)) => malformed = malformed.or(Some(Malformed::TestToken(error))),
        None => {}
    }
    match malformed {
        _ if !offers.is_empty() => Ok(offers),
        Some(malformed) => Err(Refusal::Malformed(malformed)),
        None => Err(Refusal::UnknownScheme),
    }
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
            #[cfg(feature = "testing")]
            Self::TestToken(_) => true,
        }
    }

    /// The payment of a one-shot offer; `None` in a scheme with channels. `nonce` makes it unique.
    #[must_use]
    #[cfg_attr(
        not(feature = "testing"),
        expect(unused_variables, reason = "only the tests have such a scheme")
    )]
    pub fn draw_one_shot(&self, nonce: [u8; 32]) -> Option<Draft> {
        match self {
            Self::MicroRaiden(_) => None,
            #[cfg(feature = "testing")]
            Self::TestToken(offer) => Some(Draft::TestToken(test_token::TestToken::draw(offer, nonce))),
        }
    }

    /// What to do after this offer came in response to a payment in a one-shot scheme.
    #[must_use]
    pub fn judge_one_shot(&self, presented: &Draft) -> Reply {
        match (self, presented) {
            #[cfg(feature = "testing")]
            (Self::TestToken(offer), Draft::TestToken(draft)) => test_token::TestToken::judge(offer, draft),
            _ => Reply::Stop(Refusal::NotAccepted),
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
            #[cfg(feature = "testing")]
            Self::TestToken(_) => Verdict::Violation(Violation::Silent),
        }
    }

    /// The part of the offer that holds for the next request too: without what the seller stated of one payment.
    #[must_use]
    pub fn as_quote(&self) -> Self {
        match self {
            Self::MicroRaiden(offer) => Self::MicroRaiden(offer.as_quote()),
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
            Self::MicroRaiden(_) => Draft::MicroRaiden(draft),
        }
    }

    /// Checks that the offer uses the account's contract and token.
    ///
    /// # Errors
    /// [`Refusal::ForeignContract`] or [`Refusal::ForeignToken`].
    pub fn check_account(&self, account: &Account) -> Result<(), Refusal> {
        match self {
            Self::MicroRaiden(offer) => offer.check_account(account),
            #[cfg(feature = "testing")]
            Self::TestToken(_) => Ok(()),
        }
    }

    /// Checks the channel contract only, before the account is known.
    ///
    /// # Errors
    /// [`Refusal::ForeignContract`].
    pub fn check_contract(&self, ours: Address) -> Result<(), Refusal> {
        match self {
            Self::MicroRaiden(offer) => offer.check_contract(ours),
            #[cfg(feature = "testing")]
            Self::TestToken(_) => Ok(()),
        }
    }

    /// The path of the seller's REST interface at its origin, if the offer names one.
    #[must_use]
    pub fn rest_path(&self) -> Option<&str> {
        match self {
            Self::MicroRaiden(offer) => offer.gateway.as_deref(),
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// The total that the seller claims to hold of the presented channel.
    #[must_use]
    pub fn claimed_total(&self) -> Option<Amount> {
        match self {
            Self::MicroRaiden(offer) => offer.state.map(|state| state.total),
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
            #[cfg(feature = "testing")]
            Self::TestToken(_) => false,
        }
    }

    /// The seller's complaint about a payment on a channel, explicit or implied by its state.
    #[must_use]
    pub fn complaint(&self, presented: &ChannelDraft) -> Option<Complaint> {
        match self {
            Self::MicroRaiden(offer) => microraiden::complaint(offer, presented),
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
            #[cfg(feature = "testing")]
            Self::TestToken(draft) => Money { amount: draft.price, asset: test_token::asset() },
        }
    }

    /// The payee.
    #[must_use]
    pub fn payee(&self) -> Address {
        match self {
            Self::MicroRaiden(draft) => draft.channel.receiver,
            #[cfg(feature = "testing")]
            Self::TestToken(draft) => draft.payee,
        }
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> SchemeName {
        match self {
            Self::MicroRaiden(_) => SchemeName::MicroRaiden,
            #[cfg(feature = "testing")]
            Self::TestToken(_) => SchemeName::TestToken,
        }
    }

    /// The channel draft, if it draws on a channel.
    #[must_use]
    pub fn on_channel(&self) -> Option<&ChannelDraft> {
        match self {
            Self::MicroRaiden(draft) => Some(draft),
            #[cfg(feature = "testing")]
            Self::TestToken(_) => None,
        }
    }

    /// The 32-byte digest that the payer signs; `None` if the scheme needs an account and there is none.
    #[must_use]
    pub fn digest(&self, payer: &Payer) -> Option<[u8; 32]> {
        dispatch!(Self, self, S, draft => S::digest(draft, payer))
    }

    /// Sets the headers that present the signed payment to the seller.
    pub fn attach(&self, payer: &Payer, signature: &Signature, headers: &mut HeaderMap) {
        dispatch!(Self, self, S, draft => S::attach(draft, payer, signature, headers));
    }

    /// Assesses this payment by the head of the response.
    #[must_use]
    pub fn assess(&self, answer: &Answer<'_>) -> Assessment {
        dispatch!(Self, self, S, _ => S::assess(answer))
    }
}
