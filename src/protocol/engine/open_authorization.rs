//! Authorizations that a seller may still redeem and whose request has ended: a later request for the same purchase
//! presents them again, instead of a second one that could be redeemed in addition.

use std::collections::BTreeMap;
use std::time::Duration;

use super::authorization::Authorization;
use super::purchase_key::PurchaseKey;
use crate::protocol::policy::SpendLimit;
use crate::protocol::schemes::Draft;
use crate::protocol::terms::Terms;
use crate::protocol::{Address, Amount, Money, Refusal};

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
    payer: Address,
    /// When it expires, in seconds since 1970.
    valid_before: u64,
    /// The same by the running clock.
    runs_until: u64,
    state: OpenState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenState {
    /// A request that has not ended presents it.
    InUse,
    /// The outcome is unclear, and no request presents it.
    Unclear,
    /// The outcome is unclear, and its request was served without it: it is no part of any other purchase.
    Unneeded,
    /// The seller took it and withheld the response; the purchase is not repeated until this time.
    Taken { until: u64 },
}

/// The time, in seconds. An authorization has expired if it has by both clocks: setting the wall clock forward ends nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationTime {
    /// Since 1970, by the wall clock, as payees and chains see it.
    pub wall: u64,
    /// By a clock that only runs on.
    pub running: u64,
}

/// What a request for a purchase does.
#[derive(Debug)]
pub(super) enum Join {
    /// It needs an authorization of its own, beside others for the same purchase.
    Separate {
        /// How much can be redeemed with those.
        beside: Amount,
    },
    /// It presents this one again.
    Present(Box<(Draft, Terms)>),
}

impl OpenAuthorizations {
    /// An authorization is about to be signed for a request, if it expires and belongs to a purchase.
    pub(super) fn begin(&mut self, authorization: &Authorization, now: AuthorizationTime) {
        self.add(authorization, OpenState::InUse, now);
    }

    /// Adds what the journal has of an earlier run.
    pub(super) fn restore(
        &mut self,
        authorization: &Authorization,
        taken_until: Option<u64>,
        now: AuthorizationTime,
    ) {
        self.add(
            authorization,
            taken_until.map_or(OpenState::Unclear, |until| OpenState::Taken { until }),
            now,
        );
    }

    fn add(&mut self, authorization: &Authorization, state: OpenState, now: AuthorizationTime) {
        let Authorization { nonce, terms, draft, payer, key } = authorization;
        let (Some(key), Some(valid_before)) = (*key, draft.valid_before()) else { return };
        let (draft, terms, payer) = (draft.clone(), terms.clone(), *payer);
        let runs_until = now.running.saturating_add(valid_before.saturating_sub(now.wall));
        self.all
            .insert(*nonce, OpenAuthorization { key, draft, terms, payer, valid_before, runs_until, state });
        self.by_key.entry(key).or_default().push(*nonce);
    }

    /// Checks that no earlier payment for a purchase may still be redeemed, or was taken a short time ago.
    ///
    /// # Errors
    /// One may, or was.
    pub(super) fn check(
        &self,
        key: PurchaseKey,
        now: AuthorizationTime,
        retry_window: u64,
    ) -> Result<(), Refusal> {
        let wait = |until: u64| Duration::from_secs(until.saturating_sub(now.wall).max(1));
        for open in self.by_key.get(&key).into_iter().flatten().filter_map(|nonce| self.all.get(nonce)) {
            match open.state {
                OpenState::Taken { until } if until > now.wall => {
                    return Err(Refusal::PaidNotDelivered { retry_after: wait(until) });
                }
                OpenState::Unclear if !open.has_expired(now, retry_window) => {
                    let until = open.valid_before.saturating_add(retry_window);
                    return Err(Refusal::OutcomeUnclear { retry_after: wait(until) });
                }
                OpenState::InUse | OpenState::Unclear | OpenState::Unneeded | OpenState::Taken { .. } => {}
            }
        }
        Ok(())
    }

    /// Checks that an authorization to be presented again was signed by this payer: by another, it would be another payment.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn check_payer(
        &self,
        nonce: &[u8; 32],
        payer: Address,
        now: AuthorizationTime,
    ) -> Result<(), Refusal> {
        match self.all.get(nonce).filter(|open| open.payer != payer) {
            None => Ok(()),
            Some(open) => {
                let left = open.valid_before.saturating_sub(now.wall).max(1);
                Err(Refusal::OutcomeUnclear { retry_after: Duration::from_secs(left) })
            }
        }
    }

    /// The request that presented it has ended without a certain outcome.
    pub(super) fn release(&mut self, nonce: &[u8; 32]) {
        if let Some(open) = self.all.get_mut(nonce).filter(|open| open.state == OpenState::InUse) {
            open.state = OpenState::Unclear;
        }
    }

    /// Its request was served without it.
    pub(super) fn set_aside(&mut self, nonce: &[u8; 32]) {
        if let Some(open) = self.all.get_mut(nonce) {
            open.state = OpenState::Unneeded;
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
    pub(super) fn forget_old(&mut self, now: AuthorizationTime, retry_window: u64) {
        let old: Vec<[u8; 32]> = self
            .all
            .iter()
            .filter(|(_, open)| open.is_old(now, retry_window))
            .map(|(nonce, _)| *nonce)
            .collect();
        old.iter().for_each(|nonce| self.end(nonce));
    }

    /// Whether there are some whose request has ended and that still count.
    pub(super) fn has_ended(&self, now: AuthorizationTime, retry_window: u64) -> bool {
        let counts = |open: &OpenAuthorization| match open.state {
            OpenState::InUse | OpenState::Unneeded => false,
            OpenState::Unclear | OpenState::Taken { .. } => !open.is_old(now, retry_window),
        };
        self.all.values().any(counts)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// What a request for the purchase `key` does on these terms. One whose own request has not ended is never joined:
    /// identical requests at once are separate purchases. `own` is the one that this request has presented ahead: it is not
    /// presented again, and counts.
    ///
    /// # Errors
    /// The purchase was paid for and not delivered a short time ago, or another payment could be redeemed in addition to
    /// those that may still be, and together they exceed the limit.
    pub(super) fn join(
        &mut self,
        (key, payer, own): (PurchaseKey, Option<Address>, Option<[u8; 32]>),
        terms: &Terms,
        limit: &SpendLimit,
        (now, retry_window): (AuthorizationTime, u64),
    ) -> Result<Join, Refusal> {
        let wait = |until: u64| Duration::from_secs(until.saturating_sub(now.wall).max(1));
        let nonces = self.by_key.get(&key).into_iter().flatten();
        let all: Vec<&OpenAuthorization> = nonces.filter_map(|nonce| self.all.get(nonce)).collect();
        let taken = all.iter().filter_map(|open| match open.state {
            OpenState::Taken { until } => Some(until),
            OpenState::InUse | OpenState::Unclear | OpenState::Unneeded => None,
        });
        if let Some(until) = taken.max().filter(|until| *until > now.wall) {
            return Err(Refusal::PaidNotDelivered { retry_after: wait(until) });
        }
        let is_own = |open: &OpenAuthorization| own.is_some() && open.draft.nonce() == own;
        let unclear = || all.iter().copied().filter(|open| open.state == OpenState::Unclear || is_own(open));
        let usable = unclear().find(|open| {
            // Signed by another key, it would be another payment.
            !is_own(open)
                && payer.is_none_or(|payer| open.payer == payer)
                && open.terms == *terms
                && open.draft.is_usable(now.wall)
        });
        if let Some(open) = usable {
            let found = Box::new((open.draft.clone(), open.terms.clone()));
            if let Some(nonce) = found.0.nonce()
                && let Some(open) = self.all.get_mut(&nonce)
            {
                open.state = OpenState::InUse;
            }
            return Ok(Join::Present(found));
        }
        let holding = unclear().filter(|open| !open.has_expired(now, retry_window));
        let Some(last) = holding.map(|open| open.valid_before).max() else {
            return Ok(Join::Separate { beside: Amount::ZERO });
        };
        let until = last.saturating_add(retry_window);
        let refusal = Refusal::OutcomeUnclear { retry_after: wait(until) };
        // What has expired may have been taken, and in another asset there is no sum.
        let adds_up = |open: &OpenAuthorization| {
            open.terms.price.asset == terms.price.asset
                && (open.terms != *terms || is_own(open))
                && !open.has_expired(now, 0)
        };
        if !unclear().all(adds_up) {
            return Err(refusal);
        }
        let beside = unclear().map(|open| open.terms.price.amount).fold(Amount::ZERO, Amount::saturating_add);
        let sum = terms.price.amount.saturating_add(beside);
        let both = Terms { price: Money { amount: sum, asset: terms.price.asset.clone() }, ..terms.clone() };
        if limit.check(&both, || None).is_err() { Err(refusal) } else { Ok(Join::Separate { beside }) }
    }
}

impl OpenAuthorization {
    /// Whether it can no longer be redeemed, and its purchase may be repeated.
    fn is_old(&self, now: AuthorizationTime, retry_window: u64) -> bool {
        match self.state {
            OpenState::InUse => false,
            OpenState::Unclear => self.has_expired(now, retry_window),
            OpenState::Unneeded => self.has_expired(now, 0),
            OpenState::Taken { until } => until <= now.wall && self.has_expired(now, 0),
        }
    }

    /// Whether it expired at least this many seconds ago.
    fn has_expired(&self, now: AuthorizationTime, ago: u64) -> bool {
        self.valid_before.saturating_add(ago) <= now.wall
            && self.runs_until.saturating_add(ago) <= now.running
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::protocol::Answer;
    use crate::protocol::policy::{Hooks, KnownAsset, PriceLimit, TokenDomain};
    use crate::protocol::schemes::{self, DrawContext};

    const KEY: PurchaseKey = PurchaseKey([1; 32]);
    const PAYER: Address = Address([0xa1; 20]);
    const WINDOW: u64 = 60;

    fn at(wall: u64) -> AuthorizationTime {
        AuthorizationTime { wall, running: wall - 500 }
    }

    fn known() -> KnownAsset {
        let domain = TokenDomain { name: "Toy".to_owned(), version: "2".to_owned() };
        KnownAsset::new("TOY", "eip155:1", Address([7; 20]), 0, None).with_domain(Some(domain))
    }

    /// An authorization of `price`, drawn at the time 1000 and valid for 100 seconds.
    fn authorization(byte: u8, price: u64) -> Authorization {
        let body = format!(
            r#"{{"x402Version": 1, "accepts": [{{"scheme": "exact", "network": "eip155:1", "maxAmountRequired": "{price}",
                "asset": "{}", "payTo": "{}", "maxTimeoutSeconds": 100}}]}}"#,
            Address([7; 20]),
            Address([8; 20])
        );
        let headers = HeaderMap::new();
        let answer =
            Answer { status: StatusCode::PAYMENT_REQUIRED, headers: &headers, body: Some(body.as_bytes()) };
        let offer = schemes::read(&answer).unwrap().remove(0);
        let (nonce, known) = ([byte; 32], known());
        let context = DrawContext { nonce, now: 1000, max_validity: 600, asset: Some(&known) };
        let draft = offer.draw_one_shot(&context).unwrap();
        Authorization { nonce, terms: offer.terms(), draft, payer: PAYER, key: Some(KEY) }
    }

    fn limit(most: u64) -> SpendLimit {
        SpendLimit {
            host: "bob.example".into(),
            max_price: PriceLimit::Tokens([(most.into(), known())].into()),
            receivers: Vec::new(),
            preference: Arc::default(),
            hooks: Arc::<Hooks>::default(),
            budgets: Arc::default(),
        }
    }

    /// What a request for `price` gets at this time: `new`, the number of an authorization, or a refusal with its wait.
    fn join(open: &mut OpenAuthorizations, price: u64, most: u64, now: AuthorizationTime) -> String {
        open.forget_old(now, WINDOW);
        match open.join((KEY, Some(PAYER), None), &authorization(0, price).terms, &limit(most), (now, WINDOW))
        {
            Ok(Join::Separate { .. }) => "new".to_owned(),
            Ok(Join::Present(found)) => found.0.nonce().unwrap()[0].to_string(),
            Err(Refusal::PaidNotDelivered { retry_after }) => format!("taken {}", retry_after.as_secs()),
            Err(Refusal::OutcomeUnclear { retry_after }) => format!("unclear {}", retry_after.as_secs()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_unclear_is_presented_again_by_one_request_at_a_time_the_oldest_first() {
        let mut open = OpenAuthorizations::default();
        for byte in [1, 2, 3] {
            open.begin(&authorization(byte, 5), at(1000));
        }
        assert_eq!(join(&mut open, 5, 100, at(1001)), "new", "their requests have not ended");
        open.release(&[2; 32]);
        open.release(&[1; 32]);
        assert_eq!(join(&mut open, 5, 100, at(1001)), "1");
        assert_eq!(join(&mut open, 5, 100, at(1001)), "2");
        assert_eq!(join(&mut open, 5, 100, at(1001)), "new");
        open.release(&[2; 32]);
        open.end(&[1; 32]);
        assert_eq!(join(&mut open, 5, 100, at(1001)), "2");
        assert_eq!(open.len(), 2);
        let other = open.join(
            (PurchaseKey([9; 32]), Some(PAYER), None),
            &authorization(0, 5).terms,
            &limit(9),
            (at(1001), WINDOW),
        );
        assert!(matches!(other, Ok(Join::Separate { .. })), "{other:?}");
    }

    #[test]
    fn nothing_is_signed_anew_before_the_old_has_expired_and_the_window_has_passed() {
        for (now, expected) in [
            (at(1094), "1"),
            // The facilitator would not take it any more.
            (at(1095), "unclear 65"),
            (at(1100), "unclear 60"),
            (at(1159), "unclear 1"),
            (at(1160), "new"),
            // The wall clock was set forward by an hour.
            (AuthorizationTime { wall: 4600, running: 501 }, "unclear 1"),
            (AuthorizationTime { wall: 4600, running: 659 }, "unclear 1"),
            (AuthorizationTime { wall: 4600, running: 660 }, "new"),
            // It was set back.
            (AuthorizationTime { wall: 100, running: 5000 }, "1"),
        ] {
            let mut open = OpenAuthorizations::default();
            open.begin(&authorization(1, 5), at(1000));
            open.release(&[1; 32]);
            assert_eq!(join(&mut open, 5, 100, now), expected, "{now:?}");
            assert_eq!(open.len(), usize::from(expected != "new"), "{now:?}");
        }
    }

    #[test]
    fn what_another_key_signed_is_not_presented_and_nothing_is_signed_beside_it() {
        let mut open = OpenAuthorizations::default();
        open.begin(&Authorization { payer: Address([0xee; 20]), ..authorization(1, 5) }, at(1000));
        open.release(&[1; 32]);
        assert_eq!(join(&mut open, 5, 100, at(1001)), "unclear 159");
        assert!(open.check_payer(&[1; 32], PAYER, at(1001)).is_err());
        assert!(open.check_payer(&[1; 32], Address([0xee; 20]), at(1001)).is_ok());
        assert_eq!(join(&mut open, 5, 100, at(1160)), "new");
    }

    #[test]
    fn nothing_else_is_paid_for_a_purchase_meanwhile() {
        let mut open = OpenAuthorizations::default();
        let check = |open: &OpenAuthorizations, now: u64| {
            open.check(KEY, at(now), WINDOW).map_err(|refusal| refusal.retry_after().unwrap().as_secs())
        };
        open.begin(&authorization(1, 5), at(1000));
        assert_eq!(check(&open, 1001), Ok(()), "its request has not ended");
        assert!(!open.has_ended(at(1001), WINDOW));
        open.release(&[1; 32]);
        assert!(open.has_ended(at(1159), WINDOW) && !open.has_ended(at(1160), WINDOW), "it counts no longer");
        assert_eq!((check(&open, 1001), check(&open, 1159), check(&open, 1160)), (Err(159), Err(1), Ok(())));
        open.take(&[1; 32], 1061);
        assert_eq!((check(&open, 1001), check(&open, 1061)), (Err(60), Ok(())));
    }

    #[test]
    fn a_changed_price_is_paid_only_if_both_fit() {
        for (price, most, now, expected) in [
            (6, 11, 1001, "new"),
            (6, 10, 1001, "unclear 159"),
            (5, 100, 1001, "1"),
            // What has expired may have been taken.
            (6, 100, 1100, "unclear 60"),
            (6, 100, 1160, "new"),
        ] {
            let mut open = OpenAuthorizations::default();
            open.begin(&authorization(1, 5), at(1000));
            open.release(&[1; 32]);
            assert_eq!(join(&mut open, price, most, at(now)), expected, "{price} {most} {now}");
        }
    }

    #[test]
    fn what_was_taken_is_not_repeated_within_the_window() {
        let mut open = OpenAuthorizations::default();
        open.begin(&authorization(1, 5), at(1000));
        assert!(open.take(&[1; 32], 1061) && !open.take(&[2; 32], 1061));
        assert_eq!(join(&mut open, 5, 100, at(1001)), "taken 60");
        assert_eq!(join(&mut open, 7, 100, at(1060)), "taken 1");
        assert_eq!(join(&mut open, 5, 100, at(1061)), "new");
        // Known after a restart, too.
        let mut open = OpenAuthorizations::default();
        open.restore(&authorization(1, 5), Some(1061), at(1001));
        open.restore(&authorization(2, 5), None, at(1001));
        assert_eq!(join(&mut open, 5, 100, at(1001)), "taken 60");
        assert_eq!(join(&mut open, 5, 100, at(1061)), "2");
    }

    /// What a request that has presented the authorization 1 ahead does on the terms that the seller then asks for.
    #[test]
    fn what_was_sent_ahead_counts_and_is_not_presented_again() {
        for (price, most, unclear, expected) in [
            (6, 11, &[][..], Ok(5)),
            (6, 10, &[], Err(160)),
            // The same terms, in another offer.
            (5, 10, &[], Ok(5)),
            (5, 9, &[], Err(160)),
            // Other requests that have ended may be this purchase, too.
            (6, 14, &[2], Ok(8)),
            (6, 13, &[2], Err(160)),
        ] {
            let mut open = OpenAuthorizations::default();
            open.begin(&authorization(1, 5), at(1000));
            // Those of other requests count only if they have ended.
            open.begin(&authorization(9, 100), at(1000));
            for byte in unclear {
                open.begin(&authorization(*byte, 3), at(1000));
                open.release(&[*byte; 32]);
            }
            let purchase = (KEY, Some(PAYER), Some([1; 32]));
            let terms = authorization(0, price).terms;
            let got = match open.join(purchase, &terms, &limit(most), (at(1000), WINDOW)) {
                Ok(Join::Separate { beside }) => Ok(beside),
                Ok(Join::Present(other)) => panic!("{other:?}"),
                Err(refusal) => Err(refusal.retry_after().unwrap().as_secs()),
            };
            assert_eq!(got, expected.map(Amount::from), "{price} {most} {unclear:?}");
        }
        // One of an earlier request with the new terms is presented instead.
        let mut open = OpenAuthorizations::default();
        open.begin(&authorization(1, 5), at(1000));
        open.begin(&authorization(2, 6), at(1000));
        open.release(&[2; 32]);
        let purchase = (KEY, Some(PAYER), Some([1; 32]));
        let joined = open.join(purchase, &authorization(0, 6).terms, &limit(6), (at(1000), WINDOW));
        assert!(
            matches!(&joined, Ok(Join::Present(found)) if found.0.nonce() == Some([2; 32])),
            "{joined:?}"
        );
    }

    #[test]
    fn what_its_request_did_not_need_is_no_part_of_later_purchases() {
        let mut open = OpenAuthorizations::default();
        open.begin(&authorization(1, 5), at(1000));
        open.set_aside(&[1; 32]);
        open.release(&[1; 32]);
        for price in [5, 6] {
            assert_eq!(join(&mut open, price, 6, at(1001)), "new", "{price}");
        }
        assert!(!open.has_ended(at(1001), WINDOW) && open.check(KEY, at(1001), WINDOW).is_ok());
        open.forget_old(at(1099), WINDOW);
        assert_eq!(open.len(), 1, "it can be redeemed");
        open.forget_old(at(1100), WINDOW);
        assert_eq!(open.len(), 0);
    }
}
