//! The one task that does what takes the disk or the chain: messages in, effects of the engine carried out in order.
//!
//! It never waits for the chain and never sends to its own mailbox; what takes long runs in a task of its own and
//! comes back as a message.

mod jobs;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::account::AccountKey;
use super::closing_signatures::ClosingSignatures;
use super::error::ChannelAccessError;
use super::journal::writer::JournalWriter;
use super::journal::{AccountId, Journal};
use super::listing::{ListedChannel, Listing};
use super::message::{ChainContext, LockId, LockReply, Message, OpReply, StartupState};
use super::payer::Wallet;
use super::quotes::Quotes;
use super::seller_urls::SellerUrls;
use super::shared_engine::SharedEngine;
use crate::chain::signer::Signer;
use crate::chain::{Chain, NotRecorded, Synced};
use crate::failpoint;
use crate::mutex::lock;
use crate::protocol::engine::{Effect, Input, OpRefused, Record};
use crate::protocol::{Account, Address, Amount, Channel, ChannelId, ChannelOp, Phase};

/// The manager's task.
pub(super) struct Actor {
    engine: Arc<SharedEngine>,
    journal: JournalWriter,
    context: Option<ActorContext>,
    /// Chain jobs that wait until their transaction is on record.
    sends: HashMap<[u8; 32], oneshot::Sender<Result<(), NotRecorded>>>,
    mailbox: mpsc::WeakSender<Message>,
    shared: Shared,
    /// Who waits for an order of the user's, by receiver.
    ops: HashMap<Address, oneshot::Sender<OpReply>>,
    /// Who waits until a channel is lent to nobody.
    holds: Vec<(ChannelId, LockReply)>,
    /// Channels that the watch is to look at, whether it sees an event or not: those that we changed, and those that
    /// were not there at a look that cannot be believed alone.
    recheck: Arc<Mutex<BTreeSet<ChannelId>>>,
    /// Who waits until no transaction is under way.
    settled: Vec<oneshot::Sender<()>>,
    /// Which hold keeps each channel from being lent.
    holders: HashMap<ChannelId, LockId>,
    /// Orders of the user's that wait until another transaction for their receiver is done, first come first.
    waiting: VecDeque<(ChannelOp, oneshot::Sender<OpReply>)>,
}

/// What every handle looks up without asking the task.
pub(super) struct Shared {
    pub engine: Arc<SharedEngine>,
    pub quotes: Quotes,
    pub seller_urls: SellerUrls,
    pub closing_signatures: ClosingSignatures,
}

/// What it takes to pay.
struct ActorContext {
    account: Account,
    account_id: AccountId,
    chain: Chain,
    signer: Arc<Signer>,
    /// From where the chain is to be read again.
    cursor: u64,
}

/// How many messages are handled before their effects are carried out together.
const BATCH: usize = 64;
/// Orders of the user's that may wait for another transaction.
const MAX_WAITING_OPS: usize = 64;

impl Actor {
    pub(super) fn new(journal: Journal, mailbox: mpsc::WeakSender<Message>, shared: Shared) -> Self {
        Self {
            engine: Arc::clone(&shared.engine),
            journal: JournalWriter::start(journal),
            context: None,
            sends: HashMap::new(),
            mailbox,
            shared,
            ops: HashMap::new(),
            holds: Vec::new(),
            recheck: Arc::default(),
            settled: Vec::new(),
            holders: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Runs until it was told to stop and the last lease is back, or until nobody holds a handle.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut stopping = false;
        let engine = Arc::clone(&self.engine);
        let alarm = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(alarm);
        while !(stopping && self.engine.lock().is_done()) {
            let next = self.engine.lock().set_alarm();
            if let Some(next) = next {
                alarm.as_mut().reset(next.into());
            }
            tokio::select! {
                count = messages.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    for message in batch.drain(..) {
                        stopping |= matches!(message, Message::Stop);
                        self.take(message).await;
                    }
                }
                () = engine.woken() => {}
                () = &mut alarm, if next.is_some() => {
                    let is_idle = self.engine.lock().wake_up(Instant::now());
                    if is_idle {
                        self.write_prices().await;
                    }
                }
            }
            self.act().await;
            self.lend_holds(stopping);
            self.tell_settled();
        }
        self.tell(Input::Flush, Instant::now());
        self.act().await;
        self.write_prices().await;
        tracing::info!("stopped accepting payments; state saved");
    }

    fn tell(&self, input: Input, now: Instant) {
        self.engine.lock().engine.handle(input, now);
    }

    /// Answers those who wait until no transaction is under way.
    fn tell_settled(&mut self) {
        if self.settled.is_empty() || self.engine.lock().engine.is_waiting_for_chain() {
            return;
        }
        for reply in self.settled.drain(..) {
            // Who has left waits no more.
            let _ = reply.send(());
        }
    }

    /// Answers those whose channel is lent to nobody any more.
    fn lend_holds(&mut self, stopping: bool) {
        let mut state = self.engine.lock();
        let (free, waiting) =
            std::mem::take(&mut self.holds).into_iter().partition(|(id, _)| !state.engine.is_lent(id));
        self.holds = waiting;
        let free: Vec<(ChannelId, LockReply)> = free;
        for (id, reply) in free {
            // Who has left has released it, or is about to.
            let _ = reply.send(state.engine.channel(&id).copied().ok_or(ChannelAccessError::Unknown(id)));
        }
        state.awaits_returns = stopping || !self.holds.is_empty();
    }

    /// Watches the chain for what we did not start: closes, settlements, withdrawals, reorganisations.
    fn watch(&self, chain: &Chain, cursor: u64) {
        let Some(mailbox) = self.mailbox.upgrade() else { return };
        let mut watcher = chain.watch(cursor);
        let recheck = Arc::clone(&self.recheck);
        tokio::spawn(async move {
            let mut was_down = false;
            loop {
                // What is added from here on may be younger than this look.
                let asked = std::mem::take(&mut *lock(&recheck));
                let asked: Vec<ChannelId> = asked.into_iter().collect();
                let looked = tokio::select! {
                    looked = watcher.next(&asked) => looked,
                    () = mailbox.closed() => return,
                };
                match looked {
                    Ok(synced) => {
                        was_down = false;
                        // The node may be behind: it says nothing of these yet.
                        let untold = asked.into_iter().filter(|id| !synced.tells_of(id));
                        lock(&recheck).extend(untold);
                        if mailbox.send(Message::Watched(synced)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        lock(&recheck).extend(asked);
                        if !std::mem::replace(&mut was_down, true) {
                            tracing::warn!(%error, "the chain cannot be watched; trying again");
                        }
                    }
                }
            }
        });
    }

    fn observe(&mut self, synced: Synced, by_user: bool, now: Instant) {
        if let Some(context) = &mut self.context {
            context.cursor = synced.cursor;
        }
        let Synced { channels, settled, cursor, .. } = synced;
        let totals = settled.clone();
        let phase = |id: &ChannelId| self.engine.lock().engine.channel(id).map(|channel| channel.phase);
        let open: Vec<ChannelId> =
            channels.iter().map(|(id, _)| *id).filter(|id| phase(id) == Some(Phase::Open)).collect();
        let there: Vec<ChannelId> =
            channels.iter().filter(|(_, on_chain)| on_chain.is_some()).map(|(id, _)| *id).collect();
        self.tell(Input::Chain { channels, settled, cursor, by_user }, now);
        for id in open {
            match (phase(&id), totals.get(&id)) {
                (Some(Phase::Gone), Some(total)) => {
                    tracing::warn!(channel = %id, %total, "the channel was settled");
                }
                (Some(Phase::Gone), None) => {
                    tracing::warn!(channel = %id, "channel no longer exists on chain (reorganised)");
                }
                (Some(Phase::Closing { settle_block }), _) => {
                    tracing::warn!(channel = %id, settle_block, "the channel is being closed");
                }
                (Some(Phase::Open) | None, _) => {}
            }
        }
        let state = self.engine.lock();
        let unseen =
            state.engine.channels().filter(|(_, channel)| !channel.unseen().is_zero()).map(|(id, _)| id);
        // One that waits for an order of ours to end has no further event.
        let passed_over = there.iter().filter(|id| state.engine.channel(id).is_none());
        lock(&self.recheck).extend(state.engine.missing().chain(unseen).chain(passed_over));
    }

    /// Leaves to the watch what is gone for no known reason: its looks come one after the other, and another one that
    /// overlaps them proves no more than they do.
    fn without_vanished(&self, mut synced: Synced) -> Synced {
        let (told, vanished): (Vec<_>, Vec<_>) = std::mem::take(&mut synced.channels)
            .into_iter()
            .partition(|(id, on_chain)| on_chain.is_some() || synced.settled.contains_key(id));
        synced.channels = told;
        let state = self.engine.lock();
        let is_there =
            |id: &ChannelId| state.engine.channel(id).is_some_and(|known| known.phase != Phase::Gone);
        let untold = state.engine.channels().map(|(id, _)| *id).filter(|id| !synced.tells_of(id));
        let again = vanished.into_iter().map(|(id, _)| id).chain(untold).filter(is_there);
        lock(&self.recheck).extend(again);
        synced
    }

    /// Puts on record which prices were learned or forgotten; a failure costs one question to a seller.
    async fn write_prices(&mut self) {
        let news = self.shared.quotes.take_news();
        let prices = news.into_iter().map(|(request, price)| Record::Price(request, price));
        let records = prices.chain(self.shared.seller_urls.take_unrecorded()).collect();
        // The error is in the log.
        let _ = self.persist(records).await;
    }

    async fn take(&mut self, message: Message) {
        let now = Instant::now();
        match message {
            Message::Load { account, is_chosen, reply } => {
                let load = move |journal: &mut Journal| {
                    journal.verify(&account, is_chosen)?;
                    journal.load(&account)
                };
                let stored = self.journal.submit(load).await.done().await;
                let _ = reply.send(stored);
            }
            Message::Ready(prepared) => self.become_ready(*prepared, now),
            Message::Unready(reason) => self.tell(Input::Unready(reason), now),
            Message::Intent { intent, reply } => {
                self.sends.insert(intent.hash, reply);
                self.tell(Input::Intent(intent), now);
            }
            Message::OpFinished { receiver, result } => {
                if let Some(reply) = self.ops.remove(&receiver) {
                    // Who ordered it may have left.
                    let _ = reply.send(Ok(result.clone()));
                }
                if let Ok(Some((channel, Some(_)))) = &result {
                    lock(&self.recheck).insert(*channel);
                }
                let is_clear = result.as_ref().map_or_else(|failure| failure.is_final, |_| true);
                self.tell(Input::OpFinished(receiver, result), now);
                self.order_next(receiver, is_clear, now);
            }
            Message::ChannelOp { op, reply } => self.start_op(op, reply, now),
            Message::Look { channel, reply } => {
                let _ = reply.send(self.engine.lock().engine.channel(&channel).copied());
            }
            Message::Lock { channel, lock, reply } => self.hold(channel, lock, reply, now),
            Message::Unlock { channel, lock: hold } => {
                // One that was refused keeps nothing.
                if self.holders.get(&channel) == Some(&hold) {
                    self.holders.remove(&channel);
                    self.tell(Input::Unlock(channel), now);
                }
            }
            Message::Learned { channel, total, proven } => {
                self.tell(Input::SellerTotal(channel, total, proven), now);
            }
            Message::Balance(balance) => self.tell(Input::Balance(balance), now),
            Message::Watched(synced) => self.observe(synced, false, now),
            Message::Synced(synced) => self.observe(self.without_vanished(synced), true, now),
            Message::ChainContext(reply) => {
                let _ = reply.send(self.context.as_ref().map(|context| ChainContext {
                    account: context.account,
                    chain: context.chain.clone(),
                    signer: Arc::clone(&context.signer),
                    cursor: context.cursor,
                }));
            }
            Message::Reserved { bounds, are_written } => self.reserved(bounds, are_written),
            Message::List(reply) => {
                let _ = reply.send(self.list());
            }
            Message::SellerUrlLearned => {
                let places = self.shared.seller_urls.take_unrecorded();
                // The error is in the log.
                let _ = self.persist(places).await;
            }
            Message::ClosingSignature { channel, signature, reply } => {
                // The error is in the log. What follows is recorded too, and not done where it cannot be.
                let _ =
                    self.persist(vec![Record::Consent(channel, signature.total, signature.signature)]).await;
                failpoint::point("closing signature recorded");
                // Who has left needs no answer.
                let _ = reply.send(());
            }
            Message::AwaitTransactions(reply) => self.settled.push(reply),
            Message::Finish | Message::Stop => self.tell(Input::Stop, now),
        }
    }

    /// Keeps a channel from being lent, unless somebody else does already.
    fn hold(&mut self, channel: ChannelId, hold: LockId, reply: LockReply, now: Instant) {
        if self.holders.contains_key(&channel) {
            // Who has left needs no answer.
            let _ = reply.send(Err(ChannelAccessError::Locked(channel)));
            return;
        }
        self.holders.insert(channel, hold);
        self.tell(Input::Lock(channel), now);
        self.holds.push((channel, reply));
    }

    /// Has an order carried out; where another transaction for the receiver is under way, after that one.
    fn start_op(&mut self, op: ChannelOp, reply: oneshot::Sender<OpReply>, now: Instant) {
        // Under one lock: in between a client could have the engine order something for the same receiver.
        let taken = {
            let mut state = self.engine.lock();
            let taken = state.engine.may_start(&op);
            if taken.is_ok() {
                state.engine.handle(Input::ChannelOp(op), now);
            }
            taken
        };
        match taken {
            Ok(()) => {
                self.ops.insert(op.receiver(), reply);
            }
            Err(OpRefused::Busy(receiver)) if self.waiting.len() < MAX_WAITING_OPS => {
                self.waiting.push_back((op, reply));
                self.tell(Input::Resume(receiver), now);
            }
            Err(unorderable) => {
                // Who has left needs no answer.
                let _ = reply.send(Err(unorderable));
            }
        }
    }

    /// Goes on with the orders that waited for a transaction of their receiver. Where its fate is still not known
    /// they are refused: it may yet take effect.
    fn order_next(&mut self, receiver: Address, is_clear: bool, now: Instant) {
        let (ours, others) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(op, _)| op.receiver() == receiver);
        self.waiting = others;
        let ours: VecDeque<(ChannelOp, oneshot::Sender<OpReply>)> = ours;
        for (op, reply) in ours.into_iter().filter(|(_, reply)| !reply.is_closed()) {
            if is_clear {
                self.start_op(op, reply, now);
            } else {
                // As above.
                let _ = reply.send(Err(OpRefused::Busy(receiver)));
            }
        }
    }

    fn become_ready(&mut self, state: StartupState, now: Instant) {
        let StartupState { account, stored, synced, chain, signer } = state;
        self.shared.quotes.load(account, stored.prices);
        self.shared.seller_urls.load(stored.seller_urls);
        self.shared.closing_signatures.load(stored.closing_signatures);
        // Ready comes once.
        let _ = self.engine.payer.set(Wallet { account, signer: Arc::clone(&signer) });
        let untold = stored.channels.iter().map(|(id, _)| *id).filter(|id| !synced.tells_of(id));
        lock(&self.recheck).extend(untold);
        self.watch(&chain, synced.cursor);
        self.context =
            Some(ActorContext { account, account_id: stored.id, chain, signer, cursor: synced.cursor });
        let ready = Input::Ready {
            account,
            channels: stored.channels,
            hosts: stored.hosts,
            intents: stored.intents,
            deposits: stored.deposits,
            on_chain: synced.channels,
            cursor: synced.cursor,
        };
        self.tell(ready, now);
    }

    /// Carries out what the engine wants: all records of a turn in one durable write, then the rest in order.
    async fn act(&mut self) {
        loop {
            let effects = self.engine.lock().take_effects();
            if effects.is_empty() {
                return;
            }
            let records: Vec<Record> = effects
                .iter()
                .filter_map(|effect| match effect {
                    Effect::Persist(record) => Some(record.clone()),
                    _ => None,
                })
                .collect();
            let recorded = self.persist(records).await;
            for effect in effects {
                self.execute(effect, &recorded);
            }
            self.engine.lock().written(Instant::now());
        }
    }

    async fn persist(&mut self, records: Vec<Record>) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let Some(account_id) = self.context.as_ref().map(|context| context.account_id) else {
            return Err("no journal is open for writing".into());
        };
        failpoint::point("records about to be written");
        let written =
            self.journal.submit(move |journal| journal.write(account_id, &records)).await.done().await;
        failpoint::point("records written");
        written.map_err(|error| {
            tracing::error!(%error, "the journal cannot be written: nothing is paid until it can");
            error.to_string()
        })
    }

    fn execute(&mut self, effect: Effect, recorded: &Result<(), String>) {
        match effect {
            Effect::Persist(Record::Channel(id, _) | Record::Host(id, _)) if recorded.is_err() => {
                self.tell(Input::Unwritten(id), Instant::now());
            }
            Effect::Persist(_) => {}
            Effect::Reserve(channels) => self.reserve(channels),
            Effect::Grant(id, draft) => match recorded {
                Ok(()) => self.engine.lock().answer(id, Ok(draft)),
                Err(reason) => {
                    self.tell(Input::NotRecorded(id, draft.channel, reason.clone()), Instant::now());
                }
            },
            Effect::Refuse(id, refusal) => self.engine.lock().answer(id, Err(refusal)),
            Effect::Submit(op) => self.submit(op),
            Effect::Resume(receiver, intents) => self.resume(receiver, intents),
            Effect::QueryBalance => self.query_balance(),
            Effect::Send(hash) => {
                if let Some(reply) = self.sends.remove(&hash) {
                    // A job that is gone sends nothing.
                    let _ = reply.send(recorded.clone().map_err(NotRecorded));
                }
            }
        }
    }

    /// Moves the bounds of channels on disk ahead; nobody waits for it.
    fn reserve(&mut self, channels: Vec<(ChannelId, Channel)>) {
        let (Some(context), Some(mailbox)) = (&self.context, self.mailbox.upgrade()) else { return };
        let account_id = context.account_id;
        let bounds = channels.iter().map(|(id, channel)| (*id, channel.durable_limit)).collect();
        let records: Vec<Record> =
            channels.into_iter().map(|(id, channel)| Record::Channel(id, channel)).collect();
        let Some(pending) = self.journal.try_submit(move |journal| journal.write(account_id, &records))
        else {
            return self.reserved(bounds, false);
        };
        tokio::spawn(async move {
            let written = pending.done().await;
            if let Err(error) = &written {
                tracing::error!(%error, "the journal cannot be written");
            }
            failpoint::point("bound moved ahead");
            // A manager that has stopped reserves nothing more.
            let _ = mailbox.send(Message::Reserved { bounds, are_written: written.is_ok() }).await;
        });
    }

    fn reserved(&mut self, bounds: Vec<(ChannelId, Amount)>, are_written: bool) {
        for (channel, bound) in bounds {
            self.tell(Input::Reserved(channel, are_written.then_some(bound)), Instant::now());
        }
    }

    fn list(&self) -> Listing {
        let owner = self.context.as_ref().map(|context| AccountKey::from(context.account));
        let state = self.engine.lock();
        let listed =
            |(id, channel)| ListedChannel::new(id, channel, state.engine.host(id).map(|host| &**host));
        let channels = state.engine.channels().map(listed).collect();
        Listing { owner, channels }
    }
}

impl Drop for Actor {
    /// However it ends, nobody waits for an answer that will not come.
    fn drop(&mut self) {
        self.engine.lock().close();
    }
}
