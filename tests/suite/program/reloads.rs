//! A configuration that is read again while the program runs: what applies at once, what needs a restart, and what is lost,
//! which is nothing.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{Request, StatusCode, header};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tokio::process::Command;
use tollpass::admin;

use super::{Ran, run, run_with, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, Program, write_private};
use crate::support::raw::{Raw, RawOrigin, soon};
use crate::support::wire::{Got, Wire, ask};

/// Where a budget is in the configurations below.
const NO_BUDGET: &str = "# no budget\n";
const LAPTOP: &str = "a-token-of-the-laptop";
const OTHER: &str = "another-token-of-the-laptop";
/// Begins a command in a session of its own, in which SIGHUP is not ignored: under `nohup`, the tests inherit that.
const HEARS_HANG_UP: [&str; 2] = ["--default-signal=HUP", "setsid"];

fn budget(keys: &str) -> String {
    format!("[[budget]]\nname = \"all\"\nwallet = true\n{keys}\n")
}

fn basic(token: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("laptop:{token}")))
}

/// The program without a terminal: whoever runs the tests may have one.
fn detached(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(HEARS_HANG_UP).arg(env!("CARGO_BIN_EXE_tollpass")).args(arguments).stdin(Stdio::null());
    command
        .env("XDG_RUNTIME_DIR", "none")
        .env("XDG_CONFIG_HOME", "/dev/null")
        .env("XDG_STATE_HOME", "/dev/null");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOLLPASS_")) {
        command.env_remove(name);
    }
    command
}

fn hang_up(program: &Program) {
    let id = program.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it has not ended");
    kill_process(id, Signal::HUP).unwrap();
}

/// A seller, and Alice's proxy as a program.
struct Scene {
    fair: Fair,
    alice: Alice,
    serving: Program,
}

impl Scene {
    async fn with(more: &str) -> Self {
        Self::ruled("[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n", more).await
    }

    async fn ruled(rules: &str, more: &str) -> Self {
        let fair = Fair::open().await;
        let alice = Alice::ruled(&fair.market, &format!("{rules}{QUICK}{more}")).await;
        let tokens = alice.directory.path().join("laptop");
        write_private(&tokens, LAPTOP);
        let serving = Program::start(detached(&["serve", "--config", text(&alice.config_path())])).await;
        Self { fair, alice, serving }
    }

    fn url(&self) -> String {
        format!("{}/paid", self.fair.origin.url())
    }

    fn paid(&self) -> Request<crate::support::wire::Body> {
        Request::get(self.url()).body(empty()).unwrap()
    }

    async fn buy(&self) -> Got {
        ask(self.serving.address, self.paid()).await
    }

    /// The seller's own 402 comes back, for this reason.
    async fn refused(&self, reason: &str) {
        let got = self.buy().await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
        assert!(told(&got).contains(&format!("reason={reason}")), "{}", told(&got));
    }

    async fn command(&self, arguments: &[&str]) -> Ran {
        let config = self.alice.config_path();
        run(&[&["--config", text(&config)], arguments].concat()).await
    }

    /// Changes the configuration, and has it read again.
    async fn change(&mut self, from: &str, to: &str) -> Value {
        self.alice.change(from, to);
        self.reload().await
    }

    async fn reload(&self) -> Value {
        let ran = self.command(&["reload", "--json"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    }
}

fn told(got: &Got) -> String {
    got.header(&"proxy-status".parse().unwrap()).unwrap_or_default().to_owned()
}

fn only(key: &str) -> Value {
    json!({ "changed": [key], "needs_restart": [], "warnings": [] })
}

#[tokio::test]
async fn a_worse_budget_applies_to_the_next_request_and_nothing_that_was_spent_is_free_again() {
    let mut scene = Scene::with(&format!("{NO_BUDGET}[limits]\nsign_ahead = 20\n")).await;
    for _ in 0..2 {
        assert_eq!(scene.buy().await.status, StatusCode::OK);
    }
    // A new budget begins at 0, whatever the channel may sign without another record.
    let two = budget(&format!("total = {}", 2 * PRICE));
    assert_eq!(scene.change(NO_BUDGET, &two).await, only("budget"));
    for _ in 0..2 {
        assert_eq!(scene.buy().await.status, StatusCode::OK);
    }
    scene.refused("over-budget").await;
    let three = budget(&format!("total = {}", 3 * PRICE));
    assert_eq!(scene.change(&two, &three).await, only("budget"));
    assert_eq!(scene.buy().await.status, StatusCode::OK);
    scene.refused("over-budget").await;
    // Below what is spent, it blocks at once, and says how much is spent.
    let one = budget(&format!("total = {PRICE}"));
    assert_eq!(scene.change(&three, &one).await, only("budget"));
    scene.refused("over-budget").await;
    let spent = |ran: &Ran| {
        let budgets: Value = serde_json::from_str(&ran.out).unwrap();
        budgets[0]["windows"][0]["spent"].as_str().map(str::to_owned)
    };
    assert_eq!(spent(&scene.command(&["budget", "--json"]).await), Some((3 * PRICE).to_string()));
    // Without it, everything is paid; with it again, what it had spent is still spent.
    assert_eq!(scene.change(&one, NO_BUDGET).await, only("budget"));
    assert_eq!(scene.command(&["budget", "--json"]).await.out.trim(), "[]");
    assert_eq!(scene.buy().await.status, StatusCode::OK);
    assert_eq!(scene.change(NO_BUDGET, &three).await, only("budget"));
    scene.refused("over-budget").await;
    // So does the journal have it.
    scene.serving.kill().await;
    scene.serving = scene.alice.serve(&[]).await;
    scene.refused("over-budget").await;
    scene.serving.stop().await;
}

#[tokio::test]
async fn a_thousand_requests_in_flight_are_answered_on_their_own_connections() {
    const REQUESTS: usize = 1000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut scene = Scene::with(NO_BUDGET).await;
    let origin = RawOrigin::start().await;
    let request = format!("GET http://localhost:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address.port());
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        clients.push(Raw::asking(scene.serving.address, &request).await);
        let mut server = origin.accept().await;
        server.head().await;
        servers.push(server);
    }
    // And one that is being paid, by a rule that goes meanwhile.
    assert_eq!(scene.buy().await.status, StatusCode::OK);
    scene.fair.origin.hold_answers();
    let paying = tokio::spawn(ask(scene.serving.address, scene.paid()));
    soon("the payment", scene.fair.origin.await_payments(2)).await;
    assert_eq!(scene.change("max_price = 10000", "deny = true").await, only("pay"));
    scene.alice.change("deny = true", "deny = maybe");
    assert_eq!(scene.command(&["reload"]).await.code, 1);
    scene.alice.change("deny = maybe", "deny = true");
    hang_up(&scene.serving);
    scene.fair.origin.release();
    assert_eq!(soon("the paid answer", paying).await.unwrap().status, StatusCode::OK);
    for (client, server) in clients.iter_mut().zip(&mut servers) {
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(client.exactly(2).await, b"ok");
    }
    // Their connections are open, and the new rules apply on them.
    for client in clients.iter_mut().step_by(100) {
        client.send(format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", scene.url())).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 402 ") && head.contains("reason=denied"), "{head}");
    }
    scene.serving.stop().await;
}

/// Sends a request inside a tunnel or on a connection of a client; returns the head of the response.
async fn on(connection: &mut Raw, target: &str, token: Option<&str>) -> String {
    let line = token.map(|token| format!("Proxy-Authorization: {}\r\n", basic(token))).unwrap_or_default();
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{line}\r\n", host(target))).await;
    let head = connection.head().await;
    let length = crate::support::raw::field(&head, "content-length").unwrap().parse().unwrap();
    connection.exactly(length).await;
    head
}

fn host(target: &str) -> &str {
    target.trim_start_matches("http://").split('/').next().unwrap()
}

#[tokio::test]
async fn a_client_that_is_removed_spends_nothing_more_also_on_an_open_connection() {
    const CLIENT: &str = "[[client]]\nname = \"laptop\"\ntoken_file = \"laptop\"\n";
    let mut scene = Scene::with(CLIENT).await;
    let target = scene.url();
    let mut plain = Raw::connect(scene.serving.address).await;
    let connect = |token: &str| {
        let host = host(&target);
        format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {}\r\n\r\n", basic(token))
    };
    let mut tunnel = Raw::asking(scene.serving.address, connect(LAPTOP)).await;
    assert!(tunnel.head().await.starts_with("HTTP/1.1 200 "));
    for _ in 0..2 {
        assert!(on(&mut plain, &target, Some(LAPTOP)).await.starts_with("HTTP/1.1 200 "));
        assert!(on(&mut tunnel, &target, None).await.starts_with("HTTP/1.1 200 "));
    }
    // Another token is another client.
    let tokens = scene.alice.directory.path().join("laptop");
    std::fs::remove_file(&tokens).unwrap();
    write_private(&tokens, OTHER);
    assert_eq!(scene.reload().await, only("client"));
    let refused = on(&mut tunnel, &target, None).await;
    assert!(refused.starts_with("HTTP/1.1 402 ") && refused.contains("reason=wrong-token"), "{refused}");
    let refused = on(&mut plain, &target, Some(LAPTOP)).await;
    assert!(refused.starts_with("HTTP/1.1 407 ") && refused.contains("reason=wrong-token"), "{refused}");
    assert!(on(&mut plain, &target, Some(OTHER)).await.starts_with("HTTP/1.1 200 "));
    let mut newer = Raw::asking(scene.serving.address, connect(OTHER)).await;
    assert!(newer.head().await.starts_with("HTTP/1.1 200 "));
    assert!(on(&mut newer, &target, None).await.starts_with("HTTP/1.1 200 "));
    // A request in flight keeps its rule, but pays nothing for a client that goes meanwhile.
    scene.fair.origin.hold_answers();
    let holding = Request::get(&target).header(header::PROXY_AUTHORIZATION, basic(OTHER));
    let mut first = Wire::connect(scene.serving.address).await;
    let first = tokio::spawn(async move { first.ask(holding.body(empty()).unwrap()).await.unwrap() });
    soon("the payment", scene.fair.origin.await_payments(7)).await;
    let waiting = Request::get(&target).header(header::PROXY_AUTHORIZATION, basic(OTHER));
    let mut second = Wire::connect(scene.serving.address).await;
    let second = tokio::spawn(async move { second.ask(waiting.body(empty()).unwrap()).await.unwrap() });
    // It waits for the channel that the first one uses.
    let holds = || async { scene.command(&["status", "--json"]).await.out };
    soon("the second request", async { while !holds().await.contains("in-flight") {} }).await;
    assert_eq!(scene.change(CLIENT, "").await, only("client"));
    scene.fair.origin.release();
    assert_eq!(soon("the first", first).await.unwrap().status, StatusCode::OK);
    let got = soon("the second", second).await.unwrap();
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    for connection in [&mut tunnel, &mut newer] {
        let refused = on(connection, &target, None).await;
        assert!(refused.starts_with("HTTP/1.1 402 ") && refused.contains("reason=wrong-token"), "{refused}");
    }
    // Those of this user need no token.
    assert_eq!(scene.buy().await.status, StatusCode::OK);
    scene.serving.stop().await;
}

#[tokio::test]
async fn a_host_is_intercepted_from_its_next_tunnel_on() {
    const HOSTS: &str = "[intercept]\nhosts = []\n";
    let mut scene = Scene::with(HOSTS).await;
    let target = scene.url();
    let connect = format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", host(&target));
    let mut blind = Raw::asking(scene.serving.address, &connect).await;
    assert!(blind.head().await.starts_with("HTTP/1.1 200 "));
    assert!(on(&mut blind, "/paid", None).await.starts_with("HTTP/1.1 402 "));
    let ca = scene.alice.state_dir().join("ca.pem");
    assert!(!ca.exists());
    let report = scene.change(HOSTS, "[intercept]\nhosts = [\"127.0.0.1\"]\n").await;
    assert_eq!(report, only("intercept.hosts"));
    assert!(ca.exists());
    assert!(scene.command(&["env"]).await.out.contains("ca-bundle"), "programs learn of the CA");
    let mut read = Raw::asking(scene.serving.address, &connect).await;
    assert!(read.head().await.starts_with("HTTP/1.1 200 "));
    assert!(on(&mut read, &target, None).await.starts_with("HTTP/1.1 200 "));
    // The other one stays as it was.
    assert!(on(&mut blind, "/paid", None).await.starts_with("HTTP/1.1 402 "));
    assert_eq!(scene.change("hosts = [\"127.0.0.1\"]", "hosts = []").await, only("intercept.hosts"));
    let mut blind = Raw::asking(scene.serving.address, &connect).await;
    assert!(blind.head().await.starts_with("HTTP/1.1 200 "));
    assert!(on(&mut blind, "/paid", None).await.starts_with("HTTP/1.1 402 "));
    scene.serving.stop().await;
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing_and_says_why() {
    let client = "[[client]]\nname = \"laptop\"\ntoken_file = \"missing\"\n";
    let mut scene = Scene::with(NO_BUDGET).await;
    let lines = std::fs::read_to_string(scene.alice.config_path()).unwrap();
    let line = |words: &str| {
        let place = lines.lines().position(|line| line.contains(words)).unwrap();
        format!("line {}: ", place + 1)
    };
    let price = line("max_price");
    for (from, to, said) in [
        ("max_price = 10000", "max_price = -1", [price.as_str(), "pay[0].max_price: "]),
        ("max_price = 10000", "max_prize = 1", [price.as_str(), "did you mean pay[0].max_price?"]),
        ("max_price = 10000", "max_price = = 1", ["line ", "expected"]),
        (NO_BUDGET, client, ["missing", "token_file of the client laptop"]),
        (NO_BUDGET, "[log]\nfilter = \"loud\"\n", ["line ", "log.filter is not a valid filter"]),
    ] {
        // What is valid beside it does not apply, either.
        scene.alice.change("host = \"127.0.0.1\"", "host = \"a.example\"");
        scene.alice.change(from, to);
        let ran = scene.command(&["reload"]).await;
        assert_eq!((ran.code, &*ran.out), (1, ""), "{ran:?}");
        ran.expect_failure(&said);
        assert_eq!(scene.buy().await.status, StatusCode::OK, "{to}");
        scene.alice.change(to, from);
        scene.alice.change("host = \"a.example\"", "host = \"127.0.0.1\"");
    }
    // A file that is being written, one that is gone, and what replaces it, too.
    let state_dir = scene.alice.state_dir();
    let path = scene.alice.config_path();
    let reload = async |said: &[&str]| {
        let ran = run(&["reload", "--state-dir", text(&state_dir)]).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        ran.expect_failure(&[&["nothing has changed"], said].concat());
    };
    std::fs::write(&path, "").unwrap();
    reload(&["the file has no [wallet]"]).await;
    std::fs::remove_file(&path).unwrap();
    reload(&[text(&path), "no longer exists"]).await;
    std::fs::create_dir(&path).unwrap();
    reload(&[text(&path), "is not a regular file"]).await;
    assert_eq!(scene.buy().await.status, StatusCode::OK);
    let log = scene.serving.stop().await;
    assert!(log.contains("nothing has changed") && log.contains(&price), "{log}");
    let ran = run(&["reload", "--state-dir", text(&state_dir)]).await;
    assert_eq!(ran.code, 1);
    ran.expect_failure(&["no proxy is running"]);
}

/// The default file is remembered, too: without it, an empty configuration would apply.
#[tokio::test]
async fn the_file_of_the_start_is_read_again_or_none() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tollpass/proxy.toml");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    let state_dir = home.path().join("state");
    std::fs::write(&file, format!("listen = 0\nstate_dir = \"{}\"\nlocal = \"any\"\n", text(&state_dir)))
        .unwrap();
    let mut command = detached(&["serve"]);
    command.env("XDG_CONFIG_HOME", home.path());
    let serving = Program::start(command).await;
    std::fs::remove_file(&file).unwrap();
    let ran = run(&["reload", "--state-dir", text(&state_dir)]).await;
    ran.expect_failure(&["nothing has changed", text(&file), "no longer exists"]);
    serving.stop().await;
}

#[tokio::test]
async fn a_configuration_from_a_pipe_is_read_once_and_not_again() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let state_dir = directory.path().join("state");
    let content =
        format!("listen = \"127.0.0.1:0\"\nstate_dir = \"{}\"\n[log]\nfilter = \"warn\"\n", text(&state_dir));
    let to = pipe.clone();
    let writing = tokio::task::spawn_blocking(move || std::fs::write(to, content));
    // It would wait for a second writer for ever.
    let serving = Program::start(detached(&["serve", "--config", text(&pipe)])).await;
    writing.await.unwrap().unwrap();
    let ran = run(&["reload", "--state-dir", text(&state_dir)]).await;
    ran.expect_failure(&[
        "nothing has changed",
        text(&pipe),
        "is not a regular file",
        "cannot be read again",
    ]);
    serving.stop().await;
}

#[tokio::test]
async fn a_file_that_is_invalid_keeps_no_command_from_the_proxy_that_runs() {
    let mut scene = Scene::with(NO_BUDGET).await;
    let mut is = "max_price = 10000".to_owned();
    for wrong in ["max_price = -1", "max_price = = 1", "[[pay"] {
        scene.alice.change(&is, wrong);
        wrong.clone_into(&mut is);
        for command in [
            &["freeze"][..],
            &["status"],
            &["thaw"],
            &["pending"],
            &["approvals"],
            &["budget"],
            &["resume"],
            &["channels"],
            &["dashboard"],
            &["ledger"],
            &["healthcheck"],
            &["channels", "sync"],
        ] {
            let ran = scene.command(command).await;
            assert_eq!(ran.code, 0, "{wrong} {command:?} {ran:?}");
        }
        for command in [&["approve", "1"], &["deny", "1"]] {
            scene.command(command).await.expect_failure(&["see `tollpass pending`"]);
        }
        assert_eq!(scene.buy().await.status, StatusCode::OK, "{wrong}");
    }
    // Also without a proxy; only what needs the key or the rules says what is wrong.
    scene.serving.stop().await;
    let config = scene.alice.config_path();
    for command in ["freeze", "thaw", "resume", "approvals", "channels", "ledger"] {
        let ran = run(&[command, "--config", text(&config)]).await;
        assert_eq!(ran.code, 0, "{command} {ran:?}");
    }
    run(&["ledger", "verify", "--config", text(&config)]).await.expect_failure(&["is invalid"]);
    // Where the journal is must be certain.
    scene.alice.change("state_dir = \"state\"", "state_dir = \"state");
    let ran = run(&["freeze", "--config", text(&config)]).await;
    ran.expect_failure(&["the state directory is not known", "--state-dir", "is invalid"]);
    let ran = run_with(&["freeze", "--config", text(&config)], &[("TOLLPASS_STATE_DIR", "state")]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut is = "state_dir = \"state".to_owned();
    for lost in ["state_dir = 5", "state-dir = \"state\"", "[limits]\nstate_dir = \"state\"", "# Nothing."] {
        scene.alice.change(&is, lost);
        lost.clone_into(&mut is);
        let ran = run(&["freeze", "--config", text(&config)]).await;
        ran.expect_failure(&["the state directory is not known", "--state-dir", "is invalid"]);
        if lost.contains("5") {
            // The rest of the file is TOML.
            scene.alice.change("\n[[pay\n", "\nmax_price = -1\n");
        }
    }
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named_and_the_others_apply() {
    let mut scene = Scene::with(NO_BUDGET).await;
    scene.alice.change("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:1\"\nworkers = 3");
    scene.alice.change("key_file = \"key\"", "key_file = \"another\"");
    let changed =
        format!("{}[limits]\npay_timeout = \"9s\"\n[log]\nfile = \"log\"\n", budget("payments = 1"));
    scene.alice.change(NO_BUDGET, &changed);
    let ran = scene.command(&["reload"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let keys = "limits.pay_timeout, listen, log.file, wallet.key_file, workers";
    let said = format!("reloaded: budget\napplies after a restart only: {keys}\n");
    assert_eq!(ran.out, said);
    assert_eq!(scene.buy().await.status, StatusCode::OK);
    scene.refused("over-budget").await;
    let log = scene.serving.stop().await;
    assert!(
        log.contains(&format!(
            "WARN tollpass::app::reload: these keys have changed, and apply after a restart only: {keys}"
        )),
        "{log}"
    );
    assert!(!scene.alice.directory.path().join("log").exists());
}

#[tokio::test]
async fn new_keys_that_are_unsafe_with_old_ones_do_not_apply() {
    let client = "[[client]]\nname = \"laptop\"\ntoken_file = \"laptop\"\n";
    let fair = Fair::open().await;
    let mut alice = Alice::with(&fair.market, client).await;
    write_private(&alice.directory.path().join("laptop"), LAPTOP);
    alice.change("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"\nallow_remote = true");
    let serving = Program::start(detached(&["serve", "--config", text(&alice.config_path())])).await;
    // Valid by itself, but the port stays open to other machines.
    alice.change("listen = \"0.0.0.0:0\"\nallow_remote = true", "listen = \"127.0.0.1:0\"");
    alice.change(client, "");
    let ran = run(&["reload", "--config", text(&alice.config_path())]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    ran.expect_failure(&["nothing has changed", "valid after a restart only", "listen: "]);
    serving.stop().await;
}

#[tokio::test]
async fn a_rule_that_became_stricter_while_the_operator_was_asked_decides() {
    let allows = "max_price = 10000\nask_above = 999";
    for (to, reason) in [("max_price = 999", "above-max-price"), ("deny = true", "denied-by-rule")] {
        let mut scene = Scene::ruled(&format!("[[pay]]\nhost = \"127.0.0.1\"\n{allows}\n"), "").await;
        let asking = tokio::spawn(ask(scene.serving.address, scene.paid()));
        let socket = admin::socket(&scene.alice.state_dir());
        let pending = soon("the question", async {
            loop {
                if let Some(one) = admin::pending(&socket).await.unwrap().unwrap().pop() {
                    return one;
                }
            }
        });
        let id = pending.await.id;
        assert_eq!(scene.change(allows, to).await, only("pay"));
        admin::decide(&socket, id, true, None).await.unwrap().unwrap();
        let got = soon("the answer", asking).await.unwrap();
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
        assert!(told(&got).contains(&format!("reason={reason}")), "{}", told(&got));
        scene.serving.kill().await;
    }
}

#[tokio::test]
async fn sighup_reloads_without_a_terminal_and_stops_it_drained_if_that_is_closed() {
    let mut scene = Scene::with(NO_BUDGET).await;
    assert_eq!(scene.buy().await.status, StatusCode::OK);
    scene.alice.change("max_price = 10000", "deny = true");
    hang_up(&scene.serving);
    let denied = async { while scene.buy().await.status == StatusCode::OK {} };
    soon("the new rule", denied).await;
    // Invalid: it goes on.
    scene.alice.change("deny = true", "deny = maybe");
    hang_up(&scene.serving);
    scene.refused("denied").await;
    let log = scene.serving.stop().await;
    assert!(log.contains("SIGHUP: reading the configuration again") && log.contains("reloaded"), "{log}");
    scene.alice.change("deny = maybe", "max_price = 10000");

    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(Path::new(name.to_str().unwrap())).unwrap();
    let mut command = Command::new("env");
    command.args(HEARS_HANG_UP).args(["--ctty", env!("CARGO_BIN_EXE_tollpass"), "serve", "--config"]);
    command.arg(scene.alice.config_path()).stdin(terminal).env("XDG_RUNTIME_DIR", "none");
    scene.serving = Program::start(command).await;
    assert_eq!(scene.buy().await.status, StatusCode::OK);
    let before = scene.fair.origin.payments();
    scene.fair.origin.hold_answers();
    let paying = tokio::spawn(ask(scene.serving.address, scene.paid()));
    soon("the payment", scene.fair.origin.await_payments(before + 1)).await;
    drop(controller);
    soon("the end of accepting", async {
        while tokio::net::TcpStream::connect(scene.serving.address).await.is_ok() {}
    })
    .await;
    scene.fair.origin.release();
    assert_eq!(soon("the paid answer", paying).await.unwrap().status, StatusCode::OK);
    let (status, log) = scene.serving.ended().await;
    assert!(status.code() == Some(0) && log.contains("SIGHUP") && log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn a_service_manager_is_told_when_it_reloads_and_when_it_is_ready_again() {
    let directory = tempfile::tempdir().unwrap();
    let (file, socket) = (directory.path().join("proxy.toml"), directory.path().join("notify"));
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n").unwrap();
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let next = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let mut command = detached(&["serve", "--config", text(&file)]);
    command.env("NOTIFY_SOCKET", &socket);
    let serving = Program::start(command).await;
    assert_eq!(next(), "READY=1\n");
    for (content, code) in [
        ("listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n[log]\naccess = true\n", 0),
        ("state_dir = \"state\"\nx = 1", 1),
    ] {
        std::fs::write(&file, content).unwrap();
        let ran = run_with(&["reload", "--config", text(&file)], &[]).await;
        assert_eq!(ran.code, code, "{ran:?}");
        let begins = next();
        assert!(begins.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{begins}");
        assert_eq!(next(), "READY=1\n");
    }
    serving.stop().await;
    assert_eq!(next(), "STOPPING=1\n");
}

#[tokio::test]
async fn the_log_follows_its_filter_and_its_switch() {
    let filter = |filter: &str, access: bool| format!("[log]\nfilter = \"{filter}\"\naccess = {access}\n");
    let quiet = filter("error", false);
    let mut scene = Scene::with(&quiet).await;
    let free = || Request::get(format!("{}/free", scene.fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(scene.serving.address, free()).await.status, StatusCode::OK);
    let loud = filter("info", true);
    let report = scene.change(&quiet, &loud).await;
    assert_eq!(report["changed"], json!(["log.access", "log.filter"]));
    let free = Request::get(format!("{}/free", scene.fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(scene.serving.address, free).await.status, StatusCode::OK);
    let again = filter("error", true);
    scene.change(&loud, &again).await;
    let free = Request::get(format!("{}/free", scene.fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(scene.serving.address, free).await.status, StatusCode::OK);
    let log = scene.serving.stop().await;
    assert_eq!(log.matches("tollpass::access").count(), 1, "{log}");
    assert!(!log.contains("listening") && !log.contains("shutting down"), "{log}");
}
