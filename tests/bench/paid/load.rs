//! The load: clients that send one request after the other, each over one connection.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::proxy::Proxy;

/// The result of a load.
pub struct Load {
    pub requests: u64,
    pub took: Duration,
    /// The CPU time of the proxy, of the seller and of this process.
    pub cpu: [Duration; 3],
}

/// Requests `url` through the proxy, `requests` times in total; every response must be 200.
pub async fn run(
    (proxy, seller): (&Proxy, u32),
    url: &str,
    clients: usize,
    requests: u64,
) -> anyhow::Result<Load> {
    let processes = [proxy.id()?, seller, std::process::id()];
    let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let request = format!("GET {url} HTTP/1.1\r\nHost: {authority}\r\nAccept: */*\r\n\r\n");
    let left = Cell::new(requests);
    let before = cpu_of(processes)?;
    let began = Instant::now();
    try_join_all((0..clients).map(|_| client(proxy.address, request.as_bytes(), &left))).await?;
    let took = began.elapsed();
    let mut cpu = cpu_of(processes)?;
    for (after, before) in cpu.iter_mut().zip(before) {
        *after = after.saturating_sub(before);
    }
    Ok(Load { requests, took, cpu })
}

/// The CPU time of each process so far, summed over its threads, from `/proc/PID/task/TID/schedstat`.
fn cpu_of(processes: [u32; 3]) -> anyhow::Result<[Duration; 3]> {
    let mut cpu = [Duration::ZERO; 3];
    for (cpu, id) in cpu.iter_mut().zip(processes) {
        for thread in fs::read_dir(format!("/proc/{id}/task")).context("only Linux tells the CPU time")? {
            // A thread may have ended; no worker thread does.
            let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            let nanoseconds = stat.split_ascii_whitespace().next().context("not as expected")?;
            *cpu += Duration::from_nanos(nanoseconds.parse()?);
        }
    }
    Ok(cpu)
}

/// The CPU time of a process so far, also of threads that have ended, from `/proc/PID/stat`, in units of 10 ms.
pub fn ended_cpu_of(process: u32) -> anyhow::Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{process}/stat")).context("only Linux tells the CPU time")?;
    // The name, which may contain anything, ends at the last parenthesis.
    let (_, rest) = stat.rsplit_once(')').context("not as expected")?;
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(10 * ticks))
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

/// Reads one response with a Content-Length; returns the length of its head.
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
