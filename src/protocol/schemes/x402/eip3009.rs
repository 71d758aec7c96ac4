//! Authorizations that the token itself takes (EIP-3009): nothing has to be approved before.

use std::sync::LazyLock;

use ethers_core::utils::{hex, keccak256};
use serde::Serialize;
use serde_json::{Value, json};

use super::eip712::{Once, call, fields, number, word};
use super::offer::Requirement;
use crate::protocol::Address;
use crate::protocol::policy::TokenDomain;
use crate::protocol::schemes::UseQuery;

/// The hash of the EIP-712 type of a token's domain.
static DOMAIN_TYPE: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
});
/// The hash of the type of an authorization.
static AUTHORIZATION_TYPE: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(
        b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
    )
});

/// The signed fields in a payment; numbers are strings in both versions.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenAuthorization {
    from: Address,
    to: Address,
    value: String,
    valid_after: &'static str,
    valid_before: String,
    nonce: String,
}

impl TokenAuthorization {
    pub(super) fn of(requirement: &Requirement, once: Once, payer: Address) -> Self {
        Self {
            from: payer,
            to: requirement.payee,
            value: requirement.amount.to_string(),
            valid_after: "0",
            valid_before: once.valid_before.to_string(),
            nonce: hex::encode_prefixed(once.nonce),
        }
    }
}

/// The hashes of the domain and of the authorization.
pub(super) fn hashes(
    requirement: &Requirement,
    once: Once,
    domain: &TokenDomain,
    payer: Address,
) -> [[u8; 32]; 2] {
    let Requirement { chain_id, token, payee, amount, .. } = *requirement;
    let domain =
        [*DOMAIN_TYPE, keccak256(&domain.name), keccak256(&domain.version), number(chain_id), word(&token.0)];
    let authorization = [
        *AUTHORIZATION_TYPE,
        word(&payer.0),
        word(&payee.0),
        word(&amount.to_be_bytes()),
        number(0),
        number(once.valid_before),
        once.nonce,
    ];
    [keccak256(domain.concat()), keccak256(authorization.concat())]
}

/// The same in `eth_signTypedData_v4`.
pub(super) fn typed_data(
    requirement: &Requirement,
    once: Once,
    domain: &TokenDomain,
    payer: Address,
) -> Value {
    let Requirement { chain_id, token, payee, amount, .. } = *requirement;
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
            "name": domain.name,
            "version": domain.version,
            "chainId": chain_id,
            "verifyingContract": token,
        },
        "message": {
            "from": payer,
            "to": payee,
            "value": amount.to_string(),
            "validAfter": "0",
            "validBefore": once.valid_before.to_string(),
            "nonce": hex::encode_prefixed(once.nonce),
        },
    })
}

/// How the token tells whether the authorization with a nonce was used.
pub(super) fn use_query(requirement: &Requirement, nonce: [u8; 32], payer: Address) -> UseQuery {
    let arguments = [word(&payer.0), nonce];
    UseQuery {
        chain_id: requirement.chain_id,
        contract: requirement.token,
        call: call(b"authorizationState(address,bytes32)", &arguments),
        mask: [0xff; 32],
    }
}
