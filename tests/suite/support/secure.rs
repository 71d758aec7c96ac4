//! TLS at both ends: Bob's CA and origins with its certificates, and clients with configurable trust.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tollpass::tls::{Authority, Leaves, provider};

use crate::support::raw::soon;

/// A CA that is unrelated to the proxy's.
pub struct Notary {
    directory: TempDir,
    leaves: Leaves,
}

impl Notary {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), &[]).unwrap();
        Self { directory, leaves: Leaves::new(Arc::new(authority), 16).unwrap() }
    }

    /// The certificate that clients of its origins trust, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The TLS configuration of an origin called `host`, and its ALPN.
    pub async fn certify(&self, host: &str, alpn: &[&str]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.leaves.config_for(host).await.unwrap());
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// An origin over TLS.
pub struct Secure {
    pub address: SocketAddr,
    /// How many connections it accepted.
    accepted: Arc<AtomicUsize>,
}

impl Secure {
    /// Serves HTTP/2 or 1.1, depending on its certificate's ALPN, while the test's runtime lives.
    pub async fn serve<A, F, B>(config: Arc<ServerConfig>, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        Self::accept(config, move |stream| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let stream = TokioIo::new(stream);
                // The test checks the end of the connection at its own end.
                if is_http_2 {
                    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
                } else {
                    let _ = http1::Builder::new().serve_connection(stream, service).with_upgrades().await;
                }
            }
        })
        .await
    }

    /// Passes each connection to `work` after the TLS handshake.
    pub async fn accept<W, F>(config: Arc<ServerConfig>, work: W) -> Self
    where
        W: Fn(server::TlsStream<TcpStream>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (config, work) = (Arc::clone(&config), work.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                        work(stream).await;
                    }
                });
            }
        });
        Self { address, accepted }
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Opens a tunnel and returns the connection; panics unless the response is 200.
pub async fn connect(proxy: SocketAddr, place: &str) -> TcpStream {
    let mut stream = soon("connecting", TcpStream::connect(proxy)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n");
    soon("sending", stream.write_all(request.as_bytes())).await.unwrap();
    let mut head = Vec::new();
    // Not a byte more than the head: the rest belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the answer", stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Performs a TLS handshake, trusting only the PEM certificates in `ca`.
pub async fn trusting<S: AsyncRead + AsyncWrite + Unpin>(
    ca: &Path,
    stream: S,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<client::TlsStream<S>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}
