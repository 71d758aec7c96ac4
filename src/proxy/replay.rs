//! A request body that can be sent again: kept while it is sent, in memory first and then in a private temporary
//! file. And an answer's body held back until it is whole. Nothing here knows why it is sent again.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::JoinHandle;

use self::store::Store;
use super::pay::strip;
use super::{Body, BodyError};
use crate::mutex::lock;

mod hold;
mod store;

pub use hold::{Held, Past, Resumed, hold};

/// How much of a body is kept, and where.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The first bytes, in memory.
    pub memory: usize,
    /// The bytes after those, in a temporary file.
    pub file: u64,
    /// Where that file is made; it has no name there, and only its owner can read it.
    pub directory: PathBuf,
}

impl Limits {
    /// Those of the configuration, with the directory for bodies that are too large for memory.
    #[must_use]
    pub fn new(limits: &crate::limits::Limits, directory: PathBuf) -> Self {
        Self { memory: limits.replay_memory, file: limits.replay_file, directory }
    }

    /// Bytes that can be kept altogether.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.file.saturating_add(self.memory as u64)
    }
}

/// Why a body cannot be sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    /// It is larger than what is kept.
    #[error("the request body is larger than the {limit} bytes that are kept to send it again")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The temporary file failed.
    #[error("the request body could not be kept in a temporary file: {0}")]
    Storage(String),
    /// The client did not send it to its end.
    #[error("the client's request body broke off: {0}")]
    Broken(String),
}

/// A body that is being kept; asks for it again.
#[derive(Debug)]
pub struct Kept {
    /// `None` for a body without bytes.
    home: Option<Home>,
}

/// Starts to keep a body: the first result streams it, the second gives it again.
#[must_use]
pub fn keep(body: Body, limits: &Limits) -> (Body, Kept) {
    if body.is_end_stream() {
        return (body, Kept { home: None });
    }
    let length = body.size_hint().exact();
    let mut store = Store::new(limits.clone());
    if length.is_some_and(|length| length > limits.total()) {
        store.give_up(NotReplayable::TooLarge { limit: limits.total() });
    }
    let core = Core { source: Some(body), length, read: 0, is_begun: false, store, pass: 0, waiting: None };
    let home = Home(Arc::new(Mutex::new(core)));
    let first = Pass { home: home.clone(), number: 0, position: 0, length, reading: None };
    (Body::Replay(first), Kept { home: Some(home) })
}

impl Kept {
    /// Whether the body can be sent again as far as is known now.
    ///
    /// # Errors
    /// [`NotReplayable`] when it is certain that it cannot.
    pub fn check(&self) -> Result<(), NotReplayable> {
        match &self.home {
            Some(home) => home.lock().check(),
            None => Ok(()),
        }
    }

    /// Whether the body has a known length and nobody has begun to read it: it can then be sent whatever its length.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.home.as_ref().is_some_and(|home| {
            let core = home.lock();
            !core.is_begun && core.length.is_some()
        })
    }

    /// Whether the length was known before the body was read.
    #[must_use]
    pub fn is_sized(&self) -> bool {
        self.home.as_ref().is_none_or(|home| home.lock().length.is_some())
    }

    /// Reads the body to its end, so that nothing depends on the client any more; a sending that is under way is
    /// stopped.
    ///
    /// # Errors
    /// [`NotReplayable`]; a sending that is under way goes on if that was certain beforehand.
    pub async fn whole(&self) -> Result<(), NotReplayable> {
        let Some(home) = &self.home else { return Ok(()) };
        home.lock().begin_pass()?;
        poll_fn(|cx| home.lock().poll_whole(cx)).await.map(drop)
    }

    /// The body again from its start, with a known length; the sending before it is stopped.
    ///
    /// Where the client declared the length, what is kept goes first and the rest follows as it comes. Where it did
    /// not, this waits until the client has sent all of it.
    ///
    /// # Errors
    /// [`NotReplayable`]; a sending that is under way goes on if that was certain beforehand.
    pub async fn replay(&self) -> Result<Body, NotReplayable> {
        let Some(home) = &self.home else { return Ok(Body::Empty) };
        let (number, declared) = home.lock().begin_pass()?;
        let length = match declared {
            Some(length) => length,
            None => poll_fn(|cx| home.lock().poll_whole(cx)).await?,
        };
        if length == 0 {
            return Ok(Body::Empty);
        }
        Ok(Body::Replay(Pass {
            home: home.clone(),
            number,
            position: 0,
            length: Some(length),
            reading: None,
        }))
    }
}

/// What all passes of one body share.
#[derive(Clone, Debug)]
struct Home(Arc<Mutex<Core>>);

impl Home {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic elsewhere leaves at worst a pass that ends in an error.
        lock(&self.0)
    }
}

#[derive(Debug)]
struct Core {
    /// Where the bytes come from, until they have ended.
    source: Option<Body>,
    length: Option<u64>,
    /// Bytes that came from the source.
    read: u64,
    /// Whether the source has been asked for any.
    is_begun: bool,
    store: Store,
    /// The pass that may read; an earlier one has been superseded.
    pass: u64,
    waiting: Option<Waker>,
}

impl Core {
    fn check(&self) -> Result<(), NotReplayable> {
        self.store.fault.clone().map_or(Ok(()), Err)
    }

    fn begin_pass(&mut self) -> Result<(u64, Option<u64>), NotReplayable> {
        if self.is_begun {
            self.check()?;
        }
        self.pass += 1;
        // The pass before must learn that it is over, or its connection would wait for ever.
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        Ok((self.pass, self.length))
    }

    /// Reads the source to its end; gives the whole length.
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

    /// The next frame from the source, kept as it comes.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        ready!(self.store.poll_written(cx));
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        self.is_begun = true;
        match ready!(Pin::new(source).poll_frame(cx)) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    // What is kept may be paid for, and payments come from nowhere else.
                    strip::fields(trailers);
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
pub struct Pass {
    home: Home,
    number: u64,
    position: u64,
    length: Option<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Pass {
    pub(super) fn poll_frame(
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
        Poll::Ready(next)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self.length {
            Some(length) => self.position == length,
            None => {
                let core = self.home.lock();
                self.position == core.read && core.source.as_ref().is_none_or(Body::is_end_stream)
            }
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length - self.position))
    }
}

#[cfg(test)]
mod tests;
