//! Limits with a symbol or in dollars, for the token of the channel contract.

use http::{HeaderName, StatusCode};

use super::{QUICK, Scene};
use crate::support::fair::Fair;
use crate::support::payer::Alice;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The seller asks for 1000 base units: 1 TKN, or $0.02.
#[tokio::test]
async fn a_limit_with_a_symbol_or_in_dollars_allows_the_contracts_token() {
    let mut fair = Fair::open().await;
    let known = format!(
        "[[asset]]\nsymbol = \"TKN\"\nnetwork = \"eip155:31337\"\ntoken = \"{}\"\ndecimals = 3\nusd = \"0.02\"\n",
        fair.market.token
    );
    let elsewhere = known.replace("eip155:31337", "eip155:1");
    for (max_price, known, refused) in [
        ("\"1 TKN\"", &known, None),
        ("\"1000 units of TKN\"", &known, None),
        ("\"$0.02\"", &known, None),
        ("\"0.999 TKN\"", &known, Some("the price 1 TKN is above max_price 0.999 TKN")),
        ("\"$0.01999\"", &known, Some("the price 1 TKN is above max_price $0.01999")),
        ("\"5 USDC\"", &known, Some("which the rule's max_price (5 USDC) does not allow")),
        ("\"5 TKN\"", &elsewhere, Some("on eip155:31337, which the rule's max_price (5 TKN) does not allow")),
    ] {
        let mut alice = Alice::with(&fair.market, &format!("{QUICK}{known}")).await;
        alice.change("max_price = 10000", &format!("max_price = {max_price}"));
        let proxy = alice.start().await;
        let scene = Scene { fair, alice, proxy };
        let got = scene.get("/paid").await;
        match refused {
            None => assert_eq!(got.status, StatusCode::OK, "{max_price}: {got:?}"),
            Some(reason) => {
                assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{max_price}: {got:?}");
                let told = got.header(&PROXY_STATUS).unwrap();
                assert!(told.contains(reason), "{max_price}: {told}");
            }
        }
        let Scene { fair: again, proxy, .. } = scene;
        proxy.stop().await;
        fair = again;
    }
    // Each of her proxies finds the first one's channel on the chain.
    assert_eq!(fair.market.openings().await, 1);
}
