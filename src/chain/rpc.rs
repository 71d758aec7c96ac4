//! JSON-RPC to one node over http or https. This module knows methods and limits, nothing of contracts or money.
//!
//! Reads are harmless and are retried with exponential backoff after transient errors. A transaction is submitted once;
//! the caller finds out what an error means.
//!
//! A node's URL often contains a password or a key, so it stays in this module. Errors name scheme, host and port, and
//! messages of the node or the network are stripped of secrets.

mod answers;
mod node_name;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ethers_core::types::{Address as H160, Bytes, H256, Log, U64, U256};
use jsonrpsee::core::client::{ClientT, Error as ClientError};
use jsonrpsee::core::http_helpers::HttpError;
use jsonrpsee::core::params::ArrayParams;
use jsonrpsee::http_client::transport::Error as TransportError;
use jsonrpsee::http_client::{HttpClient, HttpClientBuilder, RpcService, RpcServiceBuilder};
use jsonrpsee::rpc_params;
use jsonrpsee::types::ErrorObjectOwned;
use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceBuilder;

use crate::chain::error::ChainError;
use crate::chain::refusal;
use crate::error_chain::with_causes;
use crate::histogram::Histogram;
use answers::{Answers, AnswersLayer, MAX_ANSWER, Odd};
use node_name::NodeName;

/// The first pause before a read is retried; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long nodes took to respond, or to fail.
pub static NODE_LATENCY: Histogram = Histogram::new();
/// How many requests to nodes had no usable response.
pub static NODE_ERRORS: AtomicU64 = AtomicU64::new(0);

/// A node; cheap to clone.
#[derive(Clone)]
pub(super) struct Rpc {
    client: HttpClient<RpcService<Answers>>,
    name: NodeName,
    within: Duration,
    /// How long to retry transient errors.
    retry_window: Duration,
    /// The error that is being retried, if any.
    outage: watch::Sender<Option<String>>,
}

/// The state that a request reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// The head.
    Latest,
    /// After this block.
    Block(u64),
    /// After the block with this hash, which must be part of the chain.
    Hash(H256),
}

/// A call, or an unsigned transaction.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CallRequest {
    pub from: H160,
    pub to: H160,
    pub data: Bytes,
}

/// The members of a block that tollpass reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlockHeader {
    pub number: U64,
    pub hash: H256,
    /// In seconds since 1970.
    pub timestamp: U256,
    /// Present if fees follow EIP-1559.
    pub base_fee_per_gas: Option<U256>,
}

/// A block with its transactions.
#[derive(Debug, Deserialize)]
pub(super) struct FullBlock {
    /// Parsed one by one, since some networks have transaction types of their own.
    #[serde(default)]
    transactions: Vec<serde_json::Value>,
}

impl FullBlock {
    /// The transactions that `account` signed.
    pub fn of(&self, account: H160) -> impl Iterator<Item = Transaction> {
        let read = self.transactions.iter().filter_map(|one| Transaction::deserialize(one).ok());
        read.filter(move |transaction| transaction.from == account)
    }
}

/// The members of a transaction that tollpass reads.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transaction {
    pub hash: H256,
    pub from: H160,
    pub nonce: U256,
    /// `None` while it is not mined.
    pub block_number: Option<U64>,
}

/// The members of a receipt that tollpass reads.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TxReceipt {
    pub block_number: U64,
    pub gas_used: Option<U256>,
    /// The price paid per unit of gas, in wei; missing from old nodes.
    pub effective_gas_price: Option<U256>,
    /// 1 for success, 0 for failure. If missing, only the transaction's effect shows which.
    pub status: Option<U64>,
    #[serde(default)]
    pub logs: Vec<Log>,
}

/// The filter of `eth_getLogs`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogFilter {
    pub address: H160,
    pub from_block: U64,
    pub to_block: U64,
    /// Any of the first as the event, and the second as its first indexed argument.
    pub topics: (Vec<H256>, H256),
}

impl Rpc {
    /// Checks the URL, which is written in `key`; connects with the first request.
    pub fn new(key: &str, url: &str, within: Duration, retry_window: Duration) -> Result<Self, ChainError> {
        let name = NodeName::of(key, url)?;
        let client = HttpClientBuilder::default()
            .request_timeout(within)
            .max_response_size(MAX_ANSWER)
            .set_http_middleware(ServiceBuilder::new().layer(AnswersLayer(name.clone())))
            .set_rpc_middleware(RpcServiceBuilder::new())
            .build(url)
            .map_err(|error| ChainError::Url { key: key.into(), why: name.clean(&error.to_string()) })?;
        Ok(Self { client, name, within, retry_window, outage: watch::Sender::new(None) })
    }

    /// The same node with a shorter retry window.
    pub fn with_retry_window(&self, retry_window: Duration) -> Self {
        Self { retry_window: retry_window.min(self.retry_window), ..self.clone() }
    }

    /// Watches the error that is being retried.
    pub fn outage(&self) -> watch::Receiver<Option<String>> {
        self.outage.subscribe()
    }

    /// Whether an error is being retried, or its retries were in vain and nothing has succeeded since.
    pub fn has_outage(&self) -> bool {
        self.outage.borrow().is_some()
    }

    /// Scheme, host and port.
    pub fn shown(&self) -> &str {
        &self.name.shown
    }

    pub async fn chain_id(&self) -> Result<u64, ChainError> {
        const METHOD: &str = "eth_chainId";
        let id: U256 = self.ask(METHOD, rpc_params![]).await?;
        u64::try_from(id).map_err(|_| self.not_understood(METHOD, "a chain ID above 2^64"))
    }

    /// The number of the newest block.
    pub async fn head(&self) -> Result<u64, ChainError> {
        self.ask::<U64>("eth_blockNumber", rpc_params![]).await.map(|number| number.as_u64())
    }

    pub async fn latest_block(&self) -> Result<BlockHeader, ChainError> {
        self.ask("eth_getBlockByNumber", rpc_params!["latest", false]).await
    }

    /// The block with this number, if the node has it.
    pub async fn block(&self, number: u64) -> Result<Option<BlockHeader>, ChainError> {
        self.ask("eth_getBlockByNumber", rpc_params![U64::from(number), false]).await
    }

    pub async fn gas_price(&self) -> Result<U256, ChainError> {
        self.ask("eth_gasPrice", rpc_params![]).await
    }

    /// The priority fee that the node suggests, if it does.
    pub async fn priority_fee(&self) -> Result<Option<U256>, ChainError> {
        unless_refused(self.ask("eth_maxPriorityFeePerGas", rpc_params![]).await.map(Some))
    }

    pub async fn ether_of(&self, account: H160) -> Result<U256, ChainError> {
        self.ask("eth_getBalance", rpc_params![account, "latest"]).await
    }

    /// How many transactions of the account are mined.
    pub async fn mined_of(&self, account: H160) -> Result<u64, ChainError> {
        let count: U64 = self.ask("eth_getTransactionCount", rpc_params![account, "latest"]).await?;
        Ok(count.as_u64())
    }

    /// How many transactions of the account are mined or pending; `None` if the node does not report it.
    pub async fn waiting_of(&self, account: H160) -> Result<Option<u64>, ChainError> {
        let ask = self.ask::<U64>("eth_getTransactionCount", rpc_params![account, "pending"]);
        unless_refused(ask.await.map(|count| Some(count.as_u64())))
    }

    /// The pending block; `None` if the node does not offer it.
    pub async fn pending_block(&self) -> Result<Option<FullBlock>, ChainError> {
        unless_refused(self.ask("eth_getBlockByNumber", rpc_params!["pending", true]).await)
    }

    /// A block with its transactions, if the node has it.
    pub async fn full_block(&self, number: u64) -> Result<Option<FullBlock>, ChainError> {
        self.ask("eth_getBlockByNumber", rpc_params![U64::from(number), true]).await
    }

    /// The transaction with this hash, mined or pending, if the node has it.
    pub async fn transaction(&self, hash: [u8; 32]) -> Result<Option<Transaction>, ChainError> {
        self.ask("eth_getTransactionByHash", rpc_params![H256(hash)]).await
    }

    pub async fn has_code(&self, account: H160) -> Result<bool, ChainError> {
        let code: Bytes = self.ask("eth_getCode", rpc_params![account, "latest"]).await?;
        Ok(!code.is_empty())
    }

    pub async fn call(&self, request: &CallRequest, at: At) -> Result<Bytes, ChainError> {
        self.ask("eth_call", rpc_params![request, at]).await
    }

    pub async fn estimate_gas(&self, request: &CallRequest) -> Result<U256, ChainError> {
        self.ask("eth_estimateGas", rpc_params![request]).await
    }

    /// Submits a transaction, once.
    pub async fn send(&self, raw: &[u8]) -> Result<H256, ChainError> {
        self.ask_once("eth_sendRawTransaction", rpc_params![Bytes::from(raw.to_vec())]).await
    }

    /// `None` while the transaction is not mined.
    pub async fn receipt(&self, hash: [u8; 32]) -> Result<Option<TxReceipt>, ChainError> {
        self.ask("eth_getTransactionReceipt", rpc_params![H256(hash)]).await
    }

    pub async fn logs(&self, filter: &LogFilter) -> Result<Vec<Log>, ChainError> {
        self.ask("eth_getLogs", rpc_params![filter]).await
    }

    /// Retries until there is a result, a permanent error, or the retry window is over.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: ArrayParams,
    ) -> Result<T, ChainError> {
        let until = Instant::now() + self.retry_window;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.ask_once(method, params.clone()).await {
                Ok(answer) => {
                    self.outage.send_if_modified(|outage| outage.take().is_some());
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !error.may_pass() {
                return Err(error);
            }
            tracing::debug!(%error, "retrying the request to the node");
            self.outage.send_replace(Some(error.to_string()));
            tokio::time::sleep(before_next(pause, error.retry_after()).min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: ArrayParams,
    ) -> Result<T, ChainError> {
        let begun = Instant::now();
        let answer = self.client.request(method, params).await;
        NODE_LATENCY.add(begun.elapsed());
        answer.map_err(|error| {
            NODE_ERRORS.fetch_add(1, Ordering::Relaxed);
            self.explain(method, error)
        })
    }

    fn explain(&self, method: &'static str, error: ClientError) -> ChainError {
        match error {
            ClientError::Call(refusal) => self.explain_refusal(method, &refusal),
            ClientError::RequestTimeout => {
                ChainError::Timeout { node: self.name.shown.clone(), method, within: self.within }
            }
            ClientError::Transport(error) => self.explain_transport(method, &*error),
            // Nodes return null for what they do not have.
            ClientError::ParseError(error) if error.to_string().starts_with("invalid type: null") => {
                self.not_understood(method, ChainError::NULL)
            }
            other => self.not_understood(method, &other.to_string()),
        }
    }

    fn explain_transport(
        &self,
        method: &'static str,
        error: &(dyn std::error::Error + 'static),
    ) -> ChainError {
        let (key, node) = (self.name.key.clone(), self.name.shown.clone());
        match error.downcast_ref::<TransportError>() {
            Some(TransportError::Http(HttpError::TooLarge)) => {
                let why = format!("the response is longer than {MAX_ANSWER} bytes");
                return ChainError::NotUnderstood { node, method, why };
            }
            Some(TransportError::Http(HttpError::Stream(odd))) => match odd.downcast_ref() {
                Some(Odd::Refused(refusal)) => return self.explain_refusal(method, refusal),
                Some(Odd::Rejected { status, retry_after }) => {
                    let (status, retry_after) = (*status, *retry_after);
                    return ChainError::NodeRejected { key, node, method, status, retry_after };
                }
                Some(Odd::Foreign(content)) => {
                    let content = self.name.clean(content);
                    return ChainError::NotJsonRpc { key, node, method, content };
                }
                None => {}
            },
            _ => {}
        }
        ChainError::NodeUnreachable { key, node, why: self.name.clean(&with_causes(error)) }
    }

    fn explain_refusal(&self, method: &'static str, refusal: &ErrorObjectOwned) -> ChainError {
        let (code, message) = (refusal.code(), self.name.clean(refusal.message()));
        if !refusal::is_revert(code, &message) {
            return ChainError::NodeRefused { node: self.name.shown.clone(), method, code, message };
        }
        let reason = refusal.data().and_then(|data| refusal::revert_reason(data.get()));
        ChainError::Reverted { message: reason.map_or(message, |reason| self.name.clean(&reason)) }
    }

    fn not_understood(&self, method: &'static str, why: &str) -> ChainError {
        ChainError::NotUnderstood { node: self.name.shown.clone(), method, why: self.name.clean(why) }
    }
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rpc({})", self.name.shown)
    }
}

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Latest => serializer.serialize_str("latest"),
            Self::Block(number) => U64::from(*number).serialize(serializer),
            // EIP-1898.
            Self::Hash(hash) => {
                let mut block = serializer.serialize_struct("Block", 2)?;
                block.serialize_field("blockHash", hash)?;
                block.serialize_field("requireCanonical", &true)?;
                block.end()
            }
        }
    }
}

/// The pause before a retry: at least what the node requested, and never zero.
fn before_next(pause: Duration, retry_after: Option<Duration>) -> Duration {
    retry_after.map_or(pause, |wished| wished.max(pause))
}

/// `None` if the node does not support the method or the tag.
fn unless_refused<T>(answer: Result<Option<T>, ChainError>) -> Result<Option<T>, ChainError> {
    match answer {
        Err(ChainError::NodeRefused { .. } | ChainError::Reverted { .. }) => Ok(None),
        Err(ChainError::NodeRejected { status: 400 | 404 | 405 | 501, .. }) => Ok(None),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use crate::chain::rpc::*;

    #[test]
    fn shows_scheme_host_and_port_and_no_secret() {
        for (url, shown) in [
            ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
            (
                "https://user:hunter22@node.example/v3/0123456789abcdef?key=topsecret",
                "https://node.example:443",
            ),
            ("http://[::1]:1/", "http://[::1]:1"),
        ] {
            let rpc = Rpc::new("chain.rpc_url", url, Duration::from_secs(1), Duration::ZERO).unwrap();
            assert_eq!(rpc.shown(), shown);
            assert_eq!(format!("{rpc:?}"), format!("Rpc({shown})"));
        }
    }

    #[test]
    fn a_node_that_asks_for_no_pause_gets_one_all_the_same() {
        let ms = Duration::from_millis;
        for (wished, expected) in [(None, 100), (Some(0), 100), (Some(50), 100), (Some(3000), 3000)] {
            assert_eq!(before_next(ms(100), wished.map(ms)), ms(expected));
        }
    }

    #[test]
    fn refuses_an_invalid_url_without_quoting_it() {
        for url in
            ["", "localhost:8545", "ws://node/secret", "http://", "/secret", "https://u:secret@", "http:// x"]
        {
            let error = Rpc::new("chain.rpc_url", url, Duration::from_secs(1), Duration::ZERO)
                .unwrap_err()
                .to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(error.starts_with("chain.rpc_url is not usable: "), "{error}");
        }
    }
}
