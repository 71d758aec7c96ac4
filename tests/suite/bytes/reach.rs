//! How far a request goes: `Max-Forwards`, `TRACE`, `OPTIONS`, `Via`.

use super::{Lane, Passes, Refused, Way, requests};
use crate::support::raw::field;

each_way!(others_count_and_pass_it_on, a_request_that_comes_back_goes_no_further,);

async fn answered(lane: &Lane, request: &str) -> (String, String) {
    let mut client = lane.asking(request).await;
    let head = client.head().await;
    let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let body = String::from_utf8(client.exactly(length).await).unwrap();
    assert!(lane.origin.is_left_alone().await, "{request}");
    (head, body)
}

#[tokio::test]
async fn the_last_one_to_be_asked_answers_by_itself() {
    let lane = Lane::plain().await;
    let options = "OPTIONS {t}/ HTTP/1.1\r\nHost: {o}\r\nMax-Forwards: 0\r\n\r\n";
    let (head, body) = answered(&lane, options).await;
    assert!(head.starts_with("HTTP/1.1 204 ") && body.is_empty(), "{head}");
    assert!(field(&head, "allow").unwrap().contains("CONNECT"), "{head}");

    let trace = "TRACE {t}/a?b HTTP/1.1\r\nHost: {o}\r\nMax-Forwards: 0\r\nVia: 1.0 before\r\nX-Mine: 1\r\nX-Mine: 2\r\n\
                 Authorization: Basic c2VjcmV0\r\nProxy-Authorization: Basic c2VjcmV0\r\nCookie: s=c2VjcmV0\r\n\
                 RDN-Balance-Signature: c2VjcmV0\r\n\r\n";
    let (head, body) = answered(&lane, trace).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(field(&head, "content-type"), Some("message/http"));
    assert_eq!(
        lane.show(body.as_bytes()),
        "TRACE http://{o}/a?b HTTP/1.1\r\nhost: {o}\r\nmax-forwards: 0\r\nvia: 1.0 before\r\nx-mine: 1\r\nx-mine: 2\r\n\r\n"
    );
}

async fn others_count_and_pass_it_on(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (
                b"TRACE {t}/ HTTP/1.1\r\nHost: {o}\r\nMax-Forwards: 10\r\n\r\n",
                Passes("TRACE / HTTP/1.1\r\nhost: {o}\r\nmax-forwards: 9\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            (
                b"OPTIONS {t}/ HTTP/1.1\r\nHost: {o}\r\nMax-Forwards: 1\r\n\r\n",
                Passes("OPTIONS / HTTP/1.1\r\nhost: {o}\r\nmax-forwards: 0\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            (
                b"TRACE {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n",
                Passes("TRACE / HTTP/1.1\r\nhost: {o}\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            (
                // Only those two methods count hops.
                b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nMax-Forwards: 0\r\n\r\n",
                Passes("GET / HTTP/1.1\r\nhost: {o}\r\nmax-forwards: 0\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            (
                b"OPTIONS {t}/ HTTP/1.1\r\nHost: {o}\r\nMax-Forwards: -1\r\n\r\n",
                Passes("OPTIONS / HTTP/1.1\r\nhost: {o}\r\nmax-forwards: -1\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            (b"TRACE {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2\r\n\r\nab", Refused(400)),
        ],
    )
    .await;
}

async fn a_request_that_comes_back_goes_no_further(way: Way) {
    let lane = way.lane().await;
    let (_client, mut server) = lane.exchange("GET {t}/ HTTP/1.1\r\nHost: {o}\r\nVia: 1.0 one\r\n\r\n").await;
    let head = server.head().await;
    assert_eq!(head.matches("\r\nvia: ").count(), 2, "{head}");
    // Another proxy sends it back with its own name added, in one header line or in several.
    let ours = head.lines().find(|line| line.contains("tollpass (")).unwrap();
    let ours = ours.split_once(": ").unwrap().1;
    for via in [
        format!("Via: 1.0 one\r\nVia: {ours}\r\nVia: 1.1 other"),
        format!("Via: 1.0 one, {ours}, 1.1 other (x)"),
        format!("via: {ours}\r\nConnection: via"),
    ] {
        let request = format!("GET {{t}}/ HTTP/1.1\r\nHost: {{o}}\r\n{via}\r\n\r\n");
        let (head, _) = answered(&lane, &request).await;
        assert!(head.starts_with("HTTP/1.1 508 "), "{via}: {head}");
    }
}
