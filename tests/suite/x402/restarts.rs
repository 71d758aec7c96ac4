//! What is unclear when tollpass ends stays so, and is not forgotten.

use super::*;

/// Fails the first payment with a 504; whether it is redeemed, too.
fn failing(settles: bool, chain: &Chain) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let chain = chain.clone();
    let mut is_first = true;
    move |presented| {
        let Some(payment) = V2.payment(presented) else { return V2.offer("Payment required") };
        if !std::mem::replace(&mut is_first, false) {
            return V2.serve(&chain, &payment);
        }
        if settles {
            chain.settle(&payment);
        }
        Answer::new(StatusCode::GATEWAY_TIMEOUT, "late")
    }
}

#[tokio::test]
async fn a_payment_in_doubt_is_presented_again_after_a_restart() {
    for settles in [false, true] {
        let chain = Chain::default();
        let seller = Mallory::spawn(failing(settles, &chain)).await;
        let (alice, proxy) = alice(QUICK).await;
        let post = async |proxy: &Running| send(proxy, &seller, Method::POST, HeaderMap::new()).await;
        assert_eq!(post(&proxy).await.status, StatusCode::GATEWAY_TIMEOUT);
        proxy.stop().await;

        let proxy = alice.start().await;
        let got = post(&proxy).await;
        assert_eq!(got.status, if settles { 502 } else { 200 }, "{got:?}");
        proxy.stop().await;
        assert_eq!(chain.transfers(), [PRICE]);
        assert_eq!(nonces(V2, &seller).len(), 1);
        if settles {
            // Still known after another restart, and nothing is presented.
            let proxy = alice.start().await;
            let before = seller.presented().len();
            let got = post(&proxy).await;
            assert!(reason(&got).contains("reason=paid-not-delivered"), "{got:?}");
            assert_eq!((seller.presented().len(), got.status), (before + 1, StatusCode::BAD_GATEWAY));
            proxy.stop().await;
        }
        let state = if settles { LedgerState::PaidNotDelivered } else { LedgerState::Paid };
        let rows = ledger::rows(&alice);
        assert_eq!(last_states(&rows), [state], "{rows:?}");
        let sum = ledger::sum(&rows);
        assert_eq!((sum.payments, sum.paid), (1, tollpass::protocol::Amount::from(PRICE).into()), "{rows:?}");
    }
}

#[tokio::test]
async fn after_a_kill_between_signing_and_the_answer_the_same_payment_is_presented() {
    let chain = Chain::default();
    let held = Arc::new(Mutex::new(true));
    let (open, of_seller) = (Arc::clone(&held), chain.clone());
    let seller = Mallory::spawn(move |presented| match V2.payment(presented) {
        Some(_) if *open.lock().unwrap() => Answer::Never,
        Some(payment) => V2.serve(&of_seller, &payment),
        None => V2.offer("Payment required"),
    })
    .await;
    let alice = Alice::without_chain(RULE);
    let program = alice.serve(&[]).await;
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let request = || Request::post(&url).body(empty()).unwrap();
    let address = program.address;
    let asked = tokio::spawn(crate::support::wire::Wire::connect(address));
    let mut wire = asked.await.unwrap();
    let waiting = tokio::spawn({
        let request = request();
        async move { wire.ask(request).await.is_err() }
    });
    tokio::time::timeout(PATIENCE, seller.await_presented(2)).await.expect("no payment");
    program.kill().await;
    assert!(waiting.await.unwrap(), "no answer came");

    *held.lock().unwrap() = false;
    let proxy = alice.start().await;
    let got = tokio::time::timeout(PATIENCE, ask(proxy.address, request())).await.expect("no answer");
    assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
    proxy.stop().await;
    assert_eq!((nonces(V2, &seller).len(), chain.transfers()), (1, vec![PRICE]));
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid]);
}

/// The client has the head of the response, and not all of its body.
#[tokio::test]
async fn after_a_kill_before_the_client_has_the_response_the_purchase_is_not_paid_again() {
    let chain = Chain::default();
    let of_seller = chain.clone();
    let is_first = Mutex::new(true);
    let seller = Mallory::spawn(move |presented| {
        let Some(payment) = V2.payment(presented) else { return V2.offer("Payment required") };
        let answer = V2.serve(&of_seller, &payment);
        match std::mem::replace(&mut *is_first.lock().unwrap(), false) {
            true => answer.with_content(Content::Drip(std::time::Duration::from_millis(20))),
            false => answer,
        }
    })
    .await;
    let alice = Alice::without_chain(RULE);
    let program = alice.serve(&[]).await;
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let mut wire = crate::support::wire::Wire::connect(program.address).await;
    let answer = wire.head(Request::get(&url).body(empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    ledger::await_rows(&alice, |rows| rows.last().is_some_and(|row| row.state == LedgerState::Paid)).await;
    program.kill().await;

    let proxy = alice.start().await;
    let got = get(&proxy, &seller).await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
    assert!(reason(&got).contains("reason=paid-not-delivered"), "{got:?}");
    proxy.stop().await;
    assert_eq!((nonces(V2, &seller).len(), chain.transfers()), (1, vec![PRICE]));
    let rows = ledger::rows(&alice);
    assert_eq!(last_states(&rows), [LedgerState::PaidNotDelivered], "{rows:?}");
    assert_eq!(ledger::sum(&rows).paid, tollpass::protocol::Amount::from(PRICE).into(), "{rows:?}");
}

/// The nonces of the authorizations that the journal still knows.
fn known(alice: &Alice) -> Vec<String> {
    let journal = rusqlite::Connection::open(alice.state_dir().join("tollpass.db")).unwrap();
    let mut select = journal.prepare("SELECT nonce FROM authorization WHERE purchase IS NOT NULL").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn after_an_abort_at_any_effect_the_ledger_has_the_end_of_each_payment_that_is_over() {
    let chain = Chain::default();
    let seller = Mallory::spawn(move |presented| match V2.payment(presented) {
        Some(payment) => V2.serve(&chain, &payment),
        None => V2.offer("Payment required"),
    })
    .await;
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let mut delivered = 0;
    for after in 1..100 {
        let alice = Alice::without_chain(RULE);
        let program = alice.serve(&[(tollpass::failpoint::VARIABLE, &after.to_string())]).await;
        // The write that a purchase waits for also records the delivery of the one before.
        for number in 0..3 {
            let request = Request::get(format!("{url}/{number}")).body(empty()).unwrap();
            let asking = ask_or_leave(program.address, request, std::future::pending());
            let got = tokio::time::timeout(PATIENCE, asking).await.expect("no answer").flatten();
            delivered += usize::from(got.is_some_and(|got| got.status == StatusCode::OK));
        }
        program.terminate();
        let (status, log) = program.ended().await;
        let (rows, known) = (ledger::rows(&alice), known(&alice));
        for row in &rows {
            let is_known = known.iter().any(|nonce| nonce.trim_start_matches("0x") == row.nonce);
            let last = rows.iter().rfind(|other| other.nonce == row.nonce).unwrap();
            let is_over = [LedgerState::Paid, LedgerState::Unsent].contains(&last.state);
            assert!(is_known || is_over, "{after}: {rows:?} {known:?} {log}");
        }
        if status.success() {
            assert!(delivered > 3, "no abort came after the delivery");
            return;
        }
    }
    panic!("it always aborts");
}

/// The first answer is lost, and the seller does not keep it; or it fails with a receipt.
#[tokio::test]
async fn after_an_abort_at_any_effect_the_ledger_knows_what_the_journal_knows_as_taken() {
    for has_receipt in [false, true] {
        let mut recorded = 0;
        for after in 1.. {
            assert!(after < 100, "it always aborts");
            let chain = Chain::default();
            let seller = Mallory::spawn(move |presented| {
                let Some(payment) = V2.payment(presented) else { return V2.offer("Payment required") };
                match chain.settle(&payment) {
                    true if has_receipt => V2.served().with_status(StatusCode::INTERNAL_SERVER_ERROR),
                    true => Answer::new(StatusCode::BAD_GATEWAY, "lost"),
                    false => V2.offer("invalid_exact_evm_nonce_already_used"),
                }
            })
            .await;
            let alice = Alice::without_chain(RULE);
            let program = alice.serve(&[(tollpass::failpoint::VARIABLE, &after.to_string())]).await;
            for number in 0..2 {
                let url = format!("http://localhost:{}/goods/{number}", seller.address().port());
                let request = Request::get(url).body(empty()).unwrap();
                let asking = ask_or_leave(program.address, request, std::future::pending());
                drop(tokio::time::timeout(PATIENCE, asking).await.expect("no answer"));
            }
            program.terminate();
            let (status, log) = program.ended().await;
            let (rows, taken) = (ledger::rows(&alice), taken(&alice));
            for nonce in &taken {
                let last = rows.iter().rfind(|row| row.nonce == nonce.trim_start_matches("0x")).unwrap();
                assert_eq!(last.state, LedgerState::PaidNotDelivered, "{after}: {rows:?} {log}");
                assert_eq!(last.receipt.is_empty(), !has_receipt, "{after}: {rows:?} {log}");
            }
            let paid = u64::try_from(taken.len()).unwrap() * PRICE;
            assert_eq!(
                ledger::sum(&rows).paid,
                tollpass::protocol::Amount::from(paid).into(),
                "{after}: {rows:?}"
            );
            if status.success() {
                assert_eq!(last_states(&rows), [LedgerState::PaidNotDelivered; 2], "{rows:?}");
                break;
            }
            recorded += taken.len();
        }
        assert!(recorded > 0, "no abort came after it was recorded");
    }
}

/// The nonces of the authorizations that the journal knows as taken.
fn taken(alice: &Alice) -> Vec<String> {
    let journal = rusqlite::Connection::open(alice.state_dir().join("tollpass.db")).unwrap();
    let mut select =
        journal.prepare("SELECT nonce FROM authorization WHERE taken_until IS NOT NULL").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}
