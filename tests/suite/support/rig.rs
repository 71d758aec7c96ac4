//! A payer, a token and a channel contract on a development node, and the node's own controls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ethers_core::abi::Token as Value;
use ethers_core::types::{Bytes, H160, U64, U256};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::core::params::ArrayParams;
use jsonrpsee::http_client::{HttpClient, HttpClientBuilder};
use jsonrpsee::rpc_params;
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tollpass::chain::signer::Signer;
use tollpass::chain::{Chain, ChainSettings, NotRecorded, OpError, Resolution, TransactionRecorder};
use tollpass::devnet::accounts;
use tollpass::devnet::contracts::{channel_manager, plain_token, token};
use tollpass::protocol::{Address, Amount, ChannelId, ChannelOp, Intent, OnChain, Wei};

/// How many base units the payer gets.
pub const TOKENS: u64 = 1_000_000;

pub struct Rig {
    pub url: String,
    pub manager: Address,
    pub token: Address,
    node: HttpClient,
    payer: H160,
}

impl Rig {
    /// Deploys the ERC-223 token and its channel contract.
    pub async fn new(url: &str) -> Self {
        Self::with(url, token().creation(&[]).unwrap()).await
    }

    /// Deploys the token without ERC-223 and its channel contract.
    pub async fn plain(url: &str) -> Self {
        Self::with(url, plain_token().creation(&[]).unwrap()).await
    }

    /// Deploys a token by its creation code, and its channel contract.
    pub async fn with(url: &str, code: Bytes) -> Self {
        let node = HttpClientBuilder::default().build(url).unwrap();
        let payer = H160::from(Signer::new(&accounts::key(1).unwrap()).unwrap().address());
        let none = Address::default();
        let mut rig = Self { url: url.to_owned(), manager: none, token: none, node, payer };
        rig.token = rig.deploy(code).await;
        let arguments = [Value::Address(rig.token.into()), Value::Uint(500.into()), Value::Array(vec![])];
        rig.manager = rig.deploy(channel_manager().creation(&arguments).unwrap()).await;
        rig.mint(rig.payer.into(), TOKENS.into()).await;
        rig
    }

    pub fn settings(&self) -> ChainSettings {
        ChainSettings {
            rpc_url: self.url.clone(),
            channel_manager: self.manager,
            confirmations: 1,
            start_block: 0,
            request_timeout: Duration::from_secs(5),
            poll_every: Duration::from_millis(10),
            confirm_timeout: Duration::from_secs(20),
            log_range: 1000,
            retry_timeout: Duration::from_millis(500),
            chain_id: None,
            max_fee_per_gas: Wei(500_000_000_000),
            max_fee: Wei(100_000_000_000_000_000),
            max_fees_per_day: Wei(u128::MAX),
        }
    }

    pub fn chain(&self) -> Chain {
        self.chain_with(self.settings())
    }

    pub fn chain_with(&self, settings: ChainSettings) -> Chain {
        Chain::new(settings, Arc::new(Signer::new(&accounts::key(1).unwrap()).unwrap().into())).unwrap()
    }

    pub async fn ask<T: serde::de::DeserializeOwned>(&self, method: &str, params: ArrayParams) -> T {
        self.node.request(method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub async fn deploy(&self, code: Bytes) -> Address {
        let receipt = self.transact(self.account(0), None, code).await;
        receipt["contractAddress"].as_str().unwrap().parse().unwrap()
    }

    pub async fn mint(&self, to: Address, units: U256) {
        let data = token().call("mint", &[Value::Address(to.into()), Value::Uint(units)]).unwrap();
        self.transact(self.account(0), Some(self.token), data).await;
    }

    /// Sends from the payer's account, bypassing the chain layer.
    pub async fn as_payer(&self, to: Address, data: Bytes) {
        self.transact(self.payer, Some(to), data).await;
    }

    /// Sends from a development account.
    pub async fn as_account(&self, index: usize, to: Address, data: Bytes) {
        self.transact(self.account(index), Some(to), data).await;
    }

    /// An account's token balance.
    pub async fn tokens_of(&self, owner: Address) -> u64 {
        let data = token().call("balanceOf", &[Value::Address(owner.into())]).unwrap();
        let call = json!({ "to": H160::from(self.token), "data": data });
        self.ask::<U256>("eth_call", rpc_params![call, "latest"]).await.as_u64()
    }

    /// The payer's ether, in wei.
    pub async fn ether(&self) -> U256 {
        self.ask("eth_getBalance", rpc_params![self.payer, "latest"]).await
    }

    pub async fn approve(&self, units: u64) {
        let arguments = [Value::Address(self.manager.into()), Value::Uint(units.into())];
        self.as_payer(self.token, token().call("approve", &arguments).unwrap()).await;
    }

    /// Approves the first account to take the payer's tokens.
    pub async fn allow_thief(&self) {
        let arguments = [Value::Address(self.account(0)), Value::Uint(TOKENS.into())];
        self.as_payer(self.token, token().call("approve", &arguments).unwrap()).await;
    }

    /// Takes the payer's tokens, without a transaction of the payer's.
    pub async fn steal(&self, units: u64) {
        let thief = self.account(0);
        let arguments = [Value::Address(self.payer), Value::Address(thief), Value::Uint(units.into())];
        let data = token().call("transferFrom", &arguments).unwrap();
        self.transact(thief, Some(self.token), data).await;
    }

    pub async fn close(&self, channel: ChannelId, balance: u64) {
        let arguments = [
            Value::Address(channel.receiver.into()),
            Value::Uint(channel.open_block.into()),
            Value::Uint(balance.into()),
        ];
        self.as_payer(self.manager, channel_manager().call("uncooperativeClose", &arguments).unwrap()).await;
    }

    pub async fn settle(&self, channel: ChannelId) {
        let arguments = [Value::Address(channel.receiver.into()), Value::Uint(channel.open_block.into())];
        self.as_payer(self.manager, channel_manager().call("settle", &arguments).unwrap()).await;
    }

    pub async fn head(&self) -> u64 {
        self.ask::<U64>("eth_blockNumber", rpc_params![]).await.as_u64()
    }

    /// The payer's transaction count, including pending ones.
    pub async fn pending(&self) -> u64 {
        self.count(self.payer.into(), "pending").await
    }

    /// How many transactions of an account are pending.
    pub async fn waiting_of(&self, account: Address) -> u64 {
        self.count(account, "pending").await - self.count(account, "latest").await
    }

    /// Waits until the node has this many of the payer's transactions.
    pub async fn until_pending(&self, count: u64) {
        self.until_there_are(count, "pending").await;
    }

    /// Waits until this many of the payer's transactions are mined.
    pub async fn until_mined(&self, count: u64) {
        self.until_there_are(count, "latest").await;
    }

    async fn until_there_are(&self, count: u64, which: &str) {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while self.count(self.payer.into(), which).await < count {
            looks.tick().await;
        }
    }

    async fn count(&self, account: Address, which: &str) -> u64 {
        let account = H160::from(account);
        self.ask::<U64>("eth_getTransactionCount", rpc_params![account, which]).await.as_u64()
    }

    pub async fn automine(&self, is_on: bool) {
        let _: Json = self.ask("evm_setAutomine", rpc_params![is_on]).await;
    }

    pub async fn mine(&self, blocks: u64) {
        let _: Json = self.ask("anvil_mine", rpc_params![U64::from(blocks)]).await;
    }

    pub async fn snapshot(&self) -> Json {
        self.ask("evm_snapshot", rpc_params![]).await
    }

    pub async fn revert(&self, snapshot: Json) {
        assert!(self.ask::<bool>("evm_revert", rpc_params![snapshot]).await);
    }

    /// Runs `work` while a block is mined every few milliseconds.
    pub async fn mining<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(Duration::from_millis(25));
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => self.mine(1).await,
            }
        }
    }

    fn account(&self, index: usize) -> H160 {
        Signer::new(&accounts::key(index).unwrap()).unwrap().address().into()
    }

    async fn transact(&self, from: H160, to: Option<Address>, data: Bytes) -> Json {
        // Old and new networks accept a plain gas price.
        let (gas, price) = (U256::from(5_000_000), U256::exp10(10));
        let mut request = json!({ "from": from, "data": data, "gas": gas, "gasPrice": price });
        if let Some(to) = to {
            request["to"] = json!(H160::from(to));
        }
        let hash: Json = self.ask("eth_sendTransaction", rpc_params![request]).await;
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        loop {
            looks.tick().await;
            let receipt: Json = self.ask("eth_getTransactionReceipt", rpc_params![hash.clone()]).await;
            if !receipt.is_null() {
                assert_eq!(receipt["status"], "0x1", "{receipt}");
                return receipt;
            }
        }
    }
}

/// A journal in memory.
pub struct Notes {
    kept: Mutex<Vec<Intent>>,
    count: watch::Sender<usize>,
    is_full: Mutex<bool>,
}

impl Notes {
    pub fn new() -> Self {
        Self { kept: Mutex::default(), count: watch::Sender::new(0), is_full: Mutex::new(false) }
    }

    /// While full, it stores what it is given but reports an error: as if the program crashed there.
    pub fn fill_up(&self, is_full: bool) {
        *self.is_full.lock().unwrap() = is_full;
    }

    pub fn all(&self) -> Vec<Intent> {
        self.kept.lock().unwrap().clone()
    }

    pub fn moves(&self) -> Vec<bool> {
        self.all().iter().map(|intent| intent.moves).collect()
    }

    pub fn nonces(&self) -> Vec<u64> {
        self.all().iter().map(|intent| intent.nonce).collect()
    }

    pub async fn until(&self, count: usize) {
        self.count.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }
}

impl TransactionRecorder for Notes {
    async fn record(&self, intent: Intent) -> Result<(), NotRecorded> {
        self.kept.lock().unwrap().push(intent);
        self.count.send_modify(|count| *count += 1);
        if *self.is_full.lock().unwrap() { Err(NotRecorded("disk full".into())) } else { Ok(()) }
    }
}

/// Executing operations that fund a channel.
pub trait Fund {
    /// The channel, and its state in the contract.
    async fn fund(&self, op: &ChannelOp, notes: &Notes) -> Result<(ChannelId, OnChain), OpError>;
}

impl Fund for Chain {
    async fn fund(&self, op: &ChannelOp, notes: &Notes) -> Result<(ChannelId, OnChain), OpError> {
        self.execute(op, notes).await.map(|done| (done.channel, done.on_chain.unwrap()))
    }
}

/// The channel that a resumed operation funded.
pub fn funded(resolution: Resolution) -> (ChannelId, OnChain) {
    match resolution {
        Resolution::Done(done) => (done.channel, done.on_chain.unwrap()),
        Resolution::NothingMoved => panic!("nothing moved"),
    }
}

pub fn receiver(number: u8) -> Address {
    Address([number; 20])
}

pub fn open(number: u8, deposit: u64) -> ChannelOp {
    ChannelOp::Open { receiver: receiver(number), deposit: Amount::from(deposit) }
}

pub fn top_up(channel: ChannelId, added: u64) -> ChannelOp {
    ChannelOp::TopUp { channel, added: Amount::from(added) }
}
