//! The counters of all payees.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hashlink::LruCache;

use crate::payments::freed::FreedAuthorizations;
use crate::payments::report::{AssetSpending, PayeeSpending, Spending, SpendingReport, Tally, sort};
use crate::protocol::asset::{AssetId, Money, Token};
use crate::protocol::channel::ChannelDraft;
use crate::protocol::{Address, Amount, ChannelId};

/// How many payments in doubt are remembered per channel, so that a later payment can confirm them. More stay in doubt.
pub(super) const DOUBTS: usize = 64;
/// How many authorizations in doubt are remembered, so that a chain can free them, and how many accepted ones. More stay in
/// doubt.
const MOST_AUTHORIZATIONS: usize = 4096;

/// How the payment of a lease ended.
#[derive(Clone, Copy, Debug)]
pub(in crate::payments) enum Delivery {
    /// It provably was not sent.
    NotSent,
    /// The seller may have it.
    InDoubt,
    /// The seller took it.
    Accepted,
}

/// The counters of all payees, bounded in number.
#[derive(Debug)]
pub(in crate::payments) struct SpendingTotals {
    since: u64,
    most: usize,
    count: usize,
    assets: BTreeMap<AssetId, AssetTotals>,
    /// What the seller of each channel was presented since the start.
    pub(super) channels: HashMap<ChannelId, PresentedTotals>,
    /// Authorizations in doubt, the oldest first.
    authorizations: Vec<DoubtfulAuthorization>,
    /// The last ones that were accepted: a client that lost its response may have its payment presented again.
    accepted: LruCache<[u8; 32], ()>,
}

/// The counters of one asset.
#[derive(Debug, Default)]
struct AssetTotals {
    hosts: HashMap<Arc<str>, HashMap<Address, Spending>>,
    others: Spending,
    under_way: Tally,
}

impl AssetTotals {
    pub(super) fn payees(&self) -> Vec<PayeeSpending> {
        let payees = self.hosts.iter().flat_map(|(host, receivers)| {
            let payee = |(receiver, spent): (&Address, &Spending)| PayeeSpending {
                host: host.to_string(),
                receiver: *receiver,
                spent: *spent,
            };
            receivers.iter().map(payee)
        });
        let mut payees: Vec<_> = payees.collect();
        sort(&mut payees);
        payees
    }
}

/// What the seller of a channel was presented.
#[derive(Debug, Default)]
pub(super) struct PresentedTotals {
    /// The highest total.
    pub(super) highest: Amount,
    /// Payments that may have been taken.
    pub(super) doubts: Vec<DoubtfulPayment>,
}

/// An authorization that the seller may have taken, and what it counts for.
#[derive(Debug)]
pub(super) struct DoubtfulAuthorization {
    pub(super) nonce: [u8; 32],
    pub(super) host: Arc<str>,
    pub(super) payee: Address,
    pub(super) price: Money,
}

/// A payment that the seller may have taken, and the host it counts for.
#[derive(Debug)]
pub(super) struct DoubtfulPayment {
    host: Arc<str>,
    raise: Increase,
}

/// By how much a seller can redeem more of a channel: at most `by`, between the totals `above` and `to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Increase {
    pub(super) channel: ChannelId,
    pub(super) above: Amount,
    pub(super) to: Amount,
    pub(super) by: Amount,
}

impl Increase {
    /// How much of it lies at or below `total`, at most.
    pub(super) fn up_to(&self, total: Amount) -> Amount {
        self.between(self.above, total)
    }

    /// How much of it lies between two totals, at most.
    pub(super) fn between(&self, base: Amount, total: Amount) -> Amount {
        self.by.min(total.min(self.to).saturating_sub(base.max(self.above)))
    }

    /// Without the lowest part of it.
    pub(super) fn without(self, part: Amount) -> Option<Self> {
        let above = self.above.saturating_add(part);
        Some(Self { above, by: self.by.saturating_sub(part), ..self }).filter(|rest| !rest.by.is_zero())
    }
}

impl SpendingTotals {
    /// Counts up to `most` payees separately; `since` is in milliseconds since 1970.
    pub(in crate::payments) fn new(most: usize, since: u64) -> Self {
        let (assets, channels, authorizations) = (BTreeMap::new(), HashMap::new(), Vec::new());
        let accepted = LruCache::new(MOST_AUTHORIZATIONS);
        Self { since, most, count: 0, assets, channels, authorizations, accepted }
    }

    pub(in crate::payments) fn report(&self) -> SpendingReport {
        let mut report = SpendingReport { since: self.since, ..SpendingReport::default() };
        for (asset, totals) in &self.assets {
            let (payees, others, under_way) = (totals.payees(), totals.others, totals.under_way);
            match asset {
                AssetId::ChannelToken => {
                    (report.payees, report.others, report.under_way) = (payees, others, under_way);
                }
                AssetId::Token(token) => {
                    let Token { network, token } = Token::clone(token);
                    let spending = AssetSpending { network, token, payees, others, under_way };
                    report.other_assets.push(spending);
                }
            }
        }
        report.other_assets.retain(|asset| !asset.is_nothing());
        report
    }

    fn asset(&mut self, asset: &AssetId) -> &mut AssetTotals {
        self.assets.entry(asset.clone()).or_default()
    }

    /// The counters of a payee, or the common ones beyond the limit.
    pub(super) fn spent(&mut self, asset: &AssetId, host: &Arc<str>, receiver: Address) -> &mut Spending {
        let (count, most) = (self.count, self.most);
        let totals = self.assets.entry(asset.clone()).or_default();
        let is_known = totals.hosts.get(host).is_some_and(|receivers| receivers.contains_key(&receiver));
        if !is_known {
            if count >= most {
                return &mut totals.others;
            }
            self.count += 1;
        }
        totals.hosts.entry(Arc::clone(host)).or_default().entry(receiver).or_default()
    }

    pub(super) fn count_under_way(&mut self, asset: &AssetId, ended: Option<Amount>, begun: Option<Amount>) {
        let under_way = &mut self.asset(asset).under_way;
        if let Some(ended) = ended {
            *under_way = under_way.minus(&Tally::of(ended));
        }
        if let Some(begun) = begun {
            *under_way = under_way.plus(&Tally::of(begun));
        }
    }

    /// Counts an accepted authorization; false if it was accepted before.
    pub(super) fn accept_authorization(&mut self, nonce: [u8; 32]) -> bool {
        self.accepted.insert(nonce, ()).is_none()
    }

    /// Counts an authorization in doubt, once for all requests that present it.
    pub(super) fn doubt_authorization(&mut self, doubt: DoubtfulAuthorization) {
        if self.accepted.contains_key(&doubt.nonce) {
            return;
        }
        if self.authorizations.iter().any(|known| known.nonce == doubt.nonce) {
            return;
        }
        let spent = self.spent(&doubt.price.asset, &doubt.host, doubt.payee);
        spent.unclear = spent.unclear.plus(&Tally::of(doubt.price.amount));
        if self.authorizations.len() == MOST_AUTHORIZATIONS {
            self.authorizations.remove(0);
        }
        self.authorizations.push(doubt);
    }

    /// Counts those no more that a chain has shown to be unused.
    pub(in crate::payments) fn free(&mut self, freed: &FreedAuthorizations) {
        let freed = freed.among(self.authorizations.iter().map(|doubt| doubt.nonce));
        self.end_doubts(&freed);
    }

    /// Counts authorizations with these nonces as unclear no more.
    pub(super) fn end_doubts(&mut self, nonces: &[[u8; 32]]) {
        let is_over = |doubt: &mut DoubtfulAuthorization| nonces.contains(&doubt.nonce);
        let over: Vec<_> = self.authorizations.extract_if(.., is_over).collect();
        for DoubtfulAuthorization { host, payee, price, .. } in over {
            let spent = self.spent(&price.asset, &host, payee);
            spent.unclear = spent.unclear.minus(&Tally::of(price.amount));
        }
    }

    /// Counts a payment in doubt.
    pub(super) fn doubt(&mut self, host: &Arc<str>, raise: Increase) {
        let spent = self.spent(&AssetId::ChannelToken, host, raise.channel.receiver);
        spent.unclear = spent.unclear.plus(&Tally::of(raise.by));
        let doubts = &mut self.channels.entry(raise.channel).or_default().doubts;
        if doubts.len() == DOUBTS {
            doubts.remove(0);
        }
        doubts.push(DoubtfulPayment { host: Arc::clone(host), raise });
    }

    /// Confirms earlier payments: one was taken that raised the total by `missing` less than its price, so that much of what
    /// was in doubt was not taken before. Returns how much of it was known here.
    pub(super) fn clear(&mut self, draft: &ChannelDraft, mut missing: Amount) -> Amount {
        let mut cleared = Amount::ZERO;
        if missing.is_zero() {
            return cleared;
        }
        let mut doubts = self
            .channels
            .get_mut(&draft.channel)
            .map(|shown| std::mem::take(&mut shown.doubts))
            .unwrap_or_default();
        let base = draft.total.saturating_sub(draft.price);
        doubts.retain_mut(|DoubtfulPayment { host, raise }| {
            let amount = raise.between(base, draft.total).min(missing);
            if amount.is_zero() {
                return true;
            }
            (missing, cleared) = (missing.saturating_sub(amount), cleared.saturating_add(amount));
            raise.by = raise.by.saturating_sub(amount);
            let is_over = raise.by.is_zero();
            let sum = Tally { requests: is_over.into(), amount };
            let spent = self.spent(&AssetId::ChannelToken, host, draft.channel.receiver);
            (spent.unclear, spent.cleared) = (spent.unclear.minus(&sum), spent.cleared.plus(&sum));
            !is_over
        });
        if let Some(shown) = self.channels.get_mut(&draft.channel) {
            shown.doubts = doubts;
        }
        cleared
    }

    /// Undoes a payment that provably was not sent.
    pub(super) fn take_back(&mut self, draft: &ChannelDraft, highest: Option<Amount>) {
        match (highest, self.channels.get_mut(&draft.channel)) {
            (Some(highest), Some(shown)) => shown.highest = highest,
            (None, Some(_)) => drop(self.channels.remove(&draft.channel)),
            (_, None) => {}
        }
    }
}
