//! A connection of HTTP/1.1: one request at a time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;
use tracing::debug;

use super::{Body, History, Inner, Origin, TokioIo, Wire};
use crate::mutex::lock;

/// A connection that a request has for itself.
#[derive(Debug)]
pub(super) struct One {
    sender: SendRequest<Body>,
    link: Arc<Link>,
}

/// A connection that nobody uses.
#[derive(Debug)]
pub(super) struct Idle {
    one: One,
    since: Instant,
}

#[derive(Debug)]
struct Link {
    history: History,
    pool: Weak<Inner>,
    /// What waits for the answer's body to end.
    parked: Mutex<Option<(SendRequest<Body>, Origin)>>,
}

impl One {
    pub(super) async fn open(pool: &Arc<Inner>, wire: Wire) -> hyper::Result<Self> {
        let history = wire.history().clone();
        let (sender, connection) = pool.http1.handshake(TokioIo::new(wire)).await?;
        let link = Arc::new(Link { history, pool: Arc::downgrade(pool), parked: Mutex::default() });
        let driven = Arc::clone(&link);
        tokio::spawn(async move {
            let mut connection = connection.with_upgrades();
            let ended = poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                if polled.is_pending() {
                    driven.put();
                }
                polled
            });
            if let Err(error) = ended.await {
                debug!(%error, "a connection to an origin broke");
            }
            driven.lock().take();
        });
        Ok(Self { sender, link })
    }

    pub(super) fn history(&self) -> &History {
        &self.link.history
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.sender.try_send_request(request).await
    }

    /// Gives the connection back as soon as the answer has been read to its end.
    pub(super) fn keep(self, pool: &Arc<Inner>, origin: Origin) {
        let Self { sender, link } = self;
        if sender.is_ready() {
            return pool.put(origin, Idle { one: Self { sender, link }, since: Instant::now() });
        }
        if sender.is_closed() {
            return;
        }
        *link.lock() = Some((sender, origin));
        // It may have become ready meanwhile, and its task have found nothing parked.
        link.put();
    }
}

impl Idle {
    /// Whether it still stands, and is not older than this.
    pub(super) fn is_usable(&self, within: Duration) -> bool {
        self.one.sender.is_ready() && self.since.elapsed() < within
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn into_one(self) -> One {
        self.one
    }
}

impl Link {
    fn put(self: &Arc<Self>) {
        let mut parked = self.lock();
        if !parked.as_ref().is_some_and(|(sender, _)| sender.is_ready()) {
            return;
        }
        let Some((sender, origin)) = parked.take() else { return };
        drop(parked);
        if let Some(pool) = self.pool.upgrade() {
            pool.put(origin, Idle { one: One { sender, link: Arc::clone(self) }, since: Instant::now() });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(SendRequest<Body>, Origin)>> {
        lock(&self.parked)
    }
}
