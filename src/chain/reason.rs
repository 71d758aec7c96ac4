//! Why a transaction failed, in words: the contracts give no reason, so their rules are gone through.

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{NameOrAddress, U256};
use ethers_core::utils::rlp::Rlp;

use crate::chain::confirm::Mined;
use crate::chain::contracts;
use crate::chain::contracts::{ChannelDepositBugbountyLimitCall, Plan};
use crate::chain::error::ChainError;
use crate::chain::rpc::CallRequest;
use crate::chain::{At, Chain, end};
use crate::protocol::schemes::microraiden::proof;
use crate::protocol::{Address, Amount, ChannelId, Intent, OnChain, Order};

/// Where not even the node says anything.
const UNSAID: &str = "no reason given";

impl Chain {
    /// Why a mined transaction failed. It asks the node; where that fails, the answer is vaguer.
    pub(super) async fn why_failed(&self, intent: &Intent, mined: &Mined) -> String {
        let Ok((transaction, _)) = TypedTransaction::decode_signed(&Rlp::new(&intent.raw)) else {
            return self.why_refused(&intent.order, UNSAID).await;
        };
        if let (Some(limit), Some(used)) = (transaction.gas(), mined.receipt.gas_used)
            && used >= *limit
        {
            return format!("it ran out of gas ({used} units)");
        }
        let Some(NameOrAddress::Address(to)) = transaction.to() else {
            return self.why_refused(&intent.order, UNSAID).await;
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
        self.why_refused(&intent.order, &said).await
    }

    /// Which rules an order breaks now, after what the contract or node said.
    pub(super) async fn why_refused(&self, order: &Order, said: &str) -> String {
        let broken = match contracts::plan(order) {
            Plan::Fund(amount) => self.rules_of_funding(order, amount).await,
            Plan::End(channel, _) => self.rules_of_ending(order, channel).await,
        };
        if broken.is_empty() {
            return format!(
                "{said}; no rule is seen broken now: another transaction may have come first, and taken the \
                 tokens or the allowance, closed the channel, or opened one to the same receiver in the same block"
            );
        }
        format!("{said}; {}", broken.join("; "))
    }

    async fn rules_of_funding(&self, order: &Order, amount: Amount) -> Vec<String> {
        let contract = self.0.settings.channel_manager;
        let limit: Option<U256> =
            self.view(contract, ChannelDepositBugbountyLimitCall, At::Latest).await.ok();
        let holds = match self.ground().await {
            Ok(ground) => self.tokens(ground.token).await.ok(),
            Err(_) => None,
        };
        let channel = match order {
            Order::TopUp { channel, .. } => self.channel(*channel).await.ok(),
            _ => None,
        };
        broken_rules(order, amount, holds, limit, channel)
    }

    async fn rules_of_ending(&self, order: &Order, channel: ChannelId) -> Vec<String> {
        let mut broken = wrong_signatures(order, self.payer(), self.0.settings.channel_manager);
        if let (Ok(on_chain), Ok(head)) = (self.channel(channel).await, self.head().await) {
            broken.extend(end::obstacle(order, channel, on_chain, head).map(|rule| rule.to_string()));
        }
        broken
    }
}

/// The signatures under a cooperative close that are not by whom they should be.
fn wrong_signatures(order: &Order, payer: Address, contract: Address) -> Vec<String> {
    let Order::CloseTogether { channel, total, balance_signature, closing_signature } = order else {
        return Vec::new();
    };
    let balance = proof::balance_digest(*channel, *total, contract);
    let closing = proof::closing_digest(payer, channel.open_block, *total, contract);
    [
        ("balance proof is not signed by the payer", balance, balance_signature, payer),
        ("closing signature is not by the receiver", closing, closing_signature, channel.receiver),
    ]
    .into_iter()
    .filter(|(_, digest, signature, signer)| proof::recover(*digest, signature) != Some(*signer))
    .map(|(what, _, _, signer)| format!("the {what} {signer}, or for another total than {total}"))
    .collect()
}

/// The rules that `order` breaks, as far as is known: the payer's tokens, the limit of a deposit and, of a top
/// up, the channel (`Some(None)` when there is none).
fn broken_rules(
    order: &Order,
    amount: Amount,
    holds: Option<Amount>,
    limit: Option<U256>,
    channel: Option<Option<OnChain>>,
) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(holds) = holds.filter(|holds| *holds < amount) {
        broken.push(format!("the payer holds {holds} base units of the token, fewer than {amount}"));
    }
    if let Order::TopUp { channel: id, .. } = order {
        match channel {
            Some(None) => {
                broken.push(format!("channel {id} not found on chain: it was settled or never opened"))
            }
            Some(Some(OnChain { settle_block, .. })) if settle_block > 0 => {
                broken.push(format!("channel {id} is being closed (settle block {settle_block})"));
            }
            _ => {}
        }
        if amount.is_zero() {
            broken.push("a top up of 0 is refused".into());
        }
    }
    let deposit = channel.flatten().map_or(amount, |now| now.deposit.saturating_add(amount));
    if let Some(limit) = limit.filter(|limit| U256::from(deposit) > *limit) {
        broken.push(format!(
            "the deposit would be {deposit}, over the contract's limit of {limit} per channel"
        ));
    }
    broken
}

#[cfg(test)]
mod tests {
    use crate::chain::reason::*;

    #[test]
    fn names_each_rule_that_is_broken() {
        let receiver = Address([7; 20]);
        let open = |units: u64| Order::Open { receiver, deposit: units.into() };
        let channel = ChannelId { receiver, open_block: 5 };
        let top_up = |units: u64| Order::TopUp { channel, added: units.into() };
        let on_chain = |deposit: u64, settle_block| {
            let none = Amount::ZERO;
            OnChain { deposit: deposit.into(), settle_block, closing_balance: none, withdrawn: none }
        };
        let (tokens, limit) = (Some(Amount::from(50)), Some(U256::from(100)));
        for (order, channel, expected) in [
            (open(50), None, &[][..]),
            (open(51), None, &["fewer than 51"]),
            (open(101), None, &["fewer than 101", "would be 101, over the contract's limit of 100"]),
            (top_up(10), Some(Some(on_chain(90, 0))), &[]),
            (top_up(11), Some(Some(on_chain(90, 0))), &["would be 101"]),
            (top_up(1), Some(Some(on_chain(90, 700))), &["being closed (settle block 700)"]),
            (top_up(1), Some(None), &["not found on chain"]),
            (top_up(0), None, &["a top up of 0"]),
        ] {
            let Plan::Fund(amount) = contracts::plan(&order) else { panic!("{order:?} funds nothing") };
            let broken = broken_rules(&order, amount, tokens, limit, channel);
            assert_eq!(broken.len(), expected.len(), "{order:?}: {broken:?}");
            for (text, part) in broken.iter().zip(expected) {
                assert!(text.contains(part), "{text} has no {part}");
            }
        }
        assert!(broken_rules(&open(1000), 1000.into(), None, None, None).is_empty());
    }
}
