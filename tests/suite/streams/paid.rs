//! Payments to sellers that speak HTTP/2.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tollpass::protocol::schemes::microraiden::headers as rdn;
use tollpass::protocol::{Address, Amount};

use super::ONLY_HTTP_2;
use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::frames::{Act, scripted};
use crate::support::mallory::{Answer, Demand};
use crate::support::market::Market;
use crate::support::payer::{Alice, Running};
use crate::support::raw::{Raw, RawOrigin, field};
use crate::support::secure::{Notary, Secure};

const PRICE: u64 = 1000;

/// Alice and a seller with a script for paid requests; `/free` needs no payment.
struct Shop {
    seller: Secure,
    /// What was presented: the totals, and that they are the same.
    totals: Arc<Mutex<Vec<String>>>,
    alice: Alice,
    proxy: Running,
    _market: Market,
    _notary: Notary,
}

impl Shop {
    async fn open(mut paid: impl FnMut(usize) -> Act + Send + 'static) -> Self {
        let (market, notary) = (Market::open().await, Notary::new());
        let demand = Demand { contract: market.manager, receiver: Address([0x3a; 20]), token: market.token };
        let totals = Arc::new(Mutex::new(Vec::new()));
        let config = notary.certify("127.0.0.1", ONLY_HTTP_2).await;
        let seen = Arc::clone(&totals);
        let seller = scripted(config, move |request: Request<h2::RecvStream>| {
            let Some(total) = request.headers().get(&rdn::BALANCE) else {
                return Act::Answer(told(demand.base(PRICE)));
            };
            let mut seen = seen.lock().unwrap();
            seen.push(total.to_str().unwrap().to_owned());
            paid(seen.len())
        })
        .await;
        let trusting = format!("[upstream]\nca_file = \"{}\"\n", notary.ca_file().display());
        let alice = Alice::with(&market, &format!("{QUICK}{trusting}")).await;
        let proxy = alice.start().await;
        Self { seller, totals, alice, proxy, _market: market, _notary: notary }
    }

    async fn ask(&self, more: &[&str]) -> crate::support::curl::Fetched {
        let ca = self.alice.state_dir().join("ca.pem");
        let url = format!("https://{}/some", self.seller.address);
        curl(Some(self.proxy.address), &[&["--cacert", ca.to_str().unwrap(), &url], more].concat()).await
    }

    fn totals(&self) -> Vec<String> {
        self.totals.lock().unwrap().clone()
    }
}

fn told(answer: Answer) -> Response<Bytes> {
    let Answer::Head { status, headers, .. } = answer else { panic!("no head") };
    let mut response = Response::new(Bytes::from_static(b"pay\n"));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

fn goods() -> Act {
    Act::Answer(Response::new(Bytes::from_static(b"goods")))
}

#[tokio::test]
async fn a_payment_that_the_seller_did_not_process_is_sent_again_as_it_was() {
    let shop = Shop::open(|count| if count == 1 { Act::Refuse } else { goods() }).await;
    for body in [&[][..], &["--data", "some"]] {
        shop.totals.lock().unwrap().clear();
        let fetched = shop.ask(body).await;
        assert_eq!((fetched.got.status, fetched.got.text()), (StatusCode::OK, "goods"), "{fetched:?}");
        let totals = shop.totals();
        assert_eq!(totals.len(), 2, "{totals:?}");
        assert_eq!(totals[0], totals[1]);
    }
    assert_eq!(shop.proxy.promised().await, Amount::from(2 * PRICE));
    shop.proxy.stop().await;
}

/// A seller that claims not to have processed a payment has still seen it.
#[tokio::test]
async fn a_payment_that_was_refused_once_and_could_not_be_sent_again_stays_on_the_bill() {
    let (market, notary) = (Market::open().await, Notary::new());
    let demand = Demand { contract: market.manager, receiver: Address([0x3a; 20]), token: market.token };
    let acceptor = TlsAcceptor::from(notary.certify("127.0.0.1", ONLY_HTTP_2).await);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (leaving, left) = (CancellationToken::new(), CancellationToken::new());
    let serving = tokio::spawn({
        let (leaving, left) = (leaving.clone(), left.clone());
        async move {
            while let Some(Ok((stream, _))) = leaving.run_until_cancelled(listener.accept()).await {
                let (acceptor, leaving, left) = (acceptor.clone(), leaving.clone(), left.clone());
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        if request.headers().contains_key(&rdn::BALANCE) {
                            // The seller has stopped listening before the refusal.
                            leaving.cancel();
                            left.cancelled().await;
                            respond.send_reset(h2::Reason::REFUSED_STREAM);
                            continue;
                        }
                        let (head, body) = told(demand.base(PRICE)).into_parts();
                        let mut sending =
                            respond.send_response(Response::from_parts(head, ()), false).unwrap();
                        sending.send_data(body, true).unwrap();
                    }
                });
            }
            drop(listener);
            left.cancel();
        }
    });
    let trusting = format!("[upstream]\nca_file = \"{}\"\n", notary.ca_file().display());
    let alice = Alice::with(&market, &format!("{QUICK}{trusting}")).await;
    let proxy = alice.start().await;
    let (ca, url) = (alice.state_dir().join("ca.pem"), format!("https://{address}/some"));
    let lost = curl(Some(proxy.address), &["--cacert", ca.to_str().unwrap(), &url]).await;
    assert_eq!(lost.got.status, StatusCode::BAD_GATEWAY, "{lost:?}");
    serving.await.unwrap();
    let total = proxy.payments.report().total();
    assert_eq!((total.paid.amount, total.unclear.amount), (Amount::ZERO, Amount::from(PRICE)));
    proxy.stop().await;
}

/// An origin that wants HTTP/1.1 says so instead of processing the request.
#[tokio::test]
async fn a_payment_to_a_seller_that_wants_http_1_1_goes_there_as_it_was() {
    let (market, notary) = (Market::open().await, Notary::new());
    let demand = Demand { contract: market.manager, receiver: Address([0x3a; 20]), token: market.token };
    let (totals, seen) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<String>>>::default());
    let acceptor = TlsAcceptor::from(notary.certify("127.0.0.1", &["h2", "http/1.1"]).await);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(stop.clone().run_until_cancelled_owned({
        let (totals, seen) = (Arc::clone(&totals), Arc::clone(&seen));
        async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, totals, seen) = (acceptor.clone(), Arc::clone(&totals), Arc::clone(&seen));
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        let mut connection = h2::server::handshake(stream).await.unwrap();
                        while let Some(Ok((request, mut respond))) = connection.accept().await {
                            let total = request.headers().get(&rdn::BALANCE);
                            seen.lock()
                                .unwrap()
                                .extend(total.map(|total| total.to_str().unwrap().to_owned()));
                            respond.send_reset(h2::Reason::HTTP_1_1_REQUIRED);
                        }
                        return;
                    }
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let total = request.headers().get(&rdn::BALANCE);
                        let total = total.map(|total| total.to_str().unwrap().to_owned());
                        let response = match &total {
                            Some(_) => Response::new(Full::new(Bytes::from_static(b"goods"))),
                            None => told(demand.base(PRICE)).map(Full::new),
                        };
                        totals.lock().unwrap().extend(total);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }
    }));
    let trusting = format!("[upstream]\nca_file = \"{}\"\n", notary.ca_file().display());
    let alice = Alice::with(&market, &format!("{QUICK}{trusting}")).await;
    let proxy = alice.start().await;
    let (ca, url) = (alice.state_dir().join("ca.pem"), format!("https://{address}/some"));
    let fetched = curl(Some(proxy.address), &["--cacert", ca.to_str().unwrap(), &url]).await;
    assert_eq!((fetched.got.status, fetched.got.text()), (StatusCode::OK, "goods"), "{fetched:?}");
    assert_eq!(*totals.lock().unwrap(), [PRICE.to_string()]);
    assert_eq!(*seen.lock().unwrap(), [PRICE.to_string()]);
    assert_eq!(proxy.promised().await, Amount::from(PRICE));
    stop.cancel();
    serving.await.unwrap();
    proxy.stop().await;
}

#[tokio::test]
async fn a_payment_that_the_seller_may_have_processed_is_sent_once() {
    // Unless that is safe: then the same total goes out once more.
    for (method, count) in [("POST", 1), ("GET", 2)] {
        let shop = Shop::open(|_| Act::Leave).await;
        let lost = shop.ask(&["-X", method]).await;
        assert_eq!(lost.got.status, StatusCode::BAD_GATEWAY, "{lost:?}");
        assert_eq!(shop.totals(), vec![PRICE.to_string(); count], "{method}");
        assert_eq!(shop.proxy.promised().await, Amount::from(PRICE));
        shop.proxy.stop().await;
    }
}

#[tokio::test]
async fn a_paid_answer_whose_head_is_too_large_is_paid_for_once() {
    let shop = Shop::open(|_| {
        let mut response = Response::new(Bytes::from_static(b"goods"));
        let value: String = (0..300 << 10).map(|at| char::from(b'!' + (at % 90) as u8)).collect();
        response.headers_mut().insert("x-large", value.parse().unwrap());
        Act::Answer(response)
    })
    .await;
    let lost = shop.ask(&[]).await;
    assert_eq!(lost.got.status, StatusCode::BAD_GATEWAY, "{lost:?}");
    assert!(lost.got.text().contains("too large"), "{lost:?}");
    for _ in 0..3 {
        let refused = shop.ask(&[]).await;
        assert_eq!(refused.got.status, StatusCode::PAYMENT_REQUIRED, "{refused:?}");
        let why = refused.got.headers["proxy-status"].to_str().unwrap();
        assert!(why.contains("answer could not be read"), "{why}");
    }
    assert_eq!(shop.totals(), [PRICE.to_string()]);
    assert_eq!(shop.proxy.promised().await, Amount::from(PRICE));
    shop.proxy.stop().await;
}

#[tokio::test]
async fn a_payment_field_after_a_body_reaches_neither_side() {
    let market = Market::open().await;
    let alice = Alice::with(&market, QUICK).await;
    let (proxy, origin) = (alice.start().await, RawOrigin::start().await);
    let here = origin.address;
    let mut client = Raw::asking(
        proxy.address,
        format!(
            "POST http://{here}/ HTTP/1.1\r\nHost: {here}\r\nTE: trailers\r\nTrailer: RDN-Balance, X-Sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nRDN-Balance: 7\r\nX-Sum: 1\r\n\r\n"
        ),
    )
    .await;
    let mut server = origin.accept().await;
    let head = server.head().await;
    assert_eq!(field(&head, "trailer"), Some("X-Sum"), "{head}");
    assert_eq!(server.chunked().await, (b"a".to_vec(), "x-sum: 1\r\n".to_owned()));
    server
        .send(
            "HTTP/1.1 200 OK\r\nTrailer: rdn-price, x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\na\r\n0\r\nRDN-Price: 7\r\nX-Sum: 1\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert_eq!(field(&head, "trailer"), Some("x-sum"), "{head}");
    assert_eq!(client.chunked().await, (b"a".to_vec(), "x-sum: 1\r\n".to_owned()));
    proxy.stop().await;
}
