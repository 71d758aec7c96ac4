//! The one task that owns the book: messages in, effects carried out in order.
//!
//! It never waits for the chain and never sends to its own mailbox; what takes long runs in a task of its own and
//! comes back as a message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::scribe::Scribe;
use super::start::Prepared;
use super::store::{BookId, Store};
use super::{ListedChannel, ListedOwner, Listing, Message, Payment, Reply, Returned};
use crate::chain::signer::Signer;
use crate::chain::{Chain, Done, Journal, NotRecorded, OrderError, Resolution};
use crate::fault;
use crate::protocol::book::{Book, Effect, FundFailure, Input, Outcome, PurchaseId, Record};
use crate::protocol::microraiden::{self, proof};
use crate::protocol::prices::Prices;
use crate::protocol::{Address, Amount, ChannelId, Draft, Facts, Intent, Order, Policy, Refusal};

/// The manager's task.
pub(super) struct Actor {
    book: Book,
    scribe: Scribe,
    means: Option<Means>,
    replies: HashMap<PurchaseId, Reply>,
    /// Chain jobs that wait until their transaction is on record.
    sends: HashMap<[u8; 32], oneshot::Sender<Result<(), NotRecorded>>>,
    mailbox: mpsc::WeakSender<Message>,
    /// Shared with every handle, which looks prices up without asking the task.
    prices: Arc<Mutex<Prices>>,
    facts: Arc<OnceLock<Facts>>,
}

/// What it takes to pay.
struct Means {
    facts: Facts,
    book: BookId,
    chain: Chain,
    signer: Arc<Signer>,
}

/// How many messages are handled before their effects are carried out together.
const BATCH: usize = 64;
/// How long the book may be newer than its record while nothing happens.
const WRITE_DOWN_AFTER: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) fn new(
        policy: Arc<Policy>,
        store: Store,
        mailbox: mpsc::WeakSender<Message>,
        (prices, facts): (Arc<Mutex<Prices>>, Arc<OnceLock<Facts>>),
    ) -> Self {
        Self {
            book: Book::new(policy),
            scribe: Scribe::start(store),
            means: None,
            replies: HashMap::new(),
            sends: HashMap::new(),
            mailbox,
            prices,
            facts,
        }
    }

    /// Runs until it was told to stop and the last lease is back, or until nobody holds a handle.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut stopping = false;
        let alarm = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(alarm);
        while !(stopping && self.replies.is_empty() && !self.book.has_leases()) {
            let due = self.book.poll_timeout();
            let idle = self.book.is_dirty().then(|| Instant::now() + WRITE_DOWN_AFTER);
            let next = due.into_iter().chain(idle).min();
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
                () = &mut alarm, if next.is_some() => {
                    let now = Instant::now();
                    let is_due = due.is_some_and(|due| due <= now);
                    self.book.handle(if is_due { Input::Tick } else { Input::Idle }, now);
                    if !is_due {
                        self.write_prices().await;
                    }
                }
            }
            self.act().await;
        }
        self.book.handle(Input::Flush, Instant::now());
        self.act().await;
        self.write_prices().await;
    }

    /// Puts on record which prices were learned or forgotten; a failure costs one question to a seller.
    async fn write_prices(&mut self) {
        let news = super::lock(&self.prices).take_news();
        let records = news.into_iter().map(|(request, price)| Record::Price(request, price)).collect();
        // The error is in the log.
        let _ = self.persist(records).await;
    }

    async fn take(&mut self, message: Message) {
        let now = Instant::now();
        match message {
            Message::Load { facts, reply } => {
                let contents = self.scribe.hand_in(move |store| store.load(&facts)).await.done().await;
                let _ = reply.send(contents);
            }
            Message::Ready(prepared) => self.become_ready(*prepared, now),
            Message::Unready(reason) => self.book.handle(Input::Unready(reason), now),
            Message::Demand { id, challenge, allowance, reply } => {
                self.replies.insert(id, reply);
                self.book.handle(Input::Demand { purchase: id, challenge, allowance }, now);
            }
            Message::Reject { id, challenge, reply } => {
                self.replies.insert(id, reply);
                let outcome = Outcome::Rejected(Box::new(challenge));
                self.book.handle(Input::Answer(id, outcome), now);
            }
            Message::Return { id, how } => {
                self.replies.remove(&id);
                self.book.handle(
                    match how {
                        Returned::Unsent => Input::Withdraw(id),
                        Returned::Unclear => Input::Answer(id, Outcome::Unclear),
                        Returned::Accepted => Input::Answer(id, Outcome::Accepted),
                    },
                    now,
                );
            }
            Message::Intent { intent, reply } => {
                self.sends.insert(intent.hash, reply);
                self.book.handle(Input::Intent(intent), now);
            }
            Message::Funded { receiver, result } => self.book.handle(Input::Funded(receiver, result), now),
            Message::Reserved { channel, bound } => {
                self.book.handle(Input::Reserved(channel, bound), now);
            }
            Message::List(reply) => {
                let _ = reply.send(self.list());
            }
            Message::Stop => self.book.handle(Input::Stop, now),
        }
    }

    fn become_ready(&mut self, prepared: Prepared, now: Instant) {
        let Prepared { facts, contents, synced, chain, signer } = prepared;
        super::lock(&self.prices).load(contents.prices);
        // Ready comes once.
        let _ = self.facts.set(facts);
        self.means = Some(Means { facts, book: contents.book, chain, signer });
        let ready = Input::Ready {
            facts,
            channels: contents.channels,
            intents: contents.intents,
            on_chain: synced.channels,
            cursor: synced.cursor,
        };
        self.book.handle(ready, now);
    }

    /// Carries out what the book wants: all records of a turn in one durable write, then the rest in order.
    async fn act(&mut self) {
        loop {
            let effects: Vec<Effect> = std::iter::from_fn(|| self.book.poll_effect()).collect();
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
                self.carry_out(effect, &recorded);
            }
        }
    }

    async fn persist(&mut self, records: Vec<Record>) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        let Some(book) = self.means.as_ref().map(|means| means.book) else {
            return Err("there is no book to write to".into());
        };
        fault::point("records about to be written");
        let written = self.scribe.hand_in(move |store| store.write(book, &records)).await.done().await;
        fault::point("records written");
        written.map_err(|error| {
            tracing::error!(%error, "the journal cannot be written: nothing is paid until it can");
            error.to_string()
        })
    }

    fn carry_out(&mut self, effect: Effect, recorded: &Result<(), String>) {
        match effect {
            Effect::Persist(_) => {}
            Effect::Reserve(id, bound, record) => self.reserve(id, bound, record),
            Effect::Grant(id, draft) => match recorded {
                Ok(()) => self.grant(id, draft),
                Err(reason) => {
                    self.book.handle(Input::NotRecorded(id, reason.clone()), Instant::now());
                }
            },
            Effect::Refuse(id, refusal) => {
                if let Some(reply) = self.replies.remove(&id) {
                    // A client that has left needs no reason.
                    let _ = reply.send(Err(refusal));
                }
            }
            Effect::Submit(order) => self.submit(order),
            Effect::Resume(receiver, intents) => self.resume(receiver, intents),
            Effect::Send(hash) => {
                if let Some(reply) = self.sends.remove(&hash) {
                    // A job that is gone sends nothing.
                    let _ = reply.send(recorded.clone().map_err(NotRecorded));
                }
            }
        }
    }

    /// Moves a channel's bound on disk ahead; nobody waits for it.
    fn reserve(&mut self, channel: ChannelId, bound: Amount, record: Record) {
        let (Some(means), Some(mailbox)) = (&self.means, self.mailbox.upgrade()) else { return };
        let book = means.book;
        let Some(pending) = self.scribe.try_hand_in(move |store| store.write(book, &[record])) else {
            return self.book.handle(Input::Reserved(channel, None), Instant::now());
        };
        tokio::spawn(async move {
            let bound = match pending.done().await {
                Ok(()) => Some(bound),
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be written");
                    None
                }
            };
            fault::point("bound moved ahead");
            // A manager that has stopped reserves nothing more.
            let _ = mailbox.send(Message::Reserved { channel, bound }).await;
        });
    }

    /// Signs what is on record, unless the client has left.
    fn grant(&mut self, id: PurchaseId, draft: Draft) {
        let (Some(reply), Some(means)) = (self.replies.remove(&id), &self.means) else { return };
        if reply.is_closed() {
            return;
        }
        let Facts { contract, payer, .. } = means.facts;
        let digest = proof::balance_digest(draft.channel, draft.total, contract);
        let payment = match means.signer.sign(digest) {
            Ok(signature) => {
                fault::point("payment signed");
                let headers = microraiden::attach(&draft, payer, contract, &signature);
                Ok(Payment { headers, draft })
            }
            Err(error) => Err(Refusal::NotReady(error.to_string())),
        };
        // A client that left meanwhile drops its ticket, which withdraws the purchase.
        let _ = reply.send(payment);
    }

    fn submit(&self, order: Order) {
        let receiver = order.receiver();
        tracing::info!(?order, "putting money into a channel");
        self.job(receiver, move |chain, journal| async move {
            chain.carry_out(&order, &journal).await.map(funded).map_err(|error| failure(order, &error))
        });
    }

    fn resume(&self, receiver: Address, intents: Vec<Intent>) {
        let Some(order) = intents.last().map(|intent| intent.order) else { return };
        tracing::info!(%receiver, ?order, "finding out what became of an earlier transaction");
        self.job(receiver, move |chain, _| async move {
            match chain.resume(&intents).await {
                Ok(Resolution::Done(done)) => Ok(funded(done)),
                Ok(Resolution::NothingMoved) => Ok(None),
                Err(error) => Err(failure(order, &error)),
            }
        });
    }

    /// Runs a chain job in a task of its own; its result comes back as a message.
    fn job<F>(&self, receiver: Address, work: impl FnOnce(Chain, Intents) -> F)
    where
        F: Future<Output = Result<Option<super::Funded>, FundFailure>> + Send + 'static,
    {
        let (Some(means), Some(mailbox)) = (&self.means, self.mailbox.upgrade()) else { return };
        let work = work(means.chain.clone(), Intents(mailbox.clone()));
        tokio::spawn(async move {
            let result = work.await;
            fault::point("chain job done");
            match &result {
                Ok(Some((channel, on_chain))) => {
                    tracing::info!(%channel, deposit = %on_chain.deposit, "channel is funded");
                }
                Ok(None) => tracing::info!(%receiver, "nothing had moved"),
                Err(failure) => {
                    tracing::warn!(order = ?failure.order, reason = failure.reason, "order failed")
                }
            }
            // A manager that has stopped finds out at its next start.
            let _ = mailbox.send(Message::Funded { receiver, result }).await;
        });
    }

    fn list(&self) -> Listing {
        let owner = self.means.as_ref().map(|means| ListedOwner {
            chain_id: means.facts.chain_id,
            contract: means.facts.contract,
            payer: means.facts.payer,
        });
        let channels = self.book.channels().map(|(id, channel)| ListedChannel::new(id, channel)).collect();
        Listing { owner, channels }
    }
}

/// Records a chain job's transactions through the manager's task.
struct Intents(mpsc::Sender<Message>);

impl Journal for Intents {
    async fn record(&self, intent: Intent) -> Result<(), NotRecorded> {
        let gone = || NotRecorded("tollpass is shutting down".into());
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Intent { intent, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn funded(done: Done) -> Option<super::Funded> {
    done.on_chain.map(|on_chain| (done.channel, on_chain))
}

fn failure(order: Order, error: &OrderError) -> FundFailure {
    FundFailure { order, reason: error.to_string(), is_final: !error.is_unclear() }
}
