//! Where a request's body ends.

use super::{Breaks, Passes, Refused, Way, requests};

const TWO_BYTES: &str = "POST / HTTP/1.1\r\nhost: {o}\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\n\r\nab";
const ONE_CHUNK: &str = "POST / HTTP/1.1\r\nhost: {o}\r\nvia: 1.1 tollpass\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";

each_way!(
    a_length_is_digits_and_appears_once,
    a_transfer_coding_is_chunked_and_appears_once,
    of_a_length_and_chunks_the_chunks_are_left,
    bytes_after_a_request_with_two_lengths_are_not_another_request,
    chunks_are_counted_again,
    a_trailer_field_cannot_become_a_field,
    connection_takes_nothing_out_that_all_hops_need,
);

async fn a_length_is_digits_and_appears_once(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2\r\n\r\nab", Passes(TWO_BYTES)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 02\r\n\r\nab", Passes(TWO_BYTES)),
            (
                b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
                Passes(TWO_BYTES),
            ),
            (
                b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 0\r\n\r\n",
                Passes("POST / HTTP/1.1\r\nhost: {o}\r\ncontent-length: 0\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            (
                b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 00\r\n\r\n",
                Passes("POST / HTTP/1.1\r\nhost: {o}\r\ncontent-length: 0\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            (
                b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
                Refused(400),
            ),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2, 2\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2, 3\r\n\r\nabc", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: +2\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: -2\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 0x2\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2.0\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2 2\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2;\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: \"2\"\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length:\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: \xd9\xa2\r\n\r\nab", Refused(400)),
            (
                b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 18446744073709551618\r\n\r\nab",
                Refused(400),
            ),
            (
                b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 18446744073709551615\r\n\r\nab",
                Refused(431),
            ),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length : 2\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2\r\n 2\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 2\r2\r\n\r\nab", Refused(400)),
        ],
    )
    .await;
}

async fn a_transfer_coding_is_chunked_and_appears_once(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Passes(ONE_CHUNK)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding:  Chunked\t\r\n\r\n2\r\nab\r\n0\r\n\r\n", Passes(ONE_CHUNK)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: , chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked,\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: identity, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(501)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(501)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(501)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked;q=1\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: \"chunked\"\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: \x0bchunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: identity\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding:\r\n\r\nab", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding\r\n: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.0\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.0\r\nHost: {o}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab", Refused(400)),
        ],
    )
    .await;
}

async fn of_a_length_and_chunks_the_chunks_are_left(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Passes(ONE_CHUNK)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n2\r\nab\r\n0\r\n\r\n", Passes(ONE_CHUNK)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n2\r\nab\r\n0\r\n\r\n", Passes(ONE_CHUNK)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Refused(400)),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nConnection: transfer-encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Passes(ONE_CHUNK)),
        ],
    )
    .await;
}

async fn bytes_after_a_request_with_two_lengths_are_not_another_request(way: Way) {
    let lane = way.lane().await;
    let (mut client, mut server) = lane
        .exchange(
            "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
             GET {t}/smuggled HTTP/1.1\r\nHost: {o}\r\n\r\n",
        )
        .await;
    server.request().await.unwrap();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let answer = lane.show(&client.rest().await);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(server.is_quiet().await && lane.origin.is_left_alone().await);
}

async fn chunks_are_counted_again(way: Way) {
    let lane = way.lane().await;
    let head = "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (chunks, fate) in [
        ("2;x=y\r\nab\r\n0\r\n\r\n", Passes(ONE_CHUNK)),
        ("2 ;x=\"\r\"\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("2;x\nab\r\n0\r\n\r\n", Breaks(400)),
        ("002\r\nab\r\n0;last\r\n\r\n", Passes(ONE_CHUNK)),
        ("2 \r\nab\r\n00\r\n\r\n", Passes(ONE_CHUNK)),
        ("2\nab\r\n0\r\n\r\n", Breaks(400)),
        ("2\r\nab\n0\r\n\r\n", Breaks(400)),
        ("2\r\nabc\r\n0\r\n\r\n", Breaks(400)),
        ("2\r\nab0\r\n\r\n", Breaks(400)),
        ("2\r\nab\r\n0\r\n\n", Breaks(400)),
        ("2\r\nab\r\n0\n\r\n", Breaks(400)),
        ("2\r\rab\r\n0\r\n\r\n", Breaks(400)),
        ("0x2\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("+2\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("-2\r\nab\r\n0\r\n\r\n", Breaks(400)),
        (" 2\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("2 2\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("2_\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("g\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("\r\n\r\nab\r\n0\r\n\r\n", Breaks(400)),
        (";x\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("10000000000000002\r\nab\r\n0\r\n\r\n", Breaks(400)),
        ("fffffffffffffffff\r\nab\r\n0\r\n\r\n", Breaks(400)),
    ] {
        requests(&lane, &[(format!("{head}{chunks}").as_bytes(), fate)]).await;
    }
    let extended = format!("{head}2;{}\r\nab\r\n0\r\n\r\n", "x".repeat(20_000));
    requests(&lane, &[(extended.as_bytes(), Breaks(400))]).await;
}

async fn a_trailer_field_cannot_become_a_field(way: Way) {
    let lane = way.lane().await;
    let head = "POST {t}/ HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\nTrailer: ";
    const NONE: &str = "POST / HTTP/1.1\r\nhost: {o}\r\nvia: 1.1 tollpass\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    for (announced, trailers, fate) in [
        (
            "X-Sum",
            "X-Sum: 9\r\n",
            Passes(
                "POST / HTTP/1.1\r\nhost: {o}\r\ntrailer: X-Sum\r\nvia: 1.1 tollpass\r\ntransfer-encoding: chunked\r\n\r\n\
                 2\r\nab\r\n0\r\nx-sum: 9\r\n\r\n",
            ),
        ),
        (
            "X-Sum",
            "Y: 1\r\n",
            Passes(
                "POST / HTTP/1.1\r\nhost: {o}\r\ntrailer: X-Sum\r\nvia: 1.1 tollpass\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            ),
        ),
        ("Content-Length", "Content-Length: 9\r\n", Passes(NONE)),
        ("Transfer-Encoding", "Transfer-Encoding: gzip\r\n", Passes(NONE)),
        ("Host", "Host: evil\r\n", Passes(NONE)),
        ("Authorization", "Authorization: Basic eA==\r\n", Passes(NONE)),
        ("Connection", "Connection: close\r\n", Passes(NONE)),
        ("Proxy-Authorization", "Proxy-Authorization: Basic eA==\r\n", Passes(NONE)),
        ("Upgrade, TE, Keep-Alive", "Upgrade: x\r\nTE: x\r\nKeep-Alive: x\r\n", Passes(NONE)),
        ("Cookie, Via, Expect", "Cookie: x\r\nVia: x\r\nExpect: 100-continue\r\n", Passes(NONE)),
        ("X-Sum", "X-Sum : 9\r\n", Breaks(400)),
        ("X-Sum", "X-Sum: 9\r\n 9\r\n", Breaks(400)),
        ("X-Sum", ": 9\r\n", Breaks(400)),
        ("X-Sum", "X-Sum: 9\rY: 9\r\n", Breaks(400)),
        ("X-Sum", "X-Sum: 9\0\r\n", Breaks(400)),
    ] {
        let request = format!("{head}{announced}\r\n\r\n2\r\nab\r\n0\r\n{trailers}\r\n");
        requests(&lane, &[(request.as_bytes(), fate)]).await;
    }
}

async fn connection_takes_nothing_out_that_all_hops_need(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nConnection: content-length, host\r\nContent-Length: 2\r\n\r\nab", Passes(TWO_BYTES)),
            (
                b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nAuthorization: a\r\nCookie: b\r\nContent-Type: c\r\nVia: 1.1 d\r\n\
                  Connection: authorization, cookie, content-type, via, x-own\r\nX-Own: e\r\nContent-Length: 2\r\n\r\nab",
                Passes(
                    "POST / HTTP/1.1\r\nhost: {o}\r\nauthorization: a\r\ncookie: b\r\ncontent-type: c\r\nvia: 1.1 d\r\n\
                     via: 1.1 tollpass\r\ncontent-length: 2\r\n\r\nab",
                ),
            ),
            (b"POST {t}/ HTTP/1.1\r\nHost: {o}\r\nConnection: close, (, \"x\"\r\nContent-Length: 2\r\n\r\nab", Passes(TWO_BYTES)),
        ],
    )
    .await;
}
