//! HTTP/2 origins, and connections that clients share: the heads of each version, what is resent, and that clients at
//! the same origin do not affect each other.

mod bound;
mod heads;
mod paid;
mod refused;
mod shared;

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tollpass::proxy::{Body, Forward, ForwardError, ProxySettings};
use tower::ServiceExt as _;

use crate::support::raw::soon;
use crate::support::secure::Notary;

/// The ALPN of an origin that supports HTTP/2 only.
const ONLY_HTTP_2: &[&str] = &["h2"];
const ONLY_HTTP_1: &[&str] = &["http/1.1"];

/// A forwarder that trusts origins of a notary.
struct Way {
    notary: Notary,
    forward: Forward,
}

impl Way {
    fn open() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ProxySettings)) -> Self {
        let notary = Notary::new();
        let mut settings = ProxySettings { ca_file: Some(notary.ca_file()), ..ProxySettings::default() };
        change(&mut settings);
        Self { notary, forward: Forward::new(&settings) }
    }

    /// The head of a response.
    async fn head(&self, request: Request<Body>) -> Result<Response<Body>, ForwardError> {
        soon("an answer", self.forward.clone().oneshot(request)).await
    }

    /// A whole response, as status and text.
    async fn ask(&self, request: Request<Body>) -> Result<(u16, String), ForwardError> {
        let answer = self.head(request).await?;
        let status = answer.status().as_u16();
        let body = soon("a body", answer.into_body().collect()).await.unwrap().to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn get(origin: SocketAddr, path: &str) -> Request<Body> {
    asked("GET", origin, path, Body::Empty)
}

fn asked(method: &str, origin: SocketAddr, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(format!("https://{origin}{path}")).body(body).unwrap()
}
