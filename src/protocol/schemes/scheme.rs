//! What a payment scheme implements.

use http::StatusCode;
use http::header::{HeaderMap, HeaderName};

use crate::protocol::answer::Answer;
use crate::protocol::policy::KnownAsset;
use crate::protocol::terms::Terms;
use crate::protocol::{Account, Address, Refusal, Signature, SigningRequest};

/// A payment scheme. Pure; implemented by an uninhabited type, and dispatched by the enums of this module.
pub trait Scheme {
    /// One way in which a seller accepts payment.
    type Offer;
    /// A payment to be signed.
    type Draft;
    /// Why a response in this scheme is malformed.
    type Malformed;

    /// The headers of this scheme that contain no secret, so that webhooks may see them.
    const PUBLIC_HEADERS: &'static [&'static HeaderName];

    /// Whether a response with this head may have offers in its body, which is then read up to `limits.max_402_body`.
    fn wants_body(status: StatusCode, headers: &HeaderMap) -> bool;

    /// Whether a name, in any case, is that of a header, or of an equivalent cookie, that belongs to the hop between
    /// payer and seller.
    fn is_payment_name(name: &[u8]) -> bool;

    /// Parses the offers of a response; `None` if it has none of this scheme.
    fn read(answer: &Answer<'_>) -> Option<Result<Vec<Self::Offer>, Self::Malformed>>;

    /// The scheme-neutral part of an offer.
    fn terms(offer: &Self::Offer) -> Terms;

    /// The 32-byte digest that the payer signs.
    fn digest(draft: &Self::Draft, payer: &Payer) -> Option<[u8; 32]>;

    /// The digest with the values that it consists of.
    fn signing_request(draft: &Self::Draft, payer: &Payer) -> Option<SigningRequest>;

    /// Sets the headers that present a signed payment to the seller.
    fn attach(draft: &Self::Draft, payer: &Payer, signature: &Signature, headers: &mut HeaderMap);

    /// Assesses a presented payment by the head of the response.
    fn assess(answer: &Answer<'_>) -> Assessment;
}

/// A scheme without channels: each payment is a separate authorization.
pub trait OneShot: Scheme {
    /// The payment for an offer.
    ///
    /// # Errors
    /// Why it cannot be drawn.
    fn draw(offer: &Self::Offer, context: &DrawContext<'_>) -> Result<Self::Draft, Refusal>;

    /// What to do after the seller's next offer in response to a payment. `now` is in seconds since 1970.
    fn judge(offer: &Self::Offer, presented: &Self::Draft, now: u64) -> Reply;
}

/// What a one-shot payment depends on beside its offer.
#[derive(Clone, Copy, Debug)]
pub struct DrawContext<'a> {
    /// Random; makes the payment unique.
    pub nonce: [u8; 32],
    /// The time, in seconds since 1970.
    pub now: u64,
    /// How long it may be valid, in seconds.
    pub max_validity: u64,
    /// What is known about the asset of the price, if the rule names it.
    pub asset: Option<&'a KnownAsset>,
}

/// What to do after a seller of a one-shot scheme did not accept a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Present the same payment again later: it may be accepted.
    Later,
    /// It is not clear what happened to the payment: present the same one again.
    Unclear,
    /// The seller took the payment, and withholds the response.
    Taken,
    /// Stop. The seller may still redeem the payment.
    Stop(Refusal),
}

/// The payer. Schemes with channels also need the account that the channels belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payer {
    /// The address of the signing key.
    pub address: Address,
    /// Chain, contract and token of the channels; `None` without a `[chain]`, or before it has been read.
    pub account: Option<Account>,
}

/// Assesses a presented payment by the head of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// The seller took it, judging by the response.
    Paid(Receipt),
    /// The seller states that it took it, and failed to serve.
    Taken,
    /// The seller sent another 402: its offers decide.
    Asked,
    /// Unknown, and presenting the same payment again may tell.
    Unclear,
    /// Unknown: the seller may have failed before or after it took the payment.
    InDoubt,
}

/// What a paid response shows about its payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It states what the seller took.
    Stated,
    /// It states nothing: the resource may have become free.
    Unstated,
    /// It states nothing, and its status suggests that nothing was charged.
    NotCharged,
}
