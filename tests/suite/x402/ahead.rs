//! Payments that go with the first request, by a remembered offer: what a seller can redeem because of one request never
//! exceeds the rule's limit, whatever it answers.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};

use super::*;
use crate::support::notary::{AUTHORIZATIONS, Does, Notary};
use crate::support::raw::Raw;

/// In base units.
const MAX_PRICE: u64 = 2000;
/// Payments that are unclear are presented again at once, and soon; a busy machine does not look like a silent seller.
const PATIENT: &str = "[limits]\nanswer_timeout = \"2s\"\nunclear_repeats = 2\n";

/// A seller whose price can change; 0: for free.
#[derive(Clone)]
struct Shop {
    version: Version,
    chain: Chain,
    price: Arc<Mutex<u64>>,
    /// Redeems payments that it does not take.
    is_greedy: bool,
    /// What it answers to the next payments, whatever they are.
    next: Arc<Mutex<Vec<Answer>>>,
    /// The payment of each request.
    seen: Arc<Mutex<Vec<Option<Authorized>>>>,
}

impl Shop {
    fn new(version: Version) -> Self {
        let (chain, price) = (Chain::default(), Arc::new(Mutex::new(PRICE)));
        let (next, seen) = (Arc::default(), Arc::default());
        Self { version, chain, price, is_greedy: false, next, seen }
    }

    async fn open(&self) -> Mallory {
        let shop = self.clone();
        Mallory::spawn(move |presented| shop.answer(presented)).await
    }

    fn answer(&self, presented: &Presented) -> Answer {
        let (version, price) = (self.version, *self.price.lock().unwrap());
        let payment = version.payment(presented);
        self.seen.lock().unwrap().push(payment.clone());
        let asks = |error| version.asks(error, &[version.entry(price)]);
        if price == 0 {
            return Answer::new(StatusCode::OK, "free\n");
        }
        let Some(payment) = payment else { return asks("Payment required") };
        if let Some(next) = self.next.lock().unwrap().pop() {
            return next;
        }
        if payment.value != price.to_string() {
            if self.is_greedy {
                self.chain.settle(&payment);
            }
            return asks("No matching payment requirements");
        }
        match self.chain.settle(&payment) {
            true => version.served(),
            false => asks("invalid_exact_evm_nonce_already_used"),
        }
    }

    fn asks(&self, price: u64) {
        *self.price.lock().unwrap() = price;
    }

    /// Answers this to the next payment.
    fn then(&self, answer: Answer) {
        self.next.lock().unwrap().insert(0, answer);
    }

    /// How many requests it has seen.
    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The payment of each request from `from` on.
    fn paid(&self, from: usize) -> Vec<Option<Authorized>> {
        self.seen.lock().unwrap()[from..].to_vec()
    }

    /// How many payments were signed.
    fn signed(&self) -> usize {
        signed(&self.paid(0))
    }
}

fn values(payments: &[Option<Authorized>]) -> Vec<Option<u64>> {
    payments.iter().map(|payment| Some(payment.as_ref()?.value.parse().unwrap())).collect()
}

/// What was signed, each once.
fn signed(payments: &[Option<Authorized>]) -> usize {
    let nonces: std::collections::BTreeSet<_> = payments.iter().flatten().map(|paid| &paid.nonce).collect();
    nonces.len()
}

async fn post(proxy: &Running, seller: &Mallory, body: &'static str) -> Got {
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}).boxed();
    let request = Request::post(url).body(body).unwrap();
    tokio::time::timeout(PATIENCE, ask(proxy.address, request)).await.expect("no answer")
}

fn retry_after(got: &Got) -> Option<u64> {
    got.headers.get("retry-after")?.to_str().unwrap().parse().ok()
}

fn goods(got: &Got) {
    assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
}

#[tokio::test]
async fn a_known_price_is_paid_with_one_exchange_by_a_payment_that_lives_as_short_as_can_be() {
    for version in [V1, V2] {
        let shop = Shop::new(version);
        let seller = shop.open().await;
        let (alice, proxy) = alice("").await;
        for _ in 0..3 {
            goods(&get(&proxy, &seller).await);
        }
        for _ in 0..3 {
            goods(&post(&proxy, &seller, "a question").await);
        }
        let payments = shop.paid(0);
        let asked = [None, Some(PRICE), Some(PRICE), Some(PRICE)];
        assert_eq!(values(&payments), [asked, asked].concat(), "{version:?}");
        for (count, payment) in payments.iter().enumerate() {
            let Some(payment) = payment else { continue };
            let expected = if count % 4 == 1 { 31..=60 } else { 20..=30 };
            assert!(expected.contains(&payment.lasts), "{count}: {payment:?}");
        }
        assert!(seller.presented()[5..].iter().all(|presented| presented.body == "a question"));
        proxy.stop().await;
        assert_eq!(shop.chain.transfers(), [PRICE; 6]);
        assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid; 6]);
    }
}

#[tokio::test]
async fn nothing_is_sent_ahead_if_the_rule_says_so_or_after_a_restart() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let (alice, proxy) = alice("send_ahead = false\n").await;
    for _ in 0..2 {
        goods(&get(&proxy, &seller).await);
    }
    proxy.stop().await;
    let mut alice = alice;
    alice.change("send_ahead = false", "send_ahead = true");
    let proxy = alice.start().await;
    for _ in 0..2 {
        goods(&get(&proxy, &seller).await);
    }
    proxy.stop().await;
    let asked = [None, Some(PRICE)];
    assert_eq!(values(&shop.paid(0)), [&asked[..], &asked, &asked, &[Some(PRICE)]].concat());
}

#[tokio::test]
async fn a_changed_price_is_paid_only_if_what_was_sent_ahead_fits_beside_it() {
    for (version, is_greedy) in [(V1, false), (V2, false), (V1, true), (V2, true)] {
        let shop = Shop { is_greedy, ..Shop::new(version) };
        let seller = shop.open().await;
        let (alice, proxy) = alice("").await;
        goods(&get(&proxy, &seller).await);
        // Both fit.
        shop.asks(999);
        let from = shop.count();
        goods(&get(&proxy, &seller).await);
        let fits = shop.paid(from);
        assert_eq!(values(&fits), [Some(PRICE), Some(999)], "{version:?}");
        assert!(fits[1].as_ref().unwrap().lasts > 30, "the seller has asked for it: {fits:?}");
        // Paid at once from now on. What was sent in vain for another request does not count for this one.
        goods(&get(&proxy, &seller).await);
        assert_eq!(values(&shop.paid(from + 2)), [Some(999)]);
        // Together they would cost more than the rule allows.
        shop.asks(MAX_PRICE - 999 + 1);
        let from = shop.count();
        let got = get(&proxy, &seller).await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
        assert!(reason(&got).contains("reason=payment-in-doubt"), "{got:?}");
        assert!((60..=91).contains(&retry_after(&got).unwrap()), "{got:?}");
        let again = get(&proxy, &seller).await;
        assert_eq!(again.status, StatusCode::PAYMENT_REQUIRED, "{again:?}");
        assert!((60..=91).contains(&retry_after(&again).unwrap()), "{again:?}");
        assert_eq!(values(&shop.paid(from)), [Some(999), None], "asked first, and not paid");
        // Another client's purchase is another one.
        let mut headers = HeaderMap::new();
        headers.insert("authorization", http::HeaderValue::from_static("Bearer somebody-else"));
        goods(&send(&proxy, &seller, Method::GET, headers).await);
        proxy.stop().await;
        let mut redeemed = shop.chain.transfers();
        redeemed.sort_unstable();
        let taken_twice: &[u64] = if is_greedy { &[999, PRICE] } else { &[] };
        let mut expected = [&[PRICE, 999, 999, 1002], taken_twice].concat();
        expected.sort_unstable();
        assert_eq!(redeemed, expected, "{version:?}");
        let states = last_states(&ledger::rows(&alice));
        let count = |state| states.iter().filter(|known| **known == state).count();
        assert_eq!((count(LedgerState::Paid), count(LedgerState::InDoubt), states.len()), (4, 2, 6));
    }
}

/// What the sum of both would cost needs the approval that one price would not need.
#[tokio::test]
async fn what_was_sent_ahead_counts_towards_the_price_that_needs_approval() {
    for (price, is_paid) in [(499, true), (501, false)] {
        let shop = Shop::new(V2);
        let seller = shop.open().await;
        let (_alice, proxy) = alice("ask_above = \"0.0015 TOY\"\n").await;
        goods(&get(&proxy, &seller).await);
        shop.asks(price);
        let got = get(&proxy, &seller).await;
        if is_paid {
            goods(&got);
        } else {
            assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
            assert!(reason(&got).contains("the new ones need approval"), "{got:?}");
        }
        assert_eq!(shop.signed(), if is_paid { 3 } else { 2 });
        proxy.stop().await;
    }
}

/// A first answer to a payment that was sent ahead, and what comes of it.
struct Turn {
    name: &'static str,
    answer: Answer,
    method: Method,
    status: u16,
    /// How many payments were signed for the request, and how often they were presented.
    signed: usize,
    presented: usize,
}

#[tokio::test]
async fn every_answer_to_a_payment_that_was_sent_ahead_is_safe() {
    let other_entry = || {
        let mut entry = V2.entry(PRICE);
        entry["maxTimeoutSeconds"] = json!(59);
        entry
    };
    let refused = |error: &str| V2.offer(error);
    let status = |status: u16| Answer::new(StatusCode::from_u16(status).unwrap(), "goods\n");
    let failed = || {
        let receipt = V2.stated(false, Some("unexpected_settle_error"));
        status(402).header(&V2.receipt(), receipt)
    };
    let turn = |name, answer, status, signed, presented| Turn {
        name,
        answer,
        method: Method::GET,
        status,
        signed,
        presented,
    };
    let turns = [
        // The same payment again.
        turn("as if unpaid", V2.offer("Payment required"), 200, 1, 2),
        turn("unclear", refused("fetch failed"), 200, 1, 2),
        turn("not settled", failed(), 200, 1, 2),
        turn("an empty 402", status(402), 200, 1, 2),
        turn("another offer", V2.asks("Payment required", &[other_entry()]), 200, 1, 2),
        turn("502", status(502), 200, 1, 2),
        turn("cut", Answer::CutBeforeHead, 200, 1, 2),
        turn("silent", Answer::Never, 200, 1, 2),
        // Another one, beside which the first one fits.
        turn("its time", refused("invalid_exact_evm_payload_authorization_valid_before"), 200, 2, 2),
        turn("no match", V2.asks("No matching payment requirements", &[other_entry()]), 200, 2, 2),
        turn(
            "others beside it",
            V2.asks("Payment required", &[V2.entry(1), other_entry(), V2.entry(PRICE)]),
            200,
            1,
            2,
        ),
        // None.
        turn("no balance", refused("invalid_exact_evm_insufficient_balance"), 402, 1, 1),
        turn("used", refused("invalid_exact_evm_nonce_already_used"), 502, 1, 1),
        turn("above the rule", V2.asks("Payment required", &[V2.entry(2001)]), 402, 1, 1),
        turn("404", status(404), 404, 1, 1),
        turn("400", status(400), 400, 1, 1),
        turn("served and said nothing", status(200), 200, 1, 1),
        turn("served, then failed", V2.served().with_status(StatusCode::INTERNAL_SERVER_ERROR), 500, 1, 1),
        // The application repeats it, or not.
        Turn { method: Method::POST, ..turn("502 to a POST", status(502), 502, 1, 1) },
        Turn { method: Method::POST, ..turn("a POST that is cut", Answer::CutBeforeHead, 502, 1, 1) },
        Turn {
            method: Method::POST,
            ..turn(
                "no match for a POST",
                V2.asks("No matching payment requirements", &[other_entry()]),
                200,
                2,
                2,
            )
        },
    ];
    let checks = turns.into_iter().map(|turn| async move {
        let Turn { name, answer, method, status, signed: expected, presented } = turn;
        let shop = Shop::new(V2);
        let seller = shop.open().await;
        let (_alice, proxy) = alice(PATIENT).await;
        goods(&send(&proxy, &seller, method.clone(), HeaderMap::new()).await);
        shop.then(answer);
        let got = send(&proxy, &seller, method.clone(), HeaderMap::new()).await;
        assert_eq!(got.status, status, "{name}: {got:?}");
        let payments = shop.paid(2);
        assert_eq!((signed(&payments), payments.len()), (expected, presented), "{name}: {payments:?}");
        assert!(payments.iter().all(Option::is_some), "{name}: {payments:?}");
        let both: u64 = values(&payments).into_iter().flatten().max().unwrap() * expected as u64;
        assert!(both <= MAX_PRICE, "{name}");
        // The next one asks first, except after a payment that ended well.
        let from = shop.count();
        send(&proxy, &seller, method, HeaderMap::new()).await;
        let is_known = status == 200 && !name.starts_with("served");
        let next = shop.paid(from);
        assert_eq!(next[0].is_some(), is_known, "{name}: {next:?}");
        proxy.stop().await;
    });
    futures_util::StreamExt::collect::<Vec<()>>(futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter(checks),
        4,
    ))
    .await;
}

/// What a facilitator says of a payment that is presented late, also of one that it has settled.
const TOO_LATE: &str = "invalid_exact_evm_payload_authorization_valid_before";

/// Refusals of a payment, and offers of another one.
fn refusals() -> [(&'static str, Answer); 5] {
    let mut longer = V2.entry(PRICE);
    longer["maxTimeoutSeconds"] = json!(59);
    [
        ("too late", V2.offer(TOO_LATE)),
        ("no match", V2.asks("No matching payment requirements", &[longer.clone()])),
        ("another offer", V2.asks("Payment required", &[longer])),
        ("a lower price", V2.asks("No matching payment requirements", &[V2.entry(900)])),
        ("no balance", V2.offer("invalid_exact_evm_insufficient_balance")),
    ]
}

#[tokio::test]
async fn once_it_is_unclear_what_became_of_a_payment_no_refusal_leads_to_another() {
    let status = |status: u16| Answer::new(StatusCode::from_u16(status).unwrap(), "{}");
    let unclear = || [("402", status(402)), ("502", status(502)), ("cut", Answer::CutBeforeHead)];
    let mut turns = Vec::new();
    for is_known in [true, false] {
        for (first, _) in unclear() {
            turns.extend(refusals().map(|(second, _)| (is_known, first, second)));
        }
    }
    let checks = turns.into_iter().map(|(is_known, first, second)| async move {
        let answer =
            |all: &[(&str, Answer)], name| all.iter().find(|(other, _)| *other == name).unwrap().1.clone();
        let name = format!("{first}, then {second}, known: {is_known}");
        let shop = Shop::new(V2);
        let seller = shop.open().await;
        let (alice, proxy) = alice(PATIENT).await;
        if is_known {
            goods(&get(&proxy, &seller).await);
        }
        let from = shop.signed();
        shop.then(answer(&unclear(), first));
        for _ in 0..2 {
            shop.then(answer(&refusals(), second));
        }
        let got = get(&proxy, &seller).await;
        assert!(reason(&got).contains("payment-in-doubt") && retry_after(&got).is_some(), "{name}: {got:?}");
        assert_eq!(shop.signed() - from, 1, "{name}: {:?}", shop.paid(0));
        proxy.stop().await;
        assert_eq!(last_states(&ledger::rows(&alice)).last(), Some(&LedgerState::InDoubt), "{name}");
    });
    futures_util::StreamExt::collect::<Vec<()>>(futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter(checks),
        4,
    ))
    .await;
}

#[tokio::test]
async fn what_an_earlier_request_has_presented_is_not_replaced() {
    for (name, refusal) in refusals() {
        let shop = Shop::new(V2);
        let seller = shop.open().await;
        let (_alice, proxy) = alice(PATIENT).await;
        shop.then(Answer::new(StatusCode::GATEWAY_TIMEOUT, ""));
        assert_eq!(post(&proxy, &seller, "a").await.status, StatusCode::GATEWAY_TIMEOUT, "{name}");
        goods(&post(&proxy, &seller, "b").await);
        let before = shop.signed();
        // The price is known now: what is in doubt goes with the first request.
        for _ in 0..3 {
            shop.then(refusal.clone());
        }
        let got = post(&proxy, &seller, "a").await;
        assert!(reason(&got).contains("payment-in-doubt"), "{name}: {got:?}");
        assert_eq!(shop.signed(), before, "{name}: {got:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn what_was_only_refused_is_refused_again() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let (alice, proxy) = alice(PATIENT).await;
    for _ in 0..2 {
        shop.then(V2.offer("invalid_exact_evm_insufficient_balance"));
        let got = get(&proxy, &seller).await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
        assert!(reason(&got).contains("seller-refused"), "{got:?}");
    }
    // Unclear: from now on a refusal shows nothing.
    shop.then(Answer::new(StatusCode::PAYMENT_REQUIRED, ""));
    for _ in 0..3 {
        shop.then(V2.offer("invalid_exact_evm_insufficient_balance"));
    }
    let got = get(&proxy, &seller).await;
    assert!(reason(&got).contains("payment-in-doubt"), "{got:?}");
    assert_eq!(shop.signed(), 1);
    proxy.stop().await;
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::InDoubt]);
}

#[tokio::test]
async fn of_several_new_prices_the_one_that_the_rule_allows_is_paid() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let (_alice, proxy) = alice("").await;
    goods(&get(&proxy, &seller).await);
    shop.asks(900);
    shop.then(V2.asks("No matching payment requirements", &[V2.entry(2001), V2.entry(900)]));
    goods(&get(&proxy, &seller).await);
    assert_eq!(values(&shop.paid(2)), [Some(PRICE), Some(900)]);
    proxy.stop().await;
}

#[tokio::test]
async fn what_became_free_costs_one_payment_at_most_and_is_not_paid_again() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let budget = "[[budget]]\nname = \"all\"\nwallet = true\npayments = 9\n";
    let (alice, proxy) = alice(budget).await;
    goods(&get(&proxy, &seller).await);
    shop.asks(0);
    for _ in 0..2 {
        assert_eq!(get(&proxy, &seller).await.text(), "free\n");
    }
    assert_eq!(values(&shop.paid(2)), [Some(PRICE), None]);
    assert_eq!(proxy.payments.budgets()[0].payments, 2, "it may still be redeemed");
    // The request was served: the next one is a purchase of its own, also after a restart.
    shop.asks(PRICE);
    goods(&get(&proxy, &seller).await);
    proxy.stop().await;
    let proxy = alice.start().await;
    goods(&get(&proxy, &seller).await);
    proxy.stop().await;
    assert_eq!(shop.signed(), 4);
    assert_eq!(shop.chain.transfers(), [PRICE; 3]);
    let mut states = last_states(&ledger::rows(&alice));
    assert_eq!(states.remove(1), LedgerState::InDoubt);
    assert_eq!(states, [LedgerState::Paid; 3]);
}

#[tokio::test]
async fn a_seller_without_receipts_is_asked_each_time() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let (_alice, proxy) = alice("").await;
    for _ in 0..2 {
        shop.then(Answer::new(StatusCode::OK, "goods\n"));
        goods(&get(&proxy, &seller).await);
    }
    assert_eq!(values(&shop.paid(0)), [None, Some(PRICE), None, Some(PRICE)]);
    proxy.stop().await;
}

#[tokio::test]
async fn after_two_payments_in_vain_the_seller_is_asked_first_for_a_while() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let (_alice, proxy) = alice("").await;
    let mut is_ahead = Vec::new();
    for fails in [false, true, false, true, false, false, false] {
        let from = shop.count();
        if fails {
            shop.then(Answer::new(StatusCode::NOT_FOUND, "gone\n"));
        }
        let got = get(&proxy, &seller).await;
        assert_eq!(got.status, if fails { 404 } else { 200 }, "{got:?}");
        is_ahead.push(shop.paid(from)[0].is_some());
    }
    assert_eq!(is_ahead, [false, true, false, true, false, false, false]);
    // What was in doubt was presented again, so that nothing was paid in vain.
    assert_eq!(shop.chain.transfers(), [PRICE; 5]);
    assert_eq!(shop.signed(), 5);
    proxy.stop().await;
}

/// A payment that is taken only when it is presented again has not saved an exchange.
#[tokio::test]
async fn a_payment_that_is_taken_late_counts_as_one_in_vain() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let (_alice, proxy) = alice(PATIENT).await;
    goods(&get(&proxy, &seller).await);
    for _ in 0..2 {
        shop.then(Answer::new(StatusCode::BAD_GATEWAY, "sorry\n"));
        goods(&get(&proxy, &seller).await);
    }
    goods(&get(&proxy, &seller).await);
    let twice = [Some(PRICE); 2];
    let asked = [None, Some(PRICE)];
    assert_eq!(values(&shop.paid(0)), [asked, twice, twice, asked].concat());
    assert_eq!(shop.chain.transfers(), [PRICE; 4]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_price_that_rises_too_much_is_not_paid_beside_what_was_sent_ahead() {
    let shop = Shop::new(V2);
    shop.asks(400);
    let seller = shop.open().await;
    let (_alice, proxy) = alice("[limits]\nprice_rise_percent = 50\n").await;
    goods(&get(&proxy, &seller).await);
    shop.asks(700);
    let got = get(&proxy, &seller).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    assert!(reason(&got).contains("limits.price_rise_percent"), "{got:?}");
    assert_eq!(values(&shop.paid(2)), [Some(400)]);
    proxy.stop().await;
}

#[tokio::test]
async fn nothing_is_sent_ahead_to_another_origin_or_for_another_method_or_url() {
    let shop = Shop::new(V2);
    let elsewhere = Shop::new(V2);
    let (seller, other) = (shop.open().await, elsewhere.open().await);
    let (_alice, proxy) = alice("").await;
    goods(&get(&proxy, &seller).await);
    goods(&get(&proxy, &other).await);
    assert_eq!(values(&elsewhere.paid(0)), [None, Some(PRICE)]);
    goods(&post(&proxy, &seller, "").await);
    let url = format!("http://localhost:{}/goods?other", seller.address().port());
    goods(&ask(proxy.address, Request::get(url).body(empty()).unwrap()).await);
    assert_eq!(values(&shop.paid(2)), [None, Some(PRICE), None, Some(PRICE)]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_browsers_page_and_a_budget_are_checked_as_after_a_402() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let two = "[[budget]]\nname = \"all\"\nwallet = true\npayments = 2\n";
    let (_alice, proxy) = alice(two).await;
    goods(&get(&proxy, &seller).await);
    let mut headers = HeaderMap::new();
    for (name, value) in [("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"), ("sec-fetch-site", "cross-site")]
    {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    let got = send(&proxy, &seller, Method::GET, headers).await;
    assert!(reason(&got).contains("Sec-Fetch-Site: cross-site"), "{got:?}");
    goods(&get(&proxy, &seller).await);
    let got = get(&proxy, &seller).await;
    assert!(reason(&got).contains("reason=over-budget"), "{got:?}");
    assert_eq!(values(&shop.paid(2)), [None, Some(PRICE), None]);
    proxy.stop().await;
}

/// The price is known again by another purchase, while one of the same URL is in doubt.
#[tokio::test]
async fn what_is_in_doubt_is_presented_with_the_first_request_instead_of_another() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let (alice, proxy) = alice(PATIENT).await;
    goods(&post(&proxy, &seller, "one").await);
    shop.then(Answer::new(StatusCode::BAD_GATEWAY, "sorry\n"));
    assert_eq!(post(&proxy, &seller, "other").await.status, StatusCode::BAD_GATEWAY);
    goods(&post(&proxy, &seller, "one").await);
    let from = shop.count();
    goods(&post(&proxy, &seller, "other").await);
    let again = shop.paid(from);
    assert_eq!((values(&again), shop.signed()), (vec![Some(PRICE)], 3));
    assert_eq!(again[0].as_ref().unwrap().nonce, shop.paid(2)[0].as_ref().unwrap().nonce);
    proxy.stop().await;
    assert_eq!(shop.chain.transfers(), [PRICE; 3]);
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid; 3]);
}

#[tokio::test]
async fn identical_requests_at_once_are_separate_purchases_also_while_the_price_changes() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let (alice, proxy) = alice("").await;
    goods(&get(&proxy, &seller).await);
    let burst = async |count: usize| {
        let got = futures_util::future::join_all((0..count).map(|_| get(&proxy, &seller))).await;
        got.iter().for_each(goods);
    };
    burst(200).await;
    assert_eq!(shop.count(), 202, "one exchange each");
    shop.asks(900);
    burst(100).await;
    let changed = shop.paid(202);
    let count = |value| values(&changed).iter().filter(|paid| **paid == Some(value)).count();
    assert_eq!(count(900), 100);
    assert!((1..=100).contains(&count(PRICE)), "{}", count(PRICE));
    // What was sent in vain keeps no later request from being paid.
    goods(&get(&proxy, &seller).await);
    proxy.stop().await;
    let mut transfers = shop.chain.transfers();
    transfers.sort_unstable();
    assert_eq!(transfers, [&[900; 101][..], &[PRICE; 201]].concat());
    let states = last_states(&ledger::rows(&alice));
    assert_eq!(states.iter().filter(|state| **state == LedgerState::Paid).count(), 302);
    assert_eq!(states.len(), 302 + count(PRICE));
}

/// A client that leaves pays once, and gets what it has paid for if it comes back.
#[tokio::test]
async fn a_client_that_leaves_after_its_payment_was_sent_ahead_pays_once() {
    let shop = Shop::new(V2);
    let (gate, held) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(Mutex::new(false)));
    let seller = Mallory::spawn({
        let (shop, gate, held) = (shop.clone(), Arc::clone(&gate), Arc::clone(&held));
        move |presented| {
            let answer = shop.answer(presented);
            if *held.lock().unwrap() { Answer::Held(Arc::clone(&gate), Box::new(answer)) } else { answer }
        }
    })
    .await;
    let (alice, proxy) = alice("").await;
    goods(&get(&proxy, &seller).await);
    *held.lock().unwrap() = true;
    let head =
        format!("GET http://localhost:{}/goods HTTP/1.1\r\nHost: localhost\r\n\r\n", seller.address().port());
    let mut client = Raw::asking(proxy.address, &head).await;
    tokio::time::timeout(PATIENCE, seller.await_presented(3)).await.expect("no payment");
    client.finish().await;
    client.rest().await;
    *held.lock().unwrap() = false;
    // With the same headers as the one that left.
    let mut client = Raw::asking(proxy.address, &head).await;
    gate.add_permits(1);
    let got = client.head().await;
    assert!(got.starts_with("HTTP/1.1 200 "), "{got}");
    assert_eq!(client.exactly(6).await, b"goods\n");
    assert_eq!(values(&shop.paid(2)), [Some(PRICE)]);
    proxy.stop().await;
    assert_eq!(shop.chain.transfers(), [PRICE; 2]);
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid; 2]);
}

#[tokio::test]
async fn after_a_kill_what_was_sent_ahead_is_presented_again() {
    let shop = Shop::new(V2);
    let seller = shop.open().await;
    let alice = Alice::without_chain(RULE);
    let program = alice.serve(&[]).await;
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let request = || Request::post(&url).body(empty()).unwrap();
    goods(&ask(program.address, request()).await);
    shop.then(Answer::Never);
    let address = program.address;
    let waiting = tokio::spawn({
        let request = request();
        async move { crate::support::wire::Wire::connect(address).await.ask(request).await.is_err() }
    });
    tokio::time::timeout(PATIENCE, seller.await_presented(3)).await.expect("no payment");
    program.kill().await;
    assert!(waiting.await.unwrap(), "no answer came");
    let proxy = alice.start().await;
    let got = tokio::time::timeout(PATIENCE, ask(proxy.address, request())).await.expect("no answer");
    goods(&got);
    proxy.stop().await;
    assert_eq!(values(&shop.paid(2)), [Some(PRICE), None, Some(PRICE)]);
    assert_eq!((shop.signed(), shop.chain.transfers()), (2, vec![PRICE; 2]));
}

/// The facilitator takes longer than the client, or the rule, waits.
#[tokio::test]
async fn a_slow_facilitator_gets_the_same_payment_again() {
    for (method, status) in [(Method::GET, 200), (Method::POST, 504)] {
        let shop = Shop::new(V2);
        let seller = shop.open().await;
        let (_alice, proxy) = alice(PATIENT).await;
        goods(&send(&proxy, &seller, method.clone(), HeaderMap::new()).await);
        shop.then(Answer::Never);
        let got = send(&proxy, &seller, method.clone(), HeaderMap::new()).await;
        assert_eq!(got.status, status, "{got:?}");
        goods(&send(&proxy, &seller, method, HeaderMap::new()).await);
        let signed = if status == 200 { 3 } else { 2 };
        assert_eq!((shop.signed(), shop.chain.transfers()), (signed, vec![PRICE; signed]));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_external_signer_signs_what_is_sent_ahead() {
    let (shop, notary) = (Shop::new(V2), Notary::new());
    let seller = shop.open().await;
    let mut alice = Alice::without_chain(RULE);
    notary.serves(&mut alice, "");
    let proxy = alice.start().await;
    for _ in 0..2 {
        goods(&get(&proxy, &seller).await);
    }
    shop.asks(900);
    goods(&get(&proxy, &seller).await);
    let expected = [None, Some(PRICE), Some(PRICE), Some(PRICE), Some(900)];
    assert_eq!((values(&shop.paid(0)), notary.asked(AUTHORIZATIONS).len()), (expected.to_vec(), 4));
    // If it refuses, the seller is asked, and the client learns why it is not paid.
    notary.does(AUTHORIZATIONS, Does::Refuse);
    let got = get(&proxy, &seller).await;
    assert!(reason(&got).contains("reason=signer-refused"), "{got:?}");
    assert_eq!((got.status, shop.signed()), (StatusCode::PAYMENT_REQUIRED, 4));
    proxy.stop().await;
}
