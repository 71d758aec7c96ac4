//! The origin: as little work for each request as possible, so that it is never what limits a proxy. It answers every
//! request with the same bytes, over HTTP and HTTPS, on one thread.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::ensure;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use crate::{lab, until_closed};

/// The argument that makes this program the origin; the directory of the lab follows.
pub const ROLE: &str = "origin";
/// The path of the large object. Every other path has the small one.
pub const LARGE: &str = "/large";

const SMALL_BYTES: usize = 1024;
pub const LARGE_BYTES: usize = 100_000_000;
/// The large object is this many bytes again and again.
const PIECE: usize = 256 * 1024;

struct Answers {
    small: Vec<u8>,
    large_head: Vec<u8>,
    piece: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let head = |length| {
            format!(
                "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
                 Content-Type: application/octet-stream\r\nETag: \"1\"\r\nContent-Length: {length}\r\n\r\n"
            )
            .into_bytes()
        };
        let mut small = head(SMALL_BYTES);
        small.extend([b'x'; SMALL_BYTES]);
        Self { small, large_head: head(LARGE_BYTES), piece: vec![b'x'; PIECE] }
    }
}

/// Prints both addresses, then serves until standard input is closed.
pub async fn serve(directory: &Path) -> anyhow::Result<()> {
    let tls = TlsAcceptor::from(Arc::new(lab::origin_tls(directory)?));
    let (plain, secure) = (listen()?, listen()?);
    println!("{} {}", plain.local_addr()?, secure.local_addr()?);
    let answers = Rc::new(Answers::new());
    let serving = async {
        let on_plain = accept(&plain, |stream| {
            let answers = Rc::clone(&answers);
            Box::pin(async move { answer(stream, &answers).await })
        });
        let on_secure = accept(&secure, |stream| {
            let (answers, tls) = (Rc::clone(&answers), tls.clone());
            Box::pin(async move { answer(tls.accept(stream).await?, &answers).await })
        });
        tokio::try_join!(on_plain, on_secure)
    };
    LocalSet::new()
        .run_until(async {
            tokio::select! { done = serving => done.map(drop), done = until_closed() => done }
        })
        .await
}

fn listen() -> anyhow::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(socket.listen(4096)?)
}

type Connection = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

async fn accept(listener: &TcpListener, serve: impl Fn(TcpStream) -> Connection) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection that breaks off is the proxy's business; the load counts what it misses.
        tokio::task::spawn_local(serve(stream));
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: &Answers) -> anyhow::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let mut filled = 0;
        while !buffer[..filled].ends_with(b"\r\n\r\n") {
            ensure!(filled < buffer.len(), "a large head");
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                read => filled += read,
            }
        }
        let line = buffer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        if !line.windows(LARGE.len()).any(|part| part == LARGE.as_bytes()) {
            stream.write_all(&answers.small).await?;
            continue;
        }
        stream.write_all(&answers.large_head).await?;
        let mut left = LARGE_BYTES;
        while left > 0 {
            let piece = &answers.piece[..left.min(PIECE)];
            stream.write_all(piece).await?;
            left -= piece.len();
        }
        stream.flush().await?;
    }
}
