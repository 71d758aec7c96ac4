//! Alice: a proxy that pays, with a funded throw-away wallet, in this process or as the real program.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::utils::hex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tollpass::app::App;
use tollpass::chain::signer::Signer;
use tollpass::channels::Channels;
use tollpass::config::Config;
use tollpass::devnet::deploy;
use tollpass::payments::{ListedChannel, Payments};
use tollpass::protocol::{Address, Amount};
use tollpass::shutdown::Shutdown;

use crate::support::market::Market;

/// Alice's own key, so that her transactions have their own nonces.
pub const KEY: [u8; 32] = [0xa1; 32];
/// Her token balance.
pub const WEALTH: u64 = 1_000_000_000;
/// How long to wait for anything before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Alice's directory with a key and a configuration, and her money.
pub struct Alice {
    pub directory: TempDir,
    pub address: Address,
    text: String,
}

impl Alice {
    /// Funds a wallet on the market's chain and writes a configuration that pays at most 10,000 per request to any host
    /// on 127.0.0.1. `more` is appended: further tables, such as `[hooks]`.
    pub async fn with(market: &Market, more: &str) -> Self {
        let rule = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n";
        Self::ruled(market, &format!("{rule}\n{more}")).await
    }

    /// The same with `rest` for everything after `[chain]`.
    pub async fn ruled(market: &Market, rest: &str) -> Self {
        Self::at(&market.chain.url(), market.manager, market.token, rest).await
    }

    /// The same on any chain.
    pub async fn at(url: &str, manager: Address, token: Address, rest: &str) -> Self {
        Self::with_key(&KEY, url, manager, token, rest).await
    }

    /// The same with another key.
    pub async fn with_key(key: &[u8; 32], url: &str, manager: Address, token: Address, rest: &str) -> Self {
        let address = Signer::new(key).unwrap().address();
        let tokens = [(token, Amount::from(WEALTH))];
        deploy::fund(url, address, U256::exp10(18), &tokens).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n\n[wallet]\nkey_file = \"key\"\n\n[chain]\n\
             rpc_url = \"{url}\"\nchannel_manager = \"{manager}\"\npoll_every = \"10ms\"\n\n{rest}",
        );
        write_private(&directory.path().join("key"), &hex::encode(key));
        write_private(&directory.path().join("proxy.toml"), &text);
        Self { directory, address, text }
    }

    /// The same without a chain, and without money.
    pub fn without_chain(rest: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n\n[wallet]\nkey_file = \"key\"\n\n{rest}"
        );
        write_private(&directory.path().join("key"), &hex::encode(KEY));
        write_private(&directory.path().join("proxy.toml"), &text);
        Self { directory, address: Signer::new(&KEY).unwrap().address(), text }
    }

    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("proxy.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Replaces a part of the configuration for the next start.
    pub fn change(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "{from} is not in {}", self.text);
        self.text = self.text.replace(from, to);
        std::fs::write(self.config_path(), &self.text).unwrap();
    }

    /// Runs her proxy in this process.
    pub async fn start(&self) -> Running {
        self.start_with(|_| {}).await
    }

    /// The same with a configuration that no file can have.
    pub async fn start_with(&self, change: impl FnOnce(&mut Config)) -> Running {
        let mut config = Config::load(Some(&self.config_path())).unwrap();
        change(&mut config);
        let shutdown = Shutdown::new();
        let app = App::build(config, None, shutdown.clone()).await.unwrap();
        let (address, channels) = (app.address(), app.channels().unwrap().clone());
        let payments = channels.payments().clone();
        let routes = app.route_addresses().collect();
        let task = tokio::spawn(async move { app.run().await.map_err(|error| error.to_string()) });
        Running { address, routes, payments, channels, shutdown, task }
    }

    /// Runs the real program on her configuration.
    pub async fn serve(&self, environment: &[(&str, &str)]) -> Program {
        let mut command = program(["serve", "--config"]);
        command.arg(self.config_path()).envs(environment.iter().copied());
        Program::start(command).await
    }
}

/// The real program with these arguments, without environment variables that could affect it.
pub fn program<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollpass"));
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("TOLLPASS_")) {
        command.env_remove(name);
    }
    // Many tests pay with the same key, and a path that is not absolute reserves none.
    command.env("XDG_RUNTIME_DIR", "none");
    // The user's own configuration and state have no part in a test, nor one test in another.
    command.env("XDG_CONFIG_HOME", "/dev/null").env("XDG_STATE_HOME", "/dev/null");
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A proxy in this process.
pub struct Running {
    pub address: SocketAddr,
    /// The ports of routes with their own port.
    pub routes: Vec<SocketAddr>,
    pub payments: Payments,
    pub channels: Channels,
    pub shutdown: Shutdown,
    task: JoinHandle<Result<(), String>>,
}

impl Running {
    pub async fn channels(&self) -> Vec<ListedChannel> {
        self.payments.list().await.expect("the service runs").channels
    }

    /// Waits until the key is unlocked and the chain synced.
    pub async fn ready(&self) {
        let asking = async { while self.payments.list().await.expect("the service runs").owner.is_none() {} };
        tokio::time::timeout(PATIENCE, asking).await.expect("it does not become ready");
    }

    /// The sum of all promised totals.
    pub async fn promised(&self) -> Amount {
        let channels = self.channels().await;
        channels.iter().fold(Amount::ZERO, |sum, channel| sum.checked_add(channel.promised).unwrap())
    }

    /// Stops it like SIGTERM does, and waits until the journal is closed.
    pub async fn stop(self) {
        drop((self.payments, self.channels));
        self.shutdown.begin();
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("it does not stop");
        ended.unwrap().unwrap();
    }
}

/// The real program.
pub struct Program {
    pub address: SocketAddr,
    pub child: Child,
    log: JoinHandle<String>,
}

impl Program {
    /// Runs it, and waits for the ready line.
    pub async fn start(command: Command) -> Self {
        Self::start_with_log(command, Stdio::piped()).await
    }

    /// The same with another destination for the log.
    pub async fn start_with_log(mut command: Command, log: Stdio) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(log).kill_on_drop(true).spawn().unwrap();
        // It holds the other end of the log's pipe.
        drop(command);
        let errors = child.stderr.take();
        let log = tokio::spawn(async move {
            let mut log = String::new();
            if let Some(mut errors) = errors {
                // Invalid UTF-8 would end the log early, and the test that checks it fails.
                let _ = errors.read_to_string(&mut log).await;
            }
            log
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("no ready line").unwrap();
        let Some(ready) = ready else { panic!("ended before it listened: {}", log.await.unwrap()) };
        let address = ready.strip_prefix("listening on ").expect("the ready line").parse().unwrap();
        Self { address, child, log }
    }

    /// Sends SIGTERM, like a service manager.
    pub fn terminate(&self) {
        terminate(&self.child);
    }

    /// Ends it with SIGTERM, and expects that it succeeds; returns its log.
    pub async fn stop(self) -> String {
        self.terminate();
        let (status, log) = self.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }

    /// Kills it; returns its log.
    pub async fn kill(mut self) -> String {
        self.child.kill().await.unwrap();
        self.log.await.unwrap()
    }

    /// Waits until it has exited by itself; returns its status and log.
    pub async fn ended(mut self) -> (std::process::ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it does not end");
        (status.unwrap(), self.log.await.unwrap())
    }
}

/// Sends SIGTERM.
pub fn terminate(child: &Child) {
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it has not ended");
    kill_process(id, Signal::TERM).unwrap();
}

pub fn write_private(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
