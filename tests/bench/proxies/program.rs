//! The proxies that are compared: how to start one, and what it uses.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::lab::Lab;
use crate::{floor, lab};

const START_WITHIN: Duration = Duration::from_secs(20);

/// One of the proxies, in one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub program: Program,
    pub intercepts: bool,
    /// tollpass only.
    pub access_log: bool,
    /// How many worker threads; None: the program's default.
    pub workers: Option<usize>,
    /// May use only the first processor.
    pub is_pinned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Tollpass,
    /// [`floor::Threads::PerCore`].
    PerCore,
    /// [`floor::Threads::Shared`].
    Shared,
    Haproxy,
}

impl Program {
    pub fn plain(self) -> Setup {
        Setup { program: self, intercepts: false, access_log: false, workers: None, is_pinned: false }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Tollpass => "tollpass",
            Self::PerCore => "floor, per core",
            Self::Shared => "floor, shared",
            Self::Haproxy => "haproxy",
        }
    }
}

impl Setup {
    pub fn name(self) -> String {
        let mut name = self.program.name().to_owned();
        if self.access_log {
            name += ", access log";
        }
        if let Some(workers) = self.workers {
            name += if workers == 1 { ", 1 worker" } else { ", 2 workers" };
        }
        if self.is_pinned {
            name += ", 1 processor";
        }
        name
    }
}

/// A running proxy, stopped when dropped.
pub struct Running {
    pub address: SocketAddr,
    /// From its start until it listens.
    pub took: Duration,
    child: Child,
    _directory: TempDir,
}

impl Running {
    pub async fn start(setup: Setup, lab: &Lab) -> anyhow::Result<Self> {
        let directory = lab.scratch()?;
        let (mut command, inherited) = command(setup, lab, directory.path())?;
        let log = directory.path().join("stderr");
        let began = Instant::now();
        let mut child = command
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", setup.name()))?;
        let listening = async {
            if let Some(address) = inherited {
                return tokio::select! {
                    reached = reach(address) => reached,
                    _ = child.wait() => bail!("it has ended"),
                };
            }
            let mut lines = BufReader::new(child.stdout.take().context("it has no output")?).lines();
            let line = lines.next_line().await?.unwrap_or_default();
            let address = line.strip_prefix("listening on ").context("it does not start")?;
            Ok(address.parse()?)
        };
        let address = match timeout(START_WITHIN, listening).await.context("it does not start in time")? {
            Ok(address) => address,
            Err(error) => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                // One line for the report.
                let said: Vec<&str> = said.split_whitespace().take(20).collect();
                bail!("{error}: {}", said.join(" "));
            }
        };
        Ok(Self { address, took: began.elapsed(), child, _directory: directory })
    }

    pub fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the proxy has exited")
    }
}

/// Waits until a program that does not print a line is there: an inherited socket accepts at once, so ask for an answer.
async fn reach(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    loop {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"?\r\n\r\n").await?;
        if stream.read_u8().await.is_ok() {
            return Ok(address);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// The command, and the address that it inherits if it prints none.
fn command(setup: Setup, lab: &Lab, directory: &Path) -> anyhow::Result<(Command, Option<SocketAddr>)> {
    let mut inherited = None;
    let mut input = Stdio::null();
    let (program, arguments) = match setup.program {
        Program::Tollpass => {
            let file = directory.join("proxy.toml");
            lab::write_private(&file, &configuration(setup, lab.path()))?;
            let program = std::env::var_os("PROXY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tollpass").into());
            (PathBuf::from(program), vec!["serve".into(), "--config".into(), file])
        }
        Program::Shared | Program::PerCore => {
            let processors = if setup.is_pinned { 1 } else { std::thread::available_parallelism()?.get() };
            let threads = match setup.program {
                Program::PerCore => floor::Threads::PerCore(setup.workers.unwrap_or(processors)),
                _ => floor::Threads::Shared,
            };
            input = Stdio::piped();
            let arguments = [
                floor::ROLE.into(),
                serde_json::to_string(&(threads, setup.intercepts))?.into(),
                lab.path().to_owned(),
            ];
            (std::env::current_exe()?, arguments.to_vec())
        }
        Program::Haproxy => {
            let program = find("haproxy").context("haproxy is not installed")?;
            let listener = TcpListener::bind("127.0.0.1:0")?;
            inherited = Some(listener.local_addr()?);
            input = Stdio::from(OwnedFd::from(listener));
            let file = directory.join("haproxy.cfg");
            fs::write(&file, HAPROXY)?;
            (program, vec!["-db".into(), "-f".into(), file])
        }
    };
    let mut command = if setup.is_pinned {
        let mut command = Command::new(find("taskset").context("taskset is not installed")?);
        command.args(["--cpu-list", "0"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.args(arguments).stdin(input).current_dir(directory);
    Ok((command, inherited))
}

fn configuration(setup: Setup, directory: &Path) -> String {
    let mut text = "listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n".to_owned();
    if let Some(workers) = setup.workers {
        text += &format!("workers = {workers}\n");
    }
    let [certificate, key] = lab::ca(directory);
    text += &format!("[upstream]\nproxy = \"none\"\nca_file = {certificate:?}\n");
    if setup.intercepts {
        text +=
            &format!("[intercept]\nhosts = [\"localhost\"]\nca_cert = {certificate:?}\nca_key = {key:?}\n");
    }
    if setup.access_log {
        text += "[log]\naccess = true\nfile = \"tollpass.log\"\n";
    }
    text
}

/// As a forward proxy for IP addresses; the listening socket is standard input.
const HAPROXY: &str = "global
    maxconn 8000
defaults
    mode http
    timeout connect 10s
    timeout client 1m
    timeout server 1m
frontend proxy
    bind fd@0
    http-request set-dst url_ip
    http-request set-dst-port url_port
    default_backend origins
backend origins
    http-reuse always
    server origin 0.0.0.0:0
";

/// The path of a program of the system.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    places.map(|place| place.join(program)).find(|path| path.is_file())
}
