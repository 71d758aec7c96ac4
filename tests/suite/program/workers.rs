//! The threads that serve clients: how connections are spread, and how the threads end.

use std::path::Path;

use super::{run, text};
use crate::support::payer::{Program, program};
use crate::support::raw::{Raw, RawOrigin, soon};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbob\n";

/// The command for a proxy with three workers, and the directory of its configuration.
fn three() -> (tempfile::TempDir, tokio::process::Command) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:0\"\nworkers = 3\n").unwrap();
    (directory, program(["serve", "--config", text(&path)]))
}

fn request(origin: &RawOrigin) -> String {
    format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)
}

/// The origin answers the request that it has got, and the client reads that.
async fn answer(server: &mut Raw, client: &mut Raw) {
    server.send(ANSWER).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(client.exactly(4).await, b"bob\n");
}

/// The names of the workers of a process.
#[cfg(target_os = "linux")]
fn workers(process: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let name = |task: &Path| std::fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
    let mut names: Vec<_> = tasks.map(|task| name(&task.unwrap().path())).collect();
    names.retain(|name| name.starts_with("worker-"));
    names.sort();
    names
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn there_are_as_many_as_the_configuration_says() {
    let (directory, command) = three();
    let serving = Program::start(command).await;
    let origin = RawOrigin::start().await;
    // A thread has its name once it runs: each serves one of these clients.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = Raw::asking(serving.address, request(&origin)).await;
        let mut server = origin.accept().await;
        server.head().await;
        clients.push((client, server));
    }
    for (client, server) in &mut clients {
        answer(server, client).await;
    }
    assert_eq!(workers(serving.child.id().unwrap()), ["worker-0", "worker-1", "worker-2"]);
    serving.terminate();
    assert_eq!(serving.ended().await.0.code(), Some(0));

    for wrong in ["0", "1025", "\"many\""] {
        let path = directory.path().join("proxy.toml");
        std::fs::write(&path, format!("workers = {wrong}\n")).unwrap();
        run(&["check", "--config", text(&path)]).await.expect_failure(&["workers"]);
    }
}

#[tokio::test]
async fn clients_cause_no_more_connections_to_an_origin_than_there_are_clients() {
    let (_directory, command) = three();
    let (serving, origin) = (Program::start(command).await, RawOrigin::start().await);
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let client = Raw::asking(serving.address, request(&origin)).await;
        // Its worker has no idle connection to the origin: each of the others has a request.
        let mut server = origin.accept().await;
        server.head().await;
        clients.push(client);
        servers.push(server);
    }
    for _ in 0..5 {
        // A worker's clients share its connections, in any order.
        for server in &mut servers {
            server.send(ANSWER).await;
        }
        for client in &mut clients {
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
            assert_eq!(client.exactly(4).await, b"bob\n");
            client.send(request(&origin)).await;
        }
        for server in &mut servers {
            server.head().await;
        }
    }
    assert!(origin.is_left_alone().await, "it has got another connection");
    serving.kill().await;
}

#[tokio::test]
async fn a_shutdown_waits_for_the_requests_of_all() {
    let (_directory, command) = three();
    let (serving, origin) = (Program::start(command).await, RawOrigin::start().await);
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        clients.push(Raw::asking(serving.address, request(&origin)).await);
        let mut server = origin.accept().await;
        server.head().await;
        servers.push(server);
    }
    serving.terminate();
    soon("the end of accepting", async {
        while tokio::net::TcpStream::connect(serving.address).await.is_ok() {}
    })
    .await;
    for (client, server) in clients.iter_mut().zip(&mut servers) {
        answer(server, client).await;
    }
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn a_thread_that_fails_ends_the_process_with_an_error() {
    let (_directory, mut command) = three();
    command.env(tollpass::failpoint::PANIC_VARIABLE, "worker");
    let (status, log) = soon("the end", Program::start(command).await.ended()).await;
    assert_eq!(status.code(), Some(1), "{log}");
    for part in ["a worker thread has failed; shutting down", "tollpass: a worker thread has failed"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[tokio::test]
async fn a_client_gets_the_idle_connection_of_another_worker() {
    let (_directory, command) = three();
    let (serving, origin) = (Program::start(command).await, RawOrigin::start().await);
    let mut first = Raw::asking(serving.address, request(&origin)).await;
    let mut server = origin.accept().await;
    for _ in 0..3 {
        server.head().await;
        answer(&mut server, &mut first).await;
        // The first client stays, so this one gets a worker without a connection to the origin.
        let mut next = Raw::asking(serving.address, request(&origin)).await;
        server.head().await;
        answer(&mut server, &mut next).await;
        first.send(request(&origin)).await;
    }
    assert!(origin.is_left_alone().await, "it has got another connection");
    serving.kill().await;
}

#[tokio::test]
async fn a_client_that_stays_gets_a_connection_of_its_own_worker_in_place_of_the_other() {
    let (_directory, command) = three();
    let (serving, origin) = (Program::start(command).await, RawOrigin::start().await);
    let mut first = Raw::asking(serving.address, request(&origin)).await;
    let mut server = origin.accept().await;
    server.head().await;
    answer(&mut server, &mut first).await;
    let mut next = Raw::asking(serving.address, request(&origin)).await;
    server.head().await;
    answer(&mut server, &mut next).await;
    next.send(request(&origin)).await;
    let mut own = origin.accept().await;
    own.head().await;
    answer(&mut own, &mut next).await;
    assert_eq!(soon("the end of the other", server.rest()).await, b"");
    serving.kill().await;
}

/// A proxy with one worker, and more clients than it keeps servers for. Each has had an answer on the one connection to the
/// origin, and waits.
async fn crowd(origin: &RawOrigin, limits: &str) -> (tempfile::TempDir, Program, Vec<Raw>, Raw) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, format!("listen = \"127.0.0.1:0\"\nworkers = 1\n{limits}")).unwrap();
    let serving = Program::start(program(["serve", "--config", text(&path)])).await;
    let mut clients = vec![Raw::asking(serving.address, request(origin)).await];
    let mut server = origin.accept().await;
    server.head().await;
    answer(&mut server, &mut clients[0]).await;
    for _ in 1..100 {
        let mut client = Raw::asking(serving.address, request(origin)).await;
        server.head().await;
        answer(&mut server, &mut client).await;
        clients.push(client);
    }
    (directory, serving, clients, server)
}

#[tokio::test]
async fn idle_clients_are_served_again_however_their_requests_arrive() {
    let origin = RawOrigin::start().await;
    let (_directory, serving, mut clients, mut server) = crowd(&origin, "").await;
    let request = request(&origin);
    let (begin, end) = request.split_at(request.len() / 2);
    for client in &mut clients {
        client.send(&request).await;
        server.head().await;
        answer(&mut server, client).await;
        // In two pieces.
        client.send(begin).await;
        assert!(server.is_quiet().await);
        client.send(end).await;
        server.head().await;
        answer(&mut server, client).await;
    }
    for client in &mut clients[90..] {
        // Two at once, and one of which more is read than its connection keeps.
        client.send(format!("{request}{request}")).await;
        for _ in 0..2 {
            server.head().await;
            answer(&mut server, client).await;
        }
        let long = request.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(5000)));
        client.send(&long).await;
        assert!(server.head().await.len() > 5000);
        answer(&mut server, client).await;
    }
    assert!(origin.is_left_alone().await, "it has got another connection");
    serving.terminate();
    for client in &mut clients {
        assert_eq!(soon("the end of an idle connection", client.rest()).await, b"");
    }
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn idle_clients_are_closed_when_their_time_is_over_and_may_leave_before() {
    let origin = RawOrigin::start().await;
    let limits = "[limits]\nkeepalive_timeout = \"3s\"\nhead_timeout = \"3s\"\n";
    let (_directory, serving, mut clients, _server) = crowd(&origin, limits).await;
    let request = request(&origin);
    clients[95].finish().await;
    assert_eq!(soon("the end of a client that has left", clients[95].rest()).await, b"");
    // The beginning of a head is not a request.
    clients[96].send(&request[..10]).await;
    for client in &mut clients {
        let rest = String::from_utf8(soon("the end of an idle connection", client.rest()).await).unwrap();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    }
    serving.kill().await;
}
