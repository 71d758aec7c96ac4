//! How much is locked in channels, and how much more may be.

use std::collections::BTreeSet;

use super::{Engine, OpRefused};
use crate::protocol::policy::DepositLimit;
use crate::protocol::{Address, Amount, ChannelOp, Phase};

impl Engine {
    /// How much more may be deposited for a receiver, and the limit that decides; `None` if there is no limit.
    pub(super) fn deposit_room(&self, receiver: Address) -> Option<(Amount, DepositLimit)> {
        let deposit = &self.policy.deposit;
        let room = |key, limit: Option<Amount>, only| {
            let (limit, locked) = (limit?, self.locked(only));
            Some((limit.saturating_sub(locked), DepositLimit { key, locked, limit }))
        };
        let each = room("max_per_receiver", deposit.max_per_receiver, Some(receiver));
        let total = room("max_total", deposit.max_total, None);
        each.into_iter().chain(total).min_by_key(|(room, _)| *room)
    }

    /// Checks that a user operation stays within the limits on all deposits together.
    pub(super) fn check_deposit_room(&self, op: &ChannelOp, amount: Amount) -> Result<(), OpRefused> {
        match self.deposit_room(op.receiver()) {
            Some((room, limit)) if amount > room => Err(OpRefused::AboveLimit { amount, limit }),
            Some(_) | None => Ok(()),
        }
    }

    /// What the channels to a receiver, or all channels, hold. Includes deposits that are about to be sent, and those
    /// of transactions whose outcome is unknown, and those whose opening a reorganisation has undone in this run: they
    /// come back if it is mined again.
    fn locked(&self, only: Option<Address>) -> Amount {
        let counts = |receiver: Address| only.is_none_or(|only| only == receiver);
        let held = self
            .slots
            .iter()
            .filter(|(id, slot)| {
                let may_come_back = slot.is_undone && slot.settled.is_none();
                counts(id.receiver) && (slot.channel.phase != Phase::Gone || may_come_back)
            })
            .map(|(_, slot)| slot.channel.funded);
        let receivers: BTreeSet<Address> = self.funding.keys().chain(self.intents.keys()).copied().collect();
        let pending = receivers.into_iter().filter(|receiver| counts(*receiver)).map(|to| self.pending(to));
        held.chain(pending).fold(Amount::ZERO, Amount::saturating_add)
    }

    /// What an operation for the receiver adds to its channels, beyond what [`Channel::funded`] already includes.
    ///
    /// [`Channel::funded`]: crate::protocol::Channel::funded
    fn pending(&self, receiver: Address) -> Amount {
        let moved =
            self.intents.get(&receiver).and_then(|intents| intents.iter().find(|intent| intent.moves));
        let started = self.funding.get(&receiver).and_then(|funding| funding.op);
        match (moved.map(|intent| intent.op), started) {
            (Some(ChannelOp::Open { deposit, .. }), _) | (None, Some(ChannelOp::Open { deposit, .. })) => {
                deposit
            }
            (None, Some(ChannelOp::TopUp { added, .. })) => added,
            (Some(_), _) | (None, _) => Amount::ZERO,
        }
    }
}
