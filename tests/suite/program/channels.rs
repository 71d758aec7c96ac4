//! `tollpass channels` as users run it: with a running proxy, without one, and after a crash in the middle.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use http::{Request, StatusCode};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tollpass::protocol::Address;
use tollpass::{admin, failpoint};

use super::{Ran, run, run_with, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, PATIENCE, Program, WEALTH, program};
use crate::support::ports::ReservedPort;
use crate::support::wire::{Got, ask};

/// More effects than any of the commands here has.
const MOST_EFFECTS: u64 = 30;

/// A seller, and Alice's state directory.
struct Scene {
    fair: Fair,
    alice: Alice,
}

impl Scene {
    async fn with(more: &str) -> Self {
        let fair = Fair::open().await;
        let alice = Alice::with(&fair.market, &format!("{QUICK}{more}")).await;
        Self { fair, alice }
    }

    async fn serve(&self) -> Program {
        self.alice.serve(&[]).await
    }

    async fn ask(&self, program: &Program) -> Got {
        let paid = Request::get(format!("{}/paid", self.fair.origin.url())).body(empty()).unwrap();
        tokio::time::timeout(PATIENCE, ask(program.address, paid)).await.expect("no answer")
    }

    async fn buy(&self, program: &Program, times: u64) {
        for _ in 0..times {
            let got = self.ask(program).await;
            assert_eq!(got.status, StatusCode::OK, "{got:?}");
        }
    }

    /// Pays this many times and exits cleanly.
    async fn paid(more: &str, times: u64) -> Self {
        let scene = Self::with(more).await;
        let program = scene.serve().await;
        scene.buy(&program, times).await;
        program.terminate();
        assert_eq!(program.ended().await.0.code(), Some(0));
        scene
    }

    async fn channels(&self, arguments: &[&str]) -> Ran {
        self.channels_with(arguments, &[]).await
    }

    async fn channels_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let config = self.alice.config_path();
        let all = [&["channels", "--config", text(&config)], arguments].concat();
        run_with(&all, environment).await
    }

    /// The channels as listed by the program.
    async fn listed(&self) -> Vec<Value> {
        let ran = self.channels(&["--json"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let listings: Value = serde_json::from_str(&ran.out).unwrap();
        listings[0]["channels"].as_array().unwrap().clone()
    }

    /// RECEIVER@BLOCK of the only channel.
    async fn only(&self) -> String {
        let channels = self.listed().await;
        assert_eq!(channels.len(), 1, "{channels:?}");
        format!("{}@{}", channels[0]["receiver"].as_str().unwrap(), channels[0]["open_block"])
    }

    async fn holdings(&self) -> (u64, u64, u64) {
        let market = &self.fair.market;
        let (alice, seller) = (self.alice.address, self.fair.origin.receiver());
        (
            market.tokens_of(alice).await,
            market.tokens_of(seller).await,
            market.tokens_of(market.manager).await,
        )
    }
}

impl Ran {
    /// It succeeded with these words.
    fn expect_success(&self, words: &[&str]) {
        assert_eq!(self.code, 0, "{self:?}");
        for words in words {
            assert!(self.errors.contains(words) || self.out.contains(words), "no {words:?} in {self:?}");
        }
    }
}

#[tokio::test]
async fn a_running_proxy_answers_on_a_socket_that_only_its_owner_can_open() {
    let scene = Scene::with("").await;
    let program = scene.serve().await;
    let socket = admin::socket(&scene.alice.state_dir());
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    scene.buy(&program, 2).await;
    let channel = scene.only().await;

    // Without a terminal nothing is done, but the plan is printed.
    let ran = scene.channels(&["close", &channel]).await;
    ran.expect_failure(&[
        "ask the seller for its closing signature",
        "at 2000",
        "fees: at most ",
        " wei",
        "--yes",
    ]);
    assert_eq!(scene.listed().await[0]["phase"], "open");
    // The report of an operation tells the same of the channel as the list.
    let ran = scene.channels(&["topup", "--yes", "--json", &channel, "70"]).await;
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["channel"], scene.listed().await[0], "{ran:?}");
    assert_eq!(
        (&report["channel"]["promised"], &report["channel"]["acknowledged"]),
        (&"2000".into(), &"2000".into())
    );
    assert_eq!(report["channel"]["host"], "127.0.0.1");
    let unknown = format!("{}1", channel);
    scene.channels(&["show", &unknown]).await.expect_failure(&["not found", &unknown]);
    scene.channels(&["close", "--yes", &unknown]).await.expect_failure(&["not found", &unknown]);
    scene.channels(&["show", &channel]).await.expect_success(&["2000"]);
    // A second proxy on the directory is refused because of its lock.
    let config = scene.alice.config_path();
    run(&["serve", "--config", text(&config), "--listen", "127.0.0.1:0"])
        .await
        .expect_failure(&["another tollpass uses the state directory"]);

    // With the directory only, too.
    let state = scene.alice.state_dir();
    let ran = run(&["channels", "--state-dir", text(&state), "--json", "--yes", "close", "--all"]).await;
    ran.expect_success(&["closed and paid out"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(report["text"].as_str().unwrap().contains(&channel), "{report}");
    assert_eq!(scene.holdings().await, (WEALTH - 2 * PRICE, 2 * PRICE, 0));
    assert_eq!(scene.listed().await[0]["phase"], "gone");
    let ran = scene.channels(&["close", "--all", "--yes", "--json"]).await;
    ran.expect_success(&["nothing to do"]);
    assert_eq!(ran.out, "");
    scene
        .channels(&["close", "--yes", &channel])
        .await
        .expect_failure(&["it is settled", "1 of the operations"]);
    scene.channels(&["sync", "--yes"]).await.expect_success(&["read 1 channel up to block"]);
    scene.buy(&program, 1).await;
    program.kill().await;
}

#[tokio::test]
async fn without_a_running_proxy_it_does_everything_itself() {
    let scene = Scene::with("").await;
    let receiver = scene.fair.origin.receiver().to_string();
    let opened = scene.channels(&["open", "--yes", &receiver, "500"]).await;
    opened.expect_success(&["lock up 500", "holds 500", "\ntransaction: 0x"]);
    let channel = scene.only().await;
    scene.channels(&["topup", "--yes", &channel, "70"]).await.expect_success(&["holds 570"]);
    assert_eq!(scene.holdings().await, (WEALTH - 570, 0, 570));
    let elsewhere = ["close", "--yes", "--receiver", "0x7777777777777777777777777777777777777777"];
    scene.channels(&elsewhere).await.expect_success(&["nothing to do"]);
    let ran = scene.channels(&["close", "--yes", "--receiver", &receiver]).await;
    ran.expect_success(&["which returns all of 570", "settle` after block"]);
    scene.channels(&["settle", "--yes", "--all"]).await.expect_failure(&["try again in ", " blocks"]);
    scene.fair.market.mine(501).await;
    scene.channels(&["settle", "--yes", "--all"]).await.expect_success(&["closed and paid out"]);
    assert_eq!(scene.holdings().await, (WEALTH, 0, 0));
    scene.channels(&["settle", "--yes", &channel]).await.expect_failure(&["settled already"]);
    for wrong in [
        &["close", "--yes"][..],
        &["close", "--yes", "--all", "--receiver", &receiver],
        &["close", "--yes", "--all", "--unilateral", "--total", "5"],
        &["close", "--yes", "--total", "5", &channel],
        &["close", "--yes", "--unilateral", "--below-promised", &channel],
        &["close", "--yes", "nonsense"],
    ] {
        let ran = scene.channels(wrong).await;
        assert_eq!(ran.code, 2, "{wrong:?}: {ran:?}");
    }
}

#[tokio::test]
async fn after_a_crash_the_seller_proves_the_promised_total() {
    let scene = Scene::with("").await;
    let program = scene.serve().await;
    scene.buy(&program, 3).await;
    program.kill().await;
    let channel = scene.only().await;
    // The reserved range counts as promised.
    assert_eq!(scene.listed().await[0]["promised"], "10000");
    let config = scene.alice.config_path();
    let closing = ["channels", "--config", text(&config), "close", "--yes", &channel];
    let Scene { fair, alice } = scene;
    let Fair { origin, market } = fair;
    let gone = ReservedPort::new();
    let elsewhere = format!("{}/api/1", gone.url());
    run(&[&closing[..], &["--seller", &elsewhere]].concat())
        .await
        .expect_failure(&["cannot reach the seller", "--unilateral"]);
    // Only the running proxy, which knows the payments, can tell.
    let ran = run(&closing).await;
    ran.expect_success(&["that the seller can prove, at most 10000", "closed and paid out"]);
    assert_eq!(market.tokens_of(alice.address).await, WEALTH - 3 * PRICE);
    assert_eq!(market.tokens_of(origin.receiver()).await, 3 * PRICE);
}

#[tokio::test]
async fn after_a_crash_and_without_the_seller_no_total_is_guessed() {
    let scene = Scene::with("").await;
    let program = scene.serve().await;
    scene.buy(&program, 3).await;
    program.kill().await;
    let channel = scene.only().await;
    let Scene { fair: Fair { origin, market }, alice } = scene;
    origin.stop().await;
    let config = alice.config_path();
    let closing = ["channels", "--config", text(&config), "close", "--yes", "--unilateral", &channel];
    run(&closing).await.expect_failure(&["it is unknown what was signed", "at most 10000", "--total"]);
    let below = [&closing[..], &["--total", "3000"]].concat();
    run(&below).await.expect_failure(&["3000 is less than 10000, which was or may have been promised"]);
    run(&[&below[..], &["--below-promised"]].concat()).await.expect_success(&["settle` after block"]);
    market.mine(501).await;
    run(&["channels", "--config", text(&config), "settle", "--yes", "--all"]).await.expect_success(&[]);
    assert_eq!(market.tokens_of(alice.address).await, WEALTH - 3 * PRICE);
}

/// Aborts a command after its first effect, another one after its second and so on; later commands finish what was
/// interrupted, once.
async fn survives_each_abort(
    prepare: &[&[&str]],
    command: &[&str],
    finish: &[&[&str]],
    settled: usize,
) -> Vec<String> {
    let mut effects = Vec::new();
    for after in 1..=MOST_EFFECTS {
        let scene = Scene::paid("", 2).await;
        for before in prepare {
            scene.channels(before).await.expect_success(&[]);
            scene.fair.market.mine(501).await;
        }
        let ran = scene.channels_any(command, &[(failpoint::VARIABLE, &after.to_string())]).await;
        let words = ran.errors.lines().rev().find(|line| line.starts_with("aborting after effect"));
        let words = words.map(str::to_owned);
        assert!(words.is_some() || ran.code == 0, "{ran:?}");
        let place = words.clone().unwrap_or("a whole life".into());
        for after in finish {
            // What had been sent or recorded is finished first; then the command has nothing to do, or is too late.
            scene.channels_any(after, &[]).await;
        }
        if scene.holdings().await.2 > 0 {
            // The seller gave its signature to a run that ended before using it, and gives no second one.
            scene.channels(&["close", "--yes", "--unilateral", "--all"]).await.expect_success(&[]);
            scene.fair.market.mine(501).await;
            scene.channels(&["settle", "--yes", "--all"]).await.expect_success(&[]);
        }
        assert_eq!(scene.holdings().await, (WEALTH - 2 * PRICE, 2 * PRICE, 0), "{place}");
        assert_eq!(scene.fair.market.settlements().await, settled, "{place}");
        assert_eq!(scene.listed().await[0]["phase"], "gone", "{place}");
        match words {
            Some(words) => effects.push(words),
            None => return effects,
        }
    }
    panic!("no life came to its end: {effects:#?}");
}

impl Scene {
    /// Runs a command that may fail, and waits until the next start of the proxy has recovered.
    async fn channels_any(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let config = self.alice.config_path();
        let mut command = program([&["channels", "--config", text(&config)], arguments].concat());
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ran = tokio::time::timeout(PATIENCE, command.output()).await.expect("it does not end").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: ran.status.code().unwrap_or(-1), out: text(ran.stdout), errors: text(ran.stderr) }
    }
}

#[tokio::test]
async fn a_close_together_survives_an_abort_after_each_effect() {
    let close = ["close", "--yes", "--all"];
    let effects = survives_each_abort(&[], &close, &[&close], 1).await;
    for effect in ["records written", "transaction about to be sent", "transaction sent"] {
        assert!(effects.iter().any(|seen| seen.ends_with(effect)), "{effect} is not among {effects:#?}");
    }
}

#[tokio::test]
async fn a_close_alone_survives_an_abort_after_each_effect() {
    let close = ["close", "--yes", "--unilateral", "--all"];
    let effects = survives_each_abort(&[], &close, &[&close], 1).await;
    assert!(effects.iter().any(|seen| seen.ends_with("transaction sent")), "{effects:#?}");
}

#[tokio::test]
async fn a_settlement_survives_an_abort_after_each_effect() {
    let (close, settle) = (["close", "--yes", "--unilateral", "--all"], ["settle", "--yes", "--all"]);
    let effects = survives_each_abort(&[&close], &settle, &[&settle], 1).await;
    assert!(effects.iter().any(|seen| seen.ends_with("transaction sent")), "{effects:#?}");
}

/// To the journal, a file size limit is like a full disk; the limit is set on the process itself for a moment.
#[tokio::test]
async fn on_a_full_disk_nothing_is_paid_everything_else_flows_and_later_it_pays_again() {
    let scene = Scene::with("[limits]\nsign_ahead = 0\n").await;
    // With the signal ignored, exceeding the limit is an error, as on a full disk.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" serve --config \"$1\"", env!("CARGO_BIN_EXE_tollpass")])
        .arg(scene.alice.config_path())
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null());
    let program = Program::start(command).await;
    scene.buy(&program, 1).await;
    let pid = Pid::from_raw(program.child.id().unwrap().cast_signed());
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(pid, Resource::Fsize, limit).unwrap();
    };
    limit(Some(1));
    for _ in 0..3 {
        let got = scene.ask(&program).await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
        let reason = got.headers["proxy-status"].to_str().unwrap();
        assert!(reason.contains("the journal cannot be written, so nothing is signed"), "{reason}");
        let free = Request::get(format!("{}/free", scene.fair.origin.url())).body(empty()).unwrap();
        assert_eq!(ask(program.address, free).await.status, StatusCode::OK);
    }
    assert_eq!(scene.fair.origin.total_registered(), PRICE.into());
    limit(None);
    scene.buy(&program, 2).await;
    assert_eq!(scene.fair.origin.total_registered(), (3 * PRICE).into());
    program.terminate();
    let (_, log) = program.ended().await;
    assert!(log.contains("the journal cannot be written"), "{log}");
    assert_eq!(scene.listed().await[0]["promised"], "3000");
}

/// Tests a closed input only, since a prompt would need a pseudo-terminal.
#[tokio::test]
async fn an_answer_through_a_pipe_is_not_consent() {
    let scene = Scene::paid("", 1).await;
    let config = scene.alice.config_path();
    let mut command = program(["channels", "--config", text(&config), "close", "--all"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may exit without reading.
    let _ = child.stdin.take().unwrap().write_all(b"y\n").await;
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = ended.expect("it does not end").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("pass --yes to confirm"), "{errors}");
    assert_eq!(scene.listed().await[0]["phase"], "open");
}

#[tokio::test]
async fn no_channel_is_opened_for_nothing_or_above_the_cap() {
    let scene = Scene::with("[deposit]\nmax_per_channel = 100\nmax_total = 130\n").await;
    let receiver = scene.fair.origin.receiver().to_string();
    for (amount, reason) in [("0", "more than 0"), ("5000", "deposit.max_per_channel allows (100)")] {
        scene.channels(&["open", "--yes", &receiver, amount]).await.expect_failure(&[reason]);
    }
    scene.channels(&["open", "--yes", &receiver, "60"]).await.expect_success(&[]);
    let channel = scene.only().await;
    for (amount, reason) in [("0", "more than 0"), ("41", "would hold 101")] {
        scene.channels(&["topup", "--yes", &channel, amount]).await.expect_failure(&[reason]);
    }
    scene.channels(&["topup", "--yes", &channel, "40"]).await.expect_success(&[]);
    let other = Address([0x77; 20]).to_string();
    scene
        .channels(&["open", "--yes", &other, "31"])
        .await
        .expect_failure(&["channels hold 100, and deposit.max_total allows 130"]);
    assert_eq!(scene.fair.market.openings().await, 1);
}

/// Only the chain knows the channel: only the seller can tell what was signed on it.
#[tokio::test]
async fn a_channel_that_only_the_chain_knows_is_not_closed_on_nothing() {
    let scene = Scene::paid("", 5).await;
    std::fs::remove_dir_all(scene.alice.state_dir()).unwrap();
    scene.channels(&["sync", "--yes"]).await.expect_success(&[]);
    let channel = scene.only().await;
    let listed = &scene.listed().await[0];
    assert_eq!((&listed["promised"], &listed["in_doubt"]), (&"10000".into(), &true.into()), "{listed}");
    let alone = ["close", "--unilateral", "--yes", &channel];
    scene.channels(&alone).await.expect_failure(&["it is unknown what was signed", "at most 10000"]);
    let below = [&alone[..], &["--total", "9999"]].concat();
    scene.channels(&below).await.expect_failure(&["or may have been", "--below-promised"]);
    // The given seller is queried first, and proves its total.
    let seller = format!("{}/api/1", scene.fair.origin.url());
    scene.channels(&["close", "--yes", &channel, "--seller", &seller]).await.expect_success(&[]);
    assert_eq!(scene.holdings().await, (WEALTH - 5 * PRICE, 5 * PRICE, 0));
}

/// Two state directories with one key: the seller proves what the other one has signed, and the log reports the
/// problem.
#[tokio::test]
async fn one_key_on_two_state_directories_is_named() {
    let mut scene = Scene::paid("", 1).await;
    let first = scene.serve().await;
    scene.alice.change("state_dir = \"state\"", "state_dir = \"other\"");
    let second = scene.serve().await;
    scene.buy(&first, 1).await;
    // Each first learns the seller's total. Then the first one presents a total that the second one has paid.
    scene.buy(&second, 1).await;
    let got = scene.ask(&first).await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
    assert!(got.text().contains("if another program or state directory pays with the same key"), "{got:?}");
    // When the second one is two payments ahead, the seller proves a total that the first one cannot have signed.
    scene.buy(&second, 2).await;
    scene.buy(&first, 1).await;
    first.terminate();
    let (_, log) = first.ended().await;
    assert!(log.contains("another program or state directory pays with the same key"), "{log}");
    second.kill().await;
    assert_eq!(scene.fair.origin.total_registered(), (6 * PRICE).into());
}
