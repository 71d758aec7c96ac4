//! Many clients at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use tollpass::protocol::Amount;

use super::Scene;
use crate::support::fair::{PRICE, empty};
use crate::support::wire::Wire;

/// The clients, and how many sequential requests each of them makes.
const CLIENTS: u64 = 50;
const EACH: u64 = 20;
/// A thousand sequential payments on one channel must finish within this time, which leaves a wide margin.
const ALL_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_of_fifty_clients_are_all_paid() {
    let scene = Arc::new(Scene::open().await);
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let scene = Arc::clone(&scene);
        tokio::spawn(async move {
            let mut wire = Wire::connect(scene.proxy.address).await;
            for _ in 0..EACH {
                let got = wire.ask(scene.request("/paid").body(empty()).unwrap()).await.unwrap();
                assert_eq!(got.status, StatusCode::OK, "{got:?}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let took = begun.elapsed();
    eprintln!("{} paid requests of {CLIENTS} clients: {took:?}", CLIENTS * EACH);
    assert!(took < ALL_WITHIN, "{took:?}");
    assert_eq!(scene.fair.origin.payments(), CLIENTS * EACH);
    scene.expect_paid(CLIENTS * EACH).await;
    let deposit = scene.proxy.channels().await[0].deposit;
    assert_eq!(deposit, Amount::from(CLIENTS * EACH * PRICE));
    Arc::into_inner(scene).expect("all clients are gone").close().await;
}

#[tokio::test]
async fn ten_first_requests_at_once_open_one_channel() {
    let scene = Arc::new(Scene::open().await);
    // No transaction is mined before all ten have met the paywall.
    scene.fair.market.automine(false).await;
    let clients = (0..10).map(|_| {
        let scene = Arc::clone(&scene);
        tokio::spawn(async move {
            let request = Request::get(format!("{}/paid", scene.fair.origin.url()));
            crate::support::wire::ask(scene.proxy.address, request.body(empty()).unwrap()).await.status
        })
    });
    let clients: Vec<_> = clients.collect();
    scene.fair.origin.await_exchanges(10).await;
    scene.fair.market.await_pending(scene.alice.address).await;
    scene.fair.market.automine(true).await;
    scene.fair.market.mine(1).await;
    for client in clients {
        assert_eq!(client.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(scene.fair.market.openings().await, 1);
    assert_eq!(scene.fair.market.top_ups().await, 0);
    scene.expect_paid(10).await;
    Arc::into_inner(scene).expect("all clients are gone").close().await;
}
