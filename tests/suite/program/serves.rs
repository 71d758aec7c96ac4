//! `tollpass serve` and related commands: `channels`, a second instance, shutdown.

use ethers_core::types::U256;
use http::{Request, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use tollpass::devnet::deploy;

use super::{only_channel, run, run_with, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::market::Market;
use crate::support::payer::{Alice, Program, program};
use crate::support::raw::{Raw, RawOrigin, soon};
use crate::support::wire::ask;

#[tokio::test]
async fn serve_pays_and_its_channels_are_seen_while_it_runs_and_after() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let serving = alice.serve(&[]).await;
    let url = format!("{}/paid", fair.origin.url());
    let got = ask(serving.address, Request::get(&url).body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");

    let config = alice.config_path();
    let by_config = ["channels", "--json", "--config", text(&config)];
    let thousand = ("1000".to_owned(), "1000".to_owned());
    assert_eq!(only_channel(&run(&by_config).await.out), thousand);
    let state_dir = alice.state_dir();
    run(&["serve", "--config", text(&config)])
        .await
        .expect_failure(&["another tollpass uses the state directory", text(&state_dir)]);
    // The first one is not affected.
    let got = ask(serving.address, Request::get(&url).body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");

    serving.terminate();
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("ready to pay") && log.contains("stopped accepting payments"), "{log}");
    let by_state_dir = ["channels", "--json", "--state-dir", text(&state_dir)];
    let two_thousand = ("2000".to_owned(), "2000".to_owned());
    for arguments in [&by_config, &by_state_dir] {
        assert_eq!(only_channel(&run(arguments).await.out), two_thousand);
    }
    let table = run(&["channels", "--state-dir", text(&state_dir)]).await.out;
    assert!(table.contains(&alice.address.to_string()) && table.contains("2000"), "{table}");

    // A killed one leaves a stale lock and socket.
    alice.serve(&[]).await.kill().await;
    assert!(state_dir.join("admin.sock").exists());
    assert_eq!(only_channel(&run(&by_config).await.out), two_thousand);
    let serving = alice.serve(&[]).await;
    let got = ask(serving.address, Request::get(&url).body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    serving.terminate();
    assert_eq!(serving.ended().await.0.code(), Some(0));
    assert_eq!(fair.market.openings().await, 1);
}

#[tokio::test]
async fn a_key_pays_from_one_state_directory_at_a_time() {
    let fair = Fair::open().await;
    let (alice, again) = (Alice::with(&fair.market, QUICK).await, Alice::without_chain(""));
    let runtime = tempfile::tempdir().unwrap();
    let runtime = [("XDG_RUNTIME_DIR", text(runtime.path()))];
    let url = format!("{}/paid", fair.origin.url());
    let buy = |proxy| ask(proxy, Request::get(&url).body(empty()).unwrap());
    let serving = alice.serve(&runtime).await;
    assert_eq!(buy(serving.address).await.status, StatusCode::OK);

    let ran = run_with(&["serve", "--config", text(&again.config_path())], &runtime).await;
    let address = alice.address.to_string();
    ran.expect_failure(&["another tollpass pays with the key of", &address, text(&alice.state_dir())]);
    assert_eq!((ran.code, &*ran.out), (1, ""), "{ran:?}");
    assert!(!ran.errors.contains("ready to pay"), "{ran:?}");

    assert_eq!(buy(serving.address).await.status, StatusCode::OK, "the first one is not affected");
    serving.kill().await;
    let serving = alice.serve(&runtime).await;
    assert_eq!(buy(serving.address).await.status, StatusCode::OK, "a killed one leaves the key free");
    serving.terminate();
    assert_eq!(serving.ended().await.0.code(), Some(0));
}

/// Runs Alice's proxy with a log file until that contains these words.
async fn logs(alice: &Alice, words: &str) {
    let file = alice.directory.path().join("log");
    let serving = alice.serve(&[("TOLLPASS_LOG__FILE", text(&file))]).await;
    soon(words, async {
        while !std::fs::read_to_string(&file).unwrap_or_default().contains(words) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    serving.terminate();
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn it_says_that_it_is_ready_only_if_the_wallet_has_something_to_pay_with() {
    let market = Market::open().await;
    let (url, manager) = (market.chain.url(), market.manager);
    let alice = Alice::without_chain(&format!(
        "[chain]\nrpc_url = \"{url}\"\nchannel_manager = \"{manager}\"\npoll_every = \"10ms\"\n"
    ));
    logs(&alice, "not ready to pay from a channel: the wallet is empty: send it tokens").await;
    deploy::fund(&url, alice.address, U256::exp10(18), &[]).await.unwrap();
    logs(&alice, "not ready to pay from a channel: the wallet has no tokens").await;
    deploy::fund(&url, alice.address, U256::zero(), &[(market.token, 1000.into())]).await.unwrap();
    logs(&alice, "ready to pay chain_id=31337").await;

    let dollar = deploy::deploy_authorized_token(&url).await.unwrap();
    let network = format!("[[network]]\nid = \"eip155:31337\"\nrpc_url = \"{url}\"\nconfirmations = 1\n");
    let asset = format!(
        "[[asset]]\nsymbol = \"DUSD\"\nnetwork = \"eip155:31337\"\ntoken = \"{dollar}\"\ndecimals = 6\n\
         eip712_name = \"x\"\neip712_version = \"1\"\n[[pay]]\nhost = \"a.example\"\nmax_price = \"0.01 DUSD\"\n"
    );
    logs(&Alice::without_chain(&asset), "ready to pay if the wallet has funds: without a [[network]]").await;
    let alice = Alice::without_chain(&(asset + &network));
    logs(&alice, "not ready to pay without a channel: the wallet has no DUSD on eip155:31337; send it some")
        .await;
    deploy::fund(&url, alice.address, U256::zero(), &[(dollar, 2_500_000.into())]).await.unwrap();
    logs(&alice, "ready to pay without a channel; without [chain] there are no channels").await;
}

#[tokio::test]
async fn channels_says_where_there_are_none() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    for path in [directory.path(), &nowhere] {
        let ran = run(&["channels", "--state-dir", text(path)]).await;
        ran.expect_failure(&["contains no journal", "--state-dir", "--config"]);
    }
    assert!(!nowhere.exists());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "it made something");
}

#[tokio::test]
async fn without_a_wallet_it_is_a_proxy() {
    let fair = Fair::open().await;
    let serving = Program::start(program(["serve", "--listen", "127.0.0.1:0"])).await;
    let free = Request::get(format!("{}/free", fair.origin.url())).body(empty()).unwrap();
    let got = ask(serving.address, free).await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, "free\n"));
    let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    let got = ask(serving.address, paid).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    let reason = got.header(&"proxy-status".parse().unwrap()).unwrap();
    assert!(reason.contains("no [[pay]] rule matches"), "{reason}");
    serving.terminate();
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn a_rule_without_a_wallet_says_so() {
    let fair = Fair::open().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:0\"\n[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n")
        .unwrap();
    let serving = Program::start(program(["serve", "--config", text(&path)])).await;
    let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    let got = ask(serving.address, paid).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    let reason = got.header(&"proxy-status".parse().unwrap()).unwrap();
    assert!(reason.contains("no [wallet] is configured"), "{reason}");
    serving.terminate();
    assert_eq!(serving.ended().await.0.code(), Some(0));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = run(&["serve", "--listen", &address]).await;
    ran.expect_failure(&[&address, "--listen"]);
    assert_eq!(ran.errors.matches("Address already in use").count(), 1, "{ran:?}");
}

#[tokio::test]
async fn sigterm_lets_a_paid_exchange_end() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let serving = alice.serve(&[]).await;
    let paid = || Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    // From here on the seller knows the channel: otherwise its rejections would be held back, too.
    assert_eq!(ask(serving.address, paid()).await.status, StatusCode::OK);
    fair.origin.hold_answers();
    let client = tokio::spawn(ask(serving.address, paid()));
    soon("the payment", fair.origin.await_payments(2)).await;
    serving.terminate();
    // It accepts no more connections, and continues those it has.
    soon("the end of accepting", async {
        while tokio::net::TcpStream::connect(serving.address).await.is_ok() {}
    })
    .await;
    assert!(!client.is_finished());
    fair.origin.release();
    let got = soon("the answer", client).await.unwrap();
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let ran = run(&["channels", "--json", "--state-dir", text(&alice.state_dir())]).await;
    assert_eq!(only_channel(&ran.out), ("2000".to_owned(), "2000".to_owned()));
}

#[tokio::test]
async fn sigterm_twice_waits_for_nothing() {
    let origin = RawOrigin::start().await;
    let serving = Program::start(program(["serve", "--listen", "127.0.0.1:0"])).await;
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    let mut client = Raw::asking(serving.address, request).await;
    let mut server = origin.accept().await;
    server.head().await;
    serving.terminate();
    soon("the end of accepting", async {
        while tokio::net::TcpStream::connect(serving.address).await.is_ok() {}
    })
    .await;
    serving.terminate();
    // Well before limits.drain_timeout.
    let (status, log) = soon("the end", serving.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
    // The proxy may notice the end of its connection to the origin before it cuts off the client.
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 502 "), "{rest}");
}

#[tokio::test]
async fn all_errors_of_a_configuration_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    let faults = "lisen = \"127.0.0.1:0\"\n[limits]\nmax_attempts = 0\npay_timeout = \"soon\"\n\
                  [[pay]]\nhost = \"a b\"\n[wallet]\n";
    std::fs::write(&path, faults).unwrap();
    for command in ["serve", "check", "env"] {
        let ran = run(&[command, "--config", text(&path)]).await;
        let keys =
            ["lisen: ", "listen", "limits.max_attempts: ", "limits.pay_timeout: ", "pay[0].host: ", "wallet"];
        ran.expect_failure(&keys);
        assert!(ran.errors.starts_with("tollpass: "), "{}", ran.errors);
    }
    let missing = directory.path().join("missing.toml");
    run(&["serve", "--config", text(&missing)]).await.expect_failure(&[text(&missing)]);
    run_with(&["serve"], &[("TOLLPASS_CHAIN__RPC_ULR", "http://127.0.0.1:1")])
        .await
        .expect_failure(&["rpc_ulr", "rpc_url"]);
}

#[tokio::test]
async fn with_idle_tunnels_it_ends_at_once_on_sigterm_and_on_sigint() {
    let origin = RawOrigin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    // One of the two is intercepted, and its client has sent nothing yet.
    let text = "listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n[limits]\ndrain_timeout = \"1h\"\n\
                [intercept]\nhosts = [\"localhost\"]\n";
    std::fs::write(&path, text).unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let serving = Program::start(program(["serve", "--config", path.to_str().unwrap()])).await;
        let mut clients = Vec::new();
        for host in ["127.0.0.1", "localhost"] {
            let request = format!("CONNECT {host}:{} HTTP/1.1\r\n\r\n", origin.address.port());
            let mut client = Raw::asking(serving.address, request).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 "));
            clients.push(client);
        }
        send(&serving.child, signal);
        let (status, log) = soon("the end", serving.ended()).await;
        assert_eq!(status.code(), Some(0), "{log}");
        let name = if signal == Signal::TERM { "SIGTERM" } else { "SIGINT" };
        assert!(log.contains(name) && log.contains("stopped"), "{log}");
    }
}

#[tokio::test]
async fn a_sighup_that_was_ignored_at_the_start_stays_ignored() {
    let script = "trap '' HUP; exec \"$0\" serve --listen 127.0.0.1:0";
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_tollpass")]).stdin(std::process::Stdio::null());
    let serving = Program::start(command).await;
    send(&serving.child, Signal::HUP);
    let page = Raw::asking(serving.address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.head().await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    serving.terminate();
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM") && !log.contains("SIGHUP"), "{log}");
}

/// As in a container: root provides the key, and the group of the process may read it.
#[tokio::test]
async fn a_key_of_root_is_read_by_the_group_that_it_is_for() {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    const USER: u32 = 54_322;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can provide a file for another user's group");
        return;
    }
    let alice = Alice::without_chain("");
    let directory = alice.directory.path();
    let copy = directory.join("tollpass");
    std::fs::copy(env!("CARGO_BIN_EXE_tollpass"), &copy).unwrap();
    std::fs::create_dir(alice.state_dir()).unwrap();
    chown(alice.state_dir(), Some(USER), Some(USER)).unwrap();
    chown(alice.config_path(), Some(0), Some(USER)).unwrap();
    let key = directory.join("key");
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(directory, 0o755);
    mode(&alice.config_path(), 0o640);
    mode(&alice.state_dir(), 0o700);
    for (group, bits, refused) in [
        (USER, 0o440, None),
        (USER, 0o444, Some("belongs to root and is open to other users")),
        (USER + 1, 0o444, Some("belongs to root and is open to other users")),
        (USER + 1, 0o440, Some("Permission denied")),
    ] {
        chown(&key, Some(0), Some(group)).unwrap();
        mode(&key, bits);
        let mut command = tokio::process::Command::new(&copy);
        command.args(["check", "--config"]).arg(alice.config_path()).stdin(std::process::Stdio::null());
        command.env_clear().uid(USER).gid(USER).current_dir("/");
        let output = command.output().await.unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.success(), refused.is_none(), "{told}");
        assert!(told.contains(refused.unwrap_or(&alice.address.to_string())), "{told}");
    }
}

fn send(child: &tokio::process::Child, signal: Signal) {
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it has not ended");
    kill_process(id, signal).unwrap();
}

/// For a process that other processes may inspect, its own user owns the files in `/proc`; otherwise root does.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn other_processes_cannot_read_the_password_from_memory() {
    use std::os::unix::fs::MetadataExt as _;

    const NOBODY: u32 = 65534;
    let directory = tempfile::tempdir().unwrap();
    let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
    command.env("TOLLPASS_WALLET_PASSWORD", "secret").env("XDG_STATE_HOME", directory.path());
    if rustix::process::geteuid().is_root() {
        // Root may inspect everything; the binary may lie where other users have no access.
        let copy = directory.path().join("tollpass");
        std::fs::copy(env!("CARGO_BIN_EXE_tollpass"), &copy).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        command = tokio::process::Command::new(copy);
        command.args(["serve", "--listen", "127.0.0.1:0"]).env("TOLLPASS_WALLET_PASSWORD", "secret");
        command.env("HOME", "/nonexistent").uid(NOBODY).current_dir("/");
    }
    let serving = Program::start(command).await;
    let environ = format!("/proc/{}/environ", serving.child.id().unwrap());
    assert_eq!(std::fs::metadata(&environ).unwrap().uid(), 0, "others can read {environ}");
    serving.terminate();
    assert_eq!(serving.ended().await.0.code(), Some(0));
}
