//! What a program within `tollpass run` cannot do: exceed the run by another one, or operate tollpass.

use std::process::Stdio;

use tokio::process::Command;

use super::run_budgets::{budgets, count, with_budget};
use super::runs::{PAID, Scene, Talk, ended};
use super::{run, text};
use crate::support::fair::PRICE;

/// The program.
const TOLLPASS: &str = env!("CARGO_BIN_EXE_tollpass");

/// Prints the status of five requests.
const FIVE: &str = r#"for i in 1 2 3 4 5; do curl -q -sS -o /dev/null -w '%{http_code}\n' "$0"; done"#;

#[tokio::test]
async fn a_nested_run_takes_a_slice_and_never_exceeds_the_outer_one() {
    let scene = with_budget().await;
    let url = scene.url("/paid");
    // With a proxy of the outer run, and with one that runs.
    for is_running in [false, true] {
        let serving = if is_running { Some(scene.alice.serve(&[]).await) } else { None };
        // Two of five by the first slice, then one of five, whatever the second one says.
        let script = r#""$1" run --budget 2000 -- sh -c "$2" "$0"; echo next
                        "$1" run --budget 90000 --for 9h -- sh -c "$2" "$0"; echo next; sh -c "$2" "$0""#;
        let command = ["sh", "-c", script, &url, TOLLPASS, FIVE];
        let ran = ended(scene.run(&["--budget", "3000"], &command)).await;
        let paid: Vec<usize> = ran.out.split("next\n").map(|part| count(part, "200")).collect();
        assert_eq!((&paid[..], count(&ran.out, "402")), (&[2, 1, 0][..], 12), "{ran:?}");
        for told in [
            "tollpass: paid 2000 in 2 requests",
            "tollpass: paid 1000 in 1 request",
            "tollpass: paid 3000 in 3",
        ] {
            assert!(ran.errors.contains(told), "no {told} in {ran:?}");
        }
        if let Some(serving) = serving {
            serving.terminate();
            serving.ended().await;
        }
    }
    assert_eq!(scene.fair.origin.total_registered(), (6 * PRICE).into());
}

#[tokio::test]
async fn a_nested_run_does_not_outlive_the_time_of_the_outer_one() {
    let scene = with_budget().await;
    let url = scene.url("/paid");
    let script = r#"until curl -q -sS -D - "$0" | grep 'proxy-status'; do :; done"#;
    let command = [TOLLPASS, "run", "--for", "9h", "--", "sh", "-c", script, &url];
    let ran = ended(scene.run(&["--for", "1s"], &command)).await;
    assert!(ran.out.contains("its time (--for 1s) is over"), "{ran:?}");
}

#[tokio::test]
async fn a_program_shows_and_ends_its_own_report() {
    let scene = Scene::open().await;
    let url = scene.url("/paid");
    let serving = scene.alice.serve(&[]).await;
    let mut other = Talk::start(scene.run(&[], &["sh", "-c", "echo $TOLLPASS_RUN; cat"]));
    let number = other.hear().await;
    let script = r#"
        curl -q -sS "$0" && "$1" report && "$1" report --json
        TOLLPASS_RUN=$2 "$1" report 2>&1
        "$1" env | grep -c "$http_proxy"
        "$1" report --end && curl -q -sS -D - -o /dev/null "$0""#;
    let command = ["sh", "-c", script, &url, TOLLPASS, &number];
    let ran = ended(scene.run(&["--budget", "9000"], &command)).await;
    let payee = scene.payee();
    let told = format!("paid 1000 in 1 request: 1000 to {payee}\n");
    assert!(ran.out.starts_with(&format!("{PAID}{told}{{")), "{ran:?}");
    assert!(ran.out.contains(r#""amount": "1000""#), "{ran:?}");
    assert!(ran.out.contains("tollpass: this is not the run that the program belongs to\n4\n"), "{ran:?}");
    assert!(ran.out.contains(&format!("\n{told}HTTP/1.1 402")), "{ran:?}");
    assert!(
        ran.out.contains("the `tollpass run` of the program pays nothing any more: it has ended"),
        "{ran:?}"
    );
    assert_eq!(ran.errors, format!("tollpass: {told}"));
    other.end().await;
    // Outside of a run, there is none.
    let config = scene.alice.config_path();
    run(&["report", "--config", text(&config)]).await.expect_failure(&["not inside a `tollpass run`"]);
    serving.terminate();
    serving.ended().await;
}

/// Programs find other ports of the proxy in settings of their own: those of the proxy itself, and of routes.
#[tokio::test]
async fn requests_to_other_ports_of_the_proxy_count_in_the_run() {
    let mut scene = with_budget().await;
    let url = scene.url("/paid");
    let port = crate::support::ports::ReservedPort::new();
    let origin = scene.fair.origin.url();
    let route = format!("[[route]]\norigin = \"{origin}\"\nlisten = \"{}\"\n\n[[budget]]", port.address());
    scene.alice.change("[[budget]]", &route);
    let serving = scene.alice.serve(&[]).await;
    let script = r#"for i in 1 2; do curl -q -sS -o /dev/null -w '%{http_code}\n' -x "$1" "$0"
                    curl -q -sS -o /dev/null -w '%{http_code}\n' --noproxy '*' "$2/paid"; done
                    (curl -q -sS -D - -o /dev/null -x "$1" "$0" | grep proxy-status)"#;
    let (main, base) = (format!("http://{}", serving.address), format!("http://{}", port.address()));
    let ran = ended(scene.run(&["--budget", "3000"], &["sh", "-c", script, &url, &main, &base])).await;
    assert_eq!((count(&ran.out, "200"), count(&ran.out, "402")), (3, 1), "{ran:?}");
    assert!(ran.out.contains("what is left of the budget run 1: 0 of --budget = 3000"), "{ran:?}");
    assert!(ran.errors.contains("tollpass: paid 3000 in 3 requests: "), "{ran:?}");
    // Those of other programs do not, while a run is open.
    let mut talk = Talk::start(scene.run(&["--budget", "0"], &["sh", "-c", "echo ready; cat"]));
    assert_eq!(talk.hear().await, "ready");
    let mut other = Command::new("curl");
    let other = other.args(["-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", &main, &url]);
    assert_eq!(other.output().await.unwrap().stdout, b"200");
    let (_, errors) = talk.end().await;
    assert_eq!(errors, "tollpass: paid nothing\n");
    assert_eq!(scene.fair.origin.total_registered(), (4 * PRICE).into());
    serving.terminate();
    serving.ended().await;
}

/// A program may learn of the port of another run, or of the one around its own.
#[tokio::test]
async fn the_port_of_another_run_pays_no_more_than_the_own_one() {
    let scene = with_budget().await;
    let url = scene.url("/paid");
    let serving = scene.alice.serve(&[]).await;
    let script = r#""$1" run --budget 2000 -- sh -c "export http_proxy=$http_proxy; $2" "$0""#;
    let ran = ended(scene.run(&["--budget", "9000"], &["sh", "-c", script, &url, TOLLPASS, FIVE])).await;
    assert_eq!((count(&ran.out, "200"), count(&ran.out, "402")), (2, 3), "{ran:?}");
    assert_eq!(ran.errors.matches("tollpass: paid 2000 in 2 requests: ").count(), 2, "{ran:?}");
    let mut other = Talk::start(scene.run(&["--budget", "9000"], &["sh", "-c", "echo $http_proxy; cat"]));
    let port = other.hear().await;
    let script = r#"curl -q -sS -D - -o /dev/null -x "$1" "$0"; curl -q -sS "$0""#;
    let ran = ended(scene.run(&["--budget", "1000"], &["sh", "-c", script, &url, &port])).await;
    assert!(ran.out.contains("HTTP/1.1 402") && ran.out.ends_with(PAID), "{ran:?}");
    assert!(ran.out.contains("it belongs to run 4, and came to the port of run 3"), "{ran:?}");
    // Its user may use any of them.
    let mut curl = Command::new("curl");
    let curl = curl.args(["-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", &port, &url]);
    assert_eq!(curl.output().await.unwrap().stdout, b"200");
    let (_, errors) = other.end().await;
    assert!(errors.contains("tollpass: paid 1000 in 1 request: "), "{errors}");
    assert_eq!(scene.fair.origin.total_registered(), (4 * PRICE).into());
    serving.terminate();
    serving.ended().await;
}

#[tokio::test]
async fn a_program_whose_proxy_has_stopped_starts_none_of_its_own_and_joins_no_other() {
    let scene = with_budget().await;
    let url = scene.url("/paid");
    let serving = scene.alice.serve(&[]).await;
    let script = r#"echo ready
        while read line; do "$1" run --budget 5000 -- curl -q -sS "$0"; echo $?; done
        "$1" serve --listen 0; echo $?"#;
    let mut talk = Talk::start(scene.run(&["--budget", "1000"], &["sh", "-c", script, &url, TOLLPASS]));
    assert_eq!(talk.hear().await, "ready");
    serving.terminate();
    serving.ended().await;
    talk.say("without one\n").await;
    assert_eq!(talk.hear().await, "125");
    let serving = scene.alice.serve(&[]).await;
    // Its first run has the same number.
    let mut other = Talk::start(scene.run(&[], &["sh", "-c", "echo ready; cat"]));
    assert_eq!(other.hear().await, "ready");
    talk.say("with another one\n").await;
    assert_eq!(talk.hear().await, "125");
    serving.terminate();
    serving.ended().await;
    drop(talk.child.stdin.take());
    assert_eq!(talk.hear().await, "1");
    let (_, errors) = talk.end().await;
    for told in [
        "the proxy of the surrounding `tollpass run` (1-",
        ") is not open at the running tollpass: it is over, or belonged to another one",
        "programs within `tollpass run` cannot operate tollpass",
    ] {
        assert!(errors.contains(told), "no {told} in {errors}");
    }
    other.end().await;
    assert_eq!(scene.fair.origin.total_registered(), 0.into());
}

/// What a program within a run must not do, with arguments that would be valid.
const OPERATIONS: [&str; 16] = [
    "approve 1",
    "deny 1",
    "approvals",
    "approvals revoke 1",
    "pending",
    "freeze",
    "thaw",
    "resume",
    "status",
    "dashboard",
    "resume 127.0.0.1",
    "channels",
    "channels close --all --yes",
    "channels settle --all --yes",
    "ledger",
    "budget reset-clock",
];

#[tokio::test]
async fn a_program_cannot_operate_however_it_asks() {
    let scene = Scene::open().await;
    let serving = scene.alice.serve(&[]).await;
    let told = "programs within `tollpass run` cannot operate tollpass";
    for operation in OPERATIONS {
        let arguments: Vec<&str> = [TOLLPASS].into_iter().chain(operation.split(' ')).collect();
        let ran = ended(scene.run(&["--quiet"], &arguments)).await;
        assert_eq!(ran.status.code(), Some(1), "{operation}: {ran:?}");
        assert!(ran.errors.contains(told), "{operation}: {ran:?}");
    }
    // The proxy itself refuses those that hide where they come from: without the variable, from a process whose parents
    // have all ended, and by hand.
    let told = "the program belongs to a `tollpass run`, which cannot operate tollpass";
    for operation in
        OPERATIONS.iter().filter(|operation| !["ledger", "budget reset-clock"].contains(operation))
    {
        let script = format!(r#"unset TOLLPASS_RUN; "$0" {operation}"#);
        let ran = ended(scene.run(&["--quiet"], &["sh", "-c", &script, TOLLPASS])).await;
        assert_eq!(ran.status.code(), Some(1), "{operation}: {ran:?}");
        assert!(ran.errors.contains(told), "{operation}: {ran:?}");
    }
    let daemon = r#"mkfifo "$1"; (setsid sh -c 'unset TOLLPASS_RUN; until [ "$(ps -o ppid= $$)" -eq "$2" ]; do :; done
                    "$0" freeze 2>&1 >/dev/null' "$0" "$1" "$PPID" >"$1" &) ; cat "$1""#;
    let pipe = scene.alice.directory.path().join("pipe");
    let ran = ended(scene.run(&["--quiet"], &["sh", "-c", daemon, TOLLPASS, text(&pipe)])).await;
    assert!(ran.out.contains(told), "{ran:?}");
    let socket = tollpass::admin::socket(&scene.alice.state_dir());
    let by_hand =
        ["curl", "-q", "-sS", "--unix-socket", text(&socket), "-d", "true", "http://tollpass/freeze"];
    let ran = ended(scene.run(&["--quiet"], &by_hand)).await;
    assert!(ran.out.contains(told), "{ran:?}");
    // Its user can, and nothing has happened so far.
    let mut talk = Talk::start(scene.run(&[], &["sh", "-c", "echo ready; cat"]));
    assert_eq!(talk.hear().await, "ready");
    let config = scene.alice.config_path();
    let shown = run(&["channels", "--config", text(&config)]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let url = scene.url("/paid");
    let ran = ended(scene.run(&["--quiet"], &["curl", "-q", "-sS", &url])).await;
    assert_eq!(ran.out, PAID, "{ran:?}");
    let frozen = run(&["freeze", "--config", text(&config)]).await;
    assert_eq!(frozen.code, 0, "{frozen:?}");
    talk.end().await;
    serving.terminate();
    serving.ended().await;
}

#[tokio::test]
async fn orphans_of_a_command_are_adopted_and_reaped() {
    let scene = Scene::open().await;
    // It ends once it is adopted.
    let orphan = r#"until [ "$(ps -o ppid= $$)" -eq "$0" ]; do :; done; echo $$"#;
    let script = r#"(sh -c "$0" "$PPID" &) ; read line"#;
    let mut talk = Talk::start(scene.run(&["--quiet"], &["sh", "-c", script, orphan]));
    let orphan = talk.hear().await;
    // A zombie has an entry until it is reaped.
    let is_there = || async {
        let mut ps = Command::new("ps");
        ps.args(["-p", &orphan]).stdout(Stdio::null()).status().await.unwrap().success()
    };
    crate::support::raw::soon("the end of the orphan", async { while is_there().await {} }).await;
    talk.end().await;
    assert!(budgets(&scene).await.is_empty());
}
