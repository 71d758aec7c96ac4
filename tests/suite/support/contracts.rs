//! The deployed contracts of a network, and calls to them with any key.

use ethers_core::abi::Token;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Bytes, H160, H256, TransactionReceipt, TransactionRequest, U64, U256};
use ethers_core::utils::keccak256;
use jsonrpsee::core::client::Error as RpcError;
use jsonrpsee::rpc_params;
use serde_json::json;
use tollpass::devnet::accounts::DevWallet;
use tollpass::devnet::contracts;
use tollpass::devnet::contracts::Compiled;
use tollpass::devnet::deploy::{Deployed, Options, deploy, fund};
use tollpass::protocol::Amount;

use super::chains::Network;

/// The gas limit of every transaction here, so that a reverting one is mined anyway.
const GAS: u64 = 1_000_000;
/// How often to poll for a receipt before the test fails.
const POLLS: usize = 3_000;

/// The deployed contracts, and two parties with money: a sender and a receiver.
pub struct Stage<'a> {
    pub network: &'a Network,
    pub deployed: Deployed,
    pub sender: DevWallet,
    pub receiver: DevWallet,
}

impl<'a> Stage<'a> {
    /// Deploys both pairs and gives both parties one ether and 1,000 tokens of each kind.
    pub async fn set(network: &'a Network) -> Self {
        let options = Options { is_plain_wanted: true, ..Options::default() };
        let deployed = deploy(&network.url, options).await.unwrap();
        let (sender, receiver) = (wallet(0xa0), wallet(0xb1));
        let tokens = Amount::try_from(units(1_000)).unwrap();
        let plain = deployed.plain.unwrap().token;
        for party in [&sender, &receiver] {
            let each = [(deployed.token, tokens), (plain, tokens)];
            fund(&network.url, party.address().into(), U256::exp10(18), &each).await.unwrap();
        }
        Self { network, deployed, sender, receiver }
    }

    pub fn manager(&self) -> H160 {
        self.deployed.channel_manager.into()
    }

    pub fn token(&self) -> H160 {
        self.deployed.token.into()
    }

    /// Signs and submits a call; returns the transaction's hash.
    pub async fn submit(&self, from: &DevWallet, to: H160, data: Bytes) -> H256 {
        let nonce: U256 = self
            .network
            .request("eth_getTransactionCount", rpc_params![from.address(), "pending"])
            .await
            .unwrap();
        let raw = self.sign(from, to, data, nonce).await;
        self.network.request("eth_sendRawTransaction", rpc_params![raw]).await.unwrap()
    }

    /// The signed call.
    pub async fn sign(&self, from: &DevWallet, to: H160, data: Bytes, nonce: U256) -> Bytes {
        let transaction: TypedTransaction = TransactionRequest::new()
            .to(to)
            .data(data)
            .nonce(nonce)
            .gas(GAS)
            .gas_price(4_000_000_000u64)
            .chain_id(31337u64)
            .into();
        let signature = from.sign_transaction(&transaction, 31337).unwrap();
        transaction.rlp_signed(&signature)
    }

    /// The receipt of a transaction, once it is mined.
    pub async fn receipt(&self, hash: H256) -> TransactionReceipt {
        for _ in 0..POLLS {
            let receipt: Option<TransactionReceipt> =
                self.network.request("eth_getTransactionReceipt", rpc_params![hash]).await.unwrap();
            if let Some(receipt) = receipt {
                return receipt;
            }
            tokio::task::yield_now().await;
        }
        panic!("{hash:?} is not mined on {}", self.network.name);
    }

    /// Runs a call in a transaction and returns its receipt, whatever its status.
    pub async fn run(&self, from: &DevWallet, to: H160, data: Bytes) -> TransactionReceipt {
        let hash = self.submit(from, to, data).await;
        self.receipt(hash).await
    }

    /// Runs a call that must succeed.
    pub async fn succeed(&self, from: &DevWallet, to: H160, data: Bytes) -> TransactionReceipt {
        let receipt = self.run(from, to, data).await;
        assert_eq!(receipt.status, Some(U64::one()), "on {}", self.network.name);
        receipt
    }

    /// Checks that a call reverts without a reason, first with eth_call and then in a transaction.
    pub async fn refuse(&self, what: &str, from: &DevWallet, to: H160, data: Bytes) {
        match self.view(from.address(), to, data.clone()).await {
            Err(RpcError::Call(error)) => {
                assert_eq!(error.code(), 3, "{what} on {}: {error}", self.network.name);
                assert!(error.message().starts_with("execution reverted"), "{what}: {error}");
                assert!(error.data().is_none_or(|data| data.get() == "\"0x\""), "{what}: {error:?}");
            }
            other => panic!("{what} was not refused on {}: {other:?}", self.network.name),
        }
        let receipt = self.run(from, to, data).await;
        assert_eq!(receipt.status, Some(U64::zero()), "{what} on {}", self.network.name);
        assert!(receipt.logs.is_empty(), "{what}");
    }

    /// What a call returns on the latest state.
    pub async fn view(&self, from: H160, to: H160, data: Bytes) -> Result<Bytes, RpcError> {
        let call = json!({ "from": from, "to": to, "data": data });
        self.network.request("eth_call", rpc_params![call, "latest"]).await
    }

    /// The words that a view of the channel contract returns.
    pub async fn ask(&self, name: &str, arguments: &[Token]) -> Result<Vec<U256>, RpcError> {
        let output = self.view(H160::zero(), self.manager(), manager(name, arguments)).await?;
        Ok(output.chunks(32).map(U256::from_big_endian).collect())
    }

    /// An account's balance of the token.
    pub async fn tokens(&self, owner: H160) -> U256 {
        let data = call(contracts::token(), "balanceOf", &[Token::Address(owner)]);
        U256::from_big_endian(&self.view(owner, self.token(), data).await.unwrap())
    }

    /// Opens a channel with ERC-223's transfer and returns its block.
    pub async fn open(&self, deposit: U256) -> u32 {
        let receipt = self.succeed(&self.sender, self.token(), self.transfer(deposit, None)).await;
        receipt.block_number.unwrap().as_u32()
    }

    /// The ERC-223 transfer that opens a channel, or tops up the one of that block.
    pub fn transfer(&self, value: U256, open_block: Option<u32>) -> Bytes {
        let parties = [self.sender.address().0, self.receiver.address().0].concat();
        let block = open_block.map(|block| block.to_be_bytes().to_vec()).unwrap_or_default();
        self.transfer_with(value, [parties, block].concat())
    }

    /// The ERC-223 transfer to the channel contract with any data.
    pub fn transfer_with(&self, value: U256, data: Vec<u8>) -> Bytes {
        let arguments = [Token::Address(self.manager()), Token::Uint(value), Token::Bytes(data)];
        call(contracts::token(), "transfer", &arguments)
    }

    /// The sender's signature of a total, made from the specification and not with the program's own code.
    pub fn proof(&self, open_block: u32, total: U256) -> Bytes {
        let schema = "string message_idaddress receiveruint32 block_createduint192 balanceaddress contract";
        let message = "Sender balance proof signature";
        self.signed(&self.sender, schema, message, self.receiver.address(), open_block, total)
    }

    /// The receiver's closing signature of a total.
    pub fn closing(&self, open_block: u32, total: U256) -> Bytes {
        let schema = "string message_idaddress senderuint32 block_createduint192 balanceaddress contract";
        let message = "Receiver closing signature";
        self.signed(&self.receiver, schema, message, self.sender.address(), open_block, total)
    }

    fn signed(
        &self,
        signer: &DevWallet,
        schema: &str,
        message: &str,
        party: H160,
        open_block: u32,
        total: U256,
    ) -> Bytes {
        let mut wide = [0; 32];
        total.to_big_endian(&mut wide);
        let values =
            [message.as_bytes(), &party.0, &open_block.to_be_bytes(), &wide[8..], &self.manager().0].concat();
        let digest = keccak256([keccak256(schema), keccak256(values)].concat());
        signer.sign(H256(digest)).unwrap().to_vec().into()
    }
}

/// The data of a call to the channel contract.
pub fn manager(name: &str, arguments: &[Token]) -> Bytes {
    call(contracts::channel_manager(), name, arguments)
}

/// The data of a call.
pub fn call(contract: &Compiled, name: &str, arguments: &[Token]) -> Bytes {
    contract.call(name, arguments).unwrap()
}

/// The wallet whose key is this byte 32 times.
pub fn wallet(byte: u8) -> DevWallet {
    DevWallet::new(&[byte; 32]).unwrap()
}

/// This many whole tokens, in base units.
pub fn units(tokens: u64) -> U256 {
    U256::from(tokens) * U256::exp10(18)
}
