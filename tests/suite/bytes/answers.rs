//! Where a response ends, and what the client gets of it.

use super::{Instead, Reaches, Way, answers};

const GET: &str = "GET {t}/ HTTP/1.1\r\nHost: {o}\r\nConnection: close\r\n\r\n";
const TWO_BYTES: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\nab";
const ONE_CHUNK: &str = "HTTP/1.1 200 OK\r\nvia: 1.1 tollpass\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";

each_way!(
    a_length_is_digits_and_appears_once,
    a_transfer_coding_is_chunked_and_wins_over_a_length,
    an_answer_that_ends_with_its_connection_goes_on_in_chunks,
    an_answer_that_breaks_off_does_not_look_whole,
    a_head_is_as_it_should_be,
    fields_of_one_hop_stay_on_it_and_others_cannot_be_named_away,
    trailers_reach_clients_that_accept_them_and_never_become_headers,
    bodiless_responses_stay_bodiless_whatever_their_headers,
    a_client_of_http_1_0_gets_a_response_that_it_can_read,
);

async fn a_length_is_digits_and_appears_once(way: Way) {
    let lane = way.lane().await;
    answers(
        &lane,
        GET,
        &[
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Reaches(TWO_BYTES)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nab", Reaches(TWO_BYTES)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", Reaches(TWO_BYTES)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", Reaches(TWO_BYTES)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n", Reaches(TWO_BYTES)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n 3\r\n\r\nab", Instead(502)),
        ],
    )
    .await;
}

async fn a_transfer_coding_is_chunked_and_wins_over_a_length(way: Way) {
    let lane = way.lane().await;
    answers(
        &lane,
        GET,
        &[
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Reaches(ONE_CHUNK)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nab\r\n0\r\n\r\n", Reaches(ONE_CHUNK)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Reaches(ONE_CHUNK)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Reaches(ONE_CHUNK)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nab\r\n0\r\n\r\n", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab", Instead(502)),
            (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Instead(502)),
        ],
    )
    .await;
}

async fn an_answer_that_ends_with_its_connection_goes_on_in_chunks(way: Way) {
    let lane = way.lane().await;
    answers(
        &lane,
        GET,
        &[
            (b"HTTP/1.1 200 OK\r\n\r\nab", Reaches(ONE_CHUNK)),
            (
                b"HTTP/1.0 200 OK\r\n\r\nab",
                Reaches("HTTP/1.1 200 OK\r\nvia: 1.0 tollpass\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
            ),
        ],
    )
    .await;
}

async fn an_answer_that_breaks_off_does_not_look_whole(way: Way) {
    let lane = way.lane().await;
    for (answer, reached) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
            "content-length: 9\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\nab",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "2\r\nab\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nx\r\n", "2\r\nab\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n", "2\r\nab\r\n"),
    ] {
        let (mut client, mut server) = lane.exchange(GET).await;
        server.request().await.unwrap();
        let (head, body) = answer.split_at(answer.find("\r\n\r\n").unwrap() + 4);
        server.send(head).await;
        // The head is forwarded separately, so that an error in the body cannot replace it.
        let begun = client.head().await;
        server.send(body).await;
        drop(server);
        let found = begun + std::str::from_utf8(&client.rest().await).unwrap();
        assert!(lane.show(found.as_bytes()).ends_with(reached), "{answer:?}: {found:?}");
    }
}

async fn a_head_is_as_it_should_be(way: Way) {
    let lane = way.lane().await;
    let with_x =
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: 1\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\nab";
    answers(
        &lane,
        GET,
        &[
            (b"HTTP/1.1 200 OK\nContent-Length: 2\nX: 1\n\nab", Reaches(with_x)),
            (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\nX\t: 1\r\n\r\nab", Reaches(with_x)),
            (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", Reaches(TWO_BYTES)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: 1\r\n 2\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n: 1\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: 1\rY: 2\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: 1\0\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX y: 1\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 20 OK\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 2000 OK\r\n\r\nab", Instead(502)),
            (b"HTTP/1.1 099 OK\r\n\r\nab", Instead(502)),
            (b"HTTP/2.0 200 OK\r\n\r\nab", Instead(502)),
            (b"ICY 200 OK\r\n\r\nab", Instead(502)),
            (b"<html>", Instead(502)),
        ],
    )
    .await;
}

async fn fields_of_one_hop_stay_on_it_and_others_cannot_be_named_away(way: Way) {
    let lane = way.lane().await;
    answers(
        &lane,
        GET,
        &[(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-own, content-length, set-cookie\r\nX-Own: 1\r\n\
              Set-Cookie: a=b\r\nProxy-Status: tollpass; reason=no-wallet, edge\r\nKeep-Alive: x\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\r\nab",
            Reaches(
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a=b\r\nproxy-status: edge\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\nab",
            ),
        )],
    )
    .await;
}

async fn trailers_reach_clients_that_accept_them_and_never_become_headers(way: Way) {
    let lane = way.lane().await;
    let takes = "GET {t}/ HTTP/1.1\r\nHost: {o}\r\nTE: trailers\r\nConnection: close, te\r\n\r\n";
    let answer = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum, Content-Length, Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nab\r\n0\r\nX-Sum: 9\r\nContent-Length: 1\r\nSet-Cookie: a=b\r\nProxy-Status: tollpass; reason=over-budget\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\ntrailer: X-Sum\r\nvia: 1.1 tollpass\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let with: &'static str = format!("{head}2\r\nab\r\n0\r\nx-sum: 9\r\n\r\n").leak();
    answers(&lane, takes, &[(answer, Reaches(with))]).await;
    let without: &'static str = format!("{head}2\r\nab\r\n0\r\n\r\n").leak();
    answers(&lane, GET, &[(answer, Reaches(without))]).await;
}

async fn bodiless_responses_stay_bodiless_whatever_their_headers(way: Way) {
    let lane = way.lane().await;
    answers(
        &lane,
        GET,
        &[
            (
                b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nab",
                Reaches("HTTP/1.1 204 No Content\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\n"),
            ),
            (
                b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
                Reaches("HTTP/1.1 204 No Content\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\n"),
            ),
            (
                b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 2\r\n\r\nab",
                Reaches(
                    "HTTP/1.1 304 Not Modified\r\netag: x\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\n",
                ),
            ),
        ],
    )
    .await;
    let head = "HEAD {t}/ HTTP/1.1\r\nHost: {o}\r\nConnection: close\r\n\r\n";
    answers(
        &lane,
        head,
        &[
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Reaches("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\n")),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 02, 2\r\n\r\nab", Reaches("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\n")),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Reaches("HTTP/1.1 200 OK\r\nvia: 1.1 tollpass\r\nconnection: close\r\n\r\n")),
        ],
    )
    .await;
}

async fn a_client_of_http_1_0_gets_a_response_that_it_can_read(way: Way) {
    let lane = way.lane().await;
    let plainly = "GET {t}/ HTTP/1.0\r\n\r\n";
    answers(
        &lane,
        plainly,
        &[
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Reaches("HTTP/1.0 200 OK\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\n\r\nab")),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nab\r\n0\r\nX: 1\r\n\r\n", Reaches("HTTP/1.0 200 OK\r\nvia: 1.1 tollpass\r\n\r\nab")),
            (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", Reaches("HTTP/1.0 200 OK\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\n\r\nab")),
        ],
    )
    .await;

    let (mut client, mut server) = lane.exchange("GET {t}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    server.request().await.unwrap();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").await;
    let head = lane.show(client.head().await.as_bytes());
    assert_eq!(
        head,
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nvia: 1.1 tollpass\r\nconnection: keep-alive\r\n\r\n"
    );
    assert_eq!(client.exactly(2).await, b"ab");
    client.send(lane.fill("GET {t}/2 HTTP/1.0\r\n\r\n")).await;
    assert!(server.request().await.unwrap().starts_with(b"GET /2 "));
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.rest().await.starts_with(b"HTTP/1.0 200 "));
}
