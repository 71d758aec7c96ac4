//! The floor: the least that a proxy on hyper and hyper-util can do. It has one pool of connections, tunnels and, with the
//! lab's CA, interception; no rules, no limits, no log. What a proxy costs beyond this is its own doing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{
    CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rcgen::{Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;

use crate::{lab, until_closed};

/// The argument that makes this program a floor proxy; [`Threads`], whether it intercepts, and the directory of the lab
/// follow.
pub const ROLE: &str = "floor";

/// How it uses several processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Threads {
    /// One runtime that moves tasks between its threads.
    Shared,
    /// Runtimes of one thread each, with their own pools and their own listeners on the same port.
    PerCore(usize),
}

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
const TUNNEL_BUFFER: usize = 64 * 1024;

type Answer = Response<Either<Incoming, Empty<Bytes>>>;

/// Prints its address, then serves until standard input is closed.
pub fn serve(threads: Threads, intercepts: bool, directory: &Path) -> anyhow::Result<()> {
    let first = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = first.local_addr()?;
    let floor = || Floor::new(intercepts, directory);
    match threads {
        Threads::Shared => {
            let floor = floor()?;
            Builder::new_multi_thread().enable_all().build()?.block_on(async {
                tokio::spawn(accept(TcpListener::from_std(first)?, floor));
                println!("listening on {address}");
                until_closed().await
            })
        }
        Threads::PerCore(workers) => {
            let mut listeners = vec![first];
            for _ in 1..workers {
                listeners.push(listener(address)?);
            }
            for (at, listener) in listeners.into_iter().enumerate() {
                let floor = floor()?;
                let runtime = Builder::new_current_thread().enable_all().build()?;
                thread::Builder::new().name(format!("worker-{at}")).spawn(move || {
                    runtime.block_on(async { accept(TcpListener::from_std(listener)?, floor).await })
                })?;
            }
            println!("listening on {address}");
            Builder::new_current_thread().enable_all().build()?.block_on(until_closed())
        }
    }
}

/// Several may have the same port.
fn listener(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    // Sockets of tokio belong to a runtime only once they are registered.
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket.listen(1024)?.into_std()?)
}

async fn accept(listener: TcpListener, floor: Arc<Floor>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(Arc::clone(&floor), None, TokioIo::new(stream)));
    }
}

/// Serves a connection, or what is within a tunnel to `origin`.
fn connection<S>(
    floor: Arc<Floor>,
    origin: Option<Authority>,
    stream: S,
) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    S: Read + Write + Unpin + Send + 'static,
{
    // Boxed, because the service of a tunnel contains that of a connection.
    Box::pin(async move {
        let service = service_fn(move |request| answer(Arc::clone(&floor), origin.clone(), request));
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new());
        // A client may leave at any time.
        let _ = server.serve_connection(stream, service).with_upgrades().await;
    })
}

async fn answer(
    floor: Arc<Floor>,
    origin: Option<Authority>,
    mut request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    if let Some(origin) = origin {
        let mut parts = Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(origin);
        parts.path_and_query = request.uri().path_and_query().cloned();
        let Ok(uri) = Uri::from_parts(parts) else { return Ok(empty(StatusCode::BAD_REQUEST)) };
        *request.uri_mut() = uri;
    } else if request.method() == Method::CONNECT {
        let Some(origin) = request.uri().authority().cloned() else {
            return Ok(empty(StatusCode::BAD_REQUEST));
        };
        tokio::spawn(async move {
            // A tunnel that fails is closed; the client notices.
            let _ = floor.tunnel(origin, request).await;
        });
        return Ok(empty(StatusCode::OK));
    }
    remove_hop_by_hop(request.headers_mut());
    let Ok(mut response) = floor.client.request(request).await else {
        return Ok(empty(StatusCode::BAD_GATEWAY));
    };
    remove_hop_by_hop(response.headers_mut());
    Ok(response.map(Either::Left))
}

fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = status;
    response
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

struct Floor {
    client: Client<HttpsConnector<HttpConnector>, Incoming>,
    leaves: Option<Leaves>,
}

impl Floor {
    fn new(intercepts: bool, directory: &Path) -> anyhow::Result<Arc<Self>> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(lab::client_tls(directory)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let leaves = intercepts.then(|| Leaves::new(directory)).transpose()?;
        Ok(Arc::new(Self { client, leaves }))
    }

    async fn tunnel(self: Arc<Self>, origin: Authority, request: Request<Incoming>) -> anyhow::Result<()> {
        let client = hyper::upgrade::on(request).await?;
        let Some(leaves) = &self.leaves else {
            let mut upstream = TcpStream::connect(origin.as_str()).await?;
            upstream.set_nodelay(true)?;
            let mut client = TokioIo::new(client);
            copy_bidirectional_with_sizes(&mut client, &mut upstream, TUNNEL_BUFFER, TUNNEL_BUFFER).await?;
            return Ok(());
        };
        let tls = TlsAcceptor::from(leaves.for_host(origin.host())?);
        let stream = tls.accept(TokioIo::new(client)).await?;
        connection(Arc::clone(&self), Some(origin), TokioIo::new(stream)).await;
        Ok(())
    }
}

/// The certificates of intercepted hosts.
struct Leaves {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    known: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl Leaves {
    fn new(directory: &Path) -> anyhow::Result<Self> {
        Ok(Self { issuer: lab::issuer(directory)?, key: KeyPair::generate()?, known: Mutex::default() })
    }

    fn for_host(&self, host: &str) -> anyhow::Result<Arc<ServerConfig>> {
        let mut known = self.known.lock().ok().context("another thread has panicked")?;
        if let Some(config) = known.get(host) {
            return Ok(Arc::clone(config));
        }
        let leaf = lab::leaf(&[host])?.signed_by(&self.key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let config = Arc::new(lab::server_tls(leaf.der().clone(), key)?);
        known.insert(host.to_owned(), Arc::clone(&config));
        Ok(config)
    }
}
