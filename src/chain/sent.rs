//! A transaction that was sent, before and after its confirmation.

use ethers_core::types::U256;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::utils::rlp::Rlp;

use crate::chain::error::TransactionHash;
use crate::chain::nonces::InFlight;
use crate::chain::rpc::TxReceipt;
use crate::protocol::{Amount, Intent};

/// A transaction that the node has or may have.
pub(super) struct SentTx {
    pub intent: Intent,
    /// False if it is unknown whether the node accepted it.
    pub is_known: bool,
    /// For a top-up: the deposit before it, if known.
    pub before: Option<Amount>,
    /// Whether it may be sent again; false while another transaction may move the same money.
    pub may_resend: bool,
    /// Abandoned earlier attempts of the same operation, with lower nonces, whose outcome is still open.
    pub earlier: Vec<Intent>,
    /// Reserves the nonce until the wait ends.
    pub _in_flight: InFlight,
}

/// A mined transaction with enough confirmations.
pub(super) struct ConfirmedTx {
    pub receipt: TxReceipt,
    /// The newest block at that time.
    pub head: u64,
}

impl ConfirmedTx {
    /// The fee in wei, if the receipt or the transaction states its price.
    pub fn fee(&self, intent: &Intent) -> Option<U256> {
        let price = self.receipt.effective_gas_price.or_else(|| {
            match TypedTransaction::decode_signed(&Rlp::new(&intent.raw)).ok()?.0 {
                TypedTransaction::Legacy(transaction) => transaction.gas_price,
                _ => None,
            }
        })?;
        Some(price.saturating_mul(self.receipt.gas_used?))
    }
}

impl SentTx {
    pub fn hash(&self) -> TransactionHash {
        TransactionHash(self.intent.hash)
    }
}
