//! Authorizations that a seller may still redeem and whose request has ended: a later request for the same purchase
//! presents them again, instead of a second one that could be redeemed in addition.

use std::collections::BTreeMap;
use std::time::Duration;

use super::authorization::Authorization;
use super::purchase_key::PurchaseKey;
use crate::protocol::policy::SpendLimit;
use crate::protocol::schemes::Draft;
use crate::protocol::terms::Terms;
use crate::protocol::{Amount, Money, Refusal};

/// All authorizations that expire, from the moment that they are recorded.
#[derive(Debug, Default)]
pub(super) struct OpenAuthorizations {
    all: BTreeMap<[u8; 32], OpenAuthorization>,
    /// The nonces of each purchase, the oldest first.
    by_key: BTreeMap<PurchaseKey, Vec<[u8; 32]>>,
}

#[derive(Debug)]
struct OpenAuthorization {
    key: PurchaseKey,
    draft: Draft,
    terms: Terms,
    /// When it expires, in seconds since 1970.
    valid_before: u64,
    state: OpenState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenState {
    /// A request that has not ended presents it.
    InUse,
    /// The outcome is unclear, and no request presents it.
    Unclear,
    /// The seller took it and withheld the response; the purchase is not repeated until this time.
    Taken { until: u64 },
}

/// What a request for a purchase does.
#[derive(Debug)]
pub(super) enum Join {
    /// It needs an authorization of its own.
    Separate,
    /// It presents this one again.
    Present(Box<(Draft, Terms)>),
}

impl OpenAuthorizations {
    /// An authorization is about to be signed for a request, if it expires and belongs to a purchase.
    pub(super) fn begin(&mut self, authorization: &Authorization) {
        self.add(authorization, OpenState::InUse);
    }

    /// Adds what the journal has of an earlier run.
    pub(super) fn restore(&mut self, authorization: &Authorization, taken_until: Option<u64>) {
        self.add(authorization, taken_until.map_or(OpenState::Unclear, |until| OpenState::Taken { until }));
    }

    fn add(&mut self, authorization: &Authorization, state: OpenState) {
        let Authorization { nonce, terms, draft, key } = authorization;
        let (Some(key), Some(valid_before)) = (*key, draft.valid_before()) else { return };
        let (draft, terms) = (draft.clone(), terms.clone());
        self.all.insert(*nonce, OpenAuthorization { key, draft, terms, valid_before, state });
        self.by_key.entry(key).or_default().push(*nonce);
    }

    /// The request that presented it has ended without a certain outcome.
    pub(super) fn release(&mut self, nonce: &[u8; 32]) {
        if let Some(open) = self.all.get_mut(nonce).filter(|open| open.state == OpenState::InUse) {
            open.state = OpenState::Unclear;
        }
    }

    /// The seller took it, and withheld the response. True if it is known.
    pub(super) fn take(&mut self, nonce: &[u8; 32], until: u64) -> bool {
        let open = self.all.get_mut(nonce);
        open.map(|open| open.state = OpenState::Taken { until }).is_some()
    }

    /// It was accepted, or never signed.
    pub(super) fn end(&mut self, nonce: &[u8; 32]) {
        let Some(open) = self.all.remove(nonce) else { return };
        if let Some(nonces) = self.by_key.get_mut(&open.key) {
            nonces.retain(|other| other != nonce);
            if nonces.is_empty() {
                self.by_key.remove(&open.key);
            }
        }
    }

    /// Forgets those that can no longer be redeemed and whose purchase may be repeated; `retry_window` is in seconds.
    pub(super) fn forget_old(&mut self, now: u64, retry_window: u64) {
        let is_old = |open: &OpenAuthorization| match open.state {
            OpenState::InUse => false,
            OpenState::Unclear => open.valid_before.saturating_add(retry_window) <= now,
            OpenState::Taken { until } => until <= now && open.valid_before <= now,
        };
        let old: Vec<[u8; 32]> =
            self.all.iter().filter(|(_, open)| is_old(open)).map(|(nonce, _)| *nonce).collect();
        old.iter().for_each(|nonce| self.end(nonce));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// What a request for the purchase `key` does on these terms. One whose own request has not ended is never joined:
    /// identical requests at once are separate purchases.
    ///
    /// # Errors
    /// The purchase was paid for and not delivered a short time ago, or another payment could be redeemed in addition to
    /// those that may still be, and together they exceed the limit.
    pub(super) fn join(
        &mut self,
        key: PurchaseKey,
        terms: &Terms,
        limit: &SpendLimit,
        (now, retry_window): (u64, u64),
    ) -> Result<Join, Refusal> {
        let wait = |until: u64| Duration::from_secs(until.saturating_sub(now).max(1));
        let nonces = self.by_key.get(&key).into_iter().flatten();
        let ended =
            nonces.filter_map(|nonce| self.all.get(nonce)).filter(|open| open.state != OpenState::InUse);
        let ended: Vec<&OpenAuthorization> = ended.collect();
        let taken = ended.iter().filter_map(|open| match open.state {
            OpenState::Taken { until } => Some(until),
            OpenState::InUse | OpenState::Unclear => None,
        });
        if let Some(until) = taken.max().filter(|until| *until > now) {
            return Err(Refusal::PaidNotDelivered { retry_after: wait(until) });
        }
        let unclear = || ended.iter().filter(|open| open.state == OpenState::Unclear);
        let usable = unclear().find(|open| open.terms == *terms && open.draft.is_usable(now));
        if let Some(open) = usable {
            let found = Box::new((open.draft.clone(), open.terms.clone()));
            if let Some(nonce) = found.0.nonce()
                && let Some(open) = self.all.get_mut(&nonce)
            {
                open.state = OpenState::InUse;
            }
            return Ok(Join::Present(found));
        }
        let Some(last) = unclear().map(|open| open.valid_before).max() else { return Ok(Join::Separate) };
        let until = last.saturating_add(retry_window);
        let refusal = Refusal::OutcomeUnclear { retry_after: wait(until) };
        // Expired ones may have been taken, too.
        let is_same = unclear().all(|open| open.terms.price.asset == terms.price.asset);
        let has_expired = unclear().any(|open| open.valid_before <= now || open.terms == *terms);
        if !is_same || has_expired {
            return if until > now { Err(refusal) } else { Ok(Join::Separate) };
        }
        let sum =
            unclear().map(|open| open.terms.price.amount).fold(terms.price.amount, Amount::saturating_add);
        let both = Terms { price: Money { amount: sum, asset: terms.price.asset.clone() }, ..terms.clone() };
        if limit.check(&both, || None).is_err() { Err(refusal) } else { Ok(Join::Separate) }
    }
}
