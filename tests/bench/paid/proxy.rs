//! The proxy under test: the real program with a wallet, a chain and one rule.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::seller;
use crate::seller::Seller;

/// The program to measure.
pub fn program() -> OsString {
    std::env::var_os("PROXY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tollpass").into())
}

/// A running proxy, stopped when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    child: Child,
    directory: TempDir,
}

impl Proxy {
    /// Starts a proxy that may open this many channels to a seller; each number of channels has its own wallet.
    pub async fn start(program: &OsStr, seller: &Seller, channels: u32) -> anyhow::Result<Self> {
        Self::run(program, &configuration(seller, channels), &seller::wallet(channels)).await
    }

    /// Starts a proxy with this configuration, and this key in the file `key`.
    pub async fn with(configuration: &str, key: &[u8; 32]) -> anyhow::Result<Self> {
        Self::run(&program(), configuration, key).await
    }

    async fn run(program: &OsStr, configuration: &str, key: &[u8; 32]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        write_private(&directory.path().join("key"), &ethers_core::utils::hex::encode(key))?;
        write_private(&directory.path().join("proxy.toml"), configuration)?;
        let mut child = Command::new(program)
            .args(["serve", "--config"])
            .arg(directory.path().join("proxy.toml"))
            // Wallets are locked there, and two programs have the same.
            .env("XDG_RUNTIME_DIR", directory.path())
            .env("XDG_STATE_HOME", directory.path())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.path().join("log"))?)
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("it has no output")?).lines();
        let line = lines.next_line().await?.unwrap_or_default();
        let address =
            line.strip_prefix("listening on ").with_context(|| format!("not a ready line: {line}"))?;
        Ok(Self { address: address.parse()?, child, directory })
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its process ID.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the proxy has exited")
    }
}

fn configuration(seller: &Seller, channels: u32) -> String {
    let Seller { rpc, contract, start_block, .. } = seller;
    format!(
        r#"listen = "127.0.0.1:0"
state_dir = "state"

[wallet]
key_file = "key"

[chain]
rpc_url = "http://{rpc}"
channel_manager = "{contract}"
start_block = {start_block}
poll_every = "100ms"

[deposit]
initial = 1000000
channels = {channels}

[[pay]]
host = "127.0.0.1"
max_price = 1000

[hooks]
nonexisting_channel = {{ action = "retry", every = "50ms", times = 240, timeout = "1m" }}
"#
    )
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
