//! A TCP connection to an origin, with acknowledgements tuned for small answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection to an origin.
///
/// If an origin sends the head and the body of a response in two segments with Nagle's algorithm on, the body waits for the
/// acknowledgement of the head, which the kernel delays by 40 ms. Some sellers do this, so connections that
/// carry payments acknowledge immediately.
#[derive(Debug)]
pub(crate) struct TcpLink {
    stream: TcpStream,
    acknowledges_at_once: bool,
    segments: Segments,
}

/// Counts the segments of each response. An immediate acknowledgement costs a packet, which is wasted on an origin that
/// sends its responses whole.
#[derive(Debug, Default)]
struct Segments {
    /// Segments read since the last write.
    read: u32,
    /// Consecutive responses that came in one segment.
    whole: u32,
}

impl Segments {
    /// After this many responses in one segment, the origin is taken to send them whole.
    const ENOUGH: u32 = 8;

    fn written(&mut self) {
        match std::mem::take(&mut self.read) {
            0 => {}
            1 => self.whole = self.whole.saturating_add(1),
            _ => self.whole = 0,
        }
    }

    /// Counts a segment; returns whether to acknowledge it immediately.
    fn received(&mut self) -> bool {
        self.read = self.read.saturating_add(1);
        self.read > 1 || self.whole < Self::ENOUGH
    }
}

impl TcpLink {
    /// `acknowledges_at_once` is for connections that carry payments.
    pub(crate) fn new(stream: TcpStream, acknowledges_at_once: bool) -> Self {
        Self { stream, acknowledges_at_once, segments: Segments::default() }
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends the pending acknowledgement. The kernel resets this option by itself, so it is set every time.
    #[cfg(target_os = "linux")]
    fn acknowledge(&self) {
        if self.acknowledges_at_once {
            // Only a hint to the kernel: without it the answer comes later.
            let _ = self.stream.set_quickack(true);
        }
    }

    /// Other systems have no such option.
    #[cfg(not(target_os = "linux"))]
    fn acknowledge(&self) {
        let _ = self.acknowledges_at_once;
    }
}

/// Reports success for a write to an origin that has hung up: it may have answered first, and that response can still be
/// read. The next read returns it, or the end.
fn ignore_hang_up(written: io::Result<usize>, length: usize) -> io::Result<usize> {
    match written {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(length)
        }
        written => written,
    }
}

impl AsyncRead for TcpLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && self.segments.received() {
            self.acknowledge();
        }
        read
    }
}

impl AsyncWrite for TcpLink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.segments.written();
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        written.map(|written| ignore_hang_up(written, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.segments.written();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        written.map(|written| ignore_hang_up(written, slices.iter().map(|slice| slice.len()).sum()))
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

#[cfg(test)]
mod tests {
    use crate::proxy::upstream::tcp::*;

    #[test]
    fn responses_in_one_segment_stop_immediate_acknowledgements() {
        let mut segments = Segments::default();
        let mut answer = |count| {
            segments.written();
            (0..count).map(|_| segments.received()).collect::<Vec<_>>()
        };
        for _ in 0..Segments::ENOUGH {
            assert_eq!(answer(1), [true]);
        }
        assert_eq!(answer(1), [false]);
        // One in several segments: from its second one on, and the next ones again.
        assert_eq!(answer(3), [false, true, true]);
        for _ in 0..Segments::ENOUGH {
            assert_eq!(answer(1), [true]);
        }
        assert_eq!(answer(1), [false]);
    }
}
