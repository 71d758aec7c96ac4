//! The account state and the EVM that executes transactions on it. The only file that uses revm.

use ethers_core::types::transaction::eip2930::AccessList;
use ethers_core::types::{Bytes, H160, H256, Transaction, U256};
use revm::context::result::{EVMError, ExecutionResult, HaltReason};
use revm::context::transaction::AccessListItem;
use revm::context::{BlockEnv, TxEnv};
use revm::database::{CacheDB, EmptyDB};
use revm::primitives::hardfork::SpecId;
use revm::primitives::{self, TxKind};
use revm::state::{AccountInfo, Bytecode};
use revm::{Context, Database, DatabaseRef, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext};

/// The state of all accounts.
#[derive(Clone)]
pub(super) struct EvmState {
    accounts: CacheDB<EmptyDB>,
    chain_id: u64,
    spec: SpecId,
}

/// The block in which a transaction is executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub number: u64,
    pub timestamp: u64,
    /// `None` on a network without EIP-1559.
    pub base_fee: Option<u64>,
    pub gas_limit: u64,
}

/// A transaction, or a call that changes nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    pub kind: u8,
    pub from: H160,
    pub to: Option<H160>,
    pub nonce: u64,
    pub gas: u64,
    /// The gas price, or with EIP-1559 `maxFeePerGas`.
    pub price: u128,
    pub tip: Option<u128>,
    pub value: U256,
    pub data: Bytes,
    pub access: AccessList,
}

/// How the execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExecutionStatus {
    Success,
    Revert,
    Halt(String),
}

/// The result of an execution.
#[derive(Clone, Debug)]
pub(super) struct ExecutedTx {
    pub ending: ExecutionStatus,
    pub gas_used: u64,
    pub output: Bytes,
    pub created: Option<H160>,
    pub logs: Vec<RawLog>,
}

/// An event: contract, topics and data.
pub(super) type RawLog = (H160, Vec<H256>, Bytes);

impl EvmState {
    /// An empty state. Without a base fee it follows the rules of the last fork before EIP-1559.
    pub fn new(chain_id: u64, has_base_fee: bool) -> Self {
        let spec = if has_base_fee { SpecId::OSAKA } else { SpecId::BERLIN };
        Self { accounts: CacheDB::new(EmptyDB::new()), chain_id, spec }
    }

    /// Sets an account's balance, in wei.
    pub fn endow(&mut self, address: H160, balance: U256) {
        self.accounts.insert_account_info(
            address.0.into(),
            AccountInfo { balance: wide(balance), ..AccountInfo::default() },
        );
    }

    /// Places code at an address; what else the account has stays.
    pub fn install(&mut self, address: H160, code: &Bytes) {
        let code = Bytecode::new_raw(code.to_vec().into());
        let account = self.account(address).unwrap_or_default();
        let account = AccountInfo { code_hash: code.hash_slow(), code: Some(code), ..account };
        self.accounts.insert_account_info(address.0.into(), account);
    }

    /// Makes the hash of a mined block available to contracts.
    pub fn remember_block(&mut self, number: u64, hash: H256) {
        self.accounts.cache.block_hashes.insert(primitives::U256::from(number), hash.0.into());
    }

    pub fn balance(&self, address: H160) -> U256 {
        self.account(address).map_or_else(U256::zero, |account| narrow(account.balance))
    }

    pub fn nonce(&self, address: H160) -> u64 {
        self.account(address).map_or(0, |account| account.nonce)
    }

    pub fn code(&self, address: H160) -> Bytes {
        let Some(account) = self.account(address) else { return Bytes::new() };
        match self.accounts.code_by_hash_ref(account.code_hash) {
            Ok(code) => code.original_byte_slice().to_vec().into(),
            Err(never) => match never {},
        }
    }

    /// Executes a transaction and keeps its changes; `Err` is the reason why it is invalid now.
    pub fn execute(&mut self, call: &Call, site: &Site) -> Result<ExecutedTx, String> {
        let (chain_id, spec) = (self.chain_id, self.spec);
        let mut machine = context(&mut self.accounts, chain_id, spec, site, true).build_mainnet();
        machine.transact_commit(call.environment(chain_id)).map(outcome).map_err(reason)
    }

    /// Executes a call or simulates a transaction, without keeping its changes or checking its nonce.
    pub fn try_out(&self, call: &Call, site: &Site) -> Result<ExecutedTx, String> {
        let scratch = CacheDB::new(&self.accounts);
        let mut machine = context(scratch, self.chain_id, self.spec, site, false).build_mainnet();
        machine.transact_one(call.environment(self.chain_id)).map(outcome).map_err(reason)
    }

    fn account(&self, address: H160) -> Option<AccountInfo> {
        match self.accounts.basic_ref(address.0.into()) {
            Ok(account) => account,
            Err(never) => match never {},
        }
    }
}

impl From<&Transaction> for Call {
    fn from(transaction: &Transaction) -> Self {
        let kind = transaction.transaction_type.map_or(0, |kind| kind.low_u64() as u8);
        let price = if kind == 2 { transaction.max_fee_per_gas } else { transaction.gas_price };
        let price = price.unwrap_or_default();
        Self {
            kind,
            from: transaction.from,
            to: transaction.to,
            nonce: transaction.nonce.low_u64(),
            gas: transaction.gas.low_u64(),
            price: price.low_u128(),
            tip: transaction.max_priority_fee_per_gas.map(|tip| tip.low_u128()),
            value: transaction.value,
            data: transaction.input.clone(),
            access: transaction.access_list.clone().unwrap_or_default(),
        }
    }
}

impl Call {
    fn environment(&self, chain_id: u64) -> TxEnv {
        let access = self.access.0.iter().map(|item| AccessListItem {
            address: item.address.0.into(),
            storage_keys: item.storage_keys.iter().map(|key| key.0.into()).collect(),
        });
        TxEnv {
            tx_type: self.kind,
            caller: self.from.0.into(),
            gas_limit: self.gas,
            gas_price: self.price,
            kind: self.to.map_or(TxKind::Create, |to| TxKind::Call(to.0.into())),
            value: wide(self.value),
            data: primitives::Bytes::copy_from_slice(&self.data),
            nonce: self.nonce,
            chain_id: Some(chain_id),
            access_list: access.collect::<Vec<_>>().into(),
            gas_priority_fee: self.tip,
            ..TxEnv::default()
        }
    }
}

fn context<D: Database>(
    accounts: D,
    chain_id: u64,
    spec: SpecId,
    site: &Site,
    is_transaction: bool,
) -> Context<BlockEnv, TxEnv, revm::context::CfgEnv, D> {
    let block = BlockEnv {
        number: primitives::U256::from(site.number),
        timestamp: primitives::U256::from(site.timestamp),
        gas_limit: site.gas_limit,
        basefee: site.base_fee.unwrap_or(0),
        prevrandao: Some(primitives::B256::ZERO),
        ..BlockEnv::default()
    };
    Context::mainnet().with_db(accounts).with_block(block).modify_cfg_chained(|rules| {
        rules.set_spec_and_mainnet_gas_params(spec);
        rules.chain_id = chain_id;
        // A call may be made at any time and from any address, including contracts.
        rules.disable_nonce_check = !is_transaction;
        rules.disable_eip3607 = !is_transaction;
        // A transaction may use a whole block's gas, as on other development nodes.
        rules.tx_gas_limit_cap = Some(u64::MAX);
    })
}

fn outcome(result: ExecutionResult<HaltReason>) -> ExecutedTx {
    let gas_used = result.tx_gas_used();
    let created = result.created_address().map(|address| H160(address.0.0));
    let output = result.output().map(|output| output.to_vec().into()).unwrap_or_default();
    let (ending, logs) = match result {
        ExecutionResult::Success { logs, .. } => (ExecutionStatus::Success, logs),
        ExecutionResult::Revert { .. } => (ExecutionStatus::Revert, Vec::new()),
        ExecutionResult::Halt { reason, .. } => (ExecutionStatus::Halt(format!("{reason:?}")), Vec::new()),
    };
    let logs = logs.into_iter().map(|log| {
        let topics = log.data.topics().iter().map(|topic| H256(topic.0)).collect();
        (H160(log.address.0.0), topics, log.data.data.to_vec().into())
    });
    ExecutedTx { ending, gas_used, output, created, logs: logs.collect() }
}

fn reason<E: std::fmt::Display>(error: EVMError<E>) -> String {
    match error {
        EVMError::Transaction(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn wide(number: U256) -> primitives::U256 {
    primitives::U256::from_limbs(number.0)
}

fn narrow(number: primitives::U256) -> U256 {
    U256(number.into_limbs())
}
