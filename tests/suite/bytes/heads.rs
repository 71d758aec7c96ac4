//! Request lines and headers.

use super::{Passes, Refused, Way, requests};

const OF_ROOT: &str = "GET / HTTP/1.1\r\nhost: {o}\r\nvia: 1.1 tollpass\r\n\r\n";
const WITH_X: &str = "GET / HTTP/1.1\r\nhost: {o}\r\nx: 1\r\nvia: 1.1 tollpass\r\n\r\n";

each_way!(
    a_request_line_is_as_it_should_be,
    a_field_line_is_as_it_should_be,
    a_bare_line_feed_goes_on_as_the_end_of_a_line,
    a_head_has_its_limits,
);

async fn a_request_line_is_as_it_should_be(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"GET  {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET\t{t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/  HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b" GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.2\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/2.0\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/0.9\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ http/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1 \r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1x\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"G(T {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"G\0T {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"{t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"\r\nGET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Passes(OF_ROOT)),
            (
                b"get {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n",
                Passes("get / HTTP/1.1\r\nhost: {o}\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
        ],
    )
    .await;
}

async fn a_field_line_is_as_it_should_be(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX : 1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX\t: 1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\n X: 1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\n Host: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\r\n 2\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\r\n\t2\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\n 2\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\n: 1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX Y: 1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX(: 1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX\0: 1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX\xc3\xbc: 1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\0\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\x0b\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\x7f\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\rY: 2\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\r\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\r\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\rHost: {o}\r\rX: 1\r\r", Refused(400)),
        ],
    )
    .await;
}

async fn a_bare_line_feed_goes_on_as_the_end_of_a_line(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"GET {t}/ HTTP/1.1\nHost: {o}\nX: 1\n\n", Passes(WITH_X)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\nX: 1\r\n\n", Passes(WITH_X)),
            (
                // One parser sees a value, another one a length: what is forwarded is a header of its own.
                b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\nContent-Length: 2\r\n\r\nab",
                Passes(
                    "POST / HTTP/1.1\r\nhost: {o}\r\nx: 1\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\n\r\nab",
                ),
            ),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX:    1 \t \r\n\r\n", Passes(WITH_X)),
        ],
    )
    .await;
}

async fn a_head_has_its_limits(way: Way) {
    let lane = way
        .lane_with(tollpass::proxy::ProxySettings {
            limits: tollpass::limits::Limits {
                head_bytes: 8192,
                head_fields: 10,
                ..tollpass::limits::Limits::default()
            },
            ..tollpass::proxy::ProxySettings::default()
        })
        .await;
    let long = format!("GET {{t}}/ HTTP/1.1\r\nHost: {{o}}\r\nX: {}\r\n\r\n", "x".repeat(8192));
    let name = format!("GET {{t}}/ HTTP/1.1\r\nHost: {{o}}\r\n{}: 1\r\n\r\n", "x".repeat(8192));
    let many = format!("GET {{t}}/ HTTP/1.1\r\nHost: {{o}}\r\n{}\r\n", "X: 1\r\n".repeat(10));
    requests(
        &lane,
        &[(long.as_bytes(), Refused(431)), (name.as_bytes(), Refused(431)), (many.as_bytes(), Refused(431))],
    )
    .await;
    let lane = way
        .lane_with(tollpass::proxy::ProxySettings {
            limits: tollpass::limits::Limits { head_bytes: 1 << 20, ..tollpass::limits::Limits::default() },
            ..tollpass::proxy::ProxySettings::default()
        })
        .await;
    let target = format!("GET {{t}}/{} HTTP/1.1\r\nHost: {{o}}\r\n\r\n", "x".repeat(66_000));
    requests(&lane, &[(target.as_bytes(), Refused(414))]).await;
}
