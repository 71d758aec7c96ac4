//! Reads the channel contract and its token: their properties, the payer's balances and channels.

use ethers_core::abi::AbiDecode;
use ethers_core::types::{H160, U256};

use crate::chain::Chain;
use crate::chain::client::{ChainState, ContractConstants};
use crate::chain::contract_call::ContractCall;
use crate::chain::erc20;
use crate::chain::error::ChainError;
use crate::chain::microraiden::contracts;
use crate::chain::microraiden::contracts::ChannelInfo;
use crate::chain::rpc::{At, Rpc};
use crate::protocol::{Address, Amount, ChannelId, OnChain};

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
    /// Reads the properties of the node and the contract.
    ///
    /// # Errors
    /// The node does not answer, or the contract is not a supported channel contract.
    pub async fn contract_info(&self) -> Result<ContractInfo, ChainError> {
        let ChainState { rpc, settings, .. } = &*self.0;
        let contract = settings.channel_manager;
        let chain_id = self.chain_id().await?;
        if !rpc.has_code(contract.into()).await? {
            return Err(ChainError::NoCode { contract, chain_id, node: rpc.shown().into() });
        }
        let version: String = self.ask_contract(contracts::version()).await?;
        if !version.starts_with(VERSIONS) {
            let version = version.chars().take(MAX_SYMBOL).collect();
            return Err(ChainError::WrongVersion { contract, version });
        }
        let token = self.token().await?;
        let challenge_period = self.ask_contract(contracts::challenge_period()).await?;
        let head = rpc.head().await?;
        Ok(ContractInfo { chain_id, token, version, challenge_period, head })
    }

    /// Reads the contract's token and compares it with the pinned one.
    pub(in crate::chain) async fn token(&self) -> Result<Address, ChainError> {
        let token: H160 = self.ask_contract(contracts::token()).await?;
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
    pub(in crate::chain) async fn verify(&self) -> Result<(), ChainError> {
        self.chain_id().await?;
        self.token().await.map(drop)
    }

    /// The payer's current balances.
    pub async fn balances(&self) -> Result<Balances, ChainError> {
        let token = self.pinned().await?.token;
        let wei = self.0.rpc.ether_of(self.payer().into()).await?;
        let tokens = self.tokens(token).await?;
        let decimals = optional(self.view(token, erc20::decimals(), At::Latest).await)?;
        let symbol: Option<String> = optional(self.view(token, erc20::symbol(), At::Latest).await)?;
        let symbol = symbol.map(|name| name.chars().filter(|c| !c.is_control()).take(MAX_SYMBOL).collect());
        Ok(Balances { wei, tokens, decimals, symbol })
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

    pub(in crate::chain) async fn channel_at(
        &self,
        id: ChannelId,
        at: At,
    ) -> Result<Option<OnChain>, ChainError> {
        self.channel_by(&self.0.rpc, id, at).await
    }

    pub(in crate::chain) async fn channel_by(
        &self,
        rpc: &Rpc,
        id: ChannelId,
        at: At,
    ) -> Result<Option<OnChain>, ChainError> {
        let contract = self.0.settings.channel_manager;
        let call = contracts::channel_info(self.payer(), id);
        let info: ChannelInfo = match self.view_by(rpc, contract, call, at).await {
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
        let (_key, deposit, settle_block, closing_balance, withdrawn) = info;
        Ok(Some(OnChain {
            deposit: bounded(deposit)?,
            settle_block,
            closing_balance: bounded(closing_balance)?,
            withdrawn: bounded(withdrawn)?,
        }))
    }

    /// The pinned properties, read once.
    pub(in crate::chain) async fn pinned(&self) -> Result<ContractConstants, ChainError> {
        let ask = || async {
            let ContractInfo { chain_id, token, .. } = self.contract_info().await?;
            Ok(ContractConstants { chain_id, token })
        };
        self.0.pinned.get_or_try_init(ask).await.copied()
    }

    pub(in crate::chain) async fn tokens(&self, token: Address) -> Result<Amount, ChainError> {
        let call = erc20::balance_of(self.payer());
        let units: U256 = self.view(token, call, At::Latest).await?;
        Ok(Amount::try_from(units).unwrap_or(Amount::MAX))
    }

    /// Calls a view function that every channel contract has.
    pub(in crate::chain) async fn ask_contract<R: AbiDecode>(
        &self,
        call: ContractCall,
    ) -> Result<R, ChainError> {
        let contract = self.0.settings.channel_manager;
        let function = call.function();
        match self.view(contract, call, At::Latest).await {
            Err(ChainError::Reverted { message }) => {
                let why = format!("{function} failed: {message}");
                Err(ChainError::WrongContract { contract, why })
            }
            other => other,
        }
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
