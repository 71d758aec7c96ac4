//! Targets and `Host`.

use super::{Lane, Passes, Refused, Way, requests};

const OF_ROOT: &str = "GET / HTTP/1.1\r\nhost: {o}\r\nvia: 1.1 tollpass\r\n\r\n";

each_way!(
    there_is_exactly_one_host,
    invalid_characters_in_a_target_are_refused_and_the_rest_passes_unchanged,
);

async fn there_is_exactly_one_host(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Passes(OF_ROOT)),
            (b"GET {t}/ HTTP/1.1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\r\nX: 1\r\nhost: evil\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}, evil\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o} evil\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}\tevil\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}/evil\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: evil@{o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}?\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: {o}#\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: http://{o}\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: localhost:evil\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: localhost:99999\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: :80\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.1\r\nHost: b\xc3\xbccher\r\n\r\n", Refused(400)),
            (b"GET {t}/ HTTP/1.0\r\nHost: {o}\r\nHost: {o}\r\n\r\n", Refused(400)),
        ],
    )
    .await;
    assert!(!lane.proxy.accepting.is_finished());
}

#[tokio::test]
async fn the_absolute_target_wins_over_any_other_host() {
    let lane = Lane::plain().await;
    for host in ["elsewhere", "elsewhere:80", "localhost:", "[::1]:80", ""] {
        let request = format!("GET http://{{o}}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
        requests(&lane, &[(request.as_bytes(), Passes(OF_ROOT))]).await;
    }
    let without = b"GET http://{o}/ HTTP/1.0\r\n\r\n";
    requests(&lane, &[(without, Passes("GET / HTTP/1.1\r\nhost: {o}\r\nvia: 1.0 tollpass\r\n\r\n"))]).await;
}

#[tokio::test]
async fn targets_are_one_of_the_forms_or_refused() {
    let lane = Lane::plain().await;
    requests(
        &lane,
        &[
            (b"GET http://u:p@{o}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET http://@{o}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET http://127.0.0.1:0/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET http://127.0.0.1:99999/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET http://127.0.0.1:8x/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET http://127.0.0.1:+80/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET http:///x HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET http:/x HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET http:{o} HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {o} HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET x HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"CONNECT http://{o}/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"CONNECT / HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"CONNECT 127.0.0.1 HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"CONNECT u@{o} HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"CONNECT {o} HTTP/1.1\r\nHost: {o}\r\nContent-Length: 4\r\n\r\nbody", Refused(400)),
            (
                b"CONNECT {o} HTTP/1.1\r\nHost: {o}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Refused(400),
            ),
        ],
    )
    .await;
}

async fn invalid_characters_in_a_target_are_refused_and_the_rest_passes_unchanged(way: Way) {
    let lane = way.lane().await;
    requests(
        &lane,
        &[
            (b"GET {t}/a b HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/a\tb HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/a\0b HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/a\x01b HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/a\x7fb HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/a\rb HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/a\nb HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            (b"GET {t}/\xff HTTP/1.1\r\nHost: {o}\r\n\r\n", Refused(400)),
            // curl and others send the path as typed; every parser reads it the same way.
            (
                b"GET {t}/\xc3\xbc HTTP/1.1\r\nHost: {o}\r\n\r\n",
                Passes("GET /\u{fc} HTTP/1.1\r\nhost: {o}\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            (
                b"GET {t}/a%20b/../c;d?e=%00&f=[] HTTP/1.1\r\nHost: {o}\r\n\r\n",
                Passes("GET /a%20b/../c;d?e=%00&f=[] HTTP/1.1\r\nhost: {o}\r\nvia: 1.1 tollpass\r\n\r\n"),
            ),
            // A fragment is for the client only.
            (b"GET {t}/#@evil/ HTTP/1.1\r\nHost: {o}\r\n\r\n", Passes(OF_ROOT)),
        ],
    )
    .await;
}
