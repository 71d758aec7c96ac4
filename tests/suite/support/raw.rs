//! HTTP at the level of bytes: what is really on the wire, at either end. Every wait is bounded.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// No wait of a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// One end of a connection.
pub struct Raw {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }
}

impl Raw {
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
    }

    /// Closes the half that sends.
    pub async fn finish(&mut self) {
        soon("half-closing", self.stream.shutdown()).await.unwrap();
    }

    /// Everything up to and with the first empty line.
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

/// An origin that does what the test does by hand.
pub struct RawOrigin {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl RawOrigin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub async fn accept(&self) -> Raw {
        soon("a connection", self.listener.accept()).await.unwrap().0.into()
    }

    /// Whether nobody is waiting to be accepted.
    pub async fn is_left_alone(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.listener.accept() => false,
            // Lets the reactor look once.
            () = tokio::time::sleep(Duration::from_millis(20)) => true,
        }
    }
}

/// The value of a field in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}
