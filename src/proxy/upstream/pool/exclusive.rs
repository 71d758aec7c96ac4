//! An HTTP/1.1 connection: one request at a time.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tracing::debug;

use super::key::PoolKey;
use crate::mutex::lock;
use crate::proxy::message::body::Body;
use crate::proxy::upstream::stream::{Reuse, UpstreamStream};

/// The pool, as its idle connections return to it.
pub(super) trait KeepsIdle: Debug + Send + Sync {
    /// Keeps a connection for another request.
    fn keep(self: Arc<Self>, key: PoolKey, idle: IdleConnection);
}

/// A connection that carries one request.
#[derive(Debug)]
pub(super) struct ExclusiveConnection {
    sender: SendRequest<Body>,
    slot: Arc<ReturnSlot>,
}

/// A connection without a request, in the pool.
#[derive(Debug)]
pub(super) struct IdleConnection {
    exclusive: ExclusiveConnection,
    since: Instant,
}

#[derive(Debug)]
struct ReturnSlot {
    reuse: Reuse,
    /// The pool of the worker that drives the connection.
    pool: Weak<dyn KeepsIdle>,
    /// Counts the connection.
    _open: Arc<()>,
    /// The sender, until the body of the response has been read.
    returning: Mutex<Option<(SendRequest<Body>, PoolKey)>>,
}

impl ExclusiveConnection {
    pub(super) async fn open<P: KeepsIdle + 'static>(
        pool: &Arc<P>,
        http1: &Builder,
        stream: UpstreamStream,
        open: Arc<()>,
    ) -> hyper::Result<Self> {
        let reuse = stream.reuse().clone();
        let (sender, connection) = http1.handshake(TokioIo::new(stream)).await?;
        let pool: Weak<dyn KeepsIdle> = Arc::<P>::downgrade(pool);
        let slot = Arc::new(ReturnSlot { reuse, pool, _open: open, returning: Mutex::default() });
        let driven = Arc::clone(&slot);
        tokio::spawn(async move {
            let mut connection = connection.with_upgrades();
            let ended = poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                if polled.is_pending() {
                    driven.give_back();
                }
                polled
            });
            if let Err(error) = ended.await {
                debug!(%error, "connection to origin failed");
            }
            driven.lock().take();
        });
        Ok(Self { sender, slot })
    }

    pub(super) fn reuse(&self) -> &Reuse {
        &self.slot.reuse
    }

    // Not an `async fn`, which would hold the request a second time.
    pub(super) fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        self.sender.try_send_request(request)
    }

    /// Gives the connection back to its pool once the response has been read.
    pub(super) fn keep(self, key: PoolKey) {
        let Self { sender, slot } = self;
        if sender.is_closed() {
            return;
        }
        *slot.lock() = Some((sender, key));
        // It may have become ready in the meantime, when its task found nothing to give back.
        slot.give_back();
    }
}

impl IdleConnection {
    /// Whether it is open and has not been idle for longer than `within`.
    pub(super) fn is_usable(&self, within: Duration) -> bool {
        self.exclusive.sender.is_ready() && self.since.elapsed() < within
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn into_exclusive(self) -> ExclusiveConnection {
        self.exclusive
    }
}

impl ReturnSlot {
    fn give_back(self: &Arc<Self>) {
        let mut returning = self.lock();
        if !returning.as_ref().is_some_and(|(sender, _)| sender.is_ready()) {
            return;
        }
        let Some((sender, key)) = returning.take() else { return };
        drop(returning);
        if let Some(pool) = self.pool.upgrade() {
            let exclusive = ExclusiveConnection { sender, slot: Arc::clone(self) };
            pool.keep(key, IdleConnection { exclusive, since: Instant::now() });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(SendRequest<Body>, PoolKey)>> {
        lock(&self.returning)
    }
}
