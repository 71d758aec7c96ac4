//! Hooks that ask before a payment: a webhook over real HTTP, whatever it replies, and an approver of a program that
//! uses the library. Only a clear approval in time lets a purchase continue.

mod turns;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderName, Request, Response, StatusCode};
use serde_json::Value;
use tollpass::Decision;
use tollpass::limits::Limits;
use tollpass::protocol::policy::{
    Allow, AuthorizationLimits, Deposit, Hooks, HostPattern, LocalSpenders, Missing, Policy, Requested, Rule,
};
use tollpass::protocol::schemes::microraiden::headers as rdn;
use tollpass::protocol::{Address, Amount};
use tollpass::proxy::pay::webhook::{ApprovalRequest, Approver};
use tollpass::proxy::pay::{PayLayer, PaySettings};
use tollpass::proxy::rulebook::{CurrentRules, Rulebook};
use tollpass::proxy::{Body, ForwardError};
use tollpass::shutdown::Shutdown;
use tower::{Layer as _, ServiceExt as _};

use crate::support::cheats::once_paid;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Content, Demand, Mallory};
use crate::support::market::Market;
use crate::support::payer::{Alice, Running};
use crate::support::raw::soon;
use crate::support::wire::{Got, ask};

/// Short retries; the seller sees new channels within milliseconds.
const QUICK: &str = "every = \"10ms\", times = 1000, timeout = \"20s\"";
/// The timeout of the webhook here.
const WITHIN: &str = "webhook_timeout = \"300ms\"";

/// A webhook that replies as configured last.
struct Oracle {
    server: Mallory,
    next: Arc<Mutex<Answer>>,
    /// The reply after that, if different.
    then: Arc<Mutex<Option<Answer>>>,
}

impl Oracle {
    async fn spawn() -> Self {
        let next = Arc::new(Mutex::new(says(r#"{"do": "pay"}"#)));
        let then = Arc::new(Mutex::new(None));
        let (script, later) = (Arc::clone(&next), Arc::clone(&then));
        let server = Mallory::spawn(move |_| {
            let mut next = script.lock().unwrap();
            let following = later.lock().unwrap().take().unwrap_or_else(|| next.clone());
            std::mem::replace(&mut *next, following)
        });
        Self { server: server.await, next, then }
    }

    fn will(&self, answer: Answer) {
        *self.next.lock().unwrap() = answer;
    }

    fn will_once(&self, answer: Answer, then: Answer) {
        *self.then.lock().unwrap() = Some(then);
        self.will(answer);
    }

    /// The two keys of a hook that asks it.
    fn keys(&self) -> String {
        format!("webhook = \"{}/hook?token=hush\", {WITHIN}", self.server.url())
    }

    /// All requests it received so far.
    fn questions(&self) -> Vec<Value> {
        let presented = self.server.presented();
        presented.iter().map(|question| serde_json::from_slice(&question.body).unwrap()).collect()
    }
}

fn says(text: &'static str) -> Answer {
    Answer::new(StatusCode::OK, text)
}

/// Replies that stop the purchase, and what the client gets to see of them.
fn bad_answers() -> Vec<(Answer, &'static str)> {
    let yes = || says(r#"{"do": "pay"}"#);
    vec![
        (says(r#"{"do": "abort", "reason": "too dear today"}"#), "too dear today"),
        (says(r#"{"do": "abort"}"#), "no reason given"),
        (says(r#"{"do": "maybe"}"#), "an unknown decision"),
        (says("yes"), "sent a response that is not"),
        (says(""), "sent a response that is not"),
        (yes().with_status(StatusCode::INTERNAL_SERVER_ERROR), "responded with 500"),
        (yes().with_status(StatusCode::CREATED), "responded with 201"),
        (yes().with_status(StatusCode::FOUND).header(&http::header::LOCATION, "/"), "responded with 302"),
        (yes().with_content(Content::Flood(16 * 1024 + 1)), "sent an unreadable response"),
        (yes().with_content(Content::Cut), "sent an unreadable response"),
        (yes().with_content(Content::Drip(Duration::from_millis(20))), "did not respond within 300ms"),
        (Answer::Never, "did not respond within 300ms"),
        (Answer::CutBeforeHead, "cannot be reached"),
    ]
}

#[track_caller]
fn because(got: &Got, status: StatusCode, reason: &str) {
    let told = got.headers["proxy-status"].to_str().unwrap();
    assert!(got.status == status && told.contains(reason), "{got:?}\nexpected {status} {reason}");
    assert!(!told.contains("hush"), "{told}");
}

async fn get(proxy: &Running, url: &str) -> Got {
    let request = Request::get(url)
        .header("authorization", "Bearer hush")
        .header("cookie", "session=hush")
        .header("x-api-key", "hush");
    soon("the answer", ask(proxy.address, request.body(empty()).unwrap())).await
}

#[tokio::test]
async fn nothing_is_paid_without_a_clear_yes() {
    let (oracle, fair) = (Oracle::spawn().await, Fair::open().await);
    let hooks = format!(
        "[hooks]\npayment_requested = {{ action = \"ask\", {} }}\nnonexisting_channel = {{ action = \"retry\", {QUICK} }}\n",
        oracle.keys()
    );
    let alice = Alice::with(&fair.market, &hooks).await;
    let proxy = alice.start().await;
    let url = format!("{}/paid", fair.origin.url());
    let mut bad = bad_answers();
    bad.push((says(r#"{"do": "retry"}"#), "must be pay or abort"));
    for (asked, (answer, reason)) in (1..).zip(bad) {
        oracle.will(answer);
        let got = get(&proxy, &url).await;
        because(&got, StatusCode::PAYMENT_REQUIRED, reason);
        because(&got, StatusCode::PAYMENT_REQUIRED, "hooks.payment_requested: ");
        assert_eq!(oracle.questions().len(), asked, "{reason}");
    }
    assert!(proxy.channels().await.is_empty());

    let before = oracle.questions().len();
    oracle.will(says(r#"{"do": "pay", "reason": "it is cheap"}"#));
    assert_eq!(get(&proxy, &url).await.status, StatusCode::OK);
    // The price is known now: the question comes before the request.
    assert_eq!(get(&proxy, &url).await.status, StatusCode::OK);
    let questions = oracle.questions();
    assert_eq!(questions.len(), before + 2);
    let [first, second] = &questions[before..] else { panic!("{questions:?}") };
    assert_eq!(
        (&first["hook"], &first["method"], &first["url"], &first["price"], &first["attempt"]),
        (&"payment_requested".into(), &"GET".into(), &url.as_str().into(), &"1000".into(), &0.into())
    );
    assert_eq!(first["receiver"], fair.origin.receiver().to_string());
    assert_eq!((&first["status"], &first["channel"]), (&402.into(), &Value::Null));
    assert_eq!(first["headers"]["rdn-price"], "1000");
    assert_eq!((&second["status"], &second["price"]), (&Value::Null, &"1000".into()));
    assert_eq!(proxy.promised().await, Amount::from(2 * PRICE));
    for presented in oracle.server.presented() {
        assert!(!String::from_utf8_lossy(&presented.body).contains("hush"), "{presented:?}");
        assert!(presented.headers.values().all(|value| !value.to_str().unwrap().contains("hush")));
        assert!(!String::from_utf8_lossy(&presented.body).contains("signature"), "{presented:?}");
    }

    // No response is not an approval.
    drop(oracle);
    because(&get(&proxy, &url).await, StatusCode::PAYMENT_REQUIRED, "cannot be reached");
    assert_eq!(proxy.promised().await, Amount::from(2 * PRICE));
    proxy.stop().await;
}

#[tokio::test]
async fn the_webhook_decides_about_a_complaint_before_anything_follows() {
    let (oracle, market) = (Oracle::spawn().await, Market::open().await);
    let complaint: Arc<Mutex<&'static HeaderName>> = Arc::new(Mutex::new(&rdn::NONEXISTING_CHANNEL));
    let demand = Demand { contract: market.manager, receiver: Address([0x66; 20]), token: market.token };
    let script = Arc::clone(&complaint);
    let seller = Mallory::spawn(once_paid(demand, PRICE, move |payment| {
        let name = *script.lock().unwrap();
        let answer = demand.base(PRICE).complain(name);
        if *name == rdn::INVALID_AMOUNT {
            answer.with_state(payment.sender, Amount::ZERO, None)
        } else {
            answer
        }
    }))
    .await;
    let keys = oracle.keys();
    let retry = format!("{{ action = \"retry\", every = \"10ms\", times = 1, timeout = \"20s\", {keys} }}");
    let hooks = format!(
        "[hooks]\nnonexisting_channel = {retry}\ninsufficient_confirmations = {retry}\n\
         invalid_balance_proof = {retry}\ninvalid_amount = {{ action = \"adopt\", {keys} }}\n\
         [limits]\nundelivered_payments = 0\n"
    );
    let alice = Alice::with(&market, &hooks).await;
    let proxy = alice.start().await;
    let url = format!("{}/", seller.url());
    let (retry, adopt) = (r#"{"do": "retry"}"#, r#"{"do": "adopt"}"#);
    let (reopen, pass) = (r#"{"do": "reopen"}"#, r#"{"do": "pass"}"#);
    for (name, hook, goes_on, times, words, others, listed) in [
        (
            &rdn::NONEXISTING_CHANNEL,
            "nonexisting_channel",
            "gave up after",
            2,
            [retry, reopen],
            [adopt, pass],
            "retry, reopen or abort",
        ),
        (
            &rdn::INSUFFICIENT_CONFIRMATIONS,
            "insufficient_confirmations",
            "gave up after 1 attempts",
            2,
            [retry, retry],
            [adopt, reopen],
            "retry or abort",
        ),
        (
            &rdn::INVALID_BALANCE_PROOF,
            "invalid_balance_proof",
            "gave up after 1 attempts",
            2,
            [retry, retry],
            [reopen, pass],
            "retry or abort",
        ),
        (
            &rdn::INVALID_AMOUNT,
            "invalid_amount",
            "rejects the payment that follows from its own total",
            1,
            [retry, adopt],
            [reopen, pass],
            "adopt, retry or abort",
        ),
    ] {
        *complaint.lock().unwrap() = name;
        let mut bad = bad_answers();
        bad.extend(others.map(|word| (says(word), listed)));
        for (answer, reason) in bad {
            let before = oracle.questions().len();
            oracle.will(answer);
            let got = get(&proxy, &url).await;
            because(&got, StatusCode::PAYMENT_REQUIRED, &format!("hooks.{hook}: "));
            because(&got, StatusCode::PAYMENT_REQUIRED, reason);
            assert_eq!(oracle.questions().len(), before + 1, "{hook} {reason}");
        }
        for word in words.into_iter().chain([r#"{"do": "pay"}"#]) {
            let before = oracle.questions().len();
            oracle.will(says(word));
            because(&get(&proxy, &url).await, StatusCode::PAYMENT_REQUIRED, goes_on);
            let questions = oracle.questions();
            assert_eq!(questions.len(), before + times, "{hook} {word}");
            let last = questions.last().unwrap();
            assert_eq!(
                (&last["hook"], &last["attempt"], &last["status"]),
                (&hook.into(), &times.into(), &402.into())
            );
            assert!(last["channel"]["open_block"].is_u64(), "{last}");
        }
    }
    assert_eq!(seller.highest(), Amount::from(PRICE), "one price, however often it was asked for");
    proxy.stop().await;
}

/// Approval of one price does not extend to a higher one, whatever the seller says about it.
#[tokio::test]
async fn approval_of_a_price_does_not_extend_to_a_higher_one() {
    for complains in [false, true] {
        let (oracle, market) = (Oracle::spawn().await, Market::open().await);
        let demand = Demand { contract: market.manager, receiver: Address([0x66; 20]), token: market.token };
        let seller = Mallory::spawn(once_paid(demand, PRICE, move |payment| {
            if payment.total == Amount::from(7 * PRICE) {
                return says("paid");
            }
            let answer = demand.base(7 * PRICE).with_state(payment.sender, Amount::ZERO, None);
            if complains { answer.complain(&rdn::INVALID_AMOUNT) } else { answer }
        }))
        .await;
        let hooks = format!("[hooks]\npayment_requested = {{ action = \"ask\", {} }}\n", oracle.keys());
        let alice = Alice::with(&market, &hooks).await;
        let proxy = alice.start().await;
        let url = format!("{}/", seller.url());
        oracle.will_once(says(r#"{"do": "pay"}"#), says(r#"{"do": "abort", "reason": "too dear"}"#));
        let got = get(&proxy, &url).await;
        because(&got, StatusCode::PAYMENT_REQUIRED, "hooks.payment_requested: too dear");
        let prices: Vec<Value> =
            oracle.questions().iter().map(|question| question["price"].clone()).collect();
        assert_eq!(prices, ["1000", "7000"]);
        assert_eq!(seller.highest(), Amount::from(PRICE), "{complains}");
        oracle.will(says(r#"{"do": "pay"}"#));
        assert_eq!(get(&proxy, &url).await.status, StatusCode::OK);
        assert_eq!(seller.highest(), Amount::from(7 * PRICE));
        proxy.stop().await;
    }
}

/// An honest seller, and a proxy with these hooks for it.
async fn scene(hooks: &str) -> (Fair, Alice, Running) {
    let fair = Fair::open().await;
    let rules = format!(
        "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n[pay.hooks]\n\
         nonexisting_channel = {{ action = \"retry\", {QUICK} }}\n{hooks}"
    );
    let alice = Alice::ruled(&fair.market, &rules).await;
    let proxy = alice.start().await;
    (fair, alice, proxy)
}

#[tokio::test]
async fn answers_that_a_hook_does_not_like_are_held_back_and_stay_paid() {
    let hooks =
        "http_error = { action = \"abort\" }\nhttp_response = { action = \"abort\", status = [200] }\n";
    let (fair, _alice, proxy) = scene(hooks).await;
    for (path, reason) in [
        ("/status/404", "the origin answered 404: hooks.http_error aborts"),
        ("/status/500", "the origin answered 500: hooks.http_error aborts"),
        ("/paid", "the origin answered 200: hooks.http_response aborts"),
        ("/free", "the origin answered 200: hooks.http_response aborts"),
        ("/nothing-here", "the origin answered 404: hooks.http_error aborts"),
    ] {
        let got = get(&proxy, &format!("{}{path}", fair.origin.url())).await;
        because(&got, StatusCode::BAD_GATEWAY, reason);
        let problem: Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!((&problem["status"], &problem["detail"]), (&502.into(), &reason.into()));
    }
    assert_eq!(fair.origin.total_registered(), Amount::from(3 * PRICE));
    proxy.stop().await;

    let (fair, _alice, proxy) =
        scene("http_response = { action = \"abort\", header = [\"RDN-Price\"] }\n").await;
    let got = get(&proxy, &format!("{}/paid", fair.origin.url())).await;
    let reason = "the origin answered 402 with the header rdn-price: hooks.http_response aborts";
    because(&got, StatusCode::PAYMENT_REQUIRED, reason);
    assert!(proxy.channels().await.is_empty());
    proxy.stop().await;

    let (fair, _alice, proxy) = scene("payment_requested = { action = \"abort\" }\n").await;
    let got = get(&proxy, &format!("{}/paid", fair.origin.url())).await;
    because(&got, StatusCode::PAYMENT_REQUIRED, "hooks.payment_requested aborts");
    assert!(proxy.channels().await.is_empty());
    proxy.stop().await;
}

/// The pay timeout does not apply to a response that costs nothing.
#[tokio::test]
async fn the_webhook_decides_even_about_an_answer_later_than_pay_timeout() {
    let (oracle, market) = (Oracle::spawn().await, Market::open().await);
    let paying = Duration::from_secs(1);
    let seller = Mallory::spawn(move |_| Answer::Late(paying, StatusCode::NOT_FOUND)).await;
    let ask = format!("http_error = {{ action = \"ask\", {} }}", oracle.keys());
    let alice = Alice::with(&market, &format!("[hooks]\n{ask}\n[limits]\npay_timeout = \"1s\"\n")).await;
    let proxy = alice.start().await;
    let got = get(&proxy, &format!("{}/", seller.url())).await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    assert_eq!(oracle.questions().len(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn the_webhook_can_decide_about_answers_and_hears_of_success() {
    let (oracle, notices) = (Oracle::spawn().await, Oracle::spawn().await);
    let keys = oracle.keys();
    let (fair, _alice, proxy) = scene(&format!(
        "http_error = {{ action = \"ask\", {keys} }}\nhttp_response = {{ action = \"ask\", status = [200], {keys} }}\n\
         success = {{ action = \"webhook\", {} }}\n",
        notices.keys()
    ))
    .await;
    // Notifications are not awaited.
    notices.will(Answer::Never);
    for (hook, path, status) in [("http_error", "/status/404", 404), ("http_response", "/paid", 200)] {
        let url = format!("{}{path}", fair.origin.url());
        for (answer, reason) in bad_answers() {
            oracle.will(answer);
            let got = get(&proxy, &url).await;
            because(&got, StatusCode::BAD_GATEWAY, reason);
            because(&got, StatusCode::BAD_GATEWAY, &format!("hooks.{hook}: "));
        }
        for word in [r#"{"do": "pay"}"#, r#"{"do": "retry"}"#, r#"{"do": "pass"}"#] {
            oracle.will(says(word));
            assert_eq!(get(&proxy, &url).await.status, status);
        }
        let questions = oracle.questions();
        let last = questions.last().unwrap();
        assert_eq!((&last["hook"], &last["status"]), (&hook.into(), &status.into()));
        // After a top-up, a payment is presented again until the seller has noticed it.
        let attempts: Vec<_> = questions
            .iter()
            .filter(|it| it["hook"] == hook)
            .map(|it| it["attempt"].as_u64().unwrap())
            .collect();
        assert!(attempts.contains(&1) && !attempts.contains(&0), "{attempts:?}");
    }
    let paid = 2 * (bad_answers().len() + 3);
    assert_eq!(fair.origin.total_registered(), Amount::from(paid as u64 * PRICE));
    soon("every notice", notices.server.await_presented(paid)).await;
    let notice = notices.questions().pop().unwrap();
    assert_eq!((&notice["hook"], &notice["price"]), (&"success".into(), &"1000".into()));
    assert!(notice["channel"]["open_block"].is_u64() && notice["status"].is_u64(), "{notice}");
    proxy.stop().await;
}

/// Records each request, and always gives the same reply.
#[derive(Debug)]
struct Stubborn {
    asked: Mutex<Vec<ApprovalRequest>>,
    says: Option<Decision>,
}

impl Approver for Stubborn {
    fn decide<'a>(&'a self, request: &'a ApprovalRequest) -> BoxFuture<'a, Decision> {
        self.asked.lock().unwrap().push(request.clone());
        Box::pin(async move {
            match &self.says {
                Some(decision) => decision.clone(),
                None => std::future::pending().await,
            }
        })
    }
}

#[tokio::test]
async fn the_librarys_approver_decides_if_no_webhook_is_configured() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, "[hooks]\n").await;
    // Her payment service, under a separate layer.
    let proxy = alice.start().await;
    let no = Decision::Abort { reason: "not today".to_owned() };
    for (says, reason) in [
        (Some(no), Some("hooks.payment_requested: not today")),
        (None, Some("hooks.payment_requested: no response within limits.pay_timeout")),
        (Some(Decision::Retry), Some("must be pay or abort")),
        (Some(Decision::Pay), None),
    ] {
        let approver = Arc::new(Stubborn { asked: Mutex::default(), says });
        let settings = pay_settings(&proxy, Some(approver.clone()));
        let (status, told) = soon("the answer", buy(&fair, settings)).await;
        assert_eq!(status == StatusCode::OK, reason.is_none(), "{status} {told}");
        assert!(told.contains(reason.unwrap_or_default()), "{told}");
        let asked = approver.asked.lock().unwrap();
        assert_eq!((asked[0].hook, asked[0].price), ("payment_requested", Some(Amount::from(PRICE))));
    }
    let promised = proxy.promised().await;
    let (status, told) = buy(&fair, pay_settings(&proxy, None)).await;
    assert!(status == StatusCode::PAYMENT_REQUIRED && told.contains("no webhook is configured"), "{told}");
    assert_eq!((promised, proxy.promised().await), (Amount::from(PRICE), Amount::from(PRICE)));
    proxy.stop().await;
}

/// Requests `/paid` through a payment layer around a plain client.
async fn buy(fair: &Fair, settings: PaySettings) -> (StatusCode, String) {
    let address = fair.origin.address();
    let plain = tower::service_fn(move |request: Request<Body>| -> BoxFuture<'static, _> {
        Box::pin(async move {
            let (head, _) = request.into_parts();
            let mut request = Request::from_parts(head, empty());
            *request.uri_mut() = request.uri().path().parse().unwrap();
            let got = ask(address, request).await;
            let mut answer = Response::new(Body::full(got.body));
            (*answer.status_mut(), *answer.headers_mut()) = (got.status, got.headers);
            Ok::<_, ForwardError>(answer)
        })
    });
    let request = Request::get(format!("{}/paid", fair.origin.url())).body(Body::Empty).unwrap();
    let answer = PayLayer::new(settings).layer(plain).oneshot(request).await.unwrap();
    let told = answer.headers().get("proxy-status").map(|told| told.to_str().unwrap().to_owned());
    (answer.status(), told.unwrap_or_default())
}

fn pay_settings(proxy: &Running, approver: Option<Arc<dyn Approver>>) -> PaySettings {
    let (every, times, within) = (Duration::from_millis(10), 1000, Duration::from_secs(20));
    let hooks = Arc::new(Hooks {
        payment_requested: Requested::Ask.into(),
        nonexisting_channel: Missing::Retry { every, times, within }.into(),
        ..Hooks::default()
    });
    let allow = Allow::Pay {
        max_price: Amount::from(10_000).into(),
        receivers: Vec::new(),
        preference: Arc::default(),
        send_ahead: false,
        allow_plain_http: false,
        browsers: None,
        hooks: Arc::clone(&hooks),
        budgets: Vec::new(),
    };
    let policy = Policy {
        version: 0,
        clients: Arc::default(),
        distinguishes_clients: false,
        budgets: Vec::new(),
        rules: vec![Rule { host: HostPattern::Any, port: None, allow }],
        deposit: Deposit::default(),
        hooks,
        max_attempts: 8,
        sign_ahead: 0,
        ready_timeout: Duration::from_secs(10),
        pay_timeout: Duration::from_secs(2),
        authorizations: AuthorizationLimits::default(),
    };
    PaySettings {
        rules: CurrentRules::new(Rulebook::new(Arc::new(policy), LocalSpenders::Any)),
        payments: Some(proxy.payments.clone()),
        limits: Limits {
            replay_memory: 1024,
            replay_file: 1024,
            offer_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(5),
            ..Limits::default()
        },
        replay_directory: std::env::temp_dir(),
        shutdown: Shutdown::new(),
        approver,
        asks_operator: false,
        dry_run: None,
    }
}
