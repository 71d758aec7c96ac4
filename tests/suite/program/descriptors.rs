//! File descriptors: how many the program uses, and what it closes for others.

use std::fs;
use std::sync::Arc;

use http::Response;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::frames::{Act, scripted};
use crate::support::payer::Program;
use crate::support::raw::{Raw, RawOrigin, soon};
use crate::support::secure::Notary;

/// The real program with this many descriptors: a soft and a hard limit.
fn limited(arguments: &str, soft: u32, hard: &str) -> (Command, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" {arguments}");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_tollpass")]).stdin(std::process::Stdio::null());
    command.env("XDG_STATE_HOME", directory.path()).kill_on_drop(true);
    (command, directory)
}

#[tokio::test]
async fn the_soft_limit_on_descriptors_is_raised_for_tollpass_and_not_for_its_child() {
    let (command, _directory) = limited("serve --listen 127.0.0.1:0", 64, "512");
    let serving = Program::start(command).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", serving.child.id().unwrap())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("512"), "{line}");
    serving.stop().await;
    let (mut command, _directory) = limited("run --quiet -- sh -c 'ulimit -Sn'", 64, "512");
    let output = soon("the end", command.output()).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "64\n");
}

#[tokio::test]
async fn connections_that_rest_make_room_for_requests() {
    const DESCRIPTORS: u32 = 64;
    let (command, _directory) = limited("serve --listen 127.0.0.1:0", DESCRIPTORS, &DESCRIPTORS.to_string());
    let serving = Program::start(command).await;
    let mut kept = Vec::new();
    let mut client = Raw::connect(serving.address).await;
    for _ in 0..2 * DESCRIPTORS {
        let origin = RawOrigin::start().await;
        client.send(format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)).await;
        let mut server = origin.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{}: {head}", kept.len());
        assert_eq!(client.exactly(2).await, b"ok");
        kept.push((origin, server));
    }
    // The last one is still there, idle, and there is room for one more.
    let (origin, server) = kept.last_mut().unwrap();
    client.send(format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)).await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    // A response in progress does not count as idle, even when descriptors run out.
    let mut others = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        let origin = RawOrigin::start().await;
        let mut other = Raw::asking(
            serving.address,
            format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", origin.address),
        )
        .await;
        let mut server = origin.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(other.head().await.starts_with("HTTP/1.1 200 "));
        others.push((origin, server));
    }
    kept.last_mut().unwrap().1.send("whole").await;
    assert_eq!(client.exactly(5).await, b"whole");
    serving.stop().await;
}

#[tokio::test]
async fn connections_of_http_2_that_rest_make_room_too() {
    const DESCRIPTORS: u32 = 64;
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", &["h2"]).await;
    let mut origins = Vec::new();
    let mut text = format!("[upstream]\nca_file = \"{}\"\n", notary.ca_file().display());
    for number in 0..2 * DESCRIPTORS {
        let origin = scripted(Arc::clone(&config), |_| Act::Answer(Response::new("ok".into()))).await;
        text += &format!("[[route]]\nprefix = \"/{number}\"\norigin = \"https://{}\"\n", origin.address);
        origins.push(origin);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let arguments = format!("serve --listen 127.0.0.1:0 --config {}", file.path().display());
    let (command, _directory) = limited(&arguments, DESCRIPTORS, &DESCRIPTORS.to_string());
    let serving = Program::start(command).await;
    let mut client = Raw::connect(serving.address).await;
    for number in 0..2 * DESCRIPTORS {
        client.send(format!("GET /{number}/ HTTP/1.1\r\nHost: {}\r\n\r\n", serving.address)).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{number}: {head}");
        assert_eq!(client.chunked().await.0, b"ok");
    }
    // The last one is idle and was not closed for others: it has been idle for the shortest time.
    let last = 2 * DESCRIPTORS - 1;
    client.send(format!("GET /{last}/ HTTP/1.1\r\nHost: {}\r\n\r\n", serving.address)).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(origins.last().unwrap().accepted(), 1);
    serving.stop().await;
}
