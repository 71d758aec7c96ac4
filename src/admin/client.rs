//! The side of the command line: asks a running `serve`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::CHANNELS;
use crate::manager::Listing;

/// How long a running `serve` may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Why a running `serve` could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket is there, but cannot be opened.
    #[error("{}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not answer as it should.
    #[error("the running tollpass did not answer as it should: {0}")]
    Answer(String),
}

/// The channels of the `serve` that listens on `path`; `None` when none does.
///
/// # Errors
/// [`AdminError`] when one does, but cannot be asked.
pub async fn channels(path: &Path) -> Result<Option<Listing>, AdminError> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(source) => return Err(AdminError::Connect { path: path.to_owned(), source }),
    };
    tokio::time::timeout(ANSWER_WITHIN, ask(stream))
        .await
        .unwrap_or_else(|_| Err(AdminError::Answer(format!("no answer within {ANSWER_WITHIN:?}"))))
        .map(Some)
}

async fn ask(stream: UnixStream) -> Result<Listing, AdminError> {
    let wrong = |error: &dyn std::fmt::Display| AdminError::Answer(error.to_string());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong(&error))?;
    // Ends with the answer; an error on the way is the sender's error too.
    tokio::spawn(connection);
    let request = Request::get(CHANNELS)
        .header(header::HOST, "tollpass")
        .body(Empty::<Bytes>::new())
        .map_err(|error| wrong(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| wrong(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| wrong(&error))?.to_bytes();
    if status != StatusCode::OK {
        return Err(AdminError::Answer(format!("{status}: {}", String::from_utf8_lossy(&body).trim())));
    }
    serde_json::from_slice(&body).map_err(|error| wrong(&error))
}
