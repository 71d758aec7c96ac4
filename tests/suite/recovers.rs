//! Crashes at any moment: nothing that was signed is forgotten, nothing is done twice, and the next request is paid.
//!
//! The real program aborts after each effect in turn, until a run ends without an abort. Then it is killed from outside
//! at random moments.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ethers_core::rand::rngs::StdRng;
use ethers_core::rand::{Rng as _, SeedableRng as _};
use ethers_core::types::{H256, Log, U256};
use ethers_core::utils::{hex, keccak256};
use jsonrpsee::core::client::ClientT as _;
use jsonrpsee::http_client::HttpClient;
use jsonrpsee::rpc_params;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tollpass::admin;
use tollpass::failpoint;
use tollpass::payments::Listing;
use tollpass::protocol::Amount;

use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE};
use crate::support::payer::{Alice, PATIENCE, Program, program};

/// `kill -6`: how an aborting process ends.
const ABORTED: i32 = 6;
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);
/// More effects than any of the runs here has.
const MOST_EFFECTS: u64 = 60;

#[tokio::test]
async fn a_first_payment_survives_an_abort_after_each_effect() {
    let deposit = "[deposit]\ninitial = 10\n";
    let story = Story { deposit, paid_before: 0, created: 10 * PRICE, topped_up: vec![], sign_ahead: 0 };
    let effects = each_abort(story).await;
    for effect in [
        "records about to be written",
        "records written",
        "transaction about to be sent",
        "transaction sent",
        "transaction confirmed",
        "chain job done",
        "payment signed",
        "payment about to be sent",
        "payment answered",
    ] {
        assert!(effects.iter().any(|seen| seen.ends_with(effect)), "{effect} is not among {effects:#?}");
    }
}

#[tokio::test]
async fn a_second_payment_survives_an_abort_after_each_effect() {
    let deposit = "[deposit]\ninitial = 10\n";
    for sign_ahead in [0, 3] {
        let story = Story { deposit, paid_before: 1, created: 10 * PRICE, topped_up: vec![], sign_ahead };
        let effects = each_abort(story).await;
        // Background writes come at a different point in each run, and may come in between.
        let is_fixed = sign_ahead == 0;
        let is_answered = effects.iter().any(|seen| seen.ends_with("payment answered"));
        assert!(is_answered || !is_fixed, "{effects:#?}");
        assert!(!effects.iter().any(|seen| seen.contains("transaction")), "{effects:#?}");
    }
}

#[tokio::test]
async fn a_top_up_survives_an_abort_after_each_effect() {
    let deposit = "[deposit]\ninitial = 1\ntop_up = 5\n";
    let story = Story { deposit, paid_before: 1, created: PRICE, topped_up: vec![5 * PRICE], sign_ahead: 0 };
    let effects = each_abort(story).await;
    assert!(effects.iter().any(|seen| seen.ends_with("transaction sent")), "{effects:#?}");
}

#[tokio::test]
async fn the_clearing_up_survives_an_abort_after_each_effect() {
    let deposit = "[deposit]\ninitial = 10\n";
    let story = Story { deposit, paid_before: 0, created: 10 * PRICE, topped_up: vec![], sign_ahead: 0 };
    let lives = each_abort(story.clone()).await;
    let transactions = lives.iter().enumerate().filter(|(_, effect)| effect.contains("transaction"));
    let mut again = Vec::new();
    for (place, _) in transactions {
        let first = u64::try_from(place).unwrap() + 1;
        again.extend(each_abort_again(&story, Some(first)).await);
    }
    assert!(again.iter().any(|seen| seen.ends_with("transaction sent again")), "{again:#?}");
}

#[tokio::test]
async fn a_transaction_in_no_block_yet_is_found_again() {
    let opening = ("[deposit]\ninitial = 10\n", 0, 10 * PRICE, vec![]);
    let top_up = ("[deposit]\ninitial = 1\ntop_up = 5\n", 1, PRICE, vec![5 * PRICE]);
    for (deposit, paid_before, created, topped_up) in [opening, top_up] {
        let story = Story { deposit, paid_before, created, topped_up, sign_ahead: 0 };
        let lives = each_abort(story.clone()).await;
        for last in ["transaction about to be sent", "transaction sent"] {
            let place = lives.iter().position(|effect| effect.ends_with(last)).unwrap();
            let tale = Tale::begin(&story).await;
            tale.fair.market.chain.set_block_time(Some(NEVER));
            let (tale, words) = tale.life(u64::try_from(place).unwrap() + 1).await;
            assert!(words.is_some_and(|words| words.ends_with(last)), "the lives differ");
            tale.end().await;
        }
    }
}

/// A seller gives its closing signature once: after a crash it must be found again.
#[tokio::test]
async fn a_close_together_survives_an_abort_after_each_effect() {
    let mut effects = Vec::new();
    let mut is_lost = false;
    for after in 1..=MOST_EFFECTS {
        let fair = Fair::open().await;
        let alice = Alice::with(&fair.market, QUICK).await;
        let peace = alice.serve(&[]).await;
        assert_eq!(ask(peace.address, url(&fair)).await, Some(200));
        let (status, log) = terminated(peace).await;
        assert!(status.success(), "{status}: {log}");

        let (status, log) = close_all(&alice, Some(after)).await;
        let words = log.lines().rev().find(|line| line.starts_with("aborting after effect"));
        assert!(words.is_some() || status.success(), "{status}: {log}");
        effects.extend(words.map(str::to_owned));
        let (status, log) = close_all(&alice, None).await;
        if !status.success() && !is_lost {
            // Here, the seller's signature was only in memory.
            let last = words.unwrap_or_default();
            assert!(last.ends_with("records about to be written"), "{status} after {effects:#?}: {log}");
            assert!(log.contains("closing has been requested already"), "{log}");
            is_lost = true;
            continue;
        }
        assert!(status.success(), "{status} after {effects:#?}: {log}");
        let held = fair.market.tokens_of(fair.origin.receiver()).await;
        let on_chain =
            (held, fair.market.settlements().await, fair.market.tokens_of(fair.market.manager).await);
        assert_eq!(on_chain, (PRICE, 1, 0), "after {effects:#?}: {log}");
        if words.is_none() {
            for effect in ["closing signature recorded", "transaction about to be sent", "transaction sent"] {
                assert!(effects.iter().any(|seen| seen.ends_with(effect)), "no {effect} among {effects:#?}");
            }
            return;
        }
    }
    panic!("no life came to its end: {effects:#?}");
}

/// Closes all channels with the real program, which aborts after this many effects.
async fn close_all(alice: &Alice, abort_after: Option<u64>) -> (ExitStatus, String) {
    let mut command = program(["channels", "--config"]);
    command.arg(alice.config_path()).args(["--yes", "close", "--all"]);
    if let Some(after) = abort_after {
        command.env(failpoint::VARIABLE, after.to_string());
    }
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it does not end").unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn kills_from_outside_cost_neither_side_anything() {
    const SEED: u64 = 8402;
    const LIVES: u64 = 8;
    const AT_ONCE: u64 = 20;
    // The default of limits.sign_ahead.
    const RESERVED: u64 = 256;
    let mut dice = StdRng::seed_from_u64(SEED);
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let (mut asked, mut answered) = (0, 0);
    for life in 0..LIVES {
        let program = alice.serve(&[]).await;
        let requests: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(ask(program.address, url(&fair)))).collect();
        asked += AT_ONCE;
        // A paid request is two exchanges with the seller; some runs end at the very beginning.
        let moment = if life == 0 { 1 } else { dice.gen_range(1..=2 * AT_ONCE) };
        let exchanges = fair.origin.exchanges() + moment;
        let killed_at = format!("life {life}, after {moment} exchanges (seed {SEED})");
        let moment = tokio::time::timeout(PATIENCE, fair.origin.await_exchanges(exchanges)).await;
        moment.unwrap_or_else(|_| panic!("no progress: {killed_at}"));
        program.kill().await;
        for request in requests {
            answered += u64::from(request.await.unwrap() == Some(200));
        }
        let registered = fair.origin.total_registered();
        let promised = listed(&alice).await.promised;
        assert!(registered >= Amount::from(answered * PRICE), "{killed_at}");
        assert!(promised >= registered, "{promised} < {registered}: {killed_at}");
        assert!(promised <= Amount::from((asked + RESERVED) * PRICE), "{promised} for {asked}: {killed_at}");
    }
    let program = alice.serve(&[]).await;
    assert_eq!(ask(program.address, url(&fair)).await, Some(200));
    let events = Events::of(&fair).await;
    assert_eq!(events.created, [U256::from(10 * PRICE)]);
    assert!(events.topped_up.iter().all(|added| *added == U256::from(5 * PRICE)), "{events:?}");
    let all = listed(&alice).await;
    assert_eq!(all.promised, fair.origin.total_registered());
    assert_eq!(all.deposit, events.deposit());
    // A top-up comes when nothing is left: a superfluous one would leave more than one deposit.
    let most = all.promised.saturating_add(Amount::from(5 * PRICE)).max(Amount::from(10 * PRICE));
    assert!(all.deposit <= most, "{} is locked up for {}", all.deposit, all.promised);
    program.kill().await;
}

/// What an aborted run sets out to do, and what the chain must show in the end.
#[derive(Clone)]
struct Story {
    deposit: &'static str,
    paid_before: u64,
    created: u64,
    topped_up: Vec<u64>,
    sign_ahead: u64,
}

/// Aborts a run after its first effect, another one after its second and so on; returns the last log lines of each.
async fn each_abort(story: Story) -> Vec<String> {
    each_abort_again(&story, None).await
}

/// The same, after a run that was aborted after its effect `first`.
async fn each_abort_again(story: &Story, first: Option<u64>) -> Vec<String> {
    let mut effects = Vec::new();
    for after in 1..=MOST_EFFECTS {
        let tale = Tale::begin(story).await;
        let tale = match first {
            Some(first) => tale.life(first).await.0,
            None => tale,
        };
        let (tale, effect) = tale.life(after).await;
        tale.end().await;
        match effect {
            Some(effect) => effects.push(effect),
            None => return effects,
        }
    }
    panic!("no life came to its end: {effects:#?}");
}

/// The course of one story: some undisturbed payments, one request in each aborted run, one more at the end.
struct Tale<'a> {
    story: &'a Story,
    fair: Fair,
    alice: Alice,
    asked: u64,
    answered: u64,
    place: String,
}

impl<'a> Tale<'a> {
    async fn begin(story: &'a Story) -> Self {
        let fair = Fair::open().await;
        let limits = format!("[limits]\nsign_ahead = {}\n", story.sign_ahead);
        let alice = Alice::with(&fair.market, &format!("{}{QUICK}{limits}", story.deposit)).await;
        if story.paid_before > 0 {
            let peace = alice.serve(&[]).await;
            for _ in 0..story.paid_before {
                assert_eq!(ask(peace.address, url(&fair)).await, Some(200));
            }
            let (status, log) = terminated(peace).await;
            assert!(status.success(), "{status}: {log}");
        }
        let paid = story.paid_before;
        Self { story, fair, alice, asked: paid, answered: paid, place: String::new() }
    }

    /// One request in a run that aborts after this many effects; its last log line, or `None` if it had fewer.
    async fn life(mut self, after: u64) -> (Self, Option<String>) {
        let program = self.alice.serve(&[(failpoint::VARIABLE, &after.to_string())]).await;
        let answer = ask(program.address, url(&self.fair)).await;
        self.asked += 1;
        self.answered += u64::from(answer == Some(200));
        let (status, log) = terminated(program).await;
        let words = log.lines().rev().find(|line| line.starts_with("aborting after effect"));
        let words = words.map(str::to_owned);
        // A process that was about to exit may do so between the log line and the abort.
        let aborted = words.is_some() && status.signal() == Some(ABORTED);
        assert!(aborted || status.success(), "{status}: {log}");
        self.place += &format!("; {}", words.as_deref().unwrap_or("a whole life"));
        assert!(words.is_some() || answer == Some(200), "{answer:?}{}: {log}", self.place);
        let (promised, registered) =
            (listed(&self.alice).await.promised, self.fair.origin.total_registered());
        assert!(promised >= registered, "{promised} < {registered}{}", self.place);
        let most = (self.asked + self.story.sign_ahead) * PRICE;
        assert!(promised <= Amount::from(most), "{promised}{}", self.place);
        (self, words)
    }

    /// An undisturbed run: the next request is paid, and everything is as if nothing had happened.
    async fn end(self) {
        let Self { story, fair, alice, asked, answered, place } = self;
        let program = alice.serve(&[]).await;
        let answer = tokio::spawn(ask(program.address, url(&fair)));
        // Only a chain on which something waits to be mined tells who remembers from who looks.
        ready(&alice).await;
        fair.market.chain.set_block_time(Some(Duration::from_millis(10)));
        let answer = answer.await.unwrap();
        let all = listed(&alice).await;
        let log = program.kill().await;
        assert_eq!(answer, Some(200), "{place}: {log}");
        assert_eq!(all.channels, 1, "{place}: {log}");
        assert_eq!(all.promised, fair.origin.total_registered(), "{place}: {log}");
        assert_eq!(all.acknowledged, all.promised, "{place}: {log}");
        assert!(all.promised <= Amount::from((asked + 1) * PRICE), "{}{place}: {log}", all.promised);
        assert!(all.promised >= Amount::from((answered + 1) * PRICE), "{}{place}: {log}", all.promised);
        let events = Events::of(&fair).await;
        assert_eq!(events.created, [U256::from(story.created)], "{place}: {log}");
        let topped_up: Vec<U256> = story.topped_up.iter().map(|units| (*units).into()).collect();
        assert_eq!(events.topped_up, topped_up, "{place}: {log}");
        assert_eq!(all.deposit, events.deposit(), "{place}: {log}");
    }
}

/// Stops it, if it still runs, and waits for its exit.
async fn terminated(program: Program) -> (ExitStatus, String) {
    let pid = Pid::from_raw(program.child.id().unwrap().try_into().unwrap()).unwrap();
    // One that has aborted receives no more signals.
    let _ = kill_process(pid, Signal::TERM);
    program.ended().await
}

fn url(fair: &Fair) -> String {
    format!("{}/paid", fair.origin.url())
}

/// Requests a page through a proxy that may crash at any moment; `None` if it did.
async fn ask(proxy: SocketAddr, url: String) -> Option<u16> {
    ask_as(proxy, url, "").await
}

/// The same with more header lines.
pub async fn ask_as(proxy: SocketAddr, url: String, lines: &str) -> Option<u16> {
    let asking = async {
        let mut stream = TcpStream::connect(proxy).await.ok()?;
        let request = format!("GET {url} HTTP/1.1\r\nHost: seller\r\n{lines}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        // A connection that breaks in the middle leaves the bytes received so far.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("no answer and no end")
}

/// Waits until the running proxy has synced with the chain.
async fn ready(alice: &Alice) {
    let socket = admin::socket(&alice.state_dir());
    let looking = async { while admin::channels(&socket).await.unwrap().unwrap().owner.is_none() {} };
    tokio::time::timeout(PATIENCE, looking).await.expect("it does not become ready");
}

/// The output of `tollpass channels`, summed up.
struct Listed {
    channels: usize,
    deposit: Amount,
    promised: Amount,
    acknowledged: Amount,
}

/// Asks the real program, which finds the running proxy or reads the journal of a crashed one.
async fn listed(alice: &Alice) -> Listed {
    let output = Command::new(env!("CARGO_BIN_EXE_tollpass"))
        .args(["channels", "--json", "--state-dir"])
        .arg(alice.state_dir())
        .stdin(Stdio::null())
        .output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it does not end").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listings: Vec<Listing> = serde_json::from_slice(&output.stdout).unwrap();
    let channels: Vec<_> = listings.into_iter().flat_map(|listing| listing.channels).collect();
    let sum = |of: fn(&tollpass::payments::ListedChannel) -> Amount| {
        channels.iter().map(of).fold(Amount::ZERO, Amount::saturating_add)
    };
    Listed {
        channels: channels.len(),
        deposit: sum(|channel| channel.deposit),
        promised: sum(|channel| channel.promised),
        acknowledged: sum(|channel| channel.acknowledged),
    }
}

/// What the contract has recorded of the seller's channels.
#[derive(Debug)]
struct Events {
    created: Vec<U256>,
    topped_up: Vec<U256>,
}

impl Events {
    async fn of(fair: &Fair) -> Self {
        let node = HttpClient::builder().build(fair.market.chain.url()).unwrap();
        let receiver = format!("0x{}{}", "00".repeat(12), hex::encode(fair.origin.receiver().0));
        let filter =
            json!({ "address": fair.market.manager, "fromBlock": "0x0", "topics": [null, null, receiver] });
        let logs: Vec<Log> = node.request("eth_getLogs", rpc_params![filter]).await.unwrap();
        let amounts = |declaration: &str| {
            let topic = H256(keccak256(declaration));
            let those = logs.iter().filter(|log| log.topics.first() == Some(&topic));
            those.map(|log| U256::from_big_endian(&log.data[..32])).collect()
        };
        Self {
            created: amounts("ChannelCreated(address,address,uint192)"),
            topped_up: amounts("ChannelToppedUp(address,address,uint32,uint192)"),
        }
    }

    fn deposit(&self) -> Amount {
        let sum = self.created.iter().chain(&self.topped_up).fold(U256::zero(), |sum, units| sum + units);
        Amount::try_from(sum).unwrap()
    }
}
