//! `tollpass demo`, from the ready line to the end.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use http::StatusCode;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::http_client::HttpClient;
use jsonrpsee::rpc_params;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{only_channel, run, run_with, text};
use crate::support::curl::curl;
use crate::support::payer::{PATIENCE, Program, program, terminate};
use crate::support::raw::soon;

/// How long the demo may take to exit.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A running demo.
struct Demo {
    child: Child,
    /// The output before the ready line.
    told: String,
    proxy: String,
    origin: String,
    secure: String,
    rpc: String,
    state_dir: PathBuf,
}

impl Demo {
    async fn start(more: &[&str]) -> Self {
        let mut command =
            program(["demo", "--port", "0", "--origin-port", "0", "--rpc-port", "0", "--secure-port", "0"]);
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let mut told = String::new();
        let ready = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it ended before it was ready");
                if line.starts_with("ready ") {
                    return line;
                }
                told += &(line + "\n");
            }
        };
        let ready = tokio::time::timeout(PATIENCE, ready).await.expect("it is not ready");
        let [proxy, origin, rpc, secure] = ready.split(' ').skip(1).collect::<Vec<_>>()[..] else {
            panic!("{ready}")
        };
        let proxy = local("proxy=", proxy);
        let (origin, rpc) = (local("origin=http://", origin), local("rpc=http://", rpc));
        let secure = local("secure=https://", secure);
        let state_dir = told.lines().find_map(|line| line.split_once("channels --state-dir ")).unwrap().1;
        Self { state_dir: state_dir.into(), child, told, proxy, origin, secure, rpc }
    }

    async fn buy(&self) {
        let url = format!("http://{}/paid", self.origin);
        let got = curl(Some(self.proxy.parse().unwrap()), &[&url]).await.got;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert!(got.body.starts_with(b"This text was paid for"), "{got:?}");
    }

    async fn buy_securely(&self) {
        let (url, ca) = (format!("https://{}/paid", self.secure), self.state_dir.join("ca.pem"));
        let more = ["--cacert", ca.to_str().unwrap(), &url];
        let got = curl(Some(self.proxy.parse().unwrap()), &more).await.got;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert!(got.body.starts_with(b"This text was paid for"), "{got:?}");
    }

    /// Buys what is paid for with an authorization, and expects that it moved on the chain.
    async fn buy_by_authorization(&self) {
        let url = format!("http://localhost:{}/x402", self.origin.rsplit_once(':').unwrap().1);
        let line = format!("curl -i -x http://{} {url}\n", self.proxy);
        assert!(self.told.contains(&line), "no {line} in {}", self.told);
        assert_eq!(curl(None, &[&url]).await.got.status, StatusCode::PAYMENT_REQUIRED);
        let got = curl(Some(self.proxy.parse().unwrap()), &[&url]).await.got;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert!(got.body.starts_with(b"This text was paid for"), "{got:?}");
        assert!(!got.headers.contains_key("payment-response"), "{got:?}");
        let ledger = ["ledger", "--json", "--state-dir", text(&self.state_dir)];
        let written = async {
            loop {
                let rows: Vec<serde_json::Value> = serde_json::from_str(&run(&ledger).await.out).unwrap();
                if let Some(row) =
                    rows.into_iter().find(|row| row["scheme"] == "x402" && row["state"] == "paid")
                {
                    return row;
                }
            }
        };
        let row = soon("the row", written).await;
        assert_eq!((&row["price"], &row["path"]), (&"1000".into(), &"/x402".into()), "{row}");
        let balance = format!("0x70a08231{:0>64}", row["payee"].as_str().unwrap().trim_start_matches("0x"));
        let call = serde_json::json!({"to": row["token"], "data": balance});
        let client = HttpClient::builder().build(format!("http://{}", self.rpc)).unwrap();
        let moved: String = client.request("eth_call", rpc_params![call, "latest"]).await.unwrap();
        assert_eq!(u64::from_str_radix(moved.trim_start_matches("0x"), 16), Ok(1000));
    }

    /// Stops it with SIGTERM and returns its log.
    async fn end(mut self) -> String {
        let begun = Instant::now();
        terminate(&self.child);
        let status =
            tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it does not end").unwrap();
        assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
        assert_eq!(status.code(), Some(0), "{log}");
        let directory = self.state_dir.parent().unwrap();
        assert!(!directory.exists(), "{} is left", directory.display());
        log
    }
}

/// The `127.0.0.1:PORT` after the name.
fn local(name: &str, word: &str) -> String {
    let address = word.strip_prefix(name).unwrap_or_else(|| panic!("{word} is not {name}127.0.0.1:PORT"));
    let port: u16 = address.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    assert_ne!(port, 0);
    address.to_owned()
}

#[tokio::test]
async fn the_demo_does_what_it_says() {
    let demo = Demo::start(&[]).await;
    let paid = format!("http://{}/paid", demo.origin);
    // The printed commands work.
    let ca = demo.state_dir.join("ca.pem");
    let secure =
        format!("curl -i -x http://{} --cacert {} https://{}/paid\n", demo.proxy, text(&ca), demo.secure);
    for line in [format!("curl -i {paid}\n"), format!("curl -i -x http://{} {paid}\n", demo.proxy), secure] {
        assert!(demo.told.contains(&line), "no {line} in {}", demo.told);
    }
    assert_eq!(curl(None, &[&paid]).await.got.status, StatusCode::PAYMENT_REQUIRED);
    for total in ["1000", "2000"] {
        demo.buy().await;
        let ran = run(&["channels", "--json", "--state-dir", text(&demo.state_dir)]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(only_channel(&ran.out), (total.to_owned(), total.to_owned()));
    }
    demo.buy_securely().await;
    demo.buy_by_authorization().await;
    let ran = run(&["channels", "--state-dir", text(&demo.state_dir)]).await;
    assert_eq!((ran.code, &*ran.errors), (0, ""));
    let [payer, head, row] = ran.out.lines().collect::<Vec<_>>()[..] else { panic!("{}", ran.out) };
    assert!(payer.starts_with("payer 0x") && payer.ends_with(", chain 31337"), "{payer}");
    assert!(head.starts_with("RECEIVER") && head.ends_with("PROMISED  ACKNOWLEDGED  HOST"), "{head}");
    let cells: Vec<_> = row.split_whitespace().skip(2).collect();
    assert_eq!(cells, ["open", "10000", "3000", "3000", "127.0.0.1"], "{row}");

    let check = run(&["check", "--config", text(&demo.state_dir.with_file_name("proxy.toml"))]).await;
    assert_eq!(check.code, 0, "{check:?}");
    assert!(check.out.contains(&demo.rpc) && !check.out.contains("FAIL"), "{check:?}");
    let log = demo.end().await;
    let payments: Vec<_> = log.lines().filter(|line| line.contains("paid 1000 for #")).collect();
    assert_eq!(payments.len(), 3, "{log}");
    assert!(log.contains("paid 0.001 DUSD for #"), "{log}");
}

#[tokio::test]
async fn the_demo_sells_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("below")).unwrap();
    std::fs::write(directory.path().join("below/a~1.bin"), [0, 1, 255]).unwrap();
    let demo = Demo::start(&["--sell", text(directory.path())]).await;
    let url = |path: &str| format!("http://{}/{path}", demo.origin);
    assert_eq!(curl(None, &[&url("below/a~1.bin")]).await.got.status, StatusCode::PAYMENT_REQUIRED);
    let proxy = Some(demo.proxy.parse().unwrap());
    let got = curl(proxy, &[&url("below/a~1.bin")]).await.got;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &[0, 1, 255][..]));
    for path in ["below", "below/b", "a~1.bin", "below/../below/a~1.bin"] {
        assert_eq!(
            curl(proxy, &["--path-as-is", &url(path)]).await.got.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    demo.end().await;

    std::fs::write(directory.path().join("a b"), "").unwrap();
    let ports = ["--port", "--origin-port", "--rpc-port", "--secure-port"].map(|port| [port, "0"]).concat();
    let ran = run(&[&["demo", "--sell", text(directory.path())], &ports[..]].concat()).await;
    ran.expect_failure(&["a b", "URL"]);
}

#[tokio::test]
async fn the_demo_also_waits_for_blocks() {
    let demo = Demo::start(&["--block-time", "1s"]).await;
    // Blocks are mined although nothing happens.
    let node = HttpClient::builder().build(format!("http://{}", demo.rpc)).unwrap();
    let height = async || -> String { node.request("eth_blockNumber", rpc_params![]).await.unwrap() };
    let before = height().await;
    soon("a block", async { while height().await == before {} }).await;
    demo.buy().await;
    let begun = Instant::now();
    demo.buy().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "a second request waited for a block");
    let ran = run(&["channels", "--json", "--state-dir", text(&demo.state_dir)]).await;
    assert_eq!(only_channel(&ran.out), ("2000".to_owned(), "2000".to_owned()));
    demo.end().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for option in ["--port", "--origin-port", "--rpc-port", "--secure-port"] {
        let mut arguments = vec!["demo"];
        for other in ["--port", "--origin-port", "--rpc-port", "--secure-port"] {
            arguments.extend([other, if other == option { &port } else { "0" }]);
        }
        let ran = run(&arguments).await;
        ran.expect_failure(&[&port, option]);
        assert!(!ran.errors.contains("--listen"), "{ran:?}");
        assert_eq!(ran.errors.matches("Address already in use").count(), 1, "{ran:?}");
    }
}

#[tokio::test]
async fn a_configuration_of_ones_own_is_rehearsed_with_play_money() {
    let home = tempfile::tempdir().unwrap();
    let (config, password) = (home.path().join("proxy.toml"), [("TOLLPASS_WALLET_PASSWORD", "swordfish")]);
    let directory = text(home.path());
    let made =
        run_with(&["init", "--dir", directory, "--pay", "localhost", "--pay", "127.0.0.1"], &password).await;
    assert_eq!(made.code, 0, "{made:?}");
    let address = made.out.lines().find_map(|line| line.strip_prefix("Your address: ")).unwrap();
    let other = format!("0x{}", "5".repeat(40));
    let demo = Demo::start(&["--fund", address, "--fund", &other]).await;
    assert!(demo.told.contains(&format!("{address} and {other} have play money")), "{}", demo.told);

    // The script does what the demo says.
    let script = demo.told.lines().find_map(|line| line.strip_prefix("  . ")).unwrap();
    let set = Command::new("sh").env_clear().args(["-c", ". \"$1\"; env", "sh", script]).output().await;
    let set = String::from_utf8(set.unwrap().stdout).unwrap();
    let variables: Vec<_> = set
        .lines()
        .filter(|line| line.starts_with("TOLLPASS_"))
        .map(|line| line.split_once('=').unwrap())
        .chain(password)
        .collect();
    let state = variables.iter().find(|(name, _)| *name == "TOLLPASS_STATE_DIR").unwrap().1;
    assert!(demo.state_dir.parent() == Path::new(state).parent(), "{state} ends with the demo");
    let mut command = program(["serve", "--listen", "127.0.0.1:0", "--config", text(&config)]);
    command.envs(variables.iter().copied());
    let served = Program::start(command).await;

    let port = demo.origin.rsplit_once(':').unwrap().1;
    let ca = Path::new(state).join("ca.pem");
    let secure = format!("https://{}/paid", demo.secure);
    for words in [
        &[&*format!("http://localhost:{port}/x402")][..],
        &[&*format!("http://{}/paid", demo.origin)],
        &["--cacert", text(&ca), &secure],
    ] {
        let got = curl(Some(served.address), words).await.got;
        assert_eq!(got.status, StatusCode::OK, "{words:?}: {got:?}");
        assert!(got.body.starts_with(b"This text was paid for"), "{got:?}");
    }
    // Its own budget counts both tokens.
    let paid = async || {
        let ledger = run_with(&["ledger", "--json", "--config", text(&config)], &variables).await;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&ledger.out).unwrap();
        rows.iter().filter(|row| row["state"] == "paid").count()
    };
    soon("the rows of the ledger", async { while paid().await < 3 {} }).await;
    let budget = run_with(&["budget", "--config", text(&config)], &variables).await;
    assert!(budget.code == 0 && budget.out.contains("daily"), "{budget:?}");
    served.stop().await;

    // Each funded account has what it needs.
    let client = HttpClient::builder().build(format!("http://{}", demo.rpc)).unwrap();
    let wei: String = client.request("eth_getBalance", rpc_params![&other, "latest"]).await.unwrap();
    assert_eq!(u64::from_str_radix(wei.trim_start_matches("0x"), 16), Ok(1_000_000_000_000_000_000));
    demo.end().await;
    let refused = run(&["demo", "--fund", "0x12"]).await;
    refused.expect_failure(&["--fund", "0x12"]);
}
