//! `tollpass check` and `tollpass init`: problems and remedies.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ethers_core::types::U256;
use ethers_core::utils::hex;
use http::{Request, StatusCode};
use tollpass::devnet::deploy;
use tollpass::protocol::{Address, Amount};

use super::{Ran, run, run_with, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::market::Market;
use crate::support::payer::{Alice, Program, program};
use crate::support::ports::ReservedPort;
use crate::support::wire::ask;

async fn check(alice: &Alice) -> Ran {
    run(&["check", "--config", text(&alice.config_path())]).await
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn all_is_well() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, "").await;
    let ran = check(&alice).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    for words in [
        &alice.address.to_string(),
        &fair.market.manager.to_string(),
        &fair.market.token.to_string(),
        "chain 31337",
        "1000000000 base units",
        "127.0.0.1: at most 10000",
    ] {
        assert!(ran.out.contains(words), "no {words} in {}", ran.out);
    }
    assert!(ran.out.lines().all(|line| line.starts_with("ok ") || line.starts_with("note ")), "{}", ran.out);
    // It changes nothing.
    assert!(!alice.state_dir().exists());
}

#[tokio::test]
async fn certificates_are_checked() {
    let market = Market::open().await;
    let lines = |ran: &Ran, what: &str| -> Vec<String> {
        ran.out.lines().filter(|line| line[7..].starts_with(what)).map(str::to_owned).collect()
    };
    let alice = Alice::with(&market, "").await;
    let ran = check(&alice).await;
    assert!(lines(&ran, "ca ")[0].starts_with("note   ca        none yet"), "{ran:?}");
    assert!(lines(&ran, "roots ")[0].starts_with("ok "), "{ran:?}");
    run(&["ca", "--config", text(&alice.config_path())]).await;
    let ran = check(&alice).await;
    let [line] = &lines(&ran, "ca ")[..] else { panic!("{ran:?}") };
    assert!(line.starts_with("ok ") && line.contains("ca.pem, valid until 20"), "{line}");
    std::fs::remove_file(alice.state_dir().join("ca-key.pem")).unwrap();
    check(&alice).await.expect_failure(&["FAIL   ca ", "ca-key.pem"]);

    let alice = Alice::with(&market, "[intercept]\nhosts = []\n[upstream]\nca_file = \"mine.pem\"\n").await;
    let ran = check(&alice).await;
    ran.expect_failure(&["FAIL   roots ", "mine.pem"]);
    assert!(lines(&ran, "ca ")[0].contains("HTTPS interception is off"), "{ran:?}");
}

#[tokio::test]
async fn a_log_file_that_cannot_be_written_is_reported() {
    let market = Market::open().await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("log"), "a line\n").unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    std::os::unix::fs::symlink(at("log"), at("link")).unwrap();
    for (file, expected) in [
        ("log", "ok     log "),
        ("new", "ok     log "),
        ("missing/log", "missing: No such file or directory"),
        ("log/log", "log/log: Not a directory"),
        ("directory", "is not a regular file"),
        ("link", "is a symbolic link"),
    ] {
        let alice = Alice::with(&market, &format!("[log]\nfile = \"{}\"\n", text(&at(file)))).await;
        let ran = check(&alice).await;
        if expected.starts_with("ok") {
            assert!(
                ran.code == 0 && ran.out.contains(&format!("{expected}      {}", text(&at(file)))),
                "{ran:?}"
            );
        } else {
            ran.expect_failure(&["FAIL   log ", "log.file", expected]);
        }
    }
    assert_eq!(std::fs::read_to_string(at("log")).unwrap(), "a line\n");
    assert!(!at("new").exists() && !at("missing").exists());
}

#[tokio::test]
async fn a_missing_limit_on_all_deposits_is_pointed_out() {
    let market = Market::open().await;
    for (more, is_noted) in [("", true), ("[deposit]\nmax_total = 50000\n", false)] {
        let ran = check(&Alice::with(&market, more).await).await;
        let is_noted_now = ran.out.contains("deposit.max_total is not set");
        assert_eq!((ran.code, is_noted_now), (0, is_noted), "{ran:?}");
    }
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused() {
    let market = Market::open().await;
    let alice = Alice::with(&market, "").await;
    let key = alice.directory.path().join("key");
    for mode in [0o644, 0o620, 0o604] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let ran = check(&alice).await;
        ran.expect_failure(&["FAIL", "wallet", "readable by other users", "chmod 600", text(&key)]);
        // The proxy reports the same and exits.
        let ran = run(&["serve", "--config", text(&alice.config_path())]).await;
        ran.expect_failure(&["readable by other users", "chmod 600"]);
    }
    for wrong in ["", "no key", &"0".repeat(64)] {
        write(&key, wrong, 0o600);
        check(&alice).await.expect_failure(&["FAIL", "wallet", "does not hold a private key", text(&key)]);
    }
    std::fs::remove_file(&key).unwrap();
    check(&alice).await.expect_failure(&["FAIL", "wallet", text(&key), "No such file"]);
}

#[tokio::test]
async fn a_node_that_is_down_is_named() {
    let market = Market::open().await;
    let mut alice = Alice::with(&market, "").await;
    let closed = ReservedPort::new();
    alice.change(&market.chain.url(), &closed.url());
    check(&alice).await.expect_failure(&[
        "FAIL",
        "node",
        &closed.address().to_string(),
        "is it running",
        "chain.rpc_url",
    ]);
}

#[tokio::test]
async fn the_nodes_of_networks_are_checked_and_missing_ones_named() {
    let market = Market::open().await;
    let node_at = |id: u64, url: &str| format!("[[network]]\nid = \"eip155:{id}\"\nrpc_url = \"{url}\"\n");
    let node = market.chain.url().replace("//", "//me:hunter2@") + "/secret";
    let closed = ReservedPort::new();
    let rule = "[[pay]]\nhost = \"a.example\"\nmax_price = \"$0.01\"\nnetworks = [\"eip155:8453\", \"eip155:137\"]\n";
    for (networks, code, lines) in [
        (node_at(31337, &node), 0, vec!["ok     network   eip155:31337, http://127.0.0.1:", "block 3"]),
        (node_at(8453, &node), 1, vec!["FAIL   network", "is on chain 31337", "configured for eip155:8453"]),
        (
            node_at(8453, &closed.url()),
            1,
            vec!["FAIL   network", &closed.url(), "is the rpc_url of eip155:8453 right?"],
        ),
        (node_at(137, &node), 1, vec!["note   network   eip155:8453: rules can pay there"]),
        (String::new(), 0, vec!["note   network   eip155:137, eip155:8453: rules can pay there"]),
    ] {
        let alice = Alice::without_chain(&format!("{rule}{networks}"));
        let ran = check(&alice).await;
        let found = lines.iter().all(|words| ran.out.contains(words));
        assert!(found, "{lines:?} is not in {ran:?}");
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
        assert_eq!(ran.code, code, "{ran:?}");
    }
    // A rule for channels only needs none.
    let alice = Alice::without_chain(&format!("{rule}schemes = [\"microraiden\"]\n"));
    let ran = check(&alice).await;
    assert!(!ran.out.contains("network "), "{ran:?}");
}

#[tokio::test]
async fn a_contract_that_is_not_a_channel_manager_is_reported() {
    let market = Market::open().await;
    let nobody = Address([0xaa; 20]).to_string();
    let mut is = market.manager.to_string();
    let mut alice = Alice::with(&market, "").await;
    for wrong in [nobody, market.token.to_string()] {
        alice.change(&is, &wrong);
        check(&alice).await.expect_failure(&["FAIL", &wrong, "chain.channel_manager"]);
        is = wrong;
    }
}

#[tokio::test]
async fn an_empty_wallet_is_reported_with_the_remedy() {
    let market = Market::open().await;
    let alice = Alice::with(&market, "").await;
    write(&alice.directory.path().join("key"), &hex::encode([0x77; 32]), 0o600);
    let ran = check(&alice).await;
    ran.expect_failure(&["2 of the checks failed"]);
    for what in ["ether", "tokens"] {
        let line = ran.out.lines().find(|line| line.contains(what) && line.starts_with("FAIL"));
        assert!(line.is_some_and(|line| line.contains("send some")), "{}", ran.out);
    }
}

#[tokio::test]
async fn the_files_of_init_can_be_filled_in_checked_and_served() {
    let fair = Fair::open().await;
    let directory = tempfile::tempdir().unwrap();
    let (dir, password) = (directory.path().join("new"), directory.path().join("password"));
    write(&password, "correct horse\n", 0o600);
    let init = ["init", "--channels", "--dir", text(&dir), "--password-file", text(&password)];
    let made = run(&init).await;
    assert_eq!(made.code, 0, "{made:?}");
    let address = made.out.strip_prefix("Your address: ").unwrap().lines().next().unwrap();
    run(&init).await.expect_failure(&["not overwriting", "--dir"]);
    let path = dir.join("proxy.toml");
    assert!(made.out.contains(&format!("tollpass check --config {}", path.display())), "{}", made.out);
    for name in ["proxy.toml", "keystore.json"] {
        let mode = std::fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // As a user would: the lines below ">>>".
    let mut written = std::fs::read_to_string(&path).unwrap();
    let filled = [
        ("rpc_url = ", format!("\"{}\"", fair.market.chain.url())),
        ("channel_manager = ", format!("\"{}\"", fair.market.manager)),
        ("start_block = ", "0".to_owned()),
    ];
    for (key, value) in &filled {
        let line = written.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        written = written.replace(&line, &format!("{key}{value}"));
    }
    std::fs::write(&path, &written).unwrap();
    let state_dir = directory.path().join("state");
    let state = [("TOLLPASS_STATE_DIR", text(&state_dir))];
    let ran = run_with(&["check", "--config", text(&path)], &state).await;
    // Everything is fine except the money.
    ran.expect_failure(&[address, "ether", "send some", &fair.market.chain.url()]);
    assert!(ran.out.contains(&format!("ok     wallet    {address}")), "{}", ran.out);
    assert!(ran.out.contains("tollpass never pays"), "{}", ran.out);

    let tokens = [(fair.market.token, Amount::from(10_000))];
    let wallet = address.parse().unwrap();
    deploy::fund(&fair.market.chain.url(), wallet, U256::exp10(18), &tokens).await.unwrap();
    let rule = format!("{written}\n[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 1000\n{QUICK}");
    std::fs::write(&path, rule).unwrap();
    let ran = run_with(&["check", "--config", text(&path)], &state).await;
    assert_eq!(ran.code, 0, "{ran:?}");

    let mut command = program(["serve", "--config", text(&path), "--listen", "127.0.0.1:0"]);
    command.env("TOLLPASS_STATE_DIR", &state_dir);
    let serving = Program::start(command).await;
    // The keystore is open, and the request waits for the node.
    let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    let got = ask(serving.address, paid).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    serving.terminate();
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("correct horse"), "{log}");
}

#[tokio::test]
async fn prints_the_schema_of_the_configuration() {
    let ran = run(&["config", "schema"]).await;
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""), "{ran:?}");
    let printed: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(printed, tollpass::config::schema());
    assert!(ran.out.ends_with("}\n"), "{}", ran.out);
}
