//! The load: clients that ask one request after the other over one connection each.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::proxy::Proxy;

/// What a load came to.
pub struct Load {
    pub requests: u64,
    pub took: Duration,
    /// The proxy's time on a processor.
    pub cpu: Duration,
}

/// Asks for `url` through the proxy, `requests` times altogether; every answer must be 200.
pub async fn run(proxy: &Proxy, url: &str, clients: usize, requests: u64) -> anyhow::Result<Load> {
    let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let request = format!("GET {url} HTTP/1.1\r\nHost: {authority}\r\nAccept: */*\r\n\r\n");
    let left = Cell::new(requests);
    let cpu = proxy.cpu()?;
    let began = Instant::now();
    try_join_all((0..clients).map(|_| client(proxy.address, request.as_bytes(), &left))).await?;
    let took = began.elapsed();
    Ok(Load { requests, took, cpu: proxy.cpu()?.saturating_sub(cpu) })
}

async fn client(proxy: SocketAddr, request: &[u8], left: &Cell<u64>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(8192);
    while let Some(rest) = left.get().checked_sub(1) {
        left.set(rest);
        stream.write_all(request).await?;
        read_answer(&mut stream, &mut answer).await?;
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            bail!("not 200: {}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(())
}

/// Reads one answer that names its length; returns how long its head is.
pub async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<usize> {
    answer.clear();
    let mut whole = None;
    loop {
        if whole.is_none()
            && let Some(end) = answer.windows(4).position(|part| part == b"\r\n\r\n")
        {
            whole = Some((end + 4, end + 4 + length(&answer[..end])?));
        }
        if let Some((head, _)) = whole.filter(|(_, whole)| answer.len() >= *whole) {
            return Ok(head);
        }
        if stream.read_buf(answer).await? == 0 {
            bail!("the answer broke off: {}", String::from_utf8_lossy(answer));
        }
    }
}

fn length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?;
    let field = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    Ok(field.context("an answer without Content-Length")?.trim().parse()?)
}
