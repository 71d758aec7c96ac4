//! The HTTP side: connections, and the path of a request to its response.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONNECTION, EXPECT, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::Lose;
use super::gateway;
use super::ledger::{Payment, SellerVerdict};
use super::paths::{GATEWAY_PATH, X402_PATH};
use super::paywall;
use super::resources::{BodyLost, Kind, ResourceBody, plain, take};
use super::shared::SellerShared;
use crate::protocol::Amount;
use crate::protocol::schemes::microraiden::headers as rdn;

/// How many connections are served at once; more wait in the backlog.
const CONNECTIONS: usize = 1024;
/// How long a connection may be idle, or take to send a head.
const HEAD_PATIENCE: Duration = Duration::from_secs(120);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connection is cut without a response.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("the response is dropped on purpose")]
    Lost,
    #[error(transparent)]
    Body(#[from] BodyLost),
}

/// Accepts connections until `stop`, with TLS if configured.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    shared: Arc<SellerShared>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let accepting = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (shared, stop, tls) = (shared.clone(), stop.clone(), tls.clone());
                    tasks.spawn(async move {
                        stop.run_until_cancelled(serve(stream, tls, shared)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the origin cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
}

async fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, shared: Arc<SellerShared>) {
    let served = async {
        stream.set_nodelay(true)?;
        let Some(config) = tls else { return serve_http_1(stream, shared).await };
        let stream = TlsAcceptor::from(config).accept(stream);
        let stream = timeout(HEAD_PATIENCE, stream).await.map_err(io::Error::other)??;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => serve_http_2(stream, shared).await,
            _ => serve_http_1(stream, shared).await,
        }
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the origin ended early");
    }
}

async fn serve_http_1<I>(stream: I, shared: Arc<SellerShared>) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| answer(request, &shared));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn serve_http_2(stream: TlsStream<TcpStream>, shared: Arc<SellerShared>) -> io::Result<()> {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { answer(request, &shared).await }
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn answer(request: Request<Incoming>, shared: &SellerShared) -> Result<Response<ResourceBody>, Cut> {
    let path = request.uri().path().to_owned();
    // The original server does not know targets in absolute form, but HTTP/2 has no other.
    if request.uri().scheme().is_some() && request.version() != Version::HTTP_2 {
        return refuse(request, plain(StatusCode::NOT_FOUND, "no such page\n".to_owned())).await;
    }
    if path == GATEWAY_PATH || path.strip_prefix(GATEWAY_PATH).is_some_and(|rest| rest.starts_with('/')) {
        return Ok(gateway::answer(request, shared).await?);
    }
    if path == "/" {
        return match *request.method() {
            Method::GET | Method::HEAD => {
                refuse(request, plain(StatusCode::OK, shared.shop.catalogue())).await
            }
            _ => refuse(request, not_allowed(&[Method::GET, Method::HEAD])).await,
        };
    }
    if let Some(shop) = shared.authorized.as_ref().filter(|_| path == X402_PATH) {
        let response = shop.answer(request.headers()).await;
        return refuse(request, response).await;
    }
    let Some((price, kind)) = shared.shop.find(&path) else {
        return refuse(request, plain(StatusCode::NOT_FOUND, "no such page\n".to_owned())).await;
    };
    if request.method() == Method::OPTIONS {
        let mut response = plain(StatusCode::OK, String::new());
        response.headers_mut().insert(ALLOW, allowed(kind.methods()));
        return refuse(request, response).await;
    }
    if !kind.methods().contains(request.method()) {
        return refuse(request, not_allowed(kind.methods())).await;
    }
    shared.counts.send_modify(|counts| counts.exchanges += 1);
    sell(request, shared, price, &kind).await
}

/// Accepts the payment and returns the resource, or responds with the price.
async fn sell(
    request: Request<Incoming>,
    shared: &SellerShared,
    price: Amount,
    kind: &Kind,
) -> Result<Response<ResourceBody>, Cut> {
    if shared.faults().out_of_gas_money {
        let text = "The seller has no money left to redeem payments with.\n".to_owned();
        return refuse(request, plain(StatusCode::BAD_GATEWAY, text)).await;
    }
    let payment = match paywall::read(request.headers()) {
        Ok(payment) => payment,
        Err(text) => return refuse(request, plain(StatusCode::CONFLICT, text + "\n")).await,
    };
    if price.is_zero() {
        return Ok(kind.run(request).await?);
    }
    let Some(payment) = payment else {
        let response = paywall::reply(paywall::base(shared, price), request.headers());
        return refuse(request, response).await;
    };
    let lose = shared.faults().lose_next.take();
    if lose == Some(Lose::BeforeRegistering) {
        return Err(Cut::Lost);
    }
    let verdict = shared.with_ledger(|ledger| ledger.present(&payment, price, &shared.notary));
    if lose == Some(Lose::AfterRegistering) {
        return Err(Cut::Lost);
    }
    let is_taken = matches!(verdict, SellerVerdict::Paid(_));
    let response = deliver(request, shared, price, kind, (payment, verdict)).await;
    if is_taken {
        // `shared` holds the sender, so this cannot fail.
        let _ = shared.held.subscribe().wait_for(|held| !held).await;
    }
    response
}

async fn deliver(
    request: Request<Incoming>,
    shared: &SellerShared,
    price: Amount,
    kind: &Kind,
    (payment, verdict): (Payment, SellerVerdict),
) -> Result<Response<ResourceBody>, Cut> {
    let mut headers = paywall::base(shared, price);
    match verdict {
        SellerVerdict::Paid(before) => {
            tracing::info!(path = request.uri().path(), %price, sender = %before.sender, "paid");
            paywall::show(&mut headers, &before);
            let mut response = kind.run(request).await?;
            if !matches!(kind, Kind::Status(_)) {
                response.headers_mut().extend(headers);
            }
            return Ok(response);
        }
        SellerVerdict::NotNow(state) => paywall::show(&mut headers, &state),
        SellerVerdict::InvalidAmount(state) => {
            paywall::show(&mut headers, &state);
            paywall::complain(&mut headers, &rdn::INVALID_AMOUNT);
        }
        SellerVerdict::NonexistingChannel => paywall::complain(&mut headers, &rdn::NONEXISTING_CHANNEL),
        SellerVerdict::InsufficientConfirmations => {
            paywall::complain(&mut headers, &rdn::INSUFFICIENT_CONFIRMATIONS)
        }
        SellerVerdict::InvalidBalanceProof => paywall::complain(&mut headers, &rdn::INVALID_BALANCE_PROOF),
        SellerVerdict::Unreadable(reason) => {
            return refuse(request, plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n"))).await;
        }
    }
    tracing::debug!(sender = ?payment.sender, open_block = ?payment.open_block, "a payment was rejected");
    let response = paywall::reply(headers, request.headers());
    refuse(request, response).await
}

/// Sends a response that does not depend on the body. Reads the body first, so that a client that writes before it
/// reads gets the response rather than a reset; does not request the body of `Expect: 100-continue`.
async fn refuse(
    request: Request<Incoming>,
    mut response: Response<ResourceBody>,
) -> Result<Response<ResourceBody>, Cut> {
    if request.headers().contains_key(EXPECT) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Ok(response);
    }
    take(request).await?;
    Ok(response)
}

fn not_allowed(methods: &[Method]) -> Response<ResourceBody> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n".to_owned());
    response.headers_mut().insert(ALLOW, allowed(methods));
    response
}

fn allowed(methods: &[Method]) -> HeaderValue {
    let names = methods.iter().chain([&Method::OPTIONS]).map(Method::as_str).collect::<Vec<_>>().join(", ");
    // Method names and commas are valid in a header value.
    HeaderValue::try_from(names).unwrap_or_else(|_| HeaderValue::from_static(""))
}
