//! The payments of one client request, as the ledger sees them.

use std::borrow::Cow;
use std::sync::Arc;

use super::event::PaymentEvent;
use super::queue::LedgerQueue;
use super::request::PaidRequest;
use super::row::LedgerState;
use crate::payments::clock::unix_millis;
use crate::protocol::schemes::Receipt;
use crate::protocol::{Amount, Draft, Offer, Terms};

/// Reports the payments of one client request to the ledger.
#[derive(Debug)]
pub(in crate::payments) struct LedgerGuard {
    queue: Arc<LedgerQueue>,
    request: Arc<PaidRequest>,
    /// The authorization of a one-shot scheme, whose first row the journal writes.
    held: Option<PaymentEvent>,
    sent: Option<SentPayment>,
    /// What the seller stated about the payment.
    receipt: Cow<'static, str>,
}

/// A payment that was sent.
#[derive(Debug)]
struct SentPayment {
    payment: u64,
    draft: Draft,
    /// The seller has responded to it with another 402.
    is_rejected: bool,
    /// The seller may have seen it before it is sent now, whatever becomes of that.
    was_presented: bool,
}

impl LedgerGuard {
    pub(in crate::payments) fn new(queue: Arc<LedgerQueue>, request: PaidRequest) -> Self {
        Self { queue, request: Arc::new(request), held: None, sent: None, receipt: Cow::default() }
    }

    /// The journal is about to record a one-shot authorization with this nonce for the offer.
    pub(in crate::payments) fn hold(&mut self, nonce: [u8; 32], offer: &Offer) {
        let held = self.event(self.queue.next_payment(), LedgerState::Held, offer.terms());
        // What is signed names the URL.
        let signed = if self.request.has_query { None } else { offer.statement() };
        let held = PaymentEvent { nonce: Some(nonce), offer: signed.map(Into::into), ..held };
        self.queue.expect(nonce, held.clone());
        self.held = Some(held);
    }

    /// A payment is about to be sent.
    pub(in crate::payments) fn begin(&mut self, draft: &Draft) {
        if self.sent.as_ref().is_some_and(|sent| sent.draft == *draft) {
            return;
        }
        self.end_sent(LedgerState::Refused);
        self.join(draft);
        let payment = match &mut self.held {
            Some(held) => {
                let sent = PaymentEvent { at: unix_millis(), state: LedgerState::Sent, ..held.clone() };
                let payment = sent.payment;
                self.queue.change(sent);
                payment
            }
            None => {
                let payment = self.queue.next_payment();
                let (price, payee, scheme) = (draft.price(), draft.payee(), draft.scheme());
                let sent = self.event(payment, LedgerState::Sent, Terms { price, payee, scheme });
                let channel = draft.on_channel().map(|draft| (draft.channel, draft.total));
                self.queue.begin(PaymentEvent { channel, ..sent });
                payment
            }
        };
        let draft = draft.clone();
        self.sent = Some(SentPayment { payment, draft, is_rejected: false, was_presented: false });
    }

    /// An earlier request for the same purchase has begun this payment: its rows go on.
    fn join(&mut self, draft: &Draft) {
        let Some(nonce) = draft.nonce() else { return };
        if self.held.as_ref().and_then(|held| held.nonce) == Some(nonce) {
            return;
        }
        if let Some(own) = self.held.as_ref().and_then(|held| held.nonce) {
            self.queue.forget(&own);
        }
        let joined = self.event(self.queue.next_payment(), LedgerState::Sent, draft.terms());
        self.held = Some(PaymentEvent { nonce: Some(nonce), is_joined: true, ..joined });
    }

    /// The seller has seen what was sent and asks again.
    pub(in crate::payments) fn answered(&mut self) {
        if let Some(sent) = &mut self.sent {
            (sent.is_rejected, sent.was_presented) = (true, true);
        }
    }

    /// What was sent may have reached the seller, and nothing is known about it.
    pub(in crate::payments) fn unclear(&mut self) {
        if let Some(sent) = &mut self.sent {
            (sent.is_rejected, sent.was_presented) = (false, true);
        }
    }

    /// The seller has stated that it took what was presented, and did not deliver.
    pub(in crate::payments) fn taken(&mut self) {
        self.end_sent(LedgerState::PaidNotDelivered);
    }

    /// The seller has proven that it holds `total` of what was presented.
    pub(in crate::payments) fn registered(&mut self, total: Amount) {
        let is_held = |sent: &SentPayment| sent.draft.on_channel().is_some_and(|draft| draft.total <= total);
        if self.sent.as_ref().is_some_and(is_held) {
            self.end_sent(LedgerState::PaidNotDelivered);
        }
    }

    /// What the seller stated about the payment.
    pub(in crate::payments) fn stated(&mut self, receipt: Receipt, statement: Option<String>) {
        self.receipt = match (receipt, statement) {
            (_, Some(statement)) => statement.into(),
            (Receipt::Stated, None) => "stated".into(),
            (Receipt::Unstated, None) => "".into(),
            (Receipt::NotCharged, None) => "not charged".into(),
        };
    }

    /// The seller took the payment.
    pub(in crate::payments) fn accepted(&mut self) {
        self.end_sent(LedgerState::Paid);
    }

    /// The outcome is unknown.
    pub(in crate::payments) fn in_doubt(&mut self) {
        self.end_sent(LedgerState::InDoubt);
    }

    /// The payment was not sent this time.
    pub(in crate::payments) fn not_sent(&mut self) {
        self.end_sent(LedgerState::Unsent);
    }

    fn end_sent(&mut self, state: LedgerState) {
        let Some(sent) = self.sent.take() else { return };
        let state = match state {
            LedgerState::Unsent | LedgerState::InDoubt if sent.is_rejected => LedgerState::Refused,
            LedgerState::Unsent if sent.was_presented || self.is_joined() => LedgerState::InDoubt,
            state => state,
        };
        let receipt = std::mem::take(&mut self.receipt);
        match &self.held {
            Some(held) => {
                self.queue.change(PaymentEvent { at: unix_millis(), state, receipt, ..held.clone() });
            }
            None => self.queue.end(sent.payment, state, receipt),
        }
    }

    /// Whether an earlier request has begun the payment that was sent.
    pub(in crate::payments) fn is_joined(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_joined)
    }

    fn event(&self, payment: u64, state: LedgerState, terms: Terms) -> PaymentEvent {
        let (request, at) = (Arc::clone(&self.request), unix_millis());
        PaymentEvent {
            payment,
            at,
            state,
            request,
            terms,
            channel: None,
            nonce: None,
            is_joined: false,
            offer: None,
            receipt: Cow::default(),
        }
    }
}

impl Drop for LedgerGuard {
    fn drop(&mut self) {
        if let Some(nonce) = self.held.as_ref().and_then(|held| held.nonce) {
            self.queue.forget(&nonce);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::protocol::channel::ChannelDraft;
    use crate::protocol::{Address, ChannelId};

    /// The states of a payment after `steps`.
    fn states(steps: impl FnOnce(&mut LedgerGuard, &Draft)) -> Vec<LedgerState> {
        let queue = Arc::new(LedgerQueue::new(8));
        let origin = (None, "b.example".parse().unwrap());
        let named = (Method::GET, &Uri::from_static("http://b.example/goods"));
        let request = PaidRequest::new(named, origin, Arc::new([]));
        let channel = ChannelId { receiver: Address([2; 20]), open_block: 7 };
        let draft =
            Draft::MicroRaiden(ChannelDraft { channel, total: 5.into(), price: 5.into(), is_query: false });
        steps(&mut LedgerGuard::new(Arc::clone(&queue), request), &draft);
        queue.take().events.iter().map(|event| event.state).collect()
    }

    #[test]
    fn what_was_presented_before_is_not_unsent() {
        let unsent = states(|guard, draft| {
            guard.begin(draft);
            guard.begin(draft);
            guard.not_sent();
        });
        assert!(unsent.is_empty(), "it has no row: {unsent:?}");
        let presented = states(|guard, draft| {
            guard.begin(draft);
            guard.unclear();
            guard.begin(draft);
            guard.not_sent();
        });
        assert_eq!(presented, [LedgerState::InDoubt]);
    }
}
