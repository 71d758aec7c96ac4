//! Deploys the contracts on a development network and funds accounts, over JSON-RPC and from the first development
//! account. Works on our own chain and on other development nodes.

use std::time::Duration;

use ethers_core::abi::Token;
use ethers_core::types::{Bytes, H160, H256, TransactionReceipt, U64, U256};
use jsonrpsee::core::client::{ClientT, Error as RpcError};
use jsonrpsee::http_client::{HttpClient, HttpClientBuilder};
use jsonrpsee::rpc_params;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::accounts;
use super::contracts;
use super::contracts::NotInInterface;
use crate::protocol::{Address, Amount};

/// How long a transaction may take to be mined.
const MINED_WITHIN: Duration = Duration::from_secs(60);
/// How often to poll for its receipt.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What to deploy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The challenge period of a unilateral close, in blocks; at least 500 (the default).
    pub challenge_period: u32,
    /// Whether to deploy a second channel contract, on a token without ERC-223's transfer; false by default.
    pub is_plain_wanted: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { challenge_period: 500, is_plain_wanted: false }
    }
}

/// A channel contract and its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The token's address.
    pub token: Address,
    /// The channel contract's address.
    pub channel_manager: Address,
}

/// The deployed contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// The token with ERC-223's transfer.
    pub token: Address,
    /// Its channel contract.
    pub channel_manager: Address,
    /// The pair on the plain token, if requested.
    pub plain: Option<Deployment>,
    /// The block of the first contract, before which there are no relevant events.
    pub start_block: u64,
}

/// Why deploying or funding failed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The node cannot be reached, or returned an error.
    #[error("the development node returned an error: {0}")]
    Rpc(#[from] RpcError),
    /// The compiled contracts have a different ABI than expected.
    #[error(transparent)]
    Interface(#[from] NotInInterface),
    /// The transaction was mined but reverted.
    #[error("transaction {0:?} was reverted")]
    Reverted(H256),
    /// The transaction was not mined within a minute.
    #[error("transaction {0:?} is not mined after {MINED_WITHIN:?}")]
    NotMined(H256),
}

/// Deploys a token and a channel contract, and with `options.is_plain_wanted` a second pair.
pub async fn deploy(rpc_url: &str, options: Options) -> Result<Deployed, DeployError> {
    let client = HttpClientBuilder::default().build(rpc_url)?;
    let first = create(&client, contracts::token().creation(&[])?).await?;
    let token = created(&first)?;
    let channel_manager = create_manager(&client, token, options.challenge_period).await?;
    let plain = if options.is_plain_wanted {
        let token = created(&create(&client, contracts::plain_token().creation(&[])?).await?)?;
        let channel_manager = create_manager(&client, token, options.challenge_period).await?;
        Some(Deployment { token, channel_manager })
    } else {
        None
    };
    let start_block = first.block_number.unwrap_or_default().as_u64();
    Ok(Deployed { token, channel_manager, plain, start_block })
}

/// Deploys the token with EIP-3009; returns its address.
pub async fn deploy_authorized_token(rpc_url: &str) -> Result<Address, DeployError> {
    let client = HttpClientBuilder::default().build(rpc_url)?;
    created(&create(&client, contracts::authorized_token().creation(&[])?).await?)
}

/// Transfers ether (in wei) and an amount of each token in `tokens` (in base units) to `account`.
pub async fn fund(
    rpc_url: &str,
    account: Address,
    ether: U256,
    tokens: &[(Address, Amount)],
) -> Result<(), DeployError> {
    let client = HttpClientBuilder::default().build(rpc_url)?;
    if !ether.is_zero() {
        send(&client, Some(account.into()), Bytes::new(), ether).await?;
    }
    for (token, amount) in tokens {
        let arguments = [Token::Address(account.into()), Token::Uint((*amount).into())];
        let data = contracts::token().call("mint", &arguments)?;
        send(&client, Some((*token).into()), data, U256::zero()).await?;
    }
    Ok(())
}

async fn create_manager(
    client: &HttpClient,
    token: Address,
    challenge_period: u32,
) -> Result<Address, DeployError> {
    let arguments =
        [Token::Address(token.into()), Token::Uint(challenge_period.into()), Token::Array(Vec::new())];
    let creation = contracts::channel_manager().creation(&arguments)?;
    created(&create(client, creation).await?)
}

async fn create(client: &HttpClient, creation: Bytes) -> Result<TransactionReceipt, DeployError> {
    send(client, None, creation, U256::zero()).await
}

fn created(receipt: &TransactionReceipt) -> Result<Address, DeployError> {
    receipt.contract_address.map(Address::from).ok_or(DeployError::Reverted(receipt.transaction_hash))
}

/// Sends a transaction from the first development account and waits until it is mined.
pub(super) async fn send(
    client: &HttpClient,
    to: Option<H160>,
    data: Bytes,
    value: U256,
) -> Result<TransactionReceipt, DeployError> {
    let mut transaction = json!({ "from": accounts::addresses().first(), "data": data, "value": value });
    if let Some(to) = to {
        transaction["to"] = json!(to);
    }
    let hash: H256 = client.request("eth_sendTransaction", rpc_params![transaction]).await?;
    let deadline = Instant::now() + MINED_WITHIN;
    loop {
        let receipt: Option<TransactionReceipt> =
            client.request("eth_getTransactionReceipt", rpc_params![hash]).await?;
        match receipt {
            Some(receipt) if receipt.status == Some(U64::one()) => return Ok(receipt),
            Some(_) => return Err(DeployError::Reverted(hash)),
            None if Instant::now() >= deadline => return Err(DeployError::NotMined(hash)),
            None => sleep(POLL_INTERVAL).await,
        }
    }
}
