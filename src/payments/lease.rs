//! A signed payment leased to one client request.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout_at;

use super::consultant::Consultant;
use super::journal::Journal;
use super::ledger::{LedgerGuard, LedgerQueue, PaidRequest};
use super::message::Message;
use super::pauses::HostPauses;
use super::payer;
use super::payer::{ExternalRequest, Signing};
use super::run_account::{RunAccount, RunPurchase};
use super::shared_engine::{Asked, SharedEngine};
use super::spending::{Delivery, PaymentGuards, SpendingTotals};
use crate::chain::signer::NotSigned;
use crate::protocol::engine::{HostName, Input, Loss, Occasion, Outcome, PurchaseId, PurchaseReply};
use crate::protocol::refusal::Awaited;
use crate::protocol::schemes::{Payer, Receipt};
use crate::protocol::{Channel, Draft, Offer, Refusal, Signature};

/// A signed payment and its channel, leased to one client request.
///
/// A lease always returns: it is accepted, rejected or dropped. If dropped before [`Lease::begin`], the payment counts
/// as never sent; later, as in doubt.
#[must_use]
#[derive(Debug)]
pub struct Lease {
    draft: Draft,
    signature: Signature,
    payer: Payer,
    purchase: Box<PurchaseGuard>,
}

/// The response to an accepted authorization, on its way to the client. Until this is dropped, the journal knows the purchase:
/// after a crash, the next request for it does not pay again. Nor does it if the client lost the response.
#[must_use]
#[derive(Debug)]
pub struct Undelivered {
    nonce: [u8; 32],
    engine: Arc<SharedEngine>,
    /// Whether the service waits for this before it stops.
    is_awaited: bool,
    /// Known if the client has not got the whole response.
    loss: Option<Loss>,
    /// Keeps the actor running until the end is recorded.
    _mailbox: mpsc::Sender<Message>,
}

impl Undelivered {
    /// A client takes the response: the service does not stop before this is dropped.
    pub(crate) fn begin(&mut self) {
        if !std::mem::replace(&mut self.is_awaited, true) {
            self.engine.begin_delivery();
        }
    }

    /// The client left, so long ago.
    pub(crate) fn left(&mut self, ago: Duration) {
        self.loss = Some(Loss::ClientLeft { ago });
    }

    /// The client has the whole response, after all.
    pub(crate) fn end(mut self) {
        self.loss = None;
    }

    /// The seller has not sent the whole response.
    pub(crate) fn cut_off(&mut self) {
        self.loss = Some(Loss::CutOff);
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        let input = match self.loss {
            Some(loss) => Input::Lost(self.nonce, loss),
            None => Input::Delivered(self.nonce),
        };
        self.engine.end_delivery(input, self.is_awaited);
    }
}

/// One purchase of a client request. When dropped, it reports the outcome to the engine, without waiting.
#[derive(Debug)]
pub(super) struct PurchaseGuard {
    id: PurchaseId,
    /// When the engine refuses it, at the latest.
    deadline: Instant,
    delivery: Delivery,
    /// Whether the seller took the payment and did not serve.
    is_unserved: bool,
    /// Whether the request was served without the payment.
    is_unneeded: bool,
    /// Accounts for the payment in the spending reports.
    payment: Option<PaymentGuards>,
    ledger: LedgerGuard,
    pauses: Arc<HostPauses>,
    /// The host that is paid.
    host: HostName,
    /// The same with its port, for the report.
    host_and_port: Arc<str>,
    spending: Arc<Mutex<SpendingTotals>>,
    /// The run whose program sent the request.
    run: Option<Arc<RunAccount>>,
    /// Counts it among the requests of the run.
    _waits: Option<RunPurchase>,
    engine: Arc<SharedEngine>,
    /// Keeps the actor running until the outcome is reported.
    mailbox: mpsc::Sender<Message>,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Lease {
    /// Sets the headers that carry the payment.
    pub fn attach(&self, headers: &mut HeaderMap) {
        self.draft.attach(&self.payer, &self.signature, headers);
    }

    /// The price, the channel and the new total.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// Whether an earlier request has presented the payment, too. Known once this one has.
    pub fn is_joined(&self) -> bool {
        self.purchase.ledger.is_joined()
    }

    /// Marks the payment as in doubt; call it right before the payment is sent.
    pub fn begin(&mut self) {
        self.purchase.begin(&self.draft);
    }

    /// Returns a payment that provably was not sent this time. Earlier presentations stay counted.
    pub fn unsent(mut self) {
        self.purchase.delivery = Delivery::NotSent;
    }

    /// Returns a payment that the seller took, judging by the response, with what that states about it. Drop the result once
    /// the client has the response.
    pub fn accept(mut self, receipt: Receipt, statement: Option<String>) -> Option<Undelivered> {
        self.purchase.ledger.stated(receipt, statement);
        self.purchase.delivery = Delivery::Accepted;
        let nonce = self.draft.nonce()?;
        let (engine, mailbox) = (Arc::clone(&self.purchase.engine), self.purchase.mailbox.clone());
        engine.signatures.remove(&nonce);
        Some(Undelivered { nonce, engine, is_awaited: false, loss: None, _mailbox: mailbox })
    }

    /// Returns a payment in doubt, with what the response states about it.
    pub fn doubted(mut self, statement: Option<String>) {
        self.purchase.ledger.stated(Receipt::Unstated, statement);
    }

    /// Returns a payment that the seller took without serving, with what its response states about it.
    pub fn taken(mut self, statement: Option<String>) {
        self.purchase.ledger.stated(Receipt::Stated, statement);
        self.purchase.ledger.taken();
        self.purchase.delivery = Delivery::Accepted;
        self.purchase.is_unserved = true;
    }

    /// Returns a payment in doubt whose request was served without it: it counts, and later requests do not continue it.
    pub fn unneeded(mut self) {
        self.purchase.is_unneeded = true;
    }

    /// `request` for another payment, after the seller did not take this one, which was sent ahead and stays redeemable.
    #[must_use]
    pub fn outdates(&self, request: PaidRequest) -> PaidRequest {
        let (occasion, permit) = (Occasion::Outdated(self.purchase.id), Arc::clone(&self.purchase.permit));
        PaidRequest { occasion, permit: Some(permit), ..request }
    }

    /// Handles another 402 of the seller according to the policy: with another payment, the same one after a pause, or
    /// none. `consultant` asks the user's approver about the request.
    ///
    /// # Errors
    /// The refusal.
    pub async fn reject(
        self: Box<Self>,
        offer: Offer,
        consultant: &dyn Consultant,
    ) -> Result<Box<Self>, Refusal> {
        self.warn_of_foreign_total(&offer);
        let input = Input::Answer(self.purchase.id, Outcome::Rejected(Box::new(offer)));
        let Self { draft, signature, purchase, .. } = *self;
        purchase.ask(input, consultant, Some((draft, signature))).await
    }

    /// Asks for the same payment again, after a pause, since it is not clear what happened to it.
    ///
    /// # Errors
    /// It stays unclear.
    pub async fn repeat(self: Box<Self>, consultant: &dyn Consultant) -> Result<Box<Self>, Refusal> {
        let input = Input::Answer(self.purchase.id, Outcome::Unclear);
        let Self { draft, signature, purchase, .. } = *self;
        purchase.ask(input, consultant, Some((draft, signature))).await
    }

    /// Warns if the seller proves a total above everything that this state directory can have signed.
    fn warn_of_foreign_total(&self, offer: &Offer) {
        let Some(channel) = self.draft.on_channel().map(|draft| draft.channel) else { return };
        let exposure = self.purchase.engine.lock().engine.channel(&channel).map(Channel::exposure);
        let claimed = offer.claimed_total();
        let Some(total) = claimed.filter(|total| exposure.is_some_and(|most| *total > most)) else { return };
        if offer.proves_total(channel, &self.payer) {
            tracing::warn!(
                %channel,
                %total,
                "the seller proves a total that this state directory never signed: it is an outdated copy, or another program or \
                 state directory pays with the same key; give each a key of its own"
            );
        }
    }
}

impl PurchaseGuard {
    pub(super) fn new(
        id: PurchaseId,
        deadline: Instant,
        engine: Arc<SharedEngine>,
        mailbox: mpsc::Sender<Message>,
        (spending, ledger): (Arc<Mutex<SpendingTotals>>, Arc<LedgerQueue>),
        (pauses, host): (Arc<HostPauses>, HostName),
        (request, permit): (PaidRequest, Arc<OwnedSemaphorePermit>),
    ) -> Box<Self> {
        // Boxed: it passes through several futures, each of which would be larger by it.
        Box::new(Self {
            id,
            deadline,
            delivery: Delivery::NotSent,
            is_unserved: false,
            is_unneeded: false,
            payment: None,
            host_and_port: Arc::clone(&request.host),
            run: request.run.clone(),
            _waits: request.run.as_ref().map(RunAccount::enter),
            ledger: LedgerGuard::new(ledger, request),
            pauses,
            host,
            spending,
            engine,
            mailbox,
            permit,
        })
    }

    /// The journal is about to record a one-shot authorization with this nonce for the offer.
    pub(super) fn hold(&mut self, nonce: [u8; 32], offer: &Offer) {
        self.ledger.hold(nonce, offer);
    }

    /// Waits for the engine's decision, and signs the payment that it grants. `earlier` is the one before it, which an
    /// external signer need not sign again.
    ///
    /// # Errors
    /// The refusal.
    pub(super) async fn ask(
        mut self: Box<Self>,
        input: Input,
        consultant: &dyn Consultant,
        earlier: Option<(Draft, Signature)>,
    ) -> Result<Box<Lease>, Refusal> {
        if self.mailbox.is_closed() {
            return Err(Refusal::ShuttingDown);
        }
        let is_unclear = matches!(&input, Input::Answer(_, Outcome::Unclear));
        let mut asked = self.engine.ask(self.id, input);
        // The engine has processed the previous payment; the one it grants now has not been sent.
        self.delivery = Delivery::NotSent;
        if let Some(payment) = &mut self.payment {
            payment.answered();
        }
        if is_unclear {
            self.ledger.unclear();
        } else {
            self.ledger.answered();
        }
        let draft = loop {
            match self.reply(asked).await {
                PurchaseReply::Granted(draft) => break draft,
                PurchaseReply::Refused(refusal) => {
                    if let Refusal::PaidAnswerLost { total } = &refusal {
                        if let Some(payment) = &mut self.payment {
                            payment.registered(*total);
                        }
                        self.ledger.registered(*total);
                    }
                    match &refusal {
                        Refusal::PaidNotDelivered { .. } => self.ledger.taken(),
                        Refusal::StillUnclear { .. } => self.ledger.unclear(),
                        _ => {}
                    }
                    return Err(refusal);
                }
                PurchaseReply::Consult(question) => {
                    let deadline = tokio::time::Instant::from_std(self.deadline);
                    let Ok(decision) = timeout_at(deadline, consultant.consult(&question)).await else {
                        return Err(Refusal::Deadline { waited_for: Awaited::Request });
                    };
                    if self.mailbox.is_closed() {
                        return Err(Refusal::ShuttingDown);
                    }
                    asked = self.engine.ask(self.id, Input::Consulted(self.id, decision));
                }
            }
        };
        // The host may have been paused while this request waited for others to the same host.
        self.pauses.check(&self.host)?;
        // So may the time of its run be over.
        self.run.as_ref().map_or(Ok(()), |run| run.check())?;
        // Payments are granted only once the payer is known.
        let wallet = self.engine.payer.get().ok_or(Refusal::ShuttingDown)?;
        let (signing, payer) = (wallet.sign(&draft)?, wallet.payer());
        if self.payment.is_none() {
            let (run, host) = (self.run.as_deref(), &self.host_and_port);
            self.payment = Some(PaymentGuards::new(&self.spending, run, host, &draft));
        }
        let signature = match (signing, earlier) {
            (Signing::Signed(signature), _) => signature,
            (Signing::Asks(_), Some((same, signature))) if same == draft => signature,
            (Signing::Asks(request), _) => match self.kept(&draft, &request) {
                Some(signature) => signature,
                None => {
                    // Boxed, so that payments with a local key do not carry it through several futures.
                    let signed = Box::pin(self.sign_externally(request, draft.clone())).await;
                    let signature;
                    (self, signature) = signed?;
                    signature
                }
            },
        };
        // Boxed: it passes through several futures, each of which would copy it.
        Ok(Box::new(Lease { draft, signature, payer, purchase: self }))
    }

    /// Asks an external signer, in a task of its own: if the client leaves, the signer still answers, and only its refusal
    /// shows that nothing was signed. Until then, the payment counts as one in doubt.
    ///
    /// # Errors
    /// The refusal. Unless it is certain that nothing was signed, the payment is in doubt.
    async fn sign_externally(
        mut self: Box<Self>,
        request: ExternalRequest,
        draft: Draft,
    ) -> Result<(Box<Self>, Signature), Refusal> {
        // A client that leaves before that costs nothing.
        let turn = request.turn(self.deadline).await?;
        self.begin(&draft);
        let asking = tokio::spawn(async move {
            let signed = request.ask(turn).await;
            if signed.as_ref().is_err_and(NotSigned::is_certain) {
                self.delivery = Delivery::NotSent;
            }
            let signed = match (signed, draft.nonce()) {
                // The next request for the same purchase may have to present it, also after a restart.
                (Ok(signature), Some(nonce)) => self.keep(nonce, signature).await.map(|()| signature),
                (signed, _) => signed.map_err(payer::refusal),
            };
            (self, signed)
        });
        // A panic has left the payment in doubt; so does the end of the runtime.
        let (mut guard, signed) = asking.await.map_err(|_| Refusal::ShuttingDown)?;
        let signature = signed?;
        // It is here, and nowhere else yet.
        guard.delivery = Delivery::NotSent;
        Ok((guard, signature))
    }

    /// What the signer signed of the same payment before.
    fn kept(&self, draft: &Draft, request: &ExternalRequest) -> Option<Signature> {
        let kept = self.engine.signatures.get(&draft.nonce()?)?;
        // Another account may be configured by now.
        request.is_signed_by(&kept).then_some(kept)
    }

    /// Keeps what the signer signed of an authorization, in the journal, too.
    ///
    /// # Errors
    /// The journal cannot be written.
    async fn keep(&self, nonce: [u8; 32], signature: Signature) -> Result<(), Refusal> {
        let (reply, kept) = oneshot::channel();
        let work = move |journal: &mut Journal| {
            // The runtime may be shutting down.
            let _ = reply.send(journal.keep_signature(&nonce, &signature));
        };
        let sent = self.mailbox.send(Message::Journal(Box::new(work))).await;
        sent.map_err(|_| Refusal::ShuttingDown)?;
        let kept = kept.await.map_err(|_| Refusal::ShuttingDown)?;
        kept.map_err(|error| Refusal::StoreFailed(error.to_string()))?;
        self.engine.signatures.insert(nonce, signature);
        Ok(())
    }

    /// Marks the payment as in doubt.
    fn begin(&mut self, draft: &Draft) {
        self.delivery = Delivery::InDoubt;
        if let Some(payment) = &mut self.payment {
            payment.begin(draft);
        }
        self.ledger.begin(draft);
    }

    /// Waits for the engine's reply.
    async fn reply(&self, asked: Asked) -> PurchaseReply {
        let mut reply = match asked {
            Asked::Replied(reply) => return reply,
            Asked::Waits(reply) => reply,
        };
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let reply = match timeout_at(deadline, &mut reply).await {
            Ok(reply) => reply,
            Err(_) => {
                // The actor, which tells the engine the time, may be waiting for the disk.
                self.engine.submit(Input::Tick);
                reply.await
            }
        };
        reply.unwrap_or(PurchaseReply::Refused(Refusal::ShuttingDown))
    }
}

impl Drop for PurchaseGuard {
    fn drop(&mut self) {
        if let Some(payment) = &mut self.payment {
            payment.end(self.delivery);
        }
        match self.delivery {
            Delivery::NotSent => self.ledger.not_sent(),
            Delivery::InDoubt => self.ledger.in_doubt(),
            Delivery::Accepted => self.ledger.accepted(),
        }
        let input = match self.delivery {
            Delivery::NotSent => Input::Withdraw(self.id),
            Delivery::InDoubt if self.is_unneeded => Input::Answer(self.id, Outcome::Unneeded),
            Delivery::InDoubt => Input::Answer(self.id, Outcome::InDoubt),
            Delivery::Accepted if self.is_unserved => Input::Answer(self.id, Outcome::Taken),
            Delivery::Accepted => Input::Answer(self.id, Outcome::Accepted),
        };
        self.engine.give_back(self.id, input);
    }
}
