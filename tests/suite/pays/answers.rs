//! Responses of the resource behind the paywall, and their effect on the money.

use http::{Method, StatusCode};
use tollpass::protocol::Amount;

use super::Scene;
use crate::support::fair::{PRICE, empty};
use crate::support::wire::ask;

#[tokio::test]
async fn a_head_is_paid_too() {
    let scene = Scene::open().await;
    let whole = {
        scene.buy().await;
        scene.get("/paid").await
    };
    let request = scene.request("/paid").method(Method::HEAD).body(empty()).unwrap();
    let got = ask(scene.proxy.address, request).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert!(got.body.is_empty() && got.rdn().is_empty(), "{got:?}");
    assert_eq!(got.headers["content-length"], whole.headers["content-length"]);
    scene.expect_paid(3).await;
    scene.close().await;
}

#[tokio::test]
async fn what_costs_nothing_costs_nothing() {
    let scene = Scene::open().await;
    for (path, status) in [("/nothing/here", 404), ("/", 200), ("/free", 200), ("/api/1/channels", 200)] {
        assert_eq!(scene.get(path).await.status, status, "{path}");
    }
    let request = scene.request("/paid").method(Method::DELETE).body(empty()).unwrap();
    assert_eq!(ask(scene.proxy.address, request).await.status, StatusCode::METHOD_NOT_ALLOWED);
    scene.expect_paid(0).await;
    scene.close().await;
}

#[tokio::test]
async fn the_resources_own_failure_reaches_the_client_and_the_next_request_pays() {
    // Whether the seller took the money is certain below 400 and for client errors. Otherwise the next payment resolves
    // it, and until then the money does not count as acknowledged.
    for (status, acknowledged) in [(404, 1), (500, 0), (409, 0), (402, 0)] {
        let scene = Scene::open().await;
        let got = scene.get(&format!("/status/{status}")).await;
        assert_eq!(got.status, status, "{got:?}");
        assert!(got.text().starts_with(&format!("the resource itself says {status}")), "{got:?}");
        assert!(got.rdn().is_empty(), "{got:?}");
        assert_eq!(got.headers.contains_key("proxy-status"), status == 402, "{got:?}");
        scene.expect_totals(1, 1, acknowledged).await;
        scene.buy().await;
        scene.expect_paid(2).await;
        scene.buy().await;
        scene.expect_paid(3).await;
        scene.close().await;
    }
}

#[tokio::test]
async fn a_payment_that_the_seller_did_not_want_is_corrected_downwards() {
    let scene = Scene::open().await;
    scene.fair.market.automine(false).await;
    let (address, request) = (scene.proxy.address, scene.request("/paid").body(empty()).unwrap());
    let client = tokio::spawn(ask(address, request));
    scene.fair.market.await_pending(scene.alice.address).await;
    // Between the 402 and the payment.
    scene.fair.origin.set_price("/paid", Amount::ZERO).unwrap();
    scene.fair.market.automine(true).await;
    scene.fair.market.mine(1).await;
    assert_eq!(client.await.unwrap().status, StatusCode::OK);
    scene.expect_totals(0, 1, 1).await;

    scene.fair.origin.set_price("/paid", Amount::from(PRICE)).unwrap();
    scene.buy().await;
    scene.expect_totals(1, 2, 1).await;
    // The total that was promised in vain is used before anything more is promised.
    scene.buy().await;
    scene.expect_paid(2).await;
    scene.buy().await;
    scene.expect_paid(3).await;
    scene.close().await;
}

#[tokio::test]
async fn a_price_that_changes_between_two_requests_is_paid_as_asked() {
    let scene = Scene::open().await;
    scene.buy().await;
    for price in [PRICE * 2, PRICE / 2, PRICE * 9] {
        let before = scene.fair.origin.total_registered();
        scene.fair.origin.set_price("/paid", Amount::from(price)).unwrap();
        scene.buy().await;
        let after = scene.fair.origin.total_registered();
        assert_eq!(after.checked_sub(before), Some(Amount::from(price)));
        // The remembered price was offered first; if it was higher, that total was signed in vain.
        let promised = scene.proxy.promised().await;
        assert!(promised >= after && promised <= after.saturating_add((PRICE * 9).into()), "{promised}");
    }
    assert_eq!(scene.fair.market.openings().await, 1);
    scene.close().await;
}
