//! A server with certificates of a local CA, and clients that connect to it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::Acceptor;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};
use tollpass::tls::{Leaves, provider};

/// A server that says "hello" with a certificate for the requested name, or for `address` without SNI.
pub struct Greeter {
    pub address: SocketAddr,
    pub leaves: Arc<Leaves>,
    task: JoinHandle<()>,
}

/// What a client saw.
#[derive(Debug)]
pub struct Met {
    pub certificates: Vec<CertificateDer<'static>>,
    pub protocol: Option<Vec<u8>>,
    pub kind: Option<HandshakeKind>,
}

impl Greeter {
    pub async fn start(leaves: Leaves, address: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, leaves) = (listener.local_addr().unwrap(), Arc::new(leaves));
        let ours = Arc::clone(&leaves);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let leaves = Arc::clone(&ours);
                // A client that rejects the certificate closes the connection, as it should.
                tokio::spawn(async move { greet(stream, &leaves, address).await });
            }
        });
        Self { address: at, leaves, task }
    }

    /// Connects as a client that trusts only `roots`, expecting `name`.
    pub async fn meet(&self, roots: &[CertificateDer<'static>], name: &str) -> io::Result<Met> {
        self.meet_as(&client(roots), name).await
    }

    pub async fn meet_as(&self, client: &Arc<ClientConfig>, name: &str) -> io::Result<Met> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await?;
        let mut said = String::new();
        // Session tickets arrive with the data.
        stream.read_to_string(&mut said).await?;
        assert_eq!(said, "hello");
        let (_, session) = stream.get_ref();
        Ok(Met {
            certificates: session
                .peer_certificates()
                .unwrap()
                .iter()
                .cloned()
                .map(CertificateDer::into_owned)
                .collect(),
            protocol: session.alpn_protocol().map(<[u8]>::to_vec),
            kind: session.handshake_kind(),
        })
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that trusts only `roots`.
pub fn client(roots: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn greet(stream: TcpStream, leaves: &Leaves, address: &str) -> io::Result<()> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let name = hello.client_hello().server_name().unwrap_or(address).to_owned();
    let config = leaves.config_for(&name).await.map_err(io::Error::other)?;
    let mut stream = hello.into_stream(config).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await
}
