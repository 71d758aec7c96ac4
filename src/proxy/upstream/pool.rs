//! Connections to origins, and which request goes on which of them. A connection of HTTP/1.1 carries one request at a
//! time and is kept for the next; one of HTTP/2 carries several. The version is known only here, once a connection is
//! chosen, so everything that belongs to one version's head is written here.
//!
//! What one client does on a connection must not hold up another: see [`Many`] for how that is kept.

mod one;
mod shared;
mod spare;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::dial::{DialError, Dialer};
use super::stream::{History, Wire};
use super::tls;
use super::tls::Offer;
use crate::error_chain::with_causes;
use crate::mutex::lock;
use crate::proxy::downstream::client_io::Client;
use crate::proxy::downstream::server::USUAL_FIELDS;
use crate::proxy::message::{headers, target};
use crate::proxy::{Body, BodyError, ForwardError, Settings};
use one::{Idle, One};
use shared::{Dialling, Many};
pub use shared::{Shared, Ticket};
use spare::Spare;
pub use spare::Spared;

/// What hyper reads a head into without being told.
const USUAL_BUFFER: usize = 8192 + 4096 * 100;
/// How often what is too old is looked for, at the least: what origins closed themselves takes memory until then.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// A head takes no less than this part of its size over HTTP/2, unless it repeats itself.
const MOST_COMPRESSED: u64 = 4;

/// Connections for one kind of request.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Inner>);

/// The same without keeping it.
#[derive(Debug)]
pub(crate) struct WeakPool(Weak<Inner>);

impl WeakPool {
    pub(crate) fn upgrade(&self) -> Option<Pool> {
        self.0.upgrade().map(Pool)
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    dialer: Dialer,
    offer: Offer,
    /// Requests carry payments: one is sent again only if the origin says that it has not processed it, or that it takes it
    /// over HTTP/1.1 only.
    pays: bool,
    http1: http1::Builder,
    limits: Limits,
    places: Mutex<Places>,
}

#[derive(Clone, Debug)]
struct Limits {
    idle: usize,
    keepalive_timeout: Duration,
    connect_timeout: Duration,
    streams: usize,
    head_bytes: usize,
    head_fields: usize,
    ping_every: Duration,
    ping_timeout: Duration,
    /// Bytes of a request body that are kept until it is answered over HTTP/2.
    kept: usize,
}

/// Whom connections lead to, and for whom they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    is_secure: bool,
    authority: Authority,
    /// The only client that may use them: the origin ties what it knows of that client to the connection.
    client: Option<Client>,
}

impl Hash for Origin {
    /// In whatever case, as authorities are equal. Their own hash takes one byte at a time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_secure.hash(state);
        headers::hash_caseless(self.authority.as_str(), state);
        self.client.hash(state);
    }
}

#[derive(Debug, Default)]
struct Places {
    by_origin: HashMap<Origin, Place>,
    /// How many of them are for one client only.
    bound: usize,
    is_swept: bool,
}

#[derive(Debug, Default)]
struct Place {
    idle: Vec<Idle>,
    many: Vec<Arc<Many>>,
    /// Connections that are being opened, or whose limits are not known yet.
    dialling: usize,
    speaks_http2: bool,
    news: Arc<Notify>,
}

impl Place {
    fn is_used(&self) -> bool {
        self.dialling > 0 || !self.idle.is_empty() || !self.many.is_empty()
    }
}

/// A request and how to send it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request<Body>,
    /// On a connection of its own.
    pub(crate) is_fresh: bool,
    /// The client's connection, if it is known.
    pub(crate) client: Option<Client>,
}

/// An answer's head, and what goes on as long as its body.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    /// Its place on a connection of HTTP/2.
    pub(crate) ticket: Option<Ticket>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: ForwardError,
    pub(crate) fault: Fault,
}

/// What a failure has to do with a connection that others used before, or use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It would have failed on any connection, or may have.
    Own,
    /// The connection gave not one byte for this request: it was closed while it lay idle.
    Stale,
    /// All that is asked for on this connection is too much for the origin. It may have begun with this request.
    Crowded,
}

impl From<DialError> for Failed {
    fn from(error: DialError) -> Self {
        Self { error: error.into(), fault: Fault::Own }
    }
}

/// A request that waits for the head of its answer.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Answered, Failed>> + Send>>;

enum Chosen {
    One(One),
    Many(Ticket),
}

/// What came of a sending.
enum Sent {
    Answered(Box<Answered>),
    /// Not a byte of it was written.
    Unwritten(Box<Request<Body>>, hyper::Error),
    /// The origin says that it did nothing about it.
    Refused(Refused),
    Failed(Failed),
}

struct Refused {
    why: String,
    /// The request, if it can be sent again.
    again: Option<Box<Request<Body>>>,
    /// The origin wants HTTP/1.1 for it.
    wants_http1: bool,
}

impl Pool {
    pub(crate) fn new(settings: &Settings, dialer: Dialer, offer: Offer, pays: bool) -> Self {
        let mut http1 = http1::Builder::new();
        // A proxy takes the space out that some put before the colon. RFC 9112 section 5.1.
        http1.allow_spaces_after_header_name_in_responses(true).max_header_size(settings.limits.head_bytes);
        if settings.limits.head_bytes > USUAL_BUFFER {
            http1.max_buf_size(settings.limits.head_bytes);
        }
        if settings.limits.head_fields != USUAL_FIELDS {
            http1.max_headers(settings.limits.head_fields);
        }
        let limits = Limits {
            idle: settings.limits.pool_idle_per_host,
            keepalive_timeout: settings.limits.pool_idle_timeout,
            connect_timeout: settings.limits.connect_timeout,
            streams: settings.limits.origin_streams,
            head_bytes: settings.limits.head_bytes,
            head_fields: settings.limits.head_fields,
            ping_every: settings.limits.ping_every,
            ping_timeout: settings.limits.ping_timeout,
            kept: settings.limits.replay_memory,
        };
        let resting = dialer.reach.resting().clone();
        let pool = Self(Arc::new(Inner { dialer, offer, pays, http1, limits, places: Mutex::default() }));
        resting.add(&pool);
        pool
    }

    /// Sends a request, whose target is whole.
    pub(crate) fn request(&self, asked: Asked) -> Answering {
        Box::pin(Arc::clone(&self.0).request(asked))
    }

    pub(crate) fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }

    /// Since when each connection rests that does.
    pub(crate) fn resting_since(&self) -> Vec<Instant> {
        let places = self.0.lock();
        let since = |place: &Place| {
            let many = place.many.iter().filter_map(|many| many.idle_since());
            // One that the origin has closed holds no descriptor any more.
            let idle = place.idle.iter().filter(|idle| idle.is_usable(self.0.limits.keepalive_timeout));
            idle.map(Idle::since).chain(many).collect::<Vec<_>>()
        };
        places.by_origin.values().flat_map(since).collect()
    }

    /// Closes those that have rested since then or longer; how many.
    pub(crate) fn evict(&self, until: Instant) -> usize {
        let mut evicted = 0;
        for place in self.0.lock().by_origin.values_mut() {
            let before = place.idle.len() + place.many.len();
            place.idle.retain(|idle| idle.since() > until);
            place.many.retain(|many| many.idle_since().is_none_or(|since| since > until));
            evicted += before - place.idle.len() - place.many.len();
        }
        evicted
    }
}

impl Inner {
    async fn request(self: Arc<Self>, asked: Asked) -> Result<Answered, Failed> {
        let Asked { mut request, mut is_fresh, client } = asked;
        let binds = headers::binds_connection(request.headers());
        let target = request.uri().clone();
        let mut origin = self.origin(&target, client.as_ref(), binds)?;
        let mut offer = if binds || origin.client.is_some() { Offer::Http1 } else { self.offer };
        // A binding request of an unknown client must neither get nor leave a connection that others use.
        is_fresh |= binds && origin.client.is_none();
        let mut is_repeated = false;
        loop {
            let (chosen, is_reused) =
                match if is_fresh { None } else { self.wait_for(&origin, &request).await } {
                    Some(chosen) => (chosen, true),
                    // Boxed: seldom needed, and far larger than the rest.
                    None => match Box::pin(self.dial(&origin, &target, offer, &request)).await {
                        Ok(chosen) => (chosen, false),
                        // The origin has seen it, whatever became of the second try.
                        Err(Failed { error, .. }) if is_repeated => {
                            return Err(not_processed(error.to_string()));
                        }
                        Err(failed) => return Err(failed),
                    },
                };
            let sent = match chosen {
                Chosen::One(one) => self.send_one(one, request, &mut origin, client.as_ref(), binds).await,
                Chosen::Many(ticket) => Box::pin(self.send_shared(ticket, request)).await,
            };
            request = match sent {
                Sent::Answered(answered) => return Ok(*answered),
                // A connection that ended while it lay idle; the next one may do.
                Sent::Unwritten(again, _) if is_reused && !self.pays => *again,
                Sent::Unwritten(_, error) if is_repeated => return Err(not_processed(with_causes(&error))),
                Sent::Unwritten(_, error) => {
                    return Err(Failed {
                        error: ForwardError::Unwritten(with_causes(&error)),
                        fault: Fault::Own,
                    });
                }
                Sent::Refused(Refused { again: Some(again), wants_http1, .. }) if !is_repeated => {
                    is_repeated = true;
                    // The first one on a connection is not refused for what others did there.
                    is_fresh = true;
                    if wants_http1 {
                        offer = Offer::Http1;
                    }
                    *again
                }
                Sent::Refused(Refused { why, .. }) => {
                    let error = ForwardError::NotProcessed { why, is_repeated };
                    return Err(Failed { error, fault: Fault::Own });
                }
                Sent::Failed(failed) => return Err(failed),
            };
            *request.uri_mut() = target.clone();
        }
    }

    /// Whose connections a request may use.
    fn origin(&self, target: &Uri, client: Option<&Client>, binds: bool) -> Result<Origin, Failed> {
        let Some(authority) = target.authority().cloned() else {
            let error = ForwardError::BadTarget("it names no host");
            return Err(Failed { error, fault: Fault::Own });
        };
        let is_secure = target.scheme() == Some(&Scheme::HTTPS);
        let mut origin = Origin { is_secure, authority, client: None };
        if client.is_some() && (binds || self.lock().bound > 0) {
            origin.client = client.cloned();
            if !binds && !self.lock().by_origin.contains_key(&origin) {
                origin.client = None;
            }
        }
        Ok(origin)
    }

    /// A connection that is there; also one that another request is opening, where several go on one.
    async fn wait_for(self: &Arc<Self>, origin: &Origin, request: &Request<Body>) -> Option<Chosen> {
        let mut by = None;
        let may_share = Many::may_share(request.body());
        loop {
            let news = {
                let mut places = self.lock();
                let place = places.by_origin.get_mut(origin)?;
                if let Some(chosen) = self.choose(place, origin, request) {
                    return Some(chosen);
                }
                if !may_share || !place.speaks_http2 || place.dialling == 0 {
                    return None;
                }
                Arc::clone(&place.news).notified_owned()
            };
            let by = *by.get_or_insert_with(|| Instant::now() + self.limits.connect_timeout);
            timeout_at(by, news).await.ok()?;
        }
    }

    fn choose(
        self: &Arc<Self>,
        place: &mut Place,
        origin: &Origin,
        request: &Request<Body>,
    ) -> Option<Chosen> {
        place.many.retain(|many| many.is_open());
        if let Some(ticket) =
            place.many.iter().find_map(|many| Many::take(many, self, origin, request.body()))
        {
            return Some(Chosen::Many(ticket));
        }
        while let Some(idle) = place.idle.pop() {
            if idle.is_usable(self.limits.keepalive_timeout) {
                return Some(Chosen::One(idle.into_one()));
            }
        }
        None
    }

    /// Opens a connection. What it speaks is known when it is there.
    async fn dial(
        self: &Arc<Self>,
        origin: &Origin,
        target: &Uri,
        offer: Offer,
        request: &Request<Body>,
    ) -> Result<Chosen, Failed> {
        let dialling = Dialling::new(self, origin);
        let wire = self.dialer.connect(target, offer).await?;
        if !wire.speaks_http2() {
            return Ok(Chosen::One(One::open(self, wire).await.map_err(opened)?));
        }
        let many = Many::open(self, origin, wire, dialling).await.map_err(opened)?;
        let Some(ticket) = Many::take(&many, self, origin, request.body()) else {
            let error = ForwardError::Unwritten("the connection ended as soon as it was opened".to_owned());
            return Err(Failed { error, fault: Fault::Own });
        };
        let mut places = self.lock();
        let place = self.place(&mut places, origin.clone());
        place.speaks_http2 = true;
        place.many.push(many);
        Ok(Chosen::Many(ticket))
    }

    /// Sends over HTTP/1.1, and keeps the connection for the next request.
    async fn send_one(
        self: &Arc<Self>,
        mut one: One,
        mut request: Request<Body>,
        origin: &mut Origin,
        client: Option<&Client>,
        binds: bool,
    ) -> Sent {
        for_http1(&mut request, one.history().is_proxied());
        match one.send(request).await {
            Ok(mut response) => {
                response.extensions_mut().insert(one.history().clone());
                if binds || headers::is_bound_by(&response) {
                    // Never for others from here on, and for nobody if it is not known whose it is.
                    origin.client = client.cloned();
                    if origin.client.is_some() {
                        one.keep(self, origin.clone());
                    }
                } else {
                    one.keep(self, origin.clone());
                }
                Sent::Answered(Box::new(Answered { response, ticket: None }))
            }
            Err(mut error) => match error.take_message() {
                Some(request) => Sent::Unwritten(Box::new(request), error.into_error()),
                None => {
                    let fault = if one.history().went_stale() { Fault::Stale } else { Fault::Own };
                    Sent::Failed(Failed { error: classify(&error.into_error()), fault })
                }
            },
        }
    }

    /// Sends over HTTP/2, beside others.
    async fn send_shared(&self, mut ticket: Ticket, mut request: Request<Body>) -> Sent {
        let mut copy = Request::new(Body::Empty);
        *copy.method_mut() = request.method().clone();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        for_http2(&mut request);
        let mut spare = None;
        if !request.body().is_end_stream() {
            let body = std::mem::take(request.body_mut());
            let (kept, spared) = Spare::new(body, self.limits.kept, ticket.upload());
            *request.body_mut() = Body::Spared(Box::new(spared));
            spare = Some(kept);
        }
        let mut error = match ticket.send(request).await {
            Ok(mut response) => {
                if response.headers().len() > self.limits.head_fields {
                    return Sent::Failed(Failed { error: ForwardError::HeadTooLarge, fault: Fault::Own });
                }
                response.extensions_mut().insert(ticket.history().clone());
                return Sent::Answered(Box::new(Answered { response, ticket: Some(ticket) }));
            }
            Err(error) => error,
        };
        let (went_stale, bytes, was_alone) = (ticket.went_stale(), ticket.bytes_since(), ticket.was_alone());
        ticket.end();
        if let Some(request) = error.take_message() {
            ticket.retire();
            // The next connection may speak another version, and what wraps the body is of this one alone.
            return match spare.map_or_else(|| Some(request.into_body()), Spare::take_back) {
                Some(body) => Sent::Unwritten(Box::new(copy.map(|_| body)), error.into_error()),
                None => Sent::Failed(Failed { error: classify(&error.into_error()), fault: Fault::Own }),
            };
        }
        let error = error.into_error();
        let refusal = cause::<h2::Error>(&error).and_then(refusal);
        // It says so instead of processing the request; a payment goes out as it was.
        let wants_http1 = refusal == Some(Refusal::WantsHttp1);
        if refusal == Some(Refusal::NotProcessed) || wants_http1 {
            ticket.retire();
            let body = spare.map_or(Some(Body::Empty), Spare::take_back);
            let again = body.map(|body| Box::new(copy.map(|_| body)));
            return Sent::Refused(Refused { why: with_causes(&error), again, wants_http1 });
        }
        // We ended the connection for what the origin sent on some stream.
        let ended = cause::<h2::Error>(&error).is_some_and(|ended| ended.is_library() && ended.is_go_away());
        let is_of_another = ended && !was_alone;
        let fault = if refusal == Some(Refusal::Crowded) || is_of_another {
            ticket.retire();
            Fault::Crowded
        } else if went_stale {
            Fault::Stale
        } else {
            Fault::Own
        };
        let error = if is_of_another { classify(&error) } else { self.classify_shared(&error, bytes) };
        Sent::Failed(Failed { error, fault })
    }

    /// The library ends a stream in the same way for a head that is larger than we told the origin and for one that is
    /// malformed; and the connection for one that is far larger, which says nothing about a stream that shared it. How
    /// many bytes came tells them apart.
    fn classify_shared(&self, error: &hyper::Error, bytes: u64) -> ForwardError {
        match cause::<h2::Error>(error) {
            Some(ended) if is_bad_head(ended) && bytes >= self.limits.head_bytes as u64 / MOST_COMPRESSED => {
                ForwardError::HeadTooLarge
            }
            Some(ended) if is_bad_head(ended) => ForwardError::BadAnswer(with_causes(error)),
            _ => classify(error),
        }
    }

    /// Keeps what is idle.
    fn put(self: &Arc<Self>, origin: Origin, idle: Idle) {
        if self.limits.idle == 0 {
            return;
        }
        let mut places = self.lock();
        let place = self.place(&mut places, origin);
        if place.idle.len() >= self.limits.idle {
            place.idle.retain(|idle| idle.is_usable(self.limits.keepalive_timeout));
        }
        if place.idle.len() < self.limits.idle {
            place.idle.push(idle);
        }
    }

    /// Keeps a connection that carries no stream any more, if it is of use and others do not rest already.
    fn rested(&self, origin: &Origin, many: &Arc<Many>) {
        let mut places = self.lock();
        let Some(place) = places.by_origin.get_mut(origin) else { return };
        let idle = place.many.iter().filter(|many| many.idle_since().is_some()).count();
        if idle > self.limits.idle || !many.is_open() {
            place.many.retain(|other| !Arc::ptr_eq(other, many) || many.idle_since().is_none());
        }
    }

    /// Tells those that wait for a connection that one of those being opened is there, or will not be.
    fn dialled(&self, origin: &Origin) {
        let mut places = self.lock();
        let Some(place) = places.by_origin.get_mut(origin) else { return };
        place.dialling = place.dialling.saturating_sub(1);
        place.news.notify_waiters();
        // An origin that was not reached leaves nothing.
        if !place.is_used() && !place.speaks_http2 {
            places.by_origin.remove(origin);
            places.bound -= usize::from(origin.client.is_some());
        }
    }

    /// The place of an origin; from when there is one on, what is too old is taken out now and then.
    fn place<'a>(self: &Arc<Self>, places: &'a mut Places, origin: Origin) -> &'a mut Place {
        if !std::mem::replace(&mut places.is_swept, true) {
            let pool = Arc::downgrade(self);
            let pause = self.limits.keepalive_timeout.clamp(Duration::from_millis(100), SWEEP_EVERY);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(pool) = pool.upgrade() else { return };
                    if pool.sweep() {
                        return;
                    }
                }
            });
        }
        let is_bound = origin.client.is_some();
        match places.by_origin.entry(origin) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(vacant) => {
                places.bound += usize::from(is_bound);
                vacant.insert(Place::default())
            }
        }
    }

    /// Takes out what is closed or too old; whether nothing is left.
    fn sweep(&self) -> bool {
        let mut places = self.lock();
        let within = self.limits.keepalive_timeout;
        let mut bound = 0;
        places.by_origin.retain(|origin, place| {
            let is_left = origin.client.as_ref().is_some_and(Client::has_left);
            place.idle.retain(|idle| !is_left && idle.is_usable(within));
            place.many.retain(|many| {
                many.is_open() && many.idle_since().is_none_or(|since| since.elapsed() < within)
            });
            bound += usize::from(place.is_used() && origin.client.is_some());
            place.is_used()
        });
        places.bound = bound;
        places.is_swept = !places.by_origin.is_empty();
        !places.is_swept
    }

    // No code that holds this lock can leave the places half changed.
    fn lock(&self) -> MutexGuard<'_, Places> {
        lock(&self.places)
    }
}

/// The origin has seen the request once, said that it did not process it, and cannot be asked again.
fn not_processed(why: String) -> Failed {
    Failed { error: ForwardError::NotProcessed { why, is_repeated: true }, fault: Fault::Own }
}

fn opened(error: hyper::Error) -> Failed {
    Failed { error: ForwardError::Unwritten(with_causes(&error)), fault: Fault::Own }
}

/// Writes what only HTTP/1.1 has: a target without the origin, or with it for a proxy, and what is said of the
/// connection.
pub(crate) fn for_http1(request: &mut Request<Body>, is_proxied: bool) {
    let is_chunked = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    let fields = request.headers_mut();
    if is_chunked {
        // Told explicitly, since a GET with a body would lose it otherwise.
        fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let options = match (fields.contains_key(header::TE), fields.contains_key(header::UPGRADE)) {
        (true, true) => Some("te, upgrade"),
        (true, false) => Some("te"),
        (false, true) => Some("upgrade"),
        (false, false) => None,
    };
    if let Some(options) = options {
        fields.insert(header::CONNECTION, HeaderValue::from_static(options));
    }
    if is_proxied {
        return;
    }
    let uri = std::mem::take(request.uri_mut());
    *request.uri_mut() = match uri.into_parts().path_and_query {
        Some(path) if path.as_str() != "/" => Uri::from(path),
        _ => Uri::default(),
    };
}

/// Takes out what HTTP/2 says in another way, or not at all. RFC 9113 section 8.2.2 and 8.3.1.
fn for_http2(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_2;
    target::drop_zone(request);
    let fields = request.headers_mut();
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        fields.remove(name);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NotProcessed,
    WantsHttp1,
    Crowded,
}

/// What a peer says of a stream that it did not process (refused, or above the last one before it went away: RFC 9113
/// sections 6.8 and 8.7), or not as it came.
fn refusal(error: &h2::Error) -> Option<Refusal> {
    if !error.is_remote() {
        return None;
    }
    // The library says so of streams above the last one only; the others end with the connection.
    if error.is_go_away() || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)) {
        return Some(Refusal::NotProcessed);
    }
    match error.reason().filter(|_| error.is_reset()) {
        Some(h2::Reason::HTTP_1_1_REQUIRED) => Some(Refusal::WantsHttp1),
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(Refusal::Crowded),
        _ => None,
    }
}

/// Whether we ended a stream, or the connection, for what the origin sent as a head.
fn is_bad_head(error: &h2::Error) -> bool {
    let of_stream = error.is_reset() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
    let calmed = [Some(h2::Reason::ENHANCE_YOUR_CALM), Some(h2::Reason::COMPRESSION_ERROR)];
    error.is_library() && (of_stream || (error.is_go_away() && calmed.contains(&error.reason())))
}

fn classify(error: &hyper::Error) -> ForwardError {
    if let Some(body) = cause::<BodyError>(error) {
        return ForwardError::RequestBody(with_causes(body));
    }
    // hyper says so of a request that it hands back whole, never of one that it began to write.
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

/// The first cause of this type.
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
    use crate::proxy::upstream::egress::Reach;
    use crate::proxy::upstream::parked::Lobby;
    use crate::proxy::upstream::pool::*;
    use crate::proxy::upstream::tls::Secure;

    #[test]
    fn an_origin_is_found_in_whatever_case_it_is_written() {
        let origin = |authority: &'static str, is_secure| Origin {
            is_secure,
            authority: Authority::from_static(authority),
            client: None,
        };
        let places = HashMap::from([(origin("Bob.example:80", false), 1)]);
        assert_eq!(places.get(&origin("bob.EXAMPLE:80", false)), Some(&1));
        assert_eq!(places.get(&origin("bob.example:80", true)), None);
        assert_eq!(places.get(&origin("bob.example:8", false)), None);
    }

    #[tokio::test]
    async fn origins_that_are_not_reached_leave_nothing() {
        let settings = Settings::default();
        let dialer = Dialer {
            reach: Reach::new(&settings),
            within: settings.limits.connect_timeout,
            acknowledges_at_once: false,
            secure: Secure::new(None, Vec::new()),
            lobby: Lobby::default(),
        };
        let pool = Pool::new(&settings, dialer, Offer::Either, false);
        for number in 0..20 {
            // What has this number takes no connections.
            let uri = format!("http://127.0.0.{}:0/", number + 1);
            let mut request = Request::new(Body::Empty);
            *request.uri_mut() = uri.parse().unwrap();
            let failed = pool.request(Asked { request, is_fresh: false, client: None }).await.unwrap_err();
            assert!(matches!(failed.error, ForwardError::Dial(_)), "{:?}", failed.error);
            assert!(pool.0.lock().by_origin.is_empty());
        }
    }
}
