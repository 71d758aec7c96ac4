//! Remembered prices, with which a request can carry its payment at once.

use std::sync::{Arc, Mutex};

use super::clock::unix_time;
use super::request_hasher::RequestHasher;
use crate::limits::Limits;
use crate::mutex::lock;
use crate::protocol::Offer;
use crate::protocol::quote::{Prices, Quote, RequestId};

/// The remembered prices; cheap to clone.
#[derive(Clone, Debug)]
pub struct Quotes {
    prices: Arc<Mutex<Prices>>,
    hasher: RequestHasher,
}

impl Quotes {
    pub(super) fn new(limits: &Limits, hasher: RequestHasher) -> Self {
        let prices = Prices::new(limits.prices, limits.price_age.as_secs(), limits.ahead_pause.as_secs());
        Self { prices: Arc::new(Mutex::new(prices)), hasher }
    }

    /// The key under which the price of `request`, a method and a URL, is remembered.
    #[must_use]
    pub fn id(&self, request: &str) -> RequestId {
        self.hasher.id(request)
    }

    /// The probable offer for `request`; `None` if the seller must be asked first.
    #[must_use]
    pub fn recall(&self, request: &RequestId) -> Option<Quote> {
        lock(&self.prices).recall(request, unix_time())
    }

    /// Remembers the price that was just paid for `request`. `is_shown`: the response contained the seller's state;
    /// `was_asked`: the seller had asked for this price first.
    pub fn learn(&self, request: &RequestId, offer: &Offer, is_shown: bool, was_asked: bool) {
        lock(&self.prices).learn(request, offer, is_shown, was_asked, unix_time());
    }

    /// Forgets the price of `request`.
    pub fn forget(&self, request: &RequestId) {
        lock(&self.prices).forget(request);
    }

    /// An authorization was sent ahead in vain for `request`: forgets its price, and, from the second in a row, asks for
    /// the price first for a while.
    pub fn fail(&self, request: &RequestId) {
        lock(&self.prices).fail(request, unix_time());
    }

    /// Loads the journal's prices.
    pub(super) fn load(&self, prices: Vec<(RequestId, Quote)>) {
        lock(&self.prices).load(prices);
    }

    /// The prices that were learned or forgotten since the last call.
    pub(super) fn take_news(&self) -> Vec<(RequestId, Option<Quote>)> {
        lock(&self.prices).take_news()
    }
}
