//! The side of `serve`: answers on the admin socket until the shutdown begins.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};

use super::{CHANNELS, MAX_QUESTION, OPERATE, PLAN};
use crate::manager::{Manager, Operation, Trouble};
use crate::shutdown::Shutdown;

/// How long a command may take to send its request head.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The pause after a failure to accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on `path`. The caller holds the lock of the state folder, so an old socket is nobody's.
///
/// # Errors
/// When the socket cannot be made; the path of a Unix socket has at most 107 bytes.
pub fn serve(path: &Path, manager: Manager, shutdown: &Shutdown) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopping.stopping() => return,
            };
            match accepted {
                Ok((stream, _)) => stopping.spawn(connection(stream, manager.clone())),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin socket; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

async fn connection(stream: UnixStream, manager: Manager) {
    let service = service_fn(move |request| {
        let manager = manager.clone();
        async move { Ok::<_, Infallible>(answer(request, &manager).await) }
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

async fn answer(request: Request<Incoming>, manager: &Manager) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, CHANNELS) => match manager.list().await {
            Some(listing) => json(&listing),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "tollpass is shutting down"),
        },
        (&Method::POST, path @ (PLAN | OPERATE)) => {
            let body = match Limited::new(body, MAX_QUESTION).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => return plain(StatusCode::BAD_REQUEST, &error.to_string()),
            };
            let operation: Operation = match serde_json::from_slice(&body) {
                Ok(operation) => operation,
                Err(error) => return plain(StatusCode::BAD_REQUEST, &error.to_string()),
            };
            if path == PLAN {
                told(manager.plan(&operation).await)
            } else {
                // In a task of its own: who asked may leave, a transaction goes on.
                let manager = manager.clone();
                let done = tokio::spawn(async move { manager.operate(operation).await });
                match done.await {
                    Ok(done) => told(done),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
                }
            }
        }
        _ => plain(StatusCode::NOT_FOUND, "there are GET /channels, POST /plan and POST /operate"),
    }
}

fn told<T: Serialize>(result: Result<T, Trouble>) -> Response<Full<Bytes>> {
    match result {
        Ok(value) => json(&value),
        Err(trouble) => plain(StatusCode::CONFLICT, &trouble.to_string()),
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let mut answer = Response::new(Full::from(text));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(format!("{text}\n")));
    *answer.status_mut() = status;
    answer
}
