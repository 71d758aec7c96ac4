//! Finds idle channels: several to one seller that were opened while requests queued, and are no longer needed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::slot::Slot;
use super::{Engine, HostName};
use crate::protocol::{Address, ChannelId};

impl Engine {
    /// The channels without a payment for `within` that their hosts no longer need: all but one of those open for a
    /// host to each receiver. Leased channels, those in doubt and those that never paid are not included.
    ///
    /// If another channel of the host stays anyway and has something left, that one pays next; otherwise the one with
    /// the most left is kept.
    pub fn idle_channels(&self, now: Instant, within: Duration) -> Vec<ChannelId> {
        let mut groups: BTreeMap<(Address, Option<&HostName>), Vec<_>> = BTreeMap::new();
        for (id, slot) in self.slots.iter().filter(|(id, slot)| self.is_open(id, slot)) {
            groups.entry((id.receiver, slot.host.as_ref())).or_default().push((id, slot));
        }
        let mut found = Vec::new();
        for slots in groups.into_values() {
            let (mut idle, staying): (Vec<_>, Vec<_>) =
                slots.into_iter().partition(|(_, slot)| slot.is_idle(now, within));
            let can_pay = |(_, slot): &(&ChannelId, &Slot)| {
                !slot.channel.left().is_zero() && (slot.lease.is_some() || !slot.channel.is_uncertain())
            };
            if !staying.iter().any(can_pay) {
                idle.sort_by_key(|(id, slot)| (slot.channel.left(), **id));
                idle.pop();
            }
            found.extend(idle.into_iter().map(|(id, _)| *id));
        }
        found
    }

    /// Whether a locked channel is still idle and its host has another open one to its receiver.
    pub fn is_still_idle(&self, id: &ChannelId, now: Instant, within: Duration) -> bool {
        let Some(slot) = self.slots.get(id) else { return false };
        let mut others = self.open_slots(id.receiver).filter(|(other, _)| *other != id);
        slot.is_idle(now, within) && others.any(|(_, other)| other.host == slot.host)
    }
}

impl Slot {
    fn is_idle(&self, now: Instant, within: Duration) -> bool {
        let was_paid = !self.channel.acknowledged.is_zero() && !self.channel.is_uncertain();
        let is_unused = self.used.is_some_and(|at| now.saturating_duration_since(at) >= within);
        was_paid && self.lease.is_none() && is_unused
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::protocol::channel::InDoubt;
    use crate::protocol::engine::idle::*;
    use crate::protocol::engine::{Input, PurchaseId};
    use crate::protocol::policy::SpendLimit;
    use crate::protocol::policy::{AuthorizationLimits, Deposit, Hooks};
    use crate::protocol::schemes::microraiden;
    use crate::protocol::{Account, Amount, Channel, Offer, OnChain, Phase, Policy};

    const WITHIN: Duration = Duration::from_secs(600);

    /// One channel: its receiver, what is left of 100 units, how many seconds ago it was used, and special conditions.
    type Row = (u8, u64, Option<u64>, &'static str);

    /// The surplus channels, by their position in the table, from 1.
    fn surplus(rows: &[Row]) -> Vec<u32> {
        let (engine, now) = engine(rows);
        let found = engine.idle_channels(now, WITHIN);
        found.into_iter().map(|id| id.open_block).collect()
    }

    fn engine(rows: &[Row]) -> (Engine, Instant) {
        let mut engine = Engine::new(Arc::new(Policy {
            version: 0,
            clients: Arc::default(),
            distinguishes_clients: false,
            budgets: Vec::new(),
            rules: Vec::new(),
            deposit: Deposit::default(),
            hooks: Arc::new(Hooks::default()),
            max_attempts: 8,
            sign_ahead: 0,
            ready_timeout: WITHIN,
            pay_timeout: WITHIN,
            authorizations: AuthorizationLimits::default(),
        }));
        let start = Instant::now();
        let now = start + Duration::from_secs(100_000);
        let on_chain = |settle_block| OnChain {
            deposit: Amount::from(100),
            settle_block,
            closing_balance: Amount::ZERO,
            withdrawn: Amount::ZERO,
        };
        let id =
            |place: usize| ChannelId { receiver: Address([rows[place].0; 20]), open_block: place as u32 + 1 };
        let channel = |(_, left, _, oddity): &Row| {
            let paid = Amount::from(100 - left);
            let in_doubt = (*oddity == "in doubt").then_some(InDoubt { total: paid, price: 1.into() });
            let phase = match *oddity {
                "closing" => Phase::Closing { settle_block: 9 },
                "gone" => Phase::Gone,
                _ => Phase::Open,
            };
            Channel {
                promised: paid,
                presented: paid,
                durable_limit: paid,
                acknowledged: paid,
                in_doubt,
                phase,
                ..Channel::new(on_chain(0))
            }
        };
        let account = Account {
            chain_id: 1,
            contract: Address([0xcc; 20]),
            token: Address([0x70; 20]),
            payer: Address([0xa0; 20]),
        };
        let ready = Input::Ready {
            account,
            channels: rows.iter().enumerate().map(|(place, row)| (id(place), channel(row))).collect(),
            hosts: (0..rows.len()).map(|place| (id(place), "seller.example".into())).collect(),
            intents: Vec::new(),
            deposits: Vec::new(),
            on_chain: Vec::new(),
            cursor: 0,
        };
        engine.handle(ready, start);
        for (place, (_, _, used, oddity)) in rows.iter().enumerate() {
            let on_chain = match *oddity {
                "gone" => None,
                "closing" => Some(on_chain(9)),
                _ => Some(on_chain(0)),
            };
            if let Some(ago) = used {
                let channels = vec![(id(place), on_chain)];
                let seen = Input::Chain { channels, settled: BTreeMap::new(), cursor: 0, by_user: false };
                engine.handle(seen, now - Duration::from_secs(*ago));
            }
        }
        for place in (0..rows.len()).filter(|place| rows[*place].3 == "lent") {
            lend(&mut engine, place as u64, id(place), now);
        }
        for place in (0..rows.len()).filter(|place| rows[*place].3 == "locked") {
            engine.handle(Input::Lock(id(place)), now);
        }
        (engine, now)
    }

    /// Leases this channel, while all others are locked.
    fn lend(engine: &mut Engine, purchase: u64, id: ChannelId, now: Instant) {
        let others: Vec<ChannelId> =
            engine.channels().map(|(other, _)| *other).filter(|other| *other != id).collect();
        others.iter().for_each(|other| engine.handle(Input::Lock(*other), now));
        let offer = microraiden::ChannelOffer {
            price: 1.into(),
            contract: Address([0xcc; 20]),
            receiver: id.receiver,
            token: None,
            gateway: None,
            complaint: None,
            state: None,
        };
        let limit = SpendLimit {
            host: "seller.example".into(),
            max_price: 1.into(),
            receivers: Vec::new(),
            preference: Arc::default(),
            hooks: Arc::default(),
            budgets: Arc::default(),
            origin: Default::default(),
        };
        let purchase = PurchaseId(purchase);
        let (offer, deadline) = (Offer::MicroRaiden(offer), now + Duration::from_secs(60));
        engine.handle(Input::Demand { purchase, offer, limit, deadline }, now);
        assert!(engine.is_lent(&id));
        others.iter().for_each(|other| engine.handle(Input::Unlock(*other), now));
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
            ("unclear pays nothing for sure", &[(1, 95, idle, "in doubt"), (1, 90, idle, "")], &[]),
            ("unclear, and two more", &[(1, 5, idle, "in doubt"), (1, 9, idle, ""), (1, 8, idle, "")], &[3]),
            ("never paid on stays", &[(1, 100, idle, ""), (1, 90, idle, "")], &[2]),
            ("two never paid on", &[(1, 100, idle, ""), (1, 100, idle, "")], &[]),
            (
                "ended ones do not count",
                &[(1, 90, idle, "closing"), (1, 90, idle, "gone"), (1, 5, idle, "")],
                &[],
            ),
            ("about to be closed", &[(1, 90, idle, "locked"), (1, 5, idle, "")], &[]),
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
            ("idle, and another", &[(1, 90, idle, "locked"), (1, 5, Some(1), "")][..], true),
            ("alone", &[(1, 90, idle, "locked"), (2, 5, idle, "")], false),
            ("the other ends", &[(1, 90, idle, "locked"), (1, 5, idle, "closing")], false),
            ("the other is held too", &[(1, 90, idle, "locked"), (1, 5, idle, "locked")], false),
            ("used meanwhile", &[(1, 90, Some(0), "locked"), (1, 5, idle, "")], false),
            ("unclear meanwhile", &[(1, 90, idle, "in doubt"), (1, 5, idle, "")], false),
        ] as [(&str, &[Row], bool); _]
        {
            let (engine, now) = engine(rows);
            let id = ChannelId { receiver: Address([1; 20]), open_block: 1 };
            assert_eq!(engine.is_still_idle(&id, now, WITHIN), expected, "{what}");
        }
    }
}
