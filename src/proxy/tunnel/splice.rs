//! Copies bytes between two streams in both directions. Each direction closes on its own; both close when no bytes pass for
//! too long.

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

use crate::proxy::downstream::client_io::ClientIo;
use crate::proxy::downstream::client_stream::ClientStream;
use crate::proxy::settings::ProxySettings;
use crate::proxy::upstream::stream::UpstreamStream;
use crate::shutdown::Shutdown;

/// The buffer of each direction if a layer such as TLS is between; it exists as long as the tunnel.
const LAYERED_BUFFER: usize = 16 * 1024;

/// During shutdown, a tunnel without traffic for this time is idle.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// The same if the client sent last, as it may wait for an answer.
const UNANSWERED_AFTER: Duration = Duration::from_secs(1);

/// The limits of a tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TunnelLimits {
    /// The buffer of each direction, in bytes.
    buffer: usize,
    stream_idle_timeout: Duration,
}

impl TunnelLimits {
    pub(crate) fn new(settings: &ProxySettings) -> Self {
        Self { buffer: settings.tunnel_buffer, stream_idle_timeout: settings.limits.stream_idle_timeout }
    }
}

/// One end of a tunnel.
pub(crate) enum TunnelEnd {
    /// A TCP stream, and the bytes that have been read from it.
    Tcp(TcpStream, Bytes),
    /// Any other stream, which returns the bytes that have been read from it first.
    Other(Box<dyn Duplex>),
}

/// A stream of bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl TunnelEnd {
    /// The client's connection, taken back from the HTTP server.
    pub(crate) fn client(upgraded: Upgraded) -> Self {
        match client_stream(upgraded) {
            Ok((stream, early)) => Self::of(stream, early),
            Err(upgraded) => Self::Other(Box::new(TokioIo::new(upgraded))),
        }
    }

    /// A client's connection, and the bytes that have been read from it.
    pub(crate) fn of(stream: ClientStream, early: Bytes) -> Self {
        match stream {
            Either::Left(stream) => Self::Tcp(stream, early),
            Either::Right(stream) => Self::Other(Box::new(Prefixed::new(early, stream))),
        }
    }

    /// The origin's connection, taken back from the HTTP client.
    pub(crate) fn origin(upgraded: Upgraded) -> Self {
        let (stream, early) = match upgraded.downcast::<TokioIo<UpstreamStream>>() {
            Ok(parts) => (parts.io.into_inner(), parts.read_buf),
            Err(upgraded) => return Self::Other(Box::new(TokioIo::new(upgraded))),
        };
        match stream.into_stream() {
            Either::Left(link) => Self::Tcp(link.into_stream(), early),
            Either::Right(stream) => Self::Other(Box::new(Prefixed::new(early, stream))),
        }
    }

    fn boxed(self) -> Box<dyn Duplex> {
        match self {
            Self::Tcp(stream, early) => Box::new(Prefixed::new(early, stream)),
            Self::Other(stream) => stream,
        }
    }
}

/// The stream below an HTTP server, and the bytes that have been read from it; an error inside another tunnel.
pub(crate) fn client_stream(upgraded: Upgraded) -> Result<(ClientStream, Bytes), Upgraded> {
    let parts = upgraded.downcast::<TokioIo<ClientIo<ClientStream>>>()?;
    Ok((parts.io.into_inner().into_inner(), parts.read_buf))
}

/// A stream whose beginning has been read already.
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

/// Copies until both directions are closed, one fails, or no bytes pass for too long; during shutdown, until it is idle.
///
/// # Errors
/// An I/O error of either stream, or the idle timeout. Both streams are closed then.
pub(crate) async fn splice(
    client: TunnelEnd,
    origin: TunnelEnd,
    limits: TunnelLimits,
    traffic: &Traffic,
    shutdown: &Shutdown,
) -> io::Result<()> {
    tokio::select! {
        ended = both_ways(client, origin, limits.buffer, traffic) => ended,
        still = stillness(traffic, limits.stream_idle_timeout) => Err(still),
        () = idleness(traffic, shutdown) => Ok(()),
    }
}

/// Counts the reads, writes and bytes of a tunnel.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    count: AtomicU64,
    client_bytes: AtomicU64,
    origin_bytes: AtomicU64,
    client_was_last: AtomicBool,
}

impl Traffic {
    /// Bytes that the client sent to the origin, and the origin to the client.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.client_bytes.load(Ordering::Relaxed), self.origin_bytes.load(Ordering::Relaxed))
    }

    /// Counts a read, or a write of this many bytes.
    fn from(&self, is_client: bool, written: usize) {
        let bytes = if is_client { &self.client_bytes } else { &self.origin_bytes };
        bytes.fetch_add(written as u64, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.client_was_last.store(is_client, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Resolves after `within` without traffic. Checks at intervals, so it may be late by one.
async fn stillness(traffic: &Traffic, within: Duration) -> io::Error {
    let mut seen = 0;
    loop {
        sleep(within).await;
        let now = traffic.count();
        if now == seen {
            return io::Error::new(
                io::ErrorKind::TimedOut,
                "no data was transferred within limits.stream_idle_timeout",
            );
        }
        seen = now;
    }
}

/// Resolves during shutdown once the tunnel seems idle.
async fn idleness(traffic: &Traffic, shutdown: &Shutdown) {
    shutdown.stopping().await;
    loop {
        let seen = traffic.count();
        let may_be_asked = traffic.client_was_last.load(Ordering::Relaxed);
        sleep(if may_be_asked { UNANSWERED_AFTER } else { IDLE_AFTER }).await;
        if traffic.count() == seen {
            return;
        }
    }
}

async fn both_ways(client: TunnelEnd, origin: TunnelEnd, buffer: usize, traffic: &Traffic) -> io::Result<()> {
    let (mut client, from_client, mut origin, from_origin) = match (client, origin) {
        (TunnelEnd::Tcp(client, from_client), TunnelEnd::Tcp(origin, from_origin)) => {
            (client, from_client, origin, from_origin)
        }
        (client, origin) => {
            let watched = |end: TunnelEnd, is_client: bool| {
                let told = InspectWriter::new(end.boxed(), move |bytes: &[u8]| {
                    traffic.from(!is_client, bytes.len())
                });
                InspectReader::new(told, move |_: &[u8]| traffic.from(is_client, 0))
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
        pass(client_read, origin_write, from_client, buffer, |written| traffic.from(true, written)),
        pass(origin_read, client_write, from_origin, buffer, |written| traffic.from(false, written)),
    )?;
    Ok(())
}

async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    early: Bytes,
    size: usize,
    moved: impl Fn(usize),
) -> io::Result<()> {
    to.write_all(&early).await?;
    moved(early.len());
    drop(early);
    let mut buffer = BytesMut::new();
    loop {
        {
            let mut readable = std::pin::pin!(from.readable());
            let now = poll_fn(|cx| Poll::Ready(readable.as_mut().poll(cx))).await;
            match now {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    // Idle tunnels hold no buffer.
                    buffer = BytesMut::new();
                    readable.await?;
                }
            }
        }
        buffer.reserve(size);
        if from.read_buf(&mut buffer).await? == 0 {
            return to.shutdown().await;
        }
        moved(0);
        while !buffer.is_empty() {
            // A slow reader is not idle.
            let written = to.write_buf(&mut buffer).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            moved(written);
        }
    }
}
