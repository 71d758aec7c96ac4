//! Timeouts. The tested one is short, all others are long.

use std::time::{Duration, Instant};

use tollpass::limits::Limits;
use tollpass::proxy::ProxySettings;

use super::Way;
use crate::support::raw::{Raw, soon};

const SHORT: Duration = Duration::from_millis(200);

each_way!(
    a_slow_head_is_not_an_idle_connection,
    an_idle_connection_ends,
    stalled_exchanges_are_cut_and_active_ones_are_not,
    endless_exchanges_are_cut_although_they_move,
    a_stalled_upgraded_connection_is_cut_too,
);

/// These tests are about silence, so there is no value to wait for.
async fn silence(how_long: Duration) {
    tokio::time::sleep(how_long).await;
}

/// All timeouts long, except those that `change` shortens.
fn endless(change: impl FnOnce(&mut Limits)) -> ProxySettings {
    let long = Duration::from_secs(3600);
    let mut limits = Limits {
        head_timeout: long,
        keepalive_timeout: long,
        stream_idle_timeout: long,
        exchange_timeout: long,
        ..Limits::default()
    };
    change(&mut limits);
    ProxySettings { limits, ..ProxySettings::default() }
}

async fn closes_by_itself(mut client: Raw) -> Vec<u8> {
    let begun = Instant::now();
    let rest = client.rest().await;
    assert!(begun.elapsed() > SHORT / 4, "it was closed at once");
    rest
}

async fn a_slow_head_is_not_an_idle_connection(way: Way) {
    let lane = way.lane_with(endless(|limits| limits.head_timeout = SHORT)).await;
    let slow = lane.asking("GET {t}/ HTTP/1.1\r\nHos").await;
    assert_eq!(closes_by_itself(slow).await, b"");
    // A slow trickle does not help.
    let mut dripping = lane.connect().await;
    let drip = async {
        while tokio::io::AsyncWriteExt::write_all(&mut dripping.stream, b"G").await.is_ok() {
            silence(SHORT / 10).await;
        }
    };
    soon("the end of a dripping head", drip).await;

    // No request was begun on this one, however long it has been open.
    let mut idle = lane.connect().await;
    silence(SHORT * 2).await;
    idle.send(lane.fill("GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n")).await;
    let mut server = lane.accept().await;
    server.request().await.unwrap();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    idle.head().await;
    silence(SHORT * 2).await;
    idle.send(lane.fill("GET {t}/2 HTTP/1.1\r\nHost: {o}\r\n\r\n")).await;
    server.request().await.unwrap();
    idle.send("GET ").await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    idle.head().await;
}

async fn an_idle_connection_ends(way: Way) {
    let lane = way.lane_with(endless(|limits| limits.keepalive_timeout = SHORT)).await;
    assert_eq!(closes_by_itself(lane.connect().await).await, b"");
    let (mut client, mut server) = lane.exchange("GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n").await;
    server.request().await.unwrap();
    // A request in progress is not idle.
    silence(SHORT * 2).await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.head().await;
    assert_eq!(closes_by_itself(client).await, b"");
}

async fn stalled_exchanges_are_cut_and_active_ones_are_not(way: Way) {
    let lane = way.lane_with(endless(|limits| limits.stream_idle_timeout = SHORT)).await;
    let (client, mut server) = lane.exchange("GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n").await;
    server.request().await.unwrap();
    assert_eq!(closes_by_itself(client).await, b"", "no answer comes");
    assert_eq!(server.rest().await, b"", "and the origin learns of it");

    let (mut client, mut server) = lane.exchange("GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n").await;
    server.request().await.unwrap();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n").await;
    client.head().await;
    for _ in 0..10 {
        silence(SHORT / 4).await;
        server.send("x").await;
    }
    assert_eq!(client.exactly(10).await, b"xxxxxxxxxx");
    assert_eq!(closes_by_itself(client).await, b"");

    // Between requests another timeout applies.
    let (mut idle, mut server) = lane.exchange("GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n").await;
    server.request().await.unwrap();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    idle.head().await;
    silence(SHORT * 4).await;
    assert!(idle.is_quiet().await);
}

async fn endless_exchanges_are_cut_although_they_move(way: Way) {
    let lane = way.lane_with(endless(|limits| limits.exchange_timeout = SHORT)).await;
    let (mut client, mut server) = lane.exchange("GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n").await;
    server.request().await.unwrap();
    server.send("HTTP/1.1 200 OK\r\n\r\n").await;
    client.head().await;
    let events = async {
        while tokio::io::AsyncWriteExt::write_all(&mut server.stream, b"event\n").await.is_ok() {
            silence(SHORT / 10).await;
        }
    };
    let (rest, ()) = tokio::join!(closes_by_itself(client), soon("the end of the events", events));
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it does not look whole");
}

async fn a_stalled_upgraded_connection_is_cut_too(way: Way) {
    let lane = way.lane_with(endless(|limits| limits.stream_idle_timeout = SHORT)).await;
    let wish = "GET {t}/ HTTP/1.1\r\nHost: {o}\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
    let (mut client, mut server) = lane.exchange(wish).await;
    server.request().await.unwrap();
    server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n").await;
    client.head().await;
    // Traffic in one direction keeps it open.
    for _ in 0..10 {
        silence(SHORT / 4).await;
        server.send("x").await;
    }
    assert_eq!(client.exactly(10).await, b"xxxxxxxxxx");
    for _ in 0..10 {
        silence(SHORT / 4).await;
        client.send("y").await;
    }
    assert_eq!(closes_by_itself(client).await, b"");
    assert_eq!(server.rest().await, b"yyyyyyyyyy");
}
