//! x402, versions 1 and 2: the scheme `exact` on EVM networks.
//!
//! A seller responds 402 with offers, in the header `PAYMENT-REQUIRED` (version 2) or in a JSON body (version 1). A payment is
//! an authorization that the seller's facilitator redeems: of the token itself (EIP-3009) or, for other tokens, of Permit2.
//! What a response says about a payment is a claim: only the chain knows whether it was redeemed, so that the same payment
//! is presented again while that is unclear.
//!
//! Source: <https://github.com/x402-foundation/x402>, <https://github.com/Uniswap/permit2>, and EIP-3009 and EIP-712.

mod contracts;
mod draft;
mod eip3009;
mod eip712;
mod encoding;
pub mod headers;
mod malformed;
mod network;
mod offer;
mod permit2;
mod receipt;
mod sign_in;
mod stated_error;
#[cfg(test)]
mod tests;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, StatusCode, Uri};

pub use contracts::PERMIT2;
pub use draft::{ExactDraft, Verifier};
pub use malformed::MalformedExactOffer;
pub use offer::{ExactOffer, Requirement, TransferMethod};
pub use sign_in::SignIn;
pub use stated_error::StatedError;

use offer::{LEAST_VALIDITY, LONGEST_NAME, OffersRead, X402Version};

use super::{Assessment, DrawContext, OneShot, Payer, Receipt, Reply, Scheme, SchemeName};
use crate::protocol::asset::Money;
use crate::protocol::policy::KnownAsset;
use crate::protocol::safe_text::safe_text;
use crate::protocol::terms::Terms;
use crate::protocol::{Answer, Refusal, Signature, SigningRequest, TypedData};

/// The largest difference between the seller's clock and ours that is not worth mentioning, in seconds.
const CLOCK_TOLERANCE: u64 = 30;

/// The offers of a response that cannot be paid, and why; each is safe to show.
pub(super) fn unsupported(answer: &Answer<'_>) -> Vec<String> {
    match offer::read(answer) {
        Some(Ok(read)) => read.others,
        Some(Err(_)) | None => Vec::new(),
    }
}

/// What a receipt states.
pub(super) fn statement(answer: &Answer<'_>, with_signed: bool) -> Option<String> {
    receipt::statement(answer.headers, with_signed)
}

/// Two members of every offer, also of one in the result of an MCP tool (x402's transport for MCP).
pub(super) const WORDS_OF_OFFERS: [&str; 2] = ["x402Version", "accepts"];

/// Whether a seller of version 1 may have answered a browser with its page.
pub(super) fn may_hide_offers(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::PAYMENT_REQUIRED
        && !offer::is_in_header(headers)
        && has_content_type(headers, "text/html")
}

fn has_content_type(headers: &HeaderMap, kind: &str) -> bool {
    content_type(headers).get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

/// Whether the body is JSON, also of a more special kind (RFC 6839).
fn has_json(headers: &HeaderMap) -> bool {
    let kind = content_type(headers).split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().trim_start()
}

/// Whether the seller wants another payment than one that it was presented, for the first time, before it asked. Where it may
/// have tried to settle that one, only other terms show it.
pub(super) fn outdates(offer: &ExactOffer, presented: &ExactDraft) -> bool {
    match &offer.error {
        StatedError::AlreadyUsed => false,
        // It may want it to be valid for longer than those that are sent ahead.
        StatedError::Refused(_) => offer.requirement != presented.requirement || offer.error.is_about_time(),
        // Something between may have lost the response to the payment.
        StatedError::NoPayment | StatedError::AllowanceRequired | StatedError::Unclear(_) => {
            let price = Money { amount: offer.requirement.amount, asset: offer.requirement.asset.clone() };
            price != presented.price() || offer.requirement.payee != presented.requirement.payee
        }
    }
}

/// The scheme.
#[derive(Clone, Copy, Debug)]
pub enum Exact {}

impl Scheme for Exact {
    type Offer = ExactOffer;
    type Draft = ExactDraft;
    type Malformed = MalformedExactOffer;

    const PUBLIC_HEADERS: &'static [&'static HeaderName] =
        &[&headers::PAYMENT_REQUIRED, &headers::PAYMENT_RESPONSE, &headers::X_PAYMENT_RESPONSE];

    fn wants_body(status: StatusCode, headers: &HeaderMap) -> bool {
        status == StatusCode::PAYMENT_REQUIRED && !offer::is_in_header(headers) && has_json(headers)
    }

    fn is_payment_name(name: &[u8]) -> bool {
        headers::ALL.iter().any(|known| known.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    fn read(answer: &Answer<'_>) -> Option<Result<Vec<ExactOffer>, MalformedExactOffer>> {
        if answer.status != StatusCode::PAYMENT_REQUIRED && !lacks_allowance(answer) {
            return None;
        }
        let read = offer::read(answer)?;
        Some(read.and_then(|OffersRead { offers, others }| {
            if !offers.is_empty() {
                return Ok(offers);
            }
            Err(MalformedExactOffer::NoneSupported(others))
        }))
    }

    fn terms(offer: &ExactOffer) -> Terms {
        let Requirement { amount, asset, payee, .. } = &*offer.requirement;
        let price = Money { amount: *amount, asset: asset.clone() };
        Terms { price, payee: *payee, scheme: SchemeName::X402 }
    }

    fn digest(draft: &ExactDraft, payer: &Payer) -> Option<[u8; 32]> {
        Some(draft.digest(payer.address))
    }

    fn signing_request(draft: &ExactDraft, payer: &Payer) -> Option<SigningRequest> {
        let typed = TypedData::Eip712(draft.typed_data(payer.address));
        Some(SigningRequest { digest: draft.digest(payer.address), typed })
    }

    fn attach(draft: &ExactDraft, payer: &Payer, signature: &Signature, headers: &mut HeaderMap) {
        draft.attach(payer.address, signature, headers);
    }

    fn assess(answer: &Answer<'_>) -> Assessment {
        let receipt = receipt::read(answer.headers);
        match (answer.status, receipt) {
            (status, Some(receipt)) if receipt.success && status.is_server_error() => Assessment::Taken,
            (_, Some(receipt)) if receipt.success => Assessment::Paid(Receipt::Stated),
            (StatusCode::PAYMENT_REQUIRED, None) if offer::is_in_header(answer.headers) => Assessment::Asked,
            (_, None) if lacks_allowance(answer) => Assessment::Asked,
            (StatusCode::PAYMENT_REQUIRED, None) if Self::wants_body(answer.status, answer.headers) => {
                Assessment::Asked
            }
            // The settlement failed, or its outcome was lost: it may still happen.
            (StatusCode::PAYMENT_REQUIRED, _) => Assessment::Unclear,
            (status, _) if status.is_server_error() => Assessment::Unclear,
            // A seller settles what it serves: whether it served is not known without a receipt.
            (status, _) if status.is_client_error() || status.is_redirection() => Assessment::InDoubt,
            // Served although the settlement failed: as above.
            (_, Some(_)) => Assessment::InDoubt,
            (_, None) => Assessment::Paid(Receipt::Unstated),
        }
    }
}

/// Whether a response to a payment repeats the offers with 412 in place of 402, as sellers do if Permit2's allowance is too
/// small. That says nothing without a payment: a request's own preconditions can fail, too.
fn lacks_allowance(answer: &Answer<'_>) -> bool {
    answer.status == StatusCode::PRECONDITION_FAILED && offer::is_in_header(answer.headers)
}

impl OneShot for Exact {
    fn draw(offer: &ExactOffer, context: &DrawContext<'_>) -> Result<ExactDraft, Refusal> {
        let requirement = &offer.requirement;
        let verifier = offer.verifier(context.asset)?;
        let validity = requirement.max_timeout.min(context.max_validity);
        Ok(ExactDraft {
            requirement: offer.requirement.clone(),
            verifier,
            nonce: context.nonce,
            valid_before: context.now.saturating_add(validity),
        })
    }

    fn judge(offer: &ExactOffer, presented: &ExactDraft, now: u64) -> Reply {
        match &offer.error {
            StatedError::AlreadyUsed => Reply::Taken,
            StatedError::Refused(reason) => {
                let skew = offer.date.map_or(0, |date| date.abs_diff(now));
                if offer.error.is_about_time() && skew > CLOCK_TOLERANCE {
                    return Reply::Stop(Refusal::ClockSkew { seconds: skew });
                }
                Reply::Stop(Refusal::SellerRefused { reason: reason.clone() })
            }
            // It stays open, since it is good once there is an allowance.
            StatedError::AllowanceRequired if presented.verifier == Verifier::Permit2 => {
                Reply::Stop(Refusal::NoAllowance { command: permit2::approval(&presented.price()).into() })
            }
            StatedError::NoPayment | StatedError::AllowanceRequired | StatedError::Unclear(_) => {
                if offer.requirement.payee == presented.requirement.payee {
                    Reply::Unclear
                } else {
                    Reply::Stop(Refusal::ReceiverChanged(offer.requirement.payee))
                }
            }
        }
    }
}

impl ExactOffer {
    /// The challenge of the 402 with this offer, if there is one for the origin of `url`.
    pub(super) fn sign_in(&self, headers: &HeaderMap, url: &Uri) -> Option<SignIn> {
        let Requirement { version, chain_id, .. } = *self.requirement;
        if version == X402Version::V2 { SignIn::read(headers, url, chain_id) } else { None }
    }

    /// What holds for the next request, too.
    pub(super) fn as_quote(&self) -> Self {
        let (requirement, error) = (self.requirement.clone(), StatedError::NoPayment);
        Self { requirement, error, date: None, has_sign_in: self.has_sign_in, signed: None }
    }

    /// What the seller has signed of it, as JSON in printable ASCII.
    pub(super) fn statement(&self) -> Option<String> {
        self.signed.as_deref().map(|signed| safe_text(signed, receipt::LONGEST_STATEMENT))
    }

    /// The contract that takes the signature of a payment.
    ///
    /// # Errors
    /// It is the token, and its EIP-712 domain is not known, or the seller claims another one.
    pub(super) fn verifier(&self, known: Option<&KnownAsset>) -> Result<Verifier, Refusal> {
        if self.requirement.method == TransferMethod::Permit2 {
            return Ok(Verifier::Permit2);
        }
        let Some(domain) = known.and_then(|known| known.domain.as_ref()) else {
            return Err(Refusal::NoTokenDomain { asset: Box::new(self.requirement.asset.clone()) });
        };
        // The facilitator would refuse it, and the seller would hold a payment that it cannot use today.
        let Requirement { claimed_name, claimed_version, .. } = &*self.requirement;
        let claims = [("name", claimed_name, &domain.name), ("version", claimed_version, &domain.version)];
        let wrong = claims.into_iter().find_map(|(what, claimed, known)| {
            let claimed = claimed.as_deref().filter(|claimed| *claimed != known)?;
            Some((format!("{what} {}", safe_text(claimed, LONGEST_NAME)), known.as_str()))
        });
        match wrong {
            None => Ok(Verifier::Token(domain.clone())),
            Some((claimed, known)) => {
                Err(Refusal::TokenNamedWrongly { claimed: claimed.into(), known: known.into() })
            }
        }
    }

    /// What must have been done before a payment can succeed, if anything.
    pub(super) fn condition(&self) -> Option<String> {
        let Requirement { method, asset, amount, .. } = &*self.requirement;
        (*method == TransferMethod::Permit2).then(|| {
            let price = Money { amount: *amount, asset: asset.clone() };
            format!("if Permit2 may move the price: `{}` lets it", permit2::approval(&price))
        })
    }
}

impl ExactDraft {
    /// The price.
    #[must_use]
    pub fn price(&self) -> Money {
        Money { amount: self.requirement.amount, asset: self.requirement.asset.clone() }
    }

    /// Whether the facilitator can still take it.
    #[must_use]
    pub fn is_usable(&self, now: u64) -> bool {
        now.saturating_add(LEAST_VALIDITY) <= self.valid_before
    }
}
