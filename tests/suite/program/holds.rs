//! `tollpass status`: each hold with its reason, age and end; none is left once everything is settled.

use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::Value;
use tollpass::devnet::origin::Lose;

use super::{run, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, PATIENCE, Program};
use crate::support::raw::soon;
use crate::support::wire::{Got, ask};

struct Scene {
    fair: Fair,
    alice: Alice,
}

impl Scene {
    async fn buy(&self, program: &Program) -> Got {
        let url = format!("{}/paid", self.fair.origin.url());
        ask(program.address, Request::get(url).body(empty()).unwrap()).await
    }

    async fn status(&self, arguments: &[&str]) -> super::Ran {
        let config = self.alice.config_path();
        run(&[&["status", "--config", text(&config)], arguments].concat()).await
    }

    /// The holds with this reason, once there are so many.
    async fn holds(&self, reason: &str, count: usize) -> Vec<Value> {
        let looking = async {
            loop {
                let ran = self.status(&["--json"]).await;
                let json: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
                let holds = json["holds"].as_array().unwrap().iter();
                let holds: Vec<Value> = holds.filter(|hold| hold["reason"] == reason).cloned().collect();
                if holds.len() == count {
                    return holds;
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not {count} {reason}"))
    }

    /// Checks the only hold with this reason.
    async fn one(&self, reason: &str, amount: u64, free_in: Option<u64>, until: &str) {
        let hold = self.holds(reason, 1).await.remove(0);
        assert_eq!(
            (&hold["amount"], &hold["budgets"][0]),
            (&amount.to_string().into(), &"all".into()),
            "{hold}"
        );
        assert_eq!(
            (&hold["host"], &hold["network"]),
            (&"127.0.0.1".into(), &"eip155:31337".into()),
            "{hold}"
        );
        assert!(hold["age_s"].as_u64().is_some_and(|age| age < 60), "{hold}");
        assert!(hold["until"].as_str().unwrap().contains(until), "{hold}");
        match free_in {
            Some(most) => assert!(hold["free_in_s"].as_u64().is_some_and(|left| left <= most), "{hold}"),
            None => assert_eq!(hold["free_in_s"], Value::Null, "{hold}"),
        }
    }
}

#[tokio::test]
async fn each_hold_is_shown_with_its_reason_and_end_and_none_is_left_when_all_is_settled() {
    let fair = Fair::open().await;
    let budget = format!("[[budget]]\nname = \"all\"\nwallet = true\ntotal = {}\n", 1000 * PRICE);
    let more = format!("{QUICK}{budget}[limits]\nsign_ahead = 3\npay_timeout = \"90s\"\n");
    let alice = Alice::with(&fair.market, &more).await;
    let scene = Scene { fair, alice };
    scene.status(&[]).await.expect_failure(&["no proxy is running on"]);
    let program = scene.alice.serve(&[]).await;
    // Until then, it says that the node has not been read yet.
    let pays = format!("listening on {}, pays\nnothing is held\n", program.address);
    soon("it can pay", async { while scene.status(&[]).await.out != pays {} }).await;

    assert_eq!(scene.buy(&program).await.status, StatusCode::OK);
    scene.one("ready", 3 * PRICE, None, "if a budget runs short").await;
    let budgets = run(&["budget", "--json", "--config", text(&scene.alice.config_path())]).await;
    let budgets: Value = serde_json::from_str(&budgets.out).unwrap();
    assert_eq!(budgets[0]["windows"][0]["held"], (3 * PRICE).to_string());

    // The seller takes its time.
    scene.fair.origin.hold_answers();
    let slow = scene.buy(&program);
    let looks = async {
        scene.one("in-flight", PRICE, Some(90), "the seller responds").await;
        scene.fair.origin.release();
    };
    assert_eq!(tokio::join!(slow, looks).0.status, StatusCode::OK);
    scene.holds("in-flight", 0).await;

    // The response is lost, until the next payment tells.
    scene.fair.origin.lose_next_answer(Lose::BeforeRegistering);
    // A GET would be sent again.
    let post = Request::post(format!("{}/paid/echo", scene.fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(program.address, post).await.status, StatusCode::BAD_GATEWAY);
    scene.one("in-doubt", PRICE, None, "the next payment to the seller").await;
    let shown = scene.status(&[]).await.out;
    let row = shown.lines().find(|line| line.starts_with("in-doubt ")).unwrap_or_else(|| panic!("{shown}"));
    assert!(row.contains(" 1000 units  127.0.0.1 ") && row.contains("  all  "), "{shown}");
    assert_eq!(scene.buy(&program).await.status, StatusCode::OK);
    scene.holds("in-doubt", 0).await;

    let frozen = run(&["freeze", "--config", text(&scene.alice.config_path())]).await;
    assert_eq!(frozen.code, 0, "{frozen:?}");
    let shown = scene.status(&[]).await.out;
    assert!(shown.starts_with(&format!("listening on {}, signs nothing", program.address)), "{shown}");
    run(&["thaw", "--config", text(&scene.alice.config_path())]).await;

    // After a kill, it is not known what was signed, until the channel is closed.
    program.kill().await;
    let program = scene.alice.serve(&[]).await;
    let unknown = scene.holds("after-crash", 1).await.remove(0);
    assert_eq!(unknown["budgets"][0], "all", "{unknown}");
    assert!(unknown["until"].as_str().unwrap().contains("closing the channel"), "{unknown}");
    // Without the seller, so that the doubt itself does not end, but what it could cost.
    let id = unknown["channel"].as_str().unwrap();
    let total = scene.fair.origin.total_registered().to_string();
    let close = ["close", id, "--yes", "--unilateral", "--below-promised", "--total", &total];
    let config = scene.alice.config_path();
    for (command, blocks) in [(&close[..], 501), (&["settle", "--all", "--yes"], 0)] {
        let done = run(&[&["channels", "--config", text(&config)], command].concat()).await;
        assert_eq!(done.code, 0, "{done:?}");
        scene.fair.market.mine(blocks).await;
    }
    let all = async { while scene.status(&[]).await.out.lines().nth(1) != Some("nothing is held") {} };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("something is held");
    let left: Value = serde_json::from_str(&scene.status(&["--json"]).await.out).unwrap();
    assert_eq!(left["holds"], Value::Array(Vec::new()), "{left}");
    program.terminate();
    program.ended().await;
}
