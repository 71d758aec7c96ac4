//! The channel manager: the engine of all channels behind a lock, one task for what takes disk or chain, and a
//! [`Manager`] handle for everybody else.
//!
//! [`Manager::pay`] asks for a signed payment and gets a [`Lease`] on the channel that pays it. A lease always
//! comes back: it is accepted, rejected, or dropped, which says by itself whether the payment was sent.

mod actor;
mod clock;
mod close;
mod idle;
pub mod journal;
mod operate;
mod payer;
mod report;
mod request_key;
pub mod seller;
mod shared_engine;
mod startup;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Uri};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::chain::{NotRecorded, Synced};
use crate::limits::Limits;
use crate::mutex::lock;
use crate::protocol::engine::{
    Balance, Engine, Host, Input, OrderFailure, Outcome, PurchaseId, Reopens, SpendLimit, Unorderable,
    host_name,
};
use crate::protocol::policy::{CloseDenied, Hook};
use crate::protocol::quote::{Price, Prices, RequestId};
use crate::protocol::schemes::microraiden;
use crate::protocol::{
    Address, Amount, Channel, ChannelId, Draft, Facts, Intent, Offer, OnChain, Order, Policy, Refusal,
    Signature,
};
use actor::Actor;
use clock::{unix_millis, unix_time};
use close::{Consents, HoldId, HoldReply};
pub use idle::Surplus;
use journal::{Contents, Store, StoreError};
pub use operate::{Operation, Plan, Report, Trouble};
use payer::Payer;
pub use report::{Bill, PaidFrom, Payee, Spent, Sum};
use report::{Ledger, Tab};
use request_key::Requests;
use seller::Seller;
use shared_engine::{Asked, SharedEngine};
pub use startup::Start;

/// A handle on the channel manager; cheap to clone.
#[derive(Clone, Debug)]
pub struct Manager {
    mailbox: mpsc::Sender<Message>,
    /// One place per client request that waits for a payment or has one in hand.
    places: Arc<Semaphore>,
    next: Arc<AtomicU64>,
    prices: Arc<Mutex<Prices>>,
    requests: Requests,
    engine: Arc<SharedEngine>,
    gateways: Arc<Mutex<Gateways>>,
    seller: Arc<dyn Seller>,
    consents: Arc<Mutex<Consents>>,
    close_denied: Hook<CloseDenied>,
    ledger: Arc<Mutex<Ledger>>,
}

/// Where hosts say that the REST interfaces of receivers are, and which of that is not in the journal yet. A host that
/// names another one's receiver speaks for itself only.
#[derive(Debug, Default)]
struct Gateways {
    known: BTreeMap<(Host, Address), String>,
    news: BTreeSet<(Host, Address)>,
}

/// A signed payment, and the channel it draws on, lent to one client request.
///
/// Dropped before [`Lease::begin`] it was never sent; dropped later nobody can tell.
#[must_use]
#[derive(Debug)]
pub struct Lease {
    draft: Draft,
    signature: Signature,
    facts: Facts,
    ticket: Ticket,
}

/// All channels and the state of the manager.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// Who pays and where, once that is known.
    pub owner: Option<ListedOwner>,
    /// The channels.
    pub channels: Vec<ListedChannel>,
}

/// Who pays and where.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ListedOwner {
    /// The id of the chain.
    pub chain_id: u64,
    /// The channel contract.
    pub contract: Address,
    /// Who pays.
    pub payer: Address,
}

/// One channel, as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedChannel {
    /// Who is paid.
    pub receiver: Address,
    /// The block of its opening.
    pub open_block: u32,
    /// What is locked up.
    pub deposit: Amount,
    /// The highest total ever signed; right after a crash, the most that may have been.
    pub promised: Amount,
    /// What the seller is believed to hold.
    pub acknowledged: Amount,
    /// Where it is in its life: `open`, `closing` or `gone`.
    pub phase: String,
    /// The host that it belongs to; absent until one has paid from it.
    #[serde(default)]
    pub host: Option<String>,
    /// True while `promised` is the most that may have been signed, which is not known for certain.
    #[serde(default)]
    pub in_doubt: bool,
}

/// What the manager's task is told.
enum Message {
    Load { facts: Facts, is_chosen: bool, reply: oneshot::Sender<Result<Contents, StoreError>> },
    Ready(Box<startup::Prepared>),
    Unready(String),
    Intent { intent: Intent, reply: oneshot::Sender<Result<(), NotRecorded>> },
    Ordered { receiver: Address, result: Result<Option<Funded>, OrderFailure> },
    Order { order: Order, reply: oneshot::Sender<OrderReply> },
    Look { channel: ChannelId, reply: oneshot::Sender<Option<Channel>> },
    Hold { channel: ChannelId, hold: HoldId, reply: HoldReply },
    Release { channel: ChannelId, hold: HoldId },
    Learned { channel: ChannelId, total: Amount, proven: bool },
    Balance(Option<Balance>),
    Consented { channel: ChannelId, total: Amount, signature: Signature, reply: oneshot::Sender<()> },
    Watched(Synced),
    Synced(Synced),
    Means(oneshot::Sender<Option<operate::Means>>),
    Reserved { bounds: Vec<(ChannelId, Amount)>, are_written: bool },
    List(oneshot::Sender<Listing>),
    Located,
    Settled(oneshot::Sender<()>),
    Finish,
    Stop,
}

type Funded = (ChannelId, Option<OnChain>);
type OrderReply = Result<Result<Option<Funded>, OrderFailure>, Unorderable>;

/// How a purchase came back.
#[derive(Clone, Copy, Debug)]
enum Returned {
    Unsent,
    InDoubt,
    Accepted,
}

/// Names a purchase to the manager. When it is dropped the engine hears how, always and without waiting.
#[derive(Debug)]
struct Ticket {
    id: PurchaseId,
    how: Returned,
    /// Whom it is counted for.
    tab: Option<Tab>,
    ledger: Arc<Mutex<Ledger>>,
    engine: Arc<SharedEngine>,
    /// Keeps the manager's task running until the engine has heard.
    mailbox: mpsc::Sender<Message>,
    _place: OwnedSemaphorePermit,
}

/// Messages to the manager's task that may wait: of chain jobs, of the watch, of the user's orders.
const MAILBOX: usize = 256;

impl Manager {
    /// Starts the manager's task. It refuses to pay until [`Start`] has prepared key and chain; it ends after
    /// [`Manager::stop`], when the last lease is back and the store is in step.
    pub fn spawn(
        policy: Arc<Policy>,
        store: Store,
        limits: &Limits,
        seller: Arc<dyn Seller>,
    ) -> (Self, JoinHandle<()>) {
        let Limits { max_pending, prices, price_age, report_payees, .. } = *limits;
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        let engine = Arc::new(SharedEngine::new(Engine::new(Arc::clone(&policy))));
        let prices = Arc::new(Mutex::new(Prices::new(prices, price_age.as_secs())));
        let requests = store.requests();
        let gateways = Arc::new(Mutex::new(Gateways::default()));
        let consents = Arc::new(Mutex::new(Consents::default()));
        let shared = actor::Shared {
            engine: Arc::clone(&engine),
            prices: Arc::clone(&prices),
            gateways: Arc::clone(&gateways),
            consents: Arc::clone(&consents),
        };
        let actor = Actor::new(store, mailbox.downgrade(), shared);
        let task = tokio::spawn(actor.run(messages));
        let (places, next) = (Arc::new(Semaphore::new(max_pending)), Arc::new(AtomicU64::new(0)));
        let close_denied = policy.hooks.cooperative_close_denied.clone();
        let ledger = Arc::new(Mutex::new(Ledger::new(report_payees, unix_millis())));
        let manager = Self {
            mailbox,
            places,
            next,
            prices,
            requests,
            engine,
            gateways,
            seller,
            consents,
            close_denied,
            ledger,
        };
        (manager, task)
    }

    /// By what the price of a request, its method and URL, is remembered.
    #[must_use]
    pub fn request_id(&self, request: &str) -> RequestId {
        self.requests.id(request)
    }

    /// What `request` will probably ask for; `None` when the seller must be asked first.
    #[must_use]
    pub fn recall(&self, request: &RequestId) -> Option<Offer> {
        let Facts { contract, token, .. } = self.engine.payer.get()?.facts;
        let Price { price, receiver, .. } = lock(&self.prices).recall(request, unix_time())?;
        let token = Some(token);
        let offer = microraiden::Offer {
            price,
            contract,
            receiver,
            token,
            gateway: None,
            complaint: None,
            state: None,
        };
        Some(Offer::MicroRaiden(offer))
    }

    /// Remembers what was just paid for `request`. `is_shown`: the answer showed the seller's state; `was_asked`: the
    /// seller had asked for this price first.
    pub fn learn(&self, request: &RequestId, offer: &Offer, is_shown: bool, was_asked: bool) {
        let Offer::MicroRaiden(microraiden::Offer { price, receiver, .. }) = offer;
        lock(&self.prices).learn(request, (*price, *receiver), is_shown, was_asked, unix_time());
    }

    /// Remembers where the REST interface of the seller is that asked for `offer`; `paid` is the URL.
    pub fn learn_gateway(&self, offer: &Offer, paid: &Uri) {
        let Offer::MicroRaiden(microraiden::Offer { receiver, gateway, .. }) = offer;
        // What is remembered from before says nothing of it.
        let (Some(path), Some(scheme), Some(authority)) = (gateway, paid.scheme_str(), paid.authority())
        else {
            return;
        };
        let place = format!("{scheme}://{authority}{path}");
        let key = (host_name(authority.host()), *receiver);
        let mut gateways = lock(&self.gateways);
        if gateways.known.get(&key) != Some(&place) {
            gateways.known.insert(key.clone(), place);
            gateways.news.insert(key);
            // On record at once: after a crash the seller is asked what was promised. Where the mailbox is full, soon.
            let _ = self.mailbox.try_send(Message::Located);
        }
    }

    /// What the channel's own host says; for one that belongs to no host yet, what the only host says that names its
    /// receiver.
    fn gateway_of(&self, id: ChannelId) -> Option<String> {
        let host = self.engine.lock().engine.host(&id).cloned();
        let gateways = lock(&self.gateways);
        if let Some(host) = host {
            return gateways.known.get(&(host, id.receiver)).cloned();
        }
        let mut places = gateways.known.iter().filter(|((_, receiver), _)| *receiver == id.receiver);
        places.next().filter(|_| places.next().is_none()).map(|(_, place)| place.clone())
    }

    /// Forgets what `request` cost.
    pub fn forget(&self, request: &RequestId) {
        lock(&self.prices).forget(request);
    }

    /// Asks for a signed payment. Waits for a channel, an opening or a top up as long as the policy allows;
    /// dropped before it is ready, nothing is signed.
    pub async fn pay(&self, offer: Offer, limit: SpendLimit) -> Result<Box<Lease>, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let id = PurchaseId(self.next.fetch_add(1, Ordering::Relaxed));
        let (engine, mailbox) = (Arc::clone(&self.engine), self.mailbox.clone());
        let (how, ledger) = (Returned::Unsent, Arc::clone(&self.ledger));
        let ticket = Ticket { id, how, tab: None, ledger, engine, mailbox, _place: place };
        ticket.ask(Input::Demand { purchase: id, offer, limit }).await
    }

    /// What was paid to whom since the manager was started; also after it has stopped.
    #[must_use]
    pub fn bill(&self) -> Bill {
        let paid_from = |payer: &Payer| {
            let Facts { chain_id, contract, token, payer } = payer.facts;
            PaidFrom { chain_id, contract, token, payer }
        };
        Bill { from: self.engine.payer.get().map(paid_from), ..lock(&self.ledger).bill() }
    }

    /// All channels; `None` when the manager has stopped.
    pub async fn list(&self) -> Option<Listing> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::List(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Waits until no transaction is under way any more, those of an earlier life included.
    pub async fn settled(&self) {
        let (reply, answer) = oneshot::channel();
        // A manager that is gone waits for nothing.
        if self.tell(Message::Settled(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Grants nothing more; the user's operations go on, until [`Manager::stop`].
    pub async fn finish(&self) {
        // A manager that is gone grants nothing.
        let _ = self.tell(Message::Finish).await;
    }

    /// Grants nothing more. The task ends when the last lease is back.
    pub async fn stop(&self) {
        // A manager that is gone has stopped already.
        let _ = self.tell(Message::Stop).await;
    }

    async fn tell(&self, message: Message) -> Result<(), Refusal> {
        self.mailbox.send(message).await.map_err(|_| Refusal::ShuttingDown)
    }
}

impl Lease {
    /// Sets the header fields of a request that carry the payment.
    pub fn attach(&self, fields: &mut HeaderMap) {
        let Facts { payer, contract, .. } = self.facts;
        microraiden::attach(fields, &self.draft, payer, contract, &self.signature);
    }

    /// What is paid, from which channel, and the new total.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// Counts what is paid for the origin of `url`.
    pub fn bill_to(&mut self, url: &Uri) {
        let receiver = self.draft.channel.receiver;
        self.ticket.tab = Some(Tab::new(Arc::clone(&self.ticket.ledger), url, receiver));
    }

    /// To be called right before the payment is sent: from here on it may have reached the seller.
    pub fn begin(&mut self) {
        self.ticket.how = Returned::InDoubt;
        if let Some(tab) = &mut self.ticket.tab {
            tab.begin(&self.draft);
        }
    }

    /// The payment provably never left this time. Where it was presented before, that stays on the bill.
    pub fn unsent(mut self) {
        self.ticket.how = Returned::Unsent;
    }

    /// The seller took the payment, as far as can be told.
    pub fn accept(mut self) {
        self.ticket.how = Returned::Accepted;
    }

    /// The seller answered with another 402. Waits for what the policy makes of it: another payment, the same one
    /// again after a pause, or none. `reopens` says for this turn, in place of the policy, whether another channel
    /// pays if this one is gone.
    pub async fn reject(
        self: Box<Self>,
        offer: Offer,
        reopens: Option<Reopens>,
    ) -> Result<Box<Self>, Refusal> {
        self.look_for_strangers(&offer);
        let offer = Box::new(offer);
        let outcome = match reopens {
            Some(reopens) => Outcome::Advised(offer, reopens),
            None => Outcome::Rejected(offer),
        };
        let input = Input::Answer(self.ticket.id, outcome);
        self.ticket.ask(input).await
    }

    /// Says in the log if the seller proves a total above all that this state directory can have signed.
    fn look_for_strangers(&self, offer: &Offer) {
        let Offer::MicroRaiden(offer) = offer;
        let (id, facts) = (self.draft.channel, &self.facts);
        let exposure = self.ticket.engine.lock().engine.channel(&id).map(Channel::exposure);
        let Some(state) = offer.state.filter(|state| exposure.is_some_and(|most| state.total > most)) else {
            return;
        };
        if microraiden::is_ours(&state, id, facts) {
            tracing::warn!(
                channel = %id,
                total = %state.total,
                "the seller proves a total that this state directory never signed: it is an old copy, or another program or \
                 state directory pays with the same key; give each a key of its own"
            );
        }
    }
}

impl Ticket {
    /// Waits for what the engine says, and signs what it grants.
    async fn ask(mut self, input: Input) -> Result<Box<Lease>, Refusal> {
        if self.mailbox.is_closed() {
            return Err(Refusal::ShuttingDown);
        }
        let asked = self.engine.ask(self.id, input);
        // What was sent before is the engine's again; what is granted now was never sent.
        self.how = Returned::Unsent;
        if let Some(tab) = &mut self.tab {
            tab.answered();
        }
        let granted = match asked {
            Asked::Answered(granted) => granted,
            Asked::Waits(answer) => answer.await.unwrap_or(Err(Refusal::ShuttingDown)),
        };
        if let (Some(tab), Err(Refusal::PaidAnswerLost { total })) = (&mut self.tab, &granted) {
            tab.registered(*total);
        }
        let draft = granted?;
        // A payment is granted only once the payer is known.
        let payer = self.engine.payer.get().ok_or(Refusal::ShuttingDown)?;
        let (signature, facts) = (payer.sign(&draft)?, payer.facts);
        // Boxed: it passes through several futures, each of which would copy it.
        Ok(Box::new(Lease { draft, signature, facts, ticket: self }))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(tab) = &mut self.tab {
            tab.end(self.how);
        }
        let input = match self.how {
            Returned::Unsent => Input::Withdraw(self.id),
            Returned::InDoubt => Input::Answer(self.id, Outcome::InDoubt),
            Returned::Accepted => Input::Answer(self.id, Outcome::Accepted),
        };
        self.engine.give_back(self.id, input);
    }
}

impl ListedChannel {
    /// Which channel it is.
    pub fn id(&self) -> ChannelId {
        ChannelId { receiver: self.receiver, open_block: self.open_block }
    }

    /// A channel as it is shown, and the host that it belongs to.
    pub fn new(id: &ChannelId, channel: &Channel, host: Option<&str>) -> Self {
        Self {
            receiver: id.receiver,
            open_block: id.open_block,
            deposit: channel.deposit,
            promised: channel.exposure(),
            acknowledged: channel.acknowledged,
            phase: channel.phase.name().to_owned(),
            host: host.map(str::to_owned),
            in_doubt: channel.has_doubt(),
        }
    }
}
