//! Networks for tests: the embedded chain, and a real anvil where there is one.
//!
//! `ANVIL` is the path of anvil's binary (`.ci/anvil` installs it); without it, `anvil` is searched in PATH. With
//! `REQUIRE_ANVIL=1` a missing anvil is a failure, otherwise the anvil half is skipped with a message. The names do not
//! begin with `TOLLPASS_`, the prefix of configuration keys, of which unknown ones are errors.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jsonrpsee::core::client::{ClientT, Error as RpcError};
use jsonrpsee::core::traits::ToRpcParams;
use jsonrpsee::http_client::{HttpClient, HttpClientBuilder};
use jsonrpsee::rpc_params;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tollpass::devnet::chain::{DevChain, DevChainSettings};

/// How long anvil may take to listen.
const ANVIL_STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A running network with the development accounts, stopped when dropped.
pub struct Network {
    pub name: &'static str,
    pub url: String,
    client: HttpClient,
    node: Node,
}

enum Node {
    Embedded(DevChain),
    Anvil(Anvil),
}

/// A running anvil, killed when dropped.
struct Anvil(Child);

impl Drop for Anvil {
    fn drop(&mut self) {
        // An error means that it has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a test on the embedded chain, then on anvil.
pub async fn each_network<F: AsyncFn(&Network)>(test: F) {
    let embedded = Network::embedded(DevChainSettings::default()).await;
    test(&embedded).await;
    embedded.stop().await;
    if let Some(anvil) = Network::anvil().await {
        test(&anvil).await;
        anvil.stop().await;
    }
}

impl Network {
    /// The embedded chain.
    pub async fn embedded(settings: DevChainSettings) -> Self {
        let chain = DevChain::spawn(settings).await.unwrap();
        Self::new("embedded", chain.url(), Node::Embedded(chain))
    }

    /// An anvil of its own, or `None` if it is not installed.
    pub async fn anvil() -> Option<Self> {
        let Some(binary) = anvil_binary() else {
            assert!(
                std::env::var_os("REQUIRE_ANVIL").is_none_or(|required| required != "1"),
                "REQUIRE_ANVIL=1, but there is no anvil: set ANVIL to what .ci/anvil prints"
            );
            eprintln!("SKIPPED ON ANVIL: there is no anvil; set ANVIL to what .ci/anvil prints");
            return None;
        };
        let mut child = Command::new(&binary)
            .args(["--port", "0", "--host", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let anvil = Anvil(child);
        let (listening, listens) = oneshot::channel();
        // Reads to the end, so that anvil never blocks on its output.
        std::thread::spawn(move || {
            let mut listening = Some(listening);
            for line in output.lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("Listening on ")
                    && let Some(listening) = listening.take()
                {
                    let _ = listening.send(format!("http://{address}"));
                }
            }
        });
        let url = tokio::time::timeout(ANVIL_STARTS_WITHIN, listens).await.expect("anvil does not listen");
        let url = url.expect("anvil ended before it listened");
        Some(Self::new("anvil", url, Node::Anvil(anvil)))
    }

    /// Calls a method.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: &str,
        params: impl ToRpcParams + Send,
    ) -> Result<T, RpcError> {
        self.client.request(method, params).await
    }

    /// Mines this many blocks.
    pub async fn mine(&self, count: u64) {
        let _: serde_json::Value =
            self.request("anvil_mine", rpc_params![format!("{count:#x}")]).await.unwrap();
    }

    /// The number of the latest block.
    pub async fn height(&self) -> u64 {
        let height: ethers_core::types::U64 = self.request("eth_blockNumber", rpc_params![]).await.unwrap();
        height.as_u64()
    }

    /// Stops it.
    pub async fn stop(self) {
        match self.node {
            Node::Embedded(chain) => chain.stop().await,
            Node::Anvil(anvil) => drop(anvil),
        }
    }

    fn new(name: &'static str, url: String, node: Node) -> Self {
        let client = HttpClientBuilder::default().build(&url).unwrap();
        Self { name, url, client, node }
    }
}

fn anvil_binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ANVIL") {
        return Some(path.into());
    }
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|directory| directory.join("anvil")).find(|path| path.is_file())
}
