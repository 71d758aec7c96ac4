//! The rules of the channel contract, checked against its state. The contract reverts without a reason, and accepts one
//! request that locks a deposit permanently.

use ethers_core::types::U256;

use super::proof;
use crate::protocol::{Address, Amount, ChannelId, ChannelOp, OnChain, UnmetPrecondition};

/// The unmet precondition of an operation that ends `channel`, judging by the contract's state and the block `head`.
pub fn unmet_precondition(
    op: &ChannelOp,
    channel: ChannelId,
    on_chain: Option<OnChain>,
    head: u64,
) -> Option<UnmetPrecondition> {
    let Some(OnChain { deposit, settle_block, closing_balance, withdrawn }) = on_chain else {
        return Some(UnmetPrecondition::NotThere { channel });
    };
    let total = match *op {
        ChannelOp::Open { .. } | ChannelOp::TopUp { .. } => return None,
        ChannelOp::Settle { .. } if settle_block == 0 => {
            return Some(UnmetPrecondition::NotClosing { channel });
        }
        ChannelOp::Settle { .. } if closing_balance < withdrawn => {
            return Some(UnmetPrecondition::LockedUp { channel, closing_balance, withdrawn });
        }
        // Nodes simulate a call as part of the newest block: at the settle block itself it would fail.
        ChannelOp::Settle { .. } => {
            let is_early = head <= u64::from(settle_block);
            return is_early.then_some(UnmetPrecondition::TooEarly { channel, settle_block, head });
        }
        ChannelOp::CloseAlone { .. } if settle_block > 0 => {
            return Some(UnmetPrecondition::ClosingAlready { channel, settle_block, closing_balance });
        }
        // Also during the challenge period.
        ChannelOp::CloseAlone { total, .. } | ChannelOp::CloseTogether { total, .. } => total,
    };
    if total > deposit {
        return Some(UnmetPrecondition::AboveDeposit { channel, total, deposit });
    }
    (total < withdrawn).then_some(UnmetPrecondition::BelowWithdrawn { channel, total, withdrawn })
}

/// Whether the contract shows the channel in the state that `op` leaves it in, or a later one. `before` is the deposit
/// before a top-up, if known.
pub fn is_reached(op: &ChannelOp, before: Option<Amount>, on_chain: Option<OnChain>) -> bool {
    match (op, on_chain) {
        (ChannelOp::Open { .. } | ChannelOp::TopUp { .. }, None) => false,
        (ChannelOp::Open { deposit, .. }, Some(now)) => now.settle_block == 0 && now.deposit >= *deposit,
        // Without the deposit before it, the state does not show how much was added.
        (ChannelOp::TopUp { added, .. }, Some(now)) => {
            now.settle_block == 0 && before.is_some_and(|before| now.deposit >= before.saturating_add(*added))
        }
        (ChannelOp::CloseAlone { total, .. }, Some(now)) => {
            now.settle_block > 0 && now.closing_balance == *total
        }
        (ChannelOp::CloseTogether { .. } | ChannelOp::Settle { .. }, Some(_)) => false,
        (_, None) => true,
    }
}

/// The signatures of a cooperative close that are not from the required key.
pub fn wrong_signatures(op: &ChannelOp, payer: Address, contract: Address) -> Vec<String> {
    let ChannelOp::CloseTogether { channel, total, balance_signature, closing_signature } = op else {
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

/// The rules that `op` violates, as far as known: the payer's tokens, the deposit limit and, for a top-up, the channel
/// (`Some(None)` if there is none).
pub fn broken_rules(
    op: &ChannelOp,
    amount: Amount,
    holds: Option<Amount>,
    limit: Option<U256>,
    channel: Option<Option<OnChain>>,
) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(holds) = holds.filter(|holds| *holds < amount) {
        broken.push(format!("the payer holds {holds} base units of the token, fewer than {amount}"));
    }
    if let ChannelOp::TopUp { channel: id, .. } = op {
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
            broken.push("a top-up of 0 is refused".into());
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
    use crate::protocol::Signature;
    use crate::protocol::schemes::microraiden::contract::*;

    const CHANNEL: ChannelId = ChannelId { receiver: Address([7; 20]), open_block: 5 };

    fn together(total: u64) -> ChannelOp {
        let (balance_signature, closing_signature) = (Signature([1; 65]), Signature([2; 65]));
        ChannelOp::CloseTogether {
            channel: CHANNEL,
            total: total.into(),
            balance_signature,
            closing_signature,
        }
    }

    fn alone(total: u64) -> ChannelOp {
        ChannelOp::CloseAlone { channel: CHANNEL, total: total.into() }
    }

    fn shown(settle_block: u32, closing_balance: u64, withdrawn: u64) -> Option<OnChain> {
        let (closing_balance, withdrawn) = (closing_balance.into(), withdrawn.into());
        Some(OnChain { deposit: 100.into(), settle_block, closing_balance, withdrawn })
    }

    #[test]
    fn failed_preconditions_name_the_obstacle_and_the_remedy() {
        let settle = ChannelOp::Settle { channel: CHANNEL };
        for (op, on_chain, head, expected) in [
            (settle, None, 9, Some("not found on chain")),
            (settle, shown(0, 0, 0), 9, Some("is not closing")),
            (settle, shown(600, 10, 11), 601, Some("close on 11 or more")),
            (settle, shown(600, 10, 10), 100, Some("newest block is 100; try again in 501 blocks")),
            (settle, shown(600, 10, 0), 600, Some("try again in 1 blocks")),
            (settle, shown(600, 10, 10), 601, None),
            (alone(5), None, 9, Some("not found on chain")),
            (alone(5), shown(600, 10, 0), 9, Some("being closed already, on 10: settle it after block 600")),
            (alone(101), shown(0, 0, 0), 9, Some("close it on 100 at most")),
            (alone(9), shown(0, 0, 10), 9, Some("use 10 at least")),
            (alone(10), shown(0, 0, 10), 9, None),
            (alone(0), shown(0, 0, 0), 9, None),
            (together(5), None, 9, Some("not found on chain")),
            (together(101), shown(0, 0, 0), 9, Some("close it on 100 at most")),
            (together(9), shown(600, 3, 10), 9, Some("use 10 at least")),
            (together(10), shown(600, 3, 10), 9, None),
        ] {
            let found = unmet_precondition(&op, CHANNEL, on_chain, head).map(|unmet| unmet.to_string());
            match (&found, expected) {
                (None, None) => {}
                (Some(text), Some(part)) => assert!(text.contains(part), "{text} has no {part}"),
                _ => panic!("{op:?} {on_chain:?}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn knows_when_an_end_has_come_about() {
        let (settle, open) = (ChannelOp::Settle { channel: CHANNEL }, shown(0, 0, 0));
        for (op, on_chain, expected) in [
            (settle, None, true),
            (settle, shown(600, 5, 0), false),
            (together(5), None, true),
            (together(5), open, false),
            (alone(5), None, true),
            (alone(5), open, false),
            (alone(0), open, false),
            (alone(5), shown(600, 5, 0), true),
            (alone(5), shown(600, 4, 0), false),
            (ChannelOp::TopUp { channel: CHANNEL, added: 5.into() }, open, false),
            (ChannelOp::TopUp { channel: CHANNEL, added: 5.into() }, None, false),
        ] {
            assert_eq!(is_reached(&op, None, on_chain), expected, "{op:?} {on_chain:?}");
        }
        let top_up = ChannelOp::TopUp { channel: CHANNEL, added: 5.into() };
        for (before, expected) in [(0, true), (95, true), (96, false)] {
            assert_eq!(is_reached(&top_up, Some(before.into()), open), expected, "{before}");
        }
    }

    #[test]
    fn names_each_rule_that_is_broken() {
        let receiver = Address([7; 20]);
        let open = |units: u64| ChannelOp::Open { receiver, deposit: units.into() };
        let channel = ChannelId { receiver, open_block: 5 };
        let top_up = |units: u64| ChannelOp::TopUp { channel, added: units.into() };
        let on_chain = |deposit: u64, settle_block| {
            let none = Amount::ZERO;
            OnChain { deposit: deposit.into(), settle_block, closing_balance: none, withdrawn: none }
        };
        let (tokens, limit) = (Some(Amount::from(50)), Some(U256::from(100)));
        for (op, channel, expected) in [
            (open(50), None, &[][..]),
            (open(51), None, &["fewer than 51"]),
            (open(101), None, &["fewer than 101", "would be 101, over the contract's limit of 100"]),
            (top_up(10), Some(Some(on_chain(90, 0))), &[]),
            (top_up(11), Some(Some(on_chain(90, 0))), &["would be 101"]),
            (top_up(1), Some(Some(on_chain(90, 700))), &["being closed (settle block 700)"]),
            (top_up(1), Some(None), &["not found on chain"]),
            (top_up(0), None, &["a top-up of 0"]),
        ] {
            let (ChannelOp::Open { deposit: amount, .. } | ChannelOp::TopUp { added: amount, .. }) = op
            else {
                panic!("{op:?} funds nothing")
            };
            let broken = broken_rules(&op, amount, tokens, limit, channel);
            assert_eq!(broken.len(), expected.len(), "{op:?}: {broken:?}");
            for (text, part) in broken.iter().zip(expected) {
                assert!(text.contains(part), "{text} has no {part}");
            }
        }
        assert!(broken_rules(&open(1000), 1000.into(), None, None, None).is_empty());
    }
}
