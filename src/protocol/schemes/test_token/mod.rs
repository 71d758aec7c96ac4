//! A scheme for tests: one signature per price, without channels or a chain.
//!
//! A seller responds 402 with `test-token-offer: price=5, payee=0x…` and accepts `test-token-payment: payer=0x…,
//! nonce=0x…, signature=0x…`, a signature over payee, price and nonce. Prices are in [`asset`], which only a rule that
//! names it permits.

mod headers;
mod malformed;

use ethers_core::utils::hex;
use ethers_core::utils::keccak256;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub use headers::{COMPLAINT, OFFER, PAYMENT, RECEIPT};
pub use malformed::MalformedTokenOffer;

use super::SchemeName;
use super::{Assessment, DrawContext, OneShot, Payer, Receipt, Reply, Scheme};
use crate::protocol::asset::{AssetId, Money};
use crate::protocol::policy::{KnownAsset, PriceLimit};
use crate::protocol::signing_request::packed_digest;
use crate::protocol::terms::Terms;
use crate::protocol::{Address, Amount, Answer, Refusal, Signature, SigningRequest, TypedData, TypedValue};

const PREFIX: &[u8] = b"test-token-";
/// The first of the signed values.
const MESSAGE: &str = "test-token payment";

/// The asset of prices.
#[must_use]
pub fn asset() -> AssetId {
    AssetId::token("test:local", "TEST")
}

/// A limit of this many base units of [`asset`], which no configuration file can name.
#[must_use]
pub fn at_most(units: impl Into<Amount>) -> PriceLimit {
    let (asset, symbol, network) = (asset(), "TEST".to_owned(), "test:local".to_owned());
    let known = KnownAsset { symbol, network, asset, decimals: 0, usd: None, domain: None };
    PriceLimit::Tokens([(units.into(), known)].into())
}

/// The scheme.
#[derive(Clone, Copy, Debug)]
pub enum TestToken {}

/// A seller's offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOffer {
    /// The price, in base units of [`asset`].
    pub price: Amount,
    /// The payee.
    pub payee: Address,
    /// Whether the seller may accept the presented payment later.
    pub is_later: bool,
}

/// A payment to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenDraft {
    /// The price, in base units of [`asset`].
    pub price: Amount,
    /// The payee.
    pub payee: Address,
    /// Makes the payment unique.
    pub nonce: [u8; 32],
}

impl Scheme for TestToken {
    type Offer = TokenOffer;
    type Draft = TokenDraft;
    type Malformed = MalformedTokenOffer;

    const PUBLIC_HEADERS: &'static [&'static HeaderName] = &[&OFFER, &COMPLAINT];

    fn wants_body(_: StatusCode, _: &HeaderMap) -> bool {
        false
    }

    fn is_payment_name(name: &[u8]) -> bool {
        name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    }

    fn read(answer: &Answer<'_>) -> Option<Result<Vec<TokenOffer>, MalformedTokenOffer>> {
        if answer.status != StatusCode::PAYMENT_REQUIRED {
            return None;
        }
        let offer = answer.headers.get(&OFFER)?;
        let is_later = answer.headers.get(&COMPLAINT).is_some_and(|complaint| complaint == "later");
        Some(parse(offer, is_later).map(|offer| vec![offer]).ok_or(MalformedTokenOffer))
    }

    fn terms(offer: &TokenOffer) -> Terms {
        let price = Money { amount: offer.price, asset: asset() };
        Terms { price, payee: offer.payee, scheme: SchemeName::TestToken }
    }

    fn digest(draft: &TokenDraft, _: &Payer) -> Option<[u8; 32]> {
        Some(digest(draft))
    }

    fn signing_request(draft: &TokenDraft, _: &Payer) -> Option<SigningRequest> {
        let values = vec![
            TypedValue::text("message", MESSAGE),
            TypedValue::address("payee", draft.payee),
            TypedValue::amount("price", draft.price),
            TypedValue { kind: "bytes32", name: "nonce", value: hex::encode_prefixed(draft.nonce) },
        ];
        Some(SigningRequest { digest: digest(draft), typed: TypedData::Values(values) })
    }

    fn attach(draft: &TokenDraft, payer: &Payer, signature: &Signature, headers: &mut HeaderMap) {
        let value = format!(
            "payer={}, nonce={}, signature={}",
            payer.address,
            hex::encode_prefixed(draft.nonce),
            signature.to_hex()
        );
        // Hexadecimal digits are always a valid header value.
        if let Ok(mut value) = HeaderValue::try_from(value) {
            value.set_sensitive(true);
            headers.insert(&PAYMENT, value);
        }
    }

    fn assess(answer: &Answer<'_>) -> Assessment {
        if answer.headers.contains_key(&RECEIPT) {
            return Assessment::Paid(Receipt::Stated);
        }
        match answer.status {
            StatusCode::PAYMENT_REQUIRED => Assessment::Asked,
            status if status.is_server_error() => Assessment::InDoubt,
            status if status.is_client_error() => Assessment::Paid(Receipt::NotCharged),
            _ => Assessment::Paid(Receipt::Unstated),
        }
    }
}

impl OneShot for TestToken {
    fn draw(offer: &TokenOffer, context: &DrawContext<'_>) -> Result<TokenDraft, Refusal> {
        Ok(TokenDraft { price: offer.price, payee: offer.payee, nonce: context.nonce })
    }

    fn judge(offer: &TokenOffer, presented: &TokenDraft, _: u64) -> Reply {
        if offer.payee != presented.payee {
            return Reply::Stop(Refusal::ReceiverChanged(offer.payee));
        }
        if offer.is_later { Reply::Later } else { Reply::Stop(Refusal::NotAccepted) }
    }
}

/// The digest that the payer signs.
#[must_use]
pub fn digest(draft: &TokenDraft) -> [u8; 32] {
    let TokenDraft { price, payee, nonce } = draft;
    let schema = keccak256(b"string messageaddress payeeuint192 pricebytes32 nonce");
    packed_digest(&schema, &[MESSAGE.as_bytes(), &payee.0, &price.to_be_bytes(), nonce].concat())
}

fn parse(offer: &HeaderValue, is_later: bool) -> Option<TokenOffer> {
    let (price, payee) = offer.to_str().ok()?.split_once(", ")?;
    let price = price.strip_prefix("price=")?.parse().ok()?;
    let payee = payee.strip_prefix("payee=")?.parse().ok()?;
    Some(TokenOffer { price, payee, is_later })
}
