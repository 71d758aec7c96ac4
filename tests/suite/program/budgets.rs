//! Budgets as users have them: many client processes at once, kills, and the commands that show and end spending.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::Value;
use tokio::process::Command;

use super::{Ran, run, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, Program};
use crate::support::wire::{Got, ask};

/// How many prices the budget allows.
const PRICES: u64 = 100;

/// A program that sends this many requests through the proxy at once, and prints a line with each status.
const CLIENT: &str = r#"
import sys, threading, urllib.request, urllib.error
proxy, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
def ask():
    try:
        status = opener.open(url, timeout=60).status
    except urllib.error.HTTPError as error:
        status = error.code
    except Exception:
        status = 0
    sys.stdout.write(f"{status}\n")
threads = [threading.Thread(target=ask) for _ in range(count)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;

struct Scene {
    fair: Fair,
    alice: Alice,
}

impl Scene {
    /// Alice with a budget of this many prices, several channels, and payments signed ahead.
    async fn with(prices: u64) -> Self {
        let fair = Fair::open().await;
        let more = format!(
            "{QUICK}[[budget]]\nname = \"all\"\nwallet = true\ntotal = {}\n[deposit]\nchannels = 8\n[limits]\nsign_ahead = 20\n",
            prices * PRICE
        );
        let alice = Alice::with(&fair.market, &more).await;
        Self { fair, alice }
    }

    fn url(&self) -> String {
        format!("{}/paid", self.fair.origin.url())
    }

    async fn get(&self, program: &Program) -> Got {
        ask(program.address, Request::get(self.url()).body(empty()).unwrap()).await
    }

    async fn run(&self, command: &[&str]) -> Ran {
        let config = self.alice.config_path();
        run(&[&command[..1], &["--config", text(&config)], &command[1..]].concat()).await
    }

    /// The statuses of requests of 10 processes at once, which send `each` of them.
    async fn crowd(&self, address: SocketAddr, each: usize) -> Vec<u16> {
        let proxy = format!("http://{address}");
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let mut python = Command::new("python3");
                python.args(["-c", CLIENT, &proxy, &self.url(), &each.to_string()]);
                python.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
            })
            .collect();
        let mut statuses = Vec::new();
        for client in clients {
            let output = client.wait_with_output().await.unwrap();
            let lines = String::from_utf8(output.stdout).unwrap();
            statuses.extend(lines.lines().map(|line| line.parse::<u16>().unwrap()));
        }
        statuses
    }
}

fn count(statuses: &[u16], status: u16) -> u64 {
    statuses.iter().filter(|other| **other == status).count() as u64
}

#[tokio::test]
async fn ten_processes_with_a_thousand_requests_are_paid_exactly_what_the_budget_allows() {
    let scene = Scene::with(PRICES).await;
    let program = scene.alice.serve(&[]).await;
    let statuses = scene.crowd(program.address, 100).await;
    assert_eq!(statuses.len(), 1000);
    assert_eq!((count(&statuses, 200), count(&statuses, 402)), (PRICES, 1000 - PRICES), "{statuses:?}");
    assert_eq!(scene.fair.origin.total_registered(), (PRICES * PRICE).into());
    let shown = scene.run(&["budget", "--json"]).await;
    let budgets: Value = serde_json::from_str(&shown.out).unwrap();
    let window = &budgets[0]["windows"][0];
    assert_eq!(
        (&window["key"], &window["spent"], &window["held"], &window["left"]),
        (&"total".into(), &"100000".into(), &"0".into(), &"0".into())
    );
    program.terminate();
    program.ended().await;
    // Without a proxy, the journal tells the same.
    let shown = scene.run(&["budget"]).await;
    assert!(shown.out.contains("all     total  100000  100000  0     0"), "{shown:?}");
}

#[tokio::test]
async fn kills_let_no_seller_redeem_more_and_leave_nothing_of_the_budget_behind() {
    let scene = Scene::with(PRICES).await;
    let mut delivered = 0;
    for _ in 0..4 {
        let program = scene.alice.serve(&[]).await;
        for _ in 0..12 {
            delivered += u64::from(scene.get(&program).await.status == StatusCode::OK);
        }
        let crowd = scene.crowd(program.address, 2);
        tokio::pin!(crowd);
        // In the middle of them, if the machine is fast enough.
        let cut = tokio::time::timeout(Duration::from_millis(150), &mut crowd).await;
        program.kill().await;
        let statuses = match cut {
            Ok(statuses) => statuses,
            Err(_) => crowd.await,
        };
        delivered += count(&statuses, 200);
        assert!(scene.fair.origin.total_registered() <= (PRICES * PRICE).into());
    }
    let program = scene.alice.serve(&[]).await;
    let mut refused = 0;
    while refused < 3 {
        let got = scene.get(&program).await;
        match got.status {
            StatusCode::OK => delivered += 1,
            _ => refused += 1,
        }
        assert!(delivered <= PRICES, "{delivered}");
    }
    assert_eq!(scene.fair.origin.total_registered(), (PRICES * PRICE).into());
    program.terminate();
    program.ended().await;
}

#[tokio::test]
async fn a_frozen_proxy_signs_nothing_until_it_is_thawed_also_after_a_restart() {
    let scene = Scene::with(PRICES).await;
    let program = scene.alice.serve(&[]).await;
    assert_eq!(scene.get(&program).await.status, StatusCode::OK);
    scene.run(&["freeze"]).await;
    let got = scene.get(&program).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    let told = got.headers["proxy-status"].to_str().unwrap();
    assert!(told.contains("tollpass is frozen and signs nothing; run `tollpass thaw`"), "{told}");
    // Neither is a channel closed.
    let close = scene.run(&["channels", "close", "--all", "--yes"]).await;
    assert_ne!(close.code, 0, "{close:?}");
    program.terminate();
    program.ended().await;
    let program = scene.alice.serve(&[]).await;
    assert_eq!(scene.get(&program).await.status, StatusCode::PAYMENT_REQUIRED);
    program.terminate();
    program.ended().await;
    // Without a proxy too.
    let thawed = scene.run(&["thaw"]).await;
    assert_eq!(thawed.code, 0, "{thawed:?}");
    let program = scene.alice.serve(&[]).await;
    assert_eq!(scene.get(&program).await.status, StatusCode::OK);
    assert_eq!(scene.fair.origin.total_registered(), (2 * PRICE).into());
    program.terminate();
    program.ended().await;
}
