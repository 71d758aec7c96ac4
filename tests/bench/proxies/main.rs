//! What a request costs, compared with other proxies on loopback: `.ci/bench`, or `cargo bench --bench proxies`. Load,
//! origin and each proxy are processes of their own; tollpass is the real program. Proxies alternate within each round, and
//! numbers are medians over the rounds. It ends by itself. The table at the end says which requirements hold; only what
//! cannot be measured makes it fail.
//!
//! The environment variable `PROXY` names another tollpass program to measure.

mod cases;
mod floor;
mod lab;
mod load;
mod origin;
mod paid;
mod program;
mod report;
mod usage;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use cases::{Case, Line};
use lab::Lab;
use load::{Order, Tally, Way};
use program::{Running, Setup};
use report::Results;

/// The overall deadline.
const WITHIN: Duration = Duration::from_secs(45 * 60);
/// How much longer than what it counts a load may take.
const LOAD_WITHIN: Duration = Duration::from_secs(90);
/// How long memory settles before it is read.
const SETTLE: Duration = Duration::from_millis(500);
/// How many connections are idle when memory is read.
const IDLE: usize = 1000;

/// Compares tollpass with other proxies on loopback.
#[derive(clap::Parser)]
struct Options {
    /// What to measure; everything if omitted
    lines: Vec<Line>,
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each takes
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The output of `cargo bench --bench paid`, for its requirements
    #[arg(long)]
    paid: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments[..] {
        [origin::ROLE, directory] => runtime.block_on(origin::serve(Path::new(directory)))?,
        [load::ROLE, order] => runtime.block_on(load::run(serde_json::from_str(order)?))?,
        [floor::ROLE, kind, directory] => {
            let (threads, intercepts) = serde_json::from_str(kind)?;
            floor::serve(threads, intercepts, Path::new(directory))?;
        }
        _ => {
            let options = Options::parse();
            let limit = getrlimit(Resource::Nofile);
            // 4,000 clients take twice as many files of a proxy.
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
            return runtime.block_on(async {
                tokio::select! {
                    done = timeout(WITHIN, compare(&options)) => done.context("not done within 45 minutes")?,
                    _ = tokio::signal::ctrl_c() => bail!("interrupted"),
                }
            });
        }
    }
    // A thread of the runtime may still wait for standard input.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// Returns once standard input is closed, because the process that started this one has ended.
async fn until_closed() -> anyhow::Result<()> {
    let mut input = tokio::io::stdin();
    while input.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

async fn compare(options: &Options) -> anyhow::Result<ExitCode> {
    let lab = Lab::create()?;
    let bench = Bench {
        // One that is busy with large objects would delay the small ones.
        origin: Origin::start(&lab).await?,
        large_origin: Origin::start(&lab).await?,
        seconds: options.seconds,
        lab,
    };
    let lines = match options.lines.as_slice() {
        // Only payments are asked for.
        _ if options.rounds == 0 => &[],
        [] => Line::ALL.as_slice(),
        lines => lines,
    };
    let mut results = Results::default();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        bench.round(round, lines, &mut results).await;
    }
    let paid = match &options.paid {
        Some(file) => paid::requirements(file)?,
        None => Vec::new(),
    };
    results.print(lines, paid);
    Ok(if results.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Bench {
    lab: Lab,
    origin: Origin,
    large_origin: Origin,
    seconds: f64,
}

impl Bench {
    /// Measures each line once.
    async fn round(&self, round: usize, lines: &[Line], results: &mut Results) {
        for line in lines {
            for (case, mut setups) in line.cases() {
                // No proxy is always first.
                let first = round % setups.len();
                setups.rotate_left(first);
                for setup in setups {
                    if results.is_available(setup)
                        && let Err(error) = self.measure(case, setup, results).await
                    {
                        results.fail(case, setup, &error);
                    }
                }
            }
        }
    }

    async fn measure(&self, case: Case, setup: Setup, results: &mut Results) -> anyhow::Result<()> {
        let proxy = match Running::start(setup, &self.lab).await {
            Ok(proxy) => proxy,
            Err(error) => {
                results.skip(setup, &error);
                return Ok(());
            }
        };
        if case.line == Line::Memory {
            return self.memory(case, setup, &proxy, results).await;
        }
        let order = self.order(case, setup, &proxy)?;
        let load = Load::start(&order)?;
        let (tally, downloads) = if case.line == Line::Skew {
            let order = Order {
                origin: self.large_origin.authority(order.way),
                clients: cases::DOWNLOADS,
                is_large: true,
                ..order
            };
            let downloads = Load::start(&order)?;
            let (tally, downloads) = tokio::join!(load.result(), downloads.result());
            (tally?, Some(downloads?))
        } else {
            (load.result().await?, None)
        };
        results.add(case, setup, tally, downloads);
        Ok(())
    }

    /// The memory of a new process.
    async fn memory(
        &self,
        case: Case,
        setup: Setup,
        proxy: &Running,
        results: &mut Results,
    ) -> anyhow::Result<()> {
        let id = proxy.id()?;
        let order = Order { seconds: None, ..self.order(case, setup, proxy)? };
        let mut first = Load::start(&Order { clients: 1, ..order.clone() })?;
        first.line().await?;
        drop(first);
        sleep(SETTLE).await;
        let idle = usage::resident(id)?;
        let mut held = Load::start(&order)?;
        held.line().await?;
        sleep(SETTLE).await;
        results.add_memory(case, setup, proxy.took, [idle, usage::resident(id)?]);
        Ok(())
    }

    fn order(&self, case: Case, setup: Setup, proxy: &Running) -> anyhow::Result<Order> {
        let way = case.way(setup);
        Ok(Order {
            proxy: proxy.address,
            origin: self.origin.authority(way),
            way,
            clients: case.clients,
            is_fresh: case.is_fresh(),
            is_large: false,
            seconds: Some(self.seconds),
            directory: self.lab.path().to_owned(),
            processes: [proxy.id()?, self.origin.child.id().context("the origin has ended")?],
        })
    }
}

/// This program, in one of its other roles; ends when this process does.
fn role(arguments: &[&str]) -> anyhow::Result<Child> {
    Ok(Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?)
}

struct Origin {
    child: Child,
    /// Host and port of HTTP and HTTPS. The name is one that interception is configured for.
    plain: String,
    secure: String,
}

impl Origin {
    async fn start(lab: &Lab) -> anyhow::Result<Self> {
        let mut child = role(&[origin::ROLE, &lab.path().to_string_lossy()])?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let line = lines.next_line().await?.context("the origin has ended")?;
        let (plain, secure) = line.split_once(' ').context("not two addresses")?;
        let (_, port) = secure.rsplit_once(':').context("no port")?;
        Ok(Self { plain: plain.to_owned(), secure: format!("localhost:{port}"), child })
    }

    fn authority(&self, way: Way) -> String {
        match way {
            Way::Plain => self.plain.clone(),
            Way::Secure => self.secure.clone(),
        }
    }
}

/// A running load, stopped when dropped.
struct Load {
    output: BufReader<ChildStdout>,
    within: Duration,
    _child: Child,
}

impl Load {
    fn start(order: &Order) -> anyhow::Result<Self> {
        let mut child = role(&[load::ROLE, &serde_json::to_string(order)?])?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let within = LOAD_WITHIN + Duration::from_secs_f64(order.seconds.unwrap_or_default() * 1.2);
        Ok(Self { output, within, _child: child })
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        timeout(self.within, self.output.read_line(&mut line)).await.context("the load does not end")??;
        if line.is_empty() {
            bail!("the load has failed");
        }
        Ok(line)
    }

    async fn result(mut self) -> anyhow::Result<Tally> {
        Ok(serde_json::from_str(&self.line().await?)?)
    }
}
