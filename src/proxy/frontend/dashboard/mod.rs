//! The dashboard: a page on the proxy's own port that shows what is paid, and from which the operator decides.
//!
//! The page itself is static and says nothing. `tollpass dashboard` prints a link with a one-time secret in its fragment; the
//! page exchanges that for a token, which it sends in a header with each call. There is no cookie, since browsers send those
//! of 127.0.0.1 to every port of the machine. A page of another origin can neither send that header nor read a response.
//! Everything that changes something, signing in included, also needs the `Origin` that the browser knows the page by.

mod access;
mod caller;
mod files;
mod source;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use self::access::PageSession;
pub use self::access::{DashboardAccess, DashboardSecret};
use self::caller::{Caller, CallerRefusal};
pub use self::source::{DashboardError, DashboardNews, DashboardSource, NewsItem};
use super::page;
use crate::proxy::Body;
use crate::proxy::message::streamed::StreamedBody;
use crate::shutdown::Shutdown;

/// The path of the page.
pub(super) const PATH: &str = "/dashboard";
/// Below it: what the page reads and changes.
const CALLS: &str = "/dashboard/api/";
/// How systems and programs use the proxy.
pub(super) const SETUP: &str = "/dashboard/api/setup";
/// Exchanges the secret of a link for a token.
const SIGN_IN: &str = "/dashboard/session";
/// Ends the session.
const SIGN_OUT: &str = "/dashboard/session/end";
/// News, as server-sent events.
const NEWS: &str = "/dashboard/news";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
/// How many parts of a stream may wait for a slow page. What happens meanwhile is part of the next one.
const QUEUE: usize = 1;
/// When a page that gets no news should ask again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The dashboard of one port; cheap to clone.
#[derive(Clone)]
pub struct DashboardEndpoint(Arc<EndpointState>);

struct EndpointState {
    access: DashboardAccess,
    source: Arc<dyn DashboardSource>,
    /// One for each stream.
    streams: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// A request for a part of the dashboard.
pub(super) struct DashboardVisit {
    /// The origin of the pages of this port, as the client addresses it; `None` if it says no host.
    pub(super) origin: Option<String>,
    /// Whether others on the network can read the request.
    pub(super) exposed: bool,
    /// How systems and programs use the proxy, as this client addresses it, for a request for that.
    pub(super) setup: Value,
}

/// The request for a token.
#[derive(Deserialize)]
struct SignInRequest {
    secret: DashboardSecret,
}

/// Whether the dashboard answers requests for this path.
pub(super) fn is_part(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl DashboardEndpoint {
    /// Shows what `source` has to those whom `access` admits, until the shutdown begins.
    #[must_use]
    pub fn new(access: DashboardAccess, source: Arc<dyn DashboardSource>, shutdown: Shutdown) -> Self {
        let streams = Arc::new(Semaphore::new(access.limits().dashboard_streams));
        Self(Arc::new(EndpointState { access, source, streams, shutdown }))
    }

    /// The response to a request for a path that is a part of it.
    pub(super) fn answer(
        &self,
        request: &mut Request<Body>,
        visit: DashboardVisit,
    ) -> BoxFuture<'static, Response<Body>> {
        let DashboardVisit { origin, exposed, setup } = visit;
        let (path, method) = (request.uri().path(), request.method());
        if let Some(file) = files::find(path) {
            let answer = if page::is_read(method) { file.answer() } else { page::read_only(method) };
            return ready(answer);
        }
        let caller = Caller { headers: request.headers(), origin: origin.as_deref(), exposed };
        let is_post = *method == Method::POST;
        let refused = match is_post {
            true => caller.check_change(),
            false => caller.check(),
        };
        if let Err(refusal) = refused {
            return ready(refuse(refusal));
        }
        if path == SIGN_IN && is_post {
            let (state, body) = (Arc::clone(&self.0), std::mem::take(request.body_mut()));
            return Box::pin(async move { state.sign_in(body).await });
        }
        let Some(session) = caller.token().and_then(|token| self.0.access.session(token, Instant::now()))
        else {
            return ready(refuse(CallerRefusal::NotSignedIn));
        };
        let state = Arc::clone(&self.0);
        match (path, path.strip_prefix(CALLS)) {
            (NEWS, _) if is_post => ready(state.news(session)),
            (SIGN_OUT, _) if is_post => {
                state.access.sign_out(&session);
                ready(answer(StatusCode::OK, &json!({})))
            }
            (_, Some(name)) if is_post => {
                let (name, body) = (name.to_owned(), std::mem::take(request.body_mut()));
                Box::pin(async move { state.change(&name, body).await })
            }
            (SETUP, _) if page::is_read(method) => ready(answer(StatusCode::OK, &setup)),
            (_, Some(name)) if page::is_read(method) => {
                let reading = state.source.read(name, request.uri().query().unwrap_or_default());
                Box::pin(async move { result(reading.await) })
            }
            (_, Some(_)) => ready(error(StatusCode::METHOD_NOT_ALLOWED, "this can be read and changed only")),
            _ => ready(error(StatusCode::NOT_FOUND, "the dashboard has no such part")),
        }
    }
}

impl EndpointState {
    async fn sign_in(&self, body: Body) -> Response<Body> {
        let SignInRequest { secret } = match self.json(body).await {
            Ok(wanted) => wanted,
            Err(refused) => return refused,
        };
        match self.access.sign_in(&secret, Instant::now()) {
            Some(token) => {
                tracing::info!("a page of the dashboard has signed in");
                let lasts = self.access.limits().dashboard_session.as_secs();
                answer(StatusCode::OK, &json!({ "token": token.expose(), "lasts_s": lasts }))
            }
            None => {
                tracing::warn!(
                    "a page wanted to sign in to the dashboard with a link that is no longer valid"
                );
                refuse(CallerRefusal::OldLink)
            }
        }
    }

    async fn change(&self, name: &str, body: Body) -> Response<Body> {
        match self.json(body).await {
            Ok(wanted) => result(self.source.change(name, wanted).await),
            Err(refused) => refused,
        }
    }

    /// Reads a request in JSON. `Err` is the response to one that is not.
    async fn json<T: DeserializeOwned>(&self, body: Body) -> Result<T, Response<Body>> {
        let most = self.access.limits().dashboard_body;
        let body = match Limited::new(body, most).collect().await {
            Ok(body) => body.to_bytes(),
            Err(failed) => {
                let text =
                    format!("the request cannot be read, or is larger than limits.dashboard_body: {failed}");
                return Err(error(StatusCode::PAYLOAD_TOO_LARGE, &text));
            }
        };
        // The error could quote a secret.
        serde_json::from_slice(&body)
            .map_err(|_| error(StatusCode::BAD_REQUEST, "the request is not the JSON that is expected"))
    }

    /// A stream of news, which ends with the session, the client or the proxy.
    fn news(self: Arc<Self>, session: PageSession) -> Response<Body> {
        let Ok(permit) = Arc::clone(&self.streams).try_acquire_owned() else {
            let text = "too many pages of the dashboard are open (limits.dashboard_streams): close some";
            let mut response = error(StatusCode::SERVICE_UNAVAILABLE, text);
            response.headers_mut().insert(header::RETRY_AFTER, AGAIN_AFTER.as_secs().into());
            return response;
        };
        let (parts, received) = mpsc::channel(QUEUE);
        let shutdown = self.shutdown.clone();
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            let mut news = self.source.news();
            let sending = async {
                loop {
                    let part = events(&news.next().await);
                    if parts.send(part).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = sending => {}
                () = parts.closed() => {}
                () = session.ended() => {}
                () = stopping.stopping() => {}
            }
            drop(permit);
        });
        page::with(StatusCode::OK, EVENTS, Body::Streamed(StreamedBody::new(received)))
    }
}

impl fmt::Debug for DashboardEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DashboardEndpoint").field(&self.0.access).finish()
    }
}

/// News in the format of server-sent events. Without any, a comment shows that the connection lives.
fn events(items: &[NewsItem]) -> Bytes {
    if items.is_empty() {
        return Bytes::from_static(b":\n\n");
    }
    // JSON has no line breaks.
    let events = items.iter().map(|NewsItem { name, data }| format!("event: {name}\ndata: {data}\n\n"));
    events.collect::<String>().into()
}

fn ready(response: Response<Body>) -> BoxFuture<'static, Response<Body>> {
    Box::pin(std::future::ready(response))
}

fn result(result: Result<Value, DashboardError>) -> Response<Body> {
    match result {
        Ok(value) => answer(StatusCode::OK, &value),
        Err(failed) => {
            let status = match failed {
                DashboardError::Unknown => StatusCode::NOT_FOUND,
                DashboardError::Invalid(_) => StatusCode::BAD_REQUEST,
                DashboardError::Failed(_) => StatusCode::CONFLICT,
            };
            error(status, &failed.to_string())
        }
    }
}

fn refuse(refusal: CallerRefusal) -> Response<Body> {
    let mut response = error(refusal.status(), &refusal.to_string());
    if refusal.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn error(status: StatusCode, text: &str) -> Response<Body> {
    answer(status, &json!({ "error": text }))
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    page::with(status, JSON, Body::full(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_it_are_its_own() {
        for (path, expected) in [
            ("/dashboard", true),
            ("/dashboard/", true),
            ("/dashboard/app.js", true),
            ("/dashboards", false),
            ("/", false),
            ("/x/dashboard", false),
        ] {
            assert_eq!(is_part(path), expected, "{path}");
        }
    }

    #[test]
    fn an_event_is_one_line_of_data_whatever_it_says() {
        let hostile = json!("a\r\n\n\ndata: b\u{2028}");
        let text = events(&[NewsItem { name: "now", data: hostile.clone() }]);
        let text = std::str::from_utf8(&text).unwrap();
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines.len(), 4, "{text:?}");
        assert_eq!((lines[0], lines[2], lines[3]), ("event: now", "", ""));
        let data: Value = serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data, hostile);
        assert_eq!(events(&[]), ":\n\n");
    }
}
