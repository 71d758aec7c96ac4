//! What a transaction may cost: EIP-1559 where blocks have a base fee, a plain gas price elsewhere.

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Eip1559TransactionRequest, TransactionRequest, U256};

use crate::chain::error::ChainError;
use crate::chain::rpc::{CallRequest, Rpc};

/// What to bid per unit of gas, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fees {
    /// Where blocks have a base fee.
    Dynamic {
        /// The most to pay in all.
        max: U256,
        /// The most to pay above the base fee.
        priority: U256,
    },
    /// Everywhere else.
    Legacy {
        /// What is paid.
        price: U256,
    },
}

/// Above the base fee where the node has no opinion: 1 gwei.
const PRIORITY_FALLBACK: u64 = 1_000_000_000;
/// The base fee may double (six full blocks in a row) before a transaction has to wait.
const BASE_FEE_HEADROOM: u64 = 2;

impl Fees {
    /// Asks the node what it takes now.
    pub async fn current(rpc: &Rpc) -> Result<Self, ChainError> {
        match rpc.latest_block().await?.base_fee_per_gas {
            Some(base) => Ok(Self::over(base, rpc.priority_fee().await?)),
            None => Ok(Self::Legacy { price: rpc.gas_price().await? }),
        }
    }

    fn over(base: U256, suggested: Option<U256>) -> Self {
        let priority = suggested.unwrap_or(U256::from(PRIORITY_FALLBACK));
        let max = base.saturating_mul(U256::from(BASE_FEE_HEADROOM)).saturating_add(priority);
        Self::Dynamic { max, priority }
    }

    /// The most that `gas` can cost, in wei.
    pub fn worst(&self, gas: U256) -> U256 {
        match self {
            Self::Dynamic { max: price, .. } | Self::Legacy { price } => gas.saturating_mul(*price),
        }
    }

    /// The transaction that carries out `call`, ready to be signed.
    pub fn transaction(&self, call: &CallRequest, chain_id: u64, nonce: u64, gas: U256) -> TypedTransaction {
        match *self {
            Self::Dynamic { max, priority } => Eip1559TransactionRequest::new()
                .from(call.from)
                .to(call.to)
                .data(call.data.clone())
                .value(0)
                .chain_id(chain_id)
                .nonce(nonce)
                .gas(gas)
                .max_fee_per_gas(max)
                .max_priority_fee_per_gas(priority)
                .into(),
            Self::Legacy { price } => TransactionRequest::new()
                .from(call.from)
                .to(call.to)
                .data(call.data.clone())
                .value(0)
                .chain_id(chain_id)
                .nonce(nonce)
                .gas(gas)
                .gas_price(price)
                .into(),
        }
    }
}

/// A gas limit with a quarter above the estimate: the state may change before the transaction is mined.
pub(super) fn with_margin(estimate: U256) -> U256 {
    estimate.saturating_add(estimate / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bids_twice_the_base_fee_and_what_the_node_suggests() {
        let gwei = |n: u64| U256::from(n) * 1_000_000_000u64;
        for (base, suggested, max, priority) in [
            (gwei(10), Some(gwei(2)), gwei(22), gwei(2)),
            (gwei(10), None, gwei(21), gwei(1)),
            (U256::zero(), Some(U256::zero()), U256::zero(), U256::zero()),
            (U256::MAX, Some(gwei(1)), U256::MAX, gwei(1)),
        ] {
            assert_eq!(Fees::over(base, suggested), Fees::Dynamic { max, priority });
        }
        assert_eq!(Fees::Legacy { price: gwei(3) }.worst(U256::from(100)), gwei(300));
        assert_eq!(Fees::over(gwei(10), None).worst(U256::MAX), U256::MAX);
        assert_eq!(with_margin(U256::from(80_000)), U256::from(100_000));
    }
}
