//! Every token of a client, right or wrong, in all six ways in; and what the proxy refuses for its own sake.

use std::slice::from_ref;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header;
use tollpass::devnet::origin;
use tollpass::protocol::ReasonCode as Code;

use super::{Proxy, entrances, is_problem, tables};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE};
use crate::support::office::{Bridge, Office};
use crate::support::payer::{Alice, write_private};
use crate::support::secure::Notary;
use crate::support::ways::{Asked, WAYS_IN, WayIn};

/// What the client is told here.
pub const TOLD: &[Code] = &[
    Code::WrongToken,
    Code::TokenRequired,
    Code::RouteTokenRequired,
    Code::TooManyAttempts,
    Code::AddressNotAllowed,
    Code::PortNotAllowed,
];

const LAPTOP: &str = "a-token-of-the-laptop";
const SERVER: &str = "a-token-of-the-server";
const DENIED: &str = "http_request_denied";

pub fn basic(name: &str, token: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{token}")))
}

/// A seller, and a proxy that requires a token. The laptop may pay, the server only less than the price, and a request
/// of neither nothing.
struct Gate {
    fair: Fair,
    proxy: Proxy,
    /// What comes before the path of a route.
    route_token: String,
    alice: Alice,
    _notary: Notary,
}

impl Gate {
    /// The route is the server's, if `client_of_route` says so.
    async fn open(client_of_route: &str, top: &str, upstream: &str, limits: &str) -> Self {
        let notary = Notary::new();
        let secure = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
        let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config: secure };
        let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
        let seller = entrances(&fair.origin.url(), &fair.origin.secure_url().unwrap(), notary.ca_file());
        let client = |name: &str, most: u64| {
            format!(
                "[[client]]\nname = \"{name}\"\ntoken_file = \"{name}\"\n[[client.pay]]\nhost = \"127.0.0.1\"\n\
                 max_price = {most}\n"
            )
        };
        let rest = format!(
            "[[pay]]\nhost = \"127.0.0.1\"\ndeny = true\n{QUICK}{}{}{}[limits]\n{limits}\n",
            client("laptop", 10_000),
            client("server", PRICE - 1),
            tables(&seller, client_of_route, upstream),
        );
        let mut alice = Alice::ruled(&fair.market, &rest).await;
        alice.change("listen =", &format!("{top}listen ="));
        write_private(&alice.directory.path().join("laptop"), &format!("{LAPTOP}\n"));
        write_private(&alice.directory.path().join("server"), SERVER);
        let proxy = Proxy::start(&alice, seller, |_| {}, false).await;
        let token = match client_of_route {
            "" => std::fs::read_to_string(alice.state_dir().join("route-token")).unwrap(),
            _ => SERVER.to_owned(),
        };
        Self { fair, proxy, route_token: format!("/{}", token.trim_end()), alice, _notary: notary }
    }

    fn asked(&self, credentials: &[String]) -> Asked {
        Asked { credentials: credentials.to_vec(), route_token: self.route_token.clone(), ..Asked::default() }
    }

    /// Checks that a request with these credentials is refused before anything else happens to it.
    async fn turns_away(&self, way: WayIn, credentials: &[String], status: u16, reason: Code) {
        let (row, asked) = (format!("{credentials:?} by {way:?}"), self.asked(credentials));
        let got = self.proxy.entrances.ask(way, &asked).await;
        is_problem(&got, status, DENIED, reason, &row);
        let challenge = got.header(&header::PROXY_AUTHENTICATE);
        assert_eq!(challenge, (status == 407).then_some("Basic realm=\"tollpass\""), "{row}");
        let wait = got.header(&header::RETRY_AFTER).map(|wait| wait.parse::<u64>().unwrap());
        assert_eq!(wait.is_some_and(|wait| (3590..=3600).contains(&wait)), status == 429, "{row}: {wait:?}");
        let shown = format!("{got:?}");
        assert!(![LAPTOP, SERVER].iter().any(|token| shown.contains(token)), "{row}: {shown}");
    }

    /// Checks that no route is open to a request.
    async fn closed(&self, asked: &Asked) {
        let got = self.proxy.entrances.ask(WayIn::Route, asked).await;
        is_problem(&got, 403, DENIED, Code::RouteTokenRequired, &format!("{asked:?}"));
        assert!(!format!("{got:?}").contains("a-token"), "{got:?}");
    }

    /// Asks with valid credentials; `reason` is why the proxy does not pay, if it does not.
    async fn admits(&self, way: WayIn, asked: &Asked, reason: Option<Code>, bought: &mut u64) {
        match (way, reason) {
            (WayIn::Tunnel, _) => {
                self.proxy.refuses(way, asked, Code::NoRule, None).await;
            }
            (WayIn::WebSocket, _) => {
                self.proxy.refuses(way, asked, Code::OtherProtocol, None).await;
            }
            (_, Some(reason)) => {
                self.proxy.refuses(way, asked, reason, None).await;
            }
            (_, None) => {
                let got = self.proxy.entrances.ask(way, asked).await;
                assert_eq!(got.status, 200, "{way:?}: {got:?}");
                *bought += 1;
            }
        }
        assert_eq!(self.fair.origin.total_registered(), (*bought * PRICE).into(), "{way:?}");
    }
}

#[tokio::test]
async fn each_token_counts_over_tls_in_all_six_ways() {
    let (laptop, server) = (basic("laptop", LAPTOP), basic("server", SERVER));
    let office = Office::new();
    let top = format!("auth = \"required\"\n{}", office.keys());
    let mut gate = Gate::open("", &top, "", "auth_failures = 1000").await;
    let bridge = Bridge::to(gate.proxy.entrances.proxy, &office).await;
    gate.proxy.entrances.proxy = bridge.address;
    let mut bought = 0;
    for way in WAYS_IN {
        gate.turns_away(way, &[basic("laptop", SERVER)], 407, Code::WrongToken).await;
        if way != WayIn::Route {
            gate.turns_away(way, &[], 407, Code::TokenRequired).await;
        }
        gate.admits(way, &gate.asked(from_ref(&server)), Some(Code::AboveMaxPrice), &mut bought).await;
        gate.admits(way, &gate.asked(from_ref(&laptop)), None, &mut bought).await;
        gate.admits(way, &gate.asked(from_ref(&laptop)), None, &mut bought).await;
    }
    assert_eq!(bought, 8);
    gate.proxy.stop().await;
}

#[tokio::test]
async fn each_token_counts_for_its_own_client_in_all_six_ways() {
    let (laptop, server) = (basic("laptop", LAPTOP), basic("server", SERVER));
    let mut rounds = 0;
    for (client, without) in [("", Code::DeniedByRule), ("client = \"server\"\n", Code::AboveMaxPrice)] {
        let gate = Gate::open(client, "auth = \"required\"\n", "", "auth_failures = 1000").await;
        let mut bought = 0;
        for way in WAYS_IN {
            for wrong in [
                vec![basic("laptop", SERVER)],
                vec![basic("server", LAPTOP)],
                vec![basic("unknown", LAPTOP)],
                vec![basic("Laptop", LAPTOP)],
                vec![basic("laptop", "")],
                vec![basic("laptop", &LAPTOP[1..])],
                vec![basic("laptop", &format!("{LAPTOP} "))],
                vec![format!("Bearer {LAPTOP}")],
                vec!["Basic".to_owned()],
                vec![laptop.clone(), laptop.clone()],
                vec![laptop.clone(), server.clone()],
            ] {
                gate.turns_away(way, &wrong, 407, Code::WrongToken).await;
            }
            if way == WayIn::Route {
                // The token in the path stands for the credentials, and both together for the client that they name.
                gate.admits(way, &gate.asked(&[]), Some(without), &mut bought).await;
                for credentials in [vec![], vec![laptop.clone()]] {
                    let asked = Asked { credentials, ..Asked::default() };
                    let got = gate.proxy.entrances.ask(way, &asked).await;
                    is_problem(&got, 403, DENIED, Code::RouteTokenRequired, &format!("{asked:?}"));
                }
            } else {
                gate.turns_away(way, &[], 407, Code::TokenRequired).await;
            }
            gate.admits(way, &gate.asked(from_ref(&server)), Some(Code::AboveMaxPrice), &mut bought).await;
            gate.admits(way, &gate.asked(from_ref(&laptop)), None, &mut bought).await;
            gate.admits(way, &gate.asked(&[laptop.replace("Basic", "basic")]), None, &mut bought).await;
            if matches!(way, WayIn::Http1 | WayIn::Http2) {
                // A tunnel belongs to the client of its CONNECT, whatever is written inside.
                let mut asked = gate.asked(from_ref(&server));
                asked.headers.push(("proxy-authorization", laptop.clone()));
                gate.admits(way, &asked, Some(Code::AboveMaxPrice), &mut bought).await;
            }
            rounds += 1;
        }
        assert_eq!(bought, 8);
        gate.proxy.stop().await;
    }
    assert_eq!(rounds, 12);
}

#[tokio::test]
async fn a_route_has_the_token_of_its_client_in_its_path() {
    let rules = [(LAPTOP, None), (SERVER, Some(Code::AboveMaxPrice))];
    for (client, top) in [("", ""), ("", "auth = \"required\"\n"), ("client = \"server\"\n", "")] {
        let gate = Gate::open(client, top, "", "auth_failures = 1000").await;
        let mut bought = 0;
        for (token, refused) in rules {
            // As it is, and escaped.
            for before in [format!("/{token}"), format!("/{}", token.replace('-', "%2D"))] {
                let asked = Asked { route_token: before, ..Asked::default() };
                if client.is_empty() || token == SERVER {
                    gate.admits(WayIn::Route, &asked, refused, &mut bought).await;
                } else {
                    gate.closed(&asked).await;
                }
            }
        }
        // The token of routes opens those of no client.
        let shared = std::fs::read_to_string(gate.alice.state_dir().join("route-token")).unwrap();
        let asked = Asked { route_token: format!("/{}", shared.trim_end()), ..Asked::default() };
        match client {
            "" => gate.admits(WayIn::Route, &asked, Some(Code::DeniedByRule), &mut bought).await,
            _ => gate.closed(&asked).await,
        }
        for wrong in ["a-token-of-nobody", &LAPTOP[1..], &LAPTOP.to_uppercase(), "%2D", "%FF%"] {
            gate.closed(&Asked { route_token: format!("/{wrong}"), ..Asked::default() }).await;
        }
        assert_eq!(bought, if client.is_empty() { 2 } else { 0 });
        gate.proxy.stop().await;
    }
}

#[tokio::test]
async fn guesses_at_the_token_in_a_path_are_told_to_wait() {
    let limits = "auth_failures = 3\nauth_window = \"1h\"";
    let gate = Gate::open("", "auth = \"required\"\n", "", limits).await;
    let guess = Asked { route_token: "/a-token-of-nobody".to_owned(), ..Asked::default() };
    // A path without a token is no guess.
    for _ in 0..4 {
        gate.closed(&Asked::default()).await;
    }
    for _ in 0..3 {
        gate.closed(&guess).await;
    }
    let got = gate.proxy.entrances.ask(WayIn::Route, &guess).await;
    is_problem(&got, 429, DENIED, Code::TooManyAttempts, "the fourth guess");
    assert!(got.header(&header::RETRY_AFTER).is_some(), "{got:?}");
    let mut bought = 0;
    let asked = Asked { route_token: format!("/{LAPTOP}"), ..Asked::default() };
    gate.admits(WayIn::Route, &asked, None, &mut bought).await;
    gate.proxy.stop().await;
}

#[tokio::test]
async fn guesses_are_told_to_wait_in_all_six_ways() {
    let limits = "auth_failures = 1\nauth_window = \"1h\"";
    let gate = Gate::open("", "auth = \"required\"\n", "", limits).await;
    let mut bought = 0;
    let wrong = [basic("laptop", SERVER)];
    gate.turns_away(WayIn::Plain, &wrong, 407, Code::WrongToken).await;
    for way in WAYS_IN {
        gate.turns_away(way, &wrong, 429, Code::TooManyAttempts).await;
        gate.admits(way, &gate.asked(&[basic("laptop", LAPTOP)]), None, &mut bought).await;
    }
    gate.proxy.stop().await;
}

#[tokio::test]
async fn addresses_and_ports_that_are_not_allowed_are_told_in_all_six_ways() {
    let gate = Gate::open("", "", "deny = [\"loopback\"]\n", "").await;
    for way in WAYS_IN {
        let got = gate.proxy.entrances.ask(way, &gate.asked(&[basic("laptop", LAPTOP)])).await;
        is_problem(&got, 403, "destination_ip_prohibited", Code::AddressNotAllowed, &format!("{way:?}"));
    }
    gate.proxy.stop().await;
    let gate = Gate::open("", "connect_ports = [1]\n", "", "").await;
    let mut bought = 0;
    for way in WAYS_IN {
        let asked = gate.asked(&[basic("laptop", LAPTOP)]);
        if matches!(way, WayIn::Tunnel | WayIn::Http1 | WayIn::Http2) {
            let got = gate.proxy.entrances.ask(way, &asked).await;
            is_problem(&got, 403, DENIED, Code::PortNotAllowed, &format!("{way:?}"));
        } else {
            gate.admits(way, &asked, None, &mut bought).await;
        }
    }
    assert_eq!(bought, 2);
    gate.proxy.stop().await;
}
