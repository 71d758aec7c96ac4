//! The resources for sale, and their responses once paid.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use revm::primitives::{alloy_primitives::Keccak256, hex};

use super::error::SellerStartError;
use super::paths::GATEWAY_PATH;
use crate::mutex::lock;
use crate::protocol::Amount;

/// The body of a response.
pub(super) type ResourceBody = BoxBody<Bytes, std::convert::Infallible>;

/// The largest request body to read; the connection of a larger one is cut.
pub(super) const BODY_LIMIT: u64 = 4 << 30;
/// How long a payer may pause while sending a body.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// The longest delay of `/paid/slow`.
const SLOWEST: Duration = Duration::from_secs(60);
/// The largest file for sale, in bytes.
pub const FILE_LIMIT: u64 = 64 << 20;
/// The most files in a directory for sale.
const FILES: usize = 10_000;
const PIECE: &[u8] = &[b'.'; 64 * 1024];

/// A resource for sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The exact path, without a query.
    pub path: String,
    /// Base units per request; 0 for a free one.
    pub price: Amount,
    /// The response to a paid request.
    pub kind: Kind,
}

/// The response of a [`Resource`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This text.
    Text(String),
    /// This page.
    Html(String),
    /// For POST and PUT: length and keccak-256 of the received body. A chunked body is read as empty.
    Echo,
    /// The text after the delay in the query, `ms=`, at most a minute.
    Slow(String),
    /// A status with a short text and without RDN headers.
    Status(StatusCode),
    /// This many bytes, streamed.
    Size(u64),
    /// The current content of this file, at most [`FILE_LIMIT`].
    File(PathBuf),
}

impl Resource {
    /// The resources of the demo: `/paid`, `/paid/echo`, `/paid/html` and `/paid/slow`, each at this price.
    pub fn assortment(price: Amount) -> Vec<Self> {
        let text = "This text was paid for. The client that asked did not need to know how.\n";
        let page = "<!doctype html><title>Paid</title><p>This page was paid for.</p>\n";
        [
            ("/paid", Kind::Text(text.to_owned())),
            ("/paid/echo", Kind::Echo),
            ("/paid/html", Kind::Html(page.to_owned())),
            ("/paid/slow", Kind::Slow(text.to_owned())),
        ]
        .into_iter()
        .map(|(path, kind)| Self { path: path.to_owned(), price, kind })
        .collect()
    }
}

/// The files below a directory, each at this price and at its own path.
///
/// # Errors
/// The directory cannot be read, or contains more than 10,000 files, or a file whose name is not valid in a URL.
pub fn directory(directory: &Path, price: Amount) -> io::Result<Vec<Resource>> {
    let mut resources = Vec::new();
    let mut left = vec![(directory.to_owned(), String::new())];
    while let Some((directory, prefix)) = left.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_plain) {
                let text = format!("{}: the name is not valid in a URL", entry.path().display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            let path = format!("{prefix}/{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push((entry.path(), path));
            } else if kind.is_file() {
                resources.push(Resource { path, price, kind: Kind::File(entry.path()) });
            }
            if resources.len() + left.len() > FILES {
                return Err(io::Error::other(format!("more than {FILES} files")));
            }
        }
    }
    Ok(resources)
}

impl Kind {
    /// The allowed methods.
    pub(super) fn methods(&self) -> &'static [Method] {
        match self {
            Self::Echo => &[Method::POST, Method::PUT],
            Self::Status(_) => &[Method::GET, Method::HEAD, Method::POST],
            Self::Text(_) | Self::Html(_) | Self::Slow(_) | Self::Size(_) | Self::File(_) => {
                &[Method::GET, Method::HEAD]
            }
        }
    }

    /// Responds after the payment.
    ///
    /// # Errors
    /// The request's body did not arrive.
    pub(super) async fn run(&self, request: Request<Incoming>) -> Result<Response<ResourceBody>, BodyLost> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let received = take(request).await?;
        Ok(match self {
            Self::Text(text) => plain(StatusCode::OK, text.clone()),
            Self::Html(page) => html(StatusCode::OK, page.clone()),
            Self::Echo => plain(
                StatusCode::OK,
                format!("{} bytes, keccak-256 {}\n", received.length, hex::encode_prefixed(received.digest)),
            ),
            Self::Slow(text) => {
                let wait = query.split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse().ok());
                tokio::time::sleep(Duration::from_millis(wait.unwrap_or(0)).min(SLOWEST)).await;
                plain(StatusCode::OK, text.clone())
            }
            Self::Status(status) => plain(*status, format!("the resource itself says {status}\n")),
            Self::Size(length) => Response::new(Dots { left: *length }.boxed()),
            Self::File(path) => file(path).await,
        })
    }
}

async fn file(path: &Path) -> Response<ResourceBody> {
    let read = async {
        let length = tokio::fs::metadata(path).await?.len();
        if length > FILE_LIMIT {
            return Err(io::Error::other(format!("it has {length} bytes; the limit is {FILE_LIMIT}")));
        }
        tokio::fs::read(path).await
    };
    match read.await {
        Ok(bytes) => {
            let mut response = Response::new(Full::from(bytes).boxed());
            let media_type = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(CONTENT_TYPE, media_type);
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the file: {error}\n")),
    }
}

/// The resources by path, with prices that can change.
pub(super) struct Shop(Mutex<BTreeMap<String, (Amount, Kind)>>);

impl Shop {
    pub(super) fn new(resources: Vec<Resource>) -> Result<Self, SellerStartError> {
        let mut shelf = BTreeMap::new();
        for Resource { path, price, kind } in resources {
            let usable = path.starts_with('/') && path != "/" && !path.starts_with(GATEWAY_PATH);
            if !usable || shelf.insert(path.clone(), (price, kind)).is_some() {
                return Err(SellerStartError::Path(path));
            }
        }
        Ok(Self(Mutex::new(shelf)))
    }

    pub(super) fn find(&self, path: &str) -> Option<(Amount, Kind)> {
        self.shelf().get(path).cloned()
    }

    pub(super) fn set_price(&self, path: &str, price: Amount) -> Option<Amount> {
        self.shelf().get_mut(path).map(|(current, _)| std::mem::replace(current, price))
    }

    /// The free front page, which lists the resources.
    pub(super) fn catalogue(&self) -> String {
        let mut page =
            "For sale here (prices in base units of the token, paid over a channel):\n\n".to_owned();
        for (path, (price, kind)) in self.shelf().iter() {
            let methods = kind.methods().iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
            // Writing to a string cannot fail.
            let _ = writeln!(page, "  {path}  {price}  ({methods})");
        }
        page
    }

    fn shelf(&self) -> MutexGuard<'_, BTreeMap<String, (Amount, Kind)>> {
        lock(&self.0)
    }
}

pub(super) fn plain(status: StatusCode, text: String) -> Response<ResourceBody> {
    typed(status, "text/plain; charset=utf-8", text)
}

pub(super) fn html(status: StatusCode, page: String) -> Response<ResourceBody> {
    typed(status, "text/html; charset=utf-8", page)
}

pub(super) fn typed(status: StatusCode, media_type: &'static str, text: String) -> Response<ResourceBody> {
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The received body of a request.
pub(super) struct ReceivedBody {
    pub(super) length: u64,
    digest: [u8; 32],
    /// The beginning, long enough for any form.
    pub(super) start: Vec<u8>,
}

/// A request body that was cut off, too slow or too large, so that no response can be sent.
#[derive(Debug, thiserror::Error)]
#[error("the request's body did not arrive")]
pub(super) struct BodyLost;

/// Reads a body to its end and keeps its length, digest and first bytes.
pub(super) async fn take(request: Request<Incoming>) -> Result<ReceivedBody, BodyLost> {
    const START: usize = 4096;
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let mut body = request.into_body();
    let mut hasher = Keccak256::new();
    let (mut length, mut start) = (0, Vec::new());
    while let Some(frame) = tokio::time::timeout(BODY_PATIENCE, body.frame()).await.map_err(|_| BodyLost)? {
        let Ok(piece) = frame.map_err(|_| BodyLost)?.into_data() else { continue };
        length += piece.len() as u64;
        if length > BODY_LIMIT {
            return Err(BodyLost);
        }
        if !chunked {
            hasher.update(&piece);
            start.extend_from_slice(&piece[..piece.len().min(START - start.len())]);
        }
    }
    // The original server reads a body without Content-Length as empty.
    let length = if chunked { 0 } else { length };
    Ok(ReceivedBody { length, digest: hasher.finalize().0, start })
}

/// A body of dots, generated while it is sent.
struct Dots {
    left: u64,
}

impl http_body::Body for Dots {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let length = self.left.min(PIECE.len() as u64);
        self.left -= length;
        #[expect(clippy::cast_possible_truncation, reason = "at most the length of PIECE")]
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE[..length as usize])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
