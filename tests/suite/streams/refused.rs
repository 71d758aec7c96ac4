//! Requests that an origin says it has not processed are resent, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Response;
use tollpass::proxy::{Body, ForwardError};

use super::{ONLY_HTTP_2, Way, asked, get};
use crate::support::frames::{Act, DATA, END, Frames, scripted};
use crate::support::secure::Secure;

fn body(method: &str) -> Body {
    if method == "GET" { Body::Empty } else { Body::full("what is sent") }
}

#[tokio::test]
async fn requests_after_a_goaway_are_sent_again_whatever_their_method() {
    let way = Way::open();
    for method in ["GET", "POST", "DELETE", "PATCH"] {
        let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
        let connections = Arc::new(AtomicUsize::new(0));
        let has_body = method != "GET";
        let origin = Secure::accept(config, move |stream| {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut frames = Frames::greet(stream, &[]).await;
                let stream = frames.request().await.unwrap();
                if number == 0 {
                    // The first request gets a response, the second one is too late.
                    frames.answer(stream).await;
                    let next = frames.request().await.unwrap();
                    if has_body {
                        while frames.read().await.is_some_and(|frame| frame.kind != DATA) {}
                    }
                    frames.go_away(next - 2).await;
                    return;
                }
                if has_body {
                    // The whole body is sent again.
                    while frames
                        .read()
                        .await
                        .is_some_and(|frame| frame.kind != DATA || frame.flags & END == 0)
                    {
                    }
                }
                frames.answer(stream).await;
                frames.hang().await;
            }
        })
        .await;
        assert_eq!(way.ask(get(origin.address, "/")).await.unwrap().0, 200);
        let again = way.ask(asked(method, origin.address, "/", body(method))).await;
        assert_eq!(again.unwrap_or_else(|error| panic!("{method}: {error}")).0, 200);
        assert_eq!(origin.accepted(), 2, "{method}");
    }
}

/// An invalid head ends a connection, and proves nothing about other requests on it.
#[tokio::test]
async fn requests_beside_an_unreadable_head_are_sent_again() {
    let way = Way::open();
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let origin = Secure::accept(config, move |stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut frames = Frames::greet(stream, &[]).await;
            let first = frames.request().await.unwrap();
            if number == 0 {
                // An established connection takes both of the following requests.
                frames.answer(first).await;
                let one = frames.request().await.unwrap();
                let other = frames.request().await.unwrap();
                frames.write_unreadable_head(one.min(other)).await;
                return;
            }
            frames.answer(first).await;
            frames.hang().await;
        }
    })
    .await;
    assert_eq!(way.ask(get(origin.address, "/")).await.unwrap().0, 200);
    for answer in join_all([way.ask(get(origin.address, "/1")), way.ask(get(origin.address, "/2"))]).await {
        assert_eq!(answer.unwrap().0, 200);
    }
    assert_eq!(origin.accepted(), 3);
}

#[tokio::test]
async fn connections_that_end_after_a_few_requests_fail_none() {
    let way = Way::open();
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let origin = Secure::accept(config, |stream| async move {
        let mut frames = Frames::greet(stream, &[]).await;
        let mut last = 0;
        for _ in 0..3 {
            let Some(stream) = frames.request().await else { return };
            frames.answer(stream).await;
            last = stream;
        }
        // As servers with a request limit do: requests that are already in flight are lost.
        frames.go_away(last).await;
        while frames.read().await.is_some() {}
    })
    .await;
    for _ in 0..5 {
        let asked = (0..16).map(|_| way.ask(asked("POST", origin.address, "/", Body::full("x"))));
        for answer in join_all(asked).await {
            assert_eq!(answer.unwrap().0, 200);
        }
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_once_and_no_more() {
    let way = Way::open();
    for (refusals, expected) in [(1, Some("what is sent")), (2, None)] {
        let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
        let asks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asks);
        let origin = scripted(config, move |_| {
            if counted.fetch_add(1, Ordering::SeqCst) < refusals {
                return Act::Refuse;
            }
            Act::Answer(Response::new(Bytes::from_static(b"what is sent")))
        })
        .await;
        let answer = way.ask(asked("POST", origin.address, "/", body("POST"))).await;
        assert_eq!(asks.load(Ordering::SeqCst), 2);
        match (answer, expected) {
            (Ok((status, text)), Some(expected)) => assert_eq!((status, text.as_str()), (200, expected)),
            (Err(ForwardError::NotProcessed { is_repeated: true, .. }), None) => {}
            (answer, _) => panic!("{answer:?}"),
        }
    }
}

#[tokio::test]
async fn a_stale_connection_to_an_origin_of_http_2_alone_is_followed_by_another_of_http_2() {
    let way = Way::open();
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let origin = Secure::accept(config, move |stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut frames = Frames::greet(stream, &[]).await;
            let stream = frames.request().await.unwrap();
            frames.answer(stream).await;
            if number == 0 {
                // Closed while the next request is being sent.
                frames.request().await;
                return;
            }
            frames.hang().await;
        }
    })
    .await;
    for _ in 0..2 {
        assert_eq!(way.ask(get(origin.address, "/")).await.unwrap().0, 200);
    }
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test]
async fn requests_that_a_goaway_counts_as_processed_are_not_sent_again() {
    let way = Way::open();
    for method in ["POST", "DELETE", "GET"] {
        let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
        let asks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asks);
        let origin = scripted(config, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Act::Leave
        })
        .await;
        let error = way.ask(asked(method, origin.address, "/", body(method))).await.unwrap_err();
        assert!(matches!(error, ForwardError::Lost(_)), "{method}: {error:?}");
        assert_eq!(asks.load(Ordering::SeqCst), 1, "{method}");
    }
}

#[tokio::test]
async fn a_connection_that_the_origin_calls_excessive_gets_no_more_and_only_safe_requests_are_sent_again() {
    let way = Way::open();
    for (method, expected) in [("GET", Some(2)), ("POST", None)] {
        let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
        let asks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asks);
        let origin = scripted(config, move |_| {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                return Act::Reset(h2::Reason::ENHANCE_YOUR_CALM);
            }
            Act::Answer(Response::new(Bytes::from_static(b"calm")))
        })
        .await;
        let answer = way.ask(asked(method, origin.address, "/", body(method))).await;
        match (answer, expected) {
            (Ok((200, _)), Some(count)) => assert_eq!(asks.load(Ordering::SeqCst), count),
            (Err(ForwardError::Lost(_)), None) => assert_eq!(asks.load(Ordering::SeqCst), 1),
            (answer, _) => panic!("{method}: {answer:?}"),
        }
        assert_eq!(way.ask(asked(method, origin.address, "/", body(method))).await.unwrap().0, 200);
        assert_eq!(origin.accepted(), 2, "{method}");
    }
}
