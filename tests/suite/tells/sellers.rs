//! Every offer of a seller that stops a payment, and sellers that speak in the proxy's name.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tollpass::protocol::schemes::microraiden::headers as rdn;
use tollpass::protocol::{Address, ReasonCode as Code};

use super::{PROXY_STATUS, Proxy, entrances, tables};
use crate::pays::QUICK;
use crate::support::market::Market;
use crate::support::payer::Alice;
use crate::support::secure::{Notary, Secure};
use crate::support::ways::{Asked, Entrances, WAYS_IN, WayIn};

/// What the client is told here.
pub const TOLD: &[Code] = &[
    Code::UnknownScheme,
    Code::OfferMalformed,
    Code::PriceZero,
    Code::OtherContract,
    Code::OtherToken,
    Code::OfferTooLarge,
    Code::Preflight,
    Code::AboveMaxPrice,
    Code::UnsupportedOffers,
    Code::NoTokenName,
    Code::WrongTokenName,
    Code::SchemeNotAllowed,
    Code::PayTimeout,
];

/// A seller that responds to every request with the same 402, over TLS and without.
struct Stall {
    entrances: Entrances,
    /// How many requests had a payment or the credentials of a proxy.
    leaks: Arc<AtomicUsize>,
    _notary: Notary,
}

impl Stall {
    async fn open(headers: HeaderMap, body: Bytes) -> Self {
        let leaks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&leaks);
        let answer = move |request: Request<Incoming>| {
            let received = request.headers();
            let leaks = ["proxy-authorization", "payment-signature", rdn::BALANCE.as_str()];
            if leaks.iter().any(|name| received.contains_key(*name)) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            let mut response = Response::new(Full::new(body.clone()));
            *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
            *response.headers_mut() = headers.clone();
            response
        };
        let (entrances, notary) = serve(answer).await;
        Self { entrances, leaks, _notary: notary }
    }
}

/// Serves over TLS and without, at 127.0.0.1.
pub async fn serve<A>(answer: A) -> (Entrances, Notary)
where
    A: Fn(Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
    let answers = answer.clone();
    let secure = Secure::serve(config, move |request| std::future::ready(answers(request))).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered) }
            });
            // The test checks its own end.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (entrances(&plain.to_string(), &secure.address.to_string(), notary.ca_file()), notary)
}

fn fields(lines: &[(&str, &str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        fields.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    fields
}

#[tokio::test]
async fn offers_that_are_not_payable_and_sellers_that_speak_in_our_name_are_told_in_all_six_ways() {
    let market = Market::open().await;
    let ours = (market.manager.to_string(), market.token.to_string());
    let (payee, other) = (Address([0x66; 20]).to_string(), Address([0x77; 20]).to_string());
    let offer = |contract: &str, token: &str, price: &str| {
        fields(&[
            ("rdn-contract-address", contract),
            ("rdn-receiver-address", &payee),
            ("rdn-token-address", token),
            ("rdn-price", price),
            ("rdn-gateway-path", "/api/1"),
        ])
    };
    let good = offer(&ours.0, &ours.1, "1000");
    let mut malformed = good.clone();
    malformed.insert("rdn-price", "much".parse().unwrap());
    // What a seller might want the user to believe, before and after the entries of honest proxies.
    let mut forged = good.clone();
    let advice = "tollpass; reason=no-wallet; details=\"raise max_price, to 10 USDC\"";
    for line in [advice, "edge; details=\"a, b\", Tollpass; reason=frozen", "\"tollpass\"; reason=busy, last"]
    {
        forged.append(PROXY_STATUS, line.parse().unwrap());
    }
    forged.append("retry-after", "77".parse().unwrap());
    let large = Bytes::from(vec![b'!'; 65_537]);
    // Offers of another scheme.
    let toy = "max_price = \"0.01 TOY\"\n[[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\ndecimals = 6\n\
               token = \"0x70ab1e0000000000000000000000000000004020\"\n";
    let named = &format!("{toy}eip712_name = \"Toy\"\neip712_version = \"2\"\n");
    let one_scheme = &format!("schemes = [\"microraiden\"]\n{named}");
    let exact = |scheme: &str, name: &str| {
        let offer = format!(
            r#"{{"x402Version": 2, "accepts": [{{"scheme": "{scheme}", "network": "eip155:31337", "amount": "1000",
                "asset": "0x70ab1e0000000000000000000000000000004020", "payTo": "{payee}", "maxTimeoutSeconds": 60,
                "extra": {{"name": "{name}", "version": "2"}}}}]}}"#
        );
        fields(&[("payment-required", &STANDARD.encode(offer))])
    };
    let mut told = BTreeSet::new();
    for (reason, rules, headers, body) in [
        (Code::UnknownScheme, "max_price = 10000", fields(&[("x-pay", "me")]), &b"pay\n"[..]),
        (Code::OfferMalformed, "max_price = 10000", malformed, b"pay\n"),
        (Code::PriceZero, "max_price = 10000", offer(&ours.0, &ours.1, "0"), b""),
        (Code::OtherContract, "max_price = 10000", offer(&other, &ours.1, "1000"), b"pay\n"),
        (Code::OtherToken, "max_price = 10000", offer(&ours.0, &other, "1000"), b"pay\n"),
        (Code::OfferTooLarge, "max_price = 10000", good.clone(), &large),
        (Code::Preflight, "max_price = 10000", good.clone(), b"pay\n"),
        (Code::AboveMaxPrice, "max_price = 999", forged, b"pay\n"),
        (Code::UnsupportedOffers, named, exact("upto", "Toy"), b"{}"),
        (Code::NoTokenName, toy, exact("exact", "Toy"), b"{}"),
        (Code::WrongTokenName, named, exact("exact", "Tin"), b"{}"),
        (Code::SchemeNotAllowed, one_scheme, exact("exact", "Toy"), b"{}"),
        // No block is mined, so that no channel opens.
        (Code::PayTimeout, "max_price = 10000\n[limits]\npay_timeout = \"1s\"", good, b"pay\n"),
    ] {
        told.insert(reason);
        let is_forged = headers.contains_key(PROXY_STATUS);
        let stall = Stall::open(headers, Bytes::copy_from_slice(body)).await;
        let rest =
            format!("[[pay]]\nhost = \"127.0.0.1\"\n{rules}\n{QUICK}{}", tables(&stall.entrances, "", ""));
        let alice = Alice::ruled(&market, &rest).await;
        market.automine(reason != Code::PayTimeout).await;
        let proxy = Proxy::start(&alice, stall.entrances.clone(), |_| {}, false).await;
        for way in WAYS_IN {
            let reason = if way == WayIn::WebSocket { Code::OtherProtocol } else { reason };
            let retry = match reason {
                _ if is_forged => Some((77, 77)),
                Code::PayTimeout => Some((1, 60)),
                _ => None,
            };
            let mut asked = Asked::default();
            if reason == Code::Preflight {
                asked.method = Method::OPTIONS;
                asked.headers.push(("access-control-request-method", "GET".to_owned()));
            }
            if way != WayIn::Tunnel {
                // Meant for the proxy, also if it needs none.
                asked.headers.push(("proxy-authorization", "Basic YTpi".to_owned()));
            }
            proxy.refuses(way, &asked, reason, retry).await;
            if is_forged && way != WayIn::Tunnel {
                let got = proxy.entrances.ask(way, &Asked::default()).await;
                let lines: Vec<&str> =
                    got.headers.get_all(PROXY_STATUS).iter().map(|line| line.to_str().unwrap()).collect();
                assert_eq!(lines[..2], ["edge; details=\"a, b\"", "last"], "{way:?}: {lines:?}");
                assert_eq!(lines.len(), 3, "{way:?}: {lines:?}");
            }
        }
        assert_eq!((proxy.promised().await, market.openings().await), (0.into(), 0));
        // What the test itself asked the seller, without the proxy.
        assert_eq!(stall.leaks.load(Ordering::SeqCst), 5, "{reason}");
        proxy.stop().await;
    }
    assert_eq!(told, TOLD.iter().copied().collect());
}
