//! Ending a channel: the calls, and what stands in their way. It is checked before anything is sent, because the
//! contract gives no reason, and takes one request that locks a deposit up.

use ethers_core::types::Bytes;

use crate::chain::Chain;
use crate::chain::error::OrderError;
use crate::chain::rpc::CallRequest;
use crate::protocol::{Amount, ChannelId, OnChain, Order};

/// Why a channel cannot be ended as ordered. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The contract does not know it.
    #[error("channel {channel} not found on chain: it is settled already, or its opening is not mined")]
    NotThere {
        /// The channel.
        channel: ChannelId,
    },
    /// To be settled, but nobody asked to close it.
    #[error(
        "channel {channel} is not closing, so it cannot be settled: close it first, with its \
         receiver or alone"
    )]
    NotClosing {
        /// The channel.
        channel: ChannelId,
    },
    /// To be settled within the challenge period.
    #[error(
        "channel {channel} cannot be settled yet: settle needs a block number greater than the settle block \
         {settle_block}, and the newest block is {head}; try again in {} blocks", self.blocks_left()
    )]
    TooEarly {
        /// The channel.
        channel: ChannelId,
        /// The last block of the challenge period.
        settle_block: u32,
        /// The newest block.
        head: u64,
    },
    /// To be closed alone a second time.
    #[error(
        "channel {channel} is being closed already, on {closing_balance}: settle it after block {settle_block}, \
         or close it together with its receiver"
    )]
    ClosingAlready {
        /// The channel.
        channel: ChannelId,
        /// The last block of the challenge period.
        settle_block: u32,
        /// On what it is being closed.
        closing_balance: Amount,
    },
    /// To be closed on more than is locked up.
    #[error(
        "channel {channel} holds {deposit} and cannot be closed on {total}: close it on {deposit} at most"
    )]
    AboveDeposit {
        /// The channel.
        channel: ChannelId,
        /// The total that was asked for.
        total: Amount,
        /// What is locked up.
        deposit: Amount,
    },
    /// To be closed on less than the receiver has taken out: alone, that would lock the deposit up.
    #[error(
        "the receiver has withdrawn {withdrawn} from channel {channel}, so it cannot be closed on {total}: use \
         {withdrawn} at least. A channel that was closed alone on less can never be settled; only a cooperative \
         close on {withdrawn} or more frees it then"
    )]
    BelowWithdrawn {
        /// The channel.
        channel: ChannelId,
        /// The total that was asked for.
        total: Amount,
        /// What the receiver has taken out.
        withdrawn: Amount,
    },
    /// To be settled, but it was closed alone on less than the receiver had taken out.
    #[error(
        "channel {channel} was closed alone on {closing_balance}, less than the {withdrawn} that its receiver had \
         withdrawn, and can never be settled: ask the receiver for a cooperative close on {withdrawn} or more"
    )]
    LockedUp {
        /// The channel.
        channel: ChannelId,
        /// On what it was closed.
        closing_balance: Amount,
        /// What the receiver has taken out.
        withdrawn: Amount,
    },
}

impl Obstacle {
    /// How many blocks must be mined before it is gone; 0 where blocks do not help.
    pub fn blocks_left(&self) -> u64 {
        match self {
            Self::TooEarly { settle_block, head, .. } => (u64::from(*settle_block) + 1).saturating_sub(*head),
            _ => 0,
        }
    }
}

impl Chain {
    /// The call `data` that ends `channel` as ordered, once nothing stands in its way.
    pub(super) async fn end_request(
        &self,
        order: &Order,
        channel: ChannelId,
        data: Bytes,
    ) -> Result<CallRequest, OrderError> {
        let head = self.head().await?;
        let on_chain = self.channel(channel).await?;
        if let Some(obstacle) = obstacle(order, channel, on_chain, head) {
            return Err(obstacle.into());
        }
        let (from, to) = (self.payer().into(), self.0.settings.channel_manager.into());
        Ok(CallRequest { from, to, data })
    }
}

/// What stands in the way of an order to end `channel`, as the contract shows it and at the head `head`.
pub(super) fn obstacle(
    order: &Order,
    channel: ChannelId,
    on_chain: Option<OnChain>,
    head: u64,
) -> Option<Obstacle> {
    let Some(OnChain { deposit, settle_block, closing_balance, withdrawn }) = on_chain else {
        return Some(Obstacle::NotThere { channel });
    };
    let total = match *order {
        Order::Open { .. } | Order::TopUp { .. } => return None,
        Order::Settle { .. } if settle_block == 0 => return Some(Obstacle::NotClosing { channel }),
        Order::Settle { .. } if closing_balance < withdrawn => {
            return Some(Obstacle::LockedUp { channel, closing_balance, withdrawn });
        }
        // Nodes try a call out as part of the newest block: at the settle block itself they would refuse it.
        Order::Settle { .. } => {
            let is_early = head <= u64::from(settle_block);
            return is_early.then_some(Obstacle::TooEarly { channel, settle_block, head });
        }
        Order::CloseAlone { .. } if settle_block > 0 => {
            return Some(Obstacle::ClosingAlready { channel, settle_block, closing_balance });
        }
        // Also during the challenge period.
        Order::CloseAlone { total, .. } | Order::CloseTogether { total, .. } => total,
    };
    if total > deposit {
        return Some(Obstacle::AboveDeposit { channel, total, deposit });
    }
    (total < withdrawn).then_some(Obstacle::BelowWithdrawn { channel, total, withdrawn })
}

/// True when the contract shows the channel as `order` leaves it, or further on its way.
/// `before` is the deposit before a top up, if known.
pub(super) fn is_reached(order: &Order, before: Option<Amount>, on_chain: Option<OnChain>) -> bool {
    match (order, on_chain) {
        (Order::Open { .. } | Order::TopUp { .. }, None) => false,
        (Order::Open { deposit, .. }, Some(now)) => now.settle_block == 0 && now.deposit >= *deposit,
        // Without the deposit before it, the state does not tell what was added from what was there.
        (Order::TopUp { added, .. }, Some(now)) => {
            now.settle_block == 0 && before.is_some_and(|before| now.deposit >= before.saturating_add(*added))
        }
        (Order::CloseAlone { total, .. }, Some(now)) => now.settle_block > 0 && now.closing_balance == *total,
        (Order::CloseTogether { .. } | Order::Settle { .. }, Some(_)) => false,
        (_, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::chain::end::*;
    use crate::protocol::{Address, Signature};

    const CHANNEL: ChannelId = ChannelId { receiver: Address([7; 20]), open_block: 5 };

    fn together(total: u64) -> Order {
        let (balance_signature, closing_signature) = (Signature([1; 65]), Signature([2; 65]));
        Order::CloseTogether { channel: CHANNEL, total: total.into(), balance_signature, closing_signature }
    }

    fn alone(total: u64) -> Order {
        Order::CloseAlone { channel: CHANNEL, total: total.into() }
    }

    fn shown(settle_block: u32, closing_balance: u64, withdrawn: u64) -> Option<OnChain> {
        let (closing_balance, withdrawn) = (closing_balance.into(), withdrawn.into());
        Some(OnChain { deposit: 100.into(), settle_block, closing_balance, withdrawn })
    }

    #[test]
    fn says_what_stands_in_the_way_and_what_to_do() {
        let settle = Order::Settle { channel: CHANNEL };
        for (order, on_chain, head, expected) in [
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
            let found = obstacle(&order, CHANNEL, on_chain, head).map(|obstacle| obstacle.to_string());
            match (&found, expected) {
                (None, None) => {}
                (Some(text), Some(part)) => assert!(text.contains(part), "{text} has no {part}"),
                _ => panic!("{order:?} {on_chain:?}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn knows_when_an_end_has_come_about() {
        let (settle, open) = (Order::Settle { channel: CHANNEL }, shown(0, 0, 0));
        for (order, on_chain, expected) in [
            (settle, None, true),
            (settle, shown(600, 5, 0), false),
            (together(5), None, true),
            (together(5), open, false),
            (alone(5), None, true),
            (alone(5), open, false),
            (alone(0), open, false),
            (alone(5), shown(600, 5, 0), true),
            (alone(5), shown(600, 4, 0), false),
            (Order::TopUp { channel: CHANNEL, added: 5.into() }, open, false),
            (Order::TopUp { channel: CHANNEL, added: 5.into() }, None, false),
        ] {
            assert_eq!(is_reached(&order, None, on_chain), expected, "{order:?} {on_chain:?}");
        }
        let top_up = Order::TopUp { channel: CHANNEL, added: 5.into() };
        for (before, expected) in [(0, true), (95, true), (96, false)] {
            assert_eq!(is_reached(&top_up, Some(before.into()), open), expected, "{before}");
        }
    }
}
