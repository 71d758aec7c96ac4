//! Two streams joined into one: bytes pass both ways, and each half closes on its own. Where none pass for too long both
//! are closed.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::sleep;
use tokio_util::either::Either;
use tokio_util::io::{InspectReader, InspectWriter};

use crate::proxy::Settings;
use crate::proxy::downstream::client_io::Line;
use crate::proxy::upstream::stream::Wire;
use crate::shutdown::Shutdown;

/// What each direction holds where a layer such as TLS lies between: it is kept as long as the tunnel stands.
const LAYERED_BUFFER: usize = 16 * 1024;

/// At the end of the program, a tunnel in which nothing has moved for so long is idle.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// The same where the client spoke last: it may wait for an answer.
const UNANSWERED_AFTER: Duration = Duration::from_secs(1);

/// What tunnels may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes that each direction holds while they pass.
    buffer: usize,
    stream_idle_timeout: Duration,
}

impl Bounds {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { buffer: settings.tunnel_buffer, stream_idle_timeout: settings.limits.stream_idle_timeout }
    }
}

/// One end of a tunnel.
pub(crate) enum End {
    /// A bare TCP stream, and what had been read from it too early.
    Tcp(TcpStream, Bytes),
    /// Anything else, with what had been read from it too early.
    Other(Box<dyn Stream>),
}

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl End {
    /// The client's connection, taken back from the HTTP server.
    pub(crate) fn client(upgraded: Upgraded) -> Self {
        match upgraded.downcast::<TokioIo<Line<TcpStream>>>() {
            Ok(parts) => Self::Tcp(parts.io.into_inner().into_inner(), parts.read_buf),
            Err(upgraded) => Self::Other(Box::new(TokioIo::new(upgraded))),
        }
    }

    /// The origin's connection, taken back from the HTTP client.
    pub(crate) fn origin(upgraded: Upgraded) -> Self {
        let (wire, early) = match upgraded.downcast::<TokioIo<Wire>>() {
            Ok(parts) => (parts.io.into_inner(), parts.read_buf),
            Err(upgraded) => return Self::Other(Box::new(TokioIo::new(upgraded))),
        };
        match wire.into_stream() {
            Either::Left(link) => Self::Tcp(link.into_stream(), early),
            Either::Right(stream) => Self::Other(Box::new(Prefixed::new(early, stream))),
        }
    }

    fn boxed(self) -> Box<dyn Stream> {
        match self {
            Self::Tcp(stream, early) => Box::new(Prefixed::new(early, stream)),
            Self::Other(stream) => stream,
        }
    }
}

/// A stream of which the beginning has been read already.
pub(crate) struct Prefixed<S> {
    early: Bytes,
    stream: S,
}

impl<S> Prefixed<S> {
    pub(crate) fn new(early: Bytes, stream: S) -> Self {
        Self { early, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Moves bytes both ways until both halves are closed, or either fails, or nothing has moved for too long; at the end of
/// the program, until it is idle.
///
/// # Errors
/// Whatever the system reports on either stream, or that it took too long; both are closed then.
pub(crate) async fn join(client: End, origin: End, bounds: Bounds, shutdown: &Shutdown) -> io::Result<()> {
    let moves = Moves::default();
    tokio::select! {
        ended = both_ways(client, origin, bounds.buffer, &moves) => ended,
        still = stillness(&moves, bounds.stream_idle_timeout) => Err(still),
        () = idleness(&moves, shutdown) => Ok(()),
    }
}

/// What has passed through a tunnel.
#[derive(Debug, Default)]
struct Moves {
    count: AtomicU64,
    client_was_last: AtomicBool,
}

impl Moves {
    fn from(&self, is_client: bool) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.client_was_last.store(is_client, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Resolves when nothing has moved for so long. It looks at intervals, so up to one more of them passes.
async fn stillness(moves: &Moves, within: Duration) -> io::Error {
    let mut seen = 0;
    loop {
        sleep(within).await;
        let now = moves.count();
        if now == seen {
            return io::Error::new(
                io::ErrorKind::TimedOut,
                "nothing moves any more (limits.stream_idle_timeout)",
            );
        }
        seen = now;
    }
}

/// Resolves when the program is to end and nothing is under way here, as far as that can be told from outside.
async fn idleness(moves: &Moves, shutdown: &Shutdown) {
    shutdown.stopping().await;
    loop {
        let seen = moves.count();
        let may_be_asked = moves.client_was_last.load(Ordering::Relaxed);
        sleep(if may_be_asked { UNANSWERED_AFTER } else { IDLE_AFTER }).await;
        if moves.count() == seen {
            return;
        }
    }
}

async fn both_ways(client: End, origin: End, buffer: usize, moves: &Moves) -> io::Result<()> {
    let (mut client, from_client, mut origin, from_origin) = match (client, origin) {
        (End::Tcp(client, from_client), End::Tcp(origin, from_origin)) => {
            (client, from_client, origin, from_origin)
        }
        (client, origin) => {
            let watched = |end: End, is_client: bool| {
                let told = InspectWriter::new(end.boxed(), move |_: &[u8]| moves.from(!is_client));
                InspectReader::new(told, move |_: &[u8]| moves.from(is_client))
            };
            let (mut client, mut origin) = (watched(client, true), watched(origin, false));
            let size = buffer.min(LAYERED_BUFFER);
            copy_bidirectional_with_sizes(&mut client, &mut origin, size, size).await?;
            return Ok(());
        }
    };
    let (client_read, client_write) = client.split();
    let (origin_read, origin_write) = origin.split();
    tokio::try_join!(
        pass(client_read, origin_write, from_client, buffer, || moves.from(true)),
        pass(origin_read, client_write, from_origin, buffer, || moves.from(false)),
    )?;
    Ok(())
}

async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    early: Bytes,
    size: usize,
    moved: impl Fn(),
) -> io::Result<()> {
    to.write_all(&early).await?;
    drop(early);
    let mut buffer = BytesMut::new();
    loop {
        {
            let mut readable = std::pin::pin!(from.readable());
            let now = poll_fn(|cx| Poll::Ready(readable.as_mut().poll(cx))).await;
            match now {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    // A buffer exists only while bytes flow: a thousand idle tunnels hold none.
                    buffer = BytesMut::new();
                    readable.await?;
                }
            }
        }
        buffer.reserve(size);
        if from.read_buf(&mut buffer).await? == 0 {
            return to.shutdown().await;
        }
        moved();
        while !buffer.is_empty() {
            // A slow reader is not a still one.
            if to.write_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            moved();
        }
    }
}
