//! Several requests on one connection, and what remains after an error.

use super::Way;
use crate::support::raw::{Raw, field};

each_way!(
    requests_that_come_together_are_answered_in_order,
    after_a_refusal_nothing_more_is_read,
    the_rest_of_an_unread_body_is_not_a_request,
    an_answer_to_a_large_upload_arrives_though_the_origin_hangs_up,
);

async fn requests_that_come_together_are_answered_in_order(way: Way) {
    let lane = way.lane().await;
    let both = "POST {t}/1 HTTP/1.1\r\nHost: {o}\r\nContent-Length: 3\r\n\r\nabcGET {t}/2 HTTP/1.1\r\nHost: {o}\r\n\r\n";
    let (mut client, mut server) = lane.exchange(both).await;
    assert!(server.request().await.unwrap().ends_with(b"abc"));
    assert!(server.is_quiet().await, "the second one waits for its turn");
    server.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 201 "));
    assert!(server.request().await.unwrap().starts_with(b"GET /2 "));
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
}

async fn after_a_refusal_nothing_more_is_read(way: Way) {
    let lane = way.lane().await;
    let next = "GET {t}/smuggled HTTP/1.1\r\nHost: {o}\r\n\r\n";
    for bad in [
        "GET {t}/ HTTP/1.1\r\n\r\n",
        "GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX : 1\r\n\r\n",
        "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 3, 3\r\n\r\nabc",
        "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST http://u@{o}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let mut client = lane.asking(format!("{bad}{next}{next}")).await;
        let answers = String::from_utf8(client.rest().await).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{bad}: {answers}");
        assert!(lane.origin.is_left_alone().await, "{bad}");
    }
}

async fn the_rest_of_an_unread_body_is_not_a_request(way: Way) {
    let lane = way.lane().await;
    let upload = "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 1000000\r\n\r\n";
    let (mut client, mut server) = lane.exchange(upload).await;
    server.head().await;
    server.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    drop(server);
    assert!(client.head().await.starts_with("HTTP/1.1 413 "));
    let next = lane.fill("GET {t}/smuggled HTTP/1.1\r\nHost: {o}\r\n\r\n");
    client.try_send(next).await;
    assert_eq!(client.rest().await, b"");
    assert!(lane.origin.is_left_alone().await);
}

async fn an_answer_to_a_large_upload_arrives_though_the_origin_hangs_up(way: Way) {
    let lane = way.lane().await;
    for status in [413, 402, 200] {
        for size in [0, 1, 100, 100_000, 3_000_000] {
            let upload = "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 100000000\r\n\r\n";
            let (client, mut server) = lane.exchange(upload).await;
            server.head().await;
            let Raw { stream, .. } = client;
            let (mut from_proxy, mut to_proxy) = tokio::io::split(stream);
            let sending = tokio::spawn(async move {
                let piece = vec![b'x'; 50_000];
                for _ in 0..2000 {
                    if tokio::io::AsyncWriteExt::write_all(&mut to_proxy, &piece).await.is_err() {
                        break;
                    }
                }
            });
            server.exactly(size).await;
            // It closes with unread bytes, which resets the connection.
            server.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\nenoug")).await;
            drop(server);
            let mut answer = Vec::new();
            // A reset at the end does not affect what came before.
            let reading = tokio::io::AsyncReadExt::read_to_end(&mut from_proxy, &mut answer);
            let _ = crate::support::raw::soon("the end", reading).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{size}: {answer:?}");
            assert!(answer.ends_with("enoug"), "{size}: {answer:?}");
            assert_eq!(field(&answer, "content-length"), Some("5"));
            sending.abort();
        }
    }
}
