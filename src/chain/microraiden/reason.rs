//! Explains why a transaction failed. The contracts return no reason, so their rules are checked one by one.

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{NameOrAddress, U256};
use ethers_core::utils::rlp::Rlp;

use crate::chain::Chain;
use crate::chain::error::ChainError;
use crate::chain::microraiden::contracts;
use crate::chain::microraiden::contracts::OpKind;
use crate::chain::rpc::At;
use crate::chain::rpc::CallRequest;
use crate::chain::sent::ConfirmedTx;
use crate::protocol::schemes::microraiden::contract;
use crate::protocol::{Amount, ChannelId, ChannelOp, Intent};

/// If the node returns no reason either.
const NO_REASON: &str = "no reason given";

impl Chain {
    /// Explains why a mined transaction failed; the explanation is vaguer if the node does not answer.
    pub(in crate::chain) async fn why_failed(&self, intent: &Intent, mined: &ConfirmedTx) -> String {
        let Ok((transaction, _)) = TypedTransaction::decode_signed(&Rlp::new(&intent.raw)) else {
            return self.why_refused(&intent.op, NO_REASON).await;
        };
        if let (Some(limit), Some(used)) = (transaction.gas(), mined.receipt.gas_used)
            && used >= *limit
        {
            return format!("it ran out of gas ({used} units)");
        }
        let Some(NameOrAddress::Address(to)) = transaction.to() else {
            return self.why_refused(&intent.op, NO_REASON).await;
        };
        let data = transaction.data().cloned().unwrap_or_default();
        let request = CallRequest { from: self.payer().into(), to: *to, data };
        let mut reason = NO_REASON.to_owned();
        // Some nodes keep only the newest state.
        for at in [At::Block(mined.receipt.block_number.as_u64()), At::Latest] {
            if let Err(ChainError::Reverted { message }) = self.0.rpc.call(&request, at).await {
                reason = message;
                break;
            }
        }
        self.why_refused(&intent.op, &reason).await
    }

    /// The rules that an operation violates now, after the `reason` of the contract or the node.
    pub(in crate::chain) async fn why_refused(&self, op: &ChannelOp, reason: &str) -> String {
        let broken = match contracts::op_kind(op) {
            OpKind::Fund(amount) => self.rules_of_funding(op, amount).await,
            OpKind::End(channel, _) => self.rules_of_ending(op, channel).await,
        };
        if broken.is_empty() {
            return format!(
                "{reason}; no rule is violated now: an earlier transaction may have taken the \
                 tokens or the allowance, closed the channel, or opened one to the same receiver in the same block"
            );
        }
        format!("{reason}; {}", broken.join("; "))
    }

    async fn rules_of_funding(&self, op: &ChannelOp, amount: Amount) -> Vec<String> {
        let contract = self.0.settings.channel_manager;
        let limit: Option<U256> = self.view(contract, contracts::deposit_limit(), At::Latest).await.ok();
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
