//! Which channels are too many: several to one seller, opened when requests queued, and idle since.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Engine, Host};
use crate::protocol::{Address, Channel, ChannelId};

impl Engine {
    /// The channels that carried no payment for as long as `within`, and that their hosts need no more: all but one of
    /// those to each receiver that are open for a host. One that is lent, unclear, or was never paid on is not among them.
    ///
    /// If a channel of the host stays anyway, and has something left, that one pays what comes next; else the one with
    /// most left is kept.
    pub fn idle_channels(&self, now: Instant, within: Duration) -> Vec<ChannelId> {
        let mut groups: BTreeMap<(Address, Option<&Host>), Vec<_>> = BTreeMap::new();
        for (id, channel) in self.channels.iter().filter(|(id, channel)| self.is_open(id, channel)) {
            groups.entry((id.receiver, self.hosts.get(id))).or_default().push((id, channel));
        }
        let mut found = Vec::new();
        for channels in groups.into_values() {
            let (mut idle, staying): (Vec<_>, Vec<_>) =
                channels.into_iter().partition(|(id, channel)| self.is_idle(id, channel, now, within));
            let can_pay = |(id, channel): &(&ChannelId, &Channel)| {
                !channel.left().is_zero() && (self.is_lent(id) || !channel.is_uncertain())
            };
            if !staying.iter().any(can_pay) {
                idle.sort_by_key(|(id, channel)| (channel.left(), **id));
                idle.pop();
            }
            found.extend(idle.into_iter().map(|(id, _)| *id));
        }
        found
    }

    /// True when a channel that is held is still idle, and another one of its host to its receiver is open.
    pub fn is_still_idle(&self, id: &ChannelId, now: Instant, within: Duration) -> bool {
        let is_idle = self.channels.get(id).is_some_and(|channel| self.is_idle(id, channel, now, within));
        let host = self.hosts.get(id);
        let mut others = self.open_channels(id.receiver).filter(|(other, _)| *other != id);
        is_idle && others.any(|(other, _)| self.hosts.get(other) == host)
    }

    fn is_idle(&self, id: &ChannelId, channel: &Channel, now: Instant, within: Duration) -> bool {
        let was_paid = !channel.acknowledged.is_zero() && !channel.is_uncertain();
        let used = self.used.get(id);
        was_paid && !self.is_lent(id) && used.is_some_and(|at| now.saturating_duration_since(*at) >= within)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::protocol::channel::InDoubt;
    use crate::protocol::engine::PurchaseId;
    use crate::protocol::engine::idle::*;
    use crate::protocol::policy::{Deposit, Hooks};
    use crate::protocol::{Amount, OnChain, Phase, Policy};

    const WITHIN: Duration = Duration::from_secs(600);

    /// One channel: its receiver, what is left of 100 units, how many seconds ago it was used, and what else is odd
    /// about it.
    type Row = (u8, u64, Option<u64>, &'static str);

    /// Which of the channels are surplus, by their place in the table, from 1 on.
    fn surplus(rows: &[Row]) -> Vec<u32> {
        let (engine, now) = engine(rows);
        let found = engine.idle_channels(now, WITHIN);
        found.into_iter().map(|id| id.open_block).collect()
    }

    fn engine(rows: &[Row]) -> (Engine, Instant) {
        let mut engine = Engine::new(Arc::new(Policy {
            rules: Vec::new(),
            deposit: Deposit::default(),
            hooks: Arc::new(Hooks::default()),
            max_attempts: 8,
            sign_ahead: 0,
            ready_timeout: WITHIN,
            pay_timeout: WITHIN,
        }));
        let start = Instant::now();
        let now = start + Duration::from_secs(100_000);
        for (open_block, (receiver, left, used, oddity)) in (1..).zip(rows) {
            let id = ChannelId { receiver: Address([*receiver; 20]), open_block };
            let paid = Amount::from(100 - left);
            let on_chain = OnChain {
                deposit: Amount::from(100),
                settle_block: 0,
                closing_balance: Amount::ZERO,
                withdrawn: Amount::ZERO,
            };
            let mut channel = Channel {
                promised: paid,
                presented: paid,
                durable_limit: paid,
                acknowledged: paid,
                ..Channel::new(on_chain)
            };
            match *oddity {
                "lent" => drop(engine.leases.insert(id, PurchaseId(1))),
                "unclear" => channel.in_doubt = Some(InDoubt { total: channel.promised, price: 1.into() }),
                "closing" => channel.phase = Phase::Closing { settle_block: 9 },
                "gone" => channel.phase = Phase::Gone,
                "held" => drop(engine.locked.insert(id)),
                "" => {}
                other => panic!("{other}"),
            }
            engine.channels.insert(id, channel);
            if let Some(ago) = used {
                engine.used.insert(id, now - Duration::from_secs(*ago));
            }
        }
        (engine, now)
    }

    #[test]
    fn all_but_one_of_the_idle_channels_to_a_receiver_are_surplus() {
        let idle = Some(600);
        for (what, rows, expected) in [
            ("none", &[][..], &[][..]),
            ("the only one", &[(1, 90, idle, "")], &[]),
            ("most left is kept", &[(1, 50, idle, ""), (1, 90, idle, ""), (1, 70, idle, "")], &[1, 3]),
            ("of equals the youngest is kept", &[(1, 90, idle, ""), (1, 90, idle, "")], &[1]),
            ("each receiver keeps one", &[(1, 90, idle, ""), (2, 90, idle, ""), (2, 10, idle, "")], &[3]),
            ("not yet idle", &[(1, 90, Some(599), ""), (1, 80, Some(599), "")], &[]),
            ("one is in use: it pays on", &[(1, 20, Some(1), ""), (1, 90, idle, "")], &[2]),
            (
                "one in use has nothing left",
                &[(1, 0, Some(1), ""), (1, 90, idle, ""), (1, 80, idle, "")],
                &[3],
            ),
            ("lent", &[(1, 20, idle, "lent"), (1, 90, idle, ""), (1, 95, idle, "lent")], &[2]),
            ("unclear pays nothing for sure", &[(1, 95, idle, "unclear"), (1, 90, idle, "")], &[]),
            ("unclear, and two more", &[(1, 5, idle, "unclear"), (1, 9, idle, ""), (1, 8, idle, "")], &[3]),
            ("never paid on stays", &[(1, 100, idle, ""), (1, 90, idle, "")], &[2]),
            ("two never paid on", &[(1, 100, idle, ""), (1, 100, idle, "")], &[]),
            (
                "ended ones do not count",
                &[(1, 90, idle, "closing"), (1, 90, idle, "gone"), (1, 5, idle, "")],
                &[],
            ),
            ("about to be closed", &[(1, 90, idle, "held"), (1, 5, idle, "")], &[]),
            ("it is not known since when", &[(1, 90, None, ""), (1, 5, idle, "")], &[2]),
        ] as [(&str, &[Row], &[u32]); _]
        {
            assert_eq!(surplus(rows), expected, "{what}");
        }
    }

    #[test]
    fn a_held_channel_is_surplus_while_it_is_idle_and_another_one_is_open() {
        let idle = Some(600);
        for (what, rows, expected) in [
            ("idle, and another", &[(1, 90, idle, "held"), (1, 5, Some(1), "")][..], true),
            ("alone", &[(1, 90, idle, "held"), (2, 5, idle, "")], false),
            ("the other ends", &[(1, 90, idle, "held"), (1, 5, idle, "closing")], false),
            ("the other is held too", &[(1, 90, idle, "held"), (1, 5, idle, "held")], false),
            ("used meanwhile", &[(1, 90, Some(0), "held"), (1, 5, idle, "")], false),
            ("unclear meanwhile", &[(1, 90, idle, "unclear"), (1, 5, idle, "")], false),
        ] as [(&str, &[Row], bool); _]
        {
            let (engine, now) = engine(rows);
            let id = ChannelId { receiver: Address([1; 20]), open_block: 1 };
            assert_eq!(engine.is_still_idle(&id, now, WITHIN), expected, "{what}");
        }
    }
}
