//! The mistakes that users make most often: each ends in one line that names the cause and what to do, with the right exit
//! code. The table names a test for each; those that are not elsewhere are here.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ethers_core::types::U256;
use http::{Request, StatusCode};
use rustls::ClientConnection;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tollpass::devnet::deploy;
use tollpass::protocol::Amount;

use super::{Ran, run, run_with, text};
use crate::house::defines_test;
use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::handshake::client;
use crate::support::payer::{Alice, Program, WEALTH, program};
use crate::support::raw::{Raw, RawOrigin, soon};
use crate::support::secure::{Notary, connect, trusting};
use crate::support::wire::ask;

/// Each mistake, and the test that shows what its user is told.
const MISTAKES: [(&str, &str); 34] = [
    (
        "a key in the place of its file",
        "program::mistakes::a_key_in_the_place_of_its_file_is_refused_and_shown_nowhere",
    ),
    ("a value of the wrong type", "program::mistakes::a_wrong_type_is_told_with_its_line"),
    (
        "a key that is misspelt, or in the wrong table",
        "program::mistakes::a_key_is_looked_for_in_every_table",
    ),
    ("a file that is not TOML", "configured::invalid_toml_is_reported_with_its_position"),
    (
        "a key file that others can read",
        "program::mistakes::a_key_that_cannot_be_used_is_told_before_listening",
    ),
    ("a wrong password", "program::mistakes::a_wrong_password_is_told_before_listening"),
    ("a node that is down", "falters::a_node_that_is_down_at_the_start_is_waited_for"),
    ("a contract that is not there", "program::checks::a_contract_that_is_not_a_channel_manager_is_reported"),
    ("a port that is in use", "program::serves::an_address_that_is_taken_is_named"),
    (
        "a state directory that cannot be written",
        "program::mistakes::a_state_directory_that_cannot_be_used_is_told",
    ),
    (
        "https:// as the scheme of the proxy",
        "program::mistakes::other_protocols_are_warned_of_once_in_a_while",
    ),
    ("tollpass as a SOCKS proxy", "program::mistakes::other_protocols_are_warned_of_once_in_a_while"),
    (
        "TLS to the proxy without verification",
        "program::mistakes::other_protocols_are_warned_of_once_in_a_while",
    ),
    (
        "a proxy behind itself, or the target 0.0.0.0",
        "program::mistakes::a_request_to_the_proxy_itself_is_told",
    ),
    ("0.0.0.0 with a wallet", "configured::each_fault_names_its_key_and_its_remedy"),
    (
        "a client that rejects the CA in the handshake",
        "program::mistakes::clients_that_do_not_trust_the_ca_are_told_of_once",
    ),
    (
        "a client that rejects the CA after it",
        "program::mistakes::clients_that_do_not_trust_the_ca_are_told_of_once",
    ),
    ("a CA that has expired", "program::clocks::a_clock_that_is_years_off_stops_only_intercepted_https"),
    ("a CA that is not valid yet", "program::clocks::a_clock_that_is_years_off_stops_only_intercepted_https"),
    ("a wallet without funds", "program::mistakes::a_wallet_that_is_funded_at_last_pays_at_once"),
    ("a max_price that is too low", "program::mistakes::what_is_not_paid_is_logged_with_its_request"),
    ("a host with a scheme, port or path", "program::mistakes::a_url_is_not_a_host_and_the_port_has_a_key"),
    ("a duration without a unit, or with another one", "program::mistakes::a_duration_needs_a_unit"),
    ("only a port, or a name, to listen on", "program::mistakes::it_listens_wherever_it_is_clear_where"),
    ("a variable with a misspelt prefix", "program::mistakes::a_variable_with_a_misspelt_prefix_is_told"),
    ("one key in two state directories", "program::mistakes::a_key_that_has_paid_elsewhere_is_told"),
    ("no configuration at all", "program::mistakes::without_a_configuration_it_says_that_it_never_pays"),
    (
        "a file in place of a state directory",
        "program::mistakes::commands_tell_what_keeps_them_from_a_state_directory",
    ),
    ("a journal that is damaged", "program::mistakes::a_journal_that_is_none_is_told_by_serve_and_check"),
    ("a misspelt option of `run`", "program::mistakes::a_misspelt_argument_is_told_with_what_is_expected"),
    ("a program that is not there", "program::mistakes::a_program_that_cannot_be_run_is_named"),
    ("a log filter that is not one", "program::mistakes::a_wrong_log_filter_is_an_error"),
    (
        "output to a closed pipe or a full disk",
        "program::logs::a_closed_reader_is_not_an_error_and_a_full_disk_is",
    ),
    ("a node that is back", "protocol::engine::tests::funding::a_node_that_is_back_is_asked_again_at_once"),
];

#[test]
fn each_mistake_has_a_test() {
    let missing: Vec<_> = MISTAKES.iter().filter(|(_, test)| !defines_test(test)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A directory with a configuration that listens on any port and keeps its state there.
fn place(rest: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, format!("listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{rest}")).unwrap();
    (directory, path)
}

/// A private file.
fn private(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Starts a proxy that runs until the end of the test.
async fn serve(config: &Path, environment: &[(&str, &str)]) -> Program {
    let mut command = program(["serve", "--config", text(config)]);
    command.envs(environment.iter().copied());
    Program::start(command).await
}

/// Ends a proxy, and returns its log.
async fn log_of(serving: Program) -> String {
    serving.terminate();
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    log
}

/// `serve` on this configuration ends with these words and without a ready line.
async fn never_listens(config: &Path, environment: &[(&str, &str)], words: &[&str]) {
    let ran = run_with(&["serve", "--config", text(config)], environment).await;
    ran.expect_failure(words);
    assert_eq!((ran.code, &*ran.out), (1, ""), "{ran:?}");
    assert!(!ran.errors.contains("ready to pay"), "{ran:?}");
}

#[tokio::test]
async fn a_wrong_type_is_told_with_its_line() {
    let (_directory, path) =
        place("\n[limits]\nmax_attempts = \"two\"\n\n[[pay]]\nhost = 5\nmax_price = 1\n");
    let ran = run(&["serve", "--config", text(&path)]).await;
    ran.expect_failure(&[
        "line 5: limits.max_attempts: expected a whole number, found \"two\"\n    -> write digits only",
        "line 8: pay[0].host: expected a string, found an integer",
    ]);
    // One from a variable has none.
    let variable = [("TOLLPASS_LIMITS__MAX_ATTEMPTS", "two")];
    let ran = run_with(&["serve", "--config", text(&path)], &variable).await;
    ran.expect_failure(&["\n  limits.max_attempts: ", "(from TOLLPASS_LIMITS__MAX_ATTEMPTS)"]);
}

#[tokio::test]
async fn a_key_is_looked_for_in_every_table() {
    let (_directory, path) = place("max_pirce = 5\npay_timeout = \"5s\"\n");
    let ran = run(&["check", "--config", text(&path)]).await;
    ran.expect_failure(&[
        "line 3: max_pirce: unknown key\n    -> did you mean max_price? It belongs in [[pay]]",
        "line 4: pay_timeout: unknown key\n    -> move it to [limits]",
    ]);
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_told_before_listening() {
    let (directory, path) = place("[wallet]\nkey_file = \"key\"\n");
    let key = directory.path().join("key");
    never_listens(&path, &[], &["cannot open the wallet", text(&key), "No such file"]).await;
    private(&key, &"a1".repeat(32));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    never_listens(&path, &[], &["readable by other users", &format!("chmod 600 {}", text(&key))]).await;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(log_of(serve(&path, &[]).await).await.contains("ready to pay"));
}

#[tokio::test]
async fn a_key_in_the_place_of_its_file_is_refused_and_shown_nowhere() {
    let key = "1d".repeat(32);
    let issue = "wallet.key_file: holds the key or secret itself, not the name of a file";
    let shows_no_key = |ran: &Ran| assert!(!format!("{ran:?}").contains("1d1d1d1d"), "{ran:?}");
    let (_directory, path) = place(&format!("[wallet]\nkey_file = \"0x{key}\"\n"));
    for command in [&["serve"][..], &["check"], &["inspect", "http://a/"], &["run", "true"]] {
        let ran = run(&[&["--config", text(&path)], command].concat()).await;
        shows_no_key(&ran);
        ran.expect_failure(&[issue, "line 4"]);
    }
    for command in [&["show"][..], &["show", "--json"], &["show", "--all"]] {
        let ran = run(&[&["--config", text(&path), "config"], command].concat()).await;
        shows_no_key(&ran);
        assert!(ran.code == 0 && ran.out.contains("wallet.key_file"), "{ran:?}");
    }
    // Nor where a variable, a command or a file with the value has it.
    let (directory, path) = place("[wallet]\nkey_file = \"key\"\n");
    private(&directory.path().join("key"), &"a1".repeat(32));
    private(&directory.path().join("named"), &key);
    let serving = serve(&path, &[]).await;
    for variable in [("TOLLPASS_WALLET__KEY_FILE", &*key), ("TOLLPASS_WALLET__KEY_FILE_FILE", "named")] {
        let ran = run_with(&["check", "--config", text(&path)], &[variable]).await;
        shows_no_key(&ran);
        ran.expect_failure(&[issue, &format!("(from {})", variable.0)]);
    }
    for variable in ["TOLLPASS_CHAIN__RPC_URL_FILE", "TOLLPASS_WALLET_PASSWORD_FILE"] {
        let secret = [(variable, &*key)];
        shows_no_key(&run_with(&["config", "show", "--config", text(&path)], &secret).await);
        shows_no_key(&run_with(&["init", "--dir", text(&directory.path().join("new"))], &secret).await);
    }
    let url = [("TOLLPASS_CHAIN__RPC_URL_FILE", "http://node/1d1d1d1d")];
    let ran = run_with(&["check", "--config", text(&path)], &url).await;
    shows_no_key(&ran);
    ran.expect_failure(&["TOLLPASS_CHAIN__RPC_URL_FILE: not the path of a file"]);
    let ran = run(&["config", "set", "wallet.key_file", &key, "--config", text(&path)]).await;
    shows_no_key(&ran);
    ran.expect_failure(&["holds the key or secret itself"]);
    // A running proxy that reads it again tells neither its log nor the command.
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("\"key\"", &format!("\"{key}\"")))
        .unwrap();
    let ran = run(&["reload", "--state-dir", text(&directory.path().join("state"))]).await;
    shows_no_key(&ran);
    ran.expect_failure(&[issue]);
    let log = log_of(serving).await;
    assert!(!log.contains("1d1d1d1d"), "{log}");
}

/// A key, and a configuration with it that can pay nothing from a channel.
fn paying(rest: &str) -> (TempDir, PathBuf) {
    let (directory, path) = place(&format!("[wallet]\nkey_file = \"key\"\n{rest}"));
    private(&directory.path().join("key"), &"a1".repeat(32));
    (directory, path)
}

/// Starts a proxy, and waits until its log, which is a file here, has these words.
async fn serve_until(config: &Path, words: &str) -> (Program, PathBuf) {
    let log = config.with_file_name("log");
    let serving = serve(config, &[("TOLLPASS_LOG__FILE", text(&log))]).await;
    soon(words, async {
        while !std::fs::read_to_string(&log).unwrap_or_default().contains(words) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    (serving, log)
}

#[tokio::test]
async fn a_node_that_is_down_is_told_at_once_and_by_the_status() {
    let chain = "[chain]\nrpc_url = \"http://127.0.0.1:1\"\nretry_timeout = \"1h\"\n\
                 channel_manager = \"0x1440317CB15499083dEE3dDf49C2bD51D0d92e33\"\n";
    let (_directory, path) = paying(&format!("{chain}[[pay]]\nhost = \"a\"\nmax_price = 1\n"));
    let (serving, log) = serve_until(&path, "not ready to pay: retrying").await;
    let told = run(&["status", "--config", text(&path)]).await;
    let expected = ", not ready to pay: the node of [chain] has not been read yet";
    assert!(told.code == 0 && told.out.contains(expected), "{told:?}");
    let json = run(&["status", "--json", "--config", text(&path)]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["obstacles"][0]["name"], "node-unavailable", "{json}");
    log_of(serving).await;
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.matches("not ready to pay: retrying").count(), 1, "{log}");
}

#[tokio::test]
async fn what_can_never_pay_without_a_chain_is_told() {
    let entries = "[[pay]]\nhost = \"a\"\nmax_price = 1\n[[pay]]\nhost = \"b\"\nmax_price = \"$1\"\n\
                   [[pay]]\nhost = \"c\"\nmax_price = \"$1\"\nschemes = [\"microraiden\"]\n\
                   [[budget]]\nname = \"daily\"\nwallet = true\nper_day = 1000\n";
    let (_directory, path) = paying(entries);
    let told = [
        "pay[0] (a) can never pay: 1 means 1 base unit of the µRaiden token, and no [chain] is configured",
        "pay[2] (c) can never pay: its schemes pay from channels only",
        "budget[0] (daily) refuses every payment",
    ];
    let checked = run(&["check", "--config", text(&path)]).await;
    checked.expect_failure(&told);
    for told in told {
        assert!(checked.out.contains(&format!("FAIL   config    {told}")), "{checked:?}");
    }
    assert!(!checked.out.contains("pay[1]"), "{checked:?}");
    let ran = run(&["run", "--budget", "1", "--config", text(&path), "true"]).await;
    ran.expect_failure(&["--budget: \"1\" means base units", "no [chain]", "\"5 USDC\""]);
    let log = log_of(serve(&path, &[]).await).await;
    for told in told {
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains(told)), "{log}");
    }
}

#[tokio::test]
async fn without_a_chain_there_are_no_channels_and_states_have_names() {
    let (_directory, path) = paying("[[pay]]\nhost = \"a\"\nmax_price = \"$1\"\n");
    let (serving, _) = serve_until(&path, "ready to pay").await;
    let listed = run(&["channels", "--config", text(&path)]).await;
    assert_eq!(listed.out, "no [chain] is configured, so there are no channels\n", "{listed:?}");
    let wrong = run(&["channels", "--state", "settled", "--config", text(&path)]).await;
    wrong.expect_failure(&["open, closing, gone"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    log_of(serving).await;
}

#[tokio::test]
async fn the_configuration_that_is_read_is_named_and_empty_variables_count_as_unset() {
    let (directory, path) = place("");
    let default = directory.path().join("tollpass/proxy.toml");
    std::fs::create_dir(default.parent().unwrap()).unwrap();
    std::fs::copy(&path, &default).unwrap();
    let home = ("XDG_CONFIG_HOME", text(directory.path()));
    let start = async |arguments: &[&str]| {
        let mut command = program(arguments);
        command.envs([home, ("TOLLPASS_CONFIG", ""), ("TOLLPASS_LOG_FORMAT", "")]);
        command.current_dir(directory.path());
        log_of(Program::start(command).await).await
    };
    let unused = format!("{} is not read: name it with --config", path.canonicalize().unwrap().display());
    let log = start(&["serve"]).await;
    assert!(log.contains(&format!("read the configuration {}", text(&default))), "{log}");
    assert!(log.contains(&unused), "{log}");
    let log = start(&["serve", "--config", "proxy.toml"]).await;
    assert!(log.contains("read the configuration proxy.toml") && !log.contains("is not read"), "{log}");
}

#[tokio::test]
async fn names_of_the_wrong_form_get_the_right_one() {
    let (directory, path) = place("");
    let config = ["--config", text(&path)];
    for (arguments, code, words) in [
        (&["resume", "https://foo.example/"][..], 1, "is not a host name: write foo.example"),
        (&["resume", "foo.example:443"], 1, "is not a host name: write foo.example"),
        (&["resume", "foo.example"], 1, "the host foo.example is not paused"),
        (&["inspect", "api.example.com"], 2, "write https://api.example.com"),
        (&["inspect", "api.example.com/a?b"], 2, "write https://api.example.com/a?b"),
        (&["inspect", "ftp://api.example.com"], 2, "not a valid http or https URL\n"),
        (&["config", "set", "max_price", "5"], 1, "cannot set max_price: unknown key; move it to [[pay]]"),
        (&["config", "set", "listen", "x"], 1, "cannot set listen: \"x\" is not a valid IP address"),
    ] {
        let ran = run(&[&config[..], arguments].concat()).await;
        ran.expect_failure(&[words]);
        assert!(ran.code == code && !ran.errors.contains("line "), "{arguments:?}: {ran:?}");
    }
    let again = run(&["init", "--dir", text(directory.path())]).await;
    again.expect_failure(&["add a [[pay]] entry to", text(&path)]);
    // What was wrong before has a line in the file.
    std::fs::write(&path, "colour = 1\n").unwrap();
    let ran = run(&[&config[..], &["config", "set", "listen", "8402"]].concat()).await;
    ran.expect_failure(&["proxy.toml is invalid", "colour: unknown key"]);
    // The file is not to blame for a variable.
    std::fs::write(&path, "").unwrap();
    let ran = run_with(&["check", "--config", text(&path)], &[("TOLLPASS_LISTN", "1")]).await;
    ran.expect_failure(&[
        "the configuration is invalid: 1 error",
        "listn: unknown key (from TOLLPASS_LISTN)",
    ]);
}

#[tokio::test]
async fn a_wrong_password_is_told_before_listening() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    private(&password, "correct\n");
    let config = directory.path().join("here/proxy.toml");
    let made = run(&["init", "--config", text(&config), "--password-file", text(&password)]).await;
    assert_eq!(made.code, 0, "{made:?}");
    private(&password, "wrong\n");
    let free = [("TOLLPASS_LISTEN", "0"), ("TOLLPASS_STATE_DIR", text(directory.path()))];
    let told =
        ["cannot open the wallet", "the password is wrong", "(the password is that in ", text(&password)];
    never_listens(&config, &free, &told).await;
    private(&password, "correct\n");
    log_of(serve(&config, &free).await).await;
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_told() {
    let (directory, path) = place("[wallet]\nkey_file = \"key\"\n");
    private(&directory.path().join("key"), &"a1".repeat(32));
    std::fs::write(directory.path().join("state"), "a file").unwrap();
    never_listens(&path, &[], &["cannot use the state directory", "set state_dir to a directory"]).await;
    let nowhere = [("TOLLPASS_STATE_DIR", "/proc/nowhere/state")];
    never_listens(&path, &nowhere, &["/proc/nowhere/state", "set state_dir to a directory"]).await;
}

#[tokio::test]
async fn commands_tell_what_keeps_them_from_a_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "a file").unwrap();
    for command in ["status", "channels", "ledger", "budget"] {
        let ran = run(&[command, "--state-dir", text(&file)]).await;
        ran.expect_failure(&[
            &format!("{} is a file, and not a state directory; ", text(&file)),
            "--state-dir",
        ]);
        let below = file.join("state");
        let ran = run(&[command, "--state-dir", text(&below)]).await;
        ran.expect_failure(&[
            "cannot use the state directory",
            text(&below),
            "Not a directory",
            "--state-dir",
        ]);
    }
    let ran = run(&["ca", "show", "--state-dir", "/proc/state"]).await;
    ran.expect_failure(&["cannot use /proc/state: ", "let this user read and write it", "state_dir"]);
    // Without the name of a temporary file.
    let ran = run(&["ca", "show", "--state-dir", "/proc/self/task"]).await;
    ran.expect_failure(&["cannot use /proc/self/task/ca-key.pem: "]);
    assert!(!ran.errors.contains("/.ca-"), "{ran:?}");
}

#[tokio::test]
async fn a_journal_that_is_none_is_told_by_serve_and_check() {
    let (directory, path) = place("[wallet]\nkey_file = \"key\"\n");
    private(&directory.path().join("key"), &"a1".repeat(32));
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let journal = state.join("tollpass.db");
    let garbage = "garbage".repeat(1000);
    private(&journal, &garbage);
    let words = ["cannot use the journal", text(&journal), "file is not a database; restore a copy of it"];
    never_listens(&path, &[], &words).await;
    for command in ["check", "ledger"] {
        let ran = run(&[command, "--config", text(&path)]).await;
        ran.expect_failure(&words);
        assert!(!ran.out.contains("ok     state"), "{ran:?}");
        // Once, and not again in other words.
        assert!(!ran.errors.contains("Error code"), "{ran:?}");
    }
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), garbage);
}

#[tokio::test]
async fn a_misspelt_argument_is_told_with_what_is_expected() {
    for (arguments, words) in [
        (&["run", "--budgte", "1 USDC", "--", "true"][..], &["--budgte", "'--budget'"][..]),
        (&["run", "-x", "true"], &["'-x'"]),
        (&["approve", "xyz"], &["xyz", "write the number in the column ID"]),
        (&["approve", "1", "--always", "--for=-1s"], &["-1s", "such as 30s, 1h or 7d"]),
        (&["run", "--for", "soon", "true"], &["soon", "such as 30s, 1h or 7d"]),
    ] {
        let ran = run(arguments).await;
        ran.expect_failure(words);
        assert_eq!(ran.code, 2, "{ran:?}");
    }
    let (_directory, path) = place("");
    let run_with_options =
        ["run", "--quiet", "--config", text(&path), "sh", "-c", "echo $1 $2", "sh", "--json", "-q"];
    let ran = run(&run_with_options).await;
    assert_eq!((ran.code, &*ran.out), (0, "--json -q\n"), "{ran:?}");
    let ran = run(&["run", "--quiet", "--config", text(&path), "--client", "a", "true"]).await;
    ran.expect_failure(&["no [[client]] is called a: the configuration has none"]);
}

#[tokio::test]
async fn other_protocols_are_warned_of_once_in_a_while() {
    let (_directory, path) = place("");
    let serving = serve(&path, &[]).await;
    for _ in 0..3 {
        for hello in [&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..], b"\x05\x01\x00", b"\x04\x01\x00\x50"]
        {
            let mut client = Raw::asking(serving.address, hello).await;
            client.finish().await;
            client.rest().await;
        }
    }
    let log = log_of(serving).await;
    for words in ["WARN", "write http:// in the URL of the proxy", "takes tollpass for a SOCKS proxy"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert_eq!(log.matches("a client speaks TLS to a port of tollpass that does not").count(), 1, "{log}");
    assert_eq!(log.matches("a client takes tollpass for a SOCKS proxy").count(), 1, "{log}");
}

#[tokio::test]
async fn a_request_to_the_proxy_itself_is_told() {
    let (_directory, path) = place("");
    let serving = serve(&path, &[]).await;
    let port = serving.address.port();
    let get = async |host: &str| {
        let request = Request::get(format!("http://{host}:{port}/x")).body(empty()).unwrap();
        ask(serving.address, request).await
    };
    let own = get("127.0.0.1").await;
    assert_eq!((own.status, own.text()), (StatusCode::NOT_FOUND, "Not found. The set-up page is at /\n"));
    let unspecified = get("0.0.0.0").await;
    assert_eq!(unspecified.status, StatusCode::MISDIRECTED_REQUEST, "{unspecified:?}");
    // The proxy is its own origin here, and no origin speaks in its name.
    assert!(unspecified.text().contains("use the proxy's IP address"), "{unspecified:?}");
}

/// How a client leaves that does not trust the CA.
enum Leaving {
    /// Most send an alert.
    ByAlert,
    /// Some close the connection instead, as Node does.
    InTheHandshake,
    /// Some look at the certificate only then.
    AfterIt,
}

#[tokio::test]
async fn clients_that_do_not_trust_the_ca_are_told_of_once() {
    let origin = RawOrigin::start().await;
    let config = "workers = 1\n[intercept]\nhosts = [\"127.0.0.1\"]\n";
    let stranger = Notary::new();
    for (leaves, told) in [
        (Leaving::ByAlert, "a client does not trust the local CA"),
        (Leaving::InTheHandshake, "left as soon as it saw the certificate"),
        (Leaving::AfterIt, "left as soon as it saw the certificate"),
    ] {
        let (directory, path) = place(config);
        let serving = serve(&path, &[]).await;
        for _ in 0..3 {
            let mut stream = connect(serving.address, &origin.address.to_string()).await;
            match leaves {
                Leaving::ByAlert => {
                    trusting(&stranger.ca_file(), stream, "127.0.0.1", &["http/1.1"]).await.unwrap_err();
                }
                Leaving::InTheHandshake => {
                    let name = "127.0.0.1".try_into().unwrap();
                    let mut tls = ClientConnection::new(client(&[]), name).unwrap();
                    let mut hello = Vec::new();
                    tls.write_tls(&mut hello).unwrap();
                    stream.write_all(&hello).await.unwrap();
                    soon("the certificate", stream.read_u8()).await.unwrap();
                }
                Leaving::AfterIt => {
                    let ca = directory.path().join("state/ca.pem");
                    trusting(&ca, stream, "127.0.0.1", &["http/1.1"]).await.unwrap();
                }
            }
        }
        // The only worker has served these before it begins with this one.
        let mut last = Raw::asking(serving.address, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        last.head().await;
        let log = log_of(serving).await;
        assert_eq!(log.matches(told).count(), 1, "{log}");
        assert!(log.contains("tollpass ca trust") && log.contains("host=\"127.0.0.1\""), "{log}");
    }
}

#[tokio::test]
async fn a_wallet_that_is_funded_at_last_pays_at_once() {
    let fair = Fair::open().await;
    let (url, market) = (fair.market.chain.url(), &fair.market);
    let alice = Alice::without_chain(&format!(
        "[chain]\nrpc_url = \"{url}\"\nchannel_manager = \"{}\"\npoll_every = \"10ms\"\n[[pay]]\nhost = \"127.0.0.1\"\n\
         max_price = 10000\n{QUICK}",
        market.manager
    ));
    let serving = alice.serve(&[]).await;
    let buy = || Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    let got = ask(serving.address, buy()).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    let reason = got.header(&"proxy-status".parse().unwrap()).unwrap().to_owned();
    assert!(reason.contains(&alice.address.to_string()), "{reason}");
    deploy::fund(&url, alice.address, U256::exp10(18), &[(market.token, Amount::from(WEALTH))])
        .await
        .unwrap();
    // The pause after a failure is half a minute; a balance counts for a second.
    soon("a payment", async { while ask(serving.address, buy()).await.status != StatusCode::OK {} }).await;
    log_of(serving).await;
}

#[tokio::test]
async fn what_is_not_paid_is_logged_with_its_request() {
    let fair = Fair::open().await;
    let alice = Alice::ruled(&fair.market, "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10\n").await;
    let serving = alice.serve(&[]).await;
    let url = format!("{}/paid", fair.origin.url());
    let got = ask(serving.address, Request::get(&url).body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    let log = log_of(serving).await;
    let line = log.lines().find(|line| line.contains("not paid")).unwrap_or_else(|| panic!("{log}"));
    for part in [url.as_str(), "GET", "above-max-price", "max_price"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test]
async fn a_url_is_not_a_host_and_the_port_has_a_key() {
    for (host, remedy) in [
        ("api.example.com:443", "write host = \"api.example.com\" and port = 443"),
        ("https://api.example.com/v1", "write host = \"api.example.com\" and port = 443"),
        ("http://api.example.com", "write host = \"api.example.com\" and port = 80"),
        ("api.example.com/v1", "write host = \"api.example.com\"\n"),
        ("*.example.com:8443", "write host = \"*.example.com\" and port = 8443"),
        ("a b", "write one such as \"api.example.com\""),
    ] {
        let (_directory, path) = place(&format!("[[pay]]\nhost = \"{host}\"\nmax_price = 1\n"));
        let ran = run(&["check", "--config", text(&path)]).await;
        ran.expect_failure(&["line 4: pay[0].host: ", &format!("-> {remedy}")]);
    }
    for host in ["https://api.example.com/v1", "api.example.com:443", "api.example.com/v1"] {
        let ran = run(&["init", "--pay", host]).await;
        assert!(ran.code == 2 && ran.errors.contains("path: write api.example.com\n"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_file_in_another_encoding_is_told_with_its_line() {
    let (_directory, path) = place("");
    std::fs::write(&path, b"# a\n# caf\xe9\n").unwrap();
    let ran = run(&["check", "--config", text(&path)]).await;
    ran.expect_failure(&["line 2: not UTF-8", "-> save the file as UTF-8"]);
}

#[tokio::test]
async fn a_duration_needs_a_unit() {
    for value in ["5", "\"5\"", "\"5x\""] {
        let (_directory, path) = place(&format!("[limits]\npay_timeout = {value}\n"));
        let ran = run(&["check", "--config", text(&path)]).await;
        ran.expect_failure(&["line 4: limits.pay_timeout: ", "\"5s\""]);
    }
}

#[tokio::test]
async fn it_listens_wherever_it_is_clear_where() {
    for (written, shown) in [
        ("0", "127.0.0.1:"),
        (":0", "127.0.0.1:"),
        ("localhost:0", "127.0.0.1:"),
        ("::1:0", "[::1]:"),
        ("[::1]:0", "[::1]:"),
    ] {
        if shown.starts_with('[') && std::net::TcpListener::bind("[::1]:0").is_err() {
            continue;
        }
        let serving = Program::start(program(["serve", "--listen", written])).await;
        assert!(serving.address.to_string().starts_with(shown), "{written}: {}", serving.address);
        log_of(serving).await;
    }
    let (_directory, path) = place("");
    std::fs::write(&path, "listen = 0\nstate_dir = \"state\"\n").unwrap();
    log_of(serve(&path, &[]).await).await;
    let ran = run(&["serve", "--listen", "example.com"]).await;
    ran.expect_failure(&["example.com", "not a valid IP address with a port, such as 127.0.0.1:8402"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[tokio::test]
async fn a_variable_with_a_misspelt_prefix_is_told() {
    let (_directory, path) = place("");
    for (written, meant) in [
        ("TOLPASS_LISTEN", "TOLLPASS_LISTEN"),
        ("TOLL_PASS_WALLET__KEY_FILE", "TOLLPASS_WALLET__KEY_FILE"),
        ("tollpass_listen", "TOLLPASS_LISTEN"),
    ] {
        let log = log_of(serve(&path, &[(written, "x")]).await).await;
        let told = format!("ignoring the variable {written}: did you mean {meant}?");
        assert_eq!(log.matches(&told).count(), 1, "{log}");
    }
    let log = log_of(serve(&path, &[("COMPASS_LISTEN", "x"), ("TOLLGATE_X", "x")]).await).await;
    assert!(!log.contains("did you mean"), "{log}");
}

#[tokio::test]
async fn a_key_that_has_paid_elsewhere_is_told() {
    let runtime = tempfile::tempdir().unwrap();
    let home = [("XDG_RUNTIME_DIR", ""), ("XDG_STATE_HOME", text(runtime.path()))];
    let wallet = "[wallet]\nkey_file = \"key\"\n";
    let (one, two) = (place(wallet), place(wallet));
    for (directory, _) in [&one, &two] {
        private(&directory.path().join("key"), &"a2".repeat(32));
    }
    let told = "this key has paid with another state directory before";
    for _ in 0..2 {
        assert!(!log_of(serve(&one.1, &home).await).await.contains(told));
    }
    let serving = serve(&one.1, &home).await;
    never_listens(&two.1, &home, &["another tollpass pays with the key", text(&one.0.path().join("state"))])
        .await;
    log_of(serving).await;
    let log = log_of(serve(&two.1, &home).await).await;
    assert!(log.contains(told) && log.contains(text(&one.0.path().join("state"))), "{log}");
}

#[tokio::test]
async fn without_a_configuration_it_says_that_it_never_pays() {
    let home = tempfile::tempdir().unwrap();
    let mut command = program(["serve", "--listen", "0"]);
    command.env("XDG_CONFIG_HOME", home.path());
    let log = log_of(Program::start(command).await).await;
    let file = home.path().join("tollpass/proxy.toml");
    let line = log.lines().find(|line| line.contains("never pays")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("`tollpass init`") && line.contains(text(&file)), "{line}");
    let (_directory, path) = place("");
    let log = log_of(serve(&path, &[]).await).await;
    assert!(log.contains(&format!("{} has no [wallet], so this proxy never pays", text(&path))), "{log}");
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode: u32| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        text(&path).to_owned()
    };
    let state = directory.path().join("state");
    let (data, script) = (file("data", "x", 0o644), file("script", "#!/no/such/shell\n", 0o755));
    for (name, code, words) in [
        ("no-such-program", 127, "cannot run no-such-program: no program of this name is in PATH"),
        ("./no/such/file", 127, "cannot run ./no/such/file: this file does not exist"),
        (&script, 127, "the interpreter that its first line names does not exist"),
        (&data, 126, "chmod +x"),
    ] {
        let ran: Ran = run_with(&["run", "--", name], &[("TOLLPASS_STATE_DIR", text(&state))]).await;
        ran.expect_failure(&[name, words]);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(!ran.errors.contains("os error 2"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_wrong_log_filter_is_an_error() {
    for filter in ["verbose", "info,debgu", "tollpass=loud"] {
        let ran = run_with(&["serve", "--listen", "0"], &[("TOLLPASS_LOG", filter)]).await;
        ran.expect_failure(&["TOLLPASS_LOG is not a valid filter", "warn,tollpass=debug"]);
        assert_eq!((ran.code, &*ran.out), (1, ""), "{ran:?}");
    }
}
