//! Connection-based authentication: such a connection serves one client only. RFC 4559.

use crate::support::lane::Way;
use crate::support::raw::field;

const FIRST: &str = "GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n";
const CHALLENGE: &str =
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {scheme}\r\nContent-Length: 0\r\n\r\n";
const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalice";

#[tokio::test]
async fn a_connection_that_knows_one_client_serves_no_other() {
    for way in [Way::Plain, Way::Intercepted] {
        for scheme in ["NTLM", "Negotiate", "negotiate TlRMTVNTUAAC"] {
            let lane = way.lane().await;
            let mut alice = lane.asking(FIRST).await;
            let mut server = lane.origin.accept().await;
            server.head().await;
            server.send(CHALLENGE.replace("{scheme}", scheme)).await;
            let head = alice.head().await;
            assert_eq!(field(&head, "proxy-support"), Some("Session-Based-Authentication"), "{head}");
            // The handshake continues on its connection, as do later requests.
            let name = scheme.split(' ').next().unwrap();
            for answer in [CHALLENGE.replace("{scheme}", scheme).as_str(), PAGE] {
                let proof =
                    format!("GET {{t}}/ HTTP/1.1\r\nHost: {{o}}\r\nAuthorization: {name} TlRMTVNT\r\n\r\n");
                alice.send(lane.fill(&proof)).await;
                server.head().await;
                server.send(answer).await;
                alice.head().await;
            }
            alice.exactly(5).await;
            alice.send(lane.fill(FIRST)).await;
            server.head().await;
            server.send(PAGE).await;
            alice.head().await;
            alice.exactly(5).await;

            // Another client gets a connection of its own.
            let mut bob = lane.asking(FIRST).await;
            let mut other = lane.origin.accept().await;
            other.head().await;
            other.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbob").await;
            bob.head().await;
            assert_eq!(bob.exactly(3).await, b"bob");
        }
    }
}

#[tokio::test]
async fn an_unsolicited_proof_binds_the_connection_too() {
    for way in [Way::Plain, Way::Intercepted] {
        let lane = way.lane().await;
        let mut alice =
            lane.asking("GET {t}/ HTTP/1.1\r\nHost: {o}\r\nAuthorization: Negotiate YII\r\n\r\n").await;
        let mut server = lane.origin.accept().await;
        server.head().await;
        server.send(PAGE).await;
        alice.head().await;
        alice.exactly(5).await;
        let mut bob = lane.asking(FIRST).await;
        let mut other = lane.origin.accept().await;
        other.head().await;
        other.send(PAGE).await;
        bob.head().await;
    }
}

#[tokio::test]
async fn the_response_that_completes_a_proof_binds_the_connection_whatever_its_status() {
    for field in ["WWW-Authenticate: Negotiate oYG2", "www-authenticate: KERBEROS", "Persistent-Auth: true"] {
        let lane = Way::Plain.lane().await;
        let mut alice = lane.asking(FIRST).await;
        let mut server = lane.origin.accept().await;
        server.head().await;
        server.send(format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 5\r\n\r\nalice")).await;
        alice.head().await;
        alice.exactly(5).await;
        let mut bob = lane.asking(FIRST).await;
        let mut other = lane.origin.accept().await;
        other.head().await;
        other.send(PAGE).await;
        bob.head().await;
    }
}
