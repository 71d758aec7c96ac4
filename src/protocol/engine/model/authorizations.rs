//! Purchases in the model that are paid with authorizations that expire: later requests for the same purchase may continue
//! them. And freezing, and the budgets of runs.

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::protocol::Answer;
use crate::protocol::budget::{BudgetRef, BudgetSet};
use crate::protocol::engine::{AuthorizationTime, KnownAuthorization, Loss, Occasion};
use crate::protocol::policy::{KnownAsset, TokenDomain};
use crate::protocol::schemes;

/// The wall clock at the start, in seconds since 1970.
const WALL: u64 = 1_900_000_000;
/// How long sellers want a payment to be valid, in seconds.
pub(super) const VALIDITY: u64 = 100;
/// How long a purchase is not repeated, in seconds.
pub(super) const RETRY_WINDOW: u64 = 60;
/// How many authorizations may be open at once.
pub(super) const MOST_OPEN: usize = 8;
const DOLLAR: Address = Address([0xd0; 20]);

/// What happens besides the other steps. Indices are taken modulo the number of candidates.
#[derive(Clone, Debug)]
pub(super) enum ExtraStep {
    /// A request for a purchase, within a run if there is one.
    Buy {
        key: u8,
        price: u64,
        in_run: bool,
        /// Whether the seller has not asked for the payment.
        is_ahead: bool,
    },
    /// The granted payment of one ends.
    Reply(usize, SellerReply),
    /// The seller responds to a payment that it wants another one, of this price.
    Outdate(usize, u64),
    /// A client has its response.
    Deliver(usize),
    /// A client has not got all of its response: the seller broke off, or the client left so many seconds ago.
    Lose(usize, Option<u64>),
    /// Its client leaves before the payment is sent.
    Leave(usize),
    /// The wall clock is set to this many seconds from the right time.
    SetClock(i64),
    Freeze(bool),
    /// A run begins with this much; it ends the one before it.
    Run(Option<u64>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum SellerReply {
    Accepted,
    Taken,
    /// The exchange ended without an outcome, and the payment may be presented again.
    Unclear,
    InDoubt,
    /// Another 402, with this text and price.
    Asks(&'static str, Option<u64>),
}

pub(super) fn extra_steps() -> impl Strategy<Value = Vec<(usize, ExtraStep)>> {
    let index = 0..8_usize;
    let price =
        || prop_oneof![4 => Just(10_u64), 2 => Just(60), 1 => 1..=MAX_PRICE, 1 => Just(MAX_PRICE + 1)];
    let text = prop_oneof![
        2 => Just("Payment required"),
        2 => Just("invalid_exact_evm_nonce_already_used"),
        1 => Just("invalid_exact_evm_signature"),
        1 => Just("invalid_exact_evm_payload_authorization_valid_before"),
        2 => Just("fetch failed"),
    ];
    let reply = prop_oneof![
        5 => Just(SellerReply::Accepted),
        2 => Just(SellerReply::Taken),
        4 => Just(SellerReply::Unclear),
        4 => Just(SellerReply::InDoubt),
        4 => (text, prop::option::weighted(0.2, price())).prop_map(|(text, price)| SellerReply::Asks(text, price)),
    ];
    let clock = prop_oneof![2 => Just(0), 1 => Just(3600), 1 => Just(-3600), 1 => Just(50)];
    let step = prop_oneof![
        12 => (0..3_u8, price(), prop::bool::weighted(0.6), prop::bool::weighted(0.4))
            .prop_map(|(key, price, in_run, is_ahead)| ExtraStep::Buy { key, price, in_run, is_ahead }),
        3 => (index.clone(), price()).prop_map(|(which, price)| ExtraStep::Outdate(which, price)),
        12 => (index.clone(), reply).prop_map(|(which, reply)| ExtraStep::Reply(which, reply)),
        3 => index.clone().prop_map(ExtraStep::Deliver),
        3 => (index.clone(), prop::option::of(prop_oneof![Just(0_u64), 0..70_u64]))
            .prop_map(|(which, ago)| ExtraStep::Lose(which, ago)),
        2 => index.prop_map(ExtraStep::Leave),
        2 => clock.prop_map(ExtraStep::SetClock),
        1 => prop::bool::weighted(0.3).prop_map(ExtraStep::Freeze),
        2 => prop::option::weighted(0.7, 0..200_u64).prop_map(ExtraStep::Run),
    ];
    prop::option::weighted(0.5, prop::collection::vec((0..80_usize, step), 1..60))
        .prop_map(Option::unwrap_or_default)
}

/// A request for a purchase.
struct Buyer {
    key: PurchaseKey,
    price: u64,
    is_ahead: bool,
    /// The authorization that it presents.
    granted: Option<[u8; 32]>,
    /// Whether its payment was presented by itself.
    has_presented: bool,
    /// Whether the seller has asked for another one instead.
    is_outdated: bool,
    /// A new authorization that it must not get, and why.
    forbidden: Option<String>,
    ended: bool,
}

/// An authorization that was signed.
struct SignedAuthorization {
    key: PurchaseKey,
    price: u64,
    /// Until when sellers can redeem it, by the running clock.
    until: u64,
    /// Until when its purchase is not repeated if that stays unclear, by a clock that has always been right; otherwise 0.
    waits_until: u64,
    /// The request that presents it.
    holder: Option<PurchaseId>,
    state: Knowledge,
    /// The request that it was drawn for, in whose budgets it counts, and when it was signed first.
    first: (PurchaseId, Instant),
}

/// What is known about an authorization that no request presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    Unclear,
    /// Its purchase is not repeated until this time of the wall clock, which had been set so often.
    Taken {
        until: u64,
        settings: usize,
    },
    /// The seller took it, and the response is on its way to the client.
    Accepted,
    /// The seller took it, and the client has not got all of the response. Its purchase is presented again until this time of the
    /// wall clock, which had been set so often.
    Lost {
        until: u64,
        settings: usize,
    },
    /// It is over: delivered, or never sent.
    Ended,
}

/// What the disk has of authorizations.
#[derive(Default)]
pub(super) struct DiskAuthorizations(BTreeMap<[u8; 32], KnownAuthorization>);

impl DiskAuthorizations {
    /// `now` is the time of the wall clock.
    pub(super) fn write(&mut self, record: &Record, now: u64) {
        match record {
            Record::Authorization(authorization) => {
                let known = KnownAuthorization {
                    authorization: Authorization::clone(authorization),
                    since: now,
                    taken_until: None,
                    is_used: false,
                    is_served: false,
                };
                self.0.insert(authorization.nonce, known);
            }
            // No later request continues it.
            Record::AuthorizationEnded(nonce)
            | Record::AuthorizationUnneeded(nonce)
            | Record::AuthorizationServed(nonce)
            | Record::AuthorizationConfirmed(nonce)
            | Record::AuthorizationUnused(nonce) => {
                self.0.remove(nonce);
            }
            Record::AuthorizationTaken(nonce, until) | Record::AuthorizationUsed(nonce, until) => {
                if let Some(known) = self.0.get_mut(nonce) {
                    known.taken_until = Some(*until);
                }
            }
            _ => {}
        }
    }
}

#[derive(Default)]
pub(super) struct ModelAuthorizations {
    buyers: BTreeMap<PurchaseId, Buyer>,
    signed: BTreeMap<[u8; 32], SignedAuthorization>,
    /// How far the wall clock is from the right time, in seconds.
    offset: i64,
    /// The same earlier, with the running clock when that began.
    offsets: Vec<(u64, i64)>,
    pub(super) is_frozen: bool,
    /// The budget of the run.
    run: Option<BudgetRef>,
    runs: u64,
}

impl ModelAuthorizations {
    /// Until when an authorization can be redeemed, by the running clock. If it was drawn while the wall clock was ahead, the
    /// chain's clock would have to be so, too. And how far the clock was from the right time.
    fn redeemable_until(&self, valid_before: u64, running: u64) -> (u64, i64) {
        let drawn = i64::try_from(valid_before - VALIDITY).unwrap() - i64::try_from(WALL).unwrap();
        let begins = [(0, 0)].into_iter().chain(self.offsets.iter().copied());
        let ends = self.offsets.iter().map(|(end, _)| *end).chain([running]);
        let mut found = begins.zip(ends).filter_map(|((begin, offset), end)| {
            let at = u64::try_from(drawn - offset).ok()?;
            let until = (at + VALIDITY).saturating_add_signed(offset.min(0));
            (begin..=end).contains(&at).then_some((until, offset))
        });
        found.next().unwrap_or_else(|| panic!("it is valid until {valid_before}, at {running}"))
    }
}

/// The dollar that these sellers take.
pub(super) fn dollar() -> KnownAsset {
    let domain = TokenDomain { name: "Dollar".to_owned(), version: "2".to_owned() };
    KnownAsset::new("T", "eip155:1", DOLLAR, 0, None).with_domain(Some(domain))
}

/// The nonce of an authorization that is drawn for a request.
fn nonce_of(id: PurchaseId) -> [u8; 32] {
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&id.0.to_be_bytes());
    nonce
}

/// The request that an authorization was drawn for.
fn drawn_for(nonce: &[u8; 32]) -> PurchaseId {
    PurchaseId(u64::from_be_bytes(nonce[..8].try_into().unwrap()))
}

fn offer(price: u64, error: &str) -> Offer {
    let body = format!(
        r#"{{"x402Version": 1, "error": "{error}", "accepts": [{{"scheme": "exact", "network": "eip155:1",
            "maxAmountRequired": "{price}", "asset": "{DOLLAR}", "payTo": "{}", "maxTimeoutSeconds": {VALIDITY}}}]}}"#,
        SELLERS[0]
    );
    let headers = HeaderMap::new();
    let status = StatusCode::PAYMENT_REQUIRED;
    schemes::read(&Answer { status, headers: &headers, body: Some(body.as_bytes()) }).unwrap().remove(0)
}

impl Model {
    /// Seconds since the start, by a clock that only runs on.
    fn running(&self) -> u64 {
        self.now.duration_since(self.began).as_secs()
    }

    pub(super) fn wall(&self) -> u64 {
        (WALL + self.running()).saturating_add_signed(self.authorizations.offset)
    }

    pub(super) fn authorization_time(&self) -> AuthorizationTime {
        AuthorizationTime { wall: self.wall(), running: self.running() }
    }

    pub(super) fn extra_step(&mut self, step: ExtraStep) {
        match step {
            ExtraStep::Buy { key, price, in_run, is_ahead } => self.buy(key, price, in_run, is_ahead),
            ExtraStep::Outdate(which, price) => self.outdate(which, price),
            ExtraStep::Reply(which, reply) => self.seller_replies(which, reply),
            ExtraStep::Deliver(which) => self.deliver(which),
            ExtraStep::Lose(which, ago) => self.lose(which, ago),
            ExtraStep::Leave(which) => self.buyer_leaves(which),
            ExtraStep::SetClock(offset) => {
                self.authorizations.offset = offset;
                self.authorizations.offsets.push((self.running(), offset));
                self.tell_time();
            }
            ExtraStep::Freeze(is_frozen) => self.freeze(is_frozen),
            ExtraStep::Run(most) => self.run(most),
        }
        self.check();
    }

    fn buy(&mut self, key: u8, price: u64, in_run: bool, is_ahead: bool) {
        let key = PurchaseKey([key; 32]);
        let run = self.authorizations.run.iter().filter(|_| in_run).cloned();
        let budgets: BudgetSet = self.budgets.of(0).iter().cloned().chain(run).collect();
        let forbidden = self.forbidden(key, price, 0);
        let occasion = if is_ahead { Occasion::Ahead } else { Occasion::Asked };
        self.demand_authorization((key, price), budgets, occasion, forbidden);
    }

    /// Only a payment that was sent ahead, and presented once, may be followed by another.
    fn outdate(&mut self, which: usize, price: u64) {
        let buyers = self.authorizations.buyers.iter().filter(|(_, buyer)| !buyer.is_outdated);
        let granted: Vec<_> = buyers.filter_map(|(id, buyer)| Some((*id, buyer.granted?))).collect();
        let Some((id, nonce)) = pick(&granted, which) else { return };
        let signed = &self.authorizations.signed[&nonce];
        let earlier = if self.running() < signed.until { signed.price } else { 0 };
        self.budgets.sent(signed.first.0);
        let buyer = self.authorizations.buyers.get_mut(&id).unwrap();
        let was_presented = std::mem::replace(&mut buyer.has_presented, true) || nonce != nonce_of(id);
        buyer.is_outdated = true;
        let (key, is_ahead) = (buyer.key, buyer.is_ahead);
        let forbidden = match was_presented || !is_ahead {
            true => Some("another payment was presented before, or asked for".to_owned()),
            false => self.forbidden(key, price, earlier),
        };
        let budgets = Arc::clone(&self.budgets.demands[&id]);
        self.demand_authorization((key, price), budgets, Occasion::Outdated(id), forbidden);
    }

    fn demand_authorization(
        &mut self,
        (key, price): (PurchaseKey, u64),
        budgets: BudgetSet,
        occasion: Occasion,
        forbidden: Option<String>,
    ) {
        self.next += 1;
        let (purchase, is_ahead) = (PurchaseId(self.next), occasion == Occasion::Ahead);
        let buyer = Buyer {
            key,
            price,
            is_ahead,
            granted: None,
            has_presented: false,
            is_outdated: false,
            forbidden,
            ended: false,
        };
        self.authorizations.buyers.insert(purchase, buyer);
        self.budgets.demands.insert(purchase, Arc::clone(&budgets));
        let limit = SpendLimit {
            host: "host0".into(),
            max_price: PriceLimit::Tokens([(MAX_PRICE.into(), dollar())].into()),
            receivers: Vec::new(),
            preference: Arc::default(),
            hooks: Arc::clone(&self.policy.hooks),
            budgets,
            origin: Default::default(),
        };
        let nonce = nonce_of(purchase);
        let deadline = self.now + self.policy.pay_timeout;
        let offer = offer(price, "Payment required");
        self.handle(Input::DemandOneShot {
            purchase,
            offer,
            limit,
            deadline,
            nonce,
            key: Some(key),
            occasion,
        });
    }

    /// Why a request for a purchase must not get an authorization of its own. `beside` is what it has sent before.
    fn forbidden(&self, key: PurchaseKey, price: u64, beside: u64) -> Option<String> {
        let (running, wall) = (self.running(), self.wall());
        let is_clock_right = self.authorizations.offset == 0;
        let times_set = self.authorizations.offsets.len();
        let mut sum = price + beside;
        for (nonce, other) in self.authorizations.signed.iter().filter(|(_, other)| other.key == key) {
            let why = |what: &str| Some(format!("{what}: {:?} of {}", &nonce[..8], other.price));
            match other.state {
                _ if other.holder.is_some() => {}
                Knowledge::Taken { until, settings } if settings == times_set && wall < until => {
                    return why("taken");
                }
                Knowledge::Lost { until, settings } if settings == times_set && wall < until => {
                    return why("lost");
                }
                Knowledge::Unclear if running < other.until && other.price == price => return why("unclear"),
                Knowledge::Unclear if running < other.until => sum += other.price,
                Knowledge::Unclear if is_clock_right && running < other.waits_until => {
                    return why("expired lately");
                }
                _ => {}
            }
        }
        (sum > price && sum > MAX_PRICE).then(|| format!("{sum} together"))
    }

    pub(super) fn is_buyer(&self, id: PurchaseId) -> bool {
        self.authorizations.buyers.contains_key(&id)
    }

    /// A payment was granted, and is signed.
    pub(super) fn granted_authorization(&mut self, id: PurchaseId, draft: &Draft) {
        let (nonce, valid_before) = (draft.nonce().unwrap(), draft.valid_before().unwrap());
        assert!(!self.authorizations.is_frozen, "signed while it is frozen");
        let on_disk = self.disk.authorizations.0.get(&nonce);
        assert!(
            on_disk.is_some_and(|known| known.authorization.draft == *draft),
            "signed ahead of the record"
        );
        let (until, offset) = self.authorizations.redeemable_until(valid_before, self.running());
        let buyer = self.authorizations.buyers.get_mut(&id).unwrap();
        assert!(!buyer.ended && buyer.granted.is_none());
        let price = units(draft.price().amount);
        assert!(price == buyer.price && price <= MAX_PRICE, "{price} instead of {}", buyer.price);
        buyer.granted = Some(nonce);
        let is_new = !self.authorizations.signed.contains_key(&nonce);
        // One that was drawn before a crash may be signed later.
        if is_new && nonce == nonce_of(id) {
            assert_eq!(buyer.forbidden, None, "{id:?} gets an authorization of its own");
        }
        let signed = self.authorizations.signed.entry(nonce).or_insert(SignedAuthorization {
            key: buyer.key,
            price,
            until,
            waits_until: if offset == 0 { until + RETRY_WINDOW } else { 0 },
            holder: None,
            state: Knowledge::Unclear,
            first: (drawn_for(&nonce), self.now),
        });
        assert_eq!(signed.key, buyer.key, "the payment of another purchase");
        assert!(signed.holder.is_none_or(|holder| holder == id), "two requests present one authorization");
        match signed.state {
            Knowledge::Unclear | Knowledge::Lost { .. } => {}
            Knowledge::Taken { .. } | Knowledge::Accepted | Knowledge::Ended => {
                panic!("what is over is presented again: {:?}", signed.state)
            }
        }
        signed.holder = Some(id);
        let (first, at) = signed.first;
        self.budgets.signed(first, None, (0, price), at);
    }

    /// The request has ended without a certain outcome of its payment.
    pub(super) fn buyer_ended(&mut self, id: PurchaseId) {
        let buyer = self.authorizations.buyers.get_mut(&id).unwrap();
        assert!(!std::mem::replace(&mut buyer.ended, true), "{id:?} ends twice");
        buyer.granted = None;
        let held = self.authorizations.signed.values_mut().filter(|signed| signed.holder == Some(id));
        held.for_each(|signed| signed.holder = None);
    }

    fn seller_replies(&mut self, which: usize, reply: SellerReply) {
        let granted: Vec<_> =
            self.authorizations.buyers.iter().filter_map(|(id, buyer)| Some((*id, buyer.granted?))).collect();
        let Some((id, nonce)) = pick(&granted, which) else { return };
        let (wall, settings) = (self.wall(), self.authorizations.offsets.len());
        let buyer = self.authorizations.buyers.get_mut(&id).unwrap();
        (buyer.granted, buyer.has_presented) = (None, true);
        let price = buyer.price;
        let signed = self.authorizations.signed.get_mut(&nonce).unwrap();
        self.budgets.sent(signed.first.0);
        let is_taken = matches!(
            reply,
            SellerReply::Taken | SellerReply::Asks("invalid_exact_evm_nonce_already_used", _)
        );
        if is_taken {
            signed.state = Knowledge::Taken { until: wall + RETRY_WINDOW, settings };
        }
        let outcome = match reply {
            SellerReply::Accepted => {
                signed.state = Knowledge::Accepted;
                Outcome::Accepted
            }
            SellerReply::Taken => Outcome::Taken,
            SellerReply::Unclear => Outcome::Unclear,
            SellerReply::InDoubt => Outcome::InDoubt,
            SellerReply::Asks(text, other) => {
                Outcome::Rejected(Box::new(offer(other.unwrap_or(price), text)))
            }
        };
        if matches!(outcome, Outcome::Accepted | Outcome::Taken | Outcome::InDoubt) {
            self.buyer_ended(id);
        }
        self.handle(Input::Answer(id, outcome));
    }

    fn deliver(&mut self, which: usize) {
        let accepted =
            self.authorizations.signed.iter().filter(|(_, signed)| signed.state == Knowledge::Accepted);
        let accepted: Vec<[u8; 32]> = accepted.map(|(nonce, _)| *nonce).collect();
        let Some(nonce) = pick(&accepted, which) else { return };
        self.authorizations.signed.get_mut(&nonce).unwrap().state = Knowledge::Ended;
        self.handle(Input::Delivered(nonce));
    }

    fn lose(&mut self, which: usize, ago: Option<u64>) {
        let accepted =
            self.authorizations.signed.iter().filter(|(_, signed)| signed.state == Knowledge::Accepted);
        let accepted: Vec<[u8; 32]> = accepted.map(|(nonce, _)| *nonce).collect();
        let Some(nonce) = pick(&accepted, which) else { return };
        let (wall, settings) = (self.wall(), self.authorizations.offsets.len());
        let state = match ago {
            None => Knowledge::Taken { until: wall + RETRY_WINDOW, settings },
            Some(ago) if ago < RETRY_WINDOW => Knowledge::Lost { until: wall + RETRY_WINDOW - ago, settings },
            Some(_) => Knowledge::Ended,
        };
        self.authorizations.signed.get_mut(&nonce).unwrap().state = state;
        let loss = ago.map_or(Loss::CutOff, |ago| Loss::ClientLeft { ago: Duration::from_secs(ago) });
        self.handle(Input::Lost(nonce, loss));
    }

    fn buyer_leaves(&mut self, which: usize) {
        let open = self.authorizations.buyers.iter().filter(|(_, buyer)| !buyer.ended);
        let Some(id) = pick(&open.map(|(id, _)| *id).collect::<Vec<_>>(), which) else { return };
        if self.authorizations.buyers[&id].is_outdated {
            self.buyer_ended(id);
            return self.handle(Input::Answer(id, Outcome::InDoubt));
        }
        self.budgets.unsent(id);
        let buyer = &self.authorizations.buyers[&id];
        // One that an earlier request has drawn may have been sent before a crash.
        let never_sent = buyer.granted.filter(|nonce| !buyer.has_presented && *nonce == nonce_of(id));
        if let Some(signed) = never_sent.and_then(|nonce| self.authorizations.signed.get_mut(&nonce)) {
            signed.state = Knowledge::Ended;
        }
        self.buyer_ended(id);
        self.shot_questions.retain(|asked| *asked != id);
        self.handle(Input::Withdraw(id));
    }

    fn freeze(&mut self, is_frozen: bool) {
        (self.authorizations.is_frozen, self.disk.is_frozen) = (is_frozen, is_frozen);
        self.handle(Input::Freeze(is_frozen));
    }

    fn run(&mut self, most: Option<u64>) {
        if let Some(run) = self.authorizations.run.take() {
            self.handle(Input::EndBudget(run.key()));
        }
        let (Some(most), Some(unit)) = (most, self.budgets.unit()) else { return };
        self.authorizations.runs += 1;
        let cost = BudgetUnit::cost_of_units(most.into(), 0).unwrap();
        let budget = Arc::new(Budget::of_run(self.authorizations.runs, unit, cost));
        self.budgets.runs.push(Arc::clone(&budget));
        self.authorizations.run = Some(BudgetRef { budget: Arc::clone(&budget), host: None });
        self.handle(Input::BeginBudget(budget));
    }

    /// Payments that were granted were sent, or never will be.
    pub(super) fn authorizations_crash(&mut self, sent: bool) {
        let granted: Vec<_> = self.authorizations.buyers.values().filter_map(|buyer| buyer.granted).collect();
        for nonce in granted {
            let first = self.authorizations.signed[&nonce].first.0;
            if sent { self.budgets.sent(first) } else { self.budgets.unsent(first) }
        }
    }

    /// What is on disk is all that a new run knows. The clock is right, or too slow.
    pub(super) fn authorizations_of_disk(&mut self) -> Vec<KnownAuthorization> {
        let running = self.running();
        let state = &mut self.authorizations;
        state.buyers.values_mut().for_each(|buyer| (buyer.ended, buyer.granted) = (true, None));
        state.run = None;
        state.offset = state.offset.min(0);
        state.offsets.push((running, state.offset));
        for (nonce, signed) in &mut state.signed {
            signed.holder = None;
            if state.offset != 0 {
                // A start with a slow clock takes the time until it expires for longer.
                signed.waits_until = 0;
            }
            signed.state = match self.disk.authorizations.0.get(nonce) {
                None => Knowledge::Ended,
                Some(KnownAuthorization { taken_until: None, .. }) => Knowledge::Unclear,
                Some(KnownAuthorization { taken_until: Some(until), .. }) => {
                    Knowledge::Taken { until: *until, settings: state.offsets.len() }
                }
            };
        }
        state.is_frozen = self.disk.is_frozen;
        self.disk.authorizations.0.values().cloned().collect()
    }

    pub(super) fn has_buyers(&self) -> bool {
        self.authorizations.buyers.values().any(|buyer| buyer.granted.is_some())
    }

    /// Ends what sellers and clients can end.
    pub(super) fn buyers_end(&mut self) {
        self.seller_replies(0, SellerReply::InDoubt);
        self.deliver(0);
    }

    /// Every request has ended, nothing is in doubt for ever, and no run is left.
    pub(super) fn check_authorizations_ended(&mut self) {
        self.run(None);
        assert!(self.authorizations.buyers.values().all(|buyer| buyer.ended), "a buyer waits for ever");
        while self.authorizations.signed.values().any(|signed| signed.state == Knowledge::Accepted) {
            self.deliver(0);
        }
        assert!(!self.engine.has_purchases_in_doubt(), "a purchase is in doubt for ever");
        let views = self.engine.budgets();
        assert!(views.iter().all(|view| !view.name.starts_with("run ")), "a run for ever: {views:?}");
    }
}
