//! Mallory's offers, and the choice among several.

use super::*;

/// What the client gets, and how many payments the seller was presented.
async fn outcome(more: &str, script: impl FnMut(&Presented) -> Answer + Send + 'static) -> (Got, usize) {
    let seller = Mallory::spawn(script).await;
    let (_alice, proxy) = alice(more).await;
    let got = get(&proxy, &seller).await;
    proxy.stop().await;
    let is_paid = |presented: &&Presented| {
        [V1, V2].iter().any(|version| presented.headers.contains_key(version.header()))
    };
    (got, seller.presented().iter().filter(is_paid).count())
}

fn entry(members: Value) -> Value {
    let mut entry = V2.entry(PRICE);
    for (key, value) in members.as_object().unwrap() {
        entry[key] = value.clone();
    }
    entry
}

/// Neither the token nor the payee.
const OTHER: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";

#[tokio::test]
async fn what_the_rule_does_not_allow_is_not_paid_and_the_reason_says_so() {
    let big: Value = "x".repeat(8000).into();
    let cases: Vec<(Vec<Value>, &str, &str)> = vec![
        (vec![V2.entry(2001)], "above-max-price", "price 0.002001 TOY is above max_price 0.002 TOY"),
        (vec![V2.entry(0)], "price-zero", ""),
        // A token of its own, whatever the seller calls it.
        (
            vec![entry(json!({"asset": OTHER, "extra": {"name": "TOY", "version": "2"}}))],
            "asset-not-allowed",
            "",
        ),
        (vec![entry(json!({"network": "eip155:1"}))], "asset-not-allowed", ""),
        (vec![entry(json!({"extra": {"name": "USD Coin"}}))], "wrong-token-name", "Toy Dollar"),
        (vec![entry(json!({"scheme": "upto"}))], "unsupported-offers", "upto on eip155:31337"),
        (vec![entry(json!({"maxTimeoutSeconds": 5}))], "unsupported-offers", "too short"),
        (
            vec![entry(json!({"extra": {"name": "Toy Dollar", "more": big}}))],
            "unsupported-offers",
            "too large",
        ),
        (vec![], "unsupported-offers", "there is none"),
        (vec![V2.entry(PRICE); 101], "offer-malformed", "at most 100"),
    ];
    for (accepts, code, why) in cases {
        let (got, payments) = outcome("", move |_| V2.asks("Payment required", &accepts)).await;
        assert_eq!((got.status, got.text(), payments), (StatusCode::PAYMENT_REQUIRED, "{}", 0), "{got:?}");
        assert!(
            reason(&got).contains(&format!("reason={code};")) && reason(&got).contains(why),
            "{code}: {got:?}"
        );
        assert!(got.headers.contains_key("payment-required"), "the seller's own offer reaches the client");
    }
}

#[tokio::test]
async fn an_offer_that_cannot_be_paid_hides_no_other_and_a_cheaper_one_is_no_reason() {
    let accepts = vec![
        entry(json!({"scheme": "exact", "amount": "1", "extra": {"name": "GatewayWalletBatched"}})),
        entry(json!({"network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"})),
        entry(json!({"asset": OTHER, "amount": "1"})),
        V2.entry(5000),
        V2.entry(PRICE),
    ];
    let chain = Chain::default();
    let of_seller = chain.clone();
    let (got, payments) = outcome("", move |presented| match V2.payment(presented) {
        Some(payment) => V2.serve(&of_seller, &payment),
        None => V2.asks("Payment required", &accepts),
    })
    .await;
    assert_eq!((got.status, payments), (StatusCode::OK, 1), "{got:?}");
    assert_eq!(chain.transfers(), [PRICE]);
}

#[tokio::test]
async fn a_seller_that_keeps_asking_gets_one_authorization() {
    let other_payee = entry(json!({"payTo": OTHER}));
    for (name, error, again, code) in [
        ("as if unpaid", "Payment required", V2.entry(PRICE), "payment-in-doubt"),
        ("another payee", "Payment required", other_payee, "receiver-changed"),
        ("a higher price", "Payment required", V2.entry(PRICE + 1), "payment-in-doubt"),
        ("refused", "invalid_exact_evm_insufficient_balance", V2.entry(PRICE), "seller-refused"),
        ("another text", "please pay more", V2.entry(PRICE), "payment-in-doubt"),
    ] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let nonces = Arc::clone(&seen);
        let (got, payments) = outcome(QUICK, move |presented| match V2.payment(presented) {
            Some(payment) => {
                nonces.lock().unwrap().push(payment.nonce);
                V2.asks(error, std::slice::from_ref(&again))
            }
            None => V2.offer("Payment required"),
        })
        .await;
        assert!((1..=3).contains(&payments), "{name}: {payments}");
        assert!(reason(&got).contains(&format!("reason={code}")), "{name}: {got:?}");
        let mut seen = seen.lock().unwrap().clone();
        seen.dedup();
        assert_eq!(seen.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_offer_is_passed_on() {
    let html = || {
        Answer::new(StatusCode::PAYMENT_REQUIRED, "<!DOCTYPE html><p>pay")
            .header(&http::header::CONTENT_TYPE, "text/html")
    };
    let json = |text: &'static str| {
        Answer::new(StatusCode::PAYMENT_REQUIRED, text)
            .header(&http::header::CONTENT_TYPE, "application/json")
    };
    for (answer, code) in [
        (html(), "unknown-scheme"),
        (json("{}"), "unknown-scheme"),
        (json("[1, 2"), "unknown-scheme"),
        (json("{\"x402Version\": 1}"), "offer-malformed"),
        (json("{\"x402Version\": 9, \"accepts\": []}"), "offer-malformed"),
        (json("{\"x402Version\": 1, \"accepts\": [7]}"), "unsupported-offers"),
    ] {
        let told = format!("{answer:?}");
        let (got, payments) = outcome("", move |_| answer.clone()).await;
        assert_eq!((got.status, payments), (StatusCode::PAYMENT_REQUIRED, 0));
        assert!(reason(&got).contains(&format!("reason={code};")), "{told}: {got:?}");
    }
    let (got, _) = outcome("", |_| {
        let endless = Content::Flood(4 << 20);
        Answer::new(StatusCode::PAYMENT_REQUIRED, "")
            .header(&http::header::CONTENT_TYPE, "application/json")
            .with_content(endless)
    })
    .await;
    assert!(reason(&got).contains("reason=offer-too-large"), "{got:?}");
    assert_eq!(got.body.len(), 4 << 20, "it reaches the client in full");
}

#[tokio::test]
async fn a_receipt_counts_at_any_status_and_reaches_no_one() {
    let chain = Chain::default();
    let of_seller = chain.clone();
    let seller = Mallory::spawn(move |presented| match V2.payment(presented) {
        Some(payment) => {
            of_seller.settle(&payment);
            V2.served().with_status(StatusCode::GONE)
        }
        None => V2.offer("Payment required"),
    })
    .await;
    let (alice, proxy) = alice("").await;
    let got = get(&proxy, &seller).await;
    assert_eq!((got.status, got.text()), (StatusCode::GONE, "goods\n"), "{got:?}");
    assert_eq!(chain.transfers(), [PRICE]);
    proxy.stop().await;
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid]);
}

/// The seller serves, and states that it was not paid: it may be nevertheless.
#[tokio::test]
async fn a_receipt_of_failure_leaves_the_payment_in_doubt_and_the_client_its_answer() {
    let seller = Mallory::spawn(|presented| match V2.payment(presented) {
        Some(_) => Answer::new(StatusCode::OK, "goods\n")
            .header(&V2.receipt(), V2.stated(false, Some("insufficient_funds"))),
        None => V2.offer("Payment required"),
    })
    .await;
    let (alice, proxy) = alice("").await;
    for _ in 0..2 {
        let got = get(&proxy, &seller).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
    }
    proxy.stop().await;
    assert_eq!(nonces(V2, &seller).len(), 1, "the same payment is presented again");
    let rows = ledger::rows(&alice);
    assert_eq!(last_states(&rows), [LedgerState::InDoubt], "{rows:?}");
    let receipt = r#"{"success":false,"errorReason":"insufficient_funds","transaction":"0x33","network":"eip155:31337"}"#;
    assert_eq!(rows.last().unwrap().receipt, receipt, "{rows:?}");
    assert_eq!(ledger::sum(&rows).in_doubt, tollpass::protocol::Amount::from(PRICE).into(), "{rows:?}");
}

/// A second token, worth twice as much, on another network.
const SECOND: &str = "[[asset]]\nsymbol = \"BIG\"\nnetwork = \"eip155:31338\"\n\
    token = \"0x70ab1e0000000000000000000000000000004021\"\ndecimals = 6\nusd = \"2\"\n\
    eip712_name = \"Toy Dollar\"\neip712_version = \"2\"\n\
    [[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\n\
    token = \"0x70ab1e0000000000000000000000000000004020\"\ndecimals = 6\nusd = \"1\"\n\
    eip712_name = \"Toy Dollar\"\neip712_version = \"2\"\n\
    [[pay]]\nhost = \"localhost\"\nmax_price = \"$0.01\"\n";

#[tokio::test]
async fn of_several_offers_the_one_that_the_rule_prefers_is_paid() {
    let second = |amount: u64| {
        entry(json!({
            "network": "eip155:31338", "asset": "0x70ab1e0000000000000000000000000000004021",
            "amount": amount.to_string(),
        }))
    };
    for (more, accepts, expected) in [
        ("", vec![second(600), V2.entry(1000)], "eip155:31337"),
        ("", vec![V2.entry(1000), second(400)], "eip155:31338"),
        ("", vec![second(500), V2.entry(1000)], "eip155:31338"),
        ("networks = [\"eip155:31338\", \"eip155:31337\"]\n", vec![V2.entry(1), second(600)], "eip155:31338"),
        ("networks = [\"eip155:31337\"]\n", vec![second(1), V2.entry(1000)], "eip155:31337"),
        ("assets = [\"TOY\", \"BIG\"]\n", vec![second(1), V2.entry(1000)], "eip155:31337"),
        ("schemes = [\"x402\"]\n", vec![second(1), V2.entry(1000)], "eip155:31338"),
    ] {
        let paid = Arc::new(Mutex::new(None));
        let of_seller = Arc::clone(&paid);
        let seller = Mallory::spawn(move |presented| {
            let Some(value) = presented.headers.get(V2.header()) else {
                return V2.asks("Payment required", &accepts);
            };
            let payment: Value = serde_json::from_slice(&STANDARD.decode(value.as_bytes()).unwrap()).unwrap();
            *of_seller.lock().unwrap() = Some(payment["accepted"]["network"].as_str().unwrap().to_owned());
            V2.served()
        })
        .await;
        let alice = Alice::without_chain(&format!("{SECOND}{more}"));
        let proxy = alice.start().await;
        let got = get(&proxy, &seller).await;
        assert_eq!(got.status, StatusCode::OK, "{more}: {got:?}");
        assert_eq!(paid.lock().unwrap().as_deref(), Some(expected), "{more}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_price_over_budget_is_refused_before_anything_is_signed() {
    let budget = "budgets = [\"small\"]\n[[budget]]\nname = \"small\"\ntotal = \"0.000001 TOY\"\n";
    let chain = Chain::default();
    let seller = Mallory::spawn(honest(V2, &chain)).await;
    let (alice, proxy) = alice(budget).await;
    let got = get(&proxy, &seller).await;
    assert!(reason(&got).contains("reason=over-budget"), "{got:?}");
    proxy.stop().await;
    assert!(ledger::rows(&alice).is_empty());
}

#[tokio::test]
async fn a_rule_can_exclude_the_scheme() {
    let (got, payments) = outcome("schemes = [\"microraiden\"]\n", |_| V2.offer("Payment required")).await;
    assert!(reason(&got).contains("reason=scheme-not-allowed"), "{got:?}");
    assert_eq!(payments, 0);
}

#[tokio::test]
async fn inspect_shows_every_offer_and_the_one_it_would_choose() {
    let accepts = vec![
        entry(json!({"scheme": "upto"})),
        V2.entry(5000),
        V2.entry(PRICE),
        entry(json!({"extra": {"name": "USD Coin"}})),
    ];
    let header = V2.asks("Payment required", &accepts);
    let body = V1.offer("X-PAYMENT header is required");
    for (answer, offers) in [(header, 3), (body, 1)] {
        let seller = Mallory::spawn(move |_| answer.clone()).await;
        let alice = Alice::without_chain(RULE);
        let url = format!("http://localhost:{}/goods", seller.address().port());
        let config = alice.config_path();
        let ran =
            crate::program::run(&["inspect", "--json", "--config", crate::program::text(&config), &url])
                .await;
        let shown: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
        assert_eq!(shown["offers"].as_array().unwrap().len(), offers, "{shown}");
        let chosen = shown["chosen"].as_u64().unwrap() as usize;
        assert_eq!(shown["offers"][chosen]["price"], PRICE.to_string(), "{shown}");
        assert_eq!(shown["offers"][chosen]["would"], "pay");
        if offers == 3 {
            assert_eq!(shown["offers"][2]["reason"], "wrong-token-name", "{shown}");
            assert_eq!(shown["unsupported"], json!(["upto on eip155:31337"]));
        }
        assert_eq!(seller.presented().len(), 1);
    }
}

/// Some prices cannot be compared with others; a seller must not be able to confuse the choice with that.
#[tokio::test]
async fn a_hundred_offers_that_cannot_be_compared_are_sorted() {
    let rule = SECOND.replace("usd = \"1\"\n", "").replace("\"$0.01\"", "\"0.01 TOY\"").replace("BIG", "TOY");
    let chosen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&chosen);
    let seller = Mallory::spawn(move |presented| {
        if presented.headers.contains_key(V2.header()) {
            *count.lock().unwrap() += 1;
            return V2.served();
        }
        let offers: Vec<Value> = (0..100)
            .map(|index: u64| {
                let amount = (index * 37 % 101 + 1).to_string();
                match index % 3 {
                    0 => entry(json!({"amount": amount})),
                    _ => entry(json!({
                        "amount": amount, "network": "eip155:31338",
                        "asset": "0x70ab1e0000000000000000000000000000004021",
                    })),
                }
            })
            .collect();
        V2.asks("Payment required", &offers)
    })
    .await;
    let alice = Alice::without_chain(&rule);
    let proxy = alice.start().await;
    for round in 1..=5 {
        assert_eq!(get(&proxy, &seller).await.status, StatusCode::OK);
        assert_eq!(*chosen.lock().unwrap(), round);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_cannot_be_paid_is_counted_by_scheme_and_network() {
    let accepts = [entry(json!({"scheme": "upto"})), entry(json!({"network": "solana:x"}))];
    let seller = Mallory::spawn(move |_| V2.asks("Payment required", &accepts)).await;
    let (_alice, proxy) = alice("").await;
    for _ in 0..2 {
        assert_eq!(get(&proxy, &seller).await.status, StatusCode::PAYMENT_REQUIRED);
    }
    let counted = proxy.payments.unsupported();
    let counted: Vec<(&str, u64)> = counted.iter().map(|kind| (kind.offer.as_str(), kind.count)).collect();
    assert_eq!(counted, [("exact on solana:x (not an EVM network)", 2), ("upto on eip155:31337", 2)]);
    proxy.stop().await;
}
