//! Authorizations that a seller may still redeem and whose request has ended: a later request for the same purchase
//! presents them again, instead of a second one that could be redeemed in addition. If there is a node, their chain shows
//! whether they were used.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::authorization::{Authorization, KnownAuthorization};
use super::chain_use::{AuthorizationTime, Shown, UseDoubt};
use super::purchase_key::PurchaseKey;
use super::served::{ServedAuthorization, ServedAuthorizations};
use crate::protocol::budget::{BudgetAmount, BudgetKey};
use crate::protocol::host_name::HostName;
use crate::protocol::policy::{AuthorizationLimits, SpendLimit};
use crate::protocol::schemes::{Draft, UseQuery};
use crate::protocol::terms::Terms;
use crate::protocol::{Address, Amount, Money, Refusal};

/// How many abandoned chain checks are reported at once.
const MOST_GIVEN_UP: usize = 100;

/// All authorizations that expire, from the moment that they are recorded.
#[derive(Debug, Default)]
pub(super) struct OpenAuthorizations {
    all: BTreeMap<[u8; 32], OpenAuthorization>,
    /// The nonces of each purchase, the oldest first.
    by_key: BTreeMap<PurchaseKey, Vec<[u8; 32]>>,
    /// Those that were served.
    served: ServedAuthorizations,
    /// Those that no chain is asked about any more, although it has not answered, until they are reported.
    given_up: Vec<UnclearAuthorization>,
    /// The chains that can be asked.
    chains: BTreeSet<u64>,
}

#[derive(Debug)]
struct OpenAuthorization {
    key: Option<PurchaseKey>,
    draft: Draft,
    terms: Terms,
    payer: Address,
    host: HostName,
    /// What it counts for in its budgets, and since which minute.
    counted: Vec<(BudgetKey, BudgetAmount, u64)>,
    /// When it was recorded, in seconds since 1970.
    since: u64,
    /// Whether its chain has shown that it was used.
    is_used: bool,
    /// When it expires, in seconds since 1970.
    valid_before: u64,
    /// The same by the running clock.
    runs_until: u64,
    /// Until when it counts as lost, once its seller has taken it.
    lost_until: Option<u64>,
    /// Whether its seller refused it whenever it was presented, so that nothing moved.
    was_refused: bool,
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
    /// The seller took it, and the client has not got all of the response: until this time, a request for the same purchase
    /// presents it again.
    Lost { until: u64 },
}

/// An authorization with an unclear outcome, as shown to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnclearAuthorization {
    /// What it pays.
    pub terms: Terms,
    /// The host that it pays.
    pub host: HostName,
    /// The budgets that it counts in.
    pub budgets: Vec<BudgetKey>,
    /// When it was recorded, in seconds since 1970.
    pub since: u64,
    /// When it expires, in seconds since 1970.
    pub valid_before: u64,
    /// The chain that knows its outcome, and whether that is asked.
    pub chain: Option<(u64, bool)>,
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
        self.add(authorization, (OpenState::InUse, now.wall), now);
    }

    /// Sets the chains that can be asked.
    pub(super) fn set_chains(&mut self, chains: BTreeSet<u64>) {
        self.chains = chains;
    }

    /// Adds what the journal has of an earlier run.
    pub(super) fn restore(&mut self, known: &KnownAuthorization, now: AuthorizationTime) {
        let KnownAuthorization { authorization, since, taken_until, is_used, is_served } = known;
        if *is_served {
            return self.served.restore(known, now);
        }
        let state = taken_until.map_or(OpenState::Unclear, |until| OpenState::Taken { until });
        self.add(authorization, (state, *since), now);
        if let Some(open) = self.all.get_mut(&authorization.nonce) {
            open.is_used = *is_used;
            // The budgets of runs have ended with the process.
            open.counted.retain(|(budget, ..)| !budget.is_of_run());
        }
    }

    fn add(
        &mut self,
        authorization: &Authorization,
        (state, since): (OpenState, u64),
        now: AuthorizationTime,
    ) {
        let Authorization { nonce, terms, draft, payer, key, host, counted } = authorization.clone();
        let Some(valid_before) = draft.valid_before() else { return };
        let runs_until = now.running.saturating_add(valid_before.saturating_sub(now.wall));
        let open = OpenAuthorization {
            key,
            draft,
            terms,
            payer,
            host,
            counted,
            since,
            is_used: false,
            valid_before,
            runs_until,
            lost_until: None,
            was_refused: false,
            state,
        };
        self.all.insert(nonce, open);
        if let Some(key) = key {
            self.by_key.entry(key).or_default().push(nonce);
        }
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
                OpenState::Taken { until } | OpenState::Lost { until } if until > now.wall => {
                    return Err(Refusal::PaidNotDelivered { retry_after: wait(until) });
                }
                OpenState::Unclear if !open.has_expired(now, retry_window) => {
                    let until = open.valid_before.saturating_add(retry_window);
                    return Err(Refusal::OutcomeUnclear { retry_after: wait(until) });
                }
                OpenState::InUse
                | OpenState::Unclear
                | OpenState::Unneeded
                | OpenState::Taken { .. }
                | OpenState::Lost { .. } => {}
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
            open.state = open.lost_until.map_or(OpenState::Unclear, |until| OpenState::Lost { until });
        }
    }

    /// It is to be presented again. Whether all that is known is that its seller refused it.
    pub(super) fn take_refusal(&mut self, nonce: &[u8; 32]) -> bool {
        self.all.get_mut(nonce).is_some_and(|open| std::mem::take(&mut open.was_refused))
    }

    /// Its seller refused it, and nothing moved before.
    pub(super) fn refuse(&mut self, nonce: &[u8; 32]) {
        if let Some(open) = self.all.get_mut(nonce) {
            open.was_refused = true;
        }
    }

    /// The seller took it, and its client has not got all of the response.
    pub(super) fn lose(&mut self, nonce: &[u8; 32], until: u64) {
        if let Some(open) = self.all.get_mut(nonce) {
            open.lost_until = Some(until);
            open.state = OpenState::Lost { until };
        }
    }

    /// Those whose loss was too long ago to matter to a later request: they count as served.
    pub(super) fn lost_before(&self, now: AuthorizationTime) -> Vec<[u8; 32]> {
        let is_over =
            |open: &OpenAuthorization| matches!(open.state, OpenState::Lost { until } if until <= now.wall);
        self.all.iter().filter(|(_, open)| is_over(open)).map(|(nonce, _)| *nonce).collect()
    }

    /// Whether the seller would serve again for it.
    pub(super) fn is_identified(&self, nonce: &[u8; 32]) -> bool {
        self.all.get(nonce).is_some_and(|open| open.draft.is_identified())
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

    /// It was accepted, and its response has reached the client. True if its chain is to confirm that.
    pub(super) fn serve(&mut self, nonce: &[u8; 32], limits: &AuthorizationLimits) -> bool {
        let Some(open) = self.remove(nonce) else { return false };
        let OpenAuthorization { valid_before, runs_until, .. } = open;
        let query = open.asks(&self.chains).filter(|_| limits.served_checks > 0);
        let Some(query) = query else { return false };
        let (nonce, counted) = (*nonce, open.counted);
        self.served.push(ServedAuthorization { nonce, query, counted, valid_before, runs_until });
        true
    }

    /// Removes those that were served and that no chain is asked about any more; returns their nonces.
    pub(super) fn forget_served(
        &mut self,
        now: AuthorizationTime,
        limits: &AuthorizationLimits,
    ) -> Vec<[u8; 32]> {
        self.served.forget_old(&self.chains, now, limits)
    }

    /// Those that were served.
    pub(super) fn served(&self) -> &ServedAuthorizations {
        &self.served
    }

    /// It was accepted, or never signed.
    pub(super) fn end(&mut self, nonce: &[u8; 32]) {
        self.remove(nonce);
    }

    fn remove(&mut self, nonce: &[u8; 32]) -> Option<OpenAuthorization> {
        let open = self.all.remove(nonce)?;
        if let Some(key) = open.key
            && let Some(nonces) = self.by_key.get_mut(&key)
        {
            nonces.retain(|other| other != nonce);
            if nonces.is_empty() {
                self.by_key.remove(&key);
            }
        }
        Some(open)
    }

    /// Forgets those that can no longer be redeemed, whose purchase may be repeated, and which no chain is asked about any
    /// more. Of those that one is still asked about, as many as may be open are kept, the newest.
    pub(super) fn forget_old(&mut self, now: AuthorizationTime, limits: &AuthorizationLimits) {
        let retry_window = limits.retry_window.as_secs();
        let is_old = |(_, open): &(&[u8; 32], &OpenAuthorization)| {
            !matches!(open.state, OpenState::Lost { .. }) && open.is_old(now, retry_window)
        };
        let (mut asked, mut forgotten): (Vec<_>, Vec<_>) =
            self.all.iter().filter(is_old).partition(|(_, open)| open.is_asked(&self.chains, now, limits));
        if asked.len() > limits.open {
            asked.sort_by_key(|(_, open)| open.valid_before);
            asked.truncate(asked.len() - limits.open);
            forgotten.extend(asked);
        }
        let unanswered = forgotten.iter().filter(|(_, open)| open.asks(&self.chains).is_some());
        let given_up: Vec<_> = unanswered.map(|(_, open)| open.shown(&self.chains)).collect();
        let forgotten: Vec<[u8; 32]> = forgotten.into_iter().map(|(nonce, _)| *nonce).collect();
        forgotten.iter().for_each(|nonce| self.end(nonce));
        self.given_up.extend(given_up);
        self.given_up.truncate(MOST_GIVEN_UP);
    }

    /// Those of this chain that it is no longer asked about, although it has not answered; each once.
    pub(super) fn take_given_up(&mut self, chain: u64) -> Vec<UnclearAuthorization> {
        self.given_up.extract_if(.., |open| open.chain.is_some_and(|(of, _)| of == chain)).collect()
    }

    /// Those that this chain is to be asked about.
    pub(super) fn doubts(&self, chain: u64, now: AuthorizationTime) -> Vec<UseDoubt> {
        let doubt = |(nonce, open): (&[u8; 32], &OpenAuthorization)| {
            let query = open.asks(&self.chains).filter(|query| query.chain_id == chain)?;
            // The seller would recognize it and serve, even if it has taken it.
            let is_served = open.draft.is_identified() && open.draft.is_usable(now.wall);
            let has_expired = open.has_expired(now, 0);
            let is_in_doubt = !matches!(open.state, OpenState::InUse | OpenState::Lost { .. });
            (is_in_doubt && !is_served).then_some(UseDoubt { nonce: *nonce, query, has_expired })
        };
        self.all.iter().filter_map(doubt).collect()
    }

    /// Those with an unclear outcome that can still become clear or be presented, without those that a request presents now.
    pub(super) fn unclear(
        &self,
        now: AuthorizationTime,
        limits: &AuthorizationLimits,
    ) -> impl Iterator<Item = UnclearAuthorization> {
        let unclear = self.all.values().filter(move |open| match open.state {
            OpenState::InUse | OpenState::Lost { .. } => false,
            OpenState::Unclear | OpenState::Unneeded
                if !open.is_used && !open.is_old(now, limits.retry_window.as_secs()) =>
            {
                true
            }
            // Of one that was taken, the seller says so.
            OpenState::Unclear | OpenState::Unneeded | OpenState::Taken { .. } => {
                open.is_asked(&self.chains, now, limits)
            }
        });
        unclear.map(|open| open.shown(&self.chains))
    }

    /// The chain has shown whether one was used, in a confirmed block with this time, in seconds since 1970.
    pub(super) fn shown(
        &mut self,
        nonce: &[u8; 32],
        is_used: bool,
        block_time: u64,
        (now, retry_window): (AuthorizationTime, u64),
    ) -> Shown {
        let Some(open) = self.all.get_mut(nonce) else {
            return self.served.shown(nonce, is_used, block_time, now).unwrap_or(Shown::Nothing);
        };
        match open.state {
            // A request presents it again: its outcome comes first. Or the seller has said that it took it.
            OpenState::InUse | OpenState::Lost { .. } => Shown::Nothing,
            OpenState::Unclear | OpenState::Unneeded | OpenState::Taken { .. } if open.is_used => {
                Shown::Nothing
            }
            OpenState::Unclear | OpenState::Unneeded | OpenState::Taken { .. } if is_used => {
                open.is_used = true;
                let until = match open.state {
                    OpenState::Taken { until } => until,
                    // The end of a purchase that has no part in it means nothing.
                    OpenState::InUse | OpenState::Unclear | OpenState::Unneeded | OpenState::Lost { .. } => {
                        now.wall.saturating_add(retry_window)
                    }
                };
                if open.state == OpenState::Unclear {
                    open.state = OpenState::Taken { until };
                }
                Shown::Used { until }
            }
            OpenState::Unclear | OpenState::Unneeded | OpenState::Taken { .. } => {
                // Until then it may be used in a later block. A block from the future ends nothing.
                if block_time <= open.valid_before || !open.has_expired(now, 0) {
                    return Shown::Nothing;
                }
                let counted = std::mem::take(&mut open.counted);
                self.end(nonce);
                Shown::Unused { counted }
            }
        }
    }

    /// Whether there are some whose request has ended and that still count.
    pub(super) fn has_ended(&self, now: AuthorizationTime, retry_window: u64) -> bool {
        let counts = |open: &OpenAuthorization| match open.state {
            OpenState::InUse | OpenState::Unneeded => false,
            OpenState::Unclear | OpenState::Taken { .. } | OpenState::Lost { .. } => {
                open.key.is_some() && !open.is_old(now, retry_window)
            }
        };
        self.all.values().any(counts)
    }

    /// Whether it is there.
    pub(super) fn contains(&self, nonce: &[u8; 32]) -> bool {
        self.all.contains_key(nonce)
    }

    /// How many there are that may still be redeemed, or whose purchase is not to be repeated.
    pub(super) fn len(&self, now: AuthorizationTime, retry_window: u64) -> usize {
        self.all.values().filter(|open| !open.is_old(now, retry_window)).count()
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
        let all: Vec<&OpenAuthorization> = nonces
            .filter_map(|nonce| self.all.get(nonce))
            .filter(|open| !open.is_old(now, retry_window))
            .collect();
        let taken = all.iter().filter_map(|open| match open.state {
            OpenState::Taken { until } => Some(until),
            OpenState::InUse | OpenState::Unclear | OpenState::Unneeded | OpenState::Lost { .. } => None,
        });
        if let Some(until) = taken.max().filter(|until| *until > now.wall) {
            return Err(Refusal::PaidNotDelivered { retry_after: wait(until) });
        }
        let is_own = |open: &OpenAuthorization| own.is_some() && open.draft.nonce() == own;
        let unclear = || all.iter().copied().filter(|open| open.state == OpenState::Unclear || is_own(open));
        let lost = || all.iter().copied().filter(|open| matches!(open.state, OpenState::Lost { .. }));
        let usable = lost().chain(unclear()).find(|open| {
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
        // This request may have presented one ahead.
        let is_lost =
            |open: &&&OpenAuthorization| matches!(open.state, OpenState::Lost { .. }) || is_own(open);
        let lost_until = all.iter().filter(is_lost).filter_map(|open| open.lost_until).max();
        if let Some(until) = lost_until.filter(|until| *until > now.wall) {
            return Err(Refusal::PaidNotDelivered { retry_after: wait(until) });
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
            // What was taken cannot be redeemed once more.
            OpenState::Lost { until } => until <= now.wall,
        }
    }

    /// What the user is shown of it.
    fn shown(&self, chains: &BTreeSet<u64>) -> UnclearAuthorization {
        let query = self.draft.use_query(self.payer);
        UnclearAuthorization {
            terms: self.terms.clone(),
            host: HostName::clone(&self.host),
            budgets: self.counted.iter().map(|(budget, ..)| budget.clone()).collect(),
            since: self.since,
            valid_before: self.valid_before,
            chain: query.map(|query| (query.chain_id, chains.contains(&query.chain_id))),
        }
    }

    /// What its chain is to be asked, if it can be and has not answered.
    fn asks(&self, chains: &BTreeSet<u64>) -> Option<UseQuery> {
        let query = self.draft.use_query(self.payer).filter(|_| !self.is_used);
        query.filter(|query| chains.contains(&query.chain_id))
    }

    /// Whether its chain is still asked.
    fn is_asked(&self, chains: &BTreeSet<u64>, now: AuthorizationTime, limits: &AuthorizationLimits) -> bool {
        self.asks(chains).is_some() && !self.has_expired(now, limits.ask_chain_for.as_secs())
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
        let (terms, host) = (offer.terms(), "bob.example".into());
        let counted = vec![(budget(), cost(), 16)];
        Authorization { nonce, terms, draft, payer: PAYER, key: Some(KEY), host, counted }
    }

    fn budget() -> BudgetKey {
        BudgetKey { name: "daily".into(), unit: "usd".into(), host: None }
    }

    fn cost() -> BudgetAmount {
        "5".parse().unwrap()
    }

    fn limits() -> AuthorizationLimits {
        AuthorizationLimits { ask_chain_for: Duration::from_secs(1000), ..AuthorizationLimits::default() }
    }

    fn known_as(byte: u8, taken_until: Option<u64>) -> KnownAuthorization {
        let authorization = authorization(byte, 5);
        KnownAuthorization { authorization, since: 1000, taken_until, is_used: false, is_served: false }
    }

    fn limit(most: u64) -> SpendLimit {
        SpendLimit {
            host: "bob.example".into(),
            max_price: PriceLimit::Tokens([(most.into(), known())].into()),
            receivers: Vec::new(),
            preference: Arc::default(),
            hooks: Arc::<Hooks>::default(),
            budgets: Arc::default(),
            origin: Default::default(),
        }
    }

    /// What a request for `price` gets at this time: `new`, the number of an authorization, or a refusal with its wait.
    fn join(open: &mut OpenAuthorizations, price: u64, most: u64, now: AuthorizationTime) -> String {
        open.forget_old(now, &limits());
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
        assert_eq!(open.len(at(1001), WINDOW), 2);
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
            assert_eq!(open.len(now, WINDOW), usize::from(expected != "new"), "{now:?}");
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

    /// With one whose request has ended, on a chain that can be asked.
    fn in_doubt() -> OpenAuthorizations {
        let mut open = OpenAuthorizations::default();
        open.set_chains([1].into());
        open.begin(&authorization(1, 5), at(1000));
        open.release(&[1; 32]);
        open
    }

    fn asks(open: &OpenAuthorizations, now: AuthorizationTime) -> Vec<(u8, bool)> {
        open.doubts(1, now).iter().map(|doubt| (doubt.nonce[0], doubt.has_expired)).collect()
    }

    #[test]
    fn unused_counts_only_in_a_block_past_the_expiry_and_by_both_clocks() {
        let freed = Shown::Unused { counted: vec![(budget(), cost(), 16)] };
        for (block_time, now, is_freed) in [
            (1101, at(1100), true),
            (u64::MAX, at(1100), true),
            // In a block of that very time, some tokens take it.
            (1100, at(1200), false),
            (0, at(1200), false),
            // The block is from the future.
            (1101, at(1099), false),
            (u64::MAX, at(1001), false),
            // The wall clock was set forward, or back.
            (1101, AuthorizationTime { wall: 4600, running: 501 }, false),
            (1101, AuthorizationTime { wall: 100, running: 5000 }, false),
        ] {
            let mut open = in_doubt();
            let shown = open.shown(&[1; 32], false, block_time, (now, WINDOW));
            assert_eq!(shown == freed, is_freed, "{block_time} {now:?}: {shown:?}");
            assert_eq!(open.all.len(), usize::from(!is_freed), "{block_time} {now:?}");
            // The purchase may be repeated at once, and nothing is freed twice.
            if is_freed {
                assert_eq!(join(&mut open, 5, 100, now), "new");
                assert_eq!(open.shown(&[1; 32], false, block_time, (now, WINDOW)), Shown::Nothing);
            }
        }
    }

    #[test]
    fn what_the_chain_shows_as_used_was_taken_and_is_not_asked_about_again() {
        let mut open = in_doubt();
        assert_eq!(asks(&open, at(1001)), [(1, false)]);
        assert_eq!(open.shown(&[1; 32], true, 0, (at(1005), WINDOW)), Shown::Used { until: 1065 });
        assert_eq!(
            (join(&mut open, 5, 100, at(1006)), asks(&open, at(1006))),
            ("taken 59".to_owned(), vec![])
        );
        // It contradicts itself.
        assert_eq!(open.shown(&[1; 32], false, 5000, (at(1200), WINDOW)), Shown::Nothing);
        assert_eq!(join(&mut open, 5, 100, at(1065)), "new");
        // The seller has said so before: the time does not begin again.
        let mut open = in_doubt();
        open.take(&[1; 32], 1020);
        assert_eq!(asks(&open, at(1010)), [(1, false)]);
        assert_eq!(open.shown(&[1; 32], true, 0, (at(1019), WINDOW)), Shown::Used { until: 1020 });
        // It has said so, and it is not true.
        let mut open = in_doubt();
        open.take(&[1; 32], 1020);
        assert!(matches!(open.shown(&[1; 32], false, 1101, (at(1101), WINDOW)), Shown::Unused { .. }));
    }

    #[test]
    fn nothing_is_shown_of_one_that_a_request_presents() {
        let mut open = in_doubt();
        assert_eq!(join(&mut open, 5, 100, at(1001)), "1");
        assert_eq!(asks(&open, at(1001)), []);
        assert_eq!(open.shown(&[1; 32], true, 5000, (at(5000), WINDOW)), Shown::Nothing);
        assert_eq!(open.shown(&[1; 32], false, 5000, (at(5000), WINDOW)), Shown::Nothing);
        open.release(&[1; 32]);
        assert_eq!(asks(&open, at(1100)), [(1, true)]);
    }

    #[test]
    fn a_chain_is_asked_for_a_while_and_meanwhile_the_purchase_may_be_repeated() {
        let mut open = in_doubt();
        for (now, expected, asked) in
            [(1159, "unclear 1", 1), (1160, "new", 1), (2099, "new", 1), (2100, "new", 0)]
        {
            assert_eq!(join(&mut open, 5, 100, at(now)), expected, "{now}");
            assert_eq!(asks(&open, at(now)).len(), asked, "{now}");
            let counted = usize::from(now < 1160);
            assert_eq!(open.len(at(now), WINDOW), counted, "{now}");
        }
        // Not more than may be open.
        let mut open = in_doubt();
        open.begin(&authorization(2, 5), at(1000));
        open.release(&[2; 32]);
        open.forget_old(at(1300), &AuthorizationLimits { open: 1, ..limits() });
        assert_eq!(open.all.len(), 1);
        // Without a node, it is forgotten.
        let mut open = in_doubt();
        open.set_chains([2].into());
        assert_eq!((join(&mut open, 5, 100, at(1160)), open.all.len()), ("new".to_owned(), 0));
    }

    #[test]
    fn what_its_client_lost_is_presented_again_within_the_window_and_nothing_is_signed_beside_it() {
        let mut open = in_doubt();
        open.lose(&[1; 32], 1061);
        let shown = |open: &OpenAuthorizations, now: u64| {
            (
                open.unclear(at(now), &limits()).count(),
                asks(open, at(now)).len(),
                open.has_ended(at(now), WINDOW),
            )
        };
        assert_eq!(shown(&open, 1001), (0, 0, true), "it is not in doubt");
        assert_eq!(open.shown(&[1; 32], false, 5000, (at(5000), WINDOW)), Shown::Nothing);
        // On other terms it cannot be presented.
        assert_eq!(join(&mut open, 6, 100, at(1001)), "taken 60");
        let refused = open.check(KEY, at(1001), WINDOW).map_err(|refusal| refusal.retry_after().unwrap());
        assert_eq!(refused, Err(Duration::from_secs(60)));
        for _ in 0..2 {
            assert_eq!(join(&mut open, 5, 100, at(1001)), "1");
            // Another one at once is another purchase; if nothing comes of the first, it is as it was.
            assert_eq!(join(&mut open, 5, 100, at(1001)), "new");
            open.release(&[1; 32]);
        }
        // Not even for a request that has presented it ahead, if the seller then asks for something else.
        assert_eq!(join(&mut open, 5, 100, at(1001)), "1");
        let own = (KEY, Some(PAYER), Some([1; 32]));
        let beside = open.join(own, &authorization(0, 6).terms, &limit(100), (at(1001), WINDOW));
        assert!(matches!(beside, Err(Refusal::PaidNotDelivered { .. })), "{beside:?}");
        open.release(&[1; 32]);
        assert_eq!(open.lost_before(at(1060)), [[0; 32]; 0]);
        assert_eq!(
            (open.lost_before(at(1061)), join(&mut open, 5, 100, at(1061))),
            (vec![[1; 32]], "new".to_owned())
        );
        assert_eq!(open.len(at(1061), WINDOW), 0);
        assert!(open.serve(&[1; 32], &limits()), "the chain confirms it, like any that was served");
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
        open.restore(&known_as(1, Some(1061)), at(1001));
        open.restore(&known_as(2, None), at(1001));
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
        open.forget_old(at(1099), &limits());
        assert_eq!(open.len(at(1099), WINDOW), 1, "it can be redeemed");
        // The chain tells whether it was, and that changes no purchase.
        open.set_chains([1].into());
        assert_eq!(asks(&open, at(1099)), [(1, false)]);
        assert!(matches!(open.shown(&[1; 32], true, 0, (at(1099), WINDOW)), Shown::Used { .. }));
        assert_eq!((join(&mut open, 5, 6, at(1099)), asks(&open, at(1099))), ("new".to_owned(), vec![]));
        open.forget_old(at(1100), &limits());
        assert_eq!(open.all.len(), 0);
    }
}
