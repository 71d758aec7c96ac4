//! Two TCP streams joined into one: bytes pass both ways, and each half closes on its own.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::dial::Link;

/// One end of a tunnel: the stream, and what had been read from it too early.
pub(super) struct End {
    pub(super) stream: TcpStream,
    pub(super) early: Bytes,
}

impl End {
    /// The client's connection, taken back from the HTTP server.
    pub(super) fn client(upgraded: Upgraded) -> io::Result<Self> {
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| foreign())?;
        Ok(Self { stream: parts.io.into_inner(), early: parts.read_buf })
    }

    /// The origin's connection, taken back from the HTTP client.
    pub(super) fn origin(upgraded: Upgraded) -> io::Result<Self> {
        let parts = upgraded.downcast::<TokioIo<Link>>().map_err(|_| foreign())?;
        Ok(Self { stream: parts.io.into_inner().into_stream(), early: parts.read_buf })
    }
}

fn foreign() -> io::Error {
    io::Error::other("the connection is no plain TCP stream")
}

/// Moves bytes both ways until both halves are closed, or either fails.
///
/// # Errors
/// Whatever the system reports on either stream; both are closed then.
pub(super) async fn join(client: End, origin: End, buffer: usize) -> io::Result<()> {
    let (mut client, from_client) = (client.stream, client.early);
    let (mut origin, from_origin) = (origin.stream, origin.early);
    let (client_read, client_write) = client.split();
    let (origin_read, origin_write) = origin.split();
    tokio::try_join!(
        pass(client_read, origin_write, from_client, buffer),
        pass(origin_read, client_write, from_origin, buffer),
    )?;
    Ok(())
}

async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, early: Bytes, size: usize) -> io::Result<()> {
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
        to.write_all(&buffer).await?;
        buffer.clear();
    }
}
