//! The embedded chain with a token and a channel contract, and development accounts that open channels there over plain
//! JSON-RPC.

use std::time::Duration;

use ethers_core::abi::Token;
use ethers_core::types::{H256, U256};
use ethers_core::utils::keccak256;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::http_client::HttpClient;
use jsonrpsee::rpc_params;
use serde_json::{Value, json};
use tollpass::chain::signer::Signer;
use tollpass::devnet::chain::{DevChain, DevChainSettings};
use tollpass::devnet::contracts;
use tollpass::devnet::contracts::Compiled;
use tollpass::devnet::{accounts, deploy};
use tollpass::protocol::{Address, Amount};

/// A chain with the contracts.
pub struct Market {
    node: HttpClient,
    pub chain: DevChain,
    pub manager: Address,
    pub token: Address,
}

/// A development account's key.
pub fn account(index: usize) -> Signer {
    Signer::new(&accounts::key(index).unwrap()).unwrap()
}

impl Market {
    /// Starts a chain, deploys the contracts and gives the first account tokens.
    pub async fn open() -> Self {
        let market = Self::without_tokens().await;
        let tokens = [(market.token, Amount::from(1_000_000_000))];
        deploy::fund(&market.chain.url(), account(0).address(), U256::zero(), &tokens).await.unwrap();
        market
    }

    /// Starts a chain and deploys the contracts.
    pub async fn without_tokens() -> Self {
        let chain = DevChain::spawn(DevChainSettings::default()).await.unwrap();
        let deployed = deploy::deploy(&chain.url(), deploy::Options::default()).await.unwrap();
        let node = HttpClient::builder().build(chain.url()).unwrap();
        Self { node, chain, manager: deployed.channel_manager, token: deployed.token }
    }

    /// Opens a channel from an account and returns its open block.
    pub async fn open_channel(&self, index: usize, receiver: Address, deposit: u64) -> u32 {
        let data = [account(index).address().0, receiver.0].concat();
        self.send_tokens(index, deposit, data).await
    }

    /// Adds to a channel.
    pub async fn top_up(&self, index: usize, receiver: Address, open_block: u32, added: u64) {
        let data = [&account(index).address().0[..], &receiver.0, &open_block.to_be_bytes()].concat();
        self.send_tokens(index, added, data).await;
    }

    /// Calls the channel contract from an account.
    pub async fn on_channel(&self, index: usize, function: &str, arguments: &[Token]) {
        self.call(index, contracts::channel_manager(), self.manager, function, arguments).await;
    }

    /// Places code at an address.
    pub async fn place(&self, address: &str, code: &str) {
        let _: Value = self.node.request("anvil_setCode", rpc_params![address, code]).await.unwrap();
    }

    /// Mines empty blocks.
    pub async fn mine(&self, blocks: u64) {
        for _ in 0..blocks {
            let _: Value = self.node.request("evm_mine", rpc_params![]).await.unwrap();
        }
    }

    /// Switches automatic mining; when off, transactions wait for [`mine`](Self::mine).
    pub async fn automine(&self, is_on: bool) {
        let _: Value = self.node.request("evm_setAutomine", rpc_params![is_on]).await.unwrap();
    }

    /// Waits until a transaction of `sender` is pending.
    pub async fn await_pending(&self, sender: Address) {
        let count = async |block: &str| -> String {
            self.node.request("eth_getTransactionCount", rpc_params![sender, block]).await.unwrap()
        };
        let waits = async { while count("pending").await == count("latest").await {} };
        tokio::time::timeout(Duration::from_secs(10), waits).await.expect("no pending transactions");
    }

    /// How many transactions an account has sent, including pending ones.
    pub async fn sent_by(&self, account: Address) -> u64 {
        let count: ethers_core::types::U64 =
            self.node.request("eth_getTransactionCount", rpc_params![account, "pending"]).await.unwrap();
        count.as_u64()
    }

    /// How many channels were ever opened, by any account.
    pub async fn openings(&self) -> usize {
        self.events("ChannelCreated(address,address,uint192)").await
    }

    /// How many channels were settled.
    pub async fn settlements(&self) -> usize {
        self.events("ChannelSettled(address,address,uint32,uint192,uint192)").await
    }

    /// An account's token balance.
    pub async fn tokens_of(&self, owner: Address) -> u64 {
        let data = contracts::token().call("balanceOf", &[address(owner)]).unwrap();
        let call = json!({ "to": self.token, "data": data });
        self.node.request::<U256, _>("eth_call", rpc_params![call, "latest"]).await.unwrap().as_u64()
    }

    /// How many top-ups there were.
    pub async fn top_ups(&self) -> usize {
        self.events("ChannelToppedUp(address,address,uint32,uint192)").await
    }

    async fn events(&self, declaration: &str) -> usize {
        let topic = H256::from(keccak256(declaration));
        let filter = json!({ "address": self.manager, "fromBlock": "0x0", "topics": [topic] });
        let logs: Vec<Value> = self.node.request("eth_getLogs", rpc_params![filter]).await.unwrap();
        logs.len()
    }

    async fn send_tokens(&self, index: usize, value: u64, data: Vec<u8>) -> u32 {
        let arguments = [address(self.manager), Token::Uint(value.into()), Token::Bytes(data)];
        self.call(index, contracts::token(), self.token, "transfer", &arguments).await
    }

    /// Calls a contract from an account; returns the block of the transaction.
    pub async fn call(
        &self,
        index: usize,
        contract: &Compiled,
        to: Address,
        function: &str,
        arguments: &[Token],
    ) -> u32 {
        let data = contract.call(function, arguments).unwrap();
        let from = account(index).address();
        let receipt = self.transact(json!({ "from": from, "to": to, "data": data, "gas": "0x7a120" })).await;
        let block = receipt["blockNumber"].as_str().unwrap();
        u32::from_str_radix(block.strip_prefix("0x").unwrap(), 16).unwrap()
    }

    async fn transact(&self, transaction: Value) -> Value {
        let hash: String = self.node.request("eth_sendTransaction", rpc_params![transaction]).await.unwrap();
        let mined = async {
            loop {
                let receipt: Value =
                    self.node.request("eth_getTransactionReceipt", rpc_params![&hash]).await.unwrap();
                if !receipt.is_null() {
                    return receipt;
                }
            }
        };
        let receipt = tokio::time::timeout(Duration::from_secs(10), mined).await.expect("not mined");
        assert_eq!(receipt["status"], "0x1", "reverted: {receipt}");
        receipt
    }
}

pub fn address(address: Address) -> Token {
    Token::Address(address.into())
}

pub fn units(amount: Amount) -> Token {
    Token::Uint(amount.into())
}
