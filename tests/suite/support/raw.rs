//! HTTP at the level of bytes, at either end of a connection. Every wait is bounded.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The longest wait of a test.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// A byte stream, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One end of a connection.
pub struct Raw {
    pub stream: Box<dyn Stream>,
    read: Vec<u8>,
}

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl Raw {
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), read: Vec::new() }
    }

    pub async fn connect(address: SocketAddr) -> Self {
        soon("connecting", TcpStream::connect(address)).await.unwrap().into()
    }

    /// Connects and sends.
    pub async fn asking(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(bytes).await;
        raw
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("sending", self.stream.write_all(bytes.as_ref())).await.unwrap();
        soon("sending", self.stream.flush()).await.unwrap();
    }

    /// Sends to a peer that may have closed the connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        // What comes back shows how it ended.
        let _ = soon("sending", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Closes the sending half.
    pub async fn finish(&mut self) {
        // The peer may have closed already.
        let _ = soon("half-closing", self.stream.shutdown()).await;
    }

    /// Everything up to and including the first empty line.
    pub async fn head(&mut self) -> String {
        let end = self.until(b"\r\n\r\n").await;
        String::from_utf8(self.take(end)).unwrap()
    }

    pub async fn line(&mut self) -> String {
        let end = self.until(b"\r\n").await;
        String::from_utf8(self.take(end)).unwrap()
    }

    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
        self.take(count)
    }

    /// A chunked body: its data, and its trailer section as text.
    pub async fn chunked(&mut self) -> (Vec<u8>, String) {
        let mut data = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line().await.trim(), 16).unwrap();
            if size == 0 {
                break;
            }
            data.extend(self.exactly(size).await);
            assert_eq!(self.line().await, "\r\n");
        }
        let mut trailers = String::new();
        loop {
            match self.line().await.as_str() {
                "\r\n" => return (data, trailers),
                line => trailers.push_str(line),
            }
        }
    }

    /// Everything up to the close.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// The bytes of one complete, unambiguous request; `None` if the connection closes before its end.
    pub async fn request(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = length_of_request(&self.read) {
                return Some(self.take(length));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Whether nothing arrives for a while, not even the close.
    pub async fn is_quiet(&mut self) -> bool {
        if !self.read.is_empty() {
            return false;
        }
        tokio::time::timeout(Duration::from_millis(20), self.stream.read_buf(&mut self.read)).await.is_err()
    }

    async fn until(&mut self, mark: &[u8]) -> usize {
        loop {
            if let Some(at) = self.read.windows(mark.len()).position(|part| part == mark) {
                return at + mark.len();
            }
            assert!(self.more().await, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        self.read.drain(..count).collect()
    }

    /// Whether there was more; a reset counts as a close.
    async fn more(&mut self) -> bool {
        soon("reading", self.stream.read_buf(&mut self.read)).await.unwrap_or(0) > 0
    }
}

/// An origin that the test operates by hand.
pub struct RawOrigin {
    listener: TcpListener,
    pub address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl RawOrigin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address, tls: None }
    }

    /// One over TLS.
    pub async fn secure(config: Arc<ServerConfig>) -> Self {
        Self { tls: Some(TlsAcceptor::from(config)), ..Self::start().await }
    }

    pub async fn accept(&self) -> Raw {
        soon("a connection", async {
            loop {
                let stream = self.listener.accept().await.unwrap().0;
                stream.set_nodelay(true).unwrap();
                let Some(tls) = &self.tls else { return Raw::over(stream) };
                // Some are opened for a request that never comes, and send nothing.
                if let Ok(stream) = tls.accept(stream).await {
                    return Raw::over(stream);
                }
            }
        })
        .await
    }

    /// Whether no connection is waiting to be accepted.
    pub async fn is_left_alone(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.accept() => false,
            // Lets the reactor poll once.
            () = tokio::time::sleep(Duration::from_millis(20)) => true,
        }
    }
}

/// The length of the request that these bytes begin with, once it is complete. Panics if it is ambiguous.
fn length_of_request(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "a bare CR, LF or NUL: {head:?}");
    let values = |name: &str| -> Vec<String> {
        let lines = head.split("\r\n").skip(1).take_while(|line| !line.is_empty());
        let fields = lines.map(|line| line.split_once(':').unwrap_or_else(|| panic!("no colon: {head:?}")));
        fields
            .filter(|(found, _)| found.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    };
    assert_eq!(values("host").len(), 1, "one Host: {head:?}");
    match (values("content-length").as_slice(), values("transfer-encoding").as_slice()) {
        ([], []) => Some(end),
        ([length], []) => {
            assert!(length.bytes().all(|byte| byte.is_ascii_digit()), "no length: {head:?}");
            assert!(length == "0" || !length.starts_with('0'), "a length with a zero before it: {head:?}");
            let whole = end + length.parse::<usize>().unwrap();
            (bytes.len() >= whole).then_some(whole)
        }
        ([], [coding]) => {
            assert_eq!(coding, "chunked", "{head:?}");
            end_of_chunks(bytes, end)
        }
        _ => panic!("it can be read in more than one way: {head:?}"),
    }
}

/// The end of a chunked body that begins at `at`.
fn end_of_chunks(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = bytes[at..].windows(2).position(|part| part == b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "a chunk of size {digits:?}");
        let size = usize::from_str_radix(digits, 16).unwrap();
        at += line + 2;
        if size == 0 {
            let trailers = bytes.get(at..)?;
            if trailers.starts_with(b"\r\n") {
                return Some(at + 2);
            }
            return Some(at + trailers.windows(4).position(|part| part == b"\r\n\r\n")? + 4);
        }
        let ending = bytes.get(at + size..at + size + 2)?;
        assert_eq!(ending, b"\r\n", "the end of a chunk");
        at += size + 2;
    }
}

/// The value of a header in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}
