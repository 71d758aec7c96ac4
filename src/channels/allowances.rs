//! Allowances of the payer's tokens: what Permit2 may move on a network. They are set with the key of the channels, whose
//! transactions on the same network they must not disturb.

use std::sync::Arc;

use ethers_core::types::U256;
use serde::{Deserialize, Serialize};

use super::error::OperationError;
use super::service::Channels;
use crate::chain::{Allowance, AllowancePlan, Allowances, Chain, NetworkAccount, WalletSigner};
use crate::payments::ChannelAccessError;
use crate::protocol::Address;
use crate::protocol::engine::OpRefused;
use crate::protocol::schemes::PERMIT2;

/// Names the allowance of Permit2 for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowanceName {
    /// The chain ID of the network.
    pub chain_id: u64,
    /// The token.
    pub token: Address,
}

/// The allowance of Permit2 for a token, as it is or as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit2Allowance {
    /// Which one.
    #[serde(flatten)]
    pub name: AllowanceName,
    /// How much, in base units; the largest number means without a limit.
    pub amount: U256,
}

/// An allowance that was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAllowance {
    /// How much the token shows that Permit2 may move now, in base units.
    pub amount: U256,
    /// The hashes of the transactions that set it, as `0x` and 64 hexadecimal digits; none if it was as wanted.
    #[serde(default)]
    pub transactions: Vec<String>,
}

/// What it takes to set an allowance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowanceChange {
    /// The account that gives it.
    pub owner: Address,
    /// The contract that gets it.
    pub spender: Address,
    /// How much it may move now.
    pub present: U256,
    /// How many transactions it takes; none if the allowance is as wanted.
    pub transactions: usize,
    /// The most that they can cost in fees, in wei as a decimal string.
    pub wei: String,
}

/// The payer's account on a network.
enum PayerAccount {
    /// That of the channels.
    OfChannels(Chain),
    /// One without channels.
    Other(Arc<NetworkAccount>, Arc<WalletSigner>),
}

impl PayerAccount {
    async fn allowances(&self) -> Result<Allowances<'_>, OperationError> {
        Ok(match self {
            Self::OfChannels(chain) => chain.allowances().await?,
            Self::Other(account, signer) => account.allowances(signer).await?,
        })
    }
}

impl Channels {
    /// The account on a network. On that of the channels, it is the channels' own: two counts of nonces would collide.
    async fn account_on(&self, chain_id: u64) -> Result<PayerAccount, OperationError> {
        match self.payments.chain_context().await {
            Ok(context) if context.account.chain_id == chain_id => {
                return Ok(PayerAccount::OfChannels(context.chain));
            }
            Ok(_) | Err(ChannelAccessError::OpRefused(OpRefused::NoChain)) => {}
            // It may be the network of the channels.
            Err(error) => return Err(error.into()),
        }
        let signer = self.payments.signer().ok_or(ChannelAccessError::OpRefused(OpRefused::NotReady))?;
        let account = self.networks.iter().find(|account| account.chain_id() == chain_id);
        let account = account.ok_or(OperationError::NoNetwork(chain_id))?;
        let fees = self.payments.allowance_fees(chain_id, signer.address()).await?;
        account.remember_fees(&fees);
        Ok(PayerAccount::Other(Arc::clone(account), signer))
    }

    /// What it takes to set an allowance.
    ///
    /// # Errors
    /// It cannot be set, or the chain cannot be read.
    pub async fn plan_allowance(&self, wanted: Permit2Allowance) -> Result<AllowanceChange, OperationError> {
        let account = self.account_on(wanted.name.chain_id).await?;
        let allowances = account.allowances().await?;
        let AllowancePlan { present, steps, wei } = allowances.plan(wanted.to_set()).await?;
        let (owner, transactions, wei) = (allowances.owner(), steps.len(), wei.to_string());
        Ok(AllowanceChange { owner, spender: PERMIT2, present, transactions, wei })
    }

    /// Sets an allowance, and waits until that is confirmed.
    ///
    /// # Errors
    /// It was not set, or may not have been; the error names the remedy.
    pub async fn set_allowance(&self, wanted: Permit2Allowance) -> Result<SetAllowance, OperationError> {
        let account = self.account_on(wanted.name.chain_id).await?;
        let (amount, sent) = account.allowances().await?.set(wanted.to_set(), &self.payments).await?;
        Ok(SetAllowance { amount, transactions: sent.iter().map(ToString::to_string).collect() })
    }

    /// How much of a token Permit2 may move.
    ///
    /// # Errors
    /// The chain cannot be read.
    pub async fn allowance(&self, name: AllowanceName) -> Result<Permit2Allowance, OperationError> {
        let account = self.account_on(name.chain_id).await?;
        let amount = account.allowances().await?.present(name.token, PERMIT2).await?;
        Ok(Permit2Allowance { name, amount })
    }
}

impl Permit2Allowance {
    fn to_set(self) -> Allowance {
        Allowance { token: self.name.token, spender: PERMIT2, amount: self.amount }
    }
}
