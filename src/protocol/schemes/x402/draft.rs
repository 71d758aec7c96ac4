//! The payment: an EIP-3009 authorization of the token, which anyone can redeem once, for the payee alone.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ethers_core::types::U256;
use ethers_core::utils::{hex, keccak256};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::headers::{PAYMENT_SIGNATURE, X_PAYMENT};
use super::offer::{Requirement, X402Version, requirement};
use crate::protocol::policy::TokenDomain;
use crate::protocol::{Address, Signature};

/// The hash of the EIP-712 type of a token's domain.
static DOMAIN_TYPE: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
});
/// The hash of the type of an authorization (EIP-3009).
static AUTHORIZATION_TYPE: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(
        b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
    )
});

/// An authorization to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactDraft {
    /// What it pays.
    pub requirement: Arc<Requirement>,
    /// The EIP-712 domain of the token, as the user or this program knows it.
    pub domain: TokenDomain,
    /// Makes it unique: the token takes each nonce of a payer once.
    pub nonce: [u8; 32],
    /// When it expires, in seconds since 1970.
    pub valid_before: u64,
}

/// What the journal keeps of it, in JSON.
#[derive(Deserialize, Serialize)]
struct Stored<'a> {
    version: u8,
    #[serde(borrow)]
    entry: &'a RawValue,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    identifier: Option<&'a RawValue>,
    name: String,
    token_version: String,
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
    payload: Payload,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Payload {
    signature: String,
    authorization: Authorized,
}

/// The signed fields; numbers are strings in both versions.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authorized {
    from: Address,
    to: Address,
    value: String,
    valid_after: &'static str,
    valid_before: String,
    nonce: String,
}

impl ExactDraft {
    /// The EIP-712 digest that the payer signs.
    pub(super) fn digest(&self, payer: Address) -> [u8; 32] {
        let Requirement { chain_id, token, payee, amount, .. } = *self.requirement;
        let domain = [
            *DOMAIN_TYPE,
            keccak256(&self.domain.name),
            keccak256(&self.domain.version),
            number(chain_id),
            word(&token.0),
        ];
        let authorization = [
            *AUTHORIZATION_TYPE,
            word(&payer.0),
            word(&payee.0),
            word(&amount.to_be_bytes()),
            number(0),
            number(self.valid_before),
            self.nonce,
        ];
        let parts = [b"\x19\x01".as_slice(), &keccak256(domain.concat()), &keccak256(authorization.concat())];
        keccak256(parts.concat())
    }

    /// What it is the digest of, as in `eth_signTypedData_v4`.
    pub(super) fn typed_data(&self, payer: Address) -> Value {
        let fields = |fields: &[(&str, &str)]| {
            let field = |(name, kind): &(&str, &str)| json!({"name": name, "type": kind});
            fields.iter().map(field).collect::<Value>()
        };
        let Requirement { chain_id, token, payee, amount, .. } = *self.requirement;
        json!({
            "types": {
                "EIP712Domain": fields(&[
                    ("name", "string"), ("version", "string"), ("chainId", "uint256"), ("verifyingContract", "address"),
                ]),
                "TransferWithAuthorization": fields(&[
                    ("from", "address"), ("to", "address"), ("value", "uint256"), ("validAfter", "uint256"),
                    ("validBefore", "uint256"), ("nonce", "bytes32"),
                ]),
            },
            "primaryType": "TransferWithAuthorization",
            "domain": {
                "name": self.domain.name,
                "version": self.domain.version,
                "chainId": chain_id,
                "verifyingContract": token,
            },
            "message": {
                "from": payer,
                "to": payee,
                "value": amount.to_string(),
                "validAfter": "0",
                "validBefore": self.valid_before.to_string(),
                "nonce": hex::encode_prefixed(self.nonce),
            },
        })
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
        let payload = Payload {
            signature: signature.to_hex(),
            authorization: Authorized {
                from: payer,
                to: requirement.payee,
                value: requirement.amount.to_string(),
                valid_after: "0",
                valid_before: self.valid_before.to_string(),
                nonce: hex::encode_prefixed(self.nonce),
            },
        };
        match requirement.version {
            X402Version::V1 => {
                let network = Some(&*requirement.network);
                let (scheme, accepted, extensions) = (Some("exact"), None, None);
                (&X_PAYMENT, PresentedPayment { version: 1, scheme, network, accepted, payload, extensions })
            }
            X402Version::V2 => {
                // It has been read as JSON before.
                let accepted = serde_json::from_str(&requirement.entry).ok();
                let (scheme, network, extensions) = (None, None, self.extensions());
                (
                    &PAYMENT_SIGNATURE,
                    PresentedPayment { version: 2, scheme, network, accepted, payload, extensions },
                )
            }
        }
    }

    /// The extension `payment-identifier` with an ID, if the seller offers that.
    fn extensions(&self) -> Option<serde_json::Value> {
        let mut identifier: serde_json::Value =
            serde_json::from_str(self.requirement.identifier.as_deref()?).ok()?;
        identifier.get_mut("info")?.as_object_mut()?.insert("id".to_owned(), hex::encode(self.nonce).into());
        Some(serde_json::json!({ "payment-identifier": identifier }))
    }

    /// What the journal keeps of it beside the nonce.
    pub(in crate::protocol::schemes) fn to_stored(&self) -> Option<String> {
        let Requirement { version, entry, identifier, .. } = &*self.requirement;
        let stored = Stored {
            version: if *version == X402Version::V1 { 1 } else { 2 },
            entry: serde_json::from_str(entry).ok()?,
            identifier: identifier.as_deref().and_then(|json| serde_json::from_str(json).ok()),
            name: self.domain.name.clone(),
            token_version: self.domain.version.clone(),
            valid_before: self.valid_before,
        };
        serde_json::to_string(&stored).ok()
    }

    /// The draft that the journal kept; `None` if it cannot be read.
    pub(in crate::protocol::schemes) fn from_stored(nonce: [u8; 32], json: &str) -> Option<Self> {
        let Stored { version, entry, identifier, name, token_version, valid_before } =
            serde_json::from_str(json).ok()?;
        let wire = if version == 1 { X402Version::V1 } else { X402Version::V2 };
        let requirement = requirement(entry.get(), wire, identifier.map(RawValue::get)).ok()?;
        let domain = TokenDomain { name, version: token_version };
        Some(Self { requirement: Arc::new(requirement), domain, nonce, valid_before })
    }
}

/// 32 bytes, padded on the left.
fn word(bytes: &[u8]) -> [u8; 32] {
    let mut word = [0; 32];
    word[32 - bytes.len()..].copy_from_slice(bytes);
    word
}

fn number(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    U256::from(number).to_big_endian(&mut word);
    word
}
