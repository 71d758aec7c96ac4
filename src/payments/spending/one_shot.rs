//! Accounts for a payment without a channel: the seller can redeem its whole price, once.

use std::sync::{Arc, Mutex};

use super::totals::{Delivery, SpendingTotals};
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
        payee: Address,
        price: Money,
    ) -> Self {
        Self { totals, host, payee, price, state: PresentedState::Never }
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
                let spent = totals.spent(&self.price.asset, &self.host, self.payee);
                spent.paid = spent.paid.plus(&price);
            }
            _ => {
                let spent = totals.spent(&self.price.asset, &self.host, self.payee);
                spent.unclear = spent.unclear.plus(&price);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::payments::report::Spending;
    use crate::payments::spending::one_shot::*;
    use crate::protocol::AssetId;

    const BOB: Address = Address([2; 20]);

    /// What the report holds of one authorization of 5 after `steps`.
    fn reported(steps: impl FnOnce(&mut OneShotGuard)) -> Option<(Tally, Tally)> {
        let totals = Arc::new(Mutex::new(SpendingTotals::new(9, 7)));
        let price = Money { amount: 5.into(), asset: AssetId::token("test:local", "TEST") };

        steps(&mut OneShotGuard::new(Arc::clone(&totals), "b.example:81".into(), BOB, price));
        let report = lock(&totals).report();
        assert_eq!(report.total(), Spending::default(), "none of it is the channels' token");
        let asset = report.other_assets.first()?;
        assert_eq!((asset.network.as_str(), asset.token.as_str()), ("test:local", "TEST"));
        assert_eq!(asset.under_way, Tally::default());
        assert_eq!((asset.payees.len(), asset.payees[0].host.as_str()), (1, "b.example:81"));
        Some((asset.payees[0].spent.paid, asset.payees[0].spent.unclear))
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
