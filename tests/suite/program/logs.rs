//! Closed or blocked readers of the program's output: the log, the ready line, tables.

use std::fs::OpenOptions;
use std::io::{PipeWriter, Write as _, pipe};
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use http::{Request, StatusCode};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{only_channel, run, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::payer::{Alice, PATIENCE, Program, program, terminate};
use crate::support::ports::ReservedPort;
use crate::support::raw::soon;
use crate::support::wire::ask;

/// The real program on Alice's configuration, with standard error going where the test says. Reads the ready line.
async fn serve_with_log(alice: &Alice, log: impl Into<Stdio>, variables: &[(&str, &str)]) -> Program {
    let mut command = program(["serve", "--config"]);
    command.arg(alice.config_path()).envs(variables.iter().copied());
    Program::start_with_log(command, log.into()).await
}

async fn pay(address: SocketAddr, fair: &Fair) -> StatusCode {
    let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    soon("the paid answer", ask(address, paid)).await.status
}

async fn end(mut child: Child) -> ExitStatus {
    terminate(&child);
    soon("the end", child.wait()).await.unwrap()
}

/// All payments succeed, the journal is right, and SIGTERM ends the program cleanly.
async fn pays_and_ends(alice: &Alice, fair: &Fair, serving: Program, times: u64) {
    for _ in 0..times {
        assert_eq!(pay(serving.address, fair).await, StatusCode::OK);
    }
    assert_eq!(end(serving.child).await.code(), Some(0));
    let total = (1000 * times).to_string();
    let ran = run(&["channels", "--json", "--state-dir", text(&alice.state_dir())]).await;
    assert_eq!(only_channel(&ran.out), (total.clone(), total));
}

#[tokio::test]
async fn payments_and_sigterm_work_after_the_reader_of_the_log_has_gone() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let (reader, writer) = pipe().unwrap();
    let serving = serve_with_log(&alice, writer, &[("TOLLPASS_LOG", "debug")]).await;
    drop(reader);
    pays_and_ends(&alice, &fair, serving, 3).await;
}

#[tokio::test]
async fn payments_and_sigterm_work_on_a_full_disk_for_the_log() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let serving = serve_with_log(&alice, full, &[("TOLLPASS_LOG_FORMAT", "json")]).await;
    pays_and_ends(&alice, &fair, serving, 3).await;
}

#[tokio::test]
async fn payments_and_sigterm_work_while_the_reader_of_the_log_is_stuck() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let (_reader, writer) = pipe().unwrap();
    fill(&writer);
    let serving = serve_with_log(&alice, writer, &[("TOLLPASS_LOG", "debug")]).await;
    pays_and_ends(&alice, &fair, serving, 3).await;
}

/// Fills a pipe: its capacity on Linux is 64 KiB.
fn fill(mut writer: &PipeWriter) {
    writer.write_all(&[b'-'; 64 << 10]).unwrap();
}

#[tokio::test]
async fn a_proxy_serves_whether_its_ready_line_can_be_written_or_not() {
    let fair = Fair::open().await;
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    for out in [closed(), full()] {
        let port = ReservedPort::new();
        let free = port.address();
        let mut command = program(["serve", "--listen", &free.to_string()]);
        let child = command.stdout(out).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        soon("the proxy", async { while tokio::net::TcpStream::connect(free).await.is_err() {} }).await;
        let request = Request::get(format!("{}/free", fair.origin.url())).body(empty()).unwrap();
        assert_eq!(ask(free, request).await.status, StatusCode::OK);
        assert_eq!(end(child).await.code(), Some(0));
    }
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

#[tokio::test]
async fn a_closed_reader_is_not_an_error_and_a_full_disk_is() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let password = directory.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = directory.path().join("proxy.toml");
    std::fs::write(&config, format!("state_dir = \"{}\"\n", text(&state))).unwrap();
    let new = [directory.path().join("a"), directory.path().join("b")];
    let commands: [&[&str]; 7] = [
        &["check", "--config", text(&config)],
        &["env", "--config", text(&config)],
        &["ca", "show", "--state-dir", text(&state)],
        &["ca", "export", "--state-dir", text(&state)],
        &["ca", "trust", "--state-dir", text(&state)],
        &["init", "--password-file", text(&password), "--dir"],
        &["--help"],
    ];
    for arguments in commands {
        let mut commands = [&new[0], &new[1]].map(|directory| {
            let mut command = program(arguments);
            if arguments[0] == "init" {
                command.arg(directory);
            }
            command
        });
        let ran = ended(commands[0].stdout(closed()), arguments).await;
        assert_eq!(ran.0.code(), Some(0), "{arguments:?}: {}", ran.1);
        assert!(!ran.1.contains("panicked") && !ran.1.contains("Broken pipe"), "{arguments:?}: {}", ran.1);
        if arguments[0] == "--help" {
            continue;
        }
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ran = ended(commands[1].stdout(full), arguments).await;
        assert_eq!(ran.0.code(), Some(1), "{arguments:?}: {}", ran.1);
        assert!(ran.1.contains("No space left"), "{arguments:?}: {}", ran.1);
    }
}

#[tokio::test]
async fn an_error_that_cannot_be_printed_keeps_its_exit_code() {
    let mut command = program(["channels", "--state-dir", "/nowhere"]);
    let status = timeout(PATIENCE, command.stdout(Stdio::null()).stderr(closed()).status()).await.unwrap();
    assert_eq!(status.unwrap().code(), Some(1));
    let mut command = program(["run", "--", "sh", "-c", "exit 7"]);
    let directory = tempfile::tempdir().unwrap();
    command.env("XDG_STATE_HOME", directory.path()).stdout(Stdio::null()).stderr(closed());
    assert_eq!(timeout(PATIENCE, command.status()).await.unwrap().unwrap().code(), Some(7));
}

async fn ended(command: &mut Command, arguments: &[&str]) -> (ExitStatus, String) {
    let child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_proxy_whose_paying_task_panics_ends_with_an_error() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let variables = [(tollpass::failpoint::PANIC_VARIABLE, "records about to be written")];
    let serving = alice.serve(&variables).await;
    let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    let answer = tokio::spawn(ask(serving.address, paid));
    let (status, log) = soon("the end", serving.ended()).await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("stopped because of a bug in tollpass"), "{log}");
    assert_ne!(answer.await.unwrap().status, StatusCode::OK);
}
