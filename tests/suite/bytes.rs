//! HTTP/1 byte by byte: from the client to the origin and back. Ambiguous messages are rejected, or forwarded in an
//! unambiguous form.

use crate::support::lane::{Lane, Way};
use crate::support::raw::{PATIENCE, field};

/// Runs tests in each way that requests can reach the origin.
macro_rules! each_way {
    ($($test:ident),* $(,)?) => {
        mod plain {
            $(#[tokio::test] async fn $test() { super::$test(super::Way::Plain).await; })*
        }
        mod intercepted {
            $(#[tokio::test] async fn $test() { super::$test(super::Way::Intercepted).await; })*
        }
    };
}

mod answers;
mod expect;
mod framing;
mod heads;
mod interim;
mod limits;
mod order;
mod reach;
mod targets;

/// What happens to a request.
enum Fate {
    /// It is rejected with this status, its connection is closed, and no origin sees it.
    Refused(u16),
    /// It reaches the origin as these bytes.
    Passes(&'static str),
    /// The origin sees a beginning but never an end; the client gets this status.
    Breaks(u16),
}

use Fate::{Breaks, Passes, Refused};

/// Sends each request on a separate connection.
async fn requests(lane: &Lane, table: &[(&[u8], Fate)]) {
    let mut wrong = String::new();
    for (request, fate) in table {
        let found = async {
            match fate {
                Refused(status) => refused(lane, request, status).await,
                Passes(expected) => passes(lane, request, expected).await,
                Breaks(status) => breaks(lane, request, *status).await,
            }
        };
        let found = tokio::time::timeout(PATIENCE / 4, found).await;
        if let Err(found) = found.unwrap_or_else(|_| Err("nothing becomes of it".to_owned())) {
            wrong.push_str(&format!("{:?}\n  {found}\n", String::from_utf8_lossy(request)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

async fn refused(lane: &Lane, request: &[u8], status: &u16) -> Result<(), String> {
    let mut client = lane.asking(request).await;
    let answer = tokio::select! {
        answer = client.rest() => String::from_utf8_lossy(&answer).into_owned(),
        mut server = lane.accept() => {
            let reached = server.request().await.map(|reached| lane.show(&reached));
            return Err(format!("reached the origin: {reached:?}"));
        }
    };
    let found = answer.get("HTTP/1.1 ".len()..).and_then(|rest| rest.get(..3)?.parse().ok());
    // In a tunnel, a Host other than the tunnel's is misdirected, whatever else is wrong with it.
    if found != Some(*status) && (found, *status, lane.is_plain()) != (Some(421), 400, false) {
        return Err(format!("answered {answer:?}, not {status}"));
    }
    if field(&answer, "connection") != Some("close") || answer.matches("HTTP/1.").count() != 1 {
        return Err(format!("one answer, and the end of the connection: {answer:?}"));
    }
    if lane.origin.is_left_alone().await { Ok(()) } else { Err("the origin was connected to".to_owned()) }
}

async fn passes(lane: &Lane, request: &[u8], expected: &str) -> Result<(), String> {
    let mut client = lane.asking(request).await;
    let mut server = tokio::select! {
        answer = client.rest() => return Err(format!("answered {:?}", lane.show(&answer))),
        server = lane.accept() => server,
    };
    let Some(reached) = server.request().await else { return Err("broke off".to_owned()) };
    let reached = lane.show(&reached);
    if reached != expected {
        return Err(format!("got {reached:?}\n  for {expected:?}"));
    }
    if !server.is_quiet().await {
        return Err("more came than the request".to_owned());
    }
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    let head = client.head().await;
    if head.starts_with("HTTP/1.1 200 ") || head.starts_with("HTTP/1.0 200 ") { Ok(()) } else { Err(head) }
}

async fn breaks(lane: &Lane, request: &[u8], status: u16) -> Result<(), String> {
    let is_right = |answer: &[u8]| answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes());
    let mut client = lane.asking(request).await;
    let mut server = tokio::select! {
        answer = client.rest() => {
            // The error may be detected before anything has been forwarded.
            return if is_right(&answer) { Ok(()) } else { Err(format!("answered {:?}", lane.show(&answer))) };
        }
        server = lane.accept() => server,
    };
    // No more bytes follow: an incomplete message stays incomplete.
    client.finish().await;
    if let Some(reached) = server.request().await {
        return Err(format!("reached the origin: {:?}", lane.show(&reached)));
    }
    let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
    if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
        Ok(())
    } else {
        Err(format!("answered {answer:?}"))
    }
}

/// What happens to a response.
enum Told {
    /// The client gets this status instead.
    Instead(u16),
    /// It reaches the client as these bytes, and the connection ends cleanly.
    Reaches(&'static str),
}

use Told::{Instead, Reaches};

/// Sends each response to the same request, whose connection ends with it.
async fn answers(lane: &Lane, request: &str, table: &[(&[u8], Told)]) {
    let mut wrong = String::new();
    for (answer, told) in table {
        let (mut client, mut server) = lane.exchange(request).await;
        server.request().await.unwrap();
        server.try_send(answer).await;
        server.finish().await;
        drop(server);
        let found = lane.show(&client.rest().await);
        let is_right = match told {
            Instead(status) => found.starts_with(&format!("HTTP/1.1 {status} ")),
            Reaches(expected) => found == *expected,
        };
        if !is_right {
            wrong.push_str(&format!("{:?}\n  {found:?}\n", String::from_utf8_lossy(answer)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
