//! Why a transaction failed, in words: the contracts give no reason, so their rules are gone through.

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{NameOrAddress, U256};
use ethers_core::utils::rlp::Rlp;

use crate::chain::confirm::Mined;
use crate::chain::contracts;
use crate::chain::contracts::{ChannelDepositBugbountyLimitCall, OpKind};
use crate::chain::error::ChainError;
use crate::chain::rpc::CallRequest;
use crate::chain::{At, Chain};
use crate::protocol::schemes::microraiden::contract;
use crate::protocol::{Amount, ChannelId, ChannelOp, Intent};

/// Where not even the node says anything.
const UNSAID: &str = "no reason given";

impl Chain {
    /// Why a mined transaction failed. It asks the node; where that fails, the answer is vaguer.
    pub(super) async fn why_failed(&self, intent: &Intent, mined: &Mined) -> String {
        let Ok((transaction, _)) = TypedTransaction::decode_signed(&Rlp::new(&intent.raw)) else {
            return self.why_refused(&intent.op, UNSAID).await;
        };
        if let (Some(limit), Some(used)) = (transaction.gas(), mined.receipt.gas_used)
            && used >= *limit
        {
            return format!("it ran out of gas ({used} units)");
        }
        let Some(NameOrAddress::Address(to)) = transaction.to() else {
            return self.why_refused(&intent.op, UNSAID).await;
        };
        let data = transaction.data().cloned().unwrap_or_default();
        let request = CallRequest { from: self.payer().into(), to: *to, data };
        let mut said = UNSAID.to_owned();
        // Some nodes keep no older state than the newest.
        for at in [At::Block(mined.receipt.block_number.as_u64()), At::Latest] {
            if let Err(ChainError::Reverted { message }) = self.0.rpc.call(&request, at).await {
                said = message;
                break;
            }
        }
        self.why_refused(&intent.op, &said).await
    }

    /// Which rules an order breaks now, after what the contract or node said.
    pub(super) async fn why_refused(&self, op: &ChannelOp, said: &str) -> String {
        let broken = match contracts::op_kind(op) {
            OpKind::Fund(amount) => self.rules_of_funding(op, amount).await,
            OpKind::End(channel, _) => self.rules_of_ending(op, channel).await,
        };
        if broken.is_empty() {
            return format!(
                "{said}; no rule is seen broken now: another transaction may have come first, and taken the \
                 tokens or the allowance, closed the channel, or opened one to the same receiver in the same block"
            );
        }
        format!("{said}; {}", broken.join("; "))
    }

    async fn rules_of_funding(&self, op: &ChannelOp, amount: Amount) -> Vec<String> {
        let contract = self.0.settings.channel_manager;
        let limit: Option<U256> =
            self.view(contract, ChannelDepositBugbountyLimitCall, At::Latest).await.ok();
        let holds = match self.pinned().await {
            Ok(pinned) => self.tokens(pinned.token).await.ok(),
            Err(_) => None,
        };
        let channel = match op {
            ChannelOp::TopUp { channel, .. } => self.channel(*channel).await.ok(),
            _ => None,
        };
        contract::broken_rules(op, amount, holds, limit, channel)
    }

    async fn rules_of_ending(&self, op: &ChannelOp, channel: ChannelId) -> Vec<String> {
        let mut broken = contract::wrong_signatures(op, self.payer(), self.0.settings.channel_manager);
        if let (Ok(on_chain), Ok(head)) = (self.channel(channel).await, self.head().await) {
            broken.extend(
                contract::unmet_precondition(op, channel, on_chain, head).map(|rule| rule.to_string()),
            );
        }
        broken
    }
}
