//! `Expect: 100-continue`: the client's body is requested when the origin requests it, and not before.

use std::time::Duration;

use tollpass::limits::Limits;
use tollpass::proxy::ProxySettings;

use super::{Lane, Refused, Way, requests};
use crate::support::raw::{Raw, field};

const UPLOAD: &str = "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

each_way!(
    a_body_is_requested_when_the_origin_requests_it,
    a_chunked_body_is_requested_in_the_same_way,
    a_final_answer_takes_the_place_of_the_body,
    an_origin_that_says_nothing_gets_the_body_all_the_same,
    a_client_that_does_not_wait_is_not_kept_waiting_forever,
    a_connection_that_had_gone_stale_loses_no_upload,
    only_100_continue_is_accepted,
);

/// A lane in which no origin times out.
async fn patient(way: Way) -> Lane {
    way.lane_with(ProxySettings {
        limits: Limits { expect_continue_timeout: Duration::from_secs(3600), ..Limits::default() },
        ..ProxySettings::default()
    })
    .await
}

async fn uploading(lane: &Lane) -> (Raw, Raw) {
    let (client, mut server) = lane.exchange(UPLOAD).await;
    let head = server.head().await;
    assert_eq!(field(&head, "expect"), Some("100-continue"), "{head}");
    assert_eq!(field(&head, "content-length"), Some("4"), "{head}");
    (client, server)
}

async fn a_body_is_requested_when_the_origin_requests_it(way: Way) {
    let lane = patient(way).await;
    let (mut client, mut server) = uploading(&lane).await;
    assert!(client.is_quiet().await, "nobody has asked for the body");
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    assert_eq!(server.exactly(4).await, b"body");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let head = client.head().await;
    assert_eq!((&head[..13], field(&head, "connection")), ("HTTP/1.1 200 ", None));
    assert_eq!(client.exactly(2).await, b"ok");

    // Both connections are in sync: the next request uses them.
    client.send(lane.fill("GET {t}/2 HTTP/1.1\r\nHost: {o}\r\n\r\n")).await;
    assert!(server.request().await.unwrap().starts_with(b"GET /2 "));
}

async fn a_chunked_body_is_requested_in_the_same_way(way: Way) {
    let lane = patient(way).await;
    let chunks =
        "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut client, mut server) = lane.exchange(chunks).await;
    let head = server.head().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
    assert!(client.is_quiet().await && server.is_quiet().await);
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.head().await;
    client.send("4\r\nbody\r\n0\r\n\r\n").await;
    assert_eq!(server.chunked().await.0, b"body");
}

async fn a_final_answer_takes_the_place_of_the_body(way: Way) {
    let lane = patient(way).await;
    let (mut client, mut server) = uploading(&lane).await;
    server.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(
        field(&head, "connection"),
        Some("close"),
        "the next bytes could be a body or a request: {head}"
    );
    server.send("no").await;
    assert_eq!(client.exactly(2).await, b"no");
    // The client may send the body anyway: it is not a request, and is discarded.
    client.try_send("body").await;
    client.try_send(lane.fill("GET {t}/smuggled HTTP/1.1\r\nHost: {o}\r\n\r\n")).await;
    assert_eq!(client.rest().await, b"");
    assert_eq!(server.rest().await, b"", "the connection of the request that was never whole has ended");
    assert!(lane.origin.is_left_alone().await);
}

async fn an_origin_that_says_nothing_gets_the_body_all_the_same(way: Way) {
    let settings = ProxySettings {
        limits: Limits { expect_continue_timeout: Duration::from_millis(50), ..Limits::default() },
        ..ProxySettings::default()
    };
    let lane = way.lane_with(settings).await;
    let (mut client, mut server) = uploading(&lane).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    assert_eq!(server.exactly(4).await, b"body");
    // The origin's 100 may be late; the client gets only one.
    server.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
}

async fn a_client_that_does_not_wait_is_not_kept_waiting_forever(way: Way) {
    let lane = patient(way).await;
    let (mut client, mut server) = lane.exchange(format!("{UPLOAD}body")).await;
    server.head().await;
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(server.exactly(4).await, b"body");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    // The 100 is no longer useful and may be omitted.
    let head = client.head().await;
    let head = if head.starts_with("HTTP/1.1 100 ") { client.head().await } else { head };
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

async fn a_connection_that_had_gone_stale_loses_no_upload(way: Way) {
    let lane = patient(way).await;
    let (mut client, mut server) = lane.exchange("GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n").await;
    server.request().await.unwrap();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.head().await;
    client.send(lane.fill(UPLOAD)).await;
    server.head().await;
    drop(server);

    let mut server = lane.accept().await;
    assert!(server.head().await.starts_with("POST / "));
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    assert_eq!(server.exactly(4).await, b"body");
    // Once the origin has the body, nothing is resent.
    drop(server);
    assert!(client.head().await.starts_with("HTTP/1.1 502 "));
    assert!(lane.origin.is_left_alone().await);
}

async fn only_100_continue_is_accepted(way: Way) {
    let lane = patient(way).await;
    let late = "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 4\r\nExpect: ";
    for unknown in ["tea", "100-continue, tea", "100-continue\r\nExpect: 100-continue", "", "200-ok"] {
        let request = format!("{late}{unknown}\r\n\r\n");
        requests(&lane, &[(request.as_bytes(), Refused(417))]).await;
    }
    for unheard in [
        "GET {t}/ HTTP/1.1\r\nHost: {o}\r\nExpect: 100-continue\r\n\r\n",
        "POST {t}/ HTTP/1.0\r\nHost: {o}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
        "POST {t}/ HTTP/1.0\r\nHost: {o}\r\nExpect: tea\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let (_client, mut server) = lane.exchange(unheard).await;
        let request = server.request().await.unwrap();
        assert!(!lane.show(&request).contains("expect"), "{unheard}");
    }
}
