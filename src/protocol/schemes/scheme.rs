//! What a payment scheme implements.

use http::StatusCode;
use http::header::{HeaderMap, HeaderName};

use crate::protocol::answer::Answer;
use crate::protocol::terms::Terms;
use crate::protocol::{Account, Address, Refusal, Signature};

/// What a payment scheme knows. Pure; implemented by a type without values, and dispatched by the enums of this module.
pub trait Scheme {
    /// One way in which a seller accepts payment.
    type Offer;
    /// A payment that is about to be signed.
    type Draft;
    /// Why an answer in this scheme cannot be understood.
    type Malformed;

    /// The headers of requests and answers that carry offers and payments and hold no secret, so that webhooks may see
    /// them.
    const PUBLIC_HEADERS: &'static [&'static HeaderName];

    /// True if offers of this scheme may be in the body of an answer with this head, which is then read up to
    /// `limits.max_402_body`.
    fn wants_body(status: StatusCode, headers: &HeaderMap) -> bool;

    /// True for the name of a header, or of a cookie that stands for one, that belongs to the hop between payer and
    /// seller. The name is lower-case ASCII or not: case does not matter.
    fn is_payment_name(name: &[u8]) -> bool;

    /// Reads the offers of an answer; `None` if it has none of this scheme.
    fn read(answer: &Answer<'_>) -> Option<Result<Vec<Self::Offer>, Self::Malformed>>;

    /// The scheme-neutral part of an offer.
    fn terms(offer: &Self::Offer) -> Terms;

    /// The 32 bytes that the payer signs.
    fn digest(draft: &Self::Draft, payer: &Payer) -> Option<[u8; 32]>;

    /// Sets the headers that present a signed payment to the seller.
    fn attach(draft: &Self::Draft, payer: &Payer, signature: &Signature, headers: &mut HeaderMap);

    /// What the head of an answer says of the payment that was presented.
    fn assess(answer: &Answer<'_>) -> Assessment;
}

/// A scheme without channels: each payment is an authorization of its own.
#[cfg(feature = "testing")]
pub trait OneShot: Scheme {
    /// The payment for an offer. `nonce` makes it unlike any other.
    fn draw(offer: &Self::Offer, nonce: [u8; 32]) -> Self::Draft;

    /// What the seller's next offer says of a payment that it was shown.
    fn judge(offer: &Self::Offer, presented: &Self::Draft) -> Reply;
}

/// What a seller of a one-shot scheme says of a payment that it did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It may take the same payment after a while.
    Later,
    /// Nothing follows. The seller may still redeem the payment.
    Stop(Refusal),
}

/// Who pays. Schemes with channels also need the account that the channels belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payer {
    /// The address of the key that signs.
    pub address: Address,
    /// Chain, contract and token of the channels; `None` without a `[chain]`, or before it has been read.
    pub account: Option<Account>,
}

/// What the head of an answer says of the payment that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// The seller took it, as far as can be told.
    Paid(Receipt),
    /// The seller asks for another payment, or for this one again: its offers decide.
    Asked,
    /// Unknown: the seller may have failed before or after it took the payment.
    InDoubt,
}

/// What an answer shows of the payment that it was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It states what the seller took.
    Stated,
    /// It states nothing: the resource may have become free.
    Unstated,
    /// It states nothing, and its status suggests that nothing was charged.
    NotCharged,
}
