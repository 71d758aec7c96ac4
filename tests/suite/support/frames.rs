//! HTTP/2 origins that do what no well-behaved server does: at the level of frames, or stream by stream with a script.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::secure::Secure;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
/// END_STREAM, or ACK.
pub const END: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PREFACE: usize = 24;

/// A connection whose frames are read and written.
pub struct Frames(TlsStream<TcpStream>);

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Frames {
    /// Reads the client's preface and sends these settings.
    pub async fn greet(mut stream: TlsStream<TcpStream>, settings: &[(u16, u32)]) -> Self {
        let mut preface = [0; PREFACE];
        stream.read_exact(&mut preface).await.unwrap();
        let mut frames = Self(stream);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.write(SETTINGS, 0, 0, &payload).await;
        frames
    }

    /// The next frame; `None` at the end.
    pub async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        let frame = Frame { kind: head[3], flags: head[4], stream };
        if frame.kind == SETTINGS && frame.flags & END == 0 {
            self.write(SETTINGS, END, 0, &[]).await;
        }
        Some(frame)
    }

    /// The stream of the next request's head.
    pub async fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.read().await?;
            if frame.kind == HEADERS {
                return Some(frame.stream);
            }
        }
    }

    pub async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        // A client may have disconnected; the test checks its own end.
        let _ = self.0.write_all(&[&head, payload].concat()).await;
        let _ = self.0.flush().await;
    }

    /// Status 200 and no body.
    pub async fn answer(&mut self, stream: u32) {
        self.write(HEADERS, END | END_HEADERS, stream, &[0x88]).await;
    }

    /// A head with an index that is not in the table (RFC 7541, section 6.1).
    pub async fn write_unreadable_head(&mut self, stream: u32) {
        self.write(HEADERS, END | END_HEADERS, stream, &[0x80]).await;
    }

    /// No stream above this one was or will be processed.
    pub async fn go_away(&mut self, last: u32) {
        self.write(GOAWAY, 0, 0, &[last.to_be_bytes(), 0_u32.to_be_bytes()].concat()).await;
    }

    /// Keeps the connection open and does nothing.
    pub async fn hang(self) {
        std::future::pending::<()>().await;
        drop(self);
    }
}

/// What to do with a stream.
pub enum Act {
    Answer(Response<Bytes>),
    /// RST_STREAM with REFUSED_STREAM.
    Refuse,
    /// RST_STREAM with this.
    Reset(h2::Reason),
    /// GOAWAY that includes this stream among the processed ones, then closes.
    Leave,
    /// The length of the request's body, once it has arrived completely.
    Measure(h2::RecvStream),
}

/// Serves only HTTP/2, with a script that may read bodies.
pub async fn scripted(
    config: Arc<ServerConfig>,
    script: impl FnMut(Request<h2::RecvStream>) -> Act + Send + 'static,
) -> Secure {
    let script = Arc::new(Mutex::new(script));
    Secure::accept(config, move |stream| {
        let script = Arc::clone(&script);
        async move { serve(stream, move |request| (script.lock().unwrap())(request)).await }
    })
    .await
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    script: impl Fn(Request<h2::RecvStream>) -> Act,
) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        match script(request) {
            Act::Refuse => respond.send_reset(h2::Reason::REFUSED_STREAM),
            Act::Reset(reason) => respond.send_reset(reason),
            Act::Leave => connection.abrupt_shutdown(h2::Reason::INTERNAL_ERROR),
            Act::Measure(mut body) => {
                tokio::spawn(async move {
                    let mut length = 0;
                    while let Some(Ok(piece)) = body.data().await {
                        length += piece.len();
                        body.flow_control().release_capacity(piece.len()).unwrap();
                    }
                    let mut sending = respond.send_response(Response::new(()), false).unwrap();
                    sending.send_data(length.to_string().into(), true).unwrap();
                });
            }
            Act::Answer(response) => {
                let (head, body) = response.into_parts();
                let mut sending =
                    respond.send_response(Response::from_parts(head, ()), body.is_empty()).unwrap();
                if !body.is_empty() {
                    sending.send_data(body, true).unwrap();
                }
            }
        }
    }
    // The test checks the end of the connection at its own end.
    let _ = poll_fn(|cx| connection.poll_closed(cx)).await;
}
