//! The server side of the admin socket, which responds until the shutdown begins.

use std::convert::Infallible;
use std::fs::Permissions;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};

use super::client_count::ClientCount;
use super::endpoints::{
    ALLOWANCE, APPROVALS, BUDGETS, CHANNELS, CaLocation, DASHBOARD, DECIDE, DENIED, FREEZE, HOLDS,
    MAX_REQUEST, NamedObstacle, OPERATE, OperatorDecision, PAUSED, PENDING, PLAN, PLAN_ALLOWANCE, RELOAD,
    RESUME, REVOKE, RUN, RUN_END, RUN_REPORT, RunName, RunOpened, RunRequest, SET_ALLOWANCE, STATUS,
    StandingId, Status,
};
use super::links::LinkIssuer;
use super::obstacles::ObstacleSource;
use super::reloads::Reloads;
use super::runs::{RunRefused, Runs};
use super::socket;
use crate::channels::{AllowanceName, Channels, Operation, OperationError, Permit2Allowance};
use crate::payments::{Obstacle, SpendingReport};
use crate::shutdown::Shutdown;

/// How long a client may take to send its request head.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// What a program within a run gets if it wants to operate.
const RESTRICTED: &str = "the program belongs to a `tollpass run`, which cannot operate tollpass; `tollpass report` shows \
                          and ends its own report";

/// What a proxy without a wallet answers to all but questions about itself.
const NO_WALLET: &str =
    "the running proxy has no [wallet]: it never pays, so there is nothing to show or operate";

/// A response body.
type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// The port that clients connect to.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub is_tls: bool,
    /// The certificate that it then shows.
    pub certificate: Option<PathBuf>,
    /// The CA that its clients must trust, once it intercepts any host.
    pub ca: Arc<OnceLock<CaLocation>>,
    /// Knows what keeps the proxy from paying, once it serves.
    pub obstacles: Arc<OnceLock<Arc<dyn ObstacleSource>>>,
}

impl Listening {
    /// The status of a proxy that listens here and has no wallet.
    fn without_wallet(&self) -> Status {
        let (listen, is_tls, ca) = (self.address, self.is_tls, self.ca.get().cloned());
        let (bill, unsupported, obstacles) = (SpendingReport::default(), Vec::new(), Vec::new());
        let certificate = self.certificate.clone();
        let (never_pays, is_frozen) = (true, false);
        Status { listen, is_tls, certificate, never_pays, ca, bill, is_frozen, obstacles, unsupported }
    }
}

/// State shared by admin connections.
#[derive(Clone)]
struct AdminState {
    channels: Channels,
    listen: Listening,
    clients: ClientCount,
    runs: Runs,
    reloads: Reloads,
    links: Arc<dyn LinkIssuer>,
    shutdown: Shutdown,
}

/// Listens on `path` for requests about the proxy at `listen`. The caller holds the lock of the state directory, so an
/// existing socket is stale.
///
/// # Errors
/// The socket cannot be created.
pub fn serve(
    path: &Path,
    channels: Channels,
    listen: Listening,
    (runs, reloads): (Runs, Reloads),
    links: Arc<dyn LinkIssuer>,
    shutdown: &Shutdown,
) -> io::Result<ClientCount> {
    let clients = ClientCount::default();
    let (counted, stopping) = (clients.clone(), shutdown.clone());
    let state = AdminState { channels, listen, clients: counted, runs, reloads, links, shutdown: stopping };
    accept(path, shutdown, move |request, peer| {
        let state = state.clone();
        async move { admit(request, &state, peer).await }
    })?;
    Ok(clients)
}

/// The same for a proxy without a wallet, which only says what it is, and reads its configuration again.
///
/// # Errors
/// The socket cannot be created.
pub fn serve_status(path: &Path, listen: Listening, reloads: Reloads, shutdown: &Shutdown) -> io::Result<()> {
    accept(path, shutdown, move |request, _| {
        let (listen, reloads) = (listen.clone(), reloads.clone());
        async move {
            match (request.method(), request.uri().path()) {
                (&Method::GET, STATUS) => json(&listen.without_wallet()),
                (&Method::POST, RELOAD) => respond(reloads.reload().await),
                _ => plain(StatusCode::CONFLICT, NO_WALLET),
            }
        }
    })
}

/// Listens on `path`, and answers each request, which comes from the process with this number.
fn accept<A>(
    path: &Path,
    shutdown: &Shutdown,
    answer: impl Fn(Request<Incoming>, Option<i32>) -> A + Clone + Send + Sync + 'static,
) -> io::Result<()>
where
    A: Future<Output = Response<AnswerBody>> + Send + 'static,
{
    let (short, _directory) = socket::short(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopping.stopping() => return,
            };
            match accepted {
                Ok((stream, _)) => stopping.spawn(connection(stream, answer.clone())),
                Err(error) => {
                    tracing::warn!(%error, "accepting on the admin socket failed; retrying");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

async fn connection<A: Future<Output = Response<AnswerBody>>>(
    stream: UnixStream,
    answer: impl Fn(Request<Incoming>, Option<i32>) -> A,
) {
    let Ok(peer) = stream.peer_cred() else { return };
    // The permissions of the socket say the same, a moment after it was made.
    if ![rustix::process::geteuid().as_raw(), 0].contains(&peer.uid()) {
        return;
    }
    // The process that has connected.
    let peer = peer.pid();
    let service = service_fn(|request| {
        let answering = answer(request, peer);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// Answers the requests of programs within a run, which concern this run only, and passes on those of others.
async fn admit(request: Request<Incoming>, state: &AdminState, peer: Option<i32>) -> Response<AnswerBody> {
    let run = match state.runs.around(peer) {
        Ok(None) => return answer(request, state, peer).await,
        Ok(Some(run)) => run,
        Err(unknown) => return plain(StatusCode::FORBIDDEN, &unknown.to_string()),
    };
    let (head, body) = request.into_parts();
    let payments = state.channels.payments();
    match (&head.method, head.uri.path()) {
        (&Method::GET, STATUS) => {
            let bill = payments.run_report(&run);
            let (listen, is_tls, is_frozen) = (run.port(), false, payments.is_frozen());
            let (never_pays, ca, unsupported) = (false, state.listen.ca.get().cloned(), Vec::new());
            let (certificate, obstacles) = (None, Vec::new());
            json(&Status {
                listen,
                is_tls,
                certificate,
                never_pays,
                ca,
                bill,
                is_frozen,
                obstacles,
                unsupported,
            })
        }
        (&Method::GET, BUDGETS) => json(&payments.run_budgets(&run)),
        (&Method::POST, RUN) => match read::<RunRequest>(body).await {
            Ok(request) => state.run(request, peer).await,
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::POST, path @ (RUN_REPORT | RUN_END)) => match read::<RunName>(body).await {
            Ok(name) => match state.runs.find(name) {
                Some(own) if own.id() == run.id() || (peer.is_some() && own.root() == peer) => {
                    state.run_report(name, path == RUN_END).await
                }
                _ => plain(StatusCode::FORBIDDEN, "this is not the run that the program belongs to"),
            },
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        _ => plain(StatusCode::FORBIDDEN, RESTRICTED),
    }
}

async fn answer(request: Request<Incoming>, state: &AdminState, peer: Option<i32>) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    let channels = &state.channels;
    match (&head.method, head.uri.path()) {
        (&Method::GET, STATUS) => json(&state.status().await),
        (&Method::POST, RUN) => match read::<RunRequest>(body).await {
            Ok(request) => state.run(request, peer).await,
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::POST, path @ (RUN_REPORT | RUN_END)) => match read::<RunName>(body).await {
            Ok(name) => state.run_report(name, path == RUN_END).await,
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::GET, CHANNELS) => match channels.payments().list().await {
            Some(listing) => json(&listing),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "tollpass is shutting down"),
        },
        (&Method::GET, PENDING) => json(&channels.payments().approvals().list()),
        (&Method::POST, DECIDE) => match read::<OperatorDecision>(body).await {
            Ok(OperatorDecision { id, is_approved: true, always_for: Some(seconds) }) => {
                respond(channels.payments().approve_always(id, Duration::from_secs(seconds)).await)
            }
            Ok(OperatorDecision { id, is_approved, .. }) => {
                respond(channels.payments().approvals().decide(id, is_approved))
            }
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::GET, APPROVALS) => json(&channels.payments().approvals().standing()),
        (&Method::POST, REVOKE) => match read::<StandingId>(body).await {
            Ok(StandingId { id }) => respond(channels.payments().revoke_approval(id).await),
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::GET, PAUSED) => json(&channels.payments().paused_hosts()),
        (&Method::POST, RESUME) => match read::<String>(body).await {
            Ok(host) => respond(channels.payments().resume(&host).await),
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::POST, RELOAD) => respond(state.reloads.reload().await),
        (&Method::POST, DASHBOARD) => json(&state.links.issue()),
        (&Method::GET, HOLDS) => json(&channels.payments().holds()),
        (&Method::GET, BUDGETS) => json(&channels.payments().budgets()),
        (&Method::POST, FREEZE) => match read::<bool>(body).await {
            Ok(is_frozen) => respond(channels.payments().freeze(is_frozen).await.map(|()| is_frozen)),
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::POST, path @ (PLAN | OPERATE)) => {
            let operation: Operation = match read(body).await {
                Ok(operation) => operation,
                Err(invalid) => return plain(StatusCode::BAD_REQUEST, &invalid),
            };
            if path == PLAN {
                report(channels.plan(&operation).await)
            } else {
                // In a task of its own: the client may disconnect, but a transaction must be followed to its end.
                let channels = channels.clone();
                let done = tokio::spawn(async move { channels.operate(operation).await });
                match done.await {
                    Ok(done) => report(done),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
                }
            }
        }
        (&Method::POST, ALLOWANCE) => match read::<AllowanceName>(body).await {
            Ok(name) => respond(channels.allowance(name).await),
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::POST, PLAN_ALLOWANCE) => match read::<Permit2Allowance>(body).await {
            Ok(wanted) => respond(channels.plan_allowance(wanted).await),
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        (&Method::POST, SET_ALLOWANCE) => match read::<Permit2Allowance>(body).await {
            Ok(wanted) => {
                // In a task of its own, for the same reason.
                let channels = channels.clone();
                match tokio::spawn(async move { channels.set_allowance(wanted).await }).await {
                    Ok(done) => respond(done),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
                }
            }
            Err(invalid) => plain(StatusCode::BAD_REQUEST, &invalid),
        },
        _ => {
            let known = "unknown path; valid are GET /about, /budgets, /holds, /channels, /pending, /approvals and /paused, and POST /plan, \
                         /operate, /allowance, /allowance/plan, /allowance/set, /dashboard, /decide, /freeze, /revoke, /resume, /reload, /run, \
                         /run/report and /run/end";
            plain(StatusCode::NOT_FOUND, known)
        }
    }
}

impl AdminState {
    async fn status(&self) -> Status {
        let payments = self.channels.payments();
        let found = match self.listen.obstacles.get() {
            Some(source) => source.find().await,
            None => payments.obstacles(false),
        };
        let named = |obstacle: Obstacle| {
            let (name, details) = (obstacle.name().to_owned(), obstacle.details().to_owned());
            NamedObstacle { name, details }
        };
        let (is_frozen, unsupported) = (payments.is_frozen(), payments.unsupported());
        Status {
            never_pays: false,
            bill: payments.report(),
            is_frozen,
            obstacles: found.into_iter().map(named).collect(),
            unsupported,
            ..self.listen.without_wallet()
        }
    }

    /// Opens a run: sends one line about it at once, and ends the body when the proxy stops. The run lasts until the client
    /// disconnects.
    async fn run(&self, request: RunRequest, root: Option<i32>) -> Response<AnswerBody> {
        let Some(guard) = self.clients.enter() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "tollpass is shutting down");
        };
        let run = match self.runs.open(request, root).await {
            Ok(run) => run,
            Err(error @ RunRefused::Stopping) => {
                return plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
            }
            Err(error) => return plain(StatusCode::CONFLICT, &error.to_string()),
        };
        let opened = RunOpened { name: run.name(), listen: run.address() };
        let line = match serde_json::to_vec(&opened) {
            Ok(line) => Bytes::from([&line[..], b"\n"].concat()),
            Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        };
        let shutdown = self.shutdown.clone();
        let end = stream::once(async move {
            shutdown.stopping().await;
            drop((run, guard));
            Bytes::from_static(b"\n")
        });
        let lines = stream::iter([line]).chain(end).map(|line| Ok(Frame::data(line)));
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

impl AdminState {
    /// What was paid for a run. If `is_over`, ends it first, and waits until none of its payments is in flight.
    async fn run_report(&self, name: RunName, is_over: bool) -> Response<AnswerBody> {
        let Some(account) = self.runs.find(name) else {
            return plain(StatusCode::CONFLICT, "the run is over");
        };
        if is_over {
            account.end();
            self.runs.settled(&account).await;
        }
        json(&self.channels.payments().run_report(&account))
    }
}

/// Reads a request body in JSON. `Err` describes the problem.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, String> {
    let body = Limited::new(body, MAX_REQUEST).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}

fn report<T: Serialize>(result: Result<T, OperationError>) -> Response<AnswerBody> {
    match result {
        Err(error @ OperationError::Denied(_)) => plain(DENIED, &error.to_string()),
        result => respond(result),
    }
}

fn respond<T: Serialize>(result: Result<T, impl std::error::Error>) -> Response<AnswerBody> {
    match result {
        Ok(value) => json(&value),
        Err(error) => plain(StatusCode::CONFLICT, &error.to_string()),
    }
}

fn json(value: &impl Serialize) -> Response<AnswerBody> {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let mut answer = Response::new(Full::from(text).boxed_unsync());
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<AnswerBody> {
    let mut answer = Response::new(Full::from(format!("{text}\n")).boxed_unsync());
    *answer.status_mut() = status;
    answer
}
