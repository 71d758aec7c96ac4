//! The state machine behind all payments: inputs and the time go in, effects come out. Nothing in here waits, signs or
//! stores.
//!
//! The records of one input leave together, as one [`Effect::Persist`] with the next [`Seq`]. What relies on a record
//! stays in here until [`Input::Durable`] says that it is on disk; everything else goes on meanwhile. The caller writes
//! records in the order of their numbers, carries out effects in the order in which they come, and after a crash starts
//! from what is on disk: any number of the writes under way, from the oldest on.

mod answer;
mod authorization;
mod blocked;
mod demand;
mod durable;
mod fund;
mod funding;
mod idle;
mod ids;
#[cfg(test)]
mod model;
mod one_shot;
mod op_failure;
mod purchase;
mod slot;
mod slots;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::authorization::OneShotPurchase;
use self::blocked::Blocked;
use self::purchase::{Purchase, QueueKey, Stage};
use self::slot::Slot;
pub use crate::protocol::host_name::{HostName, host_name};
use crate::protocol::policy::SpendLimit;
use crate::protocol::quote::{Price, RequestId};
use crate::protocol::refusal::Awaited;
use crate::protocol::{
    Account, Address, Amount, Channel, ChannelId, ChannelOp, Draft, Intent, Offer, OnChain, Policy, Refusal,
    Signature,
};

pub use authorization::Authorization;
pub use ids::{PurchaseId, Seq};
pub use op_failure::{Balance, OpFailure, OpRefused};

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The key is unlocked and the chain synced. The channels and intents are those of the store.
    Ready {
        /// Who pays, and where.
        account: Account,
        /// The channels that the store knows.
        channels: Vec<(ChannelId, Channel)>,
        /// Which hosts channels belong to.
        hosts: Vec<(ChannelId, HostName)>,
        /// The transactions whose fate the store does not know, in order of their nonce.
        intents: Vec<Intent>,
        /// How long ago money was sent into channels to a receiver for a host.
        deposits: Vec<(Address, HostName, Duration)>,
        /// What the contract says of these and of channels that the store does not know. It is believed at once.
        on_chain: Vec<(ChannelId, Option<OnChain>)>,
        /// Where the next sync starts.
        cursor: u64,
    },
    /// The key or the chain is not there yet, and why.
    Unready(String),
    /// A client request met a 402 that a rule allows to pay.
    Demand {
        /// Its name.
        purchase: PurchaseId,
        /// What is asked for.
        offer: Offer,
        /// What the rule allows.
        limit: SpendLimit,
    },
    /// A client request met a 402 of a one-shot scheme that a rule allows to pay.
    DemandOneShot {
        /// Its name.
        purchase: PurchaseId,
        /// What is asked for.
        offer: Offer,
        /// What the rule allows.
        limit: SpendLimit,
        /// Random: makes the payment unlike any other.
        nonce: [u8; 32],
    },
    /// A demand is taken back, or its grant was never sent to the seller.
    Withdraw(PurchaseId),
    /// All writes up to this one have ended, and those since the last answer are on disk.
    Durable(Seq),
    /// All writes up to this one have ended, and those since the last answer have failed, for this reason.
    NotRecorded(Seq, String),
    /// A granted payment was presented, and this is what came of it.
    Answer(PurchaseId, Outcome),
    /// A signed transaction is about to be sent.
    Intent(Intent),
    /// An order came to its end: the channel as the contract shows it (`None`: settled), or nothing moved, or a
    /// failure.
    OpFinished(Address, Result<Option<(ChannelId, Option<OnChain>)>, OpFailure>),
    /// The user orders something of the chain; to be asked beforehand: [`Engine::may_start`].
    ChannelOp(ChannelOp),
    /// Transactions for this receiver whose fate is not known stand in the way: find out what became of them.
    Resume(Address),
    /// Lend this channel to nobody any more.
    Lock(ChannelId),
    /// Lend this channel again.
    Unlock(ChannelId),
    /// The seller's own total of a channel, and whether our own signature proves it.
    SellerTotal(ChannelId, Amount, bool),
    /// What the contract says of channels (`None`: it knows no such channel), up to a block. One that it does not know
    /// and that was not settled either is to be looked at again: [`Engine::missing`].
    Chain {
        /// The channels.
        channels: Vec<(ChannelId, Option<OnChain>)>,
        /// Which channels were settled, and on which total.
        settled: BTreeMap<ChannelId, Amount>,
        /// Where the next sync starts.
        cursor: u64,
        /// True when the user asked for this look: deposits that do not show are given up.
        by_user: bool,
    },
    /// What the payer has, in answer to [`Effect::QueryBalance`]; `None` when the node does not say.
    Balance(Option<Balance>),
    /// Time has passed.
    Tick,
    /// Nothing happened for a while: put on record what is only in memory.
    Idle,
    /// The end: put on record what is only in memory, and nothing beyond.
    Flush,
    /// Grant nothing more. Orders of the user's are still taken.
    Stop,
}

/// Whether another channel pays if the one that was presented is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reopens(pub bool);

/// What came of a payment that was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The seller took it, as far as can be told.
    Accepted,
    /// The seller answered with another 402.
    Rejected(Box<Offer>),
    /// The same, and an approver decides for this turn, in place of the policy, whether another channel pays
    /// if this one is gone.
    Advised(Box<Offer>, Reopens),
    /// Nobody can tell.
    InDoubt,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make all of this durable or nothing of it, after the writes before it; then tell [`Input::Durable`] or
    /// [`Input::NotRecorded`].
    Persist(Seq, Vec<Record>),
    /// Sign this and hand it to the purchase.
    Grant(PurchaseId, Draft),
    /// Tell the purchase that it is not paid.
    Refuse(PurchaseId, Refusal),
    /// Have this order carried out on the chain.
    Submit(ChannelOp),
    /// Find out what became of these transactions, all of orders for one receiver.
    Resume(Address, Vec<Intent>),
    /// The transaction with this hash is on disk: it may be sent.
    Send([u8; 32]),
    /// The transaction with this hash could not be recorded, for this reason: it must not be sent.
    Discard([u8; 32], String),
    /// Find out what the payer has, then tell [`Input::Balance`].
    QueryBalance,
}

/// What goes on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A channel as it is.
    Channel(ChannelId, Channel),
    /// A transaction about to be sent.
    Intent(Intent),
    /// No transaction for this receiver is open any more.
    IntentsResolved(Address),
    /// Where the next sync with the chain starts.
    Cursor(u64),
    /// What a request (its method and URL) costs; `None` when that is forgotten.
    Price(RequestId, Option<Price>),
    /// Where a host says that the REST interface of a receiver is.
    Gateway(HostName, Address, String),
    /// The host that a channel belongs to.
    Host(ChannelId, HostName),
    /// Money is about to be sent into a channel to this receiver, for this host.
    Deposit(Address, HostName),
    /// The seller's signature to close a channel on a total. It gives one once.
    Consent(ChannelId, Amount, Signature),
    /// An authorization that is about to be signed.
    Authorization(Box<Authorization>),
    /// The authorization with this nonce was taken, or provably never sent.
    AuthorizationEnded([u8; 32]),
}

/// All channels, and who waits for them.
#[derive(Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    start: Start,
    slots: BTreeMap<ChannelId, Slot>,
    /// True if a slot may be dirty.
    is_dirty: bool,
    /// Hosts of channels that neither the journal nor the chain has shown yet.
    unclaimed_hosts: BTreeMap<ChannelId, HostName>,
    purchases: BTreeMap<PurchaseId, Purchase>,
    /// Purchases that no channel pays.
    one_shots: BTreeMap<PurchaseId, OneShotPurchase>,
    /// Who waits for a channel to each receiver, by host, first come first.
    queues: BTreeMap<Address, BTreeMap<QueueKey, VecDeque<PurchaseId>>>,
    /// What is being carried out on the chain.
    funding: BTreeMap<Address, Funding>,
    /// What failed to put money into a channel, by receiver and host.
    failures: BTreeMap<(Address, HostName), Failure>,
    /// Why the fate of transactions is still not known, by receiver, and when it is looked for again.
    unresolved: BTreeMap<Address, Failure>,
    /// True while the payer's balance is being looked up.
    is_querying_balance: bool,
    /// When money was sent into channels, by receiver and host, oldest first.
    deposits: BTreeMap<(Address, HostName), VecDeque<Instant>>,
    /// Transactions whose fate is not known, by receiver, in order of their nonce.
    intents: BTreeMap<Address, Vec<Intent>>,
    /// From where the chain is read at the next start, as it is on record.
    cursor: u64,
    /// The number of the newest write.
    newest: Seq,
    /// The number of the newest write that has ended.
    ended: Seq,
    /// What the input at hand puts on record.
    records: Vec<Record>,
    /// What waits for a write.
    blocked: Vec<Blocked>,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
enum Start {
    /// Not ready, and why.
    Waiting(String),
    Ready(Account),
    /// Nothing is granted any more; where it was ready before, the user may still order something.
    Stopped(Option<Account>),
}

/// An order that is being carried out.
#[derive(Debug)]
struct Funding {
    /// The order; `None` while the fate of earlier transactions is being found out.
    op: Option<ChannelOp>,
    /// The host that it is carried out for; `None` for what the user orders.
    host: Option<HostName>,
}

/// Why no money could be put into a channel, and when that is tried again.
#[derive(Debug)]
struct Failure {
    op: ChannelOp,
    reason: String,
    since: Instant,
    until: Instant,
    /// The channel that was funded, if the chain does not show it.
    unseen: Option<ChannelId>,
    /// How often in a row.
    times: u32,
    /// What the payer had then, if nothing was sent: another balance is worth another try.
    balance: Option<Option<Balance>>,
    /// When the balance was last looked at.
    looked: Instant,
}

impl Engine {
    /// A engine that is not ready yet.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            start: Start::Waiting("the key and the chain are being prepared".into()),
            slots: BTreeMap::new(),
            is_dirty: false,
            unclaimed_hosts: BTreeMap::new(),
            purchases: BTreeMap::new(),
            one_shots: BTreeMap::new(),
            queues: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            funding: BTreeMap::new(),
            failures: BTreeMap::new(),
            is_querying_balance: false,
            deposits: BTreeMap::new(),
            intents: BTreeMap::new(),
            cursor: 0,
            newest: Seq(0),
            ended: Seq(0),
            records: Vec::new(),
            blocked: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    /// Takes in what happened. The effects wait in [`Engine::poll_effect`].
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.apply(input, now);
        if !self.records.is_empty() {
            self.newest = self.next_write();
            let records = std::mem::take(&mut self.records);
            self.effects.push_back(Effect::Persist(self.newest, records));
        }
    }

    fn apply(&mut self, input: Input, now: Instant) {
        match input {
            Input::Ready { account, channels, hosts, intents, deposits, on_chain, cursor } => {
                // With what is on record not taken in, the chain alone would be put in its place.
                if !matches!(self.start, Start::Stopped(_)) {
                    self.unclaimed_hosts.extend(hosts);
                    self.become_ready(account, channels, intents);
                    self.remember_deposits(deposits, now);
                    // Nothing was raised in this life: one look is enough.
                    for (id, _) in &on_chain {
                        if let Some(slot) = self.slots.get_mut(id) {
                            slot.is_missing = true;
                        }
                    }
                    self.observe(on_chain, &BTreeMap::new(), cursor, now);
                    self.check_starting(now);
                }
            }
            Input::Unready(reason) => {
                if matches!(self.start, Start::Waiting(_)) {
                    self.start = Start::Waiting(reason);
                }
            }
            Input::Demand { purchase, offer, limit } => {
                self.demand(purchase, offer, limit, now);
            }
            Input::DemandOneShot { purchase, offer, limit, nonce } => {
                self.demand_one_shot(purchase, &offer, limit, nonce, now);
            }
            Input::Withdraw(id) if self.one_shots.contains_key(&id) => self.withdraw_one_shot(id),
            Input::Withdraw(id) => self.withdraw(id, now),
            Input::Durable(seq) => self.durable(seq),
            Input::NotRecorded(seq, reason) => self.not_recorded(seq, &reason, now),
            Input::Answer(id, outcome) if self.one_shots.contains_key(&id) => {
                self.answer_one_shot(id, outcome, now);
            }
            Input::Answer(id, outcome) => self.answer(id, outcome, now),
            Input::Intent(intent) => self.intend(intent, now),
            Input::OpFinished(receiver, result) => self.ordered(receiver, result, now),
            Input::ChannelOp(op) => self.start_op(op, None),
            Input::Resume(receiver) => self.resume_if_idle(receiver),
            Input::Lock(id) => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.is_locked = true;
                }
            }
            Input::Unlock(id) => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.is_locked = false;
                }
                self.dispatch(id.receiver, now);
            }
            Input::SellerTotal(id, total, proven) => self.seller_total(id, total, proven),
            Input::Chain { channels, settled, cursor, by_user } => {
                if by_user {
                    self.give_up_unseen(&channels);
                }
                self.observe(channels, &settled, cursor, now);
            }
            Input::Balance(balance) => self.balance_known(balance, now),
            Input::Tick => self.tick(now),
            Input::Idle => self.persist_dirty(),
            Input::Flush => self.flush(),
            Input::Stop => self.stop(now),
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let one_shots = self.one_shots.values().filter_map(OneShotPurchase::due);
        self.purchases.values().filter_map(Purchase::due).chain(one_shots).min()
    }

    /// The next answer to a purchase: a grant or a refusal. What else there is to do stays in its order in
    /// [`Engine::poll_effect`].
    pub fn poll_answer(&mut self) -> Option<(PurchaseId, Result<Draft, Refusal>)> {
        let is_answer = |effect: &Effect| matches!(effect, Effect::Grant(..) | Effect::Refuse(..));
        let place = self.effects.iter().position(is_answer)?;
        match self.effects.remove(place)? {
            Effect::Grant(id, draft) => Some((id, Ok(draft))),
            Effect::Refuse(id, refusal) => Some((id, Err(refusal))),
            _ => None,
        }
    }

    /// True while there is something to do.
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// When a purchase gets impatient; `None` while it has a payment in hand.
    pub fn due(&self, id: PurchaseId) -> Option<Instant> {
        match self.purchases.get(&id) {
            Some(purchase) => purchase.due(),
            None => self.one_shots.get(&id).and_then(OneShotPurchase::due),
        }
    }

    /// Who pays and where, once the engine is ready.
    pub fn account(&self) -> Option<&Account> {
        match &self.start {
            Start::Ready(account) | Start::Stopped(Some(account)) => Some(account),
            Start::Waiting(_) | Start::Stopped(None) => None,
        }
    }

    /// All channels, in order of receiver and opening.
    pub fn channels(&self) -> impl Iterator<Item = (&ChannelId, &Channel)> {
        self.slots.iter().map(|(id, slot)| (id, &slot.channel))
    }

    /// True while a payment of this channel is on its way.
    pub fn is_lent(&self, id: &ChannelId) -> bool {
        self.slots.get(id).is_some_and(|slot| slot.lease.is_some())
    }

    /// The host that a channel belongs to.
    pub fn host(&self, id: &ChannelId) -> Option<&HostName> {
        self.slots.get(id)?.host.as_ref()
    }

    /// A channel.
    pub fn channel(&self, id: &ChannelId) -> Option<&Channel> {
        self.slots.get(id).map(|slot| &slot.channel)
    }

    /// Channels that were not there when the chain was looked at, though nothing says that they were settled: that is
    /// believed when another look, begun after this one, says the same.
    pub fn missing(&self) -> impl Iterator<Item = &ChannelId> {
        self.slots.iter().filter(|(_, slot)| slot.is_missing).map(|(id, _)| id)
    }

    /// True while a transaction is being waited for.
    pub fn is_waiting_for_chain(&self) -> bool {
        !self.funding.is_empty()
    }

    /// True while writes are under way.
    pub fn is_writing(&self) -> bool {
        self.ended != self.newest
    }

    /// True while something is only in memory.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// True while a channel is lent, or an authorization is in flight.
    pub fn has_leases(&self) -> bool {
        self.slots.values().any(|slot| slot.lease.is_some()) || !self.one_shots.is_empty()
    }

    fn tick(&mut self, now: Instant) {
        let due: Vec<PurchaseId> = self
            .purchases
            .iter()
            .filter(|(_, purchase)| purchase.due().is_some_and(|due| due <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.come_due(id, now);
        }
        self.tick_one_shots(now);
    }

    fn come_due(&mut self, id: PurchaseId, now: Instant) {
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        let waited_for = match purchase.stage {
            Stage::Starting { .. } => match &self.start {
                Start::Waiting(reason) => {
                    let refusal = Refusal::NotReady(reason.clone());
                    return self.refuse(id, refusal, now);
                }
                Start::Ready(_) | Start::Stopped(_) => Awaited::Start,
            },
            Stage::Queued => {
                let is_funding = self.funding.contains_key(&purchase.receiver());
                if is_funding { Awaited::Funding } else { Awaited::Channel }
            }
            Stage::Backoff { draft, .. } if now < purchase.deadline => {
                purchase.stage = Stage::InFlight { draft, unsent: None };
                // Its record has been durable since it was granted first.
                let granted = purchase.offer.on_channel(draft);
                self.effects.push_back(Effect::Grant(id, granted));
                return;
            }
            Stage::Backoff { .. } => Awaited::Seller,
            Stage::Recording { .. } => {
                self.take_back(id);
                Awaited::Journal
            }
            Stage::InFlight { .. } => return,
        };
        self.refuse(id, Refusal::Deadline { waited_for }, now);
    }

    /// Takes a purchase out and tells it why it is not paid.
    fn refuse(&mut self, id: PurchaseId, refusal: Refusal, now: Instant) {
        self.effects.push_back(Effect::Refuse(id, refusal));
        self.remove(id, now);
    }

    /// Takes a purchase out; a channel that was lent to it is free for the next.
    fn remove(&mut self, id: PurchaseId, now: Instant) {
        let Some(purchase) = self.purchases.remove(&id) else { return };
        let receiver = purchase.receiver();
        match purchase.stage {
            Stage::Starting { .. } => {}
            Stage::Queued => {
                let key = purchase.queue();
                if let Some(queue) = self.queue_mut(receiver, &key) {
                    queue.retain(|waiting| *waiting != id);
                }
                self.drop_empty_queue(receiver, &key);
            }
            Stage::Recording { draft, .. } | Stage::InFlight { draft, .. } | Stage::Backoff { draft, .. } => {
                if let Some(slot) = self.slots.get_mut(&draft.channel) {
                    (slot.lease, slot.used) = (None, Some(now));
                }
                self.dispatch(draft.channel.receiver, now);
            }
        }
    }

    /// The payment that a purchase has, or waits for, was not presented to the seller this time.
    fn take_back(&mut self, id: PurchaseId) {
        let Some(purchase) = self.purchases.get(&id) else { return };
        let (Stage::Recording { draft, before } | Stage::InFlight { draft, unsent: Some(before) }) =
            purchase.stage
        else {
            return;
        };
        self.change(&draft.channel, |channel| channel.in_doubt = before.in_doubt);
    }

    fn withdraw(&mut self, id: PurchaseId, now: Instant) {
        self.take_back(id);
        self.remove(id, now);
    }

    fn persist_dirty(&mut self) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        let dirty: Vec<ChannelId> =
            self.slots.iter().filter(|(_, slot)| slot.is_dirty).map(|(id, _)| *id).collect();
        for id in dirty {
            self.persist_channel(id);
        }
    }

    /// Gives up what was reserved ahead, so that the next start has nothing to clear up: of a channel whose payment is
    /// not on its way, it is known what the seller was shown.
    fn flush(&mut self) {
        let ahead: Vec<ChannelId> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.lease.is_none() && slot.limit_ahead() > slot.channel.presented)
            .map(|(id, _)| *id)
            .collect();
        for id in ahead {
            self.persist_up_to(id, |slot| slot.channel.presented);
        }
        self.persist_dirty();
    }

    fn stop(&mut self, now: Instant) {
        self.start = Start::Stopped(self.account().copied());
        let waiting: Vec<PurchaseId> = self
            .purchases
            .iter()
            .filter(|(_, purchase)| !matches!(purchase.stage, Stage::InFlight { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.take_back(id);
            self.refuse(id, Refusal::ShuttingDown, now);
        }
        self.stop_one_shots();
        self.flush();
    }
}
