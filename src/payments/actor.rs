//! The actor: one task that owns disk and chain effects. It receives messages and executes the engine's effects in
//! order.
//!
//! It never waits for the chain and never sends to its own mailbox; long operations run in separate tasks and return as
//! messages.

mod jobs;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::account::AccountKey;
use super::closing_signatures::ClosingSignatures;
use super::error::ChannelAccessError;
use super::journal::writer::{JournalPort, JournalWriter};
use super::journal::{AccountId, Journal};
use super::ledger::{LedgerKey, LedgerQueue};
use super::listing::{ListedChannel, Listing};
use super::message::{ChainContext, ChangedChannel, LockId, LockReply, Message, OpReply, StartupState};
use super::payer::Wallet;
use super::quotes::Quotes;
use super::seller_urls::SellerUrls;
use super::shared_engine::{NextRecords, RecordSink, SharedEngine};
use crate::chain::WalletSigner;
use crate::chain::{Chain, NotRecorded, Synced};
use crate::failpoint;
use crate::mutex::lock;
use crate::protocol::engine::{Effect, Input, OpRefused, PurchaseReply, Record, Seq};
use crate::protocol::{Account, Address, ChannelId, ChannelOp, Phase};

/// The actor's task.
pub(super) struct Actor {
    engine: Arc<SharedEngine>,
    journal: JournalWriter,
    /// Whose channels the engine's records are of, once that is known.
    account: Arc<OnceLock<AccountId>>,
    context: Option<ActorContext>,
    /// Chain jobs that wait until their transaction is recorded.
    sends: HashMap<[u8; 32], oneshot::Sender<Result<(), NotRecorded>>>,
    mailbox: mpsc::WeakSender<Message>,
    shared: PaymentsState,
    /// Callers waiting for a user's operation, by receiver.
    ops: HashMap<Address, oneshot::Sender<OpReply>>,
    /// Callers waiting until no request leases a channel.
    holds: Vec<(ChannelId, LockReply)>,
    /// Channels that the watcher must read even without an event: those that we changed, and those that were missing in
    /// a reading that needs confirmation.
    recheck: Arc<Mutex<BTreeSet<ChannelId>>>,
    /// Callers waiting until no transaction is pending.
    settled: Vec<oneshot::Sender<()>>,
    /// The lock on each locked channel.
    holders: HashMap<ChannelId, LockId>,
    /// User operations that wait until another transaction for their receiver is done, in order of arrival.
    waiting: VecDeque<(ChannelOp, oneshot::Sender<OpReply>)>,
    /// Whether the journal has it that nothing is signed.
    is_freeze_recorded: bool,
    /// Whether the key was unlocked without a chain.
    has_no_chain: bool,
}

/// The state that handles read without asking the actor.
pub(super) struct PaymentsState {
    pub engine: Arc<SharedEngine>,
    pub quotes: Quotes,
    pub seller_urls: SellerUrls,
    pub closing_signatures: ClosingSignatures,
    pub ledger: Arc<LedgerQueue>,
}

/// What is needed to pay.
struct ActorContext {
    account: Account,
    chain: Chain,
    signer: Arc<WalletSigner>,
    /// The block at which the next sync starts.
    cursor: u64,
}

/// How many messages are handled before their effects are executed together.
const BATCH: usize = 64;
/// The most user operations that may wait for another transaction.
const MAX_WAITING_OPS: usize = 64;

impl Actor {
    pub(super) fn new(journal: Journal, mailbox: mpsc::WeakSender<Message>, shared: PaymentsState) -> Self {
        let journal = JournalWriter::start(journal, Arc::clone(&shared.ledger));
        let account: Arc<OnceLock<AccountId>> = Arc::default();
        let sink = JournalSink { port: journal.port(), account: Arc::clone(&account) };
        shared.engine.set_sink(Box::new(sink));
        let is_freeze_recorded = shared.engine.lock().engine.is_frozen();
        Self {
            engine: Arc::clone(&shared.engine),
            journal,
            account,
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
            is_freeze_recorded,
            has_no_chain: false,
        }
    }

    /// Runs until it was stopped and the last lease has returned, or until the last handle is dropped.
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
        self.journal.close().await;
        tracing::info!("stopped accepting payments; state saved");
    }

    /// Answers callers that wait until no transaction is pending.
    fn tell_settled(&mut self) {
        if self.settled.is_empty() || self.engine.lock().engine.is_waiting_for_chain() {
            return;
        }
        for reply in self.settled.drain(..) {
            // The caller may have stopped waiting.
            let _ = reply.send(());
        }
    }

    /// Answers callers whose channel is no longer leased.
    fn lend_holds(&mut self, stopping: bool) {
        let mut state = self.engine.lock();
        let (free, waiting) =
            std::mem::take(&mut self.holds).into_iter().partition(|(id, _)| !state.engine.is_lent(id));
        self.holds = waiting;
        let free: Vec<(ChannelId, LockReply)> = free;
        for (id, reply) in free {
            // The caller may have released the lock, or be about to.
            let _ = reply.send(state.engine.channel(&id).copied().ok_or(ChannelAccessError::Unknown(id)));
        }
        state.awaits_returns = stopping || !self.holds.is_empty();
    }

    /// Watches the chain for changes that tollpass did not make: closes, settlements, withdrawals, reorganisations.
    fn watch(&self, chain: &Chain, cursor: u64) {
        let Some(mailbox) = self.mailbox.upgrade() else { return };
        let mut watcher = chain.watch(cursor);
        let recheck = Arc::clone(&self.recheck);
        tokio::spawn(async move {
            let mut was_down = false;
            loop {
                // Channels added from here on may be newer than this reading.
                let rechecked = std::mem::take(&mut *lock(&recheck));
                let rechecked: Vec<ChannelId> = rechecked.into_iter().collect();
                let reading = tokio::select! {
                    reading = watcher.next(&rechecked) => reading,
                    () = mailbox.closed() => return,
                };
                match reading {
                    Ok(synced) => {
                        was_down = false;
                        // The node may be behind, in which case these have no state yet.
                        let unread = rechecked.into_iter().filter(|id| !synced.tells_of(id));
                        lock(&recheck).extend(unread);
                        if mailbox.send(Message::Watched(synced)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        lock(&recheck).extend(rechecked);
                        if !std::mem::replace(&mut was_down, true) {
                            tracing::warn!(%error, "cannot watch the chain; retrying");
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
        // Before the write that moves on the cursor.
        self.shared.ledger.settle(settled.clone());
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
        // A channel that waits for an operation of ours has no further event.
        let passed_over = there.iter().filter(|id| state.engine.channel(id).is_none());
        lock(&self.recheck).extend(state.engine.missing().chain(unseen).chain(passed_over));
    }

    /// Leaves channels that are missing for no known reason to the watcher: its readings are sequential, and one that
    /// overlaps them proves nothing more.
    fn without_vanished(&self, mut synced: Synced) -> Synced {
        let (found, vanished): (Vec<_>, Vec<_>) = std::mem::take(&mut synced.channels)
            .into_iter()
            .partition(|(id, on_chain)| on_chain.is_some() || synced.settled.contains_key(id));
        synced.channels = found;
        let state = self.engine.lock();
        let is_there =
            |id: &ChannelId| state.engine.channel(id).is_some_and(|known| known.phase != Phase::Gone);
        let unread = state.engine.channels().map(|(id, _)| *id).filter(|id| !synced.tells_of(id));
        let again = vanished.into_iter().map(|(id, _)| id).chain(unread).filter(is_there);
        lock(&self.recheck).extend(again);
        synced
    }

    /// Records which prices were learned or forgotten; a failure costs one query of a seller.
    async fn write_prices(&mut self) {
        let news = self.shared.quotes.take_news();
        let prices = news.into_iter().map(|(request, price)| Record::Price(request, price));
        let records = prices.chain(self.shared.seller_urls.take_unrecorded()).collect();
        // The error has been logged.
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
            Message::Ready(prepared) => self.become_ready(*prepared).await,
            Message::Unlocked { signer, has_chain } => {
                let (key, payer) = (LedgerKey::of(&signer), signer.address());
                self.journal.change(move |journal| journal.unlock_ledger(key, payer)).await;
                // A second one would be of the same key.
                let _ = self.engine.payer.set(Wallet::new(signer));
                self.engine.freeze_wallet();
                self.has_no_chain = !has_chain;
                self.engine.submit(Input::Unlocked { payer, has_chain });
            }
            Message::Unready(reason) => self.engine.submit(Input::Unready(reason)),
            Message::Intent { intent, reply } => {
                self.sends.insert(intent.hash, reply);
                self.engine.submit(Input::Intent(intent));
            }
            Message::OpFinished { receiver, result } => {
                if let Some(reply) = self.ops.remove(&receiver) {
                    // The caller may have stopped waiting.
                    let _ = reply.send(Ok(result.clone()));
                }
                if let Ok(Some(ChangedChannel { channel, on_chain: Some(_), .. })) = &result {
                    lock(&self.recheck).insert(*channel);
                }
                let is_clear = result.as_ref().map_or_else(|failure| failure.is_final, |_| true);
                let result = result.map(|changed| changed.map(|changed| (changed.channel, changed.on_chain)));
                self.engine.submit(Input::OpFinished(receiver, result));
                self.order_next(receiver, is_clear);
            }
            Message::ChannelOp { op, reply } => self.start_op(op, reply),
            Message::Look { channel, reply } => {
                let _ = reply.send(self.engine.lock().engine.channel(&channel).copied());
            }
            Message::Lock { channel, lock, reply } => self.hold(channel, lock, reply),
            Message::Unlock { channel, lock: hold } => {
                // A refused lock holds nothing.
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
                // The error has been logged.
                let _ = self.persist(places).await;
            }
            Message::ClosingSignature { channel, signature, reply } => {
                // The error has been logged. What follows is recorded too, and fails if it cannot be.
                let _ =
                    self.persist(vec![Record::Consent(channel, signature.total, signature.signature)]).await;
                failpoint::point("closing signature recorded");
                // The caller may have stopped waiting.
                let _ = reply.send(());
            }
            Message::Journal(work) => {
                // The work has the sender of its result.
                let _ = self
                    .journal
                    .submit(move |journal: &mut Journal| {
                        work(journal);
                        Ok(())
                    })
                    .await;
            }
            Message::Freeze { is_frozen, reply } => {
                let done = self.freeze(is_frozen).await;
                // The caller may have stopped waiting.
                let _ = reply.send(done);
            }
            Message::AwaitTransactions(reply) => self.settled.push(reply),
            Message::Finish | Message::Stop => self.engine.submit(Input::Stop),
        }
    }

    /// Ends or allows signing. It ends before that is recorded, and begins after.
    async fn freeze(&mut self, is_frozen: bool) -> Result<(), String> {
        if is_frozen {
            // Again: an earlier message may have allowed it since the caller has ended it.
            self.engine.freeze(true);
            tracing::warn!("nothing is signed any more: tollpass is frozen");
        }
        match self.persist(vec![Record::Frozen(is_frozen)]).await {
            Ok(()) => self.is_freeze_recorded = is_frozen,
            Err(error) if is_frozen => {
                return Err(format!(
                    "tollpass signs nothing any more, but will sign again after a restart, because the freeze cannot be recorded: {error}"
                ));
            }
            Err(error) if self.is_freeze_recorded => return Err(error),
            // There is nothing to remove.
            Err(_) => {}
        }
        if !is_frozen {
            self.engine.freeze(false);
            tracing::warn!("payments are signed again: tollpass is no longer frozen");
        }
        Ok(())
    }

    /// Locks a channel against leases, unless another operation has locked it.
    fn hold(&mut self, channel: ChannelId, hold: LockId, reply: LockReply) {
        if self.holders.contains_key(&channel) {
            // The caller may have stopped waiting.
            let _ = reply.send(Err(ChannelAccessError::Locked(channel)));
            return;
        }
        self.holders.insert(channel, hold);
        self.engine.submit(Input::Lock(channel));
        self.holds.push((channel, reply));
    }

    /// Starts a user operation, or queues it if another transaction for the receiver is pending.
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
                // The caller may have stopped waiting.
                let _ = reply.send(Err(unorderable));
            }
        }
    }

    /// Continues with queued operations for a receiver. They are refused if the outcome of its transaction is still
    /// unknown, since it may still take effect.
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

    async fn become_ready(&mut self, state: StartupState) {
        let StartupState { account, stored, synced, chain, signer } = state;
        let (id, known) = (stored.id, stored.channels.clone());
        self.journal.change(move |journal| journal.start_ledger(&account, id, &known)).await;
        self.shared.ledger.settle(synced.settled.clone());
        self.shared.quotes.load(stored.prices);
        self.shared.seller_urls.load(stored.seller_urls);
        self.shared.closing_signatures.load(stored.closing_signatures);
        // A second one would be of the same key.
        let _ = self.engine.payer.set(Wallet::new(Arc::clone(&signer)));
        if let Some(wallet) = self.engine.payer.get() {
            wallet.set_account(account);
        }
        let unread = stored.channels.iter().map(|(id, _)| *id).filter(|id| !synced.tells_of(id));
        lock(&self.recheck).extend(unread);
        self.watch(&chain, synced.cursor);
        // A second one would be the same.
        let _ = self.engine.conditions.chain.set(chain.clone());
        self.context = Some(ActorContext { account, chain, signer, cursor: synced.cursor });
        // A second one would be the same.
        let _ = self.account.set(stored.id);
        self.engine.submit(Input::Holds(stored.holds));
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

    /// Executes the engine's effects.
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

    /// Submits records to the journal thread, which reports how the write ends. Waits here if the queue is full, while
    /// the engine continues.
    async fn write(&self, seq: Seq, records: Vec<Record>) {
        failpoint::point("records about to be written");
        let engine = Arc::clone(&self.engine);
        let ended = Box::new(move |written| engine.write_ended(seq, written));
        self.journal.write(self.account.get().copied(), records, ended).await;
    }

    async fn persist(&mut self, records: Vec<Record>) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let account_id = self.account.get().copied();
        failpoint::point("records about to be written");
        let written =
            self.journal.submit(move |journal| journal.write(account_id, &records)).await.done().await;
        failpoint::point("records written");
        written.map_err(|error| {
            tracing::error!(%error, "cannot write the journal; payments are suspended until it can be written");
            error.to_string()
        })
    }

    async fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(seq, records) => self.write(seq, records).await,
            Effect::Grant(id, draft) => self.engine.lock().reply(id, PurchaseReply::Granted(draft)),
            Effect::Refuse(id, refusal) => self.engine.lock().reply(id, PurchaseReply::Refused(refusal)),
            Effect::Consult(id, question) => self.engine.lock().reply(id, PurchaseReply::Consult(question)),
            Effect::Submit(op) => self.submit(op),
            Effect::Resume(receiver, intents) => self.resume(receiver, intents),
            Effect::QueryBalance => self.query_balance(),
            Effect::Send(hash) => self.answer_job(hash, Ok(())),
            Effect::Discard(hash, reason) => self.answer_job(hash, Err(NotRecorded(reason))),
        }
    }

    /// Answers the chain job that waits for its transaction to be recorded.
    fn answer_job(&mut self, hash: [u8; 32], recorded: Result<(), NotRecorded>) {
        if let Some(reply) = self.sends.remove(&hash) {
            // The job may be gone, in which case nothing is sent.
            let _ = reply.send(recorded);
        }
    }

    fn list(&self) -> Listing {
        let owner = self.context.as_ref().map(|context| AccountKey::from(context.account));
        let state = self.engine.lock();
        let listed =
            |(id, channel)| ListedChannel::new(id, channel, state.engine.host(id).map(|host| &**host));
        let channels = state.engine.channels().map(listed).collect();
        Listing { owner, has_no_chain: self.has_no_chain, channels }
    }
}

/// Hands records to the journal thread.
#[derive(Debug)]
struct JournalSink {
    port: JournalPort,
    account: Arc<OnceLock<AccountId>>,
}

impl RecordSink for JournalSink {
    fn take(&self, next: &mut dyn FnMut() -> Option<NextRecords>) {
        while let Some(place) = self.port.reserve()
            && let Some((records, ended)) = next()
        {
            failpoint::point("records about to be written");
            place.write(self.account.get().copied(), records, ended);
        }
    }
}

impl Drop for Actor {
    /// Fails all waiting callers, however the actor ends.
    fn drop(&mut self) {
        self.engine.lock().close();
    }
}
