//! Without `allow_plain_http`, no payment leaves this machine over unencrypted http.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tollpass::devnet::origin;
use tollpass::limits::Limits;
use tollpass::protocol::Amount;
use tollpass::proxy::pay::PayLayer;
use tollpass::proxy::{Body, Forward, ForwardError, ProxySettings};
use tower::{Layer as _, Service, ServiceExt as _};

use super::addresses::Names;
use super::pinned::pay_settings;
use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE};
use crate::support::next::{Does, Next};
use crate::support::own::own_address;
use crate::support::payer::Alice;
use crate::support::raw::{Raw, field, soon};
use crate::support::secure::Notary;

/// Whether a response says which key is missing.
#[track_caller]
fn asks_for_the_key(told: &str, address: &str) {
    assert!(
        told.contains("reason=plain-http; ")
            && told.contains("allow_plain_http = true")
            && told.contains(address),
        "{told}"
    );
}

#[tokio::test]
async fn a_seller_on_another_machine_is_paid_only_with_the_key() {
    let Some(own) = own_address() else { return };
    for (key, pays) in
        [("", false), ("allow_plain_http = false\n", false), ("allow_plain_http = true\n", true)]
    {
        let fair = Fair::open().await;
        let seller = relayed(own, fair.origin.address()).await;
        let rest = format!("[[pay]]\nhost = \"{own}\"\nmax_price = 10000\n{key}{QUICK}");
        let alice = Alice::ruled(&fair.market, &rest).await;
        let proxy = alice.start().await;
        proxy.ready().await;
        let url = format!("http://{seller}/paid");
        // With the key, the second payment is sent ahead.
        for count in 1..=2 {
            let got = curl(Some(proxy.address), &[&url]).await.got;
            if pays {
                assert_eq!(got.status, StatusCode::OK, "{got:?}");
                assert_eq!(proxy.promised().await, Amount::from(count * PRICE));
                continue;
            }
            assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
            assert!(got.headers.contains_key("rdn-price"), "{got:?}");
            asks_for_the_key(got.headers["proxy-status"].to_str().unwrap(), &own.to_string());
            // Nothing was prepared for it, either.
            assert!(proxy.channels().await.is_empty());
        }
        proxy.stop().await;
        fair.origin.stop().await;
    }
}

#[tokio::test]
async fn a_seller_that_is_reached_over_tls_by_upgrade_needs_no_key() {
    let Some(own) = own_address() else { return };
    let notary = Notary::new();
    let config = notary.certify(&own.to_string(), &["http/1.1"]).await;
    let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config };
    let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
    let rest = format!(
        "[[pay]]\nhost = \"{own}\"\nmax_price = 10000\n{QUICK}[upstream]\nca_file = \"{}\"\nupgrade = [\"{own}\"]\n",
        notary.ca_file().display()
    );
    let alice = Alice::ruled(&fair.market, &rest).await;
    let proxy = alice.start().await;
    proxy.ready().await;
    let here = fair.origin.secure_url().unwrap().replace("https://", "");
    let url = format!("http://{}/paid", relayed(own, here.parse().unwrap()).await);
    let got = curl(Some(proxy.address), &[&url]).await.got;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    proxy.stop().await;
    fair.origin.stop().await;
}

#[tokio::test]
async fn a_seller_behind_an_outbound_proxy_counts_as_on_another_machine() {
    let fair = Fair::open().await;
    let next = Next::start(Does::PassTo(fair.origin.address()), None).await;
    let rest = format!(
        "[upstream]\nproxy = \"http://{}\"\n[[pay]]\nhost = \"seller.test\"\nmax_price = 10000\n{QUICK}",
        next.address
    );
    let alice = Alice::ruled(&fair.market, &rest).await;
    let proxy = alice.start().await;
    proxy.ready().await;
    // As a plain request, and inside an intercepted tunnel.
    for more in [&[][..], &["-p"]] {
        let got = curl(Some(proxy.address), &[more, &["http://seller.test/paid"]].concat()).await.got;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
        asks_for_the_key(got.headers["proxy-status"].to_str().unwrap(), "behind a proxy");
    }
    assert!(proxy.channels().await.is_empty());
    assert!(next.heads().iter().all(|head| field(head, "rdn-balance").is_none()));
    proxy.stop().await;
}

#[tokio::test]
async fn a_payment_that_is_sent_ahead_does_not_follow_a_name_to_another_machine() {
    let Some(own) = own_address() else { return };
    let fair = Fair::open().await;
    let here = fair.origin.address();
    let elsewhere = TcpListener::bind((own, here.port())).await.unwrap();
    let there = elsewhere.local_addr().unwrap();
    let names = Names::new([vec![here], vec![there]]);
    let rest = format!("[[pay]]\nhost = \"seller.test\"\nmax_price = 10000\n{QUICK}");
    let alice = Alice::ruled(&fair.market, &rest).await;
    let proxy = alice.start().await;
    proxy.ready().await;
    // Without idle connections, each request resolves the name.
    let limits = Limits { pool_idle_per_host: 0, ..Limits::default() };
    let forward = Forward::new(&ProxySettings { resolver: names, limits, ..ProxySettings::default() });
    let service = PayLayer::new(pay_settings(&alice, &proxy)).layer(forward);
    let url = format!("http://seller.test:{}/paid", here.port());
    let first = soon("the paid answer", ask(&service, &url)).await;
    assert_eq!(first.status(), StatusCode::OK);
    first.into_body().collect().await.unwrap();

    let refused = tokio::select! {
        refused = soon("a refusal", ask(&service, &url)) => refused,
        _ = elsewhere.accept() => panic!("the payment went to another machine"),
    };
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
    asks_for_the_key(refused.headers()["proxy-status"].to_str().unwrap(), &own.to_string());

    // The next request carries no payment, and its 402 is not paid.
    let service = service.clone();
    let asking = tokio::spawn(async move { ask(&service, &url).await });
    let mut seller: Raw = soon("a connection", elsewhere.accept()).await.unwrap().0.into();
    let head = seller.head().await;
    assert_eq!(field(&head, "rdn-balance"), None, "{head}");
    let price = format!("RDN-Price: {PRICE}\r\nRDN-Receiver-Address: {}\r\n", fair.origin.receiver());
    let contract = format!("RDN-Contract-Address: {}\r\n", fair.market.manager);
    seller.send(format!("HTTP/1.1 402 Pay\r\nContent-Length: 0\r\n{price}{contract}\r\n")).await;
    let unpaid = soon("the 402", asking).await.unwrap();
    assert_eq!(unpaid.status(), StatusCode::PAYMENT_REQUIRED);
    asks_for_the_key(unpaid.headers()["proxy-status"].to_str().unwrap(), &own.to_string());
    assert_eq!(seller.rest().await, b"");
    let quiet = tokio::time::timeout(Duration::from_millis(20), elsewhere.accept()).await;
    assert!(quiet.is_err(), "something else was sent to another machine");

    // The payment that was not sent is not in doubt.
    let channels = proxy.channels().await;
    let [channel] = channels.as_slice() else { panic!("{channels:?}") };
    assert!(!channel.in_doubt, "{channel:?}");
    assert_eq!((fair.origin.payments(), channel.acknowledged), (1, Amount::from(PRICE)));
    proxy.stop().await;
    fair.origin.stop().await;
}

/// An address of this machine that is not loopback, from which connections lead to `origin`.
pub async fn relayed(own: IpAddr, origin: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((own, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut origin = TcpStream::connect(origin).await.unwrap();
                // The test checks the end of the connection at its own end.
                let _ = copy_bidirectional(&mut client, &mut origin).await;
            });
        }
    });
    address
}

async fn ask<S>(service: &S, url: &str) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = ForwardError> + Clone,
{
    service.clone().oneshot(Request::get(url).body(Body::Empty).unwrap()).await.unwrap()
}
