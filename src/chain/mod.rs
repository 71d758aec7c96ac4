//! The chain layer: contracts, node, transactions and the signing key. It never sees a client's HTTP request.
//!
//! [`Chain`] is a handle to one channel contract through one JSON-RPC node, for one payer. It keeps nothing that must
//! survive a crash: that goes to a [`TransactionRecorder`] before it is acted on.

mod confirm;
mod contracts;
mod end;
mod error;
mod execute;
mod fees;
mod fund;
mod gap;
pub mod keystore;
mod nonces;
mod reason;
mod recorder;
mod refusal;
mod rpc;
mod send;
pub mod signer;
mod sync;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ethers_contract::EthCall;
use ethers_core::abi::AbiDecode;
use ethers_core::types::{H160, U256};
use tokio::sync::watch::Receiver;
use tokio::sync::{Mutex, OnceCell};

#[cfg(feature = "testing")]
pub use error::Underfunded;
pub use error::{ChainError, NotRecorded, OpError, PinSource};
pub use execute::{OpResult, Resolution};
pub use recorder::TransactionRecorder;
pub use sync::Synced;
#[cfg(feature = "testing")]
pub use watch::BlockWatcher;

use crate::protocol::{Address, Amount, ChannelId, OnChain, Wei};
use contracts::{
    BalanceOfCall, ChallengePeriodCall, DecimalsCall, GetChannelInfoCall, GetChannelInfoReturn, SymbolCall,
    TokenCall, VersionCall,
};
use nonces::Nonces;
use rpc::{At, CallRequest, Rpc};
use signer::Signer;

/// The node, the contract and the limits of the chain layer.
#[derive(Clone)]
pub struct ChainSettings {
    /// The node's JSON-RPC URL, http or https; it may contain secrets and is never printed.
    pub rpc_url: String,
    /// The channel contract.
    pub channel_manager: Address,
    /// How many confirmations a transaction needs, its own block included; at least 1.
    pub confirmations: u32,
    /// The first block that can contain an event of this contract.
    pub start_block: u64,
    /// The timeout of one JSON-RPC call.
    pub request_timeout: Duration,
    /// How often to check for a new block or a pending transaction.
    pub poll_every: Duration,
    /// How long to wait for the confirmation of a sent transaction.
    pub confirm_timeout: Duration,
    /// The most blocks to request in one `eth_getLogs`; halved if the node refuses; at least 1.
    pub log_range: u64,
    /// How long to retry transient node errors; also bounded by `confirm_timeout`.
    pub retry_timeout: Duration,
    /// The only chain ID to sign for; if absent, the first that the node reports.
    pub chain_id: Option<u64>,
    /// The highest fee per unit of gas.
    pub max_fee_per_gas: Wei,
    /// The highest fee of one transaction.
    pub max_fee: Wei,
}

/// A handle to the chain; cheap to clone.
#[derive(Clone, Debug)]
pub struct Chain(Arc<ChainState>);

struct ChainState {
    settings: ChainSettings,
    rpc: Rpc,
    /// The same node with the retry window of one poll, for requests that are repeated anyway.
    poll_rpc: Rpc,
    signer: Arc<Signer>,
    nonces: Nonces,
    /// Held while an allowance is set and used: concurrent operations would take it from each other.
    allowance: Mutex<()>,
    pinned: OnceCell<ContractConstants>,
    transfers_with_data: OnceCell<bool>,
}

/// Properties of a contract that never change.
#[derive(Clone, Copy)]
struct ContractConstants {
    chain_id: u64,
    token: Address,
}

/// What the node and the contract report about themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractInfo {
    /// The chain ID (EIP-155).
    pub chain_id: u64,
    /// The token that channels hold.
    pub token: Address,
    /// The contract's version, 0.2.x.
    pub version: String,
    /// Blocks between a unilateral close and its settlement.
    pub challenge_period: u32,
    /// The newest block.
    pub head: u64,
}

/// The payer's balances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balances {
    /// Ether for fees, in wei.
    pub wei: U256,
    /// Tokens, in base units; [`Amount::MAX`] means that much or more.
    pub tokens: Amount,
    /// The token's decimals, if it reports them.
    pub decimals: Option<u8>,
    /// The token's symbol, if it has one.
    pub symbol: Option<String>,
}

/// The supported versions of the contract.
const VERSIONS: &str = "0.2.";
/// The longest token symbol to display, in characters.
const MAX_SYMBOL: usize = 16;

impl Chain {
    /// Checks the settings; does not contact the node.
    pub fn new(settings: ChainSettings, signer: Arc<Signer>) -> Result<Self, ChainError> {
        let retry_window = settings.retry_timeout.min(settings.confirm_timeout);
        let rpc = Rpc::new(&settings.rpc_url, settings.request_timeout, retry_window)?;
        let at_least = |good: bool, name, least| {
            if good { Ok(()) } else { Err(ChainError::Setting { name, least }) }
        };
        at_least(settings.confirmations > 0, "confirmations", "1")?;
        at_least(settings.log_range > 0, "log_range", "1")?;
        // Tokio's interval panics on a zero period.
        at_least(settings.poll_every >= Duration::from_millis(1), "poll_every", "1 ms")?;
        Ok(Self(Arc::new(ChainState {
            poll_rpc: rpc.with_retry_window(settings.poll_every),
            rpc,
            settings,
            signer,
            nonces: Nonces::default(),
            allowance: Mutex::default(),
            pinned: OnceCell::new(),
            transfers_with_data: OnceCell::new(),
        })))
    }

    /// Reads the properties of the node and the contract.
    ///
    /// # Errors
    /// The node cannot be asked, or the contract is not a supported channel contract.
    pub async fn contract_info(&self) -> Result<ContractInfo, ChainError> {
        let ChainState { rpc, settings, .. } = &*self.0;
        let contract = settings.channel_manager;
        let chain_id = self.chain_id().await?;
        if !rpc.has_code(contract.into()).await? {
            return Err(ChainError::NoCode { contract, chain_id, node: rpc.shown().into() });
        }
        let version: String = self.ask_contract(VersionCall).await?;
        if !version.starts_with(VERSIONS) {
            let version = version.chars().take(MAX_SYMBOL).collect();
            return Err(ChainError::WrongVersion { contract, version });
        }
        let token = self.token().await?;
        let challenge_period = self.ask_contract(ChallengePeriodCall).await?;
        let head = rpc.head().await?;
        Ok(ContractInfo { chain_id, token, version, challenge_period, head })
    }

    /// The node error that is being retried, if any.
    pub fn outage(&self) -> Receiver<Option<String>> {
        self.0.rpc.outage()
    }

    /// Pins the chain ID and the token: nothing is signed if the node or the contract later reports others.
    pub fn pin(&self, chain_id: u64, token: Address) {
        // The first pin is kept.
        let _ = self.0.pinned.set(ContractConstants { chain_id, token });
    }

    /// The chain ID from the configuration, if set.
    pub fn configured_chain(&self) -> Option<u64> {
        self.0.settings.chain_id
    }

    /// Reads the node's chain ID and compares it with the pinned one.
    async fn chain_id(&self) -> Result<u64, ChainError> {
        let ChainState { rpc, settings, pinned, .. } = &*self.0;
        let found = rpc.chain_id().await?;
        let seen = pinned.get().map(|pinned| (pinned.chain_id, PinSource::SeenBefore));
        match settings.chain_id.map(|pinned| (pinned, PinSource::Configured)).or(seen) {
            Some((pinned, source_of_pin)) if pinned != found => {
                Err(ChainError::WrongChain { node: rpc.shown().into(), found, pinned, source_of_pin })
            }
            _ => Ok(found),
        }
    }

    /// Reads the contract's token and compares it with the pinned one.
    async fn token(&self) -> Result<Address, ChainError> {
        let token: H160 = self.ask_contract(TokenCall).await?;
        match self.0.pinned.get() {
            Some(pinned) if pinned.token != token.into() => Err(ChainError::WrongToken {
                contract: self.0.settings.channel_manager,
                node: self.0.rpc.shown().into(),
                found: token.into(),
                pinned: pinned.token,
            }),
            _ => Ok(token.into()),
        }
    }

    /// Compares the chain ID and the token with the pinned ones. Call before each signature.
    async fn verify(&self) -> Result<(), ChainError> {
        self.chain_id().await?;
        self.token().await.map(drop)
    }

    /// The payer's current balances.
    pub async fn balances(&self) -> Result<Balances, ChainError> {
        let token = self.pinned().await?.token;
        let wei = self.0.rpc.ether_of(self.payer().into()).await?;
        let tokens = self.tokens(token).await?;
        let decimals = optional(self.view(token, DecimalsCall, At::Latest).await)?;
        let symbol: Option<String> = optional(self.view(token, SymbolCall, At::Latest).await)?;
        let symbol = symbol.map(|name| name.chars().filter(|c| !c.is_control()).take(MAX_SYMBOL).collect());
        Ok(Balances { wei, tokens, decimals, symbol })
    }

    /// How many transactions of the payer have been mined.
    pub async fn transactions(&self) -> Result<u64, ChainError> {
        self.0.rpc.mined_of(self.payer().into()).await
    }

    /// The number of the newest block.
    pub async fn head(&self) -> Result<u64, ChainError> {
        self.0.rpc.head().await
    }

    /// The state of one of the payer's channels; `None` if it is settled or never existed.
    ///
    /// # Errors
    /// Also if the node does not have the block of its opening yet.
    pub async fn channel(&self, id: ChannelId) -> Result<Option<OnChain>, ChainError> {
        if let Some(on_chain) = self.channel_at(id, At::Latest).await? {
            return Ok(Some(on_chain));
        }
        let behind = || ChainError::Behind { node: self.0.rpc.shown().into(), channel: id };
        self.channel_for_certain(id, id.open_block.into()).await?.ok_or_else(behind)
    }

    async fn channel_at(&self, id: ChannelId, at: At) -> Result<Option<OnChain>, ChainError> {
        self.channel_by(&self.0.rpc, id, at).await
    }

    async fn channel_by(&self, rpc: &Rpc, id: ChannelId, at: At) -> Result<Option<OnChain>, ChainError> {
        let contract = self.0.settings.channel_manager;
        let call = GetChannelInfoCall {
            sender: self.payer().into(),
            receiver: id.receiver.into(),
            open_block: id.open_block,
        };
        let info: GetChannelInfoReturn = match self.view_by(rpc, contract, call, at).await {
            Ok(info) => info,
            Err(ChainError::Reverted { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let bounded = |units: U256| {
            Amount::try_from(units).map_err(|error| ChainError::WrongContract {
                contract,
                why: format!("getChannelInfo returned an invalid amount: {error}"),
            })
        };
        Ok(Some(OnChain {
            deposit: bounded(info.deposit)?,
            settle_block: info.settle_block,
            closing_balance: bounded(info.closing_balance)?,
            withdrawn: bounded(info.withdrawn)?,
        }))
    }

    fn payer(&self) -> Address {
        self.0.signer.address()
    }

    /// The pinned properties, read once.
    async fn pinned(&self) -> Result<ContractConstants, ChainError> {
        let ask = || async {
            let ContractInfo { chain_id, token, .. } = self.contract_info().await?;
            Ok(ContractConstants { chain_id, token })
        };
        self.0.pinned.get_or_try_init(ask).await.copied()
    }

    async fn tokens(&self, token: Address) -> Result<Amount, ChainError> {
        let call = BalanceOfCall { owner: self.payer().into() };
        let units: U256 = self.view(token, call, At::Latest).await?;
        Ok(Amount::try_from(units).unwrap_or(Amount::MAX))
    }

    /// Calls a view function that every channel contract has.
    async fn ask_contract<C: EthCall, R: AbiDecode>(&self, call: C) -> Result<R, ChainError> {
        let contract = self.0.settings.channel_manager;
        match self.view(contract, call, At::Latest).await {
            Err(ChainError::Reverted { message }) => {
                let why = format!("{} failed: {message}", C::function_name());
                Err(ChainError::WrongContract { contract, why })
            }
            other => other,
        }
    }

    async fn view<C: EthCall, R: AbiDecode>(&self, to: Address, call: C, at: At) -> Result<R, ChainError> {
        self.view_by(&self.0.rpc, to, call, at).await
    }

    async fn view_by<C: EthCall, R: AbiDecode>(
        &self,
        rpc: &Rpc,
        to: Address,
        call: C,
        at: At,
    ) -> Result<R, ChainError> {
        let answer = rpc.call(&self.request(to, call), at).await?;
        R::decode(&answer).map_err(|_| ChainError::WrongContract {
            contract: to,
            why: format!("{} returned {} bytes of the wrong type", C::function_name(), answer.len()),
        })
    }

    fn request<C: EthCall>(&self, to: Address, call: C) -> CallRequest {
        CallRequest { from: self.payer().into(), to: to.into(), data: call.encode().into() }
    }
}

impl fmt::Debug for ChainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, rpc, signer, .. } = self;
        write!(f, "{rpc:?} {} {signer:?}", settings.channel_manager)
    }
}

impl fmt::Debug for ChainSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL is left out: it may contain a password or a key.
        f.debug_struct("Settings")
            .field("channel_manager", &self.channel_manager)
            .field("confirmations", &self.confirmations)
            .field("start_block", &self.start_block)
            .finish_non_exhaustive()
    }
}

/// The value of an optional token function; a revert or a result of another type means that the token lacks it.
fn optional<T>(answer: Result<T, ChainError>) -> Result<Option<T>, ChainError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(ChainError::Reverted { .. } | ChainError::WrongContract { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
