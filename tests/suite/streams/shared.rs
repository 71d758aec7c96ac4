//! What one client does on a connection does not affect another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Response;
use http_body_util::BodyExt as _;
use tollpass::proxy::{Body, ForwardError};

use super::{ONLY_HTTP_2, Way, asked, get};
use crate::support::frames::{Act, Frames, GOAWAY, PING, scripted};
use crate::support::raw::soon;
use crate::support::secure::Secure;

/// More than any window.
const LARGE: usize = 8 << 20;

#[tokio::test]
async fn paused_downloads_do_not_stop_another_client() {
    let way = Way::open();
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let origin = scripted(config, |request| {
        let size = if request.uri().path() == "/large" { LARGE } else { 10_000 };
        Act::Answer(Response::new(Bytes::from(vec![7; size])))
    })
    .await;
    let mut paused = Vec::new();
    for _ in 0..40 {
        let mut answer = way.head(get(origin.address, "/large")).await.unwrap();
        // It has begun, and is not read further.
        soon("a piece", answer.frame()).await.unwrap().unwrap();
        paused.push(answer);
    }
    assert_eq!(way.ask(get(origin.address, "/small")).await.unwrap().1.len(), 10_000);
    // Not one connection for each.
    assert!(origin.accepted() <= 3, "{}", origin.accepted());
}

#[tokio::test]
async fn an_origin_that_allows_one_stream_gets_a_connection_for_each_client() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let way = Way::open();
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let origin = Secure::accept(config, |stream| async move {
        let mut frames = Frames::greet(stream, &[(MAX_CONCURRENT_STREAMS, 1)]).await;
        // A head without an end.
        let stream = frames.request().await.unwrap();
        frames.write(crate::support::frames::HEADERS, 4, stream, &[0x88]).await;
        frames.hang().await;
    })
    .await;
    let mut open = Vec::new();
    for count in 1..=5 {
        open.push(way.head(get(origin.address, "/")).await.unwrap());
        assert_eq!(origin.accepted(), count);
    }
}

#[tokio::test]
async fn an_upload_that_the_origin_does_not_read_stops_no_other() {
    let way = Way::open();
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let mut unread = Vec::new();
    let origin = scripted(config, move |request| {
        unread.push(request);
        Act::Answer(Response::new(Bytes::from_static(b"early")))
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(way.head(asked("POST", origin.address, "/", Body::full(vec![1; 1 << 20]))).await.unwrap());
    }
    let small = asked("POST", origin.address, "/", Body::full("small"));
    assert_eq!(way.ask(small).await.unwrap().1, "early");
    assert_eq!(origin.accepted(), 4);
}

#[tokio::test]
async fn small_uploads_that_the_origin_does_not_read_stop_no_other() {
    const SMALL: usize = 12 << 10;
    let way = Way::open();
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let mut unread = Vec::new();
    let origin = scripted(config, move |request| {
        if request.uri().path() == "/measured" {
            return Act::Measure(request.into_body());
        }
        unread.push(request);
        Act::Answer(Response::new(Bytes::from(vec![7; LARGE])))
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(way.head(asked("POST", origin.address, "/", Body::full(vec![1; SMALL]))).await.unwrap());
    }
    let next = asked("POST", origin.address, "/measured", Body::full(vec![1; SMALL]));
    assert_eq!(way.ask(next).await.unwrap().1, SMALL.to_string());
    // Several of them share one.
    assert!(origin.accepted() < 5, "{}", origin.accepted());
}

#[tokio::test]
async fn a_connection_without_requests_gets_no_ping_and_ends() {
    let way = Way::with(|settings| {
        settings.limits.ping_every = Duration::from_millis(200);
        settings.limits.pool_idle_timeout = Duration::from_secs(1);
    });
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let (saw, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let origin = Secure::accept(config, move |stream| {
        let saw = saw.clone();
        async move {
            let mut frames = Frames::greet(stream, &[]).await;
            let stream = frames.request().await.unwrap();
            frames.answer(stream).await;
            while let Some(frame) = frames.read().await {
                saw.send(frame.kind).unwrap();
            }
        }
    })
    .await;
    assert_eq!(way.ask(get(origin.address, "/")).await.unwrap().0, 200);
    let mut kinds = Vec::new();
    while let Some(kind) = soon("the end of the connection", seen.recv()).await {
        kinds.push(kind);
        if kind == GOAWAY {
            break;
        }
    }
    assert!(kinds.contains(&GOAWAY) && !kinds.contains(&PING), "{kinds:?}");
}

#[tokio::test]
async fn no_more_connections_rest_than_are_kept() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let way = Way::with(|settings| settings.limits.pool_idle_per_host = 2);
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let all = Arc::new(tokio::sync::Barrier::new(5));
    let origin = Secure::accept(config, move |stream| {
        let (ended, all) = (ended.clone(), Arc::clone(&all));
        async move {
            let mut frames = Frames::greet(stream, &[(MAX_CONCURRENT_STREAMS, 1)]).await;
            let stream = frames.request().await.unwrap();
            all.wait().await;
            frames.answer(stream).await;
            while frames.read().await.is_some() {}
            ended.send(()).unwrap();
        }
    })
    .await;
    for answer in join_all((0..5).map(|_| way.ask(get(origin.address, "/")))).await {
        assert_eq!(answer.unwrap().0, 200);
    }
    for _ in 0..3 {
        soon("the end of a connection", ends.recv()).await.unwrap();
    }
    assert!(ends.try_recv().is_err());
}

#[tokio::test]
async fn after_a_request_was_given_up_the_next_goes_on_another_connection() {
    let way = Way::open();
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let origin = Secure::accept(config, move |stream| {
        let (number, heard) = (connections.fetch_add(1, Ordering::SeqCst), heard.clone());
        async move {
            let mut frames = Frames::greet(stream, &[]).await;
            let mut answered = 0;
            while let Some(stream) = frames.request().await {
                // The first connection becomes silent after one response.
                if number > 0 || answered == 0 {
                    frames.answer(stream).await;
                    answered += 1;
                }
                heard.send(number).unwrap();
            }
        }
    })
    .await;
    assert_eq!(way.ask(get(origin.address, "/")).await.unwrap().0, 200);
    assert_eq!(hears.recv().await, Some(0));
    tokio::select! {
        _ = way.head(asked("POST", origin.address, "/", Body::Empty)) => panic!("it was answered"),
        number = hears.recv() => assert_eq!(number, Some(0)),
    }
    // Abandoned, and requested again.
    assert_eq!(way.ask(asked("POST", origin.address, "/", Body::Empty)).await.unwrap().0, 200);
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_ends_with_its_requests() {
    let moment = Duration::from_millis(50);
    let way =
        Way::with(|settings| (settings.limits.ping_every, settings.limits.ping_timeout) = (moment, moment));
    let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
    let (pinged, mut pings) = tokio::sync::mpsc::unbounded_channel();
    let origin = Secure::accept(config, move |stream| {
        let pinged = pinged.clone();
        async move {
            let mut frames = Frames::greet(stream, &[]).await;
            while let Some(frame) = frames.read().await {
                if frame.kind == PING {
                    pinged.send(()).unwrap();
                }
            }
        }
    })
    .await;
    let error = way.head(asked("POST", origin.address, "/", Body::Empty)).await.unwrap_err();
    assert!(matches!(error, ForwardError::Lost(_)), "{error}");
    assert!(pings.recv().await.is_some());
}
