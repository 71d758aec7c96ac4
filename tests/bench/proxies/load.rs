//! The load: clients in a closed loop, each with one connection to the proxy. Raw bytes on one thread, so that it takes
//! little of the processors. It reads the CPU time of all processes at the beginning and the end of what it counts.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::usage::Threads;
use crate::{lab, origin, until_closed, usage};

/// The argument that makes this program the load; an [`Order`] in JSON follows.
pub const ROLE: &str = "load";

/// How long all clients may take to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// How long clients may take to be answered twice each, before it counts.
const WARM_WITHIN: Duration = Duration::from_secs(10);

/// How clients reach the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// Requests for `http` URLs, sent to the proxy.
    Plain,
    /// TLS within CONNECT. Whether the proxy intercepts it is its own configuration.
    Secure,
}

/// What to measure.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    pub proxy: SocketAddr,
    /// Host and port of the origin.
    pub origin: String,
    pub way: Way,
    pub clients: usize,
    /// A new connection for each request.
    pub is_fresh: bool,
    /// Downloads of the large object in place of requests for the small one.
    pub is_large: bool,
    /// How long to count; None: hold idle connections until standard input is closed.
    pub seconds: Option<f64>,
    /// The directory of the lab.
    pub directory: PathBuf,
    /// The processes of the proxy and of the origin.
    pub processes: [u32; 2],
}

/// What was measured.
#[derive(Default, Serialize, Deserialize)]
pub struct Tally {
    pub requests: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    pub bytes: u64,
    pub seconds: f64,
    /// Latency in microseconds.
    pub median: f64,
    pub p99: f64,
    /// The CPU time of the proxy.
    pub proxy: Threads,
    /// The CPU time of the origin and of the load, in nanoseconds.
    pub origin: u64,
    pub load: u64,
}

/// Connects all clients, prints a line, and counts; prints the [`Tally`] in JSON.
pub async fn run(order: Order) -> anyhow::Result<()> {
    let clients = order.clients;
    let seconds = order.seconds;
    let [proxy, origin] = order.processes;
    let plan = Rc::new(Plan::new(order)?);
    LocalSet::new()
        .run_until(async {
            let mut links = Vec::with_capacity(clients);
            let connecting = async {
                for _ in 0..clients {
                    let mut link = plan.connect().await?;
                    // The large object takes too long for a first request.
                    if !plan.order.is_large {
                        link.ask(&plan).await?;
                    }
                    links.push(link);
                }
                anyhow::Ok(())
            };
            timeout(CONNECT_WITHIN, connecting).await.context("the clients cannot connect in time")??;
            let Some(seconds) = seconds else {
                for link in &mut links {
                    link.buffer = Vec::new();
                }
                println!("{}", serde_json::to_string(&Tally::default())?);
                return until_closed().await;
            };
            for link in links {
                tokio::task::spawn_local(client(Rc::clone(&plan), link));
            }
            plan.warm_up(Duration::from_secs_f64(seconds / 5.0)).await;
            let ids = [proxy, origin, std::process::id()];
            let before = ids.map(usage::threads_of);
            let began = Instant::now();
            plan.is_counting.set(true);
            sleep(Duration::from_secs_f64(seconds)).await;
            plan.is_counting.set(false);
            let took = began.elapsed();
            let after = ids.map(usage::threads_of);
            let mut used = Vec::new();
            for (before, after) in before.into_iter().zip(after) {
                used.push(usage::difference(&before?, after?));
            }
            let mut used = used.into_iter();
            let requests = plan.latencies.borrow().len() as u64;
            let tally = Tally {
                requests,
                errors: plan.errors.get(),
                first_error: plan.first_error.take(),
                bytes: plan.bytes.get(),
                seconds: took.as_secs_f64(),
                median: plan.latency(0.5),
                p99: plan.latency(0.99),
                proxy: used.next().unwrap_or_default(),
                origin: used.next().map(|threads| usage::sum(&threads)).unwrap_or_default(),
                load: used.next().map(|threads| usage::sum(&threads)).unwrap_or_default(),
            };
            println!("{}", serde_json::to_string(&tally)?);
            Ok(())
        })
        .await
}

struct Plan {
    order: Order,
    /// What a client sends first, and for each request.
    connect: Vec<u8>,
    request: Vec<u8>,
    tls: TlsConnector,
    name: ServerName<'static>,
    /// How many requests were answered before and while it counts.
    answered: Cell<usize>,
    is_counting: Cell<bool>,
    /// In nanoseconds.
    latencies: RefCell<Vec<u64>>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

impl Plan {
    fn new(order: Order) -> anyhow::Result<Self> {
        let authority = &order.origin;
        let path = if order.is_large { origin::LARGE } else { "/small" };
        let target = match order.way {
            Way::Plain => format!("http://{authority}{path}"),
            Way::Secure => path.to_owned(),
        };
        let (host, _) = authority.rsplit_once(':').context("an origin without a port")?;
        Ok(Self {
            connect: format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes(),
            request: format!(
                "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
            )
            .into_bytes(),
            tls: TlsConnector::from(Arc::new(lab::client_tls(&order.directory)?)),
            name: ServerName::try_from(host.to_owned())?,
            answered: Cell::new(0),
            is_counting: Cell::new(false),
            latencies: RefCell::default(),
            bytes: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::default(),
            order,
        })
    }

    async fn connect(&self) -> anyhow::Result<Link> {
        let mut stream = TcpStream::connect(self.order.proxy).await.context("the proxy cannot be reached")?;
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; if self.order.is_large { 256 * 1024 } else { 8192 }];
        if self.order.way == Way::Plain {
            return Ok(Link { stream: Box::new(stream), buffer });
        }
        stream.write_all(&self.connect).await?;
        let mut filled = 0;
        // The origin does not speak first, so nothing follows the head.
        while !buffer[..filled].ends_with(b"\r\n\r\n") {
            filled += read(&mut stream, &mut buffer[filled..]).await?;
        }
        ensure_ok(&buffer[..filled])?;
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        Ok(Link { stream: Box::new(stream), buffer })
    }

    /// Returns once the connections that all clients need together are there.
    async fn warm_up(&self, at_least: Duration) {
        let began = Instant::now();
        sleep(at_least).await;
        let is_warm = || self.order.is_large || self.answered.get() >= 2 * self.order.clients;
        while !is_warm() && began.elapsed() < WARM_WITHIN {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn count(&self, began: Instant) {
        self.answered.set(self.answered.get() + 1);
        if self.is_counting.get() {
            self.latencies.borrow_mut().push(began.elapsed().as_nanos() as u64);
        }
    }

    fn fail(&self, error: &anyhow::Error) {
        self.errors.set(self.errors.get() + 1);
        self.first_error.borrow_mut().get_or_insert_with(|| format!("{error:#}"));
    }

    /// In microseconds.
    fn latency(&self, quantile: f64) -> f64 {
        let mut latencies = self.latencies.borrow_mut();
        let at = (latencies.len() as f64 * quantile) as usize;
        if at >= latencies.len() {
            return f64::NAN;
        }
        *latencies.select_nth_unstable(at).1 as f64 / 1000.0
    }
}

/// One client, until the process ends.
async fn client(plan: Rc<Plan>, link: Link) {
    let mut link = Some(link).filter(|_| !plan.order.is_fresh);
    loop {
        let began = Instant::now();
        let asked = async {
            let mut link = match link.take() {
                Some(link) => link,
                None => plan.connect().await?,
            };
            link.ask(&plan).await?;
            anyhow::Ok(link)
        };
        match asked.await {
            Ok(used) => {
                plan.count(began);
                link = Some(used).filter(|_| !plan.order.is_fresh);
            }
            Err(error) => {
                plan.fail(&error);
                tokio::task::yield_now().await;
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection to the origin.
struct Link {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Link {
    /// Sends the request and reads the response.
    async fn ask(&mut self, plan: &Plan) -> anyhow::Result<()> {
        self.stream.write_all(&plan.request).await?;
        let mut filled = 0;
        let head = loop {
            filled += read(&mut self.stream, &mut self.buffer[filled..]).await?;
            if let Some(end) = self.buffer[..filled].windows(4).position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
        };
        ensure_ok(&self.buffer[..head])?;
        let length = length(&self.buffer[..head])?;
        let mut left = length.checked_sub(filled - head).context("more than the answer")?;
        plan.add(filled - head);
        while left > 0 {
            let read = read(&mut self.stream, &mut self.buffer).await?;
            left = left.checked_sub(read).context("more than the answer")?;
            plan.add(read);
        }
        Ok(())
    }
}

impl Plan {
    fn add(&self, bytes: usize) {
        if self.is_counting.get() {
            self.bytes.set(self.bytes.get() + bytes as u64);
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> anyhow::Result<usize> {
    ensure!(!buffer.is_empty(), "a large head");
    match stream.read(buffer).await? {
        0 => bail!("the answer broke off"),
        read => Ok(read),
    }
}

fn ensure_ok(head: &[u8]) -> anyhow::Result<()> {
    ensure!(head.get(8..13) == Some(b" 200 "), "not 200: {}", String::from_utf8_lossy(head));
    Ok(())
}

fn length(head: &[u8]) -> anyhow::Result<usize> {
    const NAME: &[u8] = b"content-length:";
    let field = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then_some(value)
    });
    Ok(std::str::from_utf8(field.context("an answer without Content-Length")?)?.trim().parse()?)
}
