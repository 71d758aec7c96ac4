use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::poll_immediate;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::proxy::replay::*;
use crate::proxy::{Body, BodyError};

fn limits(directory: &tempfile::TempDir) -> ReplayLimits {
    ReplayLimits { memory: 10, file: 20, directory: directory.path().to_owned() }
}

/// `size` bytes of which no two neighbouring runs are equal.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

/// A request body as the server reads it, and the client's end of the connection.
async fn upload(framing: &str) -> (Body, DuplexStream) {
    let (mut client, server) = duplex(1 << 20);
    let (send, mut bodies) = mpsc::unbounded_channel();
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let _ = send.send(request.into_body());
        std::future::pending::<Result<http::Response<Body>, Infallible>>()
    });
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service));
    client.write_all(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n").as_bytes()).await.unwrap();
    (bodies.recv().await.unwrap().into(), client)
}

/// The same, with the body sent whole.
async fn uploaded(content: &[u8], is_chunked: bool) -> (Body, DuplexStream) {
    if !is_chunked {
        let (body, mut client) = upload(&format!("Content-Length: {}", content.len())).await;
        client.write_all(content).await.unwrap();
        return (body, client);
    }
    let (body, mut client) = upload("Transfer-Encoding: chunked").await;
    for piece in content.chunks(7) {
        client.write_all(&chunk(piece)).await.unwrap();
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    (body, client)
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

async fn whole(body: Body) -> Result<Vec<u8>, BodyError> {
    Ok(body.collect().await?.to_bytes().to_vec())
}

/// Reads at least `count` bytes.
async fn some(body: &mut Body, count: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < count {
        read.extend_from_slice(body.frame().await.unwrap().unwrap().data_ref().unwrap());
    }
    read
}

#[tokio::test]
async fn a_body_of_any_size_up_to_the_limit_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    for is_chunked in [false, true] {
        for size in [0, 1, 9, 10, 11, 12, 29, 30] {
            let content = pattern(size);
            let (body, _client) = uploaded(&content, is_chunked).await;
            let (first, kept) = keep(body, &limits(&directory));
            assert_eq!(whole(first).await.unwrap(), content, "{size}, chunked: {is_chunked}");
            for round in 0..3 {
                let again = kept.replay().await.unwrap();
                assert_eq!(again.size_hint().exact(), Some(size as u64), "{size}, chunked: {is_chunked}");
                assert_eq!(again.is_end_stream(), size == 0);
                assert_eq!(
                    whole(again).await.unwrap(),
                    content,
                    "{size}, chunked: {is_chunked}, round {round}"
                );
            }
        }
    }
    assert_eq!(directory.path().read_dir().unwrap().count(), 0, "the temporary file has no name");
}

#[tokio::test]
async fn a_body_past_the_limit_passes_but_does_not_come_again() {
    let directory = tempfile::tempdir().unwrap();
    for is_chunked in [false, true] {
        for size in [31, 32, 5000] {
            let content = pattern(size);
            let (body, _client) = uploaded(&content, is_chunked).await;
            let (first, kept) = keep(body, &limits(&directory));
            assert_eq!(kept.check().is_ok(), is_chunked, "a declared length is judged at once");
            assert_eq!(whole(first).await.unwrap(), content, "{size}, chunked: {is_chunked}");
            assert_eq!(kept.check(), Err(NotReplayable::TooLarge { limit: 30 }));
            assert_eq!(kept.replay().await.err(), Some(NotReplayable::TooLarge { limit: 30 }));
        }
    }
}

#[tokio::test]
async fn many_pieces_of_a_large_body_come_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let limits = ReplayLimits { memory: 100_000, file: 1_000_000, directory: directory.path().to_owned() };
    let content = pattern(700_001);
    let (body, _client) = uploaded(&content, false).await;
    let (first, kept) = keep(body, &limits);
    assert!(whole(first).await.unwrap() == content);
    for _ in 0..2 {
        assert!(whole(kept.replay().await.unwrap()).await.unwrap() == content);
    }
}

#[tokio::test]
async fn a_declared_body_is_sent_again_while_the_rest_still_comes() {
    let directory = tempfile::tempdir().unwrap();
    let content = pattern(25);
    let (body, mut client) = upload("Content-Length: 25").await;
    client.write_all(&content[..15]).await.unwrap();
    let (mut first, kept) = keep(body, &limits(&directory));
    assert_eq!(some(&mut first, 15).await, content[..15]);

    let mut second = kept.replay().await.unwrap();
    assert!(matches!(first.frame().await, Some(Err(BodyError::Superseded))));
    assert_eq!(some(&mut second, 15).await, content[..15]);
    client.write_all(&content[15..20]).await.unwrap();
    assert_eq!(some(&mut second, 5).await, content[15..20]);
    drop(second);

    let third = kept.replay().await.unwrap();
    client.write_all(&content[20..]).await.unwrap();
    assert_eq!(whole(third).await.unwrap(), content);
    assert_eq!(whole(kept.replay().await.unwrap()).await.unwrap(), content);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_again_once_it_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let content = pattern(25);
    let (body, mut client) = upload("Transfer-Encoding: chunked").await;
    client.write_all(&chunk(&content[..15])).await.unwrap();
    let (mut first, kept) = keep(body, &limits(&directory));
    assert_eq!(first.size_hint().exact(), None);
    assert_eq!(some(&mut first, 15).await, content[..15]);

    let mut replay = std::pin::pin!(kept.replay());
    assert!(poll_immediate(replay.as_mut()).await.is_none(), "its length is not known yet");
    client.write_all(&chunk(&content[15..])).await.unwrap();
    client.write_all(b"0\r\n\r\n").await.unwrap();
    let again = replay.await.unwrap();
    assert_eq!(again.size_hint().exact(), Some(25));
    assert_eq!(whole(again).await.unwrap(), content);
}

#[tokio::test]
async fn trailers_are_sent_again_with_the_body() {
    let directory = tempfile::tempdir().unwrap();
    for size in [0, 5, 25] {
        let content = pattern(size);
        let (body, mut client) = upload("Transfer-Encoding: chunked").await;
        if size > 0 {
            client.write_all(&chunk(&content)).await.unwrap();
        }
        client.write_all(b"0\r\nX-Sum: 1\r\nRDN-Balance: 7\r\n\r\n").await.unwrap();
        let (first, kept) = keep(body, &limits(&directory));
        let mut sendings = vec![first];
        for round in 0..3 {
            if round > 0 {
                let again = kept.replay().await.unwrap();
                assert_eq!(again.size_hint().exact(), None, "trailers have no place beside a length");
                assert!(!again.is_end_stream());
                sendings.push(again);
            }
            let collected = sendings.pop().unwrap().collect().await.unwrap();
            let trailers = collected.trailers().unwrap();
            assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &"1".parse().unwrap()), "{size} {round}");
            assert_eq!(collected.to_bytes(), content);
        }
    }
}

#[tokio::test]
async fn a_pass_that_waits_learns_that_it_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let (body, _client) = upload("Content-Length: 5").await;
    let (mut first, kept) = keep(body, &limits(&directory));
    assert!(poll_immediate(first.frame()).await.is_none());
    let waiting = tokio::spawn(async move { first.frame().await });
    tokio::task::yield_now().await;
    let _second = kept.replay().await.unwrap();
    let ended =
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it was not woken").unwrap();
    assert!(matches!(ended, Some(Err(BodyError::Superseded))));
}

#[tokio::test]
async fn a_client_that_leaves_is_an_error_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    for framing in ["Content-Length: 25", "Transfer-Encoding: chunked"] {
        let (body, mut client) = upload(framing).await;
        client.write_all(b"5\r\nhello\r\n").await.unwrap();
        let (mut first, kept) = keep(body, &limits(&directory));
        some(&mut first, 5).await;
        let replaying = kept.replay();
        drop(client);
        match replaying.await {
            Ok(again) => assert!(matches!(whole(again).await, Err(BodyError::Incoming(_))), "{framing}"),
            Err(error) => assert!(matches!(error, NotReplayable::Broken(_)), "{framing}: {error}"),
        }
        assert!(matches!(kept.replay().await, Err(NotReplayable::Broken(_))), "{framing}");
    }
}

#[tokio::test]
async fn without_a_place_for_the_file_the_body_passes_once() {
    let directory = tempfile::tempdir().unwrap();
    let limits = ReplayLimits { directory: directory.path().join("missing"), ..limits(&directory) };
    let content = pattern(25);
    let (body, _client) = uploaded(&content, true).await;
    let (first, kept) = keep(body, &limits);
    assert_eq!(whole(first).await.unwrap(), content);
    assert!(matches!(kept.replay().await, Err(NotReplayable::Storage(_))));
}

#[tokio::test]
async fn an_answer_is_held_whole_or_streams_on() {
    const LIMIT: usize = 20;
    for is_chunked in [false, true] {
        for size in [0, 1, 19, 20, 21, 5000] {
            let content = pattern(size);
            let (body, _client) = uploaded(&content, is_chunked).await;
            match hold(body, LIMIT, Duration::from_secs(10)).await {
                Held::Whole { bytes, trailers } => {
                    assert!(size <= LIMIT && trailers.is_none());
                    assert_eq!(bytes, content);
                }
                Held::Past(body, why) => {
                    assert!(size > LIMIT && why == Past::Size);
                    assert_eq!(body.size_hint().exact(), (!is_chunked).then_some(size as u64));
                    assert_eq!(whole(body).await.unwrap(), content);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_slow_or_broken_answer_is_passed_on() {
    let (body, mut client) = upload("Content-Length: 10").await;
    client.write_all(b"hello").await.unwrap();
    let Held::Past(body, Past::Time) = hold(body, 20, Duration::from_millis(50)).await else {
        panic!("in time")
    };
    assert_eq!(body.size_hint().exact(), Some(10));
    client.write_all(b"world").await.unwrap();
    assert_eq!(whole(body).await.unwrap(), b"helloworld");

    let (body, mut client) = upload("Content-Length: 10").await;
    client.write_all(b"hello").await.unwrap();
    drop(client);
    let Held::Past(mut body, Past::Broken) = hold(body, 20, Duration::from_secs(10)).await else {
        panic!("whole")
    };
    assert_eq!(some(&mut body, 5).await, b"hello");
    assert!(matches!(body.frame().await, Some(Err(BodyError::Incoming(_)))));
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn the_trailers_of_an_answer_are_held_too() {
    let (body, mut client) = upload("Transfer-Encoding: chunked").await;
    client.write_all(b"2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n").await.unwrap();
    let Held::Whole { bytes, trailers } = hold(body, 20, Duration::from_secs(10)).await else {
        panic!("past")
    };
    assert_eq!(trailers.as_ref().unwrap()["x-sum"], "2");
    let collected = Body::with_trailers(bytes, trailers).collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "2");
    assert_eq!(collected.to_bytes(), "ok");
}
