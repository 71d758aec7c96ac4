//! The payment: an authorization that anyone can redeem once, for the payee alone.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ethers_core::utils::{hex, keccak256};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::eip712::Once;
use super::eip3009::{self, TokenAuthorization};
use super::headers::{PAYMENT_SIGNATURE, X_PAYMENT};
use super::offer::{Requirement, TransferMethod, X402Version, identified, requirement};
use super::permit2::{self, Permit2Authorization};
use crate::protocol::policy::TokenDomain;
use crate::protocol::schemes::UseQuery;
use crate::protocol::{Address, Signature};

/// An authorization to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactDraft {
    /// What it pays.
    pub requirement: Arc<Requirement>,
    /// The contract that takes the signature.
    pub verifier: Verifier,
    /// Makes it unique: the contract takes each nonce of a payer once.
    pub nonce: [u8; 32],
    /// When it expires, in seconds since 1970.
    pub valid_before: u64,
}

/// The contract that takes a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// The token itself (EIP-3009), with its EIP-712 domain as the user or this program knows it.
    Token(TokenDomain),
    /// Permit2, which is the same on all networks, and moves all tokens.
    Permit2,
}

/// What the journal keeps of it, in JSON.
#[derive(Deserialize, Serialize)]
struct Stored<'a> {
    version: u8,
    #[serde(borrow)]
    entry: &'a RawValue,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    identifier: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    resource: Option<&'a RawValue>,
    /// These two are there if the token itself takes the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_version: Option<String>,
    valid_before: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PresentedPayment<'a> {
    #[serde(rename = "x402Version")]
    version: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a RawValue>,
    payload: Payload,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Payload {
    signature: String,
    #[serde(flatten)]
    signed: SignedFields,
}

/// The signed fields.
#[derive(Serialize)]
enum SignedFields {
    #[serde(rename = "authorization")]
    Token(TokenAuthorization),
    #[serde(rename = "permit2Authorization")]
    Permit2(Permit2Authorization),
}

impl ExactDraft {
    fn once(&self) -> Once {
        Once { nonce: self.nonce, valid_before: self.valid_before }
    }

    /// The EIP-712 digest that the payer signs.
    pub(super) fn digest(&self, payer: Address) -> [u8; 32] {
        let [domain, fields] = match &self.verifier {
            Verifier::Token(domain) => eip3009::hashes(&self.requirement, self.once(), domain, payer),
            Verifier::Permit2 => permit2::hashes(&self.requirement, self.once()),
        };
        keccak256([b"\x19\x01".as_slice(), &domain, &fields].concat())
    }

    /// What it is the digest of, as in `eth_signTypedData_v4`.
    pub(super) fn typed_data(&self, payer: Address) -> Value {
        match &self.verifier {
            Verifier::Token(domain) => eip3009::typed_data(&self.requirement, self.once(), domain, payer),
            Verifier::Permit2 => permit2::typed_data(&self.requirement, self.once()),
        }
    }

    /// How the contract tells whether it was used. It also says so of one that was canceled, which tollpass never does.
    pub(in crate::protocol::schemes) fn use_query(&self, payer: Address) -> UseQuery {
        match &self.verifier {
            Verifier::Token(_) => eip3009::use_query(&self.requirement, self.nonce, payer),
            Verifier::Permit2 => permit2::use_query(&self.requirement, self.nonce, payer),
        }
    }

    /// Sets the header that presents it.
    pub(super) fn attach(&self, payer: Address, signature: &Signature, headers: &mut HeaderMap) {
        let (name, payment) = self.payment(payer, signature);
        // JSON of a payment always serializes, and base64 is always a valid header value.
        let Ok(json) = serde_json::to_vec(&payment) else { return };
        if let Ok(mut value) = HeaderValue::try_from(STANDARD.encode(json)) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }

    fn payment(&self, payer: Address, signature: &Signature) -> (&'static HeaderName, PresentedPayment<'_>) {
        let requirement = &self.requirement;
        let mut signature = *signature;
        if signature.0[64] < 27 {
            signature.0[64] += 27;
        }
        let signed = match &self.verifier {
            Verifier::Token(_) => {
                SignedFields::Token(TokenAuthorization::of(requirement, self.once(), payer))
            }
            Verifier::Permit2 => {
                SignedFields::Permit2(Permit2Authorization::of(requirement, self.once(), payer))
            }
        };
        let payload = Payload { signature: signature.to_hex(), signed };
        match requirement.version {
            X402Version::V1 => {
                let network = Some(&*requirement.network);
                let (scheme, accepted, resource, extensions) = (Some("exact"), None, None, None);
                (
                    &X_PAYMENT,
                    PresentedPayment { version: 1, scheme, network, accepted, resource, payload, extensions },
                )
            }
            X402Version::V2 => {
                // It has been read as JSON before.
                let accepted = serde_json::from_str(&requirement.entry).ok();
                let resource =
                    requirement.resource.as_deref().and_then(|json| serde_json::from_str(json).ok());
                let (scheme, network, extensions) = (None, None, self.extensions());
                (
                    &PAYMENT_SIGNATURE,
                    PresentedPayment { version: 2, scheme, network, accepted, resource, payload, extensions },
                )
            }
        }
    }

    /// The extension `payment-identifier` with an ID, if the seller offers that.
    fn extensions(&self) -> Option<serde_json::Value> {
        let identifier = identified(self.requirement.identifier.as_deref()?, &hex::encode(self.nonce))?;
        Some(serde_json::json!({ "payment-identifier": identifier }))
    }

    /// What the journal keeps of it beside the nonce.
    pub(in crate::protocol::schemes) fn to_stored(&self) -> Option<String> {
        let Requirement { version, entry, identifier, resource, .. } = &*self.requirement;
        let domain = match &self.verifier {
            Verifier::Token(domain) => Some(domain.clone()),
            Verifier::Permit2 => None,
        };
        let (name, token_version) = domain.map(|domain| (domain.name, domain.version)).unzip();
        let stored = Stored {
            version: if *version == X402Version::V1 { 1 } else { 2 },
            entry: serde_json::from_str(entry).ok()?,
            identifier: identifier.as_deref().and_then(|json| serde_json::from_str(json).ok()),
            resource: resource.as_deref().and_then(|json| serde_json::from_str(json).ok()),
            name,
            token_version,
            valid_before: self.valid_before,
        };
        serde_json::to_string(&stored).ok()
    }

    /// The draft that the journal kept; `None` if it cannot be read.
    pub(in crate::protocol::schemes) fn from_stored(nonce: [u8; 32], json: &str) -> Option<Self> {
        let Stored { version, entry, identifier, resource, name, token_version, valid_before } =
            serde_json::from_str(json).ok()?;
        let wire = if version == 1 { X402Version::V1 } else { X402Version::V2 };
        let requirement = requirement(entry.get(), wire, identifier.map(RawValue::get)).ok()?;
        let requirement = Requirement { resource: resource.map(|json| json.get().into()), ..requirement };
        let verifier = match requirement.method {
            TransferMethod::Eip3009 => Verifier::Token(TokenDomain { name: name?, version: token_version? }),
            TransferMethod::Permit2 => Verifier::Permit2,
        };
        Some(Self { requirement: Arc::new(requirement), verifier, nonce, valid_before })
    }
}
