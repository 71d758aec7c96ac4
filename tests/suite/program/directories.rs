//! The state directory and the files that decide about money: which other users can access them.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use http::{Request, StatusCode};

use super::{only_channel, run, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::payer::{Alice, Program, program};
use crate::support::raw::soon;
use crate::support::wire::ask;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

async fn pay(serving: &Program, fair: &Fair) {
    let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    assert_eq!(soon("the answer", ask(serving.address, paid)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_journal_is_private_to_its_owner() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let state = alice.state_dir();
    fs::create_dir(&state).unwrap();
    mode(&state, 0o755);
    let serving = alice.serve(&[]).await;
    pay(&serving, &fair).await;
    let files = ["tollpass.db", "tollpass.db-wal", "tollpass.db-shm", "lock", "admin.sock"];
    for name in files {
        assert_eq!(mode_of(&state.join(name)) & 0o077, 0, "{name}");
    }
    serving.kill().await;
    for name in ["tollpass.db", "tollpass.db-wal", "tollpass.db-shm", "lock"] {
        mode(&state.join(name), 0o644);
    }
    let serving = alice.serve(&[]).await;
    pay(&serving, &fair).await;
    for name in files {
        assert_eq!(mode_of(&state.join(name)) & 0o077, 0, "{name}");
    }
    serving.stop().await;
}

#[tokio::test]
async fn links_and_files_of_other_users_stop_serve_and_check_finds_them() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let (state, config) = (alice.state_dir(), alice.config_path());
    fs::create_dir(&state).unwrap();
    mode(&state, 0o700);
    let victim = alice.directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let is_refused = async |words: &str| {
        for command in ["serve", "check"] {
            run(&[command, "--config", text(&config)]).await.expect_failure(&[words]);
        }
    };
    for name in ["lock", "tollpass.db", "tollpass.db-wal", "admin.sock"] {
        let link = state.join(name);
        symlink(&victim, &link).unwrap();
        is_refused("symbolic link").await;
        fs::remove_file(&link).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{name}");
    }
    for bits in [0o777, 0o1777, 0o770] {
        mode(&state, bits);
        is_refused("chmod go-w").await;
    }
    mode(&state, 0o700);
    if std::os::unix::fs::chown(&state, Some(12345), None).is_ok() {
        is_refused("belongs to another user").await;
        std::os::unix::fs::chown(&state, Some(0), None).unwrap();
        fs::write(state.join("tollpass.db"), "").unwrap();
        std::os::unix::fs::chown(state.join("tollpass.db"), Some(12345), None).unwrap();
        is_refused("belongs to another user").await;
        fs::remove_file(state.join("tollpass.db")).unwrap();
    }
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "a file").unwrap();
    is_refused("ot a directory").await;
}

#[tokio::test]
async fn a_configuration_that_others_can_write_is_warned_of_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (config, roots) = (directory.path().join("proxy.toml"), directory.path().join("roots.pem"));
    fs::write(&roots, tollpass::tls::pem(&certificate())).unwrap();
    let rest = "[upstream]\nca_file = \"roots.pem\"\n";
    fs::write(&config, format!("listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{rest}")).unwrap();
    for file in [&config, &roots] {
        mode(&config, 0o644);
        mode(&roots, 0o644);
        mode(file, 0o664);
        let log = Program::start(program(["serve", "--config", text(&config)])).await.stop().await;
        assert!(log.contains("can change it") && log.contains(text(file)), "{log}");
        mode(file, 0o646);
        // The latter needs the file for the state directory only.
        let commands = if file == &config { &["serve", "check", "freeze"][..] } else { &["serve", "check"] };
        for &command in commands {
            let ran = run(&[command, "--config", text(&config)]).await;
            ran.expect_failure(&["every user can change", text(file), "chmod o-w"]);
        }
    }
}

fn certificate() -> rustls::pki_types::CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().self_signed(&key).unwrap().into()
}

#[tokio::test]
async fn a_state_directory_with_a_long_path_is_used_like_any_other() {
    let fair = Fair::open().await;
    let mut alice = Alice::with(&fair.market, QUICK).await;
    let long = format!("{}/{}", "d".repeat(120), "e".repeat(120));
    alice.change("state_dir = \"state\"", &format!("state_dir = \"{long}\""));
    let config = alice.config_path();
    let check = run(&["check", "--config", text(&config)]).await;
    assert_eq!(check.code, 0, "{check:?}");
    let serving = alice.serve(&[]).await;
    pay(&serving, &fair).await;
    let by_config = ["channels", "--json", "--config", text(&config)];
    let thousand = ("1000".to_owned(), "1000".to_owned());
    // Only the running proxy knows unwritten changes, so the command queries it over the socket.
    assert_eq!(only_channel(&run(&by_config).await.out), thousand);
    assert!(alice.directory.path().join(&long).join("admin.sock").exists());
    // The runs of one proxy are counted.
    let number = ["run", "--config", text(&config), "--", "sh", "-c", "echo ${TOLLPASS_RUN%-*}"];
    for expected in ["1\n", "2\n"] {
        let ran = run(&number).await;
        assert_eq!((ran.code, &*ran.out), (0, expected), "{ran:?}");
    }
    serving.stop().await;
    let ran = run(&number).await;
    assert_eq!((ran.code, &*ran.out), (0, "1\n"), "{ran:?}");
}

#[tokio::test]
async fn check_finds_a_port_that_is_taken_unless_the_proxy_itself_has_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("proxy.toml");
    let listen = taken.local_addr().unwrap();
    fs::write(&config, format!("listen = \"{listen}\"\nstate_dir = \"state\"\n")).unwrap();
    run(&["check", "--config", text(&config)]).await.expect_failure(&["FAIL   listen", "cannot listen on"]);
    drop(taken);
    let fair = Fair::open().await;
    let mut alice = Alice::with(&fair.market, QUICK).await;
    alice.change("listen = \"127.0.0.1:0\"", &format!("listen = \"{listen}\""));
    let serving = alice.serve(&[]).await;
    let check = run(&["check", "--config", text(&alice.config_path())]).await;
    assert!(check.code == 0 && check.out.contains("used by the proxy running"), "{check:?}");
    serving.stop().await;
}
