//! A resource that is paid for by x402 (version 2, `exact`): the seller settles each authorization on the chain itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ethers_core::abi::Token;
use ethers_core::types::{Bytes, H256, U256};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::http_client::{HttpClient, HttpClientBuilder};
use jsonrpsee::rpc_params;
use serde::Deserialize;
use serde_json::json;

use super::error::SellerStartError;
use super::resources::{ResourceBody, plain};
use crate::devnet::contracts;
use crate::devnet::deploy;
use crate::devnet::deploy::DeployError;
use crate::protocol::schemes::x402::headers::{PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE};
use crate::protocol::{Address, Amount};

/// How long a payment has to be valid, in seconds.
const MAX_TIMEOUT: u64 = 60;

/// What is sold for authorizations of a token.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizedSale {
    /// The token, with EIP-3009.
    pub token: Address,
    /// The price, in its base units.
    pub price: Amount,
    /// The chain ID.
    pub chain_id: u64,
}

/// Sells one resource.
pub(super) struct AuthorizedShop {
    sale: AuthorizedSale,
    payee: Address,
    client: HttpClient,
}

/// A payment, as far as the seller reads it.
#[derive(Deserialize)]
struct PresentedAuthorization {
    payload: AuthorizedPayload,
}

#[derive(Deserialize)]
struct AuthorizedPayload {
    signature: Bytes,
    authorization: AuthorizedFields,
}

/// Numbers are decimal strings.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizedFields {
    from: Address,
    to: Address,
    value: Amount,
    valid_after: Amount,
    valid_before: Amount,
    nonce: H256,
}

impl AuthorizedShop {
    pub(super) fn new(sale: AuthorizedSale, payee: Address, rpc_url: &str) -> Result<Self, SellerStartError> {
        let client = HttpClientBuilder::default()
            .build(rpc_url)
            .map_err(|error| SellerStartError::Node { url: rpc_url.to_owned(), reason: error.to_string() })?;
        Ok(Self { sale, payee, client })
    }

    /// Settles the payment of a request and serves it, or responds with the offer.
    pub(super) async fn answer(&self, headers: &HeaderMap) -> Response<ResourceBody> {
        let Some(value) = headers.get(&PAYMENT_SIGNATURE) else { return self.offer("Payment required") };
        let payment = STANDARD.decode(value).ok();
        let payment = payment.and_then(|json| serde_json::from_slice::<PresentedAuthorization>(&json).ok());
        let Some(PresentedAuthorization { payload }) = payment else { return self.offer("Payment required") };
        if payload.authorization.value != self.sale.price {
            return self.offer("invalid_exact_evm_payload_authorization_value_mismatch");
        }
        if payload.authorization.to != self.payee {
            return self.offer("invalid_exact_evm_recipient_mismatch");
        }
        match self.is_used(&payload.authorization).await {
            Ok(false) => {}
            Ok(true) => return self.offer("invalid_exact_evm_nonce_already_used"),
            Err(error) => return failed(&error),
        }
        match self.settle(&payload).await {
            Ok(transaction) => {
                tracing::info!(price = %self.sale.price, payer = %payload.authorization.from, "paid");
                let text = "This text was paid for with an authorization of a token.\n".to_owned();
                let mut response = plain(StatusCode::OK, text);
                let receipt = json!({
                    "success": true,
                    "payer": payload.authorization.from,
                    "transaction": transaction,
                    "network": self.network(),
                });
                set(response.headers_mut(), &PAYMENT_RESPONSE, &receipt);
                response
            }
            Err(DeployError::Rpc(_) | DeployError::Reverted(_)) => {
                self.offer("invalid_exact_evm_transaction_simulation_failed")
            }
            Err(error) => failed(&error),
        }
    }

    async fn is_used(&self, fields: &AuthorizedFields) -> Result<bool, DeployError> {
        let arguments = [Token::Address(fields.from.into()), Token::FixedBytes(fields.nonce.0.to_vec())];
        let data = contracts::authorized_token().call("authorizationState", &arguments)?;
        let call = json!({ "to": self.sale.token, "data": data });
        let answer: U256 = self.client.request("eth_call", rpc_params![call, "latest"]).await?;
        Ok(!answer.is_zero())
    }

    /// Submits the authorization from a development account; returns the hash of the transaction.
    async fn settle(&self, payload: &AuthorizedPayload) -> Result<H256, DeployError> {
        let AuthorizedFields { from, to, value, valid_after, valid_before, nonce } = &payload.authorization;
        let arguments = [
            Token::Address((*from).into()),
            Token::Address((*to).into()),
            Token::Uint((*value).into()),
            Token::Uint((*valid_after).into()),
            Token::Uint((*valid_before).into()),
            Token::FixedBytes(nonce.0.to_vec()),
            Token::Bytes(payload.signature.to_vec()),
        ];
        let data = contracts::authorized_token().call("transferWithAuthorization", &arguments)?;
        let receipt = deploy::send(&self.client, Some(self.sale.token.into()), data, U256::zero()).await?;
        Ok(receipt.transaction_hash)
    }

    fn offer(&self, error: &str) -> Response<ResourceBody> {
        let offers = json!({
            "x402Version": 2,
            "error": error,
            "accepts": [{
                "scheme": "exact",
                "network": self.network(),
                "amount": self.sale.price.to_string(),
                "asset": self.sale.token,
                "payTo": self.payee,
                "maxTimeoutSeconds": MAX_TIMEOUT,
                "extra": {"name": contracts::AUTHORIZED_NAME, "version": contracts::AUTHORIZED_VERSION},
            }],
        });
        let text = "Payment required. See the header PAYMENT-REQUIRED, which is JSON in base64.\n".to_owned();
        let mut response = plain(StatusCode::PAYMENT_REQUIRED, text);
        set(response.headers_mut(), &PAYMENT_REQUIRED, &offers);
        response
    }

    fn network(&self) -> String {
        format!("eip155:{}", self.sale.chain_id)
    }
}

fn failed(error: &DeployError) -> Response<ResourceBody> {
    tracing::warn!(%error, "the seller cannot settle a payment");
    plain(StatusCode::BAD_GATEWAY, "The seller cannot reach its chain.\n".to_owned())
}

fn set(headers: &mut HeaderMap, name: &'static http::HeaderName, json: &serde_json::Value) {
    // Base64 is a valid header value.
    if let Ok(value) = HeaderValue::try_from(STANDARD.encode(json.to_string())) {
        headers.insert(name, value);
    }
}
