//! `tollpass run --budget --for`: what its command may spend, and what is left when it is over.

use http::{Request, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::run_ports::{EACH_WAY, with_every_way_in};
use super::runs::{Scene, Talk, ended};
use super::{run, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::Alice;
use crate::support::raw::soon;
use crate::support::wire::ask;

/// Processes that send 10 requests each at once, and print a line with each status.
pub(super) const CROWD: &str = r#"
import os, sys, threading, urllib.request, urllib.error
url, count = sys.argv[1], int(sys.argv[2])
for _ in range(count - 1):
    if os.fork() == 0: break
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": os.environ["http_proxy"]}))
def ask():
    try:
        status = opener.open(url, timeout=60).status
    except urllib.error.HTTPError as error:
        status = error.code
    sys.stdout.write(f"{status}\n")
threads = [threading.Thread(target=ask) for _ in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.stdout.flush()
try:
    while True: os.wait()
except ChildProcessError: pass
"#;

/// Alice with a budget of 100 prices for everything, several channels, and payments signed ahead.
pub(super) async fn with_budget() -> Scene {
    let fair = Fair::open().await;
    let more = format!(
        "{QUICK}[[budget]]\nname = \"all\"\nwallet = true\ntotal = {}\n[deposit]\nchannels = 8\n[limits]\nsign_ahead = 20\n",
        100 * PRICE
    );
    let alice = Alice::with(&fair.market, &more).await;
    Scene { fair, alice }
}

/// The names of all budgets, with what is spent of their totals.
pub(super) async fn budgets(scene: &Scene) -> Vec<(String, String)> {
    let config = scene.alice.config_path();
    let shown = run(&["budget", "--json", "--config", text(&config)]).await;
    let budgets: Vec<Value> = serde_json::from_str(&shown.out).unwrap_or_else(|_| panic!("{shown:?}"));
    let of = |budget: &Value| {
        let spent = budget["windows"][0]["spent"].as_str().unwrap().to_owned();
        (budget["name"].as_str().unwrap().to_owned(), spent)
    };
    budgets.iter().map(of).collect()
}

pub(super) fn count(out: &str, line: &str) -> usize {
    out.lines().filter(|other| *other == line).count()
}

#[tokio::test]
async fn a_command_is_paid_exactly_what_its_budget_allows() {
    let scene = with_budget().await;
    let url = scene.url("/paid");
    // First by a proxy of its own, then by one that runs.
    for is_running in [false, true] {
        let before = scene.fair.origin.total_registered();
        let serving = if is_running { Some(scene.alice.serve(&[]).await) } else { None };
        let command = ["python3", "-c", CROWD, &url, "10"];
        let ran = ended(scene.run(&["--budget", "20000"], &command)).await;
        assert_eq!((count(&ran.out, "200"), count(&ran.out, "402")), (20, 80), "{ran:?}");
        assert!(ran.errors.contains("tollpass: paid 20000 in 20 requests: "), "{ran:?}");
        assert_eq!(scene.fair.origin.total_registered().saturating_sub(before), (20 * PRICE).into());
        if let Some(serving) = serving {
            // The budget ended with the run, and others go on.
            assert_eq!(budgets(&scene).await, [("all".to_owned(), "40000".to_owned())]);
            let got = ask(serving.address, Request::get(&url).body(empty()).unwrap()).await;
            assert_eq!(got.status, StatusCode::OK, "{got:?}");
            serving.terminate();
            serving.ended().await;
        }
    }
    // The other budgets apply, too.
    let ran = ended(scene.run(&["--budget", "1000000"], &["python3", "-c", CROWD, &url, "10"])).await;
    assert_eq!((count(&ran.out, "200"), count(&ran.out, "402")), (59, 41), "{ran:?}");
    assert_eq!(scene.fair.origin.total_registered(), (100 * PRICE).into());
}

#[tokio::test]
async fn beyond_the_budget_each_way_in_gets_the_sellers_402_with_the_reason() {
    let (scene, _notary) = with_every_way_in("").await;
    let (url, secure) = (scene.url("/paid"), scene.fair.origin.secure_url().unwrap() + "/paid");
    let told = EACH_WAY.replace("curl -q -sS", "curl -q -sS -D - -o /dev/null");
    let script = format!("{EACH_WAY}{told}");
    let ran = ended(scene.run(&["--budget", "5000"], &["sh", "-c", &script, &url, &secure])).await;
    assert_eq!(ran.out.matches("This text was paid for").count(), 5, "{ran:?}");
    assert_eq!(ran.out.matches(" 402 ").count(), 5, "{ran:?}");
    let reason = "what is left of the budget run ";
    assert_eq!(ran.out.matches(reason).count(), 5, "{ran:?}");
    assert_eq!(ran.out.matches(": 0 of --budget = 5000; raise it to pay more").count(), 5, "{ran:?}");
    assert!(ran.errors.contains("tollpass: paid 5000 in 5 requests: "), "{ran:?}");
    // The amounts are those of a [[budget]]; a token that it does not count is not paid.
    let ran = ended(scene.run(&["--budget", "$1"], &["curl", "-q", "-sS", "-D", "-", &url])).await;
    assert!(ran.out.contains("is in dollars, and "), "{ran:?}");
    let ran = ended(scene.run(&["--budget", "0"], &["curl", "-q", "-sS", "-D", "-", &url])).await;
    assert!(ran.out.contains(": 0 of --budget = 0"), "{ran:?}");
    let ran = ended(scene.run(&["--budget", "1 FOO"], &["touch", "x"])).await;
    assert_eq!(ran.status.code(), Some(125), "{ran:?}");
    assert!(ran.errors.contains("--budget: no token is known for \"FOO\""), "{ran:?}");
}

#[tokio::test]
async fn a_budget_that_is_no_amount_is_told_before_the_command_runs() {
    let scene = Scene::open().await;
    for budget in ["-1", "-1 TOY", "much"] {
        let ran = ended(scene.run(&["--budget", budget], &["echo", "ran"])).await;
        assert_eq!((ran.status.code(), &*ran.out), (Some(125), ""), "{ran:?}");
        assert!(ran.errors.starts_with("tollpass: --budget: "), "{ran:?}");
    }
}

#[tokio::test]
async fn after_its_time_nothing_is_paid() {
    let scene = with_budget().await;
    let url = scene.url("/paid");
    let script =
        r#"curl -q -sS --fail "$0" && until curl -q -sS -D - "$0" | grep 'proxy-status'; do :; done"#;
    let ran = ended(scene.run(&["--for", "1s"], &["sh", "-c", script, &url])).await;
    assert!(ran.out.contains("pays nothing any more: its time (--for 1s) is over"), "{ran:?}");
    // Until then, all that was asked for was paid.
    let asked = ran.out.matches("This text").count();
    assert!(asked >= 1, "{ran:?}");
}

/// A request that was asked in time and waits for its channel is not paid after that.
#[tokio::test]
async fn a_request_that_waits_is_not_paid_after_the_time_of_its_run() {
    let scene = Scene::open().await;
    let url = scene.url("/paid");
    let serving = scene.alice.serve(&[]).await;
    let got = ask(serving.address, Request::get(&url).body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    scene.fair.origin.hold_answers();
    // Two at once share a channel. A third one finds out when the time is over.
    let script = r#"curl -q -sS -o /dev/null -w '%{http_code}\n' "$0" & curl -q -sS -o /dev/null -w '%{http_code}\n' "$0" &
                    read line; until curl -q -sS -m 0.3 -D - "$0" 2>&1 | grep -q 'is over'; do :; done; echo over; wait"#;
    let mut talk = Talk::start(scene.run(&["--for", "3s"], &["sh", "-c", script, &url]));
    soon("the payment", scene.fair.origin.await_payments(2)).await;
    talk.say("go on\n").await;
    assert_eq!(talk.hear().await, "over");
    scene.fair.origin.release();
    let mut statuses = [talk.hear().await, talk.hear().await];
    statuses.sort();
    assert_eq!(statuses, ["200", "402"]);
    let (_, errors) = talk.end().await;
    assert!(errors.starts_with("tollpass: paid 1000 in 1 request: "), "{errors}");
    assert_eq!(scene.fair.origin.total_registered(), (2 * PRICE).into());
    serving.terminate();
    serving.ended().await;
}

#[tokio::test]
async fn a_run_has_a_budget_while_it_lasts_and_a_crash_frees_nothing_of_the_others() {
    let scene = with_budget().await;
    let url = scene.url("/paid");
    let serving = scene.alice.serve(&[]).await;
    let script = r#"for i in 1 2 3; do curl -q -sS --fail -o /dev/null "$0"; done; echo paid; cat"#;
    let mut talk = Talk::start(scene.run(&["--budget", "50000"], &["sh", "-c", script, &url]));
    assert_eq!(talk.hear().await, "paid");
    let shown = budgets(&scene).await;
    let [(all, spent), (run, of_run)] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((&**all, &**spent, &**of_run), ("all", "3000", "3000"));
    assert!(run.starts_with("run "), "{run}");
    let id = serving.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
    kill_process(id, Signal::KILL).unwrap();
    serving.ended().await;
    let (_, errors) = talk.end().await;
    assert!(errors.contains("the proxy stopped in the meantime: what it paid is unknown"), "{errors}");
    // What may have been signed ahead counts as spent, and the run is forgotten.
    for _ in 0..2 {
        let serving = scene.alice.serve(&[]).await;
        let shown = budgets(&scene).await;
        let [(all, spent)] = &shown[..] else { panic!("{shown:?}") };
        assert!(all == "all" && spent.parse::<u64>().unwrap() > 3 * PRICE, "{shown:?}");
        serving.terminate();
        serving.ended().await;
    }
    let state = scene.alice.state_dir();
    let journal = rusqlite::Connection::open(state.join("tollpass.db")).unwrap();
    let left = |sql: &str| journal.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(left("SELECT count(*) FROM budget WHERE name LIKE 'run %'"), 0);
    assert_eq!(left("SELECT count(*) FROM hold WHERE body LIKE '%run %'"), 0);
    assert!(left("SELECT count(*) FROM hold") > 0);
}
