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
use crate::protocol::engine::{Effect, Input, OpRefused, Record, Seq};
use crate::protocol::{Account, Address, ChannelId, ChannelOp, Phase};

/// The manager's task.
pub(super) struct Actor {
    engine: Arc<SharedEngine>,
    journal: JournalWriter,
    context: Option<ActorContext>,
    /// Chain jobs that wait until their transaction is on record.
    sends: HashMap<[u8; 32], oneshot::Sender<Result<(), NotRecorded>>>,
    mailbox: mpsc::WeakSender<Message>,
    shared: PaymentsState,
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
pub(super) struct PaymentsState {
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
    pub(super) fn new(journal: Journal, mailbox: mpsc::WeakSender<Message>, shared: PaymentsState) -> Self {
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
        self.engine.lock().awaits_returns = true;
        self.engine.submit(Input::Flush);
        self.act().await;
        while self.engine.lock().engine.is_writing() {
            engine.woken().await;
            self.act().await;
        }
        self.write_prices().await;
        tracing::info!("stopped accepting payments; state saved");
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

    fn observe(&mut self, synced: Synced, by_user: bool) {
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
        self.engine.submit(Input::Chain { channels, settled, cursor, by_user });
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
        match message {
            Message::Load { account, is_chosen, reply } => {
                let load = move |journal: &mut Journal| {
                    journal.verify(&account, is_chosen)?;
                    journal.load(&account)
                };
                let stored = self.journal.submit(load).await.done().await;
                let _ = reply.send(stored);
            }
            Message::Ready(prepared) => self.become_ready(*prepared),
            Message::Unready(reason) => self.engine.submit(Input::Unready(reason)),
            Message::Intent { intent, reply } => {
                self.sends.insert(intent.hash, reply);
                self.engine.submit(Input::Intent(intent));
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
                self.engine.submit(Input::OpFinished(receiver, result));
                self.order_next(receiver, is_clear);
            }
            Message::ChannelOp { op, reply } => self.start_op(op, reply),
            Message::Look { channel, reply } => {
                let _ = reply.send(self.engine.lock().engine.channel(&channel).copied());
            }
            Message::Lock { channel, lock, reply } => self.hold(channel, lock, reply),
            Message::Unlock { channel, lock: hold } => {
                // One that was refused keeps nothing.
                if self.holders.get(&channel) == Some(&hold) {
                    self.holders.remove(&channel);
                    self.engine.submit(Input::Unlock(channel));
                }
            }
            Message::Learned { channel, total, proven } => {
                self.engine.submit(Input::SellerTotal(channel, total, proven));
            }
            Message::Watched(synced) => self.observe(synced, false),
            Message::Synced(synced) => self.observe(self.without_vanished(synced), true),
            Message::ChainContext(reply) => {
                let _ = reply.send(self.context.as_ref().map(|context| ChainContext {
                    account: context.account,
                    chain: context.chain.clone(),
                    signer: Arc::clone(&context.signer),
                    cursor: context.cursor,
                }));
            }
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
            Message::Finish | Message::Stop => self.engine.submit(Input::Stop),
        }
    }

    /// Keeps a channel from being lent, unless somebody else does already.
    fn hold(&mut self, channel: ChannelId, hold: LockId, reply: LockReply) {
        if self.holders.contains_key(&channel) {
            // Who has left needs no answer.
            let _ = reply.send(Err(ChannelAccessError::Locked(channel)));
            return;
        }
        self.holders.insert(channel, hold);
        self.engine.submit(Input::Lock(channel));
        self.holds.push((channel, reply));
    }

    /// Has an order carried out; where another transaction for the receiver is under way, after that one.
    fn start_op(&mut self, op: ChannelOp, reply: oneshot::Sender<OpReply>) {
        match self.engine.start_op(op) {
            Ok(()) => {
                self.ops.insert(op.receiver(), reply);
            }
            Err(OpRefused::Busy(receiver)) if self.waiting.len() < MAX_WAITING_OPS => {
                self.waiting.push_back((op, reply));
                self.engine.submit(Input::Resume(receiver));
            }
            Err(unorderable) => {
                // Who has left needs no answer.
                let _ = reply.send(Err(unorderable));
            }
        }
    }

    /// Goes on with the orders that waited for a transaction of their receiver. Where its fate is still not known
    /// they are refused: it may yet take effect.
    fn order_next(&mut self, receiver: Address, is_clear: bool) {
        let (ours, others) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(op, _)| op.receiver() == receiver);
        self.waiting = others;
        let ours: VecDeque<(ChannelOp, oneshot::Sender<OpReply>)> = ours;
        for (op, reply) in ours.into_iter().filter(|(_, reply)| !reply.is_closed()) {
            if is_clear {
                self.start_op(op, reply);
            } else {
                // As above.
                let _ = reply.send(Err(OpRefused::Busy(receiver)));
            }
        }
    }

    fn become_ready(&mut self, state: StartupState) {
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
        self.engine.submit(ready);
    }

    /// Carries out what the engine wants.
    async fn act(&mut self) {
        loop {
            let effects = self.engine.lock().take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.execute(effect).await;
            }
        }
    }

    /// Hands records to the journal's thread, which submits how their write ends. Waits here if too much waits for the
    /// disk; the engine goes on meanwhile.
    async fn write(&self, seq: Seq, records: Vec<Record>) {
        failpoint::point("records about to be written");
        let engine = Arc::clone(&self.engine);
        let ended = move |written: Result<(), String>| {
            engine.submit(match written {
                Ok(()) => Input::Durable(seq),
                Err(reason) => Input::NotRecorded(seq, reason),
            });
        };
        match &self.context {
            Some(context) => self.journal.write(context.account_id, records, Box::new(ended)).await,
            None => ended(Err("no journal is open for writing".into())),
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

    async fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(seq, records) => self.write(seq, records).await,
            Effect::Grant(id, draft) => self.engine.lock().answer(id, Ok(draft)),
            Effect::Refuse(id, refusal) => self.engine.lock().answer(id, Err(refusal)),
            Effect::Submit(op) => self.submit(op),
            Effect::Resume(receiver, intents) => self.resume(receiver, intents),
            Effect::QueryBalance => self.query_balance(),
            Effect::Send(hash) => self.answer_job(hash, Ok(())),
            Effect::Discard(hash, reason) => self.answer_job(hash, Err(NotRecorded(reason))),
        }
    }

    /// Answers the chain job that waits for the record of its transaction.
    fn answer_job(&mut self, hash: [u8; 32], recorded: Result<(), NotRecorded>) {
        if let Some(reply) = self.sends.remove(&hash) {
            // A job that is gone sends nothing.
            let _ = reply.send(recorded);
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
