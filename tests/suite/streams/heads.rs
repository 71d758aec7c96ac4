//! The contents and size limits of heads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tollpass::proxy::{Body, ForwardError};

use super::{ONLY_HTTP_1, ONLY_HTTP_2, Way, asked, get};
use crate::support::frames::{DATA, END, END_HEADERS, Frames, HEADERS};
use crate::support::raw::soon;
use crate::support::secure::Secure;

/// Repeats a request's head.
async fn mirror(way: &Way, alpn: &[&str]) -> Secure {
    let config = way.notary.certify("127.0.0.1", alpn).await;
    Secure::serve(config, |request: Request<Incoming>| async move {
        let (head, _) = request.into_parts();
        let mut text = format!("{} {}\n", head.method, head.uri);
        for (name, value) in &head.headers {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        Response::new(text)
    })
    .await
}

#[tokio::test]
async fn each_version_gets_its_own_head_and_nothing_of_the_other() {
    let way = Way::open();
    for alpn in [ONLY_HTTP_1, ONLY_HTTP_2] {
        let origin = mirror(&way, alpn).await;
        let here = origin.address;
        let mut request = get(here, "/a?b");
        for (name, value) in
            [("host", "elsewhere"), ("te", "trailers"), ("connection", "te, x-mine, keep-alive")]
        {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request.headers_mut().insert("x-mine", "1".parse().unwrap());
        let (status, text) = way.ask(request).await.unwrap();
        assert_eq!(status, 200);
        assert!(
            text.contains("te: trailers\n") && !text.contains("x-mine") && !text.contains("keep-alive"),
            "{text}"
        );
        if alpn == ONLY_HTTP_2 {
            assert!(text.starts_with(&format!("GET https://{here}/a?b\n")), "{text}");
            assert!(!text.contains("host:") && !text.contains("connection"), "{text}");
        } else {
            assert!(text.starts_with("GET /a?b\n"), "{text}");
            assert!(text.contains(&format!("host: {here}\n")) && text.contains("connection: te\n"), "{text}");
        }
        // A body of unknown length is chunked in one version only.
        let (_, text) = way
            .ask(asked("POST", here, "/", Body::with_trailers("x", Some(Default::default()))))
            .await
            .unwrap();
        assert_eq!(text.contains("transfer-encoding: chunked"), alpn == ONLY_HTTP_1, "{text}");
    }
}

#[tokio::test]
async fn a_head_of_200_kib_arrives_in_either_version_and_a_larger_one_is_requested_once() {
    let way = Way::open();
    for alpn in [ONLY_HTTP_1, ONLY_HTTP_2] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let config = way.notary.certify("127.0.0.1", alpn).await;
        let origin = Secure::serve(config, move |request: Request<Incoming>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let size: usize = request.uri().path()[1..].parse().unwrap();
            let mut response = Response::new(String::new());
            // Several headers, and incompressible values.
            for piece in 0..8 {
                let value: String =
                    (0..size * 1024 / 8).map(|at| char::from(b'!' + (at % 90) as u8)).collect();
                response.headers_mut().insert(
                    header::HeaderName::try_from(format!("x-{piece}")).unwrap(),
                    value.parse().unwrap(),
                );
            }
            async move { response }
        })
        .await;
        for size in [1, 20, 60, 200] {
            let answer = way.head(get(origin.address, &format!("/{size}"))).await.unwrap();
            let length: usize = answer.headers().values().map(http::HeaderValue::len).sum();
            assert!(length >= size * 1024, "{alpn:?} {size}: {length}");
        }
        for size in [260, 300, 800] {
            let before = count.load(Ordering::SeqCst);
            let error = way.head(get(origin.address, &format!("/{size}"))).await.unwrap_err();
            assert!(matches!(error, ForwardError::HeadTooLarge), "{alpn:?} {size}: {error}");
            assert_eq!(count.load(Ordering::SeqCst), before + 1, "{alpn:?} {size}");
        }
    }
}

#[tokio::test]
async fn a_head_has_no_more_fields_than_allowed_in_either_version() {
    let way = Way::with(|settings| settings.limits.head_fields = 20);
    for alpn in [ONLY_HTTP_1, ONLY_HTTP_2] {
        let config = way.notary.certify("127.0.0.1", alpn).await;
        let origin = Secure::serve(config, |request: Request<Incoming>| async move {
            let mut response = Response::new(String::new());
            for _ in 0..request.uri().path()[1..].parse().unwrap() {
                response.headers_mut().append("x-some", "1".parse().unwrap());
            }
            response
        })
        .await;
        assert!(way.head(get(origin.address, "/15")).await.is_ok());
        let error = way.head(get(origin.address, "/25")).await.unwrap_err();
        assert!(matches!(error, ForwardError::HeadTooLarge), "{alpn:?}: {error}");
    }
}

#[tokio::test]
async fn each_origin_sees_another_name_of_ours_and_clients_none() {
    let way = Way::open();
    let (one, other) = (mirror(&way, ONLY_HTTP_2).await, mirror(&way, ONLY_HTTP_2).await);
    let mut entries = Vec::new();
    for origin in [&one, &one, &other] {
        let answer = way.head(get(origin.address, "/")).await.unwrap();
        assert_eq!(answer.headers()[header::VIA], "2.0 tollpass");
        let (_, text) = way.ask(get(origin.address, "/")).await.unwrap();
        entries.push(text.lines().find_map(|line| line.strip_prefix("via: ")).unwrap().to_owned());
    }
    assert_eq!(entries[0], entries[1]);
    assert_ne!(entries[0], entries[2]);
    // A request that returns with the entry of its origin has been here; with another origin's it has not.
    let mut back = get(one.address, "/");
    back.headers_mut().insert(header::VIA, entries[0].parse().unwrap());
    assert!(matches!(way.head(back).await, Err(ForwardError::Loop)));
    let mut on = get(one.address, "/");
    on.headers_mut().insert(header::VIA, entries[2].parse().unwrap());
    assert!(way.head(on).await.is_ok());
}

/// A payment whose answer cannot be read was made, and must not be presented again as one that was lost.
#[tokio::test]
async fn a_head_of_http_2_that_is_malformed_is_told_as_such() {
    let way = Way::open();
    // A name in capitals, and a value with a line break.
    for head in [&b"\x88\x00\x03X-A\x011"[..], b"\x88\x00\x01x\x04a\r\nb"] {
        let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
        let origin = Secure::accept(config, move |stream| async move {
            let mut frames = Frames::greet(stream, &[]).await;
            let stream = frames.request().await.unwrap();
            frames.write(HEADERS, END | END_HEADERS, stream, head).await;
            frames.hang().await;
        })
        .await;
        let error = way.head(get(origin.address, "/")).await.unwrap_err();
        assert!(matches!(error, ForwardError::BadAnswer(_)), "{head:?}: {error}");
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_before_its_end_is_no_whole_answer() {
    const RST_STREAM: u8 = 3;
    let way = Way::open();
    for is_whole in [true, false] {
        let config = way.notary.certify("127.0.0.1", ONLY_HTTP_2).await;
        let origin = Secure::accept(config, move |stream| async move {
            let mut frames = Frames::greet(stream, &[]).await;
            let stream = frames.request().await.unwrap();
            frames.write(HEADERS, END_HEADERS, stream, &[0x88]).await;
            frames.write(DATA, if is_whole { END } else { 0 }, stream, b"hello").await;
            // NO_ERROR.
            frames.write(RST_STREAM, 0, stream, &[0; 4]).await;
            frames.hang().await;
        })
        .await;
        let answer = way.head(get(origin.address, "/")).await.unwrap();
        let body = soon("a body", answer.into_body().collect()).await;
        assert_eq!(body.is_ok(), is_whole, "{body:?}");
    }
}
