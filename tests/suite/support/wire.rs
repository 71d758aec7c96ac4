//! One plain HTTP/1.1 connection, without automatic retries or pooling.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

pub type Body = BoxBody<Bytes, Infallible>;

/// A kept-alive connection.
pub struct Wire(SendRequest<Body>);

/// A complete response.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        // Ends with the connection.
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request as it is (an absolute URI becomes an absolute-form target) and reads the whole response.
    pub async fn ask(&mut self, request: Request<Body>) -> Result<Got, hyper::Error> {
        let (parts, body) = self.head(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Got { status: parts.status, headers: parts.headers, body })
    }

    /// Sends a request as it is and returns the head of the response.
    pub async fn head(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        self.0.ready().await?;
        if let Some(authority) = request.uri().authority().cloned() {
            let host = HeaderValue::from_str(authority.as_str()).unwrap();
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        self.0.send_request(request).await
    }

    /// True if the peer has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Sends a request on a new connection.
pub async fn ask(address: SocketAddr, request: Request<Body>) -> Got {
    Wire::connect(address).await.ask(request).await.unwrap()
}

/// The same to a peer that may end at any time, until the client gives up: then it leaves, and the peer has noticed that once
/// this returns `None`.
pub async fn ask_or_leave(
    address: SocketAddr,
    request: Request<Body>,
    gives_up: impl Future<Output = ()>,
) -> Option<Option<Got>> {
    let Ok(stream) = TcpStream::connect(address).await else { return Some(None) };
    let Ok((sender, mut connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return Some(None);
    };
    let mut wire = Wire(sender);
    {
        let mut asking = std::pin::pin!(wire.ask(request));
        tokio::select! {
            got = &mut asking => return Some(got.ok()),
            _ = &mut connection => return Some(asking.await.ok()),
            () = gives_up => {}
        }
    }
    let mut stream = connection.into_parts().io.into_inner();
    // A peer that is gone has noticed it, too.
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    None
}

/// A body of known length.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// A body that is sent chunked.
pub fn chunked(pieces: Vec<Bytes>) -> Body {
    let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

impl Got {
    /// The one value of a header.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().unwrap();
        assert!(values.next().is_none(), "{name} came twice");
        Some(value)
    }

    /// The names of all `rdn-*` headers without that prefix, in order.
    pub fn rdn(&self) -> Vec<&str> {
        let mut names =
            self.headers.keys().filter_map(|name| name.as_str().strip_prefix("rdn-")).collect::<Vec<_>>();
        names.sort_unstable();
        names
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
