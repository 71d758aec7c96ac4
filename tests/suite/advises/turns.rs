//! The hooks at the beginning and the end of every request that a rule pays, and at every 402.

use super::*;
use crate::support::ports::ReservedPort;
use crate::support::wire::Wire;

/// A hook that notifies or asks `oracle`.
fn hook(name: &str, action: &str, oracle: &Oracle) -> String {
    format!("{name} = {{ action = \"{action}\", {} }}\n", oracle.keys())
}

/// The hook's requests so far, without those of other hooks.
fn of(oracle: &Oracle, hook: &str) -> Vec<Value> {
    oracle.questions().into_iter().filter(|question| question["hook"] == hook).collect()
}

#[tokio::test]
async fn the_webhook_decides_about_free_and_paid_requests_before_they_are_sent() {
    let oracle = Oracle::spawn().await;
    let (fair, _alice, proxy) = scene(&hook("init", "ask", &oracle)).await;
    let mut bad = bad_answers();
    // Valid replies to other hooks.
    for word in [r#"{"do": "pay"}"#, r#"{"do": "retry"}"#] {
        bad.push((says(word), "must be pass or abort"));
    }
    for (path, asked) in [("/free", 0), ("/paid", bad.len())] {
        let url = format!("{}{path}", fair.origin.url());
        for (asked, (answer, reason)) in (asked + 1..).zip(bad.clone()) {
            oracle.will(answer);
            let got = get(&proxy, &url).await;
            because(&got, StatusCode::FORBIDDEN, reason);
            because(
                &got,
                StatusCode::FORBIDDEN,
                "tollpass; error=http_request_denied; reason=approver-refused; details=\"hooks.init: ",
            );
            let problem: Value = serde_json::from_slice(&got.body).unwrap();
            assert_eq!(problem["status"], 403);
            assert_eq!(of(&oracle, "init").len(), asked, "{reason}");
        }
    }
    assert_eq!(fair.origin.exchanges(), 0, "a request was sent");
    oracle.will(says(r#"{"do": "pass"}"#));
    // The second paid request carries its payment from the start.
    for (path, status) in
        [("/free", 200), ("/paid", 200), ("/paid", 200), ("/status/404", 404), ("/nowhere", 404)]
    {
        let before = of(&oracle, "init").len();
        let url = format!("{}{path}", fair.origin.url());
        assert_eq!(get(&proxy, &url).await.status, status, "{path}");
        let questions = of(&oracle, "init");
        assert_eq!(questions.len(), before + 1, "{path}");
        let last = questions.last().unwrap();
        assert_eq!((&last["method"], &last["url"]), (&"GET".into(), &url.as_str().into()));
        for absent in ["price", "channel", "status", "paid"] {
            assert_eq!(last[absent], Value::Null, "{absent}");
        }
        assert_eq!(last["attempt"], 0);
    }
    // No rule pays this host.
    let before = of(&oracle, "init").len();
    let elsewhere = fair.origin.url().replace("127.0.0.1", "localhost");
    assert_eq!(get(&proxy, &format!("{elsewhere}/free")).await.status, StatusCode::OK);
    assert_eq!(of(&oracle, "init").len(), before);
    assert_eq!(proxy.promised().await, Amount::from(3 * PRICE));
    proxy.stop().await;
}

#[tokio::test]
async fn the_end_of_a_request_is_reported_with_its_status_and_payment() {
    let (oracle, asked) = (Oracle::spawn().await, Oracle::spawn().await);
    let hooks = hook("exit", "webhook", &oracle) + &hook("init", "ask", &asked);
    let (fair, _alice, proxy) = scene(&hooks).await;
    asked.will(says(r#"{"do": "pass"}"#));
    // Whatever the webhook replies, the client does not wait for it and gets the same response.
    let answers = [says("thanks"), says(r#"{"do": "abort"}"#), Answer::Never, Answer::CutBeforeHead];
    let gone = ReservedPort::new();
    let paid = || Value::from("1000");
    for (number, (base, path, status, paid, unclear)) in (1..).zip([
        (fair.origin.url(), "/free", 200, Value::Null, Value::Null),
        (fair.origin.url(), "/paid", 200, paid(), Value::Null),
        (fair.origin.url(), "/paid", 200, paid(), Value::Null),
        (fair.origin.url(), "/status/404", 404, paid(), Value::Null),
        (fair.origin.url(), "/status/500", 500, Value::Null, paid()),
        (fair.origin.url(), "/nowhere", 404, Value::Null, Value::Null),
        // No server listens here: the response is our own.
        (gone.url(), "/", 502, Value::Null, Value::Null),
    ]) {
        oracle.will(answers[number % answers.len()].clone());
        let url = format!("{base}{path}");
        assert_eq!(get(&proxy, &url).await.status, status, "{url}");
        soon("the notice", oracle.server.await_presented(number)).await;
        let notice = oracle.questions().pop().unwrap();
        assert_eq!((&notice["hook"], &notice["method"]), (&"exit".into(), &"GET".into()));
        assert_eq!((&notice["url"], &notice["status"]), (&url.as_str().into(), &status.into()));
        assert_eq!((&notice["paid"], &notice["unclear"]), (&paid, &unclear), "{url}");
    }
    // One that was not sent ends, too.
    asked.will(says(r#"{"do": "abort"}"#));
    let url = format!("{}/free", fair.origin.url());
    assert_eq!(get(&proxy, &url).await.status, StatusCode::FORBIDDEN);
    soon("the notice", oracle.server.await_presented(8)).await;
    let notice = oracle.questions().pop().unwrap();
    assert_eq!((&notice["url"], &notice["status"]), (&url.as_str().into(), &403.into()));
    proxy.stop().await;
}

/// A client that disconnects before the response, before anything is paid and after.
#[tokio::test]
async fn the_end_of_a_request_is_reported_even_if_its_client_has_left() {
    let (oracle, market) = (Oracle::spawn().await, Market::open().await);
    let demand = Demand { contract: market.manager, receiver: Address([0x66; 20]), token: market.token };
    let complaint = move |_: &_| demand.base(PRICE).complain(&rdn::INSUFFICIENT_CONFIRMATIONS);
    let mut paid = once_paid(demand, PRICE, complaint);
    let seller =
        Mallory::spawn(move |asked| if asked.target == "/slow" { Answer::Never } else { paid(asked) });
    let seller = seller.await;
    let patient =
        "insufficient_confirmations = { action = \"retry\", every = \"4m\", times = 1, timeout = \"5m\" }\n";
    let alice =
        Alice::with(&market, &format!("[hooks]\n{patient}{}", hook("exit", "webhook", &oracle))).await;
    let proxy = alice.start().await;
    for (number, path, requests, status, unclear) in
        [(1, "/slow", 1, Value::Null, Value::Null), (2, "/", 3, 402.into(), "1000".into())]
    {
        let mut wire = Wire::connect(proxy.address).await;
        let request = Request::get(format!("{}{path}", seller.url())).body(empty()).unwrap();
        let client = tokio::spawn(async move { wire.ask(request).await.map(|_| ()) });
        soon("the request", seller.await_presented(requests)).await;
        client.abort();
        soon("the notice", oracle.server.await_presented(number)).await;
        let notice = oracle.questions().pop().unwrap();
        assert_eq!((&notice["status"], &notice["unclear"]), (&status, &unclear), "{path}: {notice}");
        assert_eq!(notice["paid"], Value::Null);
    }
    proxy.stop().await;
}

/// Mallory's responses to an unpaid and to a paid request, in order.
async fn seller(answers: Vec<Answer>) -> Mallory {
    Mallory::spawn(move |asked| answers[asked.number.min(answers.len() - 1)].clone()).await
}

#[tokio::test]
async fn every_402_is_seen_before_anything_is_made_of_it() {
    let market = Market::open().await;
    let seller_of = |receiver| Demand { contract: market.manager, receiver, token: market.token };
    let plain = || Answer::new(StatusCode::PAYMENT_REQUIRED, "pay\n");
    let abort = "invalid_balance_proof = { action = \"abort\" }\n";
    let cases = |demand: Demand| {
        let complaint = demand.base(PRICE).complain(&rdn::INVALID_BALANCE_PROOF);
        [
            ("in no scheme", vec![plain()], 1, 0),
            ("malformed", vec![demand.base("many")], 1, 0),
            ("too expensive", vec![demand.base(10_001)], 1, 0),
            ("another contract", vec![Demand { contract: Address([1; 20]), ..demand }.base(PRICE)], 1, 0),
            ("its body is endless", vec![demand.base(PRICE).with_content(Content::Flood(1 << 20))], 1, 0),
            ("paid", vec![demand.base(PRICE), Answer::new(StatusCode::OK, "paid")], 2, 1),
            ("refused", vec![demand.base(PRICE), complaint], 2, 1),
            ("unreadable after the payment", vec![demand.base(PRICE), plain()], 2, 1),
            ("malformed after the payment", vec![demand.base(PRICE), demand.base("many")], 2, 1),
        ]
    };
    for number in 0..9 {
        // Each time a different receiver, so that the chain shows no channel of an earlier case.
        let demand = seller_of(Address([0x60 + number; 20]));
        let (what, answers, asked, promised) = cases(demand).into_iter().nth(number.into()).unwrap();
        let (oracle, seller) = (Oracle::spawn().await, seller(answers.clone()).await);
        oracle.will(says(r#"{"do": "pass"}"#));
        let ask = hook("http_response", "ask", &oracle);
        let alice = Alice::with(&market, &format!("[hooks]\n{abort}{ask}")).await;
        let proxy = alice.start().await;
        let got = get(&proxy, &format!("{}/", seller.url())).await;
        let questions = of(&oracle, "http_response");
        let statuses: Vec<_> =
            questions.iter().map(|question| question["status"].as_u64().unwrap()).collect();
        let last = u64::from(got.status.as_u16());
        assert_eq!(statuses, [402, last][2 - asked..], "{what}: {got:?}");
        assert_eq!(seller.highest(), Amount::from(promised * PRICE), "{what}");
        if promised == 1 {
            assert!(questions[1]["channel"]["open_block"].is_u64(), "{what}");
        }
        proxy.stop().await;

        // Without approval nothing happens.
        let (oracle, seller) = (Oracle::spawn().await, self::seller(answers).await);
        oracle.will(says(r#"{"do": "abort", "reason": "enough"}"#));
        let marks = format!("http_response = {{ action = \"ask\", status = [402], {} }}\n", oracle.keys());
        let alice = Alice::with(&market, &format!("[hooks]\n{abort}{marks}")).await;
        let proxy = alice.start().await;
        let got = get(&proxy, &format!("{}/", seller.url())).await;
        because(&got, StatusCode::PAYMENT_REQUIRED, "hooks.http_response: enough");
        assert_eq!(seller.highest(), Amount::ZERO, "{what}");
        assert!(proxy.channels().await.iter().all(|channel| channel.acknowledged == Amount::ZERO), "{what}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_402_that_stops_a_purchase_by_its_status_stops_it_before_and_after_a_payment() {
    let market = Market::open().await;
    let demand = Demand { contract: market.manager, receiver: Address([0x66; 20]), token: market.token };
    let marked = || demand.base(PRICE).complain(&rdn::INSUFFICIENT_CONFIRMATIONS);
    for (marks, promised) in [("status = [402]", 0), ("header = [\"rdn-insufficient-confirmations\"]", 1)] {
        let seller = seller(vec![demand.base(PRICE), marked()]).await;
        let hooks = format!("[hooks]\nhttp_response = {{ action = \"abort\", {marks} }}\n");
        let alice = Alice::with(&market, &hooks).await;
        let proxy = alice.start().await;
        let got = get(&proxy, &format!("{}/", seller.url())).await;
        because(&got, StatusCode::PAYMENT_REQUIRED, "the origin answered 402");
        because(&got, StatusCode::PAYMENT_REQUIRED, "hooks.http_response aborts");
        assert_eq!(seller.highest(), Amount::from(promised * PRICE), "{marks}");
        // Presented once, and what was presented stays in doubt.
        assert_eq!(seller.presented().len(), 1 + promised as usize, "{marks}");
        let bill = proxy.payments.report().total();
        assert_eq!(bill.unclear.amount, Amount::from(promised * PRICE), "{marks}");
        proxy.stop().await;
    }
}
