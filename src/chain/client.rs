//! The handle to the chain: one JSON-RPC node, one signer, and the view calls on contracts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ethers_core::abi::AbiDecode;
use tokio::sync::watch::Receiver;
use tokio::sync::{Mutex, OnceCell};

use crate::chain::contract_call::ContractCall;
use crate::chain::daily_fees::DailyFees;
use crate::chain::error::{ChainError, PinSource};
use crate::chain::nonces::Nonces;
use crate::chain::rpc::{At, CallRequest, Rpc};
use crate::chain::settings::ChainSettings;
use crate::chain::wallet_signer::WalletSigner;
use crate::protocol::Address;

/// Where the URL of the node is written.
const RPC_KEY: &str = "chain.rpc_url";

/// A handle to the chain; cheap to clone.
#[derive(Clone, Debug)]
pub struct Chain(pub(super) Arc<ChainState>);

pub(super) struct ChainState {
    pub settings: ChainSettings,
    pub rpc: Rpc,
    /// The same node with the retry window of one poll, for requests that are repeated anyway.
    pub poll_rpc: Rpc,
    pub signer: Arc<WalletSigner>,
    pub nonces: Nonces,
    pub daily_fees: DailyFees,
    /// Held while an allowance is set and used: concurrent operations would take it from each other.
    pub allowance: Mutex<()>,
    pub pinned: OnceCell<ContractConstants>,
    pub transfers_with_data: OnceCell<bool>,
    /// Whether the last look at the head has failed.
    pub is_unwatched: AtomicBool,
}

/// Properties of a contract that never change.
#[derive(Clone, Copy)]
pub(super) struct ContractConstants {
    pub chain_id: u64,
    pub token: Address,
}

impl Chain {
    /// Checks the settings; does not contact the node.
    pub fn new(settings: ChainSettings, signer: Arc<WalletSigner>) -> Result<Self, ChainError> {
        let retry_window = settings.retry_timeout.min(settings.confirm_timeout);
        let rpc = Rpc::new(RPC_KEY, &settings.rpc_url, settings.request_timeout, retry_window)?;
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
            daily_fees: DailyFees::new("chain", settings.max_fees_per_day),
            settings,
            signer,
            nonces: Nonces::default(),
            allowance: Mutex::default(),
            pinned: OnceCell::new(),
            transfers_with_data: OnceCell::new(),
            is_unwatched: AtomicBool::new(false),
        })))
    }

    /// The node error that is being retried, if any.
    pub fn outage(&self) -> Receiver<Option<String>> {
        self.0.rpc.outage()
    }

    /// Whether the node gives usable answers, as far as is known from earlier ones.
    pub fn is_reached(&self) -> bool {
        !self.0.is_unwatched.load(Ordering::Relaxed) && !self.0.rpc.has_outage()
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
    pub(super) async fn chain_id(&self) -> Result<u64, ChainError> {
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

    /// How many transactions of the payer have been mined.
    pub async fn transactions(&self) -> Result<u64, ChainError> {
        self.0.rpc.mined_of(self.payer().into()).await
    }

    /// The number of the newest block.
    pub async fn head(&self) -> Result<u64, ChainError> {
        self.0.rpc.head().await
    }

    pub(super) fn payer(&self) -> Address {
        self.0.signer.address()
    }

    pub(super) async fn view<R: AbiDecode>(
        &self,
        to: Address,
        call: ContractCall,
        at: At,
    ) -> Result<R, ChainError> {
        self.view_by(&self.0.rpc, to, call, at).await
    }

    pub(super) async fn view_by<R: AbiDecode>(
        &self,
        rpc: &Rpc,
        to: Address,
        call: ContractCall,
        at: At,
    ) -> Result<R, ChainError> {
        let answer = rpc.call(&self.request(to, &call), at).await?;
        R::decode(&answer).map_err(|_| ChainError::WrongContract {
            contract: to,
            why: format!("{} returned {} bytes of the wrong type", call.function(), answer.len()),
        })
    }

    pub(super) fn request(&self, to: Address, call: &ContractCall) -> CallRequest {
        CallRequest { from: self.payer().into(), to: to.into(), data: call.data() }
    }
}

impl fmt::Debug for ChainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, rpc, signer, .. } = self;
        write!(f, "{rpc:?} {} {signer:?}", settings.channel_manager)
    }
}
