//! An origin that closed many pooled connections: idempotent requests still get a response.

use futures_util::future::join_all;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tollpass::proxy::{Body, Forward, ProxySettings};
use tower::ServiceExt as _;

use crate::support::raw::{Raw, RawOrigin, soon};

/// The number of idle connections.
const IDLE: usize = 5;

#[tokio::test]
async fn several_dead_connections_in_a_row_do_not_fail_a_request() {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let origin = RawOrigin::start().await;
        let forward = Forward::new(&ProxySettings::default());
        let request = || {
            let uri = format!("http://{}/", origin.address);
            Request::builder().method(method.clone()).uri(uri).body(Body::Empty).unwrap()
        };
        let ask = || async {
            let answer = forward.clone().oneshot(request()).await.unwrap();
            let status = answer.status();
            answer.into_body().collect().await.unwrap();
            status
        };
        let mut idle = Vec::new();
        let accept = async {
            for _ in 0..IDLE {
                idle.push(origin.accept().await);
            }
            for server in &mut idle {
                server.head().await;
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        };
        let (answers, ()) =
            tokio::join!(soon("the first answers", join_all((0..IDLE).map(|_| ask()))), accept);
        assert_eq!(answers, [StatusCode::OK; IDLE]);
        // All runs on one thread: this lets the connections return to the pool.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }

        // Each one accepts the next request and is then closed.
        let close = join_all(idle.into_iter().map(|mut server: Raw| async move {
            server.head().await;
            drop(server);
            std::future::pending::<()>().await;
        }));
        let serve = async {
            let mut server = origin.accept().await;
            server.head().await;
            server.send("HTTP/1.1 299 Again\r\nContent-Length: 0\r\n\r\n").await;
            std::future::pending::<()>().await;
        };
        let answer = tokio::select! {
            answer = soon("an answer", ask()) => answer,
            _ = close => unreachable!("it never ends"),
            () = serve => unreachable!("it never ends"),
        };
        assert_eq!(answer.as_u16(), 299, "{method}");
    }
}
