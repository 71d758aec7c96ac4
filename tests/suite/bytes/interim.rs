//! Interim responses: those of the origin reach the client before the final one.

use super::{Reaches, Way, answers};
use crate::support::raw::field;

const GET: &str = "GET {t}/ HTTP/1.1\r\nHost: {o}\r\nConnection: close\r\n\r\n";

each_way!(
    they_pass_unchanged_except_for_hop_by_hop_headers,
    they_come_before_the_answer_that_follows_at_once,
    those_of_the_next_request_wait_for_the_answer_before,
    an_unrequested_100_is_withheld,
    a_flood_of_them_is_bounded,
);

async fn they_pass_unchanged_except_for_hop_by_hop_headers(way: Way) {
    let lane = way.lane().await;
    let (mut client, mut server) = lane.exchange(GET).await;
    server.request().await.unwrap();
    server
        .send(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nConnection: x-own\r\nX-Own: 1\r\n\
               Proxy-Status: edge, tollpass; reason=over-budget\r\n\r\n",
        )
        .await;
    let hints = client.head().await;
    assert_eq!(
        lane.show(hints.as_bytes()),
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\nproxy-status: edge\r\nvia: 1.1 tollpass\r\n\r\n"
    );
    server.send("HTTP/1.1 102 Processing\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 102 "));
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.rest().await, b"ok");
}

async fn they_come_before_the_answer_that_follows_at_once(way: Way) {
    let lane = way.lane().await;
    for _ in 0..20 {
        answers(
            &lane,
            GET,
            &[(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
                Reaches(
                    "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nvia: 1.1 tollpass\r\n\r\n\
                     HTTP/1.1 200 OK\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\nab",
                ),
            )],
        )
        .await;
    }
}

async fn those_of_the_next_request_wait_for_the_answer_before(way: Way) {
    let lane = way.lane().await;
    let both =
        "GET {t}/1 HTTP/1.1\r\nHost: {o}\r\n\r\nGET {t}/2 HTTP/1.1\r\nHost: {o}\r\nConnection: close\r\n\r\n";
    let (mut client, mut server) = lane.exchange(both).await;
    server.request().await.unwrap();
    let body = "x".repeat(3_000_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n{body}");
    let serving = async {
        server.send(answer).await;
        server.request().await.unwrap();
        server.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").await;
        server
    };
    let (_server, received) = tokio::join!(serving, client.rest());
    let received = String::from_utf8(received).unwrap();
    let (first, second) = received.split_at(received.rfind('x').unwrap() + 1);
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with(&body));
    assert!(second.starts_with("HTTP/1.1 103 ") && second.contains("HTTP/1.1 204 "), "{second}");
}

async fn an_unrequested_100_is_withheld(way: Way) {
    let lane = way.lane().await;
    answers(
        &lane,
        GET,
        &[(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
            Reaches(
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\nab",
            ),
        )],
    )
    .await;
}

async fn a_flood_of_them_is_bounded(way: Way) {
    let lane = way.lane().await;
    let (mut client, mut server) = lane.exchange(GET).await;
    server.request().await.unwrap();
    // The client reads nothing: interim responses that do not fit are dropped, and the final response arrives.
    let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(60_000));
    for _ in 0..500 {
        server.send(&hints).await;
    }
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let head = loop {
        let head = client.head().await;
        if !head.starts_with("HTTP/1.1 103 ") {
            break head;
        }
    };
    assert_eq!(field(&head, "content-length"), Some("2"), "{head}");
}
