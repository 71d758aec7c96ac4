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
