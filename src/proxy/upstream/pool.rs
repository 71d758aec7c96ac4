//! Connections to origins, and the choice of one for each request. An HTTP/1.1 connection carries one request at a time
//! and is kept for the next; an HTTP/2 connection carries several. The version is known only once a connection has been
//! chosen, so heads are adapted to it here.
//!
//! One client's request must not hold up another's: see [`MultiplexedConnection`].

mod exclusive;
mod key;
mod limits;
mod multiplexed;
pub(crate) mod retry;
pub(crate) mod upload;
mod wakeups;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;
use http::header::{self, HeaderValue};
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::client::conn::http1;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use self::exclusive::{ExclusiveConnection, IdleConnection, KeepsIdle};
use self::key::PoolKey;
use self::limits::PoolLimits;
pub(crate) use self::multiplexed::StreamPermit;
use self::multiplexed::{MultiplexedConnection, PendingDial, TracksConnections};
use self::retry::RetryHandle;
use super::connector::Connector;
use super::egress::Reach;
use super::error::DialError;
use super::parked::ParkedConnections;
use super::tls;
use super::tls::AlpnOffer;
use crate::error_chain::with_causes;
use crate::limits::Limits;
use crate::mutex::lock;
use crate::proxy::descriptors::EvictIdle;
use crate::proxy::downstream::client_io::ConnectionId;
use crate::proxy::error::ForwardError;
use crate::proxy::message::body::Body;
use crate::proxy::message::byte_body::BodyError;
use crate::proxy::message::headers::{DEFAULT_HEADER_COUNT, Present};
use crate::proxy::message::multiplexed::{HoldsStream as _, MultiplexedBody};
use crate::proxy::message::{headers, target};

/// The default of hyper's read buffer.
const USUAL_BUFFER: usize = 8192 + 4096 * 100;
/// Longest interval between sweeps: connections closed by their origins take memory until then.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// Responses whose handling depends on the connection. It costs others an allocation to carry it.
const TELLING: [StatusCode; 2] = [StatusCode::PAYMENT_REQUIRED, StatusCode::PROXY_AUTHENTICATION_REQUIRED];
/// HPACK shrinks a head to no less than this fraction, unless the head repeats itself.
const MOST_COMPRESSED: u64 = 4;

/// Connections for one kind of request.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<PoolState>);

#[derive(Debug)]
pub(crate) struct PoolState {
    connector: Connector,
    offer: AlpnOffer,
    /// Whether requests carry payments. Such a request is sent again only if the origin states that it did not process it, or
    /// that it requires HTTP/1.1.
    pays: bool,
    http1: http1::Builder,
    limits: PoolLimits,
    pools: Mutex<OriginPools>,
    /// Something has happened on an idle connection.
    news: Arc<Notify>,
    /// The pools of all workers for this kind of request.
    peers: Arc<Mutex<Vec<Weak<Self>>>>,
}

/// The connections by key.
#[derive(Debug, Default)]
struct OriginPools {
    by_origin: HashMap<PoolKey, OriginPool, RandomState>,
    /// How many entries are bound to one client.
    bound: usize,
    is_swept: bool,
}

/// The connections to one origin.
#[derive(Debug, Default)]
struct OriginPool {
    idle: Vec<IdleConnection>,
    multiplexed: Vec<Arc<MultiplexedConnection>>,
    /// Connections that are being opened, or whose limits are not known yet.
    dialling: usize,
    speaks_http2: bool,
    news: Arc<Notify>,
    /// Each HTTP/1.1 connection holds it.
    open: Arc<()>,
}

impl OriginPool {
    fn is_used(&self) -> bool {
        self.dialling > 0 || !self.idle.is_empty() || !self.multiplexed.is_empty() || self.is_open()
    }

    /// Whether there is an HTTP/1.1 connection, idle or not.
    fn is_open(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }
}

/// A request and how to send it.
#[derive(Debug)]
pub(crate) struct PoolRequest {
    /// Boxed, because each future that it moves into would take its space twice.
    pub(crate) request: Box<Request<Body>>,
    /// Whether it needs a new connection.
    pub(crate) is_fresh: bool,
    /// The addresses that it may reach.
    pub(crate) reach: Reach,
    /// The client's connection, if it is known.
    pub(crate) client: Option<ConnectionId>,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct PoolError {
    pub(crate) error: ForwardError,
    pub(crate) cause: FailureCause,
}

/// Whether a failure is due to the connection, which other requests used or use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureCause {
    /// The request itself, or unknown.
    Request,
    /// The origin closed the connection while it was idle: the request got no byte.
    StaleConnection,
    /// The requests on this connection are too many for the origin, which may have begun to process this one.
    Overload,
}

impl From<DialError> for PoolError {
    fn from(error: DialError) -> Self {
        Self { error: error.into(), cause: FailureCause::Request }
    }
}

/// Resolves to the response, once its head has been received.
pub(crate) type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, PoolError>> + Send>>;

/// A connection, or a stream of one, that the pool gives to a request.
enum Checkout {
    Exclusive(Box<ExclusiveConnection>),
    Multiplexed(StreamPermit),
}

/// The result of sending a request on a connection.
enum SendOutcome {
    Response(Response<Body>),
    /// No byte of the request was written.
    Unwritten(Box<Request<Body>>, hyper::Error),
    /// The origin states that it did not process the request.
    Refused(RefusedStream),
    Failed(PoolError),
}

/// A stream that the origin did not process.
struct RefusedStream {
    why: String,
    /// The request, if it can be sent again.
    again: Option<Box<Request<Body>>>,
    /// The origin wants HTTP/1.1 for it.
    wants_http1: bool,
}

impl Pool {
    pub(crate) fn new(limits: &Limits, connector: Connector, offer: AlpnOffer, pays: bool) -> Self {
        let mut http1 = http1::Builder::new();
        // A proxy removes spaces before the colon of a response header. RFC 9112 section 5.1.
        http1.allow_spaces_after_header_name_in_responses(true).max_header_size(limits.head_bytes);
        if limits.head_bytes > USUAL_BUFFER {
            http1.max_buf_size(limits.head_bytes);
        }
        if limits.head_fields != DEFAULT_HEADER_COUNT {
            http1.max_headers(limits.head_fields);
        }
        let pool_limits = PoolLimits {
            idle: limits.pool_idle_per_host,
            keepalive_timeout: limits.pool_idle_timeout,
            connect_timeout: limits.connect_timeout,
            streams: limits.origin_streams,
            head_bytes: limits.head_bytes,
            head_fields: limits.head_fields,
            ping_every: limits.ping_every,
            ping_timeout: limits.ping_timeout,
            kept: limits.replay_memory,
        };
        let (pools, news, peers) = (Mutex::default(), Arc::default(), Arc::default());
        Self::joining(PoolState { connector, offer, pays, http1, limits: pool_limits, pools, news, peers })
    }

    /// The pool of another worker, which keeps at most `idle` idle connections per origin.
    pub(crate) fn for_worker(&self, idle: usize, parked: &ParkedConnections) -> Self {
        let PoolState { connector, offer, pays, http1, limits, peers, pools: _, news: _ } = &*self.0;
        Self::joining(PoolState {
            connector: Connector { parked: parked.clone(), ..connector.clone() },
            offer: *offer,
            pays: *pays,
            http1: http1.clone(),
            limits: PoolLimits { idle, ..limits.clone() },
            pools: Mutex::default(),
            news: Arc::default(),
            peers: Arc::clone(peers),
        })
    }

    fn joining(state: PoolState) -> Self {
        let state = Arc::new(state);
        let evictable: Weak<dyn EvictIdle> = Arc::<PoolState>::downgrade(&state);
        state.connector.egress.idle().add(evictable);
        lock(&state.peers).push(Arc::downgrade(&state));
        Self(state)
    }

    /// Sends a request with a target in absolute form.
    pub(crate) fn request(&self, asked: PoolRequest) -> ResponseFuture {
        Box::pin(Arc::clone(&self.0).request(asked))
    }
}

impl PoolState {
    async fn request(self: Arc<Self>, asked: PoolRequest) -> Result<Response<Body>, PoolError> {
        let PoolRequest { mut request, mut is_fresh, reach, client } = asked;
        let binds = headers::binds_connection(request.headers());
        // Each attempt gets what its connection takes of it.
        let target = std::mem::take(request.uri_mut());
        let mut origin = self.origin(&target, reach, client.as_ref(), binds)?;
        let mut offer = if binds || origin.client.is_some() { AlpnOffer::Http1 } else { self.offer };
        // A request that binds its connection, of an unknown client, must neither get nor leave a shared one.
        is_fresh |= binds && origin.client.is_none();
        let mut is_repeated = false;
        loop {
            let (chosen, is_reused) =
                match if is_fresh { None } else { self.reusable(&origin, client.as_ref(), &request).await } {
                    Some(chosen) => (chosen, true),
                    // Boxed: rarely needed, and much larger than the rest.
                    None => match Box::pin(self.dial(&origin, &target, offer, &request)).await {
                        Ok(chosen) => (chosen, false),
                        // The origin has seen the first attempt.
                        Err(PoolError { error, .. }) if is_repeated => {
                            return Err(not_processed(error.to_string()));
                        }
                        Err(failed) => return Err(failed),
                    },
                };
            let sent = match chosen {
                Checkout::Exclusive(connection) => {
                    for_http1(&mut request, &target, connection.reuse().is_proxied());
                    self.send_exclusive(connection, request, &mut origin, client.as_ref(), binds).await
                }
                Checkout::Multiplexed(permit) => {
                    *request.uri_mut() = target.clone();
                    Box::pin(self.send_multiplexed(permit, request)).await
                }
            };
            request = match sent {
                SendOutcome::Response(response) => return Ok(response),
                // The connection ended while it was idle; try the next one.
                SendOutcome::Unwritten(again, _) if is_reused && !self.pays => again,
                SendOutcome::Unwritten(_, error) if is_repeated => {
                    return Err(not_processed(with_causes(&error)));
                }
                SendOutcome::Unwritten(_, error) => {
                    return Err(PoolError {
                        error: ForwardError::Unwritten(with_causes(&error)),
                        cause: FailureCause::Request,
                    });
                }
                SendOutcome::Refused(RefusedStream { again: Some(again), wants_http1, .. })
                    if !is_repeated =>
                {
                    is_repeated = true;
                    // On a new connection, no other request can be the reason for a refusal.
                    is_fresh = true;
                    if wants_http1 {
                        offer = AlpnOffer::Http1;
                    }
                    again
                }
                SendOutcome::Refused(RefusedStream { why, .. }) => {
                    let error = ForwardError::NotProcessed { why, is_repeated };
                    return Err(PoolError { error, cause: FailureCause::Request });
                }
                SendOutcome::Failed(failed) => return Err(failed),
            };
        }
    }

    /// The key of the connections that a request may use.
    fn origin(
        &self,
        target: &Uri,
        reach: Reach,
        client: Option<&ConnectionId>,
        binds: bool,
    ) -> Result<PoolKey, PoolError> {
        let Some(authority) = target.authority().cloned() else {
            let error = ForwardError::BadTarget("it names no host");
            return Err(PoolError { error, cause: FailureCause::Request });
        };
        let is_secure = target.scheme() == Some(&Scheme::HTTPS);
        let mut origin = PoolKey { is_secure, authority, reach, client: None };
        if client.is_some() && (binds || self.lock().bound > 0) {
            origin.client = client.cloned();
            if !binds && !self.lock().by_origin.contains_key(&origin) {
                origin.client = None;
            }
        }
        Ok(origin)
    }

    /// A connection that is open, or that another request is opening if it can be shared.
    async fn reusable(
        self: &Arc<Self>,
        origin: &PoolKey,
        client: Option<&ConnectionId>,
        request: &Request<Body>,
    ) -> Option<Checkout> {
        match self.wait_for(origin, request).await {
            None => self.borrow(origin, client),
            own => own,
        }
    }

    /// An open connection of this worker, or one that another request is opening if it can be shared.
    async fn wait_for(self: &Arc<Self>, origin: &PoolKey, request: &Request<Body>) -> Option<Checkout> {
        let mut by = None;
        let may_share = MultiplexedConnection::may_share(request.body());
        loop {
            let news = {
                let mut pools = self.lock();
                let entry = pools.by_origin.get_mut(origin)?;
                if let Some(chosen) = self.choose(entry, origin, request) {
                    return Some(chosen);
                }
                if !may_share || !entry.speaks_http2 || entry.dialling == 0 {
                    return None;
                }
                Arc::clone(&entry.news).notified_owned()
            };
            let by = *by.get_or_insert_with(|| Instant::now() + self.limits.connect_timeout);
            timeout_at(by, news).await.ok()?;
        }
    }

    fn choose(
        self: &Arc<Self>,
        entry: &mut OriginPool,
        origin: &PoolKey,
        request: &Request<Body>,
    ) -> Option<Checkout> {
        entry.multiplexed.retain(|shared| shared.is_open());
        if let Some(permit) = entry
            .multiplexed
            .iter()
            .find_map(|shared| MultiplexedConnection::reserve(shared, self, origin, request.body()))
        {
            return Some(Checkout::Multiplexed(permit));
        }
        while let Some(mut idle) = entry.idle.pop() {
            if idle.is_usable(self.limits.keepalive_timeout) {
                return Some(Checkout::Exclusive(idle.into_exclusive()));
            }
        }
        None
    }

    /// An idle connection of another worker, which stays there, if this worker has none to the origin: clients that come
    /// one after the other may get different workers. A worker that has some is busy enough for one more of its own,
    /// which costs its requests no step to another thread. A client that stays borrows once: after that, a connection of
    /// its own worker takes the place of the other.
    fn borrow(&self, origin: &PoolKey, client: Option<&ConnectionId>) -> Option<Checkout> {
        if self.lock().by_origin.get(origin).is_some_and(OriginPool::is_used) {
            return None;
        }
        let others: Vec<Arc<Self>> = lock(&self.peers).iter().filter_map(Weak::upgrade).collect();
        let borrowed = others.iter().find_map(|other| {
            let mut pools = other.lock();
            let idle = &mut pools.by_origin.get_mut(origin)?.idle;
            let within = self.limits.keepalive_timeout;
            let mut popped = std::iter::from_fn(|| idle.pop());
            let usable = popped.find_map(|mut idle| if idle.is_usable(within) { Some(idle) } else { None });
            usable.map(|idle| Checkout::Exclusive(idle.into_exclusive()))
        });
        borrowed.filter(|_| client.is_none_or(ConnectionId::may_borrow))
    }

    /// Counts a dial until its result is known.
    fn begin_dial(self: &Arc<Self>, key: &PoolKey) -> (PendingDial, Arc<()>) {
        let open = {
            let mut pools = self.lock();
            let entry = self.entry(&mut pools, key.clone());
            entry.dialling += 1;
            Arc::clone(&entry.open)
        };
        let pool: Weak<dyn TracksConnections> = Arc::<Self>::downgrade(self);
        (PendingDial::new(pool, key.clone()), open)
    }

    /// Opens a connection, whose version is known afterwards.
    async fn dial(
        self: &Arc<Self>,
        origin: &PoolKey,
        target: &Uri,
        offer: AlpnOffer,
        request: &Request<Body>,
    ) -> Result<Checkout, PoolError> {
        let (dialling, open) = self.begin_dial(origin);
        let stream = self.connector.connect(target, offer, origin.reach).await?;
        if !stream.speaks_http2() {
            return Ok(Checkout::Exclusive(
                ExclusiveConnection::open(self, &self.news, &self.http1, stream, open)
                    .await
                    .map_err(opened)?,
            ));
        }
        let shared =
            MultiplexedConnection::open(&self.limits, origin, stream, dialling).await.map_err(opened)?;
        let Some(permit) = MultiplexedConnection::reserve(&shared, self, origin, request.body()) else {
            let error = ForwardError::Unwritten("the connection ended as soon as it was opened".to_owned());
            return Err(PoolError { error, cause: FailureCause::Request });
        };
        let mut pools = self.lock();
        let entry = self.entry(&mut pools, origin.clone());
        entry.speaks_http2 = true;
        entry.multiplexed.push(shared);
        Ok(Checkout::Multiplexed(permit))
    }

    /// Sends over HTTP/1.1 and keeps the connection for the next request.
    async fn send_exclusive(
        self: &Arc<Self>,
        connection: Box<ExclusiveConnection>,
        request: Box<Request<Body>>,
        origin: &mut PoolKey,
        client: Option<&ConnectionId>,
        binds: bool,
    ) -> SendOutcome {
        let reuse = connection.reuse().clone();
        match connection.send(*request).await {
            Ok((mut response, answering)) => {
                if TELLING.contains(&response.status()) {
                    response.extensions_mut().insert(reuse);
                }
                let present = Present::among(response.headers());
                let is_bound = binds || headers::binds_response(response.headers(), present);
                if is_bound {
                    // Reserved for its client from here on; closed if the client is unknown.
                    origin.client = client.cloned();
                }
                let key = (!is_bound || origin.client.is_some()).then(|| origin.clone());
                SendOutcome::Response(response.map(|incoming| answering.keep(key, incoming)))
            }
            Err(mut error) => match error.take_message() {
                Some(request) => SendOutcome::Unwritten(Box::new(request), error.into_error()),
                None => {
                    let cause = if reuse.went_stale() {
                        FailureCause::StaleConnection
                    } else {
                        FailureCause::Request
                    };
                    SendOutcome::Failed(PoolError { error: classify(&error.into_error()), cause })
                }
            },
        }
    }

    /// Sends over HTTP/2, next to other requests.
    async fn send_multiplexed(
        &self,
        mut permit: StreamPermit,
        mut request: Box<Request<Body>>,
    ) -> SendOutcome {
        let mut copy = Request::new(Body::Empty);
        *copy.method_mut() = request.method().clone();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        for_http2(&mut request);
        let mut retry = None;
        if !request.body().is_end_stream() {
            let body = std::mem::take(request.body_mut());
            let (handle, retriable) = RetryHandle::new(body, self.limits.kept, permit.upload());
            *request.body_mut() = Body::Retriable(Box::new(retriable));
            retry = Some(handle);
        }
        let mut error = match permit.send(*request).await {
            Ok(mut response) => {
                if response.headers().len() > self.limits.head_fields {
                    return SendOutcome::Failed(PoolError {
                        error: ForwardError::HeadTooLarge,
                        cause: FailureCause::Request,
                    });
                }
                if TELLING.contains(&response.status()) {
                    response.extensions_mut().insert(permit.reuse().clone());
                }
                let is_sent = retry.is_none();
                let response = response.map(|incoming| {
                    Body::Multiplexed(Box::new(MultiplexedBody::new(incoming, is_sent, permit)))
                });
                return SendOutcome::Response(response);
            }
            Err(error) => error,
        };
        let (went_stale, bytes, was_alone) = (permit.went_stale(), permit.bytes_since(), permit.was_alone());
        permit.complete();
        if let Some(request) = error.take_message() {
            permit.retire();
            // The next connection may use another version, so take the body out of its wrapper.
            return match retry.map_or_else(|| Some(request.into_body()), RetryHandle::take_back) {
                Some(body) => SendOutcome::Unwritten(Box::new(copy.map(|_| body)), error.into_error()),
                None => SendOutcome::Failed(PoolError {
                    error: classify(&error.into_error()),
                    cause: FailureCause::Request,
                }),
            };
        }
        let error = error.into_error();
        let refusal = cause::<h2::Error>(&error).and_then(refusal);
        // The origin did not process the request, so a payment is sent again unchanged.
        let wants_http1 = refusal == Some(StreamRefusal::WantsHttp1);
        if refusal == Some(StreamRefusal::NotProcessed) || wants_http1 {
            permit.retire();
            let body = retry.map_or(Some(Body::Empty), RetryHandle::take_back);
            let again = body.map(|body| Box::new(copy.map(|_| body)));
            return SendOutcome::Refused(RefusedStream { why: with_causes(&error), again, wants_http1 });
        }
        // We closed the connection because of a stream error of the origin.
        let ended = cause::<h2::Error>(&error).is_some_and(|ended| ended.is_library() && ended.is_go_away());
        let is_of_another = ended && !was_alone;
        let cause = if refusal == Some(StreamRefusal::Overload) || is_of_another {
            permit.retire();
            FailureCause::Overload
        } else if went_stale {
            FailureCause::StaleConnection
        } else {
            FailureCause::Request
        };
        let error = if is_of_another { classify(&error) } else { self.classify_multiplexed(&error, bytes) };
        SendOutcome::Failed(PoolError { error, cause })
    }

    /// h2 resets a stream in the same way for a head above our limit and for a malformed one, and closes the connection for
    /// a far larger one, or one whose headers are malformed. The number of bytes read distinguishes them.
    fn classify_multiplexed(&self, error: &hyper::Error, bytes: u64) -> ForwardError {
        match cause::<h2::Error>(error) {
            Some(ended) if is_bad_head(ended) && bytes >= self.limits.head_bytes as u64 / MOST_COMPRESSED => {
                ForwardError::HeadTooLarge
            }
            Some(ended) if is_bad_head(ended) => ForwardError::BadAnswer(with_causes(error)),
            _ => classify(error),
        }
    }

    /// The entry of an origin. Starts the sweeper with the first entry.
    fn entry<'a>(self: &Arc<Self>, pools: &'a mut OriginPools, origin: PoolKey) -> &'a mut OriginPool {
        if !std::mem::replace(&mut pools.is_swept, true) {
            let pool = Arc::downgrade(self);
            let pause = self.limits.keepalive_timeout.clamp(Duration::from_millis(100), SWEEP_EVERY);
            let news = Arc::clone(&self.news);
            tokio::spawn(async move {
                loop {
                    // Either way, it is time to look.
                    let _ = timeout(pause, news.notified()).await;
                    let Some(pool) = pool.upgrade() else { return };
                    if pool.sweep() {
                        return;
                    }
                }
            });
        }
        let is_bound = origin.client.is_some();
        match pools.by_origin.entry(origin) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(vacant) => {
                pools.bound += usize::from(is_bound);
                vacant.insert(OriginPool::default())
            }
        }
    }

    /// Removes closed and expired connections; returns whether none is left.
    fn sweep(&self) -> bool {
        let mut pools = self.lock();
        let within = self.limits.keepalive_timeout;
        let mut bound = 0;
        pools.by_origin.retain(|origin, entry| {
            let is_left = origin.client.as_ref().is_some_and(ConnectionId::has_left);
            entry.idle.retain_mut(|idle| !is_left && idle.is_usable(within));
            entry.multiplexed.retain(|shared| {
                shared.is_open() && shared.idle_since().is_none_or(|since| since.elapsed() < within)
            });
            bound += usize::from(entry.is_used() && origin.client.is_some());
            entry.is_used()
        });
        pools.bound = bound;
        pools.is_swept = !pools.by_origin.is_empty();
        !pools.is_swept
    }

    // Code that holds this lock cannot leave the entries half changed.
    fn lock(&self) -> MutexGuard<'_, OriginPools> {
        lock(&self.pools)
    }
}

impl KeepsIdle for PoolState {
    fn keep(self: Arc<Self>, key: PoolKey, idle: IdleConnection) {
        if self.limits.idle == 0 {
            return;
        }
        let mut pools = self.lock();
        let entry = self.entry(&mut pools, key);
        if entry.idle.len() >= self.limits.idle {
            entry.idle.retain_mut(|idle| idle.is_usable(self.limits.keepalive_timeout));
        }
        if entry.idle.len() < self.limits.idle {
            entry.idle.push(idle);
        }
    }
}

impl TracksConnections for PoolState {
    /// Keeps the connection if it is usable and the pool has not enough idle ones.
    fn became_idle(&self, key: &PoolKey, connection: &Arc<MultiplexedConnection>) {
        let mut pools = self.lock();
        let Some(entry) = pools.by_origin.get_mut(key) else { return };
        let idle = entry.multiplexed.iter().filter(|shared| shared.idle_since().is_some()).count();
        if idle > self.limits.idle || !connection.is_open() {
            entry
                .multiplexed
                .retain(|other| !Arc::ptr_eq(other, connection) || connection.idle_since().is_none());
        }
    }

    /// Wakes the requests that wait for a connection being opened.
    fn dial_ended(&self, key: &PoolKey) {
        let mut pools = self.lock();
        let Some(entry) = pools.by_origin.get_mut(key) else { return };
        entry.dialling = entry.dialling.saturating_sub(1);
        entry.news.notify_waiters();
        // An unreachable origin leaves no entry.
        if !entry.is_used() && !entry.speaks_http2 {
            pools.by_origin.remove(key);
            pools.bound -= usize::from(key.client.is_some());
        }
    }
}

impl EvictIdle for PoolState {
    fn idle_since(&self) -> Vec<Instant> {
        let mut pools = self.lock();
        let since = |entry: &mut OriginPool| {
            // A connection that the origin has closed is closed here, too.
            entry.idle.retain_mut(|idle| idle.is_usable(self.limits.keepalive_timeout));
            let multiplexed = entry.multiplexed.iter().filter_map(|shared| shared.idle_since());
            entry.idle.iter().map(IdleConnection::since).chain(multiplexed).collect::<Vec<_>>()
        };
        pools.by_origin.values_mut().flat_map(since).collect()
    }

    fn evict(&self, until: Instant) -> usize {
        let mut evicted = 0;
        for entry in self.lock().by_origin.values_mut() {
            let before = entry.idle.len() + entry.multiplexed.len();
            entry.idle.retain(|idle| idle.since() > until);
            entry.multiplexed.retain(|shared| shared.idle_since().is_none_or(|since| since > until));
            evicted += before - entry.idle.len() - entry.multiplexed.len();
        }
        evicted
    }
}

/// The origin did not process the first attempt, and the second one failed.
fn not_processed(why: String) -> PoolError {
    PoolError { error: ForwardError::NotProcessed { why, is_repeated: true }, cause: FailureCause::Request }
}

fn opened(error: hyper::Error) -> PoolError {
    PoolError { error: ForwardError::Unwritten(with_causes(&error)), cause: FailureCause::Request }
}

/// Adapts the head of a request to `target` to HTTP/1.1: origin form (absolute form for a proxy), `Connection` and
/// `Transfer-Encoding`.
pub(crate) fn for_http1(request: &mut Request<Body>, target: &Uri, is_proxied: bool) {
    let is_chunked = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    let fields = request.headers_mut();
    if is_chunked {
        // Explicit, because hyper would drop the body of a GET otherwise.
        fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let present = Present::among(fields);
    let options = match (present.has(Present::TE), present.has(Present::UPGRADE)) {
        (true, true) => Some("te, upgrade"),
        (true, false) => Some("te"),
        (false, true) => Some("upgrade"),
        (false, false) => None,
    };
    if let Some(options) = options {
        fields.insert(header::CONNECTION, HeaderValue::from_static(options));
    }
    *request.uri_mut() = match target.path_and_query() {
        _ if is_proxied => target.clone(),
        Some(path) if path.as_str() != "/" => Uri::from(path.clone()),
        _ => Uri::default(),
    };
}

/// Removes headers that HTTP/2 expresses differently or does not have. RFC 9113 sections 8.2.2 and 8.3.1.
fn for_http2(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_2;
    target::drop_zone(request);
    let fields = request.headers_mut();
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        fields.remove(name);
    }
}

/// Why an origin did not process a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamRefusal {
    NotProcessed,
    WantsHttp1,
    Overload,
}

/// Why a peer did not process a stream: it refused it, or went away before it (RFC 9113 sections 6.8 and 8.7).
fn refusal(error: &h2::Error) -> Option<StreamRefusal> {
    if !error.is_remote() {
        return None;
    }
    // h2 reports GOAWAY only for streams above the last one processed; the others end with the connection.
    if error.is_go_away() || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)) {
        return Some(StreamRefusal::NotProcessed);
    }
    match error.reason().filter(|_| error.is_reset()) {
        Some(h2::Reason::HTTP_1_1_REQUIRED) => Some(StreamRefusal::WantsHttp1),
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(StreamRefusal::Overload),
        _ => None,
    }
}

/// Whether we reset a stream or closed the connection because of a response head. The connection must have had no other
/// stream.
fn is_bad_head(error: &h2::Error) -> bool {
    let of_stream = error.is_reset() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
    let of_connection = [
        Some(h2::Reason::ENHANCE_YOUR_CALM),
        Some(h2::Reason::COMPRESSION_ERROR),
        // Such as a name in capitals, or a line break in a value.
        Some(h2::Reason::PROTOCOL_ERROR),
    ];
    error.is_library() && (of_stream || (error.is_go_away() && of_connection.contains(&error.reason())))
}

fn classify(error: &hyper::Error) -> ForwardError {
    if let Some(body) = cause::<BodyError>(error) {
        return ForwardError::RequestBody(with_causes(body));
    }
    // hyper reports this only for a request that it has not begun to write.
    if error.is_canceled() {
        return ForwardError::Unwritten(with_causes(error));
    }
    if error.is_parse_too_large() {
        return ForwardError::HeadTooLarge;
    }
    if error.is_parse() {
        return ForwardError::BadAnswer(with_causes(error));
    }
    ForwardError::Lost(with_causes(error) + cause::<io::Error>(error).map_or("", tls::hint))
}

/// The first cause of type `E`.
fn cause<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::proxy::settings::ProxySettings;
    use crate::proxy::upstream::egress::Egress;
    use http::uri::Authority;

    use crate::proxy::upstream::pool::*;
    use crate::proxy::upstream::tls::UpstreamTls;

    #[test]
    fn an_origin_is_found_in_whatever_case_it_is_written() {
        let origin = |authority: &'static str, is_secure| PoolKey {
            is_secure,
            authority: Authority::from_static(authority),
            reach: Reach::default(),
            client: None,
        };
        let pools = HashMap::from([(origin("Bob.example:80", false), 1)]);
        assert_eq!(pools.get(&origin("bob.EXAMPLE:80", false)), Some(&1));
        assert_eq!(pools.get(&origin("bob.example:80", true)), None);
        assert_eq!(pools.get(&origin("bob.example:8", false)), None);
    }

    #[tokio::test]
    async fn origins_that_are_not_reached_leave_nothing() {
        let settings = ProxySettings::default();
        let connector = Connector {
            egress: Egress::new(&settings),
            timeout: settings.limits.connect_timeout,
            acknowledges_at_once: false,
            tls: UpstreamTls::new(None, Vec::new()),
            parked: ParkedConnections::default(),
        };
        let pool = Pool::new(&settings.limits, connector, AlpnOffer::Either, false);
        for number in 0..20 {
            // What has this number takes no connections.
            let uri = format!("http://127.0.0.{}:0/", number + 1);
            let mut request = Request::new(Body::Empty);
            *request.uri_mut() = uri.parse().unwrap();
            let request = Box::new(request);
            let asked = PoolRequest { request, is_fresh: false, reach: Reach::default(), client: None };
            let failed = pool.request(asked).await.unwrap_err();
            assert!(matches!(failed.error, ForwardError::Dial(_)), "{:?}", failed.error);
            assert!(pool.0.lock().by_origin.is_empty());
        }
    }
}
