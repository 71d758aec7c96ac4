//! A payment goes to the address that sent the 402, whatever its name resolves to by then.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tollpass::config::Config;
use tollpass::hosts::address_rules::AddressRules;
use tollpass::limits::Limits;
use tollpass::protocol::policy::LocalSpenders;
use tollpass::proxy::pay;
use tollpass::proxy::pay::PayLayer;
use tollpass::proxy::rulebook::{CurrentRules, Rulebook};
use tollpass::proxy::upstream::egress::PinnedAddr;
use tollpass::proxy::{Body, CarriesPayment, Forward, ForwardError, ProxySettings, RemoteClient};
use tollpass::shutdown::Shutdown;
use tower::{Layer as _, ServiceExt as _};

use super::addresses::Names;
use crate::pays::QUICK;
use crate::support::fair::Fair;
use crate::support::payer::{Alice, Running};
use crate::support::raw::{Raw, RawOrigin, field, soon};

/// Another machine, to which the name is rebound.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Names that resolve to this machine once, and to another one from then on; and that one, on the same port.
async fn rebinding(here: SocketAddr) -> (Arc<Names>, TcpListener) {
    let there = TcpListener::bind((ELSEWHERE, here.port())).await.unwrap();
    (Names::new([vec![here], vec![there.local_addr().unwrap()]]), there)
}

pub fn pay_settings(alice: &Alice, proxy: &Running) -> pay::PaySettings {
    let config = Config::load(Some(&alice.config_path())).unwrap();
    pay::PaySettings {
        rules: CurrentRules::new(Rulebook::new(Arc::new(config.policy), LocalSpenders::Any)),
        payments: Some(proxy.payments.clone()),
        limits: Limits { replay_memory: 1024, replay_file: 1024, ..config.limits },
        replay_directory: std::env::temp_dir(),
        shutdown: Shutdown::new(),
        approver: None,
        asks_operator: false,
        dry_run: None,
    }
}

#[tokio::test]
async fn a_name_that_changes_before_the_payment_does_not_get_it() {
    let fair = Fair::open().await;
    let (names, elsewhere) = rebinding(fair.origin.address()).await;
    let rest = format!("[[pay]]\nhost = \"seller.test\"\nmax_price = 10000\n{QUICK}");
    let alice = Alice::ruled(&fair.market, &rest).await;
    let proxy = alice.start().await;
    proxy.ready().await;
    let forward = Forward::new(&ProxySettings { resolver: names, ..ProxySettings::default() });
    let service = PayLayer::new(pay_settings(&alice, &proxy)).layer(forward.clone());
    let url = format!("http://seller.test:{}/paid", fair.origin.address().port());
    let request = |url: &str| Request::get(url).body(Body::Empty).unwrap();
    let answer = tokio::select! {
        answer = soon("the paid answer", service.oneshot(request(&url))) => answer.unwrap(),
        _ = elsewhere.accept() => panic!("the payment went elsewhere"),
    };
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap();

    // The name did change: requests that pay nothing follow it.
    let mut follows = request(&url.replace("seller.test", "SELLER.test"));
    follows.extensions_mut().insert(CarriesPayment);
    let asking = tokio::spawn(forward.oneshot(follows));
    soon("a connection elsewhere", elsewhere.accept()).await.unwrap();
    asking.abort();
    proxy.stop().await;
}

#[tokio::test]
async fn a_pinned_request_takes_no_connection_to_another_machine() {
    let here = RawOrigin::start().await;
    let (names, elsewhere) = rebinding(here.address).await;
    let forward = Forward::new(&ProxySettings { resolver: names, ..ProxySettings::default() });
    let url = format!("http://seller.test:{}/", here.address.port());
    let request = |peer: Option<SocketAddr>| {
        let mut request = Request::get(&url).body(Body::Empty).unwrap();
        request.extensions_mut().insert(CarriesPayment);
        peer.map(|peer| request.extensions_mut().insert(PinnedAddr(peer)));
        request
    };
    let ask = |peer| tokio::spawn(forward.clone().oneshot(request(peer)));
    let answer = async |server: &mut Raw, more: &str, asking: JoinHandle<Result<Response<Body>, _>>| {
        let head = server.head().await;
        assert_eq!(field(&head, "host"), Some(format!("seller.test:{}", here.address.port()).as_str()));
        assert!(head.starts_with("GET / HTTP/1.1\r\n") && !head.contains('@'), "{head}");
        server.send(format!("HTTP/1.1 402 Payment Required\r\nContent-Length: 0\r\n{more}\r\n")).await;
        let asked: Result<_, ForwardError> = soon("the answer", asking).await.unwrap();
        let answer = asked.unwrap();
        let peer = answer.extensions().get::<PinnedAddr>().map(|peer| peer.0);
        answer.into_body().collect().await.unwrap();
        peer
    };

    let asking = ask(None);
    let mut first = here.accept().await;
    assert_eq!(answer(&mut first, "Connection: close\r\n", asking).await, Some(here.address));
    // From here on the name resolves to another machine, and the pool keeps a connection to it.
    let there = elsewhere.local_addr().unwrap();
    let asking = ask(None);
    let mut second: Raw = soon("a connection elsewhere", elsewhere.accept()).await.unwrap().0.into();
    assert_eq!(answer(&mut second, "", asking).await, Some(there));

    let asking = ask(Some(here.address));
    let mut third = here.accept().await;
    assert_eq!(answer(&mut third, "", asking).await, Some(here.address));
    // The next payment uses the same connection, and so does a request that is not pinned.
    let asking = ask(Some(here.address));
    assert_eq!(answer(&mut third, "", asking).await, Some(here.address));
    let asking = ask(None);
    assert_eq!(answer(&mut second, "", asking).await, Some(there));
}

#[tokio::test]
async fn a_payment_for_a_remote_client_reaches_no_address_that_is_not_allowed() {
    let fair = Fair::open().await;
    let (names, elsewhere) = rebinding(fair.origin.address()).await;
    let rest = format!("[[pay]]\nhost = \"seller.test\"\nmax_price = 10000\n{QUICK}");
    let alice = Alice::ruled(&fair.market, &rest).await;
    let proxy = alice.start().await;
    proxy.ready().await;
    let addresses = AddressRules { deny: Vec::new(), allow: vec!["127.0.0.1".parse().unwrap()] };
    let forward = Forward::new(&ProxySettings { resolver: names, addresses, ..ProxySettings::default() });
    let service = PayLayer::new(pay_settings(&alice, &proxy)).layer(forward);
    let ask = || {
        let url = format!("http://seller.test:{}/paid", fair.origin.address().port());
        let mut request = Request::get(url).body(Body::Empty).unwrap();
        request.extensions_mut().insert(RemoteClient);
        service.clone().oneshot(request)
    };
    let answer = soon("the paid answer", ask()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap();
    let promised = proxy.promised().await;

    // The next payment is sent with the request, and the name resolves to another address now.
    let refused = tokio::select! {
        refused = soon("a refusal", ask()) => refused.unwrap(),
        _ = elsewhere.accept() => panic!("the payment went elsewhere"),
    };
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let told = refused.headers()["proxy-status"].to_str().unwrap();
    assert!(told.contains("error=destination_ip_prohibited") && told.contains("127.0.0.2"), "{told}");
    // It was never sent, so the seller can redeem no more than before.
    let channel = &proxy.channels().await[0];
    assert_eq!((fair.origin.payments(), channel.acknowledged), (1, promised));
    proxy.stop().await;
}
