//! The side of the command line: asks a running `serve`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{CHANNELS, DENIED, OPERATE, PLAN, SESSION, STATUS, Status};
use crate::channels::{Operation, Plan, Report};
use crate::payments::Listing;

/// How long a running `serve` may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to say what an operation would cost.
const PLAN_WITHIN: Duration = Duration::from_secs(60);
/// How long an operation may take; the chain has limits of its own.
const OPERATE_WITHIN: Duration = Duration::from_secs(3600);
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
    /// It did not do it, and says why.
    #[error("{0}")]
    Refused(String),
    /// A seller did not sign that a channel be closed, and no further one of its channels is to be closed.
    #[error("{0}")]
    Denied(String),
    /// It is about to end.
    #[error("the running tollpass is shutting down")]
    Stopping,
    /// Its answer has another form than this version expects.
    #[error(
        "cannot read the answer of the running tollpass ({0}): it may be another version than this one; restart it"
    )]
    OtherVersion(serde_json::Error),
    /// It did not answer as it should.
    #[error("the running tollpass did not answer as it should: {0}")]
    Answer(String),
}

/// The channels of the `serve` that listens on `path`; `None` when none does.
///
/// # Errors
/// [`AdminError`] when one does, but cannot be asked.
pub async fn channels(path: &Path) -> Result<Option<Listing>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, CHANNELS, Bytes::new())).await.map(Some)
}

/// Where the proxy listens that answers on `path`, and what it has paid; `None` when none does.
///
/// # Errors
/// [`AdminError`] when one does, but cannot be asked.
pub async fn status(path: &Path) -> Result<Option<Status>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, STATUS, Bytes::new())).await.map(Some)
}

/// Attends at the proxy that answers on `path`: one that would end by itself waits; `None` when none does.
///
/// # Errors
/// [`AdminError`] when one does, but cannot be asked.
pub async fn open_session(path: &Path) -> Result<Option<Session>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    let attending = async {
        let mut answer = send(stream, Method::GET, SESSION, Bytes::new()).await?.into_body();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let frame = answer.frame().await.ok_or(AdminError::Stopping)?;
            let data = frame.map_err(|error| AdminError::Answer(error.to_string()))?;
            line.extend_from_slice(data.data_ref().map_or(&[], |data| data));
            if line.len() > MAX_ANSWER {
                return Err(AdminError::Answer("it does not end".to_owned()));
            }
        }
        let status = serde_json::from_slice(&line).map_err(AdminError::OtherVersion)?;
        Ok(Session { status, _answer: answer })
    };
    within(ANSWER_WITHIN, attending).await.map(Some)
}

/// A place at a running proxy, until it is dropped.
#[derive(Debug)]
pub struct Session {
    /// What it said of itself at the beginning.
    pub status: Status,
    /// Ends with the proxy; hanging up is leaving.
    _answer: Incoming,
}

/// What the `serve` that listens on `path` would do.
///
/// # Errors
/// [`AdminError`].
pub async fn plan(path: &Path, operation: &Operation) -> Result<Plan, AdminError> {
    within(PLAN_WITHIN, post(path, PLAN, operation)).await
}

/// Has the `serve` that listens on `path` do it, and waits for the chain.
///
/// # Errors
/// [`AdminError`].
pub async fn operate(path: &Path, operation: &Operation) -> Result<Report, AdminError> {
    within(OPERATE_WITHIN, post(path, OPERATE, operation)).await
}

/// The socket, if anybody listens there.
async fn connect(path: &Path) -> Result<Option<UnixStream>, AdminError> {
    match open(path).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(source) => Err(AdminError::Connect { path: path.to_owned(), source }),
    }
}

/// Connects to the socket itself, wherever it is, but not to where a link leads.
async fn open(path: &Path) -> io::Result<UnixStream> {
    if std::fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::Error::other("it is a symbolic link, which tollpass never makes: remove it"));
    }
    let (short, _folder) = super::short(path)?;
    UnixStream::connect(short).await
}

async fn post<T: DeserializeOwned>(
    path: &Path,
    target: &str,
    operation: &Operation,
) -> Result<T, AdminError> {
    let stream = open(path).await.map_err(|source| AdminError::Connect { path: path.to_owned(), source })?;
    let body = serde_json::to_vec(operation).map_err(|error| AdminError::Answer(error.to_string()))?;
    ask(stream, Method::POST, target, body.into()).await
}

async fn within<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, AdminError>>,
) -> Result<T, AdminError> {
    tokio::time::timeout(limit, asking)
        .await
        .unwrap_or_else(|_| Err(AdminError::Answer(format!("no answer within {limit:?}"))))
}

async fn ask<T: DeserializeOwned>(
    stream: UnixStream,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<T, AdminError> {
    let answer = send(stream, method, target, body).await?;
    let body = whole(answer).await?;
    serde_json::from_slice(&body).map_err(AdminError::OtherVersion)
}

/// Asks, and sorts out what is no answer.
async fn send(
    stream: UnixStream,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<Response<Incoming>, AdminError> {
    let wrong = |error: &dyn std::fmt::Display| AdminError::Answer(error.to_string());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong(&error))?;
    // Ends with the answer; an error on the way is the sender's error too.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "tollpass")
        .body(Full::<Bytes>::from(body))
        .map_err(|error| wrong(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| wrong(&error))?;
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let body = whole(answer).await?;
    let said = String::from_utf8_lossy(&body).trim().to_owned();
    Err(match status {
        StatusCode::CONFLICT => AdminError::Refused(said),
        DENIED => AdminError::Denied(said),
        StatusCode::SERVICE_UNAVAILABLE => AdminError::Stopping,
        _ => AdminError::Answer(format!("{status}: {said}")),
    })
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, AdminError> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(|error| AdminError::Answer(error.to_string()))?.to_bytes())
}
