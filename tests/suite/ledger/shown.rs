//! `tollpass ledger`: what it prints.

use std::process::Output;

use serde_json::Value as Json;

use super::*;
use crate::support::payer::program;

/// Runs `tollpass ledger` on Alice's configuration.
async fn ledger(alice: &Alice, arguments: &[&str]) -> Output {
    let mut command = program(["ledger", "--config"]);
    command.arg(alice.config_path()).args(arguments);
    tokio::time::timeout(PATIENCE, command.output()).await.expect("it does not end").unwrap()
}

pub async fn printed(alice: &Alice, arguments: &[&str]) -> String {
    let output = ledger(alice, arguments).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

async fn json(alice: &Alice, arguments: &[&str]) -> Vec<Json> {
    let text = printed(alice, &[&["--json"], arguments].concat()).await;
    serde_json::from_str::<Json>(&text).unwrap().as_array().unwrap().clone()
}

#[tokio::test]
async fn rows_and_sums_are_printed_beside_a_running_proxy_and_without_one() {
    let fair = Fair::open().await;
    let asset = format!(
        "[[asset]]\nsymbol = \"DEV\"\nnetwork = \"eip155:31337\"\ntoken = \"{}\"\ndecimals = 3\n",
        fair.market.token
    );
    let alice = Alice::with(&fair.market, &format!("{QUICK}{asset}")).await;
    let nothing = ledger(&alice, &[]).await;
    assert!(!nothing.status.success());
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("contains no ledger"));
    let program = alice.serve(&[]).await;
    let mut client = Wire::connect(program.address).await;
    for _ in 0..3 {
        let request = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
        assert_eq!(client.ask(request).await.unwrap().status, StatusCode::OK);
    }
    await_rows(&alice, |rows| rows.len() == 3).await;
    let host = fair.origin.address().to_string();
    let table = printed(&alice, &[]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ROW  TIME") && lines.len() == 4, "{table}");
    let request = format!("  1 DEV  GET {host}/paid  ");
    assert!(lines[3].contains("  paid ") && lines[3].contains(&request), "{table}");
    let all = json(&alice, &[]).await;
    assert_eq!((all.len(), &all[2]["price"], &all[2]["state"]), (3, &"1000".into(), &"paid".into()));
    assert_eq!(json(&alice, &["--limit", "1"]).await, all[2..]);
    assert_eq!(json(&alice, &["--host", "127.0.0.1"]).await.len(), 3);
    assert_eq!(json(&alice, &["--since", "1h"]).await.len(), 3);
    for none in [["--host", "other.example"], ["--client", "laptop"], ["--since", "2100-01-01"]] {
        assert_eq!(json(&alice, &none).await, [] as [Json; 0], "{none:?}");
    }
    let csv = printed(&alice, &["--csv"]).await;
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().starts_with("row,time,payment,state,method,host,path,"), "{csv}");
    let first: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!((first[0], &first[3..7]), ("1", &["paid", "GET", host.as_str(), "/paid"][..]));

    let day = all[0]["at"].as_u64().unwrap() / 86_400_000;
    for (by, group) in [("host", host.as_str()), ("rule", "127.0.0.1"), ("client", "")] {
        let sums = json(&alice, &["--by", by]).await;
        assert_eq!((sums.len(), &sums[0][by]), (1, &group.into()), "{sums:?}");
        let sum = |key: &str| sums[0][key].clone();
        assert_eq!((sum("payments"), sum("paid"), sum("total")), (3.into(), "3000".into(), "3000".into()));
    }
    let days = json(&alice, &["--by", "day"]).await;
    assert_eq!(days[0]["day"].as_str().unwrap().len(), "2026-01-31".len(), "{days:?} of {day}");
    let by_asset = printed(&alice, &["--by", "asset"]).await;
    assert!(by_asset.contains("3 DEV"), "{by_asset}");
    let unchanged = printed(&alice, &["verify"]).await;
    assert!(unchanged.ends_with("is unchanged, from row 1 to row 3\n"), "{unchanged}");
    program.terminate();
    program.ended().await;

    assert_eq!(json(&alice, &[]).await, all);
    let connection = Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    connection.execute("UPDATE ledger SET path = '/other' WHERE seq = 2", []).unwrap();
    let found = ledger(&alice, &["verify"]).await;
    let errors = String::from_utf8(found.stderr).unwrap();
    assert!(found.status.code() == Some(1) && errors.contains("row 2 was changed or moved"), "{errors}");
}
