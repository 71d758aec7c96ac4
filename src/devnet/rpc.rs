//! The node's JSON-RPC methods, with the names, types and errors that clients know from other nodes.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::transaction::eip2930::AccessList;
use ethers_core::types::{
    BlockNumber, Bytes, Eip1559TransactionRequest, H160, H256, TransactionRequest, U64, U256,
};
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::accounts::DevWallet;
use super::evm::Call;
use super::fault::Fault;
use super::logs::Filter;
use super::node::{BLOCK_GAS_LIMIT, Node, StateOf};
use super::{accounts, view};
use crate::mutex::lock;

/// The default priority fee, in wei.
const SUGGESTED_TIP: u64 = 1_000_000_000;
/// The most blocks in a fee history.
const MAX_FEE_HISTORY: u64 = 1024;

/// The state that the methods operate on.
pub(super) struct Control {
    node: Mutex<Node>,
    /// The time between blocks; `None` if only transactions or calls mine blocks.
    pub period: watch::Sender<Option<Duration>>,
    wallets: Vec<DevWallet>,
    has_base_fee: bool,
}

type RpcResult = Result<Value, ErrorObjectOwned>;

impl Control {
    pub fn new(node: Node, has_base_fee: bool) -> Self {
        Self {
            node: Mutex::new(node),
            period: watch::Sender::new(None),
            wallets: accounts::wallets(),
            has_base_fee,
        }
    }

    /// Locks the node; methods must not await while they hold it.
    pub fn node(&self) -> MutexGuard<'_, Node> {
        lock(&self.node)
    }

    /// Sets the time between blocks; `None` or zero mines a block per transaction.
    pub fn set_period(&self, period: Option<Duration>) {
        let period = period.filter(|period| !period.is_zero());
        let mut node = self.node();
        node.is_automatic = period.is_none();
        if node.is_automatic {
            node.mine_each();
        }
        self.period.send_replace(period);
    }
}

/// All methods, without those for the base fee on a network that has none.
pub(super) fn methods(control: Arc<Control>) -> Result<RpcModule<Control>, RegisterMethodError> {
    let has_base_fee = control.has_base_fee;
    let mut module = RpcModule::from_arc(control);
    let mut add = |name, method: fn(Params<'_>, &Control) -> RpcResult| {
        module
            .register_method(name, move |params, control: &Control, _: &Extensions| method(params, control))
            .map(drop)
    };
    add("web3_clientVersion", |_, _| Ok(json!(concat!("tollpass-devnet/v", env!("CARGO_PKG_VERSION")))))?;
    add("net_version", |_, control| Ok(json!(control.node().chain_id.to_string())))?;
    add("eth_chainId", |_, control| Ok(json!(U64::from(control.node().chain_id))))?;
    add("eth_accounts", |_, _| Ok(json!(accounts::addresses())))?;
    add("eth_syncing", |_, _| Ok(json!(false)))?;
    add("eth_blockNumber", |_, control| Ok(json!(U64::from(control.node().height()))))?;
    add("eth_getBalance", balance)?;
    add("eth_getCode", code)?;
    add("eth_getTransactionCount", transaction_count)?;
    add("eth_call", call)?;
    add("eth_estimateGas", estimate_gas)?;
    add("eth_gasPrice", |_, control| Ok(json!(gas_price(&control.node()))))?;
    add("eth_sendRawTransaction", send_raw_transaction)?;
    add("eth_sendTransaction", send_transaction)?;
    add("eth_getTransactionReceipt", |params, control| {
        let hash: H256 = params.one()?;
        Ok(json!(control.node().mined(hash).map(|mined| &mined.receipt)))
    })?;
    add("eth_getTransactionByHash", |params, control| {
        let hash: H256 = params.one()?;
        Ok(json!(control.node().transaction(hash)))
    })?;
    add("eth_getBlockByNumber", block_by_number)?;
    add("eth_getBlockByHash", block_by_hash)?;
    add("eth_getLogs", |params, control| {
        let filter: Filter = params.one()?;
        Ok(json!(control.node().logs(&filter)?))
    })?;
    if has_base_fee {
        add("eth_maxPriorityFeePerGas", |_, _| Ok(json!(U256::from(SUGGESTED_TIP))))?;
        add("eth_feeHistory", fee_history)?;
    }
    add("evm_mine", |_, control| {
        control.node().mine(1, 1)?;
        Ok(json!("0x0"))
    })?;
    add("anvil_mine", mine)?;
    add("anvil_setCode", |params, control| {
        let (address, code): (H160, Bytes) = params.parse()?;
        control.node().install(address, &code)?;
        Ok(Value::Null)
    })?;
    add("evm_snapshot", |_, control| Ok(json!(U64::from(control.node().snapshot()))))?;
    add("evm_revert", |params, control| {
        let id: U64 = params.one()?;
        Ok(json!(control.node().revert(id.as_u64())))
    })?;
    add("evm_setAutomine", |params, control| {
        let is_automatic: bool = params.one()?;
        if is_automatic {
            control.set_period(None);
        } else {
            control.node().is_automatic = false;
        }
        Ok(Value::Null)
    })?;
    add("evm_setIntervalMining", |params, control| {
        let seconds: u64 = params.one()?;
        let period = (seconds > 0).then(|| Duration::from_secs(seconds));
        control.node().is_automatic &= period.is_none();
        control.period.send_replace(period);
        Ok(Value::Null)
    })?;
    Ok(module)
}

fn balance(params: Params<'_>, control: &Control) -> RpcResult {
    let (address, at) = account(&params)?;
    Ok(json!(control.node().state(at)?.balance(address)))
}

fn code(params: Params<'_>, control: &Control) -> RpcResult {
    let (address, at) = account(&params)?;
    Ok(json!(control.node().state(at)?.code(address)))
}

fn transaction_count(params: Params<'_>, control: &Control) -> RpcResult {
    let (address, at) = account(&params)?;
    let node = control.node();
    let count = match at {
        Some(BlockNumber::Pending) => node.next_nonce(address),
        at => node.state(at)?.nonce(address),
    };
    Ok(json!(U64::from(count)))
}

fn account(params: &Params<'_>) -> Result<(H160, Option<BlockNumber>), ErrorObjectOwned> {
    let mut params = params.sequence();
    Ok((params.next()?, params.optional_next()?))
}

fn call(params: Params<'_>, control: &Control) -> RpcResult {
    let mut params = params.sequence();
    let (request, at): (Request, Option<StateOf>) = (params.next()?, params.optional_next()?);
    let node = control.node();
    node.state(at.map(|at| node.block_of(at)).transpose()?)?;
    Ok(json!(node.call(&request.to_call()?)?))
}

fn estimate_gas(params: Params<'_>, control: &Control) -> RpcResult {
    let mut params = params.sequence();
    let (request, at): (Request, _) = (params.next()?, params.optional_next()?);
    let node = control.node();
    node.state(at)?;
    Ok(json!(U64::from(node.estimate_gas(&request.to_call()?)?)))
}

fn send_raw_transaction(params: Params<'_>, control: &Control) -> RpcResult {
    let raw: Bytes = params.one()?;
    Ok(json!(control.node().submit(&raw)?))
}

/// Signs for one of the development accounts, then proceeds as with a raw transaction.
fn send_transaction(params: Params<'_>, control: &Control) -> RpcResult {
    let request: Request = params.one()?;
    let from = request.from.unwrap_or_default();
    let wallet = control.wallets.iter().find(|wallet| wallet.address() == from);
    let wallet = wallet.ok_or(Fault::UnknownAccount(from))?;
    let mut node = control.node();
    let gas = match request.gas {
        Some(gas) => gas,
        None => node.estimate_gas(&request.to_call()?)?.into(),
    };
    let transaction = request.to_transaction(&node, gas);
    let signature = wallet
        .sign_transaction(&transaction, node.chain_id)
        .ok_or_else(|| Fault::Malformed("the transaction cannot be signed".to_owned()))?;
    Ok(json!(node.submit(&transaction.rlp_signed(&signature))?))
}

fn block_by_number(params: Params<'_>, control: &Control) -> RpcResult {
    let mut params = params.sequence();
    let (at, is_full): (BlockNumber, Option<bool>) = (params.next()?, params.optional_next()?);
    let node = control.node();
    Ok(json!(node.block(at).map(|block| view::block(block, is_full.unwrap_or(false)))))
}

fn block_by_hash(params: Params<'_>, control: &Control) -> RpcResult {
    let mut params = params.sequence();
    let (hash, is_full): (H256, Option<bool>) = (params.next()?, params.optional_next()?);
    let node = control.node();
    Ok(json!(node.block_by_hash(hash).map(|block| view::block(block, is_full.unwrap_or(false)))))
}

fn fee_history(params: Params<'_>, control: &Control) -> RpcResult {
    let mut params = params.sequence();
    let (count, newest): (U64, BlockNumber) = (params.next()?, params.next()?);
    let percentiles: Vec<f64> = params.optional_next()?.unwrap_or_default();
    let node = control.node();
    let newest = node.block(newest).ok_or_else(|| Fault::AboveHead { head: node.height() })?.number;
    let oldest = (newest + 1).saturating_sub(count.as_u64().clamp(1, MAX_FEE_HISTORY));
    let blocks: Vec<_> = (oldest..=newest).filter_map(|number| node.block(number.into())).collect();
    let following = node.block((newest + 1).into()).map_or(node.next_base_fee(), |block| block.base_fee);
    let base_fees = blocks.iter().map(|block| block.base_fee).chain([following]);
    let tip = |gas_used: u64| U256::from(if gas_used > 0 { SUGGESTED_TIP } else { 0 });
    Ok(json!({
        "oldestBlock": U64::from(oldest),
        "baseFeePerGas": base_fees.map(|fee| U64::from(fee.unwrap_or(0))).collect::<Vec<_>>(),
        "gasUsedRatio": blocks.iter().map(|b| b.gas_used as f64 / BLOCK_GAS_LIMIT as f64).collect::<Vec<_>>(),
        "reward": blocks.iter().map(|b| vec![tip(b.gas_used); percentiles.len()]).collect::<Vec<_>>(),
    }))
}

fn mine(params: Params<'_>, control: &Control) -> RpcResult {
    let mut params = params.sequence();
    let (count, spacing): (Option<U64>, Option<U64>) = (params.optional_next()?, params.optional_next()?);
    let spacing = spacing.map_or(1, |seconds| seconds.as_u64().min(u64::from(u32::MAX)));
    control.node().mine(count.map_or(1, |count| count.as_u64()), spacing)?;
    Ok(Value::Null)
}

fn gas_price(node: &Node) -> U256 {
    U256::from(node.next_base_fee().unwrap_or(0)) + U256::from(SUGGESTED_TIP)
}

/// A transaction or call as sent by the client, with defaults for what is omitted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    from: Option<H160>,
    to: Option<H160>,
    nonce: Option<U256>,
    gas: Option<U256>,
    gas_price: Option<U256>,
    max_fee_per_gas: Option<U256>,
    max_priority_fee_per_gas: Option<U256>,
    value: Option<U256>,
    data: Option<Bytes>,
    input: Option<Bytes>,
    access_list: Option<AccessList>,
}

impl Request {
    fn to_call(&self) -> Result<Call, Fault> {
        let fee = |fee: Option<U256>| {
            u128::try_from(fee.unwrap_or_default()).map_err(|_| Fault::Malformed("fee too large".to_owned()))
        };
        let tip = self.max_priority_fee_per_gas.map(|tip| fee(Some(tip))).transpose()?;
        Ok(Call {
            kind: if self.max_fee_per_gas.is_some() { 2 } else { u8::from(self.access_list.is_some()) },
            from: self.from.unwrap_or_default(),
            to: self.to,
            nonce: 0,
            gas: self.gas.map_or(BLOCK_GAS_LIMIT, |gas| gas.min(BLOCK_GAS_LIMIT.into()).low_u64()),
            price: fee(self.max_fee_per_gas.or(self.gas_price))?,
            tip: tip.filter(|_| self.max_fee_per_gas.is_some()),
            value: self.value.unwrap_or_default(),
            data: self.payload(),
            access: self.access_list.clone().unwrap_or_default(),
        })
    }

    fn to_transaction(&self, node: &Node, gas: U256) -> TypedTransaction {
        let nonce = self.nonce.unwrap_or_else(|| node.next_nonce(self.from.unwrap_or_default()).into());
        let base_fee = node.next_base_fee().filter(|_| self.gas_price.is_none());
        let mut transaction: TypedTransaction = match base_fee {
            Some(base_fee) => {
                let most = U256::from(base_fee) * 2 + SUGGESTED_TIP;
                let tip = self.max_priority_fee_per_gas.unwrap_or(SUGGESTED_TIP.into());
                Eip1559TransactionRequest::new()
                    .max_fee_per_gas(self.max_fee_per_gas.unwrap_or(most))
                    .max_priority_fee_per_gas(tip)
                    .access_list(self.access_list.clone().unwrap_or_default())
                    .into()
            }
            None => TransactionRequest::new().gas_price(self.gas_price.unwrap_or(gas_price(node))).into(),
        };
        if let Some(to) = self.to {
            transaction.set_to(to);
        }
        transaction.set_nonce(nonce);
        transaction.set_gas(gas);
        transaction.set_value(self.value.unwrap_or_default());
        transaction.set_data(self.payload());
        transaction.set_chain_id(node.chain_id);
        transaction
    }

    fn payload(&self) -> Bytes {
        self.input.clone().or_else(|| self.data.clone()).unwrap_or_default()
    }
}
