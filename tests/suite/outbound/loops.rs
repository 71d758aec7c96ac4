//! Proxy loops: tollpass started from a shell that uses it as its proxy, and two proxies that use each other.

use std::net::SocketAddr;

use crate::support::payer::{Program, program};
use crate::support::ports::ReservedPort;
use crate::support::raw::{Raw, RawOrigin};

async fn serve(listen: SocketAddr, proxy: &str) -> Program {
    let mut command = program(["serve", "--listen", &listen.to_string()]);
    for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"]
    {
        command.env_remove(name);
    }
    // A proxy that never pays stores nothing there.
    command.env("TOLLPASS_STATE_DIR", "/nonexistent");
    command.env("HTTP_PROXY", proxy).env("HTTPS_PROXY", proxy);
    Program::start(command).await
}

#[tokio::test]
async fn a_proxy_that_is_named_its_own_goes_out_directly() {
    let origin = RawOrigin::start().await;
    // The system resolves this to 127.0.0.1; to the test it is a name like any other.
    let name = format!("127.1:{}", origin.address.port());
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"] {
        let port = ReservedPort::new();
        let listen = port.address();
        let serving = serve(listen, &format!("http://{host}:{}", listen.port())).await;
        let mut client = Raw::asking(listen, format!("GET http://{name}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let mut server = origin.accept().await;
        server.head().await;
        server.send("HTTP/1.1 299 Direct\r\nContent-Length: 0\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 299 "), "{host}: {head}");
        let head =
            Raw::asking(listen, format!("CONNECT {name} HTTP/1.1\r\nHost: x\r\n\r\n")).await.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{host}: {head}");
        origin.accept().await;
        serving.terminate();
        let (_, log) = serving.ended().await;
        assert_eq!(log.matches("is this proxy itself").count(), 2, "once for each kind: {log}");
    }
}

#[tokio::test]
async fn two_proxies_that_name_each_other_do_not_go_round_in_circles() {
    let ports = [ReservedPort::new(), ReservedPort::new()];
    let [one, other] = [ports[0].address(), ports[1].address()];
    let first = serve(one, &format!("http://{other}")).await;
    let second = serve(other, &format!("http://{one}")).await;
    let asked = "GET http://origin.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut client = Raw::asking(one, asked).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 508 "), "{head}");
    // The head is not for another proxy of the same name to explain.
    let body = client.rest().await;
    assert!(String::from_utf8_lossy(&body).contains("request-loop"), "{body:?}");
    let head = Raw::asking(one, "CONNECT origin.test:443 HTTP/1.1\r\nHost: x\r\n\r\n").await.head().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    first.terminate();
    second.terminate();
    let logs = first.ended().await.1 + &second.ended().await.1;
    assert!(logs.contains("508"), "{logs}");
}
