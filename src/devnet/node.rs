//! The node: blocks, pending transactions, and the resulting state. Independent of JSON and sockets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ethers_core::types::{BlockNumber, Bytes, H160, H256, Log, Transaction, U256};
use ethers_core::utils::keccak256;
use serde::Deserialize;

use super::accounts;
use super::block::{Block, MinedTx, receipt};
use super::evm::{Call, EvmState, ExecutedTx, ExecutionStatus, Site};
use super::fault::Fault;
use super::incoming;
use super::logs::Filter;
use super::pool;
use super::pool::TransactionPool;

/// The gas limit of a block.
pub(super) const BLOCK_GAS_LIMIT: u64 = 30_000_000;
/// The base fee of the first block, in wei.
const INITIAL_BASE_FEE: u64 = 1_000_000_000;
/// How many blocks one call can mine.
const MAX_BLOCKS_AT_ONCE: u64 = 100_000;
/// The most events in one result.
const MAX_LOGS: usize = 10_000;
/// How many snapshots to keep; the oldest is dropped first.
const MAX_SNAPSHOTS: usize = 64;

/// The whole chain.
pub(super) struct Node {
    pub chain_id: u64,
    pub is_automatic: bool,
    has_base_fee: bool,
    max_log_range: Option<u64>,
    world: EvmState,
    blocks: Vec<Arc<Block>>,
    /// The position of each mined transaction: block number and index in the block.
    mined: HashMap<H256, (usize, usize)>,
    pool: TransactionPool,
    snapshots: BTreeMap<u64, Snapshot>,
    next_snapshot: u64,
}

/// The block after which a state is read (EIP-1898).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum StateOf {
    Number(BlockNumber),
    Hash {
        #[serde(rename = "blockHash")]
        hash: H256,
    },
}

struct Snapshot {
    world: EvmState,
    height: usize,
    pool: TransactionPool,
}

impl Node {
    /// A chain with a genesis block that funds the development accounts.
    pub fn new(chain_id: u64, has_base_fee: bool, max_log_range: Option<u64>) -> Self {
        let mut world = EvmState::new(chain_id, has_base_fee);
        for address in accounts::addresses() {
            world.endow(address, accounts::initial_balance());
        }
        let genesis = Block {
            number: 0,
            hash: H256(keccak256(chain_id.to_be_bytes())),
            parent_hash: H256::zero(),
            timestamp: unix_now(),
            base_fee: has_base_fee.then_some(INITIAL_BASE_FEE),
            gas_used: 0,
            transactions: Vec::new(),
        };
        world.remember_block(0, genesis.hash);
        Self {
            chain_id,
            is_automatic: true,
            has_base_fee,
            max_log_range,
            world,
            blocks: vec![Arc::new(genesis)],
            mined: HashMap::new(),
            pool: TransactionPool::default(),
            snapshots: BTreeMap::new(),
            next_snapshot: 0,
        }
    }

    /// The number of the latest block.
    pub fn height(&self) -> u64 {
        self.blocks.len() as u64 - 1
    }

    /// The state after the latest block; earlier states are not kept.
    pub fn state(&self, at: Option<BlockNumber>) -> Result<&EvmState, Fault> {
        match at {
            Some(BlockNumber::Number(number)) if number.as_u64() != self.height() => {
                Err(Fault::OldState(number.as_u64()))
            }
            Some(BlockNumber::Earliest) if self.height() > 0 => Err(Fault::OldState(0)),
            _ => Ok(&self.world),
        }
    }

    /// The block after which a state is to be read.
    pub fn block_of(&self, at: StateOf) -> Result<BlockNumber, Fault> {
        match at {
            StateOf::Number(number) => Ok(number),
            StateOf::Hash { hash } => {
                let block = self.block_by_hash(hash).ok_or(Fault::UnknownBlock)?;
                Ok(BlockNumber::Number(block.number.into()))
            }
        }
    }

    /// The account's next nonce, after pending transactions.
    pub fn next_nonce(&self, sender: H160) -> u64 {
        self.pool.next_nonce(&self.world, sender)
    }

    /// The block at `at`, if there is one.
    pub fn block(&self, at: BlockNumber) -> Option<&Block> {
        let number = self.resolve(at).min(usize::MAX as u64) as usize;
        self.blocks.get(number).map(AsRef::as_ref)
    }

    /// The block with this hash.
    pub fn block_by_hash(&self, hash: H256) -> Option<&Block> {
        self.blocks.iter().rev().find(|block| block.hash == hash).map(AsRef::as_ref)
    }

    /// The mined transaction with this hash.
    pub fn mined(&self, hash: H256) -> Option<&MinedTx> {
        let (block, index) = self.mined.get(&hash)?;
        self.blocks.get(*block)?.transactions.get(*index)
    }

    /// The transaction with this hash, mined or pending.
    pub fn transaction(&self, hash: H256) -> Option<&Transaction> {
        self.mined(hash).map(|mined| &mined.transaction).or_else(|| self.pool.find(hash))
    }

    /// The base fee of the next block; `None` without EIP-1559.
    pub fn next_base_fee(&self) -> Option<u64> {
        let parent = self.latest();
        let base_fee = parent.base_fee?;
        // As on other development nodes, the first block after the genesis has the same base fee.
        Some(if parent.number == 0 { base_fee } else { following_base_fee(base_fee, parent.gas_used) })
    }

    /// Executes a call on the latest state, without changing it.
    pub fn call(&self, call: &Call) -> Result<Bytes, Fault> {
        let outcome = self.try_out(call)?;
        match outcome.ending {
            ExecutionStatus::Success => Ok(outcome.output),
            ExecutionStatus::Revert => Err(Fault::Reverted(outcome.output)),
            ExecutionStatus::Halt(reason) => Err(Fault::Halted(reason)),
        }
    }

    /// The least gas limit with which the call succeeds.
    pub fn estimate_gas(&self, call: &Call) -> Result<u64, Fault> {
        let most = Call { gas: call.gas.min(BLOCK_GAS_LIMIT).min(self.affordable_gas(call)), ..call.clone() };
        self.call(&most)?;
        let (mut too_little, mut enough) = (self.try_out(&most)?.gas_used.saturating_sub(1), most.gas);
        while too_little + 1 < enough {
            let gas = too_little + (enough - too_little) / 2;
            if self.call(&Call { gas, ..call.clone() }).is_ok() {
                enough = gas;
            } else {
                too_little = gas;
            }
        }
        Ok(enough)
    }

    /// Accepts a raw signed transaction; with automatic mining it is mined at once.
    pub fn submit(&mut self, raw: &[u8]) -> Result<H256, Fault> {
        let transaction = incoming::decode(raw)?;
        let hash = transaction.hash;
        self.check(&transaction)?;
        self.pool.insert(transaction)?;
        if self.is_automatic {
            self.mine_each();
        }
        Ok(hash)
    }

    /// Mines `count` blocks, `spacing` seconds apart; the first ones include the pending transactions.
    pub fn mine(&mut self, count: u64, spacing: u64) -> Result<(), Fault> {
        if count > MAX_BLOCKS_AT_ONCE {
            return Err(Fault::ManyBlocks(MAX_BLOCKS_AT_ONCE));
        }
        for _ in 0..count {
            self.seal(usize::MAX, spacing);
        }
        Ok(())
    }

    /// Mines each pending transaction in a block of its own.
    pub fn mine_each(&mut self) {
        while self.pool.best(&self.world, self.next_base_fee(), BLOCK_GAS_LIMIT).is_some() {
            self.seal(1, 1);
        }
    }

    /// Places code at an address, and mines a block with it.
    pub fn install(&mut self, address: H160, code: &Bytes) -> Result<(), Fault> {
        self.world.install(address, code);
        self.mine(1, 1)
    }

    /// Takes a snapshot of the whole state.
    pub fn snapshot(&mut self) -> u64 {
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        let snapshot =
            Snapshot { world: self.world.clone(), height: self.blocks.len(), pool: self.pool.clone() };
        self.snapshots.insert(id, snapshot);
        if self.snapshots.len() > MAX_SNAPSHOTS {
            self.snapshots.pop_first();
        }
        id
    }

    /// Restores a snapshot and drops it and all later ones; false if it does not exist.
    pub fn revert(&mut self, id: u64) -> bool {
        let Some(snapshot) = self.snapshots.remove(&id) else { return false };
        self.snapshots.split_off(&id);
        self.world = snapshot.world;
        self.pool = snapshot.pool;
        self.blocks.truncate(snapshot.height);
        self.mined.retain(|_, (block, _)| *block < snapshot.height);
        true
    }

    /// The events that match the filter, in order.
    pub fn logs(&self, filter: &Filter) -> Result<Vec<Log>, Fault> {
        let blocks = self.blocks_of(filter)?;
        let logs = blocks.iter().flat_map(|block| &block.transactions).flat_map(|mined| &mined.receipt.logs);
        let found: Vec<_> = logs.filter(|log| filter.admits(log)).take(MAX_LOGS + 1).cloned().collect();
        if found.len() > MAX_LOGS { Err(Fault::ManyLogs(MAX_LOGS)) } else { Ok(found) }
    }

    fn affordable_gas(&self, call: &Call) -> u64 {
        let money = self.world.balance(call.from).saturating_sub(call.value);
        let gas = money.checked_div(U256::from(call.price)).unwrap_or(U256::MAX);
        gas.min(u64::MAX.into()).low_u64()
    }

    fn blocks_of(&self, filter: &Filter) -> Result<&[Arc<Block>], Fault> {
        let (from, to) = match filter.block_hash {
            Some(hash) => {
                let block = self.block_by_hash(hash).ok_or(Fault::Malformed("unknown block".to_owned()))?;
                (block.number, block.number)
            }
            None => (
                self.resolve(filter.from_block.unwrap_or(BlockNumber::Latest)),
                self.resolve(filter.to_block.unwrap_or(BlockNumber::Latest)),
            ),
        };
        let head = self.height();
        if from > head {
            return Err(Fault::AboveHead { head });
        }
        if from > to {
            return Err(Fault::Malformed("invalid block range params".to_owned()));
        }
        if let Some(max) = self.max_log_range
            && to - from >= max
        {
            return Err(Fault::WideRange(max));
        }
        Ok(&self.blocks[from as usize..=to.min(head) as usize])
    }

    fn resolve(&self, at: BlockNumber) -> u64 {
        match at {
            BlockNumber::Number(number) => number.as_u64(),
            BlockNumber::Earliest => 0,
            _ => self.height(),
        }
    }

    fn latest(&self) -> &Block {
        // The genesis block always exists: no snapshot predates it.
        &self.blocks[self.blocks.len() - 1]
    }

    fn try_out(&self, call: &Call) -> Result<ExecutedTx, Fault> {
        // As in other nodes, a call without a gas price pays no base fee.
        let base_fee = self.next_base_fee().map(|base_fee| if call.price == 0 { 0 } else { base_fee });
        let site = self.site(base_fee, 0);
        self.world.try_out(call, &site).map_err(Fault::Malformed)
    }

    /// Checks a transaction before it becomes pending.
    fn check(&self, transaction: &Transaction) -> Result<(), Fault> {
        if self.transaction(transaction.hash).is_some() {
            return Err(Fault::AlreadyKnown);
        }
        if let Some(given) = transaction.chain_id
            && given != U256::from(self.chain_id)
        {
            return Err(Fault::ChainId { given, want: self.chain_id });
        }
        let call = Call::from(transaction);
        if call.kind == 2 && !self.has_base_fee {
            return Err(Fault::TransactionType);
        }
        if call.gas > BLOCK_GAS_LIMIT {
            return Err(Fault::GasLimit);
        }
        let next = self.world.nonce(call.from);
        if call.nonce < next {
            return Err(Fault::NonceTooLow { next, given: call.nonce });
        }
        let (balance, cost) = (self.world.balance(call.from), pool::max_cost(&call));
        if cost > balance {
            return Err(Fault::InsufficientFunds { balance, cost });
        }
        // Simulated, so that a transaction that can never be mined (such as one with too little gas) does not stay
        // pending forever. It may wait for a lower base fee, though.
        let site = self.site(self.has_base_fee.then_some(0), 0);
        self.world.try_out(&call, &site).map(drop).map_err(Fault::Malformed)
    }

    fn site(&self, base_fee: Option<u64>, spacing: u64) -> Site {
        let parent = self.latest();
        let timestamp = unix_now().max(parent.timestamp + spacing);
        Site { number: parent.number + 1, timestamp, base_fee, gas_limit: BLOCK_GAS_LIMIT }
    }

    fn seal(&mut self, max_transactions: usize, spacing: u64) {
        let site = self.site(self.next_base_fee(), spacing);
        let (mut gas_used, mut ran) = (0, Vec::new());
        while ran.len() < max_transactions
            && let Some(waiting) = self.pool.best(&self.world, site.base_fee, BLOCK_GAS_LIMIT - gas_used)
        {
            let (transaction, call) = (waiting.transaction.clone(), waiting.call.clone());
            self.pool.remove(call.from, call.nonce);
            match self.world.execute(&call, &site) {
                Ok(outcome) => {
                    gas_used += outcome.gas_used;
                    ran.push((transaction, call, outcome));
                }
                // The sender has spent the money in the meantime.
                Err(reason) => tracing::debug!(hash = ?transaction.hash, reason, "transaction dropped"),
            }
        }
        self.append(&site, gas_used, ran);
    }

    fn append(&mut self, site: &Site, gas_used: u64, ran: Vec<(Transaction, Call, ExecutedTx)>) {
        let parent_hash = self.latest().hash;
        let mut seed = [parent_hash.0.as_slice(), &site.timestamp.to_be_bytes()].concat();
        ran.iter().for_each(|(transaction, ..)| seed.extend(transaction.hash.0));
        let hash = H256(keccak256(seed));
        let (mut gas_before, mut logs_before) = (0, 0);
        let mut transactions = Vec::with_capacity(ran.len());
        for (index, (mut transaction, call, outcome)) in ran.into_iter().enumerate() {
            transaction.block_hash = Some(hash);
            transaction.block_number = Some(site.number.into());
            transaction.transaction_index = Some(index.into());
            let receipt = receipt(&mut transaction, &call, outcome, site, gas_before, logs_before);
            gas_before = receipt.cumulative_gas_used.low_u64();
            logs_before += receipt.logs.len();
            self.mined.insert(transaction.hash, (self.blocks.len(), index));
            transactions.push(MinedTx { transaction, receipt });
        }
        self.world.remember_block(site.number, hash);
        self.blocks.push(Arc::new(Block {
            number: site.number,
            hash,
            parent_hash,
            timestamp: site.timestamp,
            base_fee: site.base_fee,
            gas_used,
            transactions,
        }));
    }
}

/// EIP-1559: changes by at most an eighth, towards half-full blocks.
fn following_base_fee(base_fee: u64, gas_used: u64) -> u64 {
    let target = BLOCK_GAS_LIMIT / 2;
    let change = |gas: u64| (u128::from(base_fee) * u128::from(gas) / u128::from(target) / 8) as u64;
    if gas_used > target {
        base_fee.saturating_add(change(gas_used - target).max(1))
    } else {
        base_fee - change(target - gas_used)
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
