//! Authorizations that Permit2 takes, for tokens without EIP-3009: the payer lets Permit2 move its tokens once, by an
//! allowance (ERC-20), and then signs for each payment.
//!
//! The contract of x402 that is named as the spender moves exactly the amount that was signed, to the payee that was signed.
//!
//! A seller may offer to pay the fee of a signed allowance (the extension `eip2612GasSponsoring`). That is not used: such
//! an allowance replaces the one that is there, so that one payment would take the allowance of all later ones.

use std::sync::LazyLock;

use ethers_core::types::U256;
use ethers_core::utils::keccak256;
use serde::Serialize;
use serde_json::{Value, json};

use super::contracts::{EXACT_PROXY, PERMIT2};
use super::eip712::{Once, call, fields, number, word};
use super::offer::Requirement;
use crate::protocol::schemes::UseQuery;
use crate::protocol::{Address, Amount, AssetId, Money};

/// The hash of the EIP-712 type of Permit2's domain, which has no version.
static DOMAIN_TYPE: LazyLock<[u8; 32]> =
    LazyLock::new(|| keccak256(b"EIP712Domain(string name,uint256 chainId,address verifyingContract)"));
/// The hash of the type of what is signed: the types that it refers to follow in alphabetical order.
static PERMIT_TYPE: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(
        b"PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness)\
        TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)",
    )
});
static PERMISSIONS_TYPE: LazyLock<[u8; 32]> =
    LazyLock::new(|| keccak256(b"TokenPermissions(address token,uint256 amount)"));
static WITNESS_TYPE: LazyLock<[u8; 32]> =
    LazyLock::new(|| keccak256(b"Witness(address to,uint256 validAfter)"));

/// The signed fields in a payment, with their payer; numbers are strings.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Permit2Authorization {
    permitted: Permitted,
    from: Address,
    spender: Address,
    nonce: String,
    deadline: String,
    witness: Witness,
}

#[derive(Serialize)]
struct Permitted {
    token: Address,
    amount: Amount,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Witness {
    to: Address,
    valid_after: &'static str,
}

impl Permit2Authorization {
    pub(super) fn of(requirement: &Requirement, once: Once, payer: Address) -> Self {
        let Requirement { token, payee, amount, .. } = *requirement;
        Self {
            permitted: Permitted { token, amount },
            from: payer,
            spender: EXACT_PROXY,
            nonce: nonce(once),
            deadline: once.valid_before.to_string(),
            witness: Witness { to: payee, valid_after: "0" },
        }
    }
}

/// The command that lets Permit2 move this amount.
#[must_use]
pub fn approval(amount: &Money) -> String {
    let Money { amount, asset } = amount;
    match asset {
        AssetId::Token(token) => {
            format!("tollpass approve-token {} --network {} {amount}", token.token, token.network)
        }
        AssetId::ChannelToken => format!("tollpass approve-token TOKEN {amount}"),
    }
}

/// The nonce as a number: Permit2 takes each of a payer once, in any order.
fn nonce(once: Once) -> String {
    U256::from_big_endian(&once.nonce).to_string()
}

/// The hashes of the domain and of what is signed. The payer is not part of it.
pub(super) fn hashes(requirement: &Requirement, once: Once) -> [[u8; 32]; 2] {
    let Requirement { chain_id, token, payee, amount, .. } = *requirement;
    let domain = [*DOMAIN_TYPE, keccak256(b"Permit2"), number(chain_id), word(&PERMIT2.0)];
    let permitted = [*PERMISSIONS_TYPE, word(&token.0), word(&amount.to_be_bytes())];
    let witness = [*WITNESS_TYPE, word(&payee.0), number(0)];
    let permit = [
        *PERMIT_TYPE,
        keccak256(permitted.concat()),
        word(&EXACT_PROXY.0),
        once.nonce,
        number(once.valid_before),
        keccak256(witness.concat()),
    ];
    [keccak256(domain.concat()), keccak256(permit.concat())]
}

/// The same in `eth_signTypedData_v4`.
pub(super) fn typed_data(requirement: &Requirement, once: Once) -> Value {
    let Requirement { chain_id, token, payee, amount, .. } = *requirement;
    json!({
        "types": {
            "EIP712Domain": fields(&[("name", "string"), ("chainId", "uint256"), ("verifyingContract", "address")]),
            "PermitWitnessTransferFrom": fields(&[
                ("permitted", "TokenPermissions"), ("spender", "address"), ("nonce", "uint256"),
                ("deadline", "uint256"), ("witness", "Witness"),
            ]),
            "TokenPermissions": fields(&[("token", "address"), ("amount", "uint256")]),
            "Witness": fields(&[("to", "address"), ("validAfter", "uint256")]),
        },
        "primaryType": "PermitWitnessTransferFrom",
        "domain": {"name": "Permit2", "chainId": chain_id, "verifyingContract": PERMIT2},
        "message": {
            "permitted": {"token": token, "amount": amount.to_string()},
            "spender": EXACT_PROXY,
            "nonce": nonce(once),
            "deadline": once.valid_before.to_string(),
            "witness": {"to": payee, "validAfter": "0"},
        },
    })
}

/// How Permit2 tells whether a nonce was used: its last byte is the place of a bit in the word that the other bytes number.
pub(super) fn use_query(requirement: &Requirement, nonce: [u8; 32], payer: Address) -> UseQuery {
    let [rest @ .., place] = nonce;
    let mut mask = [0; 32];
    mask[31 - usize::from(place / 8)] = 1 << (place % 8);
    UseQuery {
        chain_id: requirement.chain_id,
        contract: PERMIT2,
        call: call(b"nonceBitmap(address,uint256)", &[word(&payer.0), word(&rest)]),
        mask,
    }
}
