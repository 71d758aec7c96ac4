//! The client side of the admin socket: the command line asks a running `serve`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::endpoints::{
    ALLOWANCE, APPROVALS, BUDGETS, CHANNELS, DASHBOARD, DECIDE, DENIED, DashboardLink, FREEZE, HOLDS,
    OPERATE, OperatorDecision, PAUSED, PENDING, PLAN, PLAN_ALLOWANCE, RELOAD, RESUME, REVOKE, RUN, RUN_END,
    RUN_REPORT, ReloadReport, RunName, RunOpened, RunRequest, SET_ALLOWANCE, STATUS, StandingId, Status,
};
use super::socket;
use crate::channels::{
    AllowanceChange, AllowanceName, Operation, OperationReport, Permit2Allowance, Plan, SetAllowance,
};
use crate::payments::{
    BudgetView, ListedApproval, ListedHold, Listing, PausedHost, PendingApproval, SpendingReport,
};

/// The timeout for responses of a running `serve`.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The timeout for planning an operation.
const PLAN_WITHIN: Duration = Duration::from_secs(60);
/// The timeout for an operation; the chain has its own limits.
const OPERATE_WITHIN: Duration = Duration::from_secs(3600);
/// The largest response, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Why a request to a running `serve` failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket exists, but cannot be opened.
    #[error("cannot connect to the admin socket {}: {source}{}", path.display(), remedy(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The operation was refused, with the reason.
    #[error("{0}")]
    Refused(String),
    /// A seller did not sign that a channel be closed, and the policy keeps its other channels open.
    #[error("{0}")]
    Denied(String),
    /// It is shutting down.
    #[error("the running tollpass is shutting down")]
    Stopping,
    /// It closed the connection before it responded in full, because it exited. It may have done what was asked.
    #[error(
        "the running tollpass exited before it responded; see `tollpass channels` for what it has done, then try again"
    )]
    Gone,
    /// The response has another format than this version expects.
    #[error(
        "cannot read the response of the running tollpass ({0}): it may be a different version; restart it"
    )]
    OtherVersion(serde_json::Error),
    /// The response is invalid, or there is none.
    #[error("the request to the running tollpass failed: {0}")]
    Answer(String),
}

/// Returns the channels of the `serve` that listens on `path`; `None` if none does.
///
/// # Errors
/// The request failed.
pub async fn channels(path: &Path) -> Result<Option<Listing>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, CHANNELS, Bytes::new())).await.map(Some)
}

/// Returns what budgets have spent, according to the `serve` that listens on `path`; `None` if none does.
///
/// # Errors
/// The request failed.
pub async fn budgets(path: &Path) -> Result<Option<Vec<BudgetView>>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, BUDGETS, Bytes::new())).await.map(Some)
}

/// Returns what the proxy that listens on `path` holds for payments without a certain outcome; `None` if there is none.
///
/// # Errors
/// The request failed.
pub async fn holds(path: &Path) -> Result<Option<Vec<ListedHold>>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, HOLDS, Bytes::new())).await.map(Some)
}

/// Returns a link to the dashboard of the proxy that listens on `path`; `None` if there is none.
///
/// # Errors
/// The request failed, or the proxy never pays, so that it has no dashboard.
pub async fn dashboard(path: &Path) -> Result<Option<DashboardLink>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::POST, DASHBOARD, Bytes::new())).await.map(Some)
}

/// Ends or allows signing in the `serve` that listens on `path`; `None` if none does.
///
/// # Errors
/// The request failed, or could not be recorded.
pub async fn freeze(path: &Path, is_frozen: bool) -> Result<Option<bool>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    let body = Bytes::from(is_frozen.to_string());
    within(ANSWER_WITHIN, ask(stream, Method::POST, FREEZE, body)).await.map(Some)
}

/// Returns the address of the proxy that listens on `path` and what it has paid; `None` if there is none.
///
/// # Errors
/// The request failed.
pub async fn status(path: &Path) -> Result<Option<Status>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, STATUS, Bytes::new())).await.map(Some)
}

/// Returns the payments that wait for the approval of the proxy that listens on `path`; `None` if there is none.
///
/// # Errors
/// The request failed.
pub async fn pending(path: &Path) -> Result<Option<Vec<PendingApproval>>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, PENDING, Bytes::new())).await.map(Some)
}

/// Approves or denies a payment that waits, and returns it; with `always_for`, also approves further ones like it for
/// this time. `None` if no proxy listens on `path`.
///
/// # Errors
/// The request failed, or the payment no longer waits.
pub async fn decide(
    path: &Path,
    id: u64,
    is_approved: bool,
    always_for: Option<Duration>,
) -> Result<Option<PendingApproval>, AdminError> {
    let always_for = always_for.map(|time| time.as_secs());
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(
        ANSWER_WITHIN,
        ask(stream, Method::POST, DECIDE, json(&OperatorDecision { id, is_approved, always_for })?),
    )
    .await
    .map(Some)
}

/// Returns the standing approvals of the proxy that listens on `path`; `None` if there is none.
///
/// # Errors
/// The request failed.
pub async fn approvals(path: &Path) -> Result<Option<Vec<ListedApproval>>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, APPROVALS, Bytes::new())).await.map(Some)
}

/// Revokes a standing approval; `None` if no proxy listens on `path`.
///
/// # Errors
/// The request failed, or there is no such approval.
pub async fn revoke(path: &Path, id: u64) -> Result<Option<()>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::POST, REVOKE, json(&StandingId { id })?)).await.map(Some)
}

/// Returns the paused hosts of the proxy that listens on `path`; `None` if there is none.
///
/// # Errors
/// The request failed.
pub async fn paused(path: &Path) -> Result<Option<Vec<PausedHost>>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::GET, PAUSED, Bytes::new())).await.map(Some)
}

/// Ends the pause of a host; `None` if no proxy listens on `path`.
///
/// # Errors
/// The request failed, or the host is not paused.
pub async fn resume(path: &Path, host: &str) -> Result<Option<()>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(ANSWER_WITHIN, ask(stream, Method::POST, RESUME, json(&host)?)).await.map(Some)
}

/// Has the proxy that listens on `path` read its configuration again; `None` if there is none.
///
/// # Errors
/// The request failed, or the configuration is invalid: then nothing has changed.
pub async fn reload(path: &Path) -> Result<Option<ReloadReport>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    within(PLAN_WITHIN, ask(stream, Method::POST, RELOAD, Bytes::new())).await.map(Some)
}

/// Opens a port for a run at the proxy that listens on `path`, which also keeps a temporary proxy running; `None` if there
/// is none.
///
/// # Errors
/// The request failed, or there are too many runs.
pub async fn open_run(path: &Path, request: &RunRequest) -> Result<Option<Session>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    let attending = async {
        let mut answer = send(stream, Method::POST, RUN, json(request)?).await?.into_body();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let frame = answer.frame().await.ok_or(AdminError::Stopping)?;
            let data = frame.map_err(|error| failed(&error))?;
            line.extend_from_slice(data.data_ref().map_or(&[], |data| data));
            if line.len() > MAX_ANSWER {
                return Err(AdminError::Answer("the response is too long".to_owned()));
            }
        }
        let opened = serde_json::from_slice(&line).map_err(AdminError::OtherVersion)?;
        Ok(Session { opened, answer })
    };
    within(ANSWER_WITHIN, attending).await.map(Some)
}

/// A run at a running proxy: keeps its port open, and the proxy from exiting, until dropped.
#[derive(Debug)]
pub struct Session {
    /// The run.
    pub opened: RunOpened,
    /// Ends with the proxy; dropping it ends the run.
    #[cfg_attr(not(feature = "mcp"), expect(dead_code, reason = "held only to be dropped"))]
    answer: Incoming,
}

#[cfg(feature = "mcp")]
impl Session {
    /// Resolves when the proxy has ended.
    pub async fn ended(mut self) {
        while let Some(Ok(_)) = self.answer.frame().await {}
    }
}

/// Has the proxy that listens on `path` pay nothing more for a run, and returns what was paid for it once no payment is in
/// flight; `None` if no proxy listens.
///
/// # Errors
/// The request failed, or there is no such run.
pub async fn end_run(path: &Path, name: RunName) -> Result<Option<SpendingReport>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    let body = json(&name)?;
    within(OPERATE_WITHIN, ask(stream, Method::POST, RUN_END, body)).await.map(Some)
}

/// Returns what was paid for a run of the proxy that listens on `path` so far; `None` if no proxy listens.
///
/// # Errors
/// The same.
pub async fn run_report(path: &Path, name: RunName) -> Result<Option<SpendingReport>, AdminError> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    let body = json(&name)?;
    within(ANSWER_WITHIN, ask(stream, Method::POST, RUN_REPORT, body)).await.map(Some)
}

/// Returns what the `serve` that listens on `path` would do.
///
/// # Errors
/// The request failed, or the operation is not possible.
pub async fn plan(path: &Path, operation: &Operation) -> Result<Plan, AdminError> {
    within(PLAN_WITHIN, post(path, PLAN, operation)).await
}

/// Has the `serve` that listens on `path` perform the operation, and waits for the chain.
///
/// # Errors
/// The request failed, or the operation did.
pub async fn operate(path: &Path, operation: &Operation) -> Result<OperationReport, AdminError> {
    within(OPERATE_WITHIN, post(path, OPERATE, operation)).await
}

/// Returns an allowance, as the `serve` that listens on `path` reads it.
///
/// # Errors
/// The request failed, or the chain cannot be read.
pub async fn allowance(path: &Path, name: &AllowanceName) -> Result<Permit2Allowance, AdminError> {
    within(PLAN_WITHIN, post(path, ALLOWANCE, name)).await
}

/// Returns what it would take the `serve` that listens on `path` to set an allowance.
///
/// # Errors
/// The request failed, or it is not possible.
pub async fn plan_allowance(path: &Path, wanted: &Permit2Allowance) -> Result<AllowanceChange, AdminError> {
    within(PLAN_WITHIN, post(path, PLAN_ALLOWANCE, wanted)).await
}

/// Has the `serve` that listens on `path` set an allowance, and waits for the chain.
///
/// # Errors
/// The request failed, or the allowance was not set, or may not have been.
pub async fn set_allowance(path: &Path, wanted: &Permit2Allowance) -> Result<SetAllowance, AdminError> {
    within(OPERATE_WITHIN, post(path, SET_ALLOWANCE, wanted)).await
}

/// What to do if the socket cannot be opened, unless the error itself says so.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run this as the user of the proxy, or name another state directory with --state-dir"
        }
        _ => "",
    }
}

/// Connects to the socket; `None` if no process listens on it.
async fn connect(path: &Path) -> Result<Option<UnixStream>, AdminError> {
    match open(path).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(AdminError::Connect { path: path.to_owned(), source }),
    }
}

/// Connects to the socket, but does not follow a symbolic link.
async fn open(path: &Path) -> io::Result<UnixStream> {
    if std::fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::Error::other("it is a symbolic link, which tollpass never creates: remove it"));
    }
    let (short, _directory) = socket::short(path)?;
    UnixStream::connect(short).await
}

async fn post<T: DeserializeOwned>(
    path: &Path,
    target: &str,
    operation: &impl Serialize,
) -> Result<T, AdminError> {
    let stream = open(path).await.map_err(|source| AdminError::Connect { path: path.to_owned(), source })?;
    ask(stream, Method::POST, target, json(operation)?).await
}

fn json(value: &impl Serialize) -> Result<Bytes, AdminError> {
    let body = serde_json::to_vec(value).map_err(|error| AdminError::Answer(error.to_string()))?;
    Ok(body.into())
}

async fn within<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, AdminError>>,
) -> Result<T, AdminError> {
    tokio::time::timeout(limit, asking)
        .await
        .unwrap_or_else(|_| Err(AdminError::Answer(format!("no response within {limit:?}"))))
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

/// Sends a request and maps error statuses to errors.
async fn send(
    stream: UnixStream,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<Response<Incoming>, AdminError> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends with the response; the sender returns its errors.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "tollpass")
        .body(Full::<Bytes>::from(body))
        .map_err(|error| AdminError::Answer(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let body = whole(answer).await?;
    let message = String::from_utf8_lossy(&body).trim().to_owned();
    Err(match status {
        StatusCode::CONFLICT | StatusCode::FORBIDDEN => AdminError::Refused(message),
        DENIED => AdminError::Denied(message),
        StatusCode::SERVICE_UNAVAILABLE => AdminError::Stopping,
        _ => AdminError::Answer(format!("{status}: {message}")),
    })
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, AdminError> {
    match Limited::new(answer.into_body(), MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(match error.downcast_ref() {
            Some(error) => failed(error),
            None => AdminError::Answer(error.to_string()),
        }),
    }
}

/// What an error of the connection says about the process at the other end. The timeouts are elsewhere, so a connection
/// fails only because that process sent something invalid or closed it.
fn failed(error: &hyper::Error) -> AdminError {
    if error.is_parse() { AdminError::Answer(error.to_string()) } else { AdminError::Gone }
}
