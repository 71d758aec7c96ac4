//! The stream of a client's connection, with TLS or without, and the TLS handshake.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::AlertDescription;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use super::client_io::{ClientIo, HANDSHAKE, Timeouts};
use crate::error_chain::with_causes;
use crate::proxy::client_warnings::{ClientWarnings, warn_of_client};
use crate::proxy::settings::ProxySettings;
use crate::tls::ServerTls;

/// A client's connection, with TLS or without.
pub(crate) type ClientStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The answer to a request without TLS at a port that speaks it.
const PLAIN_REFUSED: &str = "This port of tollpass speaks TLS: write https:// in the URL of the proxy.\n";

/// A connection without TLS.
pub(crate) fn plain_stream(stream: TcpStream) -> ClientStream {
    Either::Left(stream)
}

/// Performs the TLS handshakes of one port.
pub(crate) struct ClientTls {
    acceptor: TlsAcceptor,
    timeouts: Timeouts,
    handshake_timeout: Duration,
    warnings: ClientWarnings,
}

impl ClientTls {
    pub(crate) fn new(tls: &ServerTls, settings: &ProxySettings) -> Self {
        Self {
            acceptor: TlsAcceptor::from(tls.config()),
            timeouts: Timeouts::new(settings),
            handshake_timeout: settings.limits.head_timeout,
            warnings: ClientWarnings::default(),
        }
    }

    /// Performs the handshake within `limits.head_timeout`. `None` if the connection has failed or speaks no TLS, which
    /// is logged.
    pub(crate) async fn accept(&self, stream: TcpStream, peer: SocketAddr) -> Option<ClientStream> {
        match timeout(self.handshake_timeout, self.handshake(stream, peer)).await {
            Ok(Ok(secure)) => secure.map(|secure| Either::Right(Box::new(secure))),
            Ok(Err(error)) => {
                self.report(&error, peer);
                None
            }
            Err(_) => {
                debug!(%peer, "closing client connection: no TLS handshake within limits.head_timeout");
                None
            }
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> io::Result<Option<TlsStream<TcpStream>>> {
        let mut first = [0];
        match (stream.peek(&mut first).await?, first) {
            (0, _) => Ok(None),
            (_, [HANDSHAKE]) => self.acceptor.accept(stream).await.map(Some),
            (_, [first]) => {
                warn_of_client!(
                    self.warnings,
                    peer,
                    "plain",
                    %peer,
                    "a client does not speak TLS to a port of tollpass that does: write https:// in the URL of the proxy"
                );
                // The first byte of a method.
                if first.is_ascii_uppercase() { self.refuse(stream).await.map(|()| None) } else { Ok(None) }
            }
        }
    }

    /// Answers a request without TLS.
    async fn refuse(&self, stream: TcpStream) -> io::Result<()> {
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{PLAIN_REFUSED}",
            PLAIN_REFUSED.len()
        );
        let (mut io, _) = ClientIo::new(stream, &self.timeouts);
        io.write_all(answer.as_bytes()).await?;
        // Reads the request, so that the answer is not lost.
        io.shutdown().await
    }

    fn report(&self, error: &io::Error, peer: SocketAddr) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = cause
            && is_about_the_certificate(*alert)
        {
            warn_of_client!(
                self.warnings,
                peer,
                "rejected",
                %peer,
                ?alert,
                "a client rejects the certificate of the proxy (tls_cert): it must trust the certificate's issuer, and \
                 use a host name that is in the certificate"
            );
        } else {
            debug!(%peer, error = %with_causes(error), "TLS handshake with a client failed");
        }
    }
}

fn is_about_the_certificate(alert: AlertDescription) -> bool {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA, UnrecognisedName,
        UnsupportedCertificate,
    };
    matches!(
        alert,
        BadCertificate
            | CertificateExpired
            | CertificateUnknown
            | UnknownCA
            | UnrecognisedName
            | UnsupportedCertificate
    )
}
