//! The outermost service of a port of ours. It answers what is meant for the proxy itself, maps reverse routes to their
//! origins, and lets `http` requests to hosts of `upgrade` go upstream as `https`. Everything else passes as it came.
//! It neither forwards nor pays, and nothing that it answers changes any state.

mod identity;
mod pac;
mod page;
mod program;
mod refused;
mod route;
mod token;
mod upgrade;

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, StatusCode};
use tower::Service;

use super::{Body, RequestService};
use crate::protocol::policy::HostPattern;
use identity::{Meant, Ours};
pub use page::{CaFiles, Page};
use page::{Reached, Visit};
use refused::Refused;
pub use route::Route;
use route::Routes;
pub use token::Token;

/// Request extension: the client is not on this machine, so what it says in the clear can be read on its way here.
#[derive(Clone, Copy, Debug)]
pub struct Remote;

/// Request extension: the client asked for another origin than the one that the target names by now. It asked over plain
/// http, at this host, if it named one.
#[derive(Clone, Debug)]
pub struct Asked(pub Option<Authority>);

/// Answers for a port of ours, and asks an inner service for everything else.
#[derive(Clone, Debug)]
pub struct Front<S> {
    inner: S,
    port: Arc<Port>,
}

/// What is served on a port.
#[derive(Debug)]
struct Port {
    ours: Ours,
    /// Absent where the port serves routes only, and is no proxy.
    page: Option<Page>,
    routes: Routes,
    /// What guards the routes; absent where nothing can be spent by them.
    token: Option<Token>,
    upgrade: Vec<HostPattern>,
}

impl<S> Front<S> {
    /// For the port of the proxy itself, which listens on `listen`: its set-up page, and routes below it.
    ///
    /// A plain request to a host of `upgrade` goes to `inner` as `https`. `token` guards the routes of a proxy that pays.
    #[must_use]
    pub fn proxy(
        listen: SocketAddr,
        page: Page,
        routes: Vec<Route>,
        token: Option<Token>,
        upgrade: Vec<HostPattern>,
        inner: S,
    ) -> Self {
        let (ours, routes) = (Ours::new(listen), Routes::new(routes));
        Self { inner, port: Arc::new(Port { ours, page: Some(page), routes, token, upgrade }) }
    }

    /// For a port that serves `routes` and nothing else.
    #[must_use]
    pub fn routes(
        listen: SocketAddr,
        routes: Vec<Route>,
        token: Option<Token>,
        upgrade: Vec<HostPattern>,
        inner: S,
    ) -> Self {
        let (ours, routes) = (Ours::new(listen), Routes::new(routes));
        Self { inner, port: Arc::new(Port { ours, page: None, routes, token, upgrade }) }
    }
}

impl<S> Service<Request<Body>> for Front<S>
where
    S: RequestService<Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Fronting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.port.place(&mut request) {
            Place::Elsewhere => Fronting(State::Passed(self.inner.call(request))),
            Place::Mapped { route, is_upgraded } => {
                let inner = self.inner.call(request);
                Fronting(State::Mapped { inner, port: Arc::clone(&self.port), route, is_upgraded })
            }
            Place::Here(answer) => Fronting(State::Answered(Some(answer))),
        }
    }
}

/// Where a request belongs.
enum Place {
    /// To the origin that it names.
    Elsewhere,
    /// To an origin that it did not name quite so: its target is another one now.
    Mapped { route: Option<Way>, is_upgraded: bool },
    /// Here, with this answer.
    Here(Response<Body>),
}

/// A route that was taken.
#[derive(Clone, Copy, Debug)]
struct Way {
    index: usize,
    /// With the token before its prefix.
    is_guarded: bool,
}

impl Port {
    fn place(&self, request: &mut Request<Body>) -> Place {
        let Some(authority) = request.uri().authority() else { return self.direct(request) };
        if self.ours.may_be(authority.as_str()) {
            match self.ours.named(request.uri(), request.method()) {
                Some(Meant::Here) => return self.here(request, Reached::Through),
                Some(Meant::Nowhere) => return Place::Here(Refused::NoSuchPlace.answer()),
                None => {}
            }
        }
        if self.page.is_none() {
            return Place::Here(Refused::NoProxy.answer());
        }
        let is_secure = request.uri().scheme() == Some(&Scheme::HTTPS);
        if is_secure && request.extensions().get::<Remote>().is_some() {
            return Place::Here(Refused::InTheClear.answer());
        }
        if self.upgrade(request) {
            return Place::Mapped { route: None, is_upgraded: true };
        }
        Place::Elsewhere
    }

    /// A request that names no origin: it was sent to us as to a server.
    fn direct(&self, request: &mut Request<Body>) -> Place {
        if request.method() == Method::CONNECT {
            // It says what it lacks further down.
            return Place::Elsewhere;
        }
        match self.ours.check_host(request) {
            Ok(()) => self.here(request, Reached::Directly),
            Err(refused) => Place::Here(refused.answer()),
        }
    }

    /// A request that is meant for us: a route, else the page.
    fn here(&self, request: &mut Request<Body>, reached: Reached) -> Place {
        if request.uri().path() == "*" {
            return Place::Here(self.server_options(request.method()));
        }
        let path = request.uri().path();
        let behind_token = self.token.as_ref().and_then(|token| token.strip(path));
        if let Some((index, route)) = self.routes.find(behind_token.unwrap_or(path)) {
            let way = Way { index, is_guarded: behind_token.is_some() };
            return match self.take(route, way, request, reached) {
                Ok(()) => Place::Mapped { route: Some(way), is_upgraded: self.upgrade(request) },
                Err(refused) => Place::Here(refused.answer()),
            };
        }
        let Some(page) = &self.page else { return Place::Here(Refused::NoRoute.answer()) };
        let address = self.ours.address_for(request, reached);
        Place::Here(page.answer(&Visit {
            request,
            reached,
            address,
            listen: self.ours.listen(),
            routes: &self.routes,
        }))
    }

    /// Takes a route, if it may be taken at the host by which the client reached us.
    fn take(
        &self,
        route: &Route,
        way: Way,
        request: &mut Request<Body>,
        reached: Reached,
    ) -> Result<(), Refused> {
        let asked = match reached {
            Reached::Directly => identity::host(request),
            Reached::Through => request.uri().authority().cloned(),
        };
        let needs_token = asked.as_ref().is_some_and(|asked| !identity::is_kept_apart(asked.host()));
        if needs_token && self.token.is_some() && !way.is_guarded {
            return Err(Refused::NoToken);
        }
        self.whole(route, way).enter(request, &self.ours)?;
        request.extensions_mut().insert(Asked(asked));
        Ok(())
    }

    /// A route with all that paths below it begin with.
    fn whole<'a>(&self, route: &'a Route, way: Way) -> Cow<'a, Route> {
        match &self.token {
            Some(token) if way.is_guarded => {
                Cow::Owned(Route { prefix: token.before(&route.prefix), ..route.clone() })
            }
            _ => Cow::Borrowed(route),
        }
    }

    /// What the server as a whole can do: the answer to `OPTIONS *`.
    fn server_options(&self, method: &Method) -> Response<Body> {
        if method != Method::OPTIONS {
            return Refused::NotOptions.answer();
        }
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        // What the origins of routes can do is theirs to say.
        if self.page.is_some() {
            let methods = HeaderValue::from_static("GET, HEAD, OPTIONS, CONNECT");
            response.headers_mut().insert(header::ALLOW, methods);
        }
        response
    }

    /// Makes a target `https` where it is to be; whether it is.
    fn upgrade(&self, request: &mut Request<Body>) -> bool {
        if self.upgrade.is_empty() {
            return false;
        }
        let asked = request.uri().authority().cloned();
        let is_upgraded = upgrade::target(request, &self.upgrade);
        if is_upgraded && request.extensions().get::<Asked>().is_none() {
            request.extensions_mut().insert(Asked(asked));
        }
        is_upgraded
    }

    /// Turns what an answer says of places into what the client knows of them.
    fn come_back(&self, answer: &mut Response<Body>, route: Option<Way>, is_upgraded: bool) {
        if is_upgraded {
            upgrade::answer(answer, &self.upgrade);
        }
        let taken = route.and_then(|way| Some((self.routes.at(way.index)?, way)));
        if let Some((route, way)) = taken {
            self.whole(route, way).leave(answer);
        }
    }
}

/// The future of [`Front`]: what passes is not boxed.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct Fronting<F>(State<F>);

#[derive(Debug)]
enum State<F> {
    Passed(F),
    Mapped { inner: F, port: Arc<Port>, route: Option<Way>, is_upgraded: bool },
    Answered(Option<Response<Body>>),
}

impl<F> Future for Fronting<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Passed(inner) => Pin::new(inner).poll(cx),
            State::Mapped { inner, port, route, is_upgraded } => {
                let Ok(mut answer) = ready!(Pin::new(inner).poll(cx));
                port.come_back(&mut answer, *route, *is_upgraded);
                Poll::Ready(Ok(answer))
            }
            State::Answered(answer) => match answer.take() {
                Some(answer) => Poll::Ready(Ok(answer)),
                None => Poll::Pending,
            },
        }
    }
}
