//! Refusals of the outbound proxy are reported as such: never as the origin's response, and without a password.

use std::time::Duration;

use tollpass::limits::Limits;
use tollpass::proxy::ProxySettings;
use tollpass::proxy::upstream::egress::Outbound;

use super::addresses::deaf;
use super::proxies::{before, over};
use crate::support::next::{Does, Next};
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, RawOrigin, field};

const GET: &str = "GET http://origin.test/ HTTP/1.1\r\nHost: x\r\n\r\n";
const CONNECT: &str = "CONNECT origin.test:443 HTTP/1.1\r\nHost: x\r\n\r\n";

async fn asked(proxy: &Proxy, request: &str) -> String {
    let head = Raw::asking(proxy.address, request).await.head().await;
    assert!(!head.contains("pass@") && !head.contains("bWU6cGFzcw"), "{head}");
    head
}

#[track_caller]
fn because(head: &str, status: &str, reasons: &[&str]) {
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let told = field(head, "proxy-status").unwrap();
    for reason in reasons {
        assert!(told.contains(reason), "{reason}: {head}");
    }
}

#[tokio::test]
async fn a_demand_to_authenticate_is_ours_to_meet_and_not_the_clients() {
    let next = Next::start(Does::Say(""), Some("Basic c29tZXRoaW5nIGVsc2U=")).await;
    let proxy = before(next.address).await;
    for request in [GET, CONNECT] {
        let head = asked(&proxy, request).await;
        let name = format!("the outbound proxy http://{} answered", next.address);
        because(&head, "502", &["error=proxy_configuration_error", &name, "407", "upstream.proxy_auth_file"]);
        assert_eq!(field(&head, "proxy-authenticate"), None, "{head}");
    }
}

#[tokio::test]
async fn a_407_of_an_origin_that_is_reached_directly_passes() {
    let next = Next::start(Does::Say("HTTP/1.1 407 Hm\r\nContent-Length: 0\r\n\r\n"), None).await;
    let proxy = Proxy::start().await;
    let head = asked(&proxy, &GET.replace("origin.test", &next.address.to_string())).await;
    assert!(head.starts_with("HTTP/1.1 407 "), "{head}");
}

#[tokio::test]
async fn a_tunnel_that_is_refused_says_by_whom_and_how() {
    for (answer, status, reasons) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "502", &["error=destination_unavailable", "403"][..]),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "502", &["error=destination_unavailable", "502"]),
        ("HTTP/1.1 504 Gateway Timeout\r\n\r\n", "504", &["error=destination_unavailable", "504"]),
        // The proxy would be asking for money, not the origin.
        (
            "HTTP/1.1 402 Payment Required\r\nRDN-Price: 1\r\n\r\n",
            "502",
            &["error=destination_unavailable", "402"],
        ),
        ("SSH-2.0-no-proxy\r\n\r\n", "502", &["error=http_protocol_error", "not HTTP"]),
        ("", "502", &["error=http_protocol_error", "closed"]),
    ] {
        let next = Next::start(Does::Say(answer), None).await;
        let proxy = before(next.address).await;
        let head = asked(&proxy, CONNECT).await;
        because(&head, status, &[reasons, &[&format!("http://{}", next.address)]].concat());
        assert_eq!(field(&head, "rdn-price"), None, "{head}");
    }
}

#[tokio::test]
async fn an_unreachable_or_silent_proxy_is_reported() {
    let gone = RawOrigin::start().await.address;
    let proxy = before(gone).await;
    for request in [GET, CONNECT] {
        let head = asked(&proxy, request).await;
        because(
            &head,
            "502",
            &["error=connection_refused", &format!("through the outbound proxy http://{gone}")],
        );
    }

    let (deaf, _queue) = deaf().await;
    // Accepted, but without a response.
    let silent = RawOrigin::start().await;
    for (address, requests) in [(deaf, &[GET, CONNECT][..]), (silent.address, &[CONNECT])] {
        let connect_timeout = Duration::from_millis(100);
        let proxy = Proxy::with(ProxySettings {
            limits: Limits { connect_timeout, ..Limits::default() },
            outbound: over(address),
            ..ProxySettings::default()
        })
        .await;
        for request in requests {
            let head = asked(&proxy, request).await;
            because(
                &head,
                "504",
                &["error=connection_timeout", &format!("through the outbound proxy http://{address}")],
            );
        }
    }
}

#[tokio::test]
async fn each_kind_of_request_has_its_own_proxy() {
    let says = |text| Next::start(Does::Say(text), None);
    let plain = says("HTTP/1.1 299 Plain\r\nContent-Length: 0\r\n\r\n").await;
    let tunnels = says("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    let outbound = Outbound { tunnel: over(tunnels.address).tunnel, ..over(plain.address) };
    let proxy = Proxy::with(ProxySettings { outbound, ..ProxySettings::default() }).await;
    assert!(asked(&proxy, GET).await.starts_with("HTTP/1.1 299 "));
    because(&asked(&proxy, CONNECT).await, "502", &["403"]);
    assert_eq!((plain.heads().len(), tunnels.heads().len()), (1, 1));
}
