//! The state machine behind all payments: takes inputs and the time, and produces effects. It never waits, signs or
//! stores.
//!
//! The records of one input form one [`Effect::Persist`] with the next [`Seq`]. What depends on a record stays in the
//! engine until [`Input::Durable`] confirms it; everything else continues meanwhile. The caller writes records in the
//! order of their numbers and executes effects in order. After a crash it starts from what is on disk: the oldest
//! pending writes, any number of them, may have succeeded.

mod answer;
mod authorization;
mod blocked;
mod budgeting;
mod chain_use;
mod consult;
mod demand;
mod durable;
mod fit;
mod fund;
mod funding;
mod holds;
mod idle;
mod ids;
mod locked;
#[cfg(test)]
mod model;
mod one_shot;
mod op_failure;
mod open_authorization;
mod open_hold;
mod purchase;
mod purchase_key;
mod question;
mod reloading;
mod runs;
mod served;
mod slot;
mod slots;
#[cfg(test)]
mod tests;
mod usage;
#[cfg(test)]
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::authorization::OneShotPurchase;
use self::blocked::Blocked;
use self::open_authorization::OpenAuthorizations;
use self::purchase::{Purchase, QueueKey, Stage};
use self::slot::Slot;
use crate::protocol::budget::{
    Budget, BudgetIndex, BudgetKey, BudgetNotice, BudgetRow, BudgetView, Budgets, Hold, RowId,
};
pub use crate::protocol::host_name::{HostName, host_name};
use crate::protocol::policy::{Decision, PriceLimit, SpendLimit};
use crate::protocol::quote::{Quote, RequestId};
use crate::protocol::refusal::Awaited;
use crate::protocol::{
    Account, Address, Amount, Channel, ChannelId, ChannelOp, Draft, Intent, Offer, OnChain, Policy, Refusal,
    Signature,
};

pub use authorization::{Authorization, KnownAuthorization, Loss, Occasion};
pub use chain_use::{AuthorizationTime, UseDoubt};
pub use ids::{PurchaseId, Seq};
pub use op_failure::{Balance, OpFailure, OpRefused};
pub use open_authorization::UnclearAuthorization;
pub use open_hold::{HoldReason, OpenHold, ShownBy};
pub use purchase_key::PurchaseKey;
pub use question::Question;

/// An event.
#[derive(Clone, Debug)]
pub enum Input {
    /// The key is unlocked and the chain synced. The channels and intents are those of the journal.
    Ready {
        /// The payer's account.
        account: Account,
        /// The recorded channels.
        channels: Vec<(ChannelId, Channel)>,
        /// The hosts of channels.
        hosts: Vec<(ChannelId, HostName)>,
        /// The transactions with unknown outcome, in order of their nonce.
        intents: Vec<Intent>,
        /// The age of each deposit, by receiver and host.
        deposits: Vec<(Address, HostName, Duration)>,
        /// The contract's state of these and of unrecorded channels. Trusted without a second reading.
        on_chain: Vec<(ChannelId, Option<OnChain>)>,
        /// The block at which the next sync starts.
        cursor: u64,
    },
    /// The key is unlocked: schemes without channels can pay. [`Input::Ready`] follows once the chain has been read; without
    /// a chain, nothing is ever paid from a channel.
    Unlocked {
        /// The address that signs.
        payer: Address,
        /// True if there is a chain to read.
        has_chain: bool,
    },
    /// The key or the chain is not ready yet, with the reason.
    Unready(String),
    /// A client request got a 402 that a rule allows to pay.
    Demand {
        /// Its ID.
        purchase: PurchaseId,
        /// The offer.
        offer: Offer,
        /// The rule's limit.
        limit: SpendLimit,
        /// When it is refused, at the latest.
        deadline: Instant,
    },
    /// A client request got a 402 of a one-shot scheme that a rule allows to pay, or will probably get one.
    DemandOneShot {
        /// Its ID.
        purchase: PurchaseId,
        /// The offer.
        offer: Offer,
        /// The rule's limit.
        limit: SpendLimit,
        /// When it is refused, at the latest.
        deadline: Instant,
        /// Random; makes the payment unique.
        nonce: [u8; 32],
        /// The purchase, if later requests can continue it.
        key: Option<PurchaseKey>,
        /// Why it is wanted.
        occasion: Occasion,
    },

    /// What the journal contains about the budgets of channels; comes before [`Input::Ready`].
    Holds(Vec<(ChannelId, Hold)>),
    /// The decision on [`Effect::Consult`]; `None` if there is no approver.
    Consulted(PurchaseId, Option<Decision>),
    /// A demand is withdrawn, or its granted payment was never sent.
    Withdraw(PurchaseId),
    /// All writes up to this one have ended, and those since the last such input are durable.
    Durable(Seq),
    /// All writes up to this one have ended, and those since the last such input have failed, for this reason.
    NotRecorded(Seq, String),
    /// The outcome of a presented payment.
    Answer(PurchaseId, Outcome),
    /// The client has the whole response to an accepted authorization with this nonce.
    Delivered([u8; 32]),
    /// The client has not got the whole response to an accepted authorization with this nonce.
    Lost([u8; 32], Loss),
    /// A signed transaction to be recorded before it is sent.
    Intent(Intent),
    /// An operation has ended: with the channel's state in the contract (`None`: settled), without effect, or with a
    /// failure.
    OpFinished(Address, Result<Option<(ChannelId, Option<OnChain>)>, OpFailure>),
    /// A user operation; check [`Engine::may_start`] first.
    ChannelOp(ChannelOp),
    /// Transactions for this receiver have an unknown outcome that must be resolved.
    Resume(Address),
    /// Stop leasing this channel.
    Lock(ChannelId),
    /// Lease this channel again.
    Unlock(ChannelId),
    /// The seller's own total of a channel, and whether our own signature proves it.
    SellerTotal(ChannelId, Amount, bool),
    /// The contract's state of channels (`None`: there is no such channel), up to a block. A channel that is missing
    /// without having been settled must be read again: [`Engine::missing`].
    Chain {
        /// The channels.
        channels: Vec<(ChannelId, Option<OnChain>)>,
        /// The settled channels with their final totals.
        settled: BTreeMap<ChannelId, Amount>,
        /// The block at which the next sync starts.
        cursor: u64,
        /// True if the user requested this sync: deposits that are not visible are no longer awaited.
        by_user: bool,
    },
    /// The payer's balance, for [`Effect::QueryBalance`]; `None` if the node does not report it.
    Balance(Option<Balance>),
    /// Time has passed.
    Tick,
    /// Nothing happened for a while: record what is only in memory.
    Idle,
    /// Shutdown: record what is only in memory, without reserving ahead.
    Flush,
    /// A chain has shown whether the authorization with this nonce was used, for [`Engine::doubts`].
    UsageShown {
        /// The nonce.
        nonce: [u8; 32],
        /// Whether it was used, after a confirmed block.
        is_used: bool,
        /// The time of that block, in seconds since 1970.
        block_time: u64,
    },
    /// Whether nothing may be signed. What is already signed continues.
    Freeze(bool),
    /// Another policy applies from now on, also to purchases that wait; those keep the limit and hooks of their rule.
    Policy(Arc<Policy>),
    /// A run with this budget begins.
    BeginBudget(Arc<Budget>),
    /// The run with this budget is over.
    EndBudget(BudgetKey),
    /// Grant no more payments. User operations may still start.
    Stop,
}

/// Whether another channel pays if the one that was presented is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reopens(bool);

/// The outcome of a presented payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The seller took it, judging by the response.
    Accepted,
    /// The seller responded with another 402.
    Rejected(Box<Offer>),
    /// The seller took it, and does not deliver.
    Taken,
    /// Unknown, and the same payment may be presented again.
    Unclear,
    /// Unknown, and its request was served without it: no other request needs it.
    Unneeded,
    /// Unknown.
    InDoubt,
}

/// An action for the caller; execute in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Commit these records atomically, after the writes before them; then submit [`Input::Durable`] or
    /// [`Input::NotRecorded`].
    Persist(Seq, Vec<Record>),
    /// Sign this payment and deliver it to the purchase.
    Grant(PurchaseId, Draft),
    /// Deliver the refusal to the purchase.
    Refuse(PurchaseId, Refusal),
    /// Ask an approver about the purchase, then submit [`Input::Consulted`]. The caller asks until the deadline of the
    /// demand at most.
    Consult(PurchaseId, Question),
    /// Execute this operation on the chain.
    Submit(ChannelOp),
    /// Resolve these transactions, all of operations for one receiver.
    Resume(Address, Vec<Intent>),
    /// The transaction with this hash is recorded and may be sent.
    Send([u8; 32]),
    /// The transaction with this hash could not be recorded, for this reason, and must not be sent.
    Discard([u8; 32], String),
    /// Query the payer's balance, then submit [`Input::Balance`].
    QueryBalance,
}

/// The engine's reply to a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurchaseReply {
    /// [`Effect::Grant`].
    Granted(Draft),
    /// [`Effect::Refuse`].
    Refused(Refusal),
    /// [`Effect::Consult`].
    Consult(Question),
}

/// A journal record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The state of a channel.
    Channel(ChannelId, Channel),
    /// A transaction to be sent.
    Intent(Intent),
    /// No transaction for this receiver has an unknown outcome any more.
    IntentsResolved(Address),
    /// The block at which the next sync starts.
    Cursor(u64),
    /// The price of a request (its method and URL); `None` if it was forgotten.
    Price(RequestId, Option<Quote>),
    /// The URL of a receiver's REST interface, as named by a host.
    Gateway(HostName, Address, String),
    /// The host that a channel belongs to.
    Host(ChannelId, HostName),
    /// A deposit to this receiver for this host is about to be sent.
    Deposit(Address, HostName),
    /// The seller's closing signature for a total. It gives one only once.
    Consent(ChannelId, Amount, Signature),
    /// An authorization that is about to be signed.
    Authorization(Box<Authorization>),
    /// The authorization with this nonce was accepted, or provably never sent.
    AuthorizationEnded([u8; 32]),
    /// The seller took the authorization with this nonce and did not deliver; the purchase is not repeated until this time,
    /// in seconds since 1970.
    AuthorizationTaken([u8; 32], u64),
    /// The request of the authorization with this nonce was served without it: no later request continues it.
    AuthorizationUnneeded([u8; 32]),
    /// The chain has shown that the authorization with this nonce was used; the purchase is not repeated until this time, in
    /// seconds since 1970.
    AuthorizationUsed([u8; 32], u64),
    /// The payment of the authorization with this nonce was served. Its chain is to show whether it was used; no later request
    /// continues it.
    AuthorizationServed([u8; 32]),
    /// The chain has shown that the authorization with this nonce was used, and its payment was served.
    AuthorizationConfirmed([u8; 32]),
    /// The chain has shown that the authorization with this nonce expired unused.
    AuthorizationUnused([u8; 32]),
    /// The budgets of a channel.
    Hold(ChannelId, Box<Hold>),
    /// What a budget has spent.
    Budget(Box<BudgetRow>),
    /// The run with this budget is over.
    BudgetEnded(Box<BudgetKey>),
    /// Whether nothing may be signed.
    Frozen(bool),
}

/// All channels, and the purchases that wait for them.
#[derive(Debug)]
pub struct Engine {
    policy: Arc<Policy>,
    start: Start,
    /// True once the key is unlocked.
    is_unlocked: bool,
    /// True while the user wants nothing to be signed.
    is_frozen: bool,
    slots: BTreeMap<ChannelId, Slot>,
    /// True if a slot may be dirty.
    is_dirty: bool,
    /// Hosts of channels that neither the journal nor the chain has shown yet.
    unclaimed_hosts: BTreeMap<ChannelId, HostName>,
    /// What the journal contains about the budgets of such channels.
    unclaimed_holds: BTreeMap<ChannelId, Hold>,
    budgets: Budgets,
    /// The rows of budgets in pending writes, in order.
    budget_writes: VecDeque<(Seq, Vec<RowId>)>,
    /// The budgets of runs that are over, while purchases count in them.
    ending: Vec<BudgetIndex>,
    purchases: BTreeMap<PurchaseId, Purchase>,
    /// Purchases without a channel.
    one_shots: BTreeMap<PurchaseId, OneShotPurchase>,
    open_authorizations: OpenAuthorizations,
    /// The time that authorizations expire by.
    time: AuthorizationTime,
    /// Who signs, once the key is unlocked.
    payer: Option<Address>,
    /// Purchases that wait for a channel to each receiver, by host, in order of arrival.
    queues: BTreeMap<Address, BTreeMap<QueueKey, VecDeque<PurchaseId>>>,
    /// Operations in progress.
    funding: BTreeMap<Address, Funding>,
    /// Funding failures, by receiver and host.
    failures: BTreeMap<(Address, HostName), Failure>,
    /// Why the outcome of transactions is still unknown, by receiver, and when to check again.
    unresolved: BTreeMap<Address, Failure>,
    /// True while a balance query is pending.
    is_querying_balance: bool,
    /// The times of deposits, by receiver and host, oldest first.
    deposits: BTreeMap<(Address, HostName), VecDeque<Instant>>,
    /// Transactions with unknown outcome, by receiver, in order of their nonce.
    intents: BTreeMap<Address, Vec<Intent>>,
    /// The recorded cursor: the block at which the next start reads the chain.
    cursor: u64,
    /// The number of the newest write.
    newest: Seq,
    /// The number of the newest write that has ended.
    ended: Seq,
    /// The records of the current input.
    records: Vec<Record>,
    /// Records that each write repeats until one is durable, with the first write that has them.
    repeated: Vec<(Seq, Record)>,
    /// Effects that wait for a write.
    blocked: Vec<Blocked>,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
enum Start {
    /// Not ready, and why.
    Waiting(String),
    /// There is no chain, so there are no channels.
    NoChain,
    Ready(Account),
    /// No more payments are granted; if it was ready before, user operations may still start.
    Stopped(Option<Account>),
}

/// An operation in progress.
#[derive(Debug)]
struct Funding {
    /// The operation; `None` while the outcome of earlier transactions is being resolved.
    op: Option<ChannelOp>,
    /// The host that it is for; `None` for user operations.
    host: Option<HostName>,
}

/// Why funding failed, and when to retry.
#[derive(Debug)]
struct Failure {
    op: ChannelOp,
    reason: String,
    since: Instant,
    until: Instant,
    /// The funded channel, if its funds are not visible on the chain.
    unseen: Option<ChannelId>,
    /// The number of consecutive failures.
    times: u32,
    /// The payer's balance then, if nothing was sent: a different balance is worth a retry.
    balance: Option<Option<Balance>>,
    /// When the balance was last queried.
    looked: Instant,
}

impl Engine {
    /// An engine that is not ready yet.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            budgets: Budgets::default(),
            budget_writes: VecDeque::new(),
            ending: Vec::new(),
            unclaimed_holds: BTreeMap::new(),
            start: Start::Waiting("the key and the chain are being prepared".into()),
            is_unlocked: false,
            is_frozen: false,
            slots: BTreeMap::new(),
            is_dirty: false,
            unclaimed_hosts: BTreeMap::new(),
            purchases: BTreeMap::new(),
            one_shots: BTreeMap::new(),
            open_authorizations: OpenAuthorizations::default(),
            time: AuthorizationTime::default(),
            payer: None,
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
            repeated: Vec::new(),
            blocked: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    /// With what the budgets have spent so far.
    #[must_use]
    pub fn with_budgets(mut self, budgets: Budgets) -> Self {
        self.budgets = budgets;
        self.budgets.define(&self.policy.budgets);
        self
    }

    /// With authorizations of an earlier run that a payee may still redeem, or has redeemed for all that is known.
    #[must_use]
    pub fn with_open_authorizations(mut self, open: &[KnownAuthorization], now: AuthorizationTime) -> Self {
        open.iter().for_each(|known| self.open_authorizations.restore(known, now));
        self
    }

    /// Signs nothing until [`Input::Freeze`] ends that, as the journal has it.
    #[must_use]
    pub fn frozen(self, is_frozen: bool) -> Self {
        Self { is_frozen, ..self }
    }

    /// What the user allows.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether nothing is signed.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Processes an input. The effects are queued for [`Engine::poll_effect`].
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.apply(input, now);
        if !self.ending.is_empty() {
            self.forget_ended_budgets();
        }
        if !self.records.is_empty() {
            let mut records = self.repeat_records();
            records.append(&mut self.records);
            self.newest = self.next_write();
            self.effects.push_back(Effect::Persist(self.newest, records));
        }
    }

    /// Sets the time that budgets go by, in minutes since 1970; an earlier one has no effect.
    pub fn set_time(&mut self, minute: u64) {
        self.budgets.set_time(minute);
    }

    /// Sets the time that authorizations expire by.
    pub fn set_authorization_time(&mut self, time: AuthorizationTime) {
        self.time = time;
    }

    /// Takes what the user has not been told yet about budgets.
    pub fn take_budget_notices(&mut self) -> Vec<BudgetNotice> {
        self.budgets.take_notices()
    }

    /// What each budget has spent.
    pub fn budgets(&self) -> Vec<BudgetView> {
        self.budgets.views()
    }

    fn apply(&mut self, input: Input, now: Instant) {
        match input {
            Input::Ready { account, channels, hosts, intents, deposits, on_chain, cursor } => {
                // Without the recorded state, the chain's state alone would replace it.
                if !matches!(self.start, Start::Stopped(_)) {
                    self.unclaimed_hosts.extend(hosts);
                    self.become_ready(account, channels, intents);
                    self.remember_deposits(deposits, now);
                    // No total was raised in this run: one reading is enough.
                    for (id, _) in &on_chain {
                        if let Some(slot) = self.slots.get_mut(id) {
                            slot.is_missing = true;
                        }
                    }
                    self.observe(on_chain, &BTreeMap::new(), cursor, now);
                    self.check_starting(now);
                }
            }
            Input::Unlocked { payer, has_chain } => self.unlocked(payer, has_chain, now),
            Input::Unready(reason) => {
                if matches!(self.start, Start::Waiting(_)) {
                    self.start = Start::Waiting(reason);
                }
            }
            Input::Demand { purchase, offer, limit, deadline } => {
                self.demand(purchase, offer, limit, deadline, now);
            }
            Input::DemandOneShot { purchase, offer, limit, deadline, nonce, key, occasion } => {
                self.demand_one_shot(purchase, (offer, occasion), (limit, deadline), (nonce, key), now);
            }
            Input::Holds(mut holds) => {
                holds.iter_mut().for_each(|(_, hold)| hold.forget_runs());
                self.unclaimed_holds.extend(holds);
            }
            Input::Consulted(id, decision) => self.consulted(id, decision, now),
            Input::Withdraw(id) if self.one_shots.contains_key(&id) => self.withdraw_one_shot(id),
            Input::Withdraw(id) => self.withdraw(id, now),
            Input::Durable(seq) => self.durable(seq),
            Input::NotRecorded(seq, reason) => self.not_recorded(seq, &reason, now),
            Input::Answer(id, outcome) if self.one_shots.contains_key(&id) => {
                self.answer_one_shot(id, outcome, now);
            }
            Input::Answer(id, outcome) => self.answer(id, outcome, now),
            Input::Delivered(nonce) => self.delivered(nonce),
            Input::Lost(nonce, loss) => self.lost(nonce, loss),
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
            Input::UsageShown { nonce, is_used, block_time } => self.usage_shown(&nonce, is_used, block_time),
            Input::Freeze(is_frozen) => {
                self.is_frozen = is_frozen;
                if is_frozen {
                    self.refuse_waiting(&Refusal::Frozen, now);
                }
            }
            Input::Policy(policy) => self.change_policy(policy, now),
            Input::BeginBudget(budget) => self.begin_budget(budget),
            Input::EndBudget(key) => self.end_budget(&key),
            Input::Stop => self.stop(now),
        }
    }

    /// The next effect.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next effect, if that is [`Effect::Persist`].
    pub fn poll_persist(&mut self) -> Option<(Seq, Vec<Record>)> {
        match self.effects.pop_front()? {
            Effect::Persist(seq, records) => Some((seq, records)),
            other => {
                self.effects.push_front(other);
                None
            }
        }
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let one_shots = self.one_shots.values().filter_map(OneShotPurchase::due);
        self.purchases.values().filter_map(Purchase::due).chain(one_shots).min()
    }

    /// The next reply to a purchase. Other effects keep their order in [`Engine::poll_effect`].
    pub fn poll_reply(&mut self) -> Option<(PurchaseId, PurchaseReply)> {
        let is_reply =
            |effect: &Effect| matches!(effect, Effect::Grant(..) | Effect::Refuse(..) | Effect::Consult(..));
        let place = self.effects.iter().position(is_reply)?;
        match self.effects.remove(place)? {
            Effect::Grant(id, draft) => Some((id, PurchaseReply::Granted(draft))),
            Effect::Refuse(id, refusal) => Some((id, PurchaseReply::Refused(refusal))),
            Effect::Consult(id, question) => Some((id, PurchaseReply::Consult(question))),
            _ => None,
        }
    }

    /// Checks an offer against a rule, and against the account once it is known.
    ///
    /// # Errors
    /// Why it is not paid.
    pub fn check(&self, offer: &Offer, limit: &SpendLimit) -> Result<(), Refusal> {
        self.check_allowed(limit)?;
        if let Some(account) = self.account() {
            offer.check_account(account)?;
        }
        let terms = offer.terms();
        limit.check(&terms, || self.account().map(Account::token_asset))?;
        offer.check_token(limit.max_price.known(&terms.price.asset))?;
        match self.start {
            Start::NoChain if !offer.is_one_shot() => Err(Refusal::NoChain),
            _ => Ok(()),
        }
    }

    /// Whether [`Engine::check`] passes an offer only because the channel contract's token is not known yet.
    pub fn is_undecided(&self, offer: &Offer, limit: &SpendLimit) -> bool {
        let names_token = !matches!(limit.max_price, PriceLimit::ChannelToken(_));
        names_token && !offer.is_one_shot() && self.account().is_none()
    }

    /// Whether there are effects.
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// The deadline of a purchase; `None` while it holds a payment.
    pub fn due(&self, id: PurchaseId) -> Option<Instant> {
        match self.purchases.get(&id) {
            Some(purchase) => purchase.due(),
            None => self.one_shots.get(&id).and_then(OneShotPurchase::due),
        }
    }

    /// The payer's account, once the engine is ready.
    pub fn account(&self) -> Option<&Account> {
        match &self.start {
            Start::Ready(account) | Start::Stopped(Some(account)) => Some(account),
            Start::Waiting(_) | Start::NoChain | Start::Stopped(None) => None,
        }
    }

    /// All channels, in order of receiver and opening.
    pub fn channels(&self) -> impl Iterator<Item = (&ChannelId, &Channel)> {
        self.slots.iter().map(|(id, slot)| (id, &slot.channel))
    }

    /// True while a request leases this channel.
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

    /// Channels that were missing at the last reading without having been settled: believed once another reading, begun
    /// after this one, confirms it.
    pub fn missing(&self) -> impl Iterator<Item = &ChannelId> {
        self.slots.iter().filter(|(_, slot)| slot.is_missing).map(|(id, _)| id)
    }

    /// True while a transaction is pending.
    pub fn is_waiting_for_chain(&self) -> bool {
        !self.funding.is_empty()
    }

    /// True while writes are pending.
    pub fn is_writing(&self) -> bool {
        self.ended != self.newest
    }

    /// True while something is not recorded.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// True while a channel is leased, or an authorization is in flight.
    pub fn has_leases(&self) -> bool {
        self.slots.values().any(|slot| slot.lease.is_some())
            || self.one_shots.values().any(OneShotPurchase::is_recorded)
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
                Start::NoChain | Start::Ready(_) | Start::Stopped(_) => Awaited::Start,
            },
            Stage::Queued => {
                let is_funding = self.funding.contains_key(&purchase.receiver());
                match is_funding {
                    _ if purchase.is_late => Awaited::Request,
                    true => Awaited::Funding,
                    false => Awaited::Channel,
                }
            }
            Stage::Backoff { draft, .. } if now < purchase.deadline => {
                purchase.stage = Stage::InFlight { draft, unsent: None };
                // Its record has been durable since it was first granted.
                let granted = purchase.offer.on_channel(draft);
                self.effects.push_back(Effect::Grant(id, granted));
                return;
            }
            Stage::Backoff { .. } => Awaited::Seller,
            Stage::Recording { .. } => {
                self.take_back(id);
                Awaited::Journal
            }
            Stage::InFlight { .. } | Stage::Consulting { .. } => return,
        };
        self.refuse(id, Refusal::Deadline { waited_for }, now);
    }

    /// Removes a purchase and delivers the refusal.
    fn refuse(&mut self, id: PurchaseId, refusal: Refusal, now: Instant) {
        self.effects.push_back(Effect::Refuse(id, refusal));
        self.remove(id, now);
    }

    /// Removes a purchase; its leased channel becomes available.
    fn remove(&mut self, id: PurchaseId, now: Instant) {
        let Some(purchase) = self.purchases.remove(&id) else { return };
        let receiver = purchase.receiver();
        match purchase.stage {
            Stage::Starting { .. } | Stage::Consulting { presented: None, .. } => {}
            Stage::Queued => {
                let key = purchase.queue();
                if let Some(queue) = self.queue_mut(receiver, &key) {
                    queue.retain(|waiting| *waiting != id);
                }
                self.drop_empty_queue(receiver, &key);
            }
            Stage::Recording { draft, .. }
            | Stage::InFlight { draft, .. }
            | Stage::Consulting { presented: Some(draft), .. }
            | Stage::Backoff { draft, .. } => {
                if let Some(slot) = self.slots.get_mut(&draft.channel) {
                    (slot.lease, slot.used) = (None, Some(now));
                }
                self.dispatch(draft.channel.receiver, now);
            }
        }
    }

    /// Records that the purchase's payment was not presented this time.
    fn take_back(&mut self, id: PurchaseId) {
        let Some(purchase) = self.purchases.get(&id) else { return };
        let (Stage::Recording { draft, before } | Stage::InFlight { draft, unsent: Some(before) }) =
            purchase.stage
        else {
            return;
        };
        self.change(&draft.channel, |channel| channel.in_doubt = before.in_doubt);
        self.uncount(id, draft.channel);
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

    /// Releases the reserved range, so that the next start has nothing to resolve: for a channel without a payment in
    /// flight, it is known what was presented.
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
        self.refuse_waiting(&Refusal::ShuttingDown, now);
        self.flush();
    }

    /// Refuses all purchases that wait; those with a payment in flight, and those that an approver is asked about, go on.
    fn refuse_waiting(&mut self, refusal: &Refusal, now: Instant) {
        self.refuse_waiting_if(|_| Some(refusal.clone()), now);
    }

    /// The same for purchases whose limit is a reason to.
    fn refuse_waiting_if(&mut self, why: impl Fn(&SpendLimit) -> Option<Refusal>, now: Instant) {
        let waiting: Vec<(PurchaseId, Refusal)> = self
            .purchases
            .iter()
            .filter(|(_, purchase)| purchase.due().is_some())
            .filter_map(|(id, purchase)| Some((*id, why(&purchase.limit)?)))
            .collect();
        for (id, refusal) in waiting {
            // The channel of one may have gone to the next, which was refused then.
            if self.purchases.contains_key(&id) {
                self.take_back(id);
                self.refuse(id, refusal, now);
            }
        }
        self.refuse_waiting_one_shots(why);
    }
}
