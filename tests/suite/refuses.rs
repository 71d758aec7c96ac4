//! Dishonest sellers: whatever Mallory responds, a request through the proxy ends soon, the client gets the reason in
//! one line, and no more than one allowed price was signed for it.

use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tollpass::devnet::origin::{Kind, Lose, Resource};
use tollpass::protocol::schemes::microraiden::headers as rdn;
use tollpass::protocol::{Address, Amount, Signature};

use crate::support::cheats;
use crate::support::cheats::Forgery;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Content, Demand, Mallory, Payment, Presented};
use crate::support::market::Market;
use crate::support::payer::{Alice, Running};
use crate::support::wire;
use crate::support::wire::{Got, Wire};

/// Mallory's first price. The rule allows ten times as much.
const ASKED: u64 = 1000;
/// The highest price that the rule allows for one request.
const MAX_PRICE: u64 = 10_000;
/// Everything here ends much sooner, by its own limits.
const BOUND: Duration = Duration::from_secs(20);
/// Another contract, token or receiver.
const ELSEWHERE: Address = Address([0x77; 20]);
/// Complaints are retried five times, corrected totals three times.
const HOOKS: &str = "[hooks]\n\
    nonexisting_channel = { action = \"retry\", every = \"10ms\", times = 5, timeout = \"20s\" }\n\
    insufficient_confirmations = { action = \"retry\", every = \"10ms\", times = 5, timeout = \"20s\" }\n\
    invalid_balance_proof = { action = \"retry\", every = \"10ms\", times = 5, timeout = \"20s\" }\n\
    invalid_amount = { action = \"adopt\", times = 3 }\n";
const PAID: &str = "here you are\n";

/// Mallory's response to an unpaid request.
type Lie = fn(Demand) -> Answer;
/// Mallory's response to a payment.
type Reply = fn(Demand, &Payment) -> Answer;

/// Alice's proxy and a dishonest seller.
struct Scene {
    mallory: Mallory,
    proxy: Running,
    _alice: Alice,
    _market: Market,
}

type Script = Box<dyn FnMut(&Presented) -> Answer + Send>;

impl Scene {
    async fn with<S: FnMut(&Presented) -> Answer + Send + 'static>(script: impl FnOnce(Demand) -> S) -> Self {
        Self::limited("", script).await
    }

    /// The same with additional configuration.
    async fn limited<S: FnMut(&Presented) -> Answer + Send + 'static>(
        more: &str,
        script: impl FnOnce(Demand) -> S,
    ) -> Self {
        let market = Market::open().await;
        let demand = demand(&market);
        let mallory = Mallory::spawn(script(demand)).await;
        let alice = Alice::with(&market, &format!("{HOOKS}{more}")).await;
        Self { mallory, proxy: alice.start().await, _alice: alice, _market: market }
    }

    async fn ask(&self, path: &str) -> Got {
        ask(&self.proxy, &format!("{}{path}", self.mallory.url())).await
    }

    /// How often a payment was presented.
    fn payments(&self) -> usize {
        self.mallory.presented().iter().filter(|presented| presented.payment.is_some()).count()
    }

    /// The seller's own 402 was returned with this reason, and exactly this was promised.
    async fn refused(&self, got: &Got, reason: &str, promised: u64) {
        assert_eq!((got.status, got.text()), (StatusCode::PAYMENT_REQUIRED, "pay\n"), "{got:?}");
        because(got, reason);
        self.promised(promised).await;
    }

    /// What was presented agrees with the journal.
    async fn promised(&self, total: u64) {
        assert_eq!(self.proxy.promised().await, Amount::from(total));
        assert_eq!(self.mallory.highest(), Amount::from(total));
    }
}

/// Mallory's wallet is arbitrary; the contract and the token are the real ones.
fn demand(market: &Market) -> Demand {
    Demand { contract: market.manager, receiver: Address([0x3a; 20]), token: market.token }
}

async fn ask(proxy: &Running, url: &str) -> Got {
    let asked = async {
        Wire::connect(proxy.address).await.ask(Request::get(url).body(empty()).unwrap()).await.unwrap()
    };
    tokio::time::timeout(BOUND, asked).await.expect("it does not end")
}

/// The last line of `Proxy-Status` is ours and contains this.
fn because(got: &Got, reason: &str) {
    let ours = got.headers.get_all("proxy-status").iter().next_back();
    let ours = ours.unwrap_or_else(|| panic!("no Proxy-Status: {got:?}")).to_str().unwrap();
    assert!(ours.starts_with("tollpass;") && ours.contains(reason), "not {reason:?}: {ours}");
}

fn paid() -> Answer {
    Answer::new(StatusCode::OK, PAID)
}

/// Honest for this many payments, then follows the script.
fn honest_for(
    demand: Demand,
    payments: usize,
    mut then: impl FnMut(&Payment) -> Answer + Send + 'static,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let mut left = payments;
    cheats::once_paid(demand, ASKED, move |payment| {
        if left == 0 {
            return then(payment);
        }
        left -= 1;
        paid()
    })
}

fn held(demand: Demand, payment: &Payment, price: u64, total: Amount) -> Answer {
    demand.base(price).with_state(payment.sender, total, None).complain(&rdn::INVALID_AMOUNT)
}

#[tokio::test]
async fn a_raised_price_is_taken_once_within_the_rule() {
    let scene = Scene::with(|demand| {
        cheats::once_paid(demand, ASKED, move |payment| match payment.total {
            total if total == Amount::from(MAX_PRICE) => paid(),
            _ => held(demand, payment, MAX_PRICE, Amount::ZERO),
        })
    });
    let scene = scene.await;
    let got = scene.ask("/").await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, PAID));
    scene.promised(MAX_PRICE).await;
    assert_eq!(scene.payments(), 2);
}

#[tokio::test]
async fn a_price_raised_above_the_rule_is_not_paid() {
    let scene = Scene::with(|demand| {
        cheats::once_paid(demand, ASKED, move |payment| held(demand, payment, MAX_PRICE + 1, Amount::ZERO))
    });
    let scene = scene.await;
    scene.refused(&scene.ask("/").await, "the price 10001 is above max_price 10000", ASKED).await;
    assert_eq!(scene.payments(), 1);
}

#[tokio::test]
async fn a_price_raised_each_time_ends_at_one_allowed_price() {
    let scene = Scene::with(|demand| cheats::price_rises(demand, ASKED)).await;
    scene.refused(&scene.ask("/").await, "the price 16000 is above max_price 10000", 8 * ASKED).await;
    assert_eq!(scene.payments(), 4);

    // With more retries than attempts.
    let scene =
        Scene::limited("[limits]\nmax_attempts = 2\n", |demand| cheats::price_rises(demand, ASKED)).await;
    scene.refused(&scene.ask("/").await, "(limits.max_attempts)", 2 * ASKED).await;
    assert_eq!(scene.payments(), 2);
}

/// Each increase counts from the total just signed: two of them would exceed one price.
#[tokio::test]
async fn a_total_kept_by_its_signature_is_not_paid_for_twice() {
    let scene = Scene::with(|demand| {
        cheats::once_paid(demand, ASKED, move |payment| {
            demand
                .base(2 * ASKED)
                .with_state(payment.sender, payment.total, Some(payment.signature))
                .complain(&rdn::INVALID_AMOUNT)
        })
    });
    let scene = scene.await;
    let got = scene.ask("/").await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
    because(&got, "paid, answer lost: the seller registered 1000");
    scene.promised(ASKED).await;
}

#[tokio::test]
async fn a_total_lowered_each_time_is_adopted_and_nothing_more_is_promised() {
    let scene = Scene::with(|demand| {
        let mut next = 5 * ASKED;
        honest_for(demand, 5, move |payment| {
            next -= ASKED;
            held(demand, payment, ASKED, Amount::from(next))
        })
    });
    let scene = scene.await;
    for paid in 1..=5 {
        assert_eq!(scene.ask("/").await.status, StatusCode::OK);
        scene.promised(paid * ASKED).await;
    }
    let got = scene.ask("/").await;
    scene.refused(&got, "gave up after 3 attempts (hooks.invalid_amount)", 6 * ASKED).await;
    let totals = scene.mallory.presented().into_iter().filter_map(|presented| presented.payment);
    let totals: Vec<Amount> = totals.map(|payment| payment.total).skip(5).collect();
    assert_eq!(totals, [6, 5, 4, 3].map(|prices| Amount::from(prices * ASKED)));

    // A seller that lowers its total once still gets paid.
    let scene = Scene::with(|demand| {
        let mut lowered = false;
        honest_for(demand, 2, move |payment| {
            if std::mem::replace(&mut lowered, true) {
                return paid();
            }
            held(demand, payment, ASKED, Amount::ZERO)
        })
    });
    let scene = scene.await;
    for _ in 0..3 {
        assert_eq!(scene.ask("/").await.status, StatusCode::OK);
    }
    scene.promised(3 * ASKED).await;
    assert_eq!(scene.proxy.channels().await[0].acknowledged, Amount::from(ASKED));
    // Its own total is 1,000 now: the next two payments are already promised.
    assert_eq!(scene.ask("/").await.status, StatusCode::OK);
    scene.promised(3 * ASKED).await;
}

#[tokio::test]
async fn the_payment_just_made_shown_as_an_old_one_is_a_lost_answer() {
    for complaint in [None, Some(&rdn::INVALID_AMOUNT)] {
        let scene = Scene::with(|demand| {
            let mut cheat = cheats::shown_as_old(demand, ASKED);
            move |presented: &Presented| match (cheat(presented), complaint, presented.payment) {
                (answer, Some(complaint), Some(_)) => answer.complain(complaint),
                (answer, ..) => answer,
            }
        });
        let scene = scene.await;
        let got = scene.ask("/").await;
        assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
        assert_eq!(got.headers[header::CONTENT_TYPE], "application/problem+json");
        because(&got, "paid, answer lost: the seller registered 1000");
        scene.promised(ASKED).await;
        assert_eq!(scene.payments(), 1);
        // The client's next request is a new purchase, for one more price.
        assert_eq!(scene.ask("/").await.status, StatusCode::BAD_GATEWAY);
        scene.promised(2 * ASKED).await;
        assert_eq!(scene.payments(), 2);
    }
}

#[tokio::test]
async fn a_total_raised_without_our_signature_is_not_believed() {
    for forgery in [Forgery::Bare, Forgery::Garbage, Forgery::OtherKey] {
        let scene = Scene::with(|demand| cheats::total_rises(demand, ASKED, forgery)).await;
        let reason = "the seller claims to hold 11000, but has no signature of ours for it";
        scene.refused(&scene.ask("/").await, reason, ASKED).await;
        assert_eq!(scene.payments(), 1);
        // The outcome of the first payment is unknown: the same total is presented again, and no higher one.
        scene.refused(&scene.ask("/").await, reason, ASKED).await;
    }
}

#[tokio::test]
async fn the_state_of_another_payer_is_not_believed() {
    let scene = Scene::with(|demand| {
        cheats::once_paid(demand, ASKED, move |_| {
            demand.base(ASKED).with_state(demand.receiver, Amount::ZERO, None).complain(&rdn::INVALID_AMOUNT)
        })
    });
    let scene = scene.await;
    scene.refused(&scene.ask("/").await, "another sender's channel", ASKED).await;
    assert_eq!(scene.payments(), 1);
}

#[tokio::test]
async fn demands_that_no_rule_allows_move_nothing() {
    let cases: [(&str, Lie, &str); 16] = [
        (
            "/contract",
            |demand| Demand { contract: ELSEWHERE, ..demand }.base(ASKED),
            "the seller uses the channel contract 0x",
        ),
        (
            "/token",
            |demand| Demand { token: ELSEWHERE, ..demand }.base(ASKED),
            "the seller wants the token 0x",
        ),
        (
            "/receiver",
            |demand| Demand { receiver: ELSEWHERE, ..demand }.base(ASKED),
            "is not among the rule's receivers",
        ),
        ("/dear", |demand| demand.base(MAX_PRICE + 1), "the price 10001 is above max_price 10000"),
        ("/zero", |demand| demand.base(0), "the seller asks for a price of 0"),
        ("/negative", |demand| demand.base(-5), "rdn-price is not a whole number"),
        ("/huge", |demand| demand.base(cheats::TWO_TO_THE_200), "rdn-price is larger than 2^192 - 1"),
        ("/word", |demand| demand.base("cheap"), "rdn-price is not a whole number"),
        ("/empty", |demand| demand.base(""), "rdn-price is not a whole number"),
        ("/foreign", |demand| demand.base("1000€"), "rdn-price is not text"),
        ("/no-price", |demand| without(demand, &rdn::PRICE), "rdn-price is missing"),
        ("/no-contract", |demand| without(demand, &rdn::CONTRACT_ADDRESS), "rdn-contract-address is missing"),
        ("/no-receiver", |demand| without(demand, &rdn::RECEIVER_ADDRESS), "rdn-receiver-address is missing"),
        ("/two-prices", |demand| doubled(demand, &rdn::PRICE), "duplicate header rdn-price"),
        (
            "/short",
            |demand| demand.base(ASKED).header(&rdn::RECEIVER_ADDRESS, "0x123"),
            "rdn-receiver-address is",
        ),
        (
            "/none",
            |_| Answer::new(StatusCode::PAYMENT_REQUIRED, "pay\n"),
            "no payment scheme that tollpass supports",
        ),
    ];
    let market = Market::open().await;
    let demand = demand(&market);
    let mallory = Mallory::spawn(move |presented| {
        let answer = cases.iter().find(|(path, ..)| *path == presented.target);
        answer.map_or_else(paid, |(_, answer, _)| answer(demand))
    });
    let mallory = mallory.await;
    let rest = format!(
        "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = {MAX_PRICE}\nreceivers = [\"{}\"]\n{HOOKS}",
        demand.receiver
    );
    let alice = Alice::ruled(&market, &rest).await;
    let scene = Scene { mallory, proxy: alice.start().await, _alice: alice, _market: market };
    for (path, _, reason) in cases {
        // Ten concurrent requests get the same as one.
        let all = join_all((0..10).map(|_| scene.ask(path))).await;
        for got in all {
            assert_eq!(got.headers.contains_key(&rdn::PRICE), !matches!(path, "/no-price" | "/none"));
            scene.refused(&got, reason, 0).await;
        }
    }
    assert!(scene.proxy.channels().await.is_empty());
    assert_eq!(scene.mallory.presented().len(), 10 * cases.len());
}

fn without(demand: Demand, name: &HeaderName) -> Answer {
    let mut answer = demand.base(ASKED);
    if let Answer::Head { headers, .. } = &mut answer {
        headers.remove(name);
    }
    answer
}

fn doubled(demand: Demand, name: &HeaderName) -> Answer {
    let mut answer = demand.base(ASKED);
    if let Answer::Head { headers, .. } = &mut answer {
        headers.append(name, HeaderValue::from_static("1000"));
    }
    answer
}

#[tokio::test]
async fn a_demand_that_changes_once_it_is_paid_leads_to_no_second_payment() {
    let cases: [(Reply, &str); 11] = [
        (
            |demand, paid| {
                Demand { receiver: ELSEWHERE, ..demand }
                    .base(ASKED)
                    .with_state(paid.sender, Amount::ZERO, None)
                    .complain(&rdn::INVALID_AMOUNT)
            },
            "the seller changed the receiver to 0x",
        ),
        (
            |demand, paid| {
                Demand { contract: ELSEWHERE, ..demand }
                    .base(2 * ASKED)
                    .with_state(paid.sender, Amount::ZERO, None)
                    .complain(&rdn::INVALID_AMOUNT)
            },
            "the seller uses the channel contract 0x",
        ),
        (
            |demand, paid| {
                Demand { token: ELSEWHERE, ..demand }
                    .base(2 * ASKED)
                    .with_state(paid.sender, Amount::ZERO, None)
                    .complain(&rdn::INVALID_AMOUNT)
            },
            "the seller wants the token 0x",
        ),
        (
            |demand, _| Demand { receiver: ELSEWHERE, ..demand }.base(ASKED),
            "the seller changed the receiver to 0x",
        ),
        (
            |demand, _| {
                Demand { receiver: ELSEWHERE, ..demand }.base(ASKED).complain(&rdn::NONEXISTING_CHANNEL)
            },
            "the seller changed the receiver to 0x",
        ),
        (|demand, paid| held(demand, paid, 0, Amount::ZERO), "the seller asks for a price of 0"),
        (
            |demand, paid| held(demand, paid, ASKED, Amount::ZERO).header(&rdn::PRICE, "cheap"),
            "rdn-price is not a whole number",
        ),
        (
            |demand, paid| held(demand, paid, ASKED, Amount::ZERO).header(&rdn::SENDER_BALANCE, "-1"),
            "rdn-sender-balance is not a whole number",
        ),
        (
            |demand, paid| {
                held(demand, paid, ASKED, Amount::ZERO).header(&rdn::SENDER_BALANCE, cheats::TWO_TO_THE_200)
            },
            "rdn-sender-balance is larger than",
        ),
        (
            |demand, paid| held(demand, paid, ASKED, Amount::ZERO).header(&rdn::BALANCE_SIGNATURE, "0x1234"),
            "rdn-balance-signature is not a signature",
        ),
        (
            |_, _| Answer::new(StatusCode::PAYMENT_REQUIRED, "pay\n"),
            "no payment scheme that tollpass supports",
        ),
    ];
    for (cheat, reason) in cases {
        let scene =
            Scene::with(|demand| cheats::once_paid(demand, ASKED, move |paid| cheat(demand, paid))).await;
        scene.refused(&scene.ask("/").await, reason, ASKED).await;
        assert_eq!(scene.payments(), 1, "{reason}");
        let channels = scene.proxy.channels().await;
        assert_eq!(channels.len(), 1, "no channel was opened to another: {channels:?}");
    }
}

#[tokio::test]
async fn complaints_without_an_end_are_met_so_often_and_no_more() {
    for (complaint, payments, reason) in [
        (Some(&rdn::NONEXISTING_CHANNEL), 6, "gave up after 5 attempts (hooks.nonexisting_channel)"),
        (
            Some(&rdn::INSUFFICIENT_CONFIRMATIONS),
            6,
            "gave up after 5 attempts (hooks.insufficient_confirmations)",
        ),
        (Some(&rdn::INVALID_BALANCE_PROOF), 6, "gave up after 5 attempts (hooks.invalid_balance_proof)"),
        (Some(&rdn::INVALID_AMOUNT), 1, "rejects the payment that follows from its own total"),
        (None, 6, "gave up after 5 attempts (hooks.insufficient_confirmations)"),
    ] {
        let limits = "[limits]\nundelivered_payments = 0\n";
        let scene = Scene::limited(limits, |demand| cheats::never_content(demand, ASKED, complaint)).await;
        scene.refused(&scene.ask("/").await, reason, ASKED).await;
        assert_eq!(scene.payments(), payments, "{reason}");
        // However often it is requested: never a higher total.
        for _ in 0..3 {
            scene.refused(&scene.ask("/").await, reason, ASKED).await;
        }
        // Requests that wait for the channel get their turn, one after the other.
        for got in join_all((0..10).map(|_| scene.ask("/"))).await {
            scene.refused(&got, reason, ASKED).await;
        }
        assert_eq!(scene.proxy.channels().await.len(), 1);
    }
}

#[tokio::test]
async fn all_complaints_in_turn_are_bounded_too() {
    let scene = Scene::with(|demand| {
        let mut turn = 0;
        cheats::once_paid(demand, ASKED, move |payment| {
            turn += 1;
            match turn % 4 {
                0 => demand.base(ASKED).complain(&rdn::NONEXISTING_CHANNEL),
                1 => demand.base(ASKED).complain(&rdn::INSUFFICIENT_CONFIRMATIONS),
                2 => demand.base(ASKED).complain(&rdn::INVALID_BALANCE_PROOF),
                _ => held(demand, payment, ASKED + turn, Amount::ZERO),
            }
        })
    });
    let scene = scene.await;
    let got = scene.ask("/").await;
    scene.refused(&got, "gave up after 3 attempts (hooks.invalid_amount)", ASKED + 11).await;
    assert_eq!(scene.payments(), 15);
}

/// A late response of the seller counts against `limits.pay_timeout`, too.
#[tokio::test]
async fn the_time_for_one_request_bounds_all_that_a_seller_does_with_it() {
    let limits = "[limits]\npay_timeout = \"1500ms\"\n";
    let scene = Scene::limited(limits, |demand| cheats::takes_and(demand, ASKED, Answer::Never)).await;
    let got = scene.ask("/").await;
    assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT, "{got:?}");
    because(&got, "a payment was sent, but no response came within limits.pay_timeout");
    scene.promised(ASKED).await;
}

#[tokio::test]
async fn a_demand_with_a_hundred_megabytes_is_streamed_on_and_not_paid() {
    const LENGTH: u64 = 100 << 20;
    let market = Market::open().await;
    let demand = demand(&market);
    let mallory = Mallory::spawn(cheats::demands_with(demand, ASKED, Content::Flood(LENGTH))).await;
    let alice = Alice::with(&market, HOOKS).await;
    let program = alice.serve(&[]).await;
    let mut wire = Wire::connect(program.address).await;
    let before = peak_memory(program.child.id().unwrap());
    let answer = wire.head(Request::get(mallory.url()).body(empty()).unwrap()).await.unwrap();
    let (head, mut body) = answer.into_parts();
    assert_eq!(head.status, StatusCode::PAYMENT_REQUIRED);
    let reason = head.headers["proxy-status"].to_str().unwrap();
    assert!(reason.contains("larger than limits.max_402_body (65536 bytes)"), "{reason}");
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().data_ref().map_or(0, bytes::Bytes::len) as u64;
    }
    assert_eq!(length, LENGTH);
    let growth = peak_memory(program.child.id().unwrap()) - before;
    assert!(growth < 20_000, "grew by {growth} kB");
    assert_eq!((mallory.presented().len(), mallory.highest()), (1, Amount::ZERO));
    program.kill().await;
}

/// The peak memory of a process, in kB.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[tokio::test]
async fn demands_with_a_slow_or_broken_body_are_passed_on_unpaid() {
    for (content, reason) in [
        (Content::Drip(Duration::from_millis(5)), "timed out reading the body of the 402"),
        (Content::Cut, "ended early"),
    ] {
        let limits = "[limits]\noffer_timeout = \"100ms\"\n";
        let scene = Scene::limited(limits, |demand| cheats::demands_with(demand, ASKED, content)).await;
        let mut wire = Wire::connect(scene.proxy.address).await;
        let request = Request::get(scene.mallory.url()).body(empty()).unwrap();
        let head = tokio::time::timeout(BOUND, wire.head(request)).await.expect("it is held for ever");
        let (head, mut body) = head.unwrap().into_parts();
        assert_eq!(head.status, StatusCode::PAYMENT_REQUIRED);
        let why = head.headers["proxy-status"].to_str().unwrap();
        assert!(why.contains(reason), "{why}");
        assert!(body.frame().await.unwrap().is_ok(), "what came is handed on");
        scene.promised(0).await;
    }

    // The same once it is paid: the outcome of the payment is unknown.
    let scene =
        Scene::with(|demand| cheats::takes_and(demand, ASKED, demand.base(ASKED).with_content(Content::Cut)));
    let scene = scene.await;
    let mut wire = Wire::connect(scene.proxy.address).await;
    let request = Request::get(scene.mallory.url()).body(empty()).unwrap();
    let head = wire.head(request).await.unwrap();
    assert_eq!(head.status(), StatusCode::PAYMENT_REQUIRED);
    head.into_body().collect().await.expect_err("it is cut for the client as it was for us");
    scene.promised(ASKED).await;
}

#[tokio::test]
async fn answers_with_an_unknown_outcome_are_passed_on() {
    for status in [StatusCode::CONFLICT, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY] {
        for dressed in [false, true] {
            let scene = Scene::with(|demand| {
                let bare = Answer::new(status, "pay\n");
                let answer = if dressed { cheats::demand_as(demand, ASKED, status) } else { bare };
                cheats::takes_and(demand, ASKED, answer)
            });
            let scene = scene.await;
            // It is unknown whether the first was registered: the same total again, once each time.
            for asked in 1..=3 {
                let got = scene.ask("/").await;
                assert_eq!((got.status, got.text(), got.rdn().len()), (status, "pay\n", 0));
                assert_eq!(scene.payments(), asked);
                scene.promised(ASKED).await;
            }
            assert_eq!(scene.proxy.channels().await[0].acknowledged, Amount::ZERO);
        }
    }
}

#[tokio::test]
async fn a_seller_that_never_answers_a_payment_is_left_in_time() {
    let limits = "[limits]\nanswer_timeout = \"300ms\"\n";
    let scene = Scene::limited(limits, |demand| cheats::takes_and(demand, ASKED, Answer::Never)).await;
    for _ in 0..2 {
        let got = scene.ask("/").await;
        assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT, "{got:?}");
        because(&got, "error=http_response_timeout");
        because(&got, "within limits.answer_timeout");
        scene.promised(ASKED).await;
    }
    assert_eq!(scene.payments(), 2);
}

/// Endless interim responses are not a response.
#[tokio::test]
async fn a_flood_of_interim_answers_is_left_in_time() {
    let market = Market::open().await;
    let offer = demand(&market);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seller = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = vec![0; 8192];
                let mut held = 0;
                while !head[..held].ends_with(b"\r\n\r\n") {
                    held += stream.read(&mut head[held..]).await.unwrap();
                }
                let Demand { contract, receiver, token } = offer;
                let demand = format!(
                    "HTTP/1.1 402 Pay\r\ncontent-length: 0\r\nconnection: close\r\nRDN-Price: {ASKED}\r\n\
                     RDN-Contract-Address: {contract}\r\nRDN-Receiver-Address: {receiver}\r\n\
                     RDN-Token-Address: {token}\r\n\r\n"
                );
                let is_paid = String::from_utf8_lossy(&head[..held]).contains("rdn-balance:");
                if !is_paid {
                    return stream.write_all(demand.as_bytes()).await;
                }
                loop {
                    stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await?;
                }
            });
        }
    });
    let limits = "[limits]\nanswer_timeout = \"300ms\"\n";
    let alice = Alice::with(&market, limits).await;
    let proxy = alice.start().await;
    let got = ask(&proxy, &url).await;
    assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT, "{got:?}");
    assert_eq!(proxy.promised().await, Amount::from(ASKED));
    seller.abort();
}

#[tokio::test]
async fn responses_without_a_demand_pass_unchanged() {
    let elsewhere = "http://192.0.2.1/elsewhere";
    let scene = Scene::with(|demand| {
        let redirect = move || Answer::new(StatusCode::FOUND, "there\n").header(&header::LOCATION, elsewhere);
        move |presented: &Presented| match (&*presented.target, presented.payment) {
            ("/free", _) => paid(),
            ("/moved", _) | ("/moved-once-paid", Some(_)) => redirect(),
            _ => demand.base(ASKED),
        }
    });
    let scene = scene.await;
    let got = scene.ask("/free").await;
    assert_eq!((got.status, got.text(), got.headers.get("proxy-status")), (StatusCode::OK, PAID, None));
    for (path, promised) in [("/moved", 0), ("/moved-once-paid", ASKED)] {
        let got = scene.ask(path).await;
        assert_eq!((got.status, got.text()), (StatusCode::FOUND, "there\n"));
        assert_eq!(got.headers[header::LOCATION], elsewhere);
        scene.promised(promised).await;
    }
}

#[tokio::test]
async fn a_lost_answer_is_a_502_and_the_next_request_finds_out() {
    const OTHER: u64 = 700;
    for (lost, first_counts) in [(Lose::BeforeRegistering, false), (Lose::AfterRegistering, true)] {
        for (next, price) in [("/paid", PRICE), ("/other", OTHER)] {
            let fair = Fair::with(|settings| {
                let kind = Kind::Text("other\n".into());
                settings.resources.push(Resource { path: "/other".into(), price: OTHER.into(), kind });
            });
            let fair = fair.await;
            let alice = Alice::with(&fair.market, crate::pays::QUICK).await;
            let proxy = alice.start().await;
            let url = |path: &str| format!("{}{path}", fair.origin.url());
            // The channel is open and known to the seller before anything gets lost.
            assert_eq!(ask(&proxy, &url("/paid")).await.status, StatusCode::OK);

            fair.origin.lose_next_answer(lost);
            // A GET would be sent again.
            let post = Request::post(url("/paid/echo")).body(empty()).unwrap();
            let got = wire::ask(proxy.address, post).await;
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
            because(&got, "a payment was sent, but its response was lost");
            assert_eq!(proxy.promised().await, Amount::from(2 * PRICE));

            let got = ask(&proxy, &url(next)).await;
            assert_eq!(got.status, StatusCode::OK, "{lost:?} {next} {got:?}");
            let total = PRICE + if first_counts { PRICE } else { 0 } + price;
            assert_eq!(fair.origin.total_registered(), Amount::from(total), "{lost:?} {next}");
            assert_eq!(proxy.promised().await, Amount::from(total.max(2 * PRICE)), "{lost:?} {next}");
            assert_eq!(proxy.channels().await.len(), 1);
            proxy.stop().await;
        }
    }
}

#[tokio::test]
async fn a_paid_answer_that_breaks_off_was_paid() {
    let scene =
        Scene::with(|demand| cheats::takes_and(demand, ASKED, paid().with_content(Content::Cut))).await;
    for asked in 1..=2 {
        let mut wire = Wire::connect(scene.proxy.address).await;
        let request = Request::get(scene.mallory.url()).body(empty()).unwrap();
        let head = wire.head(request).await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        head.into_body().collect().await.expect_err("the client sees that it is not whole");
        scene.promised(asked * ASKED).await;
    }
}

/// Ten concurrent clients, each with a different dishonest seller: at most one price each, and never two on one
/// channel.
#[tokio::test]
async fn ten_at_once_are_cheated_of_one_price_each_at_most() {
    let scene = Scene::limited("[limits]\nundelivered_payments = 0\n", |demand| {
        let mut scripts: Vec<Script> = vec![
            Box::new(cheats::price_rises(demand, ASKED)),
            Box::new(cheats::shown_as_old(demand, ASKED)),
            Box::new(cheats::total_rises(demand, ASKED, Forgery::OtherKey)),
            Box::new(cheats::never_content(demand, ASKED, None)),
            Box::new(cheats::takes_and(demand, ASKED, Answer::CutBeforeHead)),
            Box::new(cheats::takes_and(demand, ASKED, paid())),
        ];
        move |presented: &Presented| {
            let which: usize = presented.target.trim_start_matches('/').parse().unwrap();
            let cheats = scripts.len();
            (scripts[which % cheats])(presented)
        }
    });
    let scene = scene.await;
    let paths: Vec<String> = (0..10).map(|which| format!("/{which}")).collect();
    let all = join_all(paths.iter().map(|path| scene.ask(path))).await;
    assert!(all.iter().all(|got| got.status != StatusCode::GATEWAY_TIMEOUT), "{all:?}");
    let promised = scene.proxy.promised().await;
    assert_eq!(promised, scene.mallory.highest());
    // Two of them pay 8,000 in the end, the rest 1,000 each.
    assert!(promised <= Amount::from(2 * 8 * ASKED + 8 * ASKED), "{promised}");
    assert!(scene.payments() <= 10 * 8);
    assert_eq!(scene.proxy.channels().await.len(), 1);
}

/// A rule without `receivers` allows any, but the deposits for all of them have a limit.
#[tokio::test]
async fn a_new_receiver_in_each_402_gets_no_deposit_beyond_the_limit() {
    let scene = Scene::limited("[deposit]\nmax_total = 25000\n", |demand| {
        let mut receivers = 1..;
        move |presented: &Presented| match presented.payment {
            Some(_) => paid(),
            None => {
                let receiver = Address([receivers.next().unwrap(); 20]);
                Demand { receiver, ..demand }.base(ASKED)
            }
        }
    });
    let scene = scene.await;
    for number in 0..40 {
        let got = scene.ask(&format!("/{number}")).await;
        if number < 3 {
            assert_eq!(got.status, StatusCode::OK, "{got:?}");
        } else {
            assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
            because(&got, "channels hold 25000, and deposit.max_total allows 25000");
        }
    }
    let deposits: Vec<Amount> = scene.proxy.channels().await.iter().map(|listed| listed.deposit).collect();
    assert_eq!(deposits, [10_000.into(), 10_000.into(), 5_000.into()]);
}

/// Our own signature that is newer than the journal proves itself; a copy of it does not raise the total.
#[tokio::test]
async fn an_older_signature_of_ours_does_not_raise_the_price() {
    let scene = Scene::with(|demand| {
        let mut first: Option<(Amount, Signature)> = None;
        honest_for(demand, 3, {
            let mut shown = false;
            move |payment| {
                let (total, signature) = *first.get_or_insert((payment.total, payment.signature));
                if std::mem::replace(&mut shown, true) {
                    return demand
                        .base(ASKED)
                        .with_state(payment.sender, total, Some(signature))
                        .complain(&rdn::INVALID_AMOUNT);
                }
                held(demand, payment, ASKED, Amount::ZERO)
            }
        })
    });
    let scene = scene.await;
    for _ in 0..3 {
        assert_eq!(scene.ask("/").await.status, StatusCode::OK);
    }
    let got = scene.ask("/").await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
    because(&got, "paid, answer lost: the seller registered 4000");
    scene.promised(4 * ASKED).await;
}
