//! Transaction fees: EIP-1559 if blocks have a base fee, otherwise a plain gas price.

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Eip1559TransactionRequest, TransactionRequest, U256};

use crate::chain::ChainSettings;
use crate::chain::error::ChainError;
use crate::chain::rpc::{CallRequest, Rpc};
use crate::chain::transaction;
use crate::protocol::Wei;

/// The bid per unit of gas, in wei.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fees {
    /// EIP-1559, for blocks with a base fee.
    Dynamic {
        /// `maxFeePerGas`.
        max: U256,
        /// `maxPriorityFeePerGas`.
        priority: U256,
        /// The base fee of the newest block.
        base: U256,
    },
    /// A plain gas price.
    Legacy {
        /// The gas price.
        price: U256,
    },
}

/// The priority fee if the node suggests none: 1 gwei.
const PRIORITY_FALLBACK: u64 = 1_000_000_000;
/// The base fee may double (six full blocks in a row) before a transaction has to wait.
const BASE_FEE_HEADROOM: u64 = 2;

/// The configured fee limits, which hold whatever the node suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caps {
    /// The table of the configuration that they are in.
    pub table: &'static str,
    /// Per unit of gas.
    pub per_gas: Wei,
    /// Per transaction.
    pub whole: Wei,
}

impl Caps {
    pub fn of(settings: &ChainSettings) -> Self {
        Self { table: "chain", per_gas: settings.max_fee_per_gas, whole: settings.max_fee }
    }

    /// The bid for `gas` units: `fees`, with less headroom for a rising base fee if the limits require it.
    ///
    /// # Errors
    /// The limits are exceeded even without headroom.
    fn bid(self, fees: Fees, gas: U256) -> Result<Fees, ChainError> {
        let Self { table, per_gas, whole } = self;
        let now = fees.now();
        if now > U256::from(per_gas.0) {
            return Err(too_dear("one unit of gas", (table, "max_fee_per_gas"), now, per_gas));
        }
        let asked = gas.saturating_mul(now);
        if asked > U256::from(whole.0) {
            return Err(too_dear("the transaction", (table, "max_fee"), asked, whole));
        }
        let affordable = U256::from(whole.0).checked_div(gas).unwrap_or(U256::MAX).min(per_gas.0.into());
        Ok(match fees {
            Fees::Dynamic { max, priority, base } => {
                Fees::Dynamic { max: max.min(affordable), priority, base }
            }
            legacy @ Fees::Legacy { .. } => legacy,
        })
    }

    /// Whether a transaction that was signed earlier, perhaps under other limits, may be sent again.
    pub fn allow(self, raw: &[u8]) -> Result<(), ChainError> {
        // A node cannot decode it either, so it is harmless.
        let Some((price, gas)) = price_and_gas(raw) else { return Ok(()) };
        self.bid(Fees::Legacy { price }, gas).map(drop)
    }
}

/// The most that a transaction can cost, in wei, and the hash to sign, which is the same before and after it was signed;
/// `None` if it is not a transaction, so that no node accepts it.
pub(crate) fn most_it_costs(raw: &[u8]) -> Option<([u8; 32], U256)> {
    let (price, gas) = price_and_gas(raw)?;
    Some((transaction::decode(raw)?.sighash().0, price.saturating_mul(gas)))
}

/// The highest price per unit of gas that a transaction bids, and its gas limit.
fn price_and_gas(raw: &[u8]) -> Option<(U256, U256)> {
    let transaction = transaction::decode(raw)?;
    let price = match &transaction {
        TypedTransaction::Eip1559(transaction) => transaction.max_fee_per_gas,
        other => other.gas_price(),
    };
    Some((price.unwrap_or_default(), transaction.gas().copied().unwrap_or_default()))
}

fn too_dear(
    what: &'static str,
    (table, key): (&'static str, &'static str),
    asked: U256,
    allowed: Wei,
) -> ChainError {
    ChainError::TooDear { what, table, key, asked: Wei(u128::try_from(asked).unwrap_or(u128::MAX)), allowed }
}

impl Fees {
    /// Asks the node for current fees and returns the bid for `gas` units within the limits.
    pub async fn current(rpc: &Rpc, caps: Caps, gas: U256) -> Result<Self, ChainError> {
        let fees = match rpc.latest_block().await?.base_fee_per_gas {
            Some(base) => Self::over(base, rpc.priority_fee().await?),
            None => Self::Legacy { price: rpc.gas_price().await? },
        };
        caps.bid(fees, gas)
    }

    /// What one unit of gas costs now, in wei.
    fn now(&self) -> U256 {
        match self {
            Self::Dynamic { priority, base, .. } => base.saturating_add(*priority),
            Self::Legacy { price } => *price,
        }
    }

    fn over(base: U256, suggested: Option<U256>) -> Self {
        let priority = suggested.unwrap_or(U256::from(PRIORITY_FALLBACK));
        let max = base.saturating_mul(U256::from(BASE_FEE_HEADROOM)).saturating_add(priority);
        Self::Dynamic { max, priority, base }
    }

    /// The most that `gas` units can cost, in wei.
    pub fn worst(&self, gas: U256) -> U256 {
        match self {
            Self::Dynamic { max: price, .. } | Self::Legacy { price } => gas.saturating_mul(*price),
        }
    }

    /// The unsigned transaction for `call`.
    pub fn transaction(&self, call: &CallRequest, chain_id: u64, nonce: u64, gas: U256) -> TypedTransaction {
        match *self {
            Self::Dynamic { max, priority, .. } => Eip1559TransactionRequest::new()
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

/// The estimate plus a quarter: the state may change before the transaction is mined.
pub(super) fn with_margin(estimate: U256) -> U256 {
    estimate.saturating_add(estimate / 4)
}

#[cfg(test)]
mod tests {
    use crate::chain::fees::*;

    #[test]
    fn bids_twice_the_base_fee_plus_the_suggested_tip() {
        let gwei = |n: u64| U256::from(n) * 1_000_000_000u64;
        for (base, suggested, max, priority) in [
            (gwei(10), Some(gwei(2)), gwei(22), gwei(2)),
            (gwei(10), None, gwei(21), gwei(1)),
            (U256::zero(), Some(U256::zero()), U256::zero(), U256::zero()),
            (U256::MAX, Some(gwei(1)), U256::MAX, gwei(1)),
        ] {
            assert_eq!(Fees::over(base, suggested), Fees::Dynamic { max, priority, base });
        }
        assert_eq!(Fees::Legacy { price: gwei(3) }.worst(U256::from(100)), gwei(300));
        assert_eq!(Fees::over(gwei(10), None).worst(U256::MAX), U256::MAX);
        assert_eq!(with_margin(U256::from(80_000)), U256::from(100_000));
    }

    #[test]
    fn caps_cut_the_headroom_first_and_refuse_fees_above_them_without_it() {
        let gwei = |n: u64| U256::from(n) * 1_000_000_000u64;
        let caps = Caps { table: "chain", per_gas: Wei(50_000_000_000), whole: Wei(40_000_000_000_000) };
        let gas = U256::from(1_000);
        for (fees, gas, expected) in [
            (Fees::over(gwei(10), Some(gwei(2))), gas, Ok(gwei(22))),
            (Fees::over(gwei(20), Some(gwei(2))), gas, Ok(gwei(40))),
            (Fees::over(gwei(30), Some(gwei(2))), 1.into(), Ok(gwei(50))),
            (Fees::over(gwei(1), Some(gwei(1_000_000))), gas, Err("max_fee_per_gas")),
            (Fees::over(gwei(51), Some(U256::zero())), gas, Err("max_fee_per_gas")),
            (Fees::over(U256::MAX, Some(U256::MAX)), U256::MAX, Err("max_fee_per_gas")),
            (Fees::over(gwei(10), Some(gwei(2))), gas * 10, Err("max_fee")),
            (Fees::over(gwei(10), Some(gwei(2))), U256::MAX, Err("max_fee")),
            (Fees::Legacy { price: gwei(40) }, gas, Ok(gwei(40))),
            (Fees::Legacy { price: gwei(41) }, gas, Err("max_fee")),
            (Fees::Legacy { price: gwei(51) }, gas, Err("max_fee_per_gas")),
            (Fees::Legacy { price: U256::zero() }, U256::MAX, Ok(U256::zero())),
        ] {
            match (caps.bid(fees, gas), expected) {
                (Ok(bid), Ok(price)) => assert_eq!(bid.worst(1.into()), price, "{fees:?}"),
                (Err(ChainError::TooDear { key, .. }), Err(expected)) => {
                    assert_eq!(key, expected, "{fees:?}")
                }
                (bid, _) => panic!("{fees:?} {gas}: {bid:?}"),
            }
        }
    }
}
