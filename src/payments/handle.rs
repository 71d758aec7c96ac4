//! The handle for all other modules.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use ethers_core::rand::{RngCore as _, rngs::OsRng};
use ethers_core::utils::hex;
use http::{HeaderMap, Uri};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::actor::{Actor, PaymentsState};
use super::approvals::{ApprovalError, OperatorApprovals, PendingApproval};
use super::channel_lock::ChannelLock;
use super::clock::{BudgetClock, authorization_time, unix_millis, unix_time};
use super::closing_signatures::{ClosingSignature, ClosingSignatures};
use super::conditions::Conditions;
use super::consultant::Consultant;
use super::doubts::DoubtWatcher;
use super::error::ChannelAccessError;
use super::journal::{Journal, JournalError};
use super::lease::{Lease, PurchaseGuard};
use super::ledger::{LedgerBounds, LedgerQueue, LedgerWatch, PaidRequest};
use super::listing::{ListedHold, Listing};
use super::message::{ChainContext, ChangedChannel, LockId, Message};
use super::open_runs::OpenRuns;
use super::paid_prices::{PaidPrice, PaidPrices};
use super::pauses::{HostPauses, PausedHost, ResumeError};
use super::payer::Wallet;
use super::quotes::Quotes;
use super::report::SpendingReport;
use super::run_account::{RunAccount, RunPlace, RunTerms};
use super::seller_urls::SellerUrls;
use super::shared_engine::SharedEngine;
use super::spending::SpendingTotals;
use super::standing::StandingApproval;
use super::unsupported::{UnsupportedCounts, UnsupportedOffers};
use crate::chain::{Network, Synced};
use crate::limits::Limits;
use crate::mutex::lock;
use crate::protocol::budget::{BudgetNotice, BudgetView};
use crate::protocol::engine::{
    Engine, HostName, Input, OpFailure, OpRefused, PurchaseId, PurchaseKey, host_name,
};
use crate::protocol::policy::{CloseDenied, Hook, KnownAsset, SpendLimit};
use crate::protocol::quote::RequestId;
use crate::protocol::schemes::SignIn;
use crate::protocol::{
    Account, Address, Amount, AssetId, Channel, ChannelId, ChannelOp, Money, Offer, Policy, Refusal, Terms,
};

/// The mailbox capacity, for messages from chain jobs, the chain watcher and channel operations.
const MAILBOX: usize = 256;

/// A handle to the payment service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Payments {
    mailbox: mpsc::Sender<Message>,
    /// One permit per client request that waits for a payment or holds one.
    permits: Arc<Semaphore>,
    /// The next key of a purchase or a lock.
    next: Arc<AtomicU64>,
    /// The number of the next run.
    next_run: Arc<AtomicU64>,
    /// Those that are open, and some that are not.
    runs: Arc<Mutex<Vec<Weak<RunAccount>>>>,
    engine: Arc<SharedEngine>,
    quotes: Quotes,
    seller_urls: SellerUrls,
    closing_signatures: ClosingSignatures,
    spending: Arc<Mutex<SpendingTotals>>,
    approvals: OperatorApprovals,
    pauses: Arc<HostPauses>,
    paid_prices: Arc<PaidPrices>,
    ledger: Arc<LedgerQueue>,
    unsupported: Arc<UnsupportedCounts>,
    report_payees: usize,
}

impl Payments {
    /// Starts the service. It refuses to pay until `Startup` has prepared the key and the chain. Its task ends after
    /// [`Payments::stop`], when the last lease has returned and the journal is up to date. `assets` are the tokens whose
    /// symbols are shown, `bounds` how much of the ledger is kept.
    ///
    /// # Errors
    /// The journal cannot be read, or cannot record what a crash left unknown.
    pub fn spawn(
        policy: Arc<Policy>,
        mut journal: Journal,
        bounds: LedgerBounds,
        assets: Arc<[KnownAsset]>,
        limits: &Limits,
    ) -> Result<(Self, JoinHandle<()>), JournalError> {
        let standing = journal.standing_approvals().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the standing approvals; asking about every payment that needs one");
            Vec::new()
        });
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        let ledger = Arc::new(LedgerQueue::new(limits.ledger_queue));
        journal.keep_ledger(Arc::clone(&ledger), bounds);
        let budgets = journal.restore_budgets(unix_time() / 60)?;
        let clock = BudgetClock::starting_at(budgets.now());
        let is_frozen = journal.is_frozen()?;
        if is_frozen {
            tracing::warn!("nothing is signed: tollpass is frozen; `tollpass thaw` ends that");
        }
        let pauses = Arc::new(HostPauses::new(limits, journal.paused_hosts()?));
        let paid_prices = Arc::new(PaidPrices::new(limits, journal.paid_prices()?));
        let age = limits.retry_window.max(limits.chain_check_for);
        // As late as that, so that a clock which is wrong at one start makes none forgotten that is still valid.
        let is_over = age.saturating_add(bounds.keep).as_secs();
        if let Err(error) = journal.forget_authorizations(unix_time().saturating_sub(is_over)) {
            tracing::warn!(%error, "cannot delete old authorizations from the journal; the next start tries again");
        }
        let open = journal.open_authorizations(unix_time(), age.as_secs())?;
        let engine = Engine::new(policy)
            .with_budgets(budgets)
            .with_open_authorizations(&open, authorization_time())
            .frozen(is_frozen);
        let engine = SharedEngine::new(engine, clock);
        for (nonce, signature) in journal.signatures()? {
            engine.signatures.insert(nonce, signature);
        }
        let quotes = Quotes::new(limits, journal.request_hasher());
        let (seller_urls, closing_signatures) = (SellerUrls::default(), ClosingSignatures::default());
        let shared = PaymentsState {
            engine: Arc::clone(&engine),
            quotes: quotes.clone(),
            seller_urls: seller_urls.clone(),
            closing_signatures: closing_signatures.clone(),
            ledger: Arc::clone(&ledger),
        };
        let actor = Actor::new(journal, mailbox.downgrade(), shared);
        let task = tokio::spawn(actor.run(messages));
        let (permits, next) = (Arc::new(Semaphore::new(limits.max_pending)), Arc::new(AtomicU64::new(0)));
        let spending = Arc::new(Mutex::new(SpendingTotals::new(limits.report_payees, unix_millis())));
        let payments = Self {
            mailbox,
            permits,
            next,
            next_run: Arc::new(AtomicU64::new(1)),
            runs: Arc::default(),
            engine,
            quotes,
            seller_urls,
            closing_signatures,
            spending,
            approvals: OperatorApprovals::new(limits, assets, standing),
            pauses,
            paid_prices,
            ledger,
            unsupported: Arc::default(),
            report_payees: limits.report_payees,
        };
        Ok((payments, task))
    }

    /// Asks these nodes whether payments with an unclear outcome were used, as long as the service runs.
    pub fn ask_networks(&self, networks: Vec<Network>, limits: &Limits) {
        let chains = networks.iter().map(Network::chain_id).collect();
        self.engine.lock().engine.set_chains(chains);
        for network in networks {
            let (engine, mailbox) = (Arc::clone(&self.engine), self.mailbox.downgrade());
            tokio::spawn(DoubtWatcher::new(network, engine, mailbox, limits).run());
        }
    }

    /// Pays by this policy from now on, also for requests that wait; `assets` are the tokens whose symbols are shown. Budgets
    /// keep what was spent, and a request of a client that the policy does not know gets no further payment.
    pub(crate) fn set_policy(&self, policy: Arc<Policy>, assets: Arc<[KnownAsset]>) {
        self.engine.submit(Input::Policy(policy));
        self.approvals.set_assets(assets);
    }

    /// What to do if a seller does not sign that a channel be closed.
    pub(crate) fn close_denied(&self) -> Hook<CloseDenied> {
        self.engine.lock().engine.policy().hooks.cooperative_close_denied.clone()
    }

    /// The remembered prices.
    #[must_use]
    pub fn quotes(&self) -> &Quotes {
        &self.quotes
    }

    /// The purchase of a request with this hash, which cannot be computed without the key in the journal.
    #[must_use]
    pub(crate) fn purchase_key(&self, request: &[u8; 32]) -> PurchaseKey {
        PurchaseKey(self.quotes.id(&hex::encode(request)).0)
    }

    /// The notices about budgets with a webhook, of which someone has to tell it; `None` if they were taken before.
    #[must_use]
    pub(crate) fn take_budget_notices(&self) -> Option<mpsc::Receiver<BudgetNotice>> {
        self.engine.take_notices()
    }

    /// The requests that wait for the operator's approval.
    #[must_use]
    pub(crate) fn approvals(&self) -> &OperatorApprovals {
        &self.approvals
    }

    /// Approves a pending payment, and further ones to its host, payee and asset up to its price for as long as `lasts`.
    ///
    /// # Errors
    /// It no longer waits, or the approval cannot be recorded.
    pub(crate) async fn approve_always(
        &self,
        id: u64,
        lasts: Duration,
    ) -> Result<PendingApproval, ApprovalError> {
        let (pending, approval) = self.approvals.draft(id, lasts)?;
        let record = approval.clone();
        let recorded = self.with_journal(move |journal| journal.add_approval(&record, record.since)).await;
        let standing_id = recorded.ok_or(ApprovalError::ShuttingDown)??;
        let approval = StandingApproval { id: standing_id, ..approval };
        tracing::info!(approval = standing_id, host = approval.host, payee = %approval.payee, "approved in advance");
        // This also releases the pending payment, unless its client has left.
        self.approvals.apply(approval);
        Ok(pending)
    }

    /// Revokes a standing approval at once, and for good.
    ///
    /// # Errors
    /// There is none, or the journal cannot be written.
    pub(crate) async fn revoke_approval(&self, id: u64) -> Result<(), ApprovalError> {
        let is_applied = self.approvals.end(id);
        let revoked = self.with_journal(move |journal| journal.revoke_approval(id)).await;
        let is_recorded = revoked.ok_or(ApprovalError::ShuttingDown)??;
        if is_applied || is_recorded { Ok(()) } else { Err(ApprovalError::NotStanding(id)) }
    }

    /// The hosts that are not paid because they did not deliver.
    #[must_use]
    pub fn paused_hosts(&self) -> Vec<PausedHost> {
        self.pauses.list()
    }

    /// The host delivered what was paid for.
    pub(crate) fn delivered(&self, host: &HostName) {
        self.pauses.delivered(host);
    }

    /// The host may have taken a payment, and did not deliver. If that was one too many, pauses it, first in memory and
    /// then in the journal.
    pub(crate) async fn undelivered(&self, host: &HostName) {
        if let Some(paused) = self.count_undelivered(host) {
            self.record_pause(paused).await;
        }
    }

    /// The same where nothing can wait: `runtime` records the pause.
    pub(crate) fn undelivered_at_once(&self, host: &HostName, runtime: &Handle) {
        if let Some(paused) = self.count_undelivered(host) {
            let payments = self.clone();
            runtime.spawn(async move { payments.record_pause(paused).await });
        }
    }

    fn count_undelivered(&self, host: &HostName) -> Option<PausedHost> {
        let paused = self.pauses.undelivered(host)?;
        tracing::warn!(
            %host,
            "paused: the host took several payments in a row without delivering, and is not paid until `tollpass resume {host}`"
        );
        Some(paused)
    }

    /// Compares an offer with the lowest price that was paid before for the same request, which `name` names by method and
    /// URL. If it is too far above, pauses the host, first in memory and then in the journal.
    ///
    /// # Errors
    /// The host is paused.
    pub(crate) async fn check_rise(&self, name: &str, offer: &Offer, host: &HostName) -> Result<(), Refusal> {
        if !self.paid_prices.is_watching() {
            return Ok(());
        }
        let price = offer.terms().price;
        let request = self.without_query(name, &price.asset);
        let Some(lowest) = self.paid_prices.too_far_above(&request, price.amount) else { return Ok(()) };
        if let Some(paused) = self.pauses.price_rose(host) {
            tracing::warn!(
                %host,
                %price,
                %lowest,
                "paused: the host raised a price by more than limits.price_rise_percent, and is not paid until `tollpass resume {host}`"
            );
            self.record_pause(paused).await;
        }
        self.pauses.check(host)
    }

    /// Remembers the price that a host was paid for the request that `name` names by method and URL.
    pub(crate) fn learn_paid(&self, name: &str, price: &Money, host: &HostName) {
        if !self.paid_prices.is_watching() {
            return;
        }
        let request = self.without_query(name, &price.asset);
        let paid = PaidPrice { host: HostName::clone(host), lowest: price.amount };
        if !self.paid_prices.learn(request, &paid) {
            return;
        }
        let most = self.paid_prices.most();
        let record = move |journal: &mut Journal| {
            if let Err(error) = journal.learn_paid_price(&request, &paid, most) {
                tracing::error!(host = %paid.host, %error, "cannot record a price: after a restart, a rise is noticed later");
            }
        };
        // With a full mailbox, only this process knows the price.
        let _ = self.mailbox.try_send(Message::Journal(Box::new(record)));
    }

    /// The key of the prices of a request, which `name` names by method and URL, whatever its query.
    fn without_query(&self, name: &str, asset: &AssetId) -> RequestId {
        let path = name.split_once('?').map_or(name, |(path, _)| path);
        self.quotes.id(&format!("{path}\nin {}", self.known_asset(asset)))
    }

    /// Records a pause that is in force.
    async fn record_pause(&self, paused: PausedHost) {
        let host = paused.host.clone();
        let pauses = Arc::clone(&self.pauses);
        let record = move |journal: &mut Journal| {
            // The operator may have been quicker.
            if pauses.is_paused(&paused.host) { journal.pause_host(&paused, pauses.most()) } else { Ok(()) }
        };
        let reason = match self.with_journal(record).await {
            Some(Ok(())) => return,
            Some(Err(error)) => error.to_string(),
            None => "tollpass is shutting down".to_owned(),
        };
        tracing::error!(%host, reason, "cannot record that the host is paused: a restart ends that");
    }

    /// Pays a paused host again.
    ///
    /// # Errors
    /// It is not paused, or the journal cannot be written.
    pub(crate) async fn resume(&self, host: &str) -> Result<(), ResumeError> {
        let host = host_name(host);
        let (pauses, prices) = (Arc::clone(&self.pauses), Arc::clone(&self.paid_prices));
        let resumed = HostName::clone(&host);
        let resume = move |journal: &mut Journal| {
            let was_recorded = journal.resume_host(&resumed)?;
            // Within the journal's thread, so that a pause that is being recorded stays in neither or in both.
            prices.forget(&resumed);
            Ok(pauses.resume(&resumed) || was_recorded)
        };
        if !self.with_journal(resume).await.ok_or(ResumeError::ShuttingDown)?? {
            return Err(ResumeError::NotPaused(host.to_string()));
        }
        tracing::info!(%host, "resumed: the host is paid again");
        Ok(())
    }

    /// Has the rows of the ledger written sooner, for those who watch payments as they happen.
    #[must_use]
    pub(crate) fn watch_ledger(&self) -> LedgerWatch {
        self.ledger.watch()
    }

    /// The payer; `None` until its key is unlocked.
    #[must_use]
    pub(crate) fn payer(&self) -> Option<Address> {
        self.wallet().map(|wallet| wallet.payer().address)
    }

    /// The wallet; `None` until its key is unlocked.
    pub(super) fn wallet(&self) -> Option<&Wallet> {
        self.engine.payer.get()
    }

    /// What is known of the node and the disk.
    pub(super) fn conditions(&self) -> &Arc<Conditions> {
        &self.engine.conditions
    }

    /// Waits for work on the journal; `None` if the service has stopped.
    pub(super) async fn with_journal<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Option<Result<T, JournalError>> {
        let (reply, answer) = oneshot::channel();
        let work = move |journal: &mut Journal| {
            // The caller may have stopped waiting.
            let _ = reply.send(work(journal));
        };
        self.mailbox.send(Message::Journal(Box::new(work))).await.ok()?;
        answer.await.ok()
    }

    /// The same asset; for the channel contract's token, the token itself once it is known.
    #[must_use]
    pub(crate) fn known_asset(&self, asset: &AssetId) -> AssetId {
        match asset {
            AssetId::ChannelToken => {
                self.engine.lock().engine.account().map_or(AssetId::ChannelToken, Account::token_asset)
            }
            AssetId::Token(_) => asset.clone(),
        }
    }

    /// Remembers the URL of the REST interface of the seller that made `offer`; `paid` is the paid URL.
    pub fn learn_seller_url(&self, offer: &Offer, paid: &Uri) {
        // A remembered offer has no such URL.
        let (Some(path), Some(scheme), Some(authority)) =
            (offer.rest_path(), paid.scheme_str(), paid.authority())
        else {
            return;
        };
        let url = format!("{scheme}://{authority}{path}");
        if self.seller_urls.learn(host_name(authority.host()), offer.terms().payee, url) {
            // Recorded immediately, because after a crash the seller is queried; with a full mailbox, soon.
            let _ = self.mailbox.try_send(Message::SellerUrlLearned);
        }
    }

    /// Sorts offers by which to pay: those that the rule permits and the account can pay, then those of which that is not
    /// certain yet, each in the order that the rule prefers; then the others.
    #[must_use]
    pub fn sort(&self, offers: Vec<Offer>, limit: &SpendLimit) -> Vec<Offer> {
        if offers.len() < 2 {
            return offers;
        }
        let (certainties, token): (Vec<u8>, _) = {
            let engine = &self.engine.lock().engine;
            let certainty = |offer| match engine.check(offer, limit) {
                Ok(()) => u8::from(engine.is_undecided(offer, limit)),
                Err(_) => 2,
            };
            (offers.iter().map(certainty).collect(), engine.account().map(Account::token_asset))
        };
        let terms: Vec<Terms> = offers.iter().map(Offer::terms).collect();
        let keys = limit.preference.keys(&limit.max_price, &terms, token.as_ref());
        let mut sorted: Vec<_> = certainties.into_iter().zip(keys).zip(offers).collect();
        sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
        sorted.into_iter().map(|(_, offer)| offer).collect()
    }

    /// Checks an offer against the rule, and against the account once it is known. [`Payments::pay`] checks it again.
    ///
    /// # Errors
    /// Why it is not paid.
    pub fn check(&self, offer: &Offer, limit: &SpendLimit) -> Result<(), Refusal> {
        self.pauses.check(&limit.host)?;
        self.engine.lock().engine.check(offer, limit)
    }

    /// Counts what a dry run would pay for an offer.
    ///
    /// # Errors
    /// A budget that does not allow it.
    pub(crate) fn rehearse(&self, offer: &Offer, limit: &SpendLimit) -> Result<(), Refusal> {
        Ok(self.engine.rehearse(limit.clone(), &offer.terms().price)?)
    }

    /// Checks that anything is signed at all, and for the client of this limit.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn check_allowed(&self, limit: &SpendLimit) -> Result<(), Refusal> {
        self.engine.lock().engine.check_allowed(limit)
    }

    /// Whether a purchase may have been paid for by a request that has ended.
    pub(crate) fn has_purchases_in_doubt(&self) -> bool {
        self.engine.lock().engine.has_purchases_in_doubt()
    }

    /// Checks that a purchase may be paid for in another scheme.
    ///
    /// # Errors
    /// An earlier payment for it may still be redeemed, or was taken a short time ago.
    pub(crate) fn check_purchase(&self, key: PurchaseKey) -> Result<(), Refusal> {
        self.engine.lock().engine.check_purchase(key)
    }

    /// Whether an approver must be asked about an offer.
    ///
    /// # Errors
    /// The policy does not want to pay.
    pub(crate) fn must_ask(&self, offer: &Offer, limit: &SpendLimit) -> Result<bool, Refusal> {
        self.engine.lock().engine.must_ask(&limit.hooks, offer)
    }

    /// Asks for a signed payment for `request`, and waits for approval, a channel, an opening or a top-up until `deadline`.
    /// `consultant` asks the user's approver about the request. Nothing is signed if the future is dropped before it
    /// completes.
    ///
    /// # Errors
    /// The refusal.
    pub async fn pay(
        &self,
        mut request: PaidRequest,
        offer: Offer,
        limit: SpendLimit,
        deadline: Instant,
        consultant: &dyn Consultant,
    ) -> Result<Box<Lease>, Refusal> {
        self.pauses.check(&limit.host)?;
        request.run.as_ref().map_or(Ok(()), |run| run.check())?;
        let permit = match request.permit.take() {
            Some(permit) => permit,
            None => Arc::new(Arc::clone(&self.permits).try_acquire_owned().map_err(|_| Refusal::Busy)?),
        };
        let id = PurchaseId(self.next.fetch_add(1, Ordering::Relaxed));
        let (key, occasion) = (request.key, request.occasion);
        let (engine, mailbox) = (Arc::clone(&self.engine), self.mailbox.clone());
        let accounts = (Arc::clone(&self.spending), Arc::clone(&self.ledger));
        let host = (Arc::clone(&self.pauses), HostName::clone(&limit.host));
        let mut purchase =
            PurchaseGuard::new(id, deadline, engine, mailbox, accounts, host, (request, permit));
        let input = if offer.is_one_shot() {
            let mut nonce = [0; 32];
            OsRng.fill_bytes(&mut nonce);
            purchase.hold(nonce, &offer);
            Input::DemandOneShot { purchase: id, offer, limit, deadline, nonce, key, occasion }
        } else {
            Input::Demand { purchase: id, offer, limit, deadline }
        };
        purchase.ask(input, consultant, None).await
    }

    /// Sets the header that proves to a seller who pays. Waits for the key to be unlocked.
    ///
    /// # Errors
    /// The host is paused, or the signer did not sign.
    pub(crate) async fn sign_in(
        &self,
        challenge: &SignIn,
        host: &HostName,
        by: Instant,
        headers: &mut HeaderMap,
    ) -> Result<(), Refusal> {
        self.pauses.check(host)?;
        let wallet = self.engine.payer.wait().await;
        let signature = wallet.sign_in(challenge, by).await?;
        challenge.attach(wallet.payer().address, &signature, headers);
        Ok(())
    }

    /// What was paid to whom since the service was started; also available after it has stopped.
    #[must_use]
    pub fn report(&self) -> SpendingReport {
        let mut spending = lock(&self.spending);
        spending.free(&self.engine.freed);
        SpendingReport { from: self.engine.payer.get().and_then(Wallet::account), ..spending.report() }
    }

    /// An account for a run: it counts what is paid for its requests, and limits that.
    #[must_use]
    pub fn open_run(&self, terms: RunTerms, place: RunPlace) -> Arc<RunAccount> {
        let id = self.next_run.fetch_add(1, Ordering::Relaxed);
        let spending = SpendingTotals::new(self.report_payees, unix_millis());
        let engine = Arc::clone(&self.engine);
        let run = Arc::new(RunAccount::open(id, place, terms, spending, engine));
        let mut runs = lock(&self.runs);
        runs.retain(|run| run.strong_count() > 0);
        runs.push(Arc::downgrade(&run));
        run
    }

    /// The runs that are open.
    #[must_use]
    pub fn open_runs(&self) -> OpenRuns {
        let runs = lock(&self.runs);
        OpenRuns::new(runs.iter().filter_map(Weak::upgrade).filter(|run| run.is_open()).collect())
    }

    /// What was paid to whom for a run.
    #[must_use]
    pub fn run_report(&self, run: &RunAccount) -> SpendingReport {
        SpendingReport { from: self.engine.payer.get().and_then(Wallet::account), ..run.report() }
    }

    /// What the budgets of a run have spent, those around it included.
    pub(crate) fn run_budgets(&self, run: &RunAccount) -> Vec<BudgetView> {
        let mut views = self.budgets();
        views.retain(|view| run.counts_in(&view.name));
        views
    }

    /// What each budget has spent.
    pub fn budgets(&self) -> Vec<BudgetView> {
        self.engine.budgets()
    }

    /// Everything that is held for payments without a certain outcome.
    pub fn holds(&self) -> Vec<ListedHold> {
        let holds = self.engine.holds();
        let listed = holds.into_iter().map(|hold| {
            let asset = self.known_asset(&hold.held.asset);
            ListedHold::new(hold, asset)
        });
        listed.collect()
    }

    /// A seller made offers that cannot be paid; each is named with the reason.
    pub(crate) fn count_unsupported(&self, offers: Vec<String>) {
        self.unsupported.add(offers);
    }

    /// The offers that could not be paid since the start, the most frequent ones first.
    pub fn unsupported(&self) -> Vec<UnsupportedOffers> {
        self.unsupported.list()
    }

    /// Whether nothing is signed.
    pub fn is_frozen(&self) -> bool {
        self.engine.lock().engine.is_frozen()
    }

    /// Ends signing at once, or allows it again; also for later runs.
    ///
    /// # Errors
    /// It could not be recorded. Signing has ended nevertheless, but only for this run; or it was not allowed again.
    pub(crate) async fn freeze(&self, is_frozen: bool) -> Result<(), ChannelAccessError> {
        if is_frozen {
            // At once: the actor may be waiting for the disk.
            self.engine.freeze(true);
        }
        let (reply, done) = oneshot::channel();
        self.send(Message::Freeze { is_frozen, reply }).await?;
        let done = done.await.map_err(|_| ChannelAccessError::ShuttingDown)?;
        done.map_err(ChannelAccessError::Failed)
    }

    /// All channels; `None` if the service has stopped.
    pub async fn list(&self) -> Option<Listing> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::List(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Waits until no transaction is pending, including those of an earlier process.
    pub async fn await_transactions(&self) {
        let (reply, answer) = oneshot::channel();
        // If the service has stopped, there is nothing to wait for.
        if self.send(Message::AwaitTransactions(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Stops payments, but not channel operations, which continue until [`Payments::stop`].
    pub async fn finish(&self) {
        // If the service has stopped, it no longer pays.
        let _ = self.send(Message::Finish).await;
    }

    /// Stops the service. The task ends when the last lease has returned.
    pub async fn stop(&self) {
        // It may already have stopped.
        let _ = self.send(Message::Stop).await;
    }

    /// A channel's state in the engine.
    pub(crate) async fn channel(&self, id: ChannelId) -> Result<Channel, ChannelAccessError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Look { channel: id, reply }).await?;
        answer.await.map_err(|_| ChannelAccessError::ShuttingDown)?.ok_or(ChannelAccessError::Unknown(id))
    }

    /// Waits until no request uses the channel, and keeps it locked while the lock exists.
    pub(crate) async fn lock_channel(
        &self,
        channel: ChannelId,
    ) -> Result<(ChannelLock, Channel), ChannelAccessError> {
        // Before the seller is asked to sign that the channel be closed, after which it takes no more payments.
        if self.is_frozen() {
            return Err(OpRefused::Frozen.into());
        }
        let reserved = self.mailbox.clone().reserve_owned().await;
        let permit = reserved.map_err(|_| ChannelAccessError::ShuttingDown)?;
        let id = LockId(self.next.fetch_add(1, Ordering::Relaxed));
        let guard = ChannelLock::new(channel, id, permit);
        let (reply, answer) = oneshot::channel();
        self.send(Message::Lock { channel, lock: id, reply }).await?;
        let known = answer.await.map_err(|_| ChannelAccessError::ShuttingDown)??;
        Ok((guard, known))
    }

    /// Fails for an amount that `Payments::start_op` would refuse.
    pub(crate) fn check_amount(&self, op: &ChannelOp) -> Result<(), ChannelAccessError> {
        Ok(self.engine.lock().engine.check_amount(op)?)
    }

    /// Sends a transaction and waits for its confirmation.
    pub(crate) async fn start_op(&self, op: ChannelOp) -> Result<ChangedChannel, ChannelAccessError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::ChannelOp { op, reply }).await?;
        match answer.await.map_err(|_| ChannelAccessError::ShuttingDown)?? {
            Ok(Some(changed)) => Ok(changed),
            Ok(None) => Err(ChannelAccessError::Failed("no transaction took effect; try again".to_owned())),
            Err(OpFailure { reason, .. }) => Err(ChannelAccessError::Failed(reason)),
        }
    }

    /// The chain, the account and its key.
    pub(crate) async fn chain_context(&self) -> Result<ChainContext, ChannelAccessError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::ChainContext(reply)).await?;
        let context = answer.await.map_err(|_| ChannelAccessError::ShuttingDown)?;
        context.ok_or_else(|| self.engine.lock().engine.why_no_account().into())
    }

    /// Applies the result of a sync that the user requested.
    pub(crate) async fn synced(&self, synced: Synced) -> Result<(), ChannelAccessError> {
        self.send(Message::Synced(synced)).await
    }

    /// Applies the total that a seller claims to hold; `proven` if our own signature proves it.
    pub(crate) async fn correct(
        &self,
        channel: ChannelId,
        total: Amount,
        proven: bool,
    ) -> Result<(), ChannelAccessError> {
        self.send(Message::Learned { channel, total, proven }).await
    }

    /// The URL of the seller's REST interface, as named by the channel's host; for a channel without a host, the URL
    /// from the only host that names its receiver.
    pub(crate) fn seller_url(&self, id: ChannelId) -> Option<String> {
        let host = self.engine.lock().engine.host(&id).cloned();
        self.seller_urls.of(host, id.receiver)
    }

    /// An unused closing signature.
    pub(crate) fn closing_signature(&self, channel: &ChannelId) -> Option<ClosingSignature> {
        self.closing_signatures.get(channel)
    }

    /// Stores a closing signature and records it before returning: after a crash the seller would not give another.
    pub(crate) async fn keep_closing_signature(
        &self,
        channel: ChannelId,
        signature: ClosingSignature,
    ) -> Result<(), ChannelAccessError> {
        self.closing_signatures.insert(channel, signature);
        let (reply, recorded) = oneshot::channel();
        self.send(Message::ClosingSignature { channel, signature, reply }).await?;
        recorded.await.map_err(|_| ChannelAccessError::ShuttingDown)
    }

    /// Removes a used closing signature.
    pub(crate) fn forget_closing_signature(&self, channel: &ChannelId) {
        self.closing_signatures.remove(channel);
    }

    /// The channels without a payment for `after` whose seller has another channel.
    pub(crate) fn idle_channels(&self, after: Duration) -> Vec<ChannelId> {
        self.engine.lock().engine.idle_channels(Instant::now(), after)
    }

    /// Whether the channel, which the caller has locked, is still idle.
    pub(crate) fn is_still_idle(&self, channel: &ChannelId, after: Duration) -> bool {
        self.engine.lock().engine.is_still_idle(channel, Instant::now(), after)
    }

    pub(super) async fn send(&self, message: Message) -> Result<(), ChannelAccessError> {
        self.mailbox.send(message).await.map_err(|_| ChannelAccessError::ShuttingDown)
    }
}
