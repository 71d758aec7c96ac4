//! The main job: requests that meet a paywall are paid, and nobody behind the proxy notices.

use http::{Request, StatusCode};
use tollpass::protocol::Amount;

use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::Alice;
use crate::support::wire::{Wire, ask};

#[tokio::test]
async fn the_second_request_pays_from_the_same_channel() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.start().await;
    let url = format!("{}/paid", fair.origin.url());

    let bare = ask(fair.origin.address(), Request::get("/paid").body(empty()).unwrap()).await;
    assert_eq!(bare.status, StatusCode::PAYMENT_REQUIRED);
    let mut wire = Wire::connect(proxy.address).await;
    for paid in 1..=2 {
        let got = wire.ask(Request::get(&url).body(empty()).unwrap()).await.unwrap();
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert!(got.body.starts_with(b"This text was paid for"));
        assert!(!got.headers.keys().any(|name| name.as_str().starts_with("rdn-")), "{got:?}");
        assert_eq!(fair.origin.total_registered(), Amount::from(paid * PRICE));
        assert_eq!(proxy.promised().await, Amount::from(paid * PRICE));
    }
    assert_eq!(proxy.channels().await.len(), 1);
    proxy.stop().await;
}

/// Hooks that ask a slow seller again at once, as the seller here looks at the chain every few milliseconds.
pub const QUICK: &str = "[hooks]\n\
    nonexisting_channel = { do = \"retry\", every = \"10ms\", times = 1000, within = \"20s\" }\n\
    insufficient_confirmations = { do = \"retry\", every = \"10ms\", times = 1000, within = \"20s\" }\n";
