//! A request body that is kept while it is sent, so that it can be sent again.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::limits::{NotReplayable, ReplayLimits};
use super::store::KeptBytes;
use crate::mutex::lock;
use crate::proxy::message::byte_body::{BodyError, ByteBody};
use crate::proxy::message::payment_headers;

/// A body that is kept for sending it again.
#[derive(Debug)]
pub struct KeptBody<B> {
    /// `None` for a body without bytes.
    home: Option<Home<B>>,
}

/// Starts to keep a body: the first result streams it, the second repeats it.
#[must_use]
pub fn keep<B: ByteBody + From<ReplayBody<B>>>(body: B, limits: &ReplayLimits) -> (B, KeptBody<B>) {
    if body.is_end_stream() {
        return (body, KeptBody { home: None });
    }
    let length = body.size_hint().exact();
    let mut store = KeptBytes::new(limits.clone());
    if length.is_some_and(|length| length > limits.total()) {
        store.give_up(NotReplayable::TooLarge { limit: limits.total() });
    }
    let core = Core {
        source: Some(body),
        length,
        read: 0,
        is_begun: false,
        store,
        trailers: None,
        pass: 0,
        waiting: None,
    };
    let home = Home(Arc::new(Mutex::new(core)));
    let first =
        ReplayBody { home: home.clone(), number: 0, position: 0, length, trailers: None, reading: None };
    (first.into(), KeptBody { home: Some(home) })
}

impl<B: ByteBody + From<ReplayBody<B>>> KeptBody<B> {
    /// Whether the body can still be sent again.
    ///
    /// # Errors
    /// [`NotReplayable`] if it cannot.
    pub fn check(&self) -> Result<(), NotReplayable> {
        match &self.home {
            Some(home) => home.lock().check(),
            None => Ok(()),
        }
    }

    /// Whether the body has a known length and is unread: it can then be sent even if it is too large to keep.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.home.as_ref().is_some_and(|home| {
            let core = home.lock();
            !core.is_begun && core.length.is_some()
        })
    }

    /// Whether the client has sent all of it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.home.as_ref().is_none_or(|home| {
            let core = home.lock();
            core.length == Some(core.read) || core.source.is_none() && core.check().is_ok()
        })
    }

    /// Whether the length was known before the body was read.
    #[must_use]
    pub fn is_sized(&self) -> bool {
        self.home.as_ref().is_none_or(|home| home.lock().length.is_some())
    }

    /// Reads the body to its end, so that nothing depends on the client any longer; stops the current sending.
    ///
    /// # Errors
    /// [`NotReplayable`]; a sending that is under way goes on if that was certain beforehand.
    pub async fn whole(&self) -> Result<(), NotReplayable> {
        let Some(home) = &self.home else { return Ok(()) };
        home.lock().begin_pass()?;
        poll_fn(|cx| home.lock().poll_whole(cx)).await.map(drop)
    }

    /// The body again from its start, with a known length unless it has trailers; stops the previous sending.
    ///
    /// If the client declared the length, the kept bytes come first and the rest follows as it arrives. Otherwise this waits
    /// until the client has sent all of it.
    ///
    /// # Errors
    /// [`NotReplayable`]; a sending that is under way goes on if that was certain beforehand.
    pub async fn replay(&self) -> Result<B, NotReplayable> {
        let Some(home) = &self.home else { return Ok(B::default()) };
        let (number, declared) = home.lock().begin_pass()?;
        let (length, trailers) = match declared {
            Some(length) => (Some(length), None),
            None => {
                let length = poll_fn(|cx| home.lock().poll_whole(cx)).await?;
                let trailers = home.lock().trailers.clone();
                // A message with a length has no place for trailers.
                (trailers.is_none().then_some(length), trailers)
            }
        };
        if length == Some(0) {
            return Ok(B::default());
        }
        let home = home.clone();
        Ok(ReplayBody { home, number, position: 0, length, trailers, reading: None }.into())
    }
}

/// The state that all sendings of one body share.
#[derive(Debug)]
struct Home<B>(Arc<Mutex<Core<B>>>);

impl<B> Clone for Home<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Home<B> {
    fn lock(&self) -> MutexGuard<'_, Core<B>> {
        // After a panic elsewhere, a sending ends in an error at worst.
        lock(&self.0)
    }
}

#[derive(Debug)]
struct Core<B> {
    /// The client's body, until its end.
    source: Option<B>,
    length: Option<u64>,
    /// Bytes read from the source.
    read: u64,
    /// Whether reading the source has begun.
    is_begun: bool,
    store: KeptBytes,
    /// What came after the bytes; the client's connection limits its size.
    trailers: Option<Box<HeaderMap>>,
    /// The current sending; earlier ones are superseded.
    pass: u64,
    waiting: Option<Waker>,
}

impl<B: ByteBody> Core<B> {
    fn check(&self) -> Result<(), NotReplayable> {
        self.store.failure.clone().map_or(Ok(()), Err)
    }

    fn begin_pass(&mut self) -> Result<(u64, Option<u64>), NotReplayable> {
        if self.is_begun {
            self.check()?;
        }
        self.pass += 1;
        // Wake the previous sending, or its connection would wait forever.
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        Ok((self.pass, self.length))
    }

    /// Reads the source to its end; returns its length.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, NotReplayable>> {
        loop {
            self.check()?;
            let next = ready!(self.poll_source(cx));
            self.check()?;
            if next.is_none() {
                return Poll::Ready(Ok(self.read));
            }
        }
    }

    /// Reads and keeps the next frame of the source.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        ready!(self.store.poll_written(cx));
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        self.is_begun = true;
        match ready!(Pin::new(source).poll_frame(cx)) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    // The request may carry our payment, so remove any of the client's.
                    payment_headers::strip(trailers);
                    self.trailers = (!trailers.is_empty()).then(|| Box::new(trailers.clone()));
                }
                if let Some(data) = frame.data_ref() {
                    self.read += data.len() as u64;
                    self.store.add(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(self.broken(error)))),
            None => {
                self.source = None;
                match self.length {
                    Some(declared) if declared != self.read => {
                        let error = BodyError::Incomplete { read: self.read, declared };
                        Poll::Ready(Some(Err(self.broken(error))))
                    }
                    _ => Poll::Ready(None),
                }
            }
        }
    }

    fn broken(&mut self, error: BodyError) -> BodyError {
        self.source = None;
        self.store.give_up(NotReplayable::Broken(error.to_string()));
        error
    }
}

/// One sending of a kept body.
#[derive(Debug)]
pub struct ReplayBody<B> {
    home: Home<B>,
    number: u64,
    position: u64,
    length: Option<u64>,
    /// Those to send again at the end.
    trailers: Option<Box<HeaderMap>>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl<B: ByteBody> ReplayBody<B> {
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.length == Some(self.position) {
            return Poll::Ready(None);
        }
        let mut core = self.home.lock();
        if core.pass != self.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if !core.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            core.waiting = Some(cx.waker().clone());
        }
        let next = if self.position < core.read {
            let kept = ready!(core.store.poll_read(self.position, &mut self.reading, cx));
            Some(kept.map(Frame::data).map_err(BodyError::Storage))
        } else {
            ready!(core.poll_source(cx))
        };
        if let Some(data) = next.as_ref().and_then(|next| next.as_ref().ok()).and_then(Frame::data_ref) {
            self.position += data.len() as u64;
        }
        if next.is_none() {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))));
        }
        Poll::Ready(next)
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        match self.length {
            Some(length) => self.position == length,
            None => {
                let core = self.home.lock();
                self.trailers.is_none()
                    && self.position == core.read
                    && core.source.as_ref().is_none_or(http_body::Body::is_end_stream)
            }
        }
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length - self.position))
    }
}
