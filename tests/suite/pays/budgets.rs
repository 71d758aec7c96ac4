//! Budgets with real sockets: exactly as much is paid as they allow, and the client is told why no more.

use http::{HeaderName, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{QUICK, Scene};
use crate::support::fair::{Fair, PRICE};
use crate::support::mallory::{Answer, Mallory};
use crate::support::payer::Alice;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Alice with these tables in her configuration.
async fn scene(more: &str) -> Scene {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &format!("{QUICK}{more}")).await;
    let proxy = alice.start().await;
    Scene { fair, alice, proxy }
}

#[tokio::test]
async fn the_client_learns_which_budget_is_used_up_and_when_it_is_free_again() {
    let scene = scene(&format!(
        "[[budget]]\nname = \"hourly\"\nwallet = true\nper_hour = {}\n[[budget]]\nname = \"ever\"\nwallet = true\n\
         total = {}\n",
        2 * PRICE,
        3 * PRICE,
    ))
    .await;
    for _ in 0..2 {
        let got = scene.get("/paid").await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
    }
    let got = scene.get("/paid").await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    let told: Vec<_> = got.headers.get_all(&PROXY_STATUS).iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let told = told[0].to_str().unwrap();
    let expected =
        "the price 1000 exceeds what is left of the budget hourly: 0 of per_hour = 2000; enough is free in ";
    assert!(told.contains(expected), "{told}");
    let seconds: u64 = got.header(&header::RETRY_AFTER).unwrap().parse().unwrap();
    assert!((3600..=3660).contains(&seconds), "{seconds}");
    // The offer itself is the seller's.
    assert!(got.header(&HeaderName::from_static("rdn-price")).is_some(), "{got:?}");
}

#[tokio::test]
async fn of_many_requests_at_once_exactly_as_many_are_paid_as_the_budget_allows() {
    let more = format!("[[budget]]\nname = \"all\"\nwallet = true\ntotal = {}\n", 25 * PRICE);
    let scene = std::sync::Arc::new(scene(&more).await);
    let mut asked = JoinSet::new();
    for _ in 0..80 {
        let scene = std::sync::Arc::clone(&scene);
        asked.spawn(async move { scene.get("/paid").await.status });
    }
    let answers = asked.join_all().await;
    let paid = answers.iter().filter(|status| **status == StatusCode::OK).count();
    let unpaid = answers.iter().filter(|status| **status == StatusCode::PAYMENT_REQUIRED).count();
    assert_eq!((paid, unpaid), (25, 55), "{answers:?}");
    assert_eq!(scene.fair.origin.total_registered(), (25 * PRICE).into());
    // What was spent is remembered across a restart.
    let Some(Scene { fair, alice, proxy }) = std::sync::Arc::into_inner(scene) else {
        panic!("it is shared")
    };
    proxy.stop().await;
    let proxy = alice.start().await;
    let scene = Scene { fair, alice, proxy };
    let got = scene.get("/paid").await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
}

#[tokio::test]
async fn a_webhook_is_told_once_when_most_and_when_all_of_a_budget_is_spent() {
    let told = Mallory::spawn(|_| Answer::new(StatusCode::NO_CONTENT, "")).await;
    let url = told.url();
    // The second one cannot be told, which delays no payment.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = scene(&format!(
        "[[budget]]\nname = \"ever\"\nwallet = true\ntotal = {}\nwebhook = \"{url}/x?token=hush\"\n\
         [[budget]]\nname = \"each\"\nhosts = [\"*\"]\neach = true\nper_day = {}\nwebhook = \"http://{}/\"\n\
         webhook_timeout = \"50ms\"\n",
        5 * PRICE,
        5 * PRICE,
        closed.local_addr().unwrap(),
    ))
    .await;
    for _ in 0..5 {
        assert_eq!(scene.get("/paid").await.status, StatusCode::OK);
    }
    assert_eq!(scene.get("/paid").await.status, StatusCode::PAYMENT_REQUIRED);
    // What waits is still told at the end.
    scene.close().await;
    let told: Vec<Value> =
        told.presented().iter().map(|told| serde_json::from_slice(&told.body).unwrap()).collect();
    let notice = |percent: u64| {
        json!({"hook": "budget_spent", "budget": "ever", "host": null, "limit": "total", "amount": "5000",
               "percent": percent})
    };
    assert_eq!(told, [notice(80), notice(100)]);
}
