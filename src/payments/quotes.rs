//! Remembered prices, with which a request can carry its payment at once.

use std::sync::{Arc, Mutex, OnceLock};

use super::clock::unix_time;
use super::request_hasher::RequestHasher;
use crate::limits::Limits;
use crate::mutex::lock;
use crate::protocol::quote::{Price, Prices, RequestId};
use crate::protocol::{Account, Offer, Terms};

/// The remembered prices; cheap to clone.
#[derive(Clone, Debug)]
pub struct Quotes {
    prices: Arc<Mutex<Prices>>,
    hasher: RequestHasher,
    account: Arc<OnceLock<Account>>,
}

impl Quotes {
    pub(super) fn new(limits: &Limits, hasher: RequestHasher) -> Self {
        let prices = Prices::new(limits.prices, limits.price_age.as_secs());
        Self { prices: Arc::new(Mutex::new(prices)), hasher, account: Arc::default() }
    }

    /// The key under which the price of `request`, a method and a URL, is remembered.
    #[must_use]
    pub fn id(&self, request: &str) -> RequestId {
        self.hasher.id(request)
    }

    /// The probable offer for `request`; `None` if the seller must be asked first.
    #[must_use]
    pub fn recall(&self, request: &RequestId) -> Option<Offer> {
        let Price { price, receiver, scheme, .. } = lock(&self.prices).recall(request, unix_time())?;
        Offer::quoted(scheme, price, receiver, self.account.get())
    }

    /// Remembers the price that was just paid for `request`. `is_shown`: the response contained the seller's state;
    /// `was_asked`: the seller had asked for this price first.
    pub fn learn(&self, request: &RequestId, offer: &Offer, is_shown: bool, was_asked: bool) {
        let Terms { price, payee, scheme } = offer.terms();
        lock(&self.prices).learn(request, (price.amount, payee, scheme), is_shown, was_asked, unix_time());
    }

    /// Forgets the price of `request`.
    pub fn forget(&self, request: &RequestId) {
        lock(&self.prices).forget(request);
    }

    /// Loads the journal's prices.
    pub(super) fn load(&self, account: Account, prices: Vec<(RequestId, Price)>) {
        lock(&self.prices).load(prices);
        // The account never changes.
        let _ = self.account.set(account);
    }

    /// The prices that were learned or forgotten since the last call.
    pub(super) fn take_news(&self) -> Vec<(RequestId, Option<Price>)> {
        lock(&self.prices).take_news()
    }
}
