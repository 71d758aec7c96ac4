//! The outermost layer of a port: serves the set-up page and metrics, answers probes, maps reverse routes to their origins,
//! and sends `http` requests to hosts in `upgrade` as `https`. All other requests pass unchanged. It neither forwards nor
//! pays, and its responses change no state.

mod cookies;
mod cross_site;
mod dashboard;
mod identity;
mod metrics;
mod pac;
mod page;
mod program;
mod readiness;
mod refused;
mod route;
mod system;
mod token;
mod upgrade;

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use tower::{Layer, Service};

use super::authenticator::{AuthRefusal, CredentialPlace, peer_of};
use super::extensions::{
    BehindRouteToken, Confined, MappedUrl, RemoteClient, RequestClient, RequestedAuthority, TokenPlace,
    TracedTarget,
};
use super::handling::Handling;
use super::message::body::Body;
use crate::protocol::policy::HostPattern;
use crate::proxy::request_service::RequestService;
use crate::proxy::rulebook::CurrentRules;
use crate::tls::ServerTls;
use dashboard::DashboardVisit;
pub use dashboard::{
    DashboardAccess, DashboardEndpoint, DashboardError, DashboardNews, DashboardSource, NewsItem,
};
use identity::{LocalTarget, ProxyIdentity, ReachedAs};
pub use metrics::{MetricsEndpoint, MetricsSource};
use page::PageRequest;
pub use page::{CaFiles, Page};
pub use readiness::{Funds, PromisedPayments, Promises, Readiness};
use refused::FrontendRefusal;
pub use route::ReverseRoute;
use route::ReverseRoutes;
use token::PathToken;
pub use token::RouteToken;

/// Gives a page of an origin behind a route an origin of its own: with ours, its scripts could use the dashboard. Every
/// response has it, whatever the request tells of its purpose: a browser may show as a page what a script fetched and the
/// cache has kept. Policies add up.
const SANDBOX: HeaderValue =
    HeaderValue::from_static("sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts");

/// Serves the local endpoints of a port and passes all other requests to the inner service.
#[derive(Clone, Debug)]
pub struct Frontend<S> {
    inner: S,
    port: Arc<FrontendPort>,
}

/// The local endpoints of a port.
#[derive(Clone, Debug)]
struct FrontendPort {
    identity: ProxyIdentity,
    /// Absent if the port serves routes only and is not a proxy.
    page: Option<Page>,
    /// The certificate of the local CA, once HTTPS is intercepted.
    ca: Arc<OnceLock<CaFiles>>,
    /// What the page and probes tell.
    readiness: Readiness,
    /// Absent if the port does not have them.
    metrics: Option<MetricsEndpoint>,
    /// Absent if the port does not have one.
    dashboard: Option<DashboardEndpoint>,
    routes: ReverseRoutes,
    /// Guards the routes; absent if the proxy neither pays nor has clients.
    token: Option<RouteToken>,
    /// The clients whose tokens open the routes, too; absent if there are none.
    clients: Option<CurrentRules>,
    upgrade: Vec<HostPattern>,
}

/// The layer of [`Frontend`], for one port.
#[derive(Clone, Debug)]
pub struct FrontendLayer(FrontendPort);

impl FrontendLayer {
    /// For the proxy's own port, which listens on `listen`: the set-up page, and `routes`.
    ///
    /// `http` requests to hosts in `upgrade` go upstream as `https`. `token` guards the routes of a proxy that pays.
    #[must_use]
    pub fn proxy(
        listen: SocketAddr,
        page: Page,
        routes: Vec<ReverseRoute>,
        token: Option<RouteToken>,
        upgrade: Vec<HostPattern>,
    ) -> Self {
        let layer = Self::routes(listen, routes, token, upgrade);
        Self(FrontendPort { page: Some(page), ..layer.0 })
    }

    /// For a port that serves `routes` only.
    #[must_use]
    pub fn routes(
        listen: SocketAddr,
        routes: Vec<ReverseRoute>,
        token: Option<RouteToken>,
        upgrade: Vec<HostPattern>,
    ) -> Self {
        let (identity, routes) = (ProxyIdentity::new(listen), ReverseRoutes::new(routes));
        let (readiness, metrics, dashboard) = (Readiness::default(), None, None);
        let ca = Arc::default();
        let (page, clients) = (None, None);
        Self(FrontendPort {
            identity,
            page,
            ca,
            readiness,
            metrics,
            dashboard,
            routes,
            token,
            clients,
            upgrade,
        })
    }

    /// The same for a proxy whose `rules` know clients: their tokens open its routes, too.
    #[must_use]
    pub fn with_clients(mut self, rules: CurrentRules) -> Self {
        self.0.clients = Some(rules);
        self
    }

    /// The same for a port that speaks TLS, if there is `tls`.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<ServerTls>) -> Self {
        self.0.identity = self.0.identity.with_tls(tls);
        self
    }

    /// The same with `names`, in lower case and without a trailing dot, under which clients may address it, too.
    #[must_use]
    pub fn with_names(mut self, names: Arc<[String]>) -> Self {
        self.0.identity = self.0.identity.with_names(names);
        self
    }

    /// The same for a proxy that may intercept HTTPS later: its page then offers this certificate.
    #[must_use]
    pub fn with_ca(mut self, ca: Arc<OnceLock<CaFiles>>) -> Self {
        self.0.ca = ca;
        self
    }

    /// The same with metrics.
    #[must_use]
    pub fn with_metrics(mut self, metrics: MetricsEndpoint) -> Self {
        self.0.metrics = Some(metrics);
        self
    }

    /// The same with a dashboard, if there is one.
    #[must_use]
    pub fn with_dashboard(mut self, dashboard: Option<DashboardEndpoint>) -> Self {
        self.0.dashboard = dashboard;
        self
    }

    /// The same for a proxy of which this is known.
    #[must_use]
    pub fn with_readiness(mut self, readiness: Readiness) -> Self {
        self.0.readiness = readiness;
        self
    }
}

impl<S> Layer<S> for FrontendLayer {
    type Service = Frontend<S>;

    fn layer(&self, inner: S) -> Frontend<S> {
        Frontend { inner, port: Arc::new(self.0.clone()) }
    }
}

impl<S> Service<Request<Body>> for Frontend<S>
where
    S: RequestService<Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = FrontendFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.port.destination(&mut request) {
            Destination::Origin => FrontendFuture(FrontendState::Passed(self.inner.call(request))),
            Destination::Mapped { route, is_upgraded } => {
                let (port, url) = (Arc::clone(&self.port), request.uri().clone());
                let inner = self.inner.call(request);
                FrontendFuture(FrontendState::Mapped(Box::new(MappedFuture {
                    inner,
                    port,
                    url,
                    route,
                    is_upgraded,
                })))
            }
            Destination::Local(mut answer) => {
                // A refusal has set its own handling.
                answer.extensions_mut().get_or_insert(Handling::Local);
                FrontendFuture(FrontendState::Answered(Some(Box::new(answer))))
            }
            Destination::Later(answer) => FrontendFuture(FrontendState::Later(answer)),
        }
    }
}

/// Where a request goes.
enum Destination {
    /// To the origin in its target.
    Origin,
    /// To an origin other than the client requested: the target has been rewritten.
    Mapped { route: Option<TakenRoute>, is_upgraded: bool },
    /// Nowhere: this is the response.
    Local(Response<Body>),
    /// Nowhere: this is the response, once it is known.
    Later(BoxFuture<'static, Response<Body>>),
}

/// The route that a request takes.
#[derive(Clone, Debug)]
struct TakenRoute {
    index: usize,
    /// The token at the start of the path.
    token: Option<PathToken>,
}

impl FrontendPort {
    fn destination(&self, request: &mut Request<Body>) -> Destination {
        let Some(authority) = request.uri().authority() else { return self.direct(request) };
        if self.identity.may_be(authority.as_str()) {
            match self.identity.named(request.uri(), request.method()) {
                Some(LocalTarget::Served) => return self.here(request, ReachedAs::Proxy),
                Some(LocalTarget::NotServed) => {
                    return Destination::Local(FrontendRefusal::NoSuchPlace.answer());
                }
                None => {}
            }
        }
        if self.page.is_none() {
            return Destination::Local(FrontendRefusal::NoProxy.answer());
        }
        let is_secure = request.uri().scheme() == Some(&Scheme::HTTPS);
        let is_remote = request.extensions().get::<RemoteClient>().is_some();
        if is_secure && is_remote && !self.identity.is_tls() {
            return Destination::Local(FrontendRefusal::InTheClear.answer());
        }
        if self.upgrade(request) {
            return Destination::Mapped { route: None, is_upgraded: true };
        }
        Destination::Origin
    }

    /// A request in origin form, which addresses the proxy as a server.
    fn direct(&self, request: &mut Request<Body>) -> Destination {
        if request.method() == Method::CONNECT {
            // The tunnel reports what is missing.
            return Destination::Origin;
        }
        match self.identity.check_host(request) {
            Ok(()) => self.here(request, ReachedAs::Server),
            Err(refused) => Destination::Local(refused.answer()),
        }
    }

    /// A request to the proxy itself: a route, otherwise the page.
    fn here(&self, request: &mut Request<Body>, reached_as: ReachedAs) -> Destination {
        if request.extensions().get::<Confined>().is_some() {
            return Destination::Local(FrontendRefusal::NoSuchPlace.answer());
        }
        if request.uri().path() == "*" {
            return Destination::Local(self.server_options(request.method()));
        }
        if self.dashboard.is_some() && dashboard::is_part(request.uri().path()) {
            return self.dashboard(request, reached_as);
        }
        let path = request.uri().path();
        let (token, rest) = self.token_of(path).unzip();
        if let Some((index, route)) = self.routes.find(rest.unwrap_or(path)) {
            let taken = TakenRoute { index, token };
            return match self.take(route, &taken, request, reached_as) {
                Ok(()) => Destination::Mapped { route: Some(taken), is_upgraded: self.upgrade(request) },
                // Without a prefix, the path may as well start with a wrong token.
                Err(refused) if route.prefix.is_empty() && refused.is_about_token() => {
                    self.wrong_token(refused, request)
                }
                Err(refused) => Destination::Local(refused.answer()),
            };
        }
        if self.is_behind_wrong_token(path) {
            return self.wrong_token(FrontendRefusal::WrongToken, request);
        }
        if let Some(metrics) = self.metrics.as_ref().filter(|_| path == metrics::PATH) {
            return Destination::Later(metrics.answer(request));
        }
        let Some(page) = &self.page else {
            let refusal = match self.metrics {
                Some(_) => FrontendRefusal::OnlyMetrics,
                None => FrontendRefusal::NoRoute,
            };
            return Destination::Local(refusal.answer());
        };
        let answer = self.with_its_ca(page).answer(&self.visit(request, reached_as));
        let Some(answer) = answer else {
            let readiness = self.readiness.clone();
            let checking = async move { readiness::answer(&readiness.check().await) };
            return Destination::Later(Box::pin(checking));
        };
        Destination::Local(answer)
    }

    /// The token at the start of a path, and the path behind it.
    fn token_of<'a>(&self, path: &'a str) -> Option<(PathToken, &'a str)> {
        if self.routes.is_empty() {
            return None;
        }
        let (segment, rest) = token::first_segment(path)?;
        let client = match self.token.as_ref().is_some_and(|token| token.strip(path).is_some()) {
            true => None,
            false => Some(self.client_with(segment)?),
        };
        Some((PathToken::new(segment, client), rest))
    }

    /// The client with the token in a path segment.
    fn client_with(&self, segment: &str) -> Option<RequestClient> {
        let rules = self.clients.as_ref()?.get();
        let token = Cow::from(percent_decode_str(segment));
        let proven = rules.authenticator.as_ref()?.client_with(&token)?;
        Some(RequestClient { proven, version: rules.policy.version, shown_in: TokenPlace::Path })
    }

    /// Whether a path would lead to a route if its first segment were a token.
    fn is_behind_wrong_token(&self, path: &str) -> bool {
        self.token.is_some()
            && token::first_segment(path).is_some_and(|(_, rest)| self.routes.find(rest).is_some())
    }

    /// Refuses a request with a wrong token, which may be a guess.
    fn wrong_token(&self, refused: FrontendRefusal, request: &Request<Body>) -> Destination {
        let rules = self.clients.as_ref().map(CurrentRules::get);
        let authenticator = rules.as_ref().and_then(|rules| rules.authenticator.as_ref());
        let failure = authenticator.map(|known| known.fail(peer_of(request), Instant::now()));
        Destination::Local(match failure {
            Some(failure @ AuthRefusal::TooManyFailures { .. }) => {
                failure.response(CredentialPlace::Server, request)
            }
            Some(AuthRefusal::Missing | AuthRefusal::Wrong) | None => refused.answer(),
        })
    }

    /// The set-up page as of now.
    fn with_its_ca(&self, page: &Page) -> Page {
        Page { ca: self.ca.get().or(page.ca.as_ref()).cloned(), ..page.clone() }
    }

    /// A request for the set-up page.
    fn visit<'a>(&'a self, request: &'a Request<Body>, reached_as: ReachedAs) -> PageRequest<'a> {
        PageRequest {
            request,
            reached_as,
            address: self.identity.address_for(request, reached_as),
            listen: self.identity.listen(),
            is_tls: self.identity.is_tls(),
            routes: &self.routes,
            needs_route_token: self.token.as_ref().is_some_and(RouteToken::is_required),
            obstacles: self.readiness.known(),
            has_dashboard: self.dashboard.is_some(),
        }
    }

    /// A request for the dashboard.
    fn dashboard(&self, request: &mut Request<Body>, reached_as: ReachedAs) -> Destination {
        let (Some(dashboard), Some(page)) = (&self.dashboard, &self.page) else {
            return Destination::Local(FrontendRefusal::NoRoute.answer());
        };
        let asked = match reached_as {
            ReachedAs::Server => identity::host(request),
            ReachedAs::Proxy => request.uri().authority().cloned(),
        };
        let is_tls = reached_as == ReachedAs::Server && self.identity.is_tls();
        let exposed = request.extensions().get::<RemoteClient>().is_some() && !self.identity.is_tls();
        let visit = DashboardVisit {
            origin: asked.map(|asked| identity::origin(&asked, is_tls)),
            exposed,
            setup: match request.uri().path() {
                dashboard::SETUP => self.with_its_ca(page).setup(&self.visit(request, reached_as)),
                _ => serde_json::Value::Null,
            },
        };
        Destination::Later(dashboard.answer(request, visit))
    }

    /// Takes a route, if that is allowed at the host by which the client reached the proxy.
    fn take(
        &self,
        route: &ReverseRoute,
        taken: &TakenRoute,
        request: &mut Request<Body>,
        reached_as: ReachedAs,
    ) -> Result<(), FrontendRefusal> {
        let asked = match reached_as {
            ReachedAs::Server => identity::host(request),
            ReachedAs::Proxy => request.uri().authority().cloned(),
        };
        let client = taken.token.as_ref().and_then(|token| token.client.as_ref());
        if let Some(own) = &route.client
            && client.is_none_or(|client| client.name() != own.name)
        {
            return Err(FrontendRefusal::ClientRequired);
        }
        if let (Some(token), None) = (&self.token, &taken.token) {
            if token.is_required() {
                return Err(FrontendRefusal::TokenRequired);
            }
            if asked.as_ref().is_some_and(|asked| !identity::is_kept_apart(asked.host())) {
                return Err(FrontendRefusal::NoToken);
            }
        }
        let whole = self.whole(route, taken);
        let known = (request.method() == Method::TRACE).then(|| route.known(&whole, request.uri())).flatten();
        whole.enter(request)?;
        if let Some(known) = known {
            request.extensions_mut().insert(TracedTarget(known));
        }
        self.forget_referrer(request, taken.token.as_ref());
        let is_tls = reached_as == ReachedAs::Server && self.identity.is_tls();
        request.extensions_mut().insert(RequestedAuthority { authority: asked, is_tls });
        if let Some(client) = client {
            request.extensions_mut().insert(client.clone());
        } else if taken.token.is_some() {
            request.extensions_mut().insert(BehindRouteToken);
        }
        Ok(())
    }

    /// Removes a `Referer` with a token, which the origin could use, too.
    fn forget_referrer(&self, request: &mut Request<Body>, taken: Option<&PathToken>) {
        let has_token = |value: &HeaderValue| {
            let path = || Some(value.to_str().ok()?.parse::<Uri>().ok()?.path().to_owned());
            taken.is_some_and(|token| token.is_in(value.as_bytes()))
                || self.token.as_ref().is_some_and(|token| token.is_in(value.as_bytes()))
                || path().is_some_and(|path| self.token_of(&path).is_some())
        };
        if request.headers().get_all(header::REFERER).iter().any(has_token) {
            request.headers_mut().remove(header::REFERER);
        }
    }

    /// The route with its whole prefix, including the token.
    fn whole<'a>(&self, route: &'a ReverseRoute, taken: &TakenRoute) -> Cow<'a, ReverseRoute> {
        match &taken.token {
            Some(token) => Cow::Owned(ReverseRoute { prefix: token.before(&route.prefix), ..route.clone() }),
            None => Cow::Borrowed(route),
        }
    }

    /// The response to `OPTIONS *`.
    fn server_options(&self, method: &Method) -> Response<Body> {
        if method != Method::OPTIONS {
            return FrontendRefusal::NotOptions.answer();
        }
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        // A port for routes leaves the methods to their origins.
        if self.page.is_some() {
            let methods = HeaderValue::from_static("GET, HEAD, OPTIONS, CONNECT");
            response.headers_mut().insert(header::ALLOW, methods);
        }
        response
    }

    /// Changes an `http` target to `https` if `upgrade` lists its host; returns whether it did.
    fn upgrade(&self, request: &mut Request<Body>) -> bool {
        if self.upgrade.is_empty() {
            return false;
        }
        let asked = request.uri().authority().cloned();
        let is_upgraded = upgrade::target(request, &self.upgrade);
        if is_upgraded && request.extensions().get::<RequestedAuthority>().is_none() {
            request.extensions_mut().insert(RequestedAuthority { authority: asked, is_tls: false });
        }
        is_upgraded
    }

    /// Translates the locations in a response into those that the client knows.
    fn come_back(&self, answer: &mut Response<Body>, route: Option<&TakenRoute>, is_upgraded: bool) {
        if is_upgraded {
            upgrade::answer(answer, &self.upgrade);
            // A route knows whether its client uses TLS.
            if route.is_none() {
                upgrade::cookies(answer);
            }
        }
        let taken = route.and_then(|taken| Some((self.routes.at(taken.index)?, taken)));
        if let Some((route, taken)) = taken {
            self.whole(route, taken).leave(answer, self.identity.is_tls());
            if taken.token.is_some() {
                // Its pages would send their URLs, with the token, wherever they lead.
                let none = HeaderValue::from_static("no-referrer");
                answer.headers_mut().insert(header::REFERRER_POLICY, none);
            }
            if self.dashboard.is_some() {
                let headers = answer.headers_mut();
                headers.append(header::CONTENT_SECURITY_POLICY, SANDBOX);
                // A worker would get the requests of the dashboard, too.
                headers.remove("service-worker-allowed");
            }
        }
    }
}

/// The future of [`Frontend`].
#[must_use = "futures do nothing unless polled"]
pub struct FrontendFuture<F>(FrontendState<F>);

enum FrontendState<F> {
    Passed(F),
    /// Boxed, like an answer: most requests go to the origin in their target.
    Mapped(Box<MappedFuture<F>>),
    Answered(Option<Box<Response<Body>>>),
    Later(BoxFuture<'static, Response<Body>>),
}

/// A request whose target was rewritten.
struct MappedFuture<F> {
    inner: F,
    port: Arc<FrontendPort>,
    url: Uri,
    route: Option<TakenRoute>,
    is_upgraded: bool,
}

impl<F> Future for FrontendFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            FrontendState::Passed(inner) => Pin::new(inner).poll(cx),
            FrontendState::Mapped(mapped) => {
                let MappedFuture { inner, port, url, route, is_upgraded } = &mut **mapped;
                let Ok(mut answer) = ready!(Pin::new(inner).poll(cx));
                port.come_back(&mut answer, route.as_ref(), *is_upgraded);
                answer.extensions_mut().insert(MappedUrl(std::mem::take(url)));
                Poll::Ready(Ok(answer))
            }
            FrontendState::Answered(answer) => match answer.take() {
                Some(answer) => Poll::Ready(Ok(*answer)),
                None => Poll::Pending,
            },
            FrontendState::Later(answer) => {
                let mut answer = ready!(answer.as_mut().poll(cx));
                answer.extensions_mut().get_or_insert(Handling::Local);
                Poll::Ready(Ok(answer))
            }
        }
    }
}
