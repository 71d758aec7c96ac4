//! A chain with a token and a channel contract on it, and accounts that open channels there by plain JSON-RPC.

use std::time::Duration;

use ethers_core::abi::{self, Token};
use ethers_core::types::U256;
use ethers_core::utils::{hex, id};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::http_client::HttpClient;
use jsonrpsee::rpc_params;
use serde_json::{Value, json};
use tollpass::chain::signer::Signer;
use tollpass::protocol::{Address, Amount};

/// The private keys of the first two development accounts: known to everyone, worth nothing.
const KEYS: [&str; 2] = [
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
];

/// The contracts on the chain of `url`.
pub struct Market {
    node: HttpClient,
    pub url: String,
    pub manager: Address,
    pub token: Address,
}

/// A development account's key.
pub fn account(index: usize) -> Signer {
    let key: Vec<u8> = hex::decode(KEYS[index]).unwrap();
    Signer::new(&key.try_into().unwrap()).unwrap()
}

impl Market {
    /// Deploys the contracts and gives both accounts tokens.
    pub async fn open(url: String) -> Self {
        let node = HttpClient::builder().build(&url).unwrap();
        let mut market = Self { node, url, manager: Address::default(), token: Address::default() };
        market.token = market.deploy("Token", &[]).await;
        let arguments = [address(market.token), Token::Uint(500.into()), Token::Array(Vec::new())];
        market.manager = market.deploy("ChannelManager", &arguments).await;
        for index in 0..KEYS.len() {
            let minted = [address(account(index).address()), Token::Uint(U256::exp10(20))];
            market.call(index, market.token, "mint(address,uint256)", &minted).await;
        }
        market
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

    /// Has an account call the channel contract.
    pub async fn on_channel(&self, index: usize, function: &str, arguments: &[Token]) -> u32 {
        self.call(index, self.manager, function, arguments).await
    }

    /// Mines empty blocks.
    pub async fn mine(&self, blocks: u64) {
        for _ in 0..blocks {
            let _: Value = self.node.request("evm_mine", rpc_params![]).await.unwrap();
        }
    }

    async fn send_tokens(&self, index: usize, value: u64, data: Vec<u8>) -> u32 {
        let arguments = [address(self.manager), Token::Uint(value.into()), Token::Bytes(data)];
        self.call(index, self.token, "transfer(address,uint256,bytes)", &arguments).await
    }

    async fn call(&self, index: usize, to: Address, function: &str, arguments: &[Token]) -> u32 {
        let data = [&id(function)[..], &abi::encode(arguments)].concat();
        let receipt = self.transact(json!({
            "from": account(index).address(), "to": to, "data": hex::encode_prefixed(data), "gas": "0x7a120",
        }));
        quantity(&receipt.await["blockNumber"])
    }

    async fn deploy(&self, contract: &str, arguments: &[Token]) -> Address {
        let compiled: Value =
            serde_json::from_str(include_str!("../../../src/devnet/contracts/compiled.json")).unwrap();
        let code = compiled[contract]["bytecode"].as_str().unwrap();
        let data = format!("{code}{}", hex::encode(abi::encode(arguments)));
        let receipt =
            self.transact(json!({ "from": account(0).address(), "data": data, "gas": "0x4c4b40" })).await;
        receipt["contractAddress"].as_str().unwrap().parse().unwrap()
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

fn quantity(value: &Value) -> u32 {
    u32::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

pub struct Chain(#[expect(dead_code)] tokio::process::Child);

pub async fn chain() -> (Chain, String) {
    use tokio::io::AsyncBufReadExt;
    let mut child = tokio::process::Command::new(std::env::var("ANVIL").unwrap())
        .args(["--port", "0"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some(address) = line.strip_prefix("Listening on ") {
            let url = format!("http://{address}");
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (Chain(child), url);
        }
    }
}
