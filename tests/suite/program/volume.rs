//! Large bodies in either direction pass through the real program without filling its memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tollpass::devnet::origin::{Kind, Resource};
use tollpass::protocol::Amount;

use crate::support::fair::{Fair, PRICE, empty};
use crate::support::origins;
use crate::support::payer::{Alice, Program};
use crate::support::wire::{Body, Wire};

const LENGTH: u64 = 1 << 30;
const PIECE: usize = 64 << 10;
/// By how much the program's memory may grow, in KiB.
const GROWTH: u64 = 20 << 10;

/// Resident memory, now and at its highest, in KiB.
fn resident(program: &Program) -> (u64, u64) {
    let path = format!("/proc/{}/status", program.child.id().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (kib("VmRSS:"), kib("VmHWM:"))
}

/// The program, after its first requests, with the memory it has then.
async fn warm(alice: &Alice, fair: &Fair) -> (Program, Wire, u64) {
    let serving = alice.serve(&[("TOLLPASS_LOG", "warn")]).await;
    let mut wire = Wire::connect(serving.address).await;
    for path in ["/free", "/size"] {
        let request = Request::get(format!("{}{path}", fair.origin.url())).body(empty()).unwrap();
        wire.ask(request).await.unwrap();
    }
    let (now, _) = resident(&serving);
    (serving, wire, now)
}

fn expect_little_growth(serving: &Program, before: u64) {
    let (now, highest) = resident(serving);
    let growth = highest.saturating_sub(before);
    eprintln!("resident: {before} KiB before, {now} KiB after, {highest} KiB at most: grew by {growth} KiB");
    assert!(growth < GROWTH, "{before} KiB before, {highest} KiB at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_of_one_gigabyte_streams() {
    let fair = Fair::with(|settings| {
        let kind = Kind::Size(LENGTH);
        settings.resources.push(Resource { path: "/large".to_owned(), price: Amount::from(PRICE), kind });
    })
    .await;
    let alice = Alice::with(&fair.market, crate::pays::QUICK).await;
    let (serving, mut wire, before) = warm(&alice, &fair).await;
    let request = Request::get(format!("{}/large", fair.origin.url())).body(empty()).unwrap();
    let answer = wire.head(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let (mut body, mut length) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().map_or(0, |data| data.len() as u64);
    }
    assert_eq!(length, LENGTH);
    expect_little_growth(&serving, before);
    serving.kill().await;
}

/// A body of unknown length.
fn endless() -> Body {
    let pieces = (0..LENGTH / PIECE as u64).map(|_| Ok(Frame::data(Bytes::from_static(&[b'.'; PIECE]))));
    StreamBody::new(futures_util::stream::iter(pieces)).boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_upload_of_one_gigabyte_streams() {
    let arrived = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&arrived);
    let taker = origins::serve(move |request: Request<hyper::body::Incoming>| {
        let arrived = Arc::clone(&counter);
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                let length = frame.unwrap().into_data().map_or(0, |data| data.len() as u64);
                arrived.fetch_add(length, Ordering::Relaxed);
            }
            Response::new(Full::new(Bytes::from_static(b"thanks")))
        }
    })
    .await;
    let fair = Fair::open().await;
    // The rule matches, so the body is kept until it is too large.
    let alice = Alice::with(&fair.market, crate::pays::QUICK).await;
    let (serving, mut wire, before) = warm(&alice, &fair).await;
    let request = Request::post(format!("http://{taker}/")).body(endless()).unwrap();
    let got = wire.ask(request).await.unwrap();
    assert_eq!((got.status, got.text()), (StatusCode::OK, "thanks"));
    assert_eq!(arrived.load(Ordering::Relaxed), LENGTH);
    expect_little_growth(&serving, before);
    serving.kill().await;
}
