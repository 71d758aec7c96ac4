//! Accounts for a payment without a channel: the seller can redeem its whole price, once.

use std::sync::{Arc, Mutex};

use super::totals::{Delivery, DoubtfulAuthorization, SpendingTotals};
use crate::mutex::lock;
use crate::payments::report::Tally;
use crate::protocol::{Address, Money};

/// Accounts for the one authorization of a client request.
#[derive(Debug)]
pub(in crate::payments) struct OneShotGuard {
    totals: Arc<Mutex<SpendingTotals>>,
    host: Arc<str>,
    payee: Address,
    price: Money,
    /// What makes the authorization unique.
    nonce: [u8; 32],
    state: PresentedState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PresentedState {
    Never,
    /// Being sent; `before`: it was presented earlier too.
    Sending {
        before: bool,
    },
    Presented,
}

impl OneShotGuard {
    pub(super) fn new(
        totals: Arc<Mutex<SpendingTotals>>,
        host: Arc<str>,
        (payee, price): (Address, Money),
        nonce: [u8; 32],
    ) -> Self {
        Self { totals, host, payee, price, nonce, state: PresentedState::Never }
    }

    pub(super) fn begin(&mut self) {
        let before = match self.state {
            PresentedState::Sending { .. } => return,
            PresentedState::Never => {
                lock(&self.totals).count_under_way(&self.price.asset, None, Some(self.price.amount));
                false
            }
            PresentedState::Presented => true,
        };
        self.state = PresentedState::Sending { before };
    }

    pub(super) fn answered(&mut self) {
        if matches!(self.state, PresentedState::Sending { .. }) {
            self.state = PresentedState::Presented;
        }
    }

    pub(super) fn end(&mut self, how: Delivery) {
        let state = std::mem::replace(&mut self.state, PresentedState::Never);
        if state == PresentedState::Never {
            return;
        }
        let mut totals = lock(&self.totals);
        totals.count_under_way(&self.price.asset, Some(self.price.amount), None);
        let price = Tally::of(self.price.amount);
        match (how, state) {
            (Delivery::NotSent, PresentedState::Sending { before: false }) => {}
            (Delivery::Accepted, PresentedState::Sending { .. }) => {
                // Earlier requests may have presented the same one.
                totals.end_doubts(&[self.nonce]);
                if totals.accept_authorization(self.nonce) {
                    let spent = totals.spent(&self.price.asset, &self.host, self.payee);
                    spent.paid = spent.paid.plus(&price);
                }
            }
            _ => totals.doubt_authorization(DoubtfulAuthorization {
                nonce: self.nonce,
                host: Arc::clone(&self.host),
                payee: self.payee,
                price: self.price.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::payments::freed::FreedAuthorizations;
    use crate::payments::report::Spending;
    use crate::payments::spending::one_shot::*;
    use crate::protocol::AssetId;

    const BOB: Address = Address([2; 20]);

    /// What the report holds of one authorization of 5 after `steps`.
    fn reported(steps: impl FnOnce(&mut OneShotGuard)) -> Option<(Tally, Tally)> {
        let totals = Arc::new(Mutex::new(SpendingTotals::new(9, 7)));
        let price = Money { amount: 5.into(), asset: AssetId::token("test:local", "TEST") };

        steps(&mut OneShotGuard::new(Arc::clone(&totals), "b.example:81".into(), (BOB, price), [1; 32]));
        let report = lock(&totals).report();
        assert_eq!(report.total(), Spending::default(), "none of it is the channels' token");
        let asset = report.other_assets.first()?;
        assert_eq!((asset.network.as_str(), asset.token.as_str()), ("test:local", "TEST"));
        assert_eq!(asset.under_way, Tally::default());
        assert_eq!((asset.payees.len(), asset.payees[0].host.as_str()), (1, "b.example:81"));
        Some((asset.payees[0].spent.paid, asset.payees[0].spent.unclear))
    }

    #[test]
    fn what_the_chain_has_freed_is_not_unclear_any_more() {
        let totals = Arc::new(Mutex::new(SpendingTotals::new(9, 7)));
        let price = Money { amount: 5.into(), asset: AssetId::token("test:local", "TEST") };
        for (nonce, how) in [(1, Delivery::InDoubt), (2, Delivery::InDoubt), (3, Delivery::Accepted)] {
            let paid = (BOB, price.clone());
            let mut guard = OneShotGuard::new(Arc::clone(&totals), "b.example".into(), paid, [nonce; 32]);
            guard.begin();
            guard.end(how);
        }
        let freed = FreedAuthorizations::default();
        let mut totals = lock(&totals);
        let unclear = |totals: &mut SpendingTotals| {
            totals.free(&freed);
            let spent = totals.report().other_assets[0].total();
            (spent.paid.requests, spent.unclear)
        };
        assert_eq!(unclear(&mut totals), (1, Tally { requests: 2, amount: 10.into() }));
        freed.insert([1; 32]);
        freed.insert([7; 32]);
        for _ in 0..2 {
            assert_eq!(unclear(&mut totals), (1, Tally::of(5.into())), "once");
        }
    }

    #[test]
    fn one_authorization_counts_once_for_all_requests_that_present_it() {
        let totals = Arc::new(Mutex::new(SpendingTotals::new(9, 7)));
        let price = Money { amount: 5.into(), asset: AssetId::token("test:local", "TEST") };
        let present = |nonce: u8, how: Delivery| {
            let paid = (BOB, price.clone());
            let mut guard = OneShotGuard::new(Arc::clone(&totals), "b.example".into(), paid, [nonce; 32]);
            guard.begin();
            guard.end(how);
            let spent = lock(&totals).report().other_assets[0].total();
            (spent.paid, spent.unclear)
        };
        let (nothing, five) = (Tally::default(), Tally::of(5.into()));
        assert_eq!(present(1, Delivery::InDoubt), (nothing, five));
        assert_eq!(present(1, Delivery::InDoubt), (nothing, five));
        assert_eq!(present(2, Delivery::InDoubt), (nothing, five.plus(&five)));
        assert_eq!(present(1, Delivery::Accepted), (five, five), "the other one stays unclear");
        // The client lost the response.
        for again in [Delivery::Accepted, Delivery::InDoubt, Delivery::NotSent] {
            assert_eq!(present(1, again), (five, five), "{again:?}");
        }
    }

    #[test]
    fn what_was_presented_counts_once_however_it_ends() {
        let (nothing, five) = (Tally::default(), Tally::of(5.into()));
        let sent = |how: Delivery| {
            move |guard: &mut OneShotGuard| {
                guard.begin();
                guard.begin();
                guard.end(how);
            }
        };
        assert_eq!(reported(sent(Delivery::Accepted)), Some((five, nothing)));
        assert_eq!(reported(sent(Delivery::InDoubt)), Some((nothing, five)));
        assert_eq!(reported(sent(Delivery::NotSent)), None);
        assert_eq!(reported(|guard| guard.end(Delivery::Accepted)), None, "it was never begun");
        let again = |how: Delivery| {
            move |guard: &mut OneShotGuard| {
                guard.begin();
                guard.answered();
                guard.begin();
                guard.end(how);
            }
        };
        assert_eq!(reported(again(Delivery::Accepted)), Some((five, nothing)));
        assert_eq!(reported(again(Delivery::NotSent)), Some((nothing, five)), "the seller saw it before");
        let refused = |guard: &mut OneShotGuard| {
            guard.begin();
            guard.answered();
            guard.end(Delivery::NotSent);
        };
        assert_eq!(reported(refused), Some((nothing, five)));
    }
}
