//! Which ports `CONNECT` may lead to, in blind and in intercepted tunnels.

use tokio::net::TcpListener;

use crate::support::payer::Alice;
use crate::support::raw::{Raw, field};

#[tokio::test]
async fn connect_leads_to_listed_ports_only() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = origin.local_addr().unwrap().port();
    for (ports, is_allowed) in [
        (String::new(), true),
        (format!("connect_ports = [{port}]\n"), true),
        (format!("connect_ports = [1, \"{}-{port}\"]\n", port - 1), true),
        ("connect_ports = [443]\n".to_owned(), port == 443),
        (format!("connect_ports = [\"1-{}\", \"{}-65535\"]\n", port - 1, port + 1), false),
    ] {
        let mut alice = Alice::without_chain("[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 1\n");
        alice.change("listen =", &format!("{ports}listen ="));
        let proxy = alice.start().await;
        // 127.0.0.1 is intercepted.
        for host in ["127.0.0.1", "localhost"] {
            let target = format!("{host}:{port}");
            let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
            let head = Raw::asking(proxy.address, request).await.head().await;
            if is_allowed {
                assert!(head.starts_with("HTTP/1.1 200 "), "{ports} {target}: {head}");
                continue;
            }
            assert!(head.starts_with("HTTP/1.1 403 "), "{ports} {target}: {head}");
            assert_eq!(field(&head, "content-type"), Some("application/problem+json"), "{head}");
            let told = field(&head, "proxy-status").unwrap();
            assert!(told.contains("error=http_request_denied"), "{told}");
            assert!(told.contains(&format!("port {port}")) && told.contains("connect_ports"), "{told}");
        }
        proxy.stop().await;
    }
}
