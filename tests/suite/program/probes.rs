//! `/health`, `/ready` and `tollpass healthcheck`: what tells a container's engine whether the proxy serves and pays.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Stdio;

use ethers_core::types::U256;
use ethers_core::utils::hex;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tokio::process::Command;
use tollpass::devnet::deploy;
use tollpass::payments::journal::sidecar_files;

use super::{Ran, run, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::market::Market;
use crate::support::office::Office;
use crate::support::payer::{Alice, KEY, PATIENCE, Program, program};
use crate::support::raw::Raw;
use crate::support::relay::{Mode, Relay};
use crate::support::wire::{Got, Wire, ask};

/// Sends a request to the proxy itself.
async fn probe(address: SocketAddr, path: &str) -> Got {
    let mut wire = Wire::connect(address).await;
    let request = Request::get(path).header("host", address.to_string()).body(empty()).unwrap();
    wire.ask(request).await.unwrap()
}

/// The names of the reasons why it is not ready, with the status that must go with them.
async fn reasons(address: SocketAddr) -> Vec<String> {
    let got = probe(address, "/ready").await;
    let told: Value = serde_json::from_str(got.text()).unwrap();
    let reasons: Vec<String> = told["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| {
            assert!(!reason["details"].as_str().unwrap().is_empty(), "{told}");
            reason["reason"].as_str().unwrap().to_owned()
        })
        .collect();
    let expected = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    assert_eq!((got.status, told["ready"].as_bool()), (expected, Some(reasons.is_empty())), "{got:?}");
    assert_eq!(got.headers["content-type"], "application/json");
    assert_eq!(got.headers["cache-control"], "no-store");
    reasons
}

/// Waits until it gives these reasons; it keeps an answer for a moment.
async fn await_reasons(address: SocketAddr, expected: &[&str]) {
    let mut last = reasons(address).await;
    let waiting = async {
        while last != expected {
            last = reasons(address).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(ended.is_ok(), "{last:?} instead of {expected:?}");
}

async fn check(listen: SocketAddr, more: &[&str]) -> Ran {
    let listen = listen.to_string();
    run(&[&["healthcheck", "--listen", &listen], more].concat()).await
}

#[tokio::test]
async fn a_proxy_is_ready_while_it_can_pay() {
    let fair = Fair::open().await;
    let relay = Relay::before(&fair.market.chain.url()).await;
    let mut alice = Alice::with(&fair.market, QUICK).await;
    alice.change(&fair.market.chain.url(), &relay.url());
    relay.set(Mode::Cut);
    let proxy = alice.serve(&[]).await;
    let at = proxy.address;
    // It serves, long before it can pay.
    let got = probe(at, "/health").await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, "ok\n"));
    await_reasons(at, &["node-unavailable"]).await;
    let config = alice.config_path();
    let page = probe(at, "/").await;
    assert!(page.text().contains("not now: the node of [chain]"), "{}", page.text());
    relay.set(Mode::Pass);
    await_reasons(at, &[]).await;
    let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(at, paid).await.status, StatusCode::OK);

    for (command, expected) in [("freeze", &["frozen"][..]), ("thaw", &[])] {
        assert_eq!(run(&[command, "--config", text(&config)]).await.code, 0);
        await_reasons(at, expected).await;
        let ran = check(at, &["--ready"]).await;
        assert_eq!(ran.code, i32::from(!expected.is_empty()), "{ran:?}");
        assert!(expected.iter().all(|reason| ran.errors.contains(reason)), "{ran:?}");
        let ran = check(at, &[]).await;
        assert_eq!(ran.code, 0, "it serves: {ran:?}");
    }

    // The node gives out again, and works again.
    relay.set(Mode::Status(401));
    await_reasons(at, &["node-unavailable"]).await;
    let page = probe(at, "/").await;
    assert!(page.text().contains("not now: the node of [chain]"), "{}", page.text());
    relay.set(Mode::Pass);
    await_reasons(at, &[]).await;

    // Nothing private is told.
    let all = format!("{}{}", probe(at, "/ready").await.text(), probe(at, "/health").await.text());
    let state = alice.state_dir();
    for private in [&alice.address.to_string(), text(&state), "127.0.0.1", "1000"] {
        assert!(!all.contains(private), "{private}: {all}");
    }
    proxy.terminate();
    proxy.ended().await;
    check(at, &[]).await.expect_failure(&[&at.to_string(), "does not respond"]);
}

#[tokio::test]
async fn a_proxy_on_a_full_disk_is_not_ready() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let config = alice.config_path();
    let proxy = Program::start(program(["serve", "--config", text(&config)])).await;
    await_reasons(proxy.address, &[]).await;
    let pid = Pid::from_raw(proxy.child.id().unwrap().cast_signed());
    for (most, expected) in [(Some(1), &["journal-unwritable"][..]), (None, &[])] {
        prlimit(pid, Resource::Fsize, Rlimit { current: most, maximum: None }).unwrap();
        await_reasons(proxy.address, expected).await;
        if most.is_some() {
            let ran = run(&["freeze", "--config", text(&config)]).await;
            ran.expect_failure(&[
                "signs nothing any more, but will sign again after a restart",
                "free some space",
            ]);
            await_reasons(proxy.address, &["frozen", "journal-unwritable"]).await;
            let ran = run(&["thaw", "--config", text(&config)]).await;
            assert_eq!(ran.code, 0, "there is nothing to undo on disk: {ran:?}");
            await_reasons(proxy.address, expected).await;
        }
    }
    proxy.kill().await;
}

/// Each look at the disk is a write.
#[tokio::test]
async fn many_probes_cost_few_looks() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.serve(&[]).await;
    let at = proxy.address;
    await_reasons(at, &[]).await;
    let [log, _] = sidecar_files(&alice.state_dir());
    let size = || std::fs::metadata(&log).unwrap().len();
    let (before, begun) = (size(), std::time::Instant::now());
    for _ in 0..10 {
        join_all((0..50).map(|_| async { assert_eq!(reasons(at).await, [""; 0]) })).await;
        // Clients that leave at once begin no further looks.
        join_all((0..50).map(|_| async {
            let request = format!("GET /ready HTTP/1.1\r\nHost: {at}\r\n\r\n");
            drop(Raw::asking(at, request).await);
        }))
        .await;
    }
    let looks = (size() - before) / 4096;
    let most = 2 * (begun.elapsed().as_secs() + 2);
    assert!(looks <= most, "{looks} pages in {:?}", begun.elapsed());
    proxy.kill().await;
}

#[tokio::test]
async fn readiness_is_about_what_the_rules_promise() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    let rule = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = \"$1\"\n";
    for (rest, expected) in
        [("", &[][..]), ("[[pay]]\nhost = \"a\"\ndeny = true\n", &[]), (rule, &["no-wallet"])]
    {
        std::fs::write(&path, format!("listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{rest}")).unwrap();
        let proxy = Program::start(program(["serve", "--config", text(&path)])).await;
        await_reasons(proxy.address, expected).await;
        proxy.kill().await;
    }
    let channels = format!("{rule}schemes = [\"microraiden\"]\n");
    let node = "[chain]\nrpc_url = \"http://127.0.0.1:1\"\n\
                channel_manager = \"0x1440317CB15499083dEE3dDf49C2bD51D0d92e33\"\n";
    let other = format!("{rule}schemes = [\"x402\"]\n{node}");
    let either = format!("{rule}{node}");
    for (rest, more, expected) in [
        (rule, &[][..], &[][..]),
        (rule, &["--dry-run"], &["dry-run"]),
        (&channels, &[], &["no-chain"]),
        // The node is down, and no rule needs it.
        (&other, &[], &[]),
        (&either, &[], &["node-unavailable"]),
        (node, &[], &[]),
    ] {
        let alice = Alice::without_chain(rest);
        let mut command = program(["serve", "--config"]);
        command.arg(alice.config_path()).args(more);
        let proxy = Program::start(command).await;
        await_reasons(proxy.address, expected).await;
        proxy.kill().await;
    }
}

#[tokio::test]
async fn an_empty_wallet_is_not_ready_and_a_balance_that_is_not_known_is_no_obstacle() {
    let market = Market::open().await;
    let url = market.chain.url();
    let relay = Relay::before(&url).await;
    let dollar = deploy::deploy_authorized_token(&url).await.unwrap();
    let alice = Alice::without_chain(&format!(
        "[[asset]]\nsymbol = \"DUSD\"\nnetwork = \"eip155:31337\"\ntoken = \"{dollar}\"\ndecimals = 6\n\
         eip712_name = \"x\"\neip712_version = \"1\"\n[[pay]]\nhost = \"a.example\"\nmax_price = \"0.01 DUSD\"\n\
         [[network]]\nid = \"eip155:31337\"\nrpc_url = \"{}\"\nconfirmations = 1\nretry_timeout = \"1s\"\n",
        relay.url()
    ));
    let config = alice.config_path();
    let ran = run(&["check", "--config", text(&config)]).await;
    ran.expect_failure(&["1 of the checks failed"]);
    let lacking = format!("FAIL   tokens    no DUSD on eip155:31337: send some to {}", alice.address);
    assert!(ran.out.contains(&lacking), "{ran:?}");
    let proxy = alice.serve(&[]).await;
    let mut first = reasons(proxy.address).await;
    while first == ["key-locked"] {
        first = reasons(proxy.address).await;
    }
    assert_eq!(first, ["no-funds"], "the first answer about funds");
    relay.set(Mode::Status(503));
    await_reasons(proxy.address, &[]).await;
    relay.set(Mode::Pass);
    proxy.kill().await;
    let proxy = alice.serve(&[]).await;
    await_reasons(proxy.address, &["no-funds"]).await;
    deploy::fund(&url, alice.address, U256::zero(), &[(dollar, 1.into())]).await.unwrap();
    await_reasons(proxy.address, &[]).await;
    proxy.kill().await;
    let ran = run(&["check", "--config", text(&config)]).await;
    assert!(ran.code == 0 && ran.out.contains("ok     tokens    0.000001 DUSD on eip155:31337"), "{ran:?}");
}

#[tokio::test]
async fn healthcheck_reads_the_configuration_and_speaks_tls() {
    let office = Office::new();
    let config = office.at("proxy.toml");
    for keys in [String::new(), office.keys()] {
        let write = |listen: &str| {
            let text = format!("listen = \"{listen}\"\nstate_dir = \"state\"\n{keys}");
            std::fs::write(&config, text).unwrap();
        };
        write("127.0.0.1:0");
        let proxy = Program::start(program(["serve", "--config", text(&config)])).await;
        // In a container, it listens on all addresses.
        write(&format!("0.0.0.0:{}", proxy.address.port()));
        for (more, expected) in [(&[][..], "ok\n"), (&["--ready"], "{\"ready\":true,\"reasons\":[]}\n")] {
            let ran = run(&[&["healthcheck", "--config", text(&config)], more].concat()).await;
            assert_eq!((ran.code, ran.out.as_str()), (0, expected), "{ran:?}");
        }
        if !keys.is_empty() {
            // One with another certificate is not taken for this one.
            let other = office.issue(&["localhost"]);
            office.write("other.pem", &other.certificate, 0o644);
            let text = std::fs::read_to_string(&config).unwrap();
            let text = text.replace("cert.pem", "other.pem").replace("\"state\"", "\"elsewhere\"");
            std::fs::write(office.at("other.toml"), text).unwrap();
            check_of(&office.at("other.toml")).await.expect_failure(&["does not respond", "certificate"]);
        }
        // The proxy that runs is asked, whatever the file says by now.
        let written = std::fs::read_to_string(&config).unwrap();
        let stray = "listen = \"127.0.0.1:1\"\nstate_dir = \"state\"\n[limits]\npay_timeout = \"soon\"\n";
        std::fs::write(&config, stray).unwrap();
        let listen = proxy.address.to_string();
        for more in [&[][..], &["--ready"], &["--listen", &listen]] {
            let ran = run(&[&["healthcheck", "--config", text(&config)], more].concat()).await;
            assert_eq!(ran.code, 0, "{more:?} {ran:?}");
        }
        std::fs::write(&config, written).unwrap();
        proxy.kill().await;
        check_of(&config).await.expect_failure(&["does not respond"]);
    }
}

async fn check_of(config: &Path) -> Ran {
    run(&["healthcheck", "--config", text(config)]).await
}

#[tokio::test]
async fn healthcheck_waits_for_no_answer_that_does_not_come() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ran = check(silent.local_addr().unwrap(), &["--timeout", "100ms"]).await;
    ran.expect_failure(&["has not responded within 100ms"]);
}

/// A container's user, who owns nothing outside of its directory.
const USER: u32 = 8402;

/// As Kubernetes does with `fsGroup` and `defaultMode: 0440`: root's files, which a group of the process may read, behind links
/// in a directory that everyone may add to.
#[tokio::test]
async fn a_container_needs_variables_and_mounted_secrets_only() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start the program as another user");
        return;
    }
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, "").await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mode = |path: &Path, bits| std::fs::set_permissions(path, Permissions::from_mode(bits)).unwrap();
    mode(directory.path(), 0o755);
    let secrets = at("secrets");
    std::fs::create_dir_all(secrets.join("..2026")).unwrap();
    symlink("..2026", secrets.join("..data")).unwrap();
    for (name, content) in [("key", hex::encode(KEY)), ("rpc", fair.market.chain.url())] {
        let file = secrets.join("..2026").join(name);
        std::fs::write(&file, content + "\n").unwrap();
        chown(&file, Some(0), Some(USER)).unwrap();
        mode(&file, 0o440);
        symlink(Path::new("..data").join(name), secrets.join(name)).unwrap();
    }
    mode(&secrets, 0o1777);
    std::fs::create_dir(at("state")).unwrap();
    chown(at("state"), Some(USER), Some(USER)).unwrap();
    let binary = at("tollpass");
    std::fs::copy(env!("CARGO_BIN_EXE_tollpass"), &binary).unwrap();
    mode(&binary, 0o755);
    let manager = fair.market.manager.to_string();
    let mut command = Command::new(&binary);
    command.arg("serve").uid(USER).gid(USER).current_dir("/").stdin(Stdio::null()).env_clear().envs([
        ("TOLLPASS_LISTEN", "127.0.0.1:0"),
        ("TOLLPASS_LOCAL", "any"),
        ("TOLLPASS_STATE_DIR", text(&at("state"))),
        ("TOLLPASS_WALLET__KEY_FILE", text(&secrets.join("key"))),
        ("TOLLPASS_CHAIN__RPC_URL_FILE", text(&secrets.join("rpc"))),
        ("TOLLPASS_CHAIN__CHANNEL_MANAGER", &manager),
        ("TOLLPASS_CHAIN__POLL_EVERY", "10ms"),
        ("TOLLPASS_PAY__0__HOST", "127.0.0.1"),
        ("TOLLPASS_PAY__0__MAX_PRICE", "10000"),
        ("TOLLPASS_BUDGET__0__NAME", "small"),
        ("TOLLPASS_BUDGET__0__WALLET", "true"),
        ("TOLLPASS_BUDGET__0__TOTAL", "1000"),
    ]);
    let proxy = Program::start(command).await;
    await_reasons(proxy.address, &[]).await;
    for expected in [StatusCode::OK, StatusCode::PAYMENT_REQUIRED] {
        let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
        let got = ask(proxy.address, paid).await;
        assert_eq!(got.status, expected, "{got:?}");
    }
    drop(alice);
    proxy.kill().await;
}
