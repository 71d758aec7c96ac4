//! Who made a request decides whether it may be paid: programs are, browsers only as a rule allows, and cross-site
//! requests never, however they reach a seller.

use http::{HeaderName, Request, StatusCode};
use tollpass::devnet::origin;
use tollpass::protocol::Amount;

use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, Running, write_private};
use crate::support::raw::{Raw, RawOrigin, field};
use crate::support::secure::Notary;
use crate::support::wire::{Got, ask};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const SETTINGS: [Option<&str>; 5] =
    [None, Some("never"), Some("navigations"), Some("same-origin"), Some("any")];

/// When a request is paid.
#[derive(Clone, Copy)]
enum Paid {
    /// Whatever the rule says about browsers.
    Always,
    /// Never, for this reason.
    Never(&'static str),
    /// Over plain http with "any" only; over https with these settings, and as "navigations" if there are none.
    ByRule(&'static [&'static str]),
}

use Paid::{Always, ByRule, Never};

const ANY: Paid = ByRule(&["any"]);
const SAME_ORIGIN: Paid = ByRule(&["same-origin", "any"]);
const NAVIGATION: Paid = ByRule(&["navigations", "same-origin", "any"]);

/// Method, headers, and when it is paid. `OWN` stands for the requested origin, `HOST` for its host and port.
type Row = (&'static str, &'static [(&'static str, &'static str)], Paid);

const ROWS: &[Row] = &[
    // Programs.
    ("GET", &[], Always),
    ("GET", &[("user-agent", "curl/8.14.1"), ("accept", "text/html")], Always),
    ("GET", &[("user-agent", "node"), ("sec-fetch-mode", "cors"), ("accept-language", "*")], Always),
    ("GET", &[("user-agent", "python-requests/2.32"), ("accept", "*/*")], Always),
    ("GET", &[("user-agent", "like Mozilla/5.0")], Always),
    ("GET", &[("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate")], Always),
    ("GET", &[("sec-ch-ua-mobile", "?0"), ("sec-ch-ua-platform", "\"Linux\"")], Always),
    ("GET", &[("origin", "OWN")], Always),
    ("POST", &[("origin", "OWN"), ("referer", "OWN/page?x#y")], Always),
    ("GET", &[("referer", "OWN/page?x=http://evil.example/")], Always),
    ("GET", &[("referer", "OWN")], Always),
    ("GET", &[("referer", "about:blank")], Always),
    ("GET", &[("referer", "")], Always),
    ("GET", &[("purpose", "research")], Always),
    // Cross-site requests.
    ("GET", &[("origin", "https://evil.example")], Never("(Origin)")),
    ("POST", &[("origin", "http://evil.example")], Never("(Origin)")),
    ("GET", &[("origin", "null")], Never("(Origin)")),
    ("GET", &[("origin", "")], Never("(Origin)")),
    ("GET", &[("origin", "HOST")], Never("(Origin)")),
    ("GET", &[("origin", "ftp://HOST")], Never("(Origin)")),
    ("GET", &[("origin", "http://127.0.0.1:1")], Never("(Origin)")),
    ("GET", &[("origin", "http://127.0.0.1")], Never("(Origin)")),
    ("GET", &[("origin", "http://me@HOST")], Never("(Origin)")),
    ("GET", &[("origin", "OWN"), ("origin", "https://evil.example")], Never("(Origin)")),
    ("GET", &[("origin", "OWN.evil.example")], Never("(Origin)")),
    ("GET", &[("referer", "http://evil.example/")], Never("(Referer)")),
    ("GET", &[("referer", "https://evil.example/OWN/")], Never("(Referer)")),
    ("GET", &[("referer", "http://localhost:3000/")], Never("(Referer)")),
    ("GET", &[("referer", "evil.example")], Never("(Referer)")),
    ("GET", &[("referer", "OWN@evil.example/")], Never("(Referer)")),
    ("GET", &[("origin", "OWN"), ("referer", "http://evil.example/")], Never("(Referer)")),
    ("GET", &[("sec-fetch-site", "cross-site")], Never("(Sec-Fetch-Site: cross-site)")),
    ("GET", &[("sec-fetch-site", "Cross-Site")], Never("(Sec-Fetch-Site: cross-site)")),
    ("GET", &[("sec-fetch-site", "same-site")], Never("(Sec-Fetch-Site: same-site)")),
    ("GET", &[("sec-fetch-site", "none, cross-site")], Never("(Sec-Fetch-Site: cross-site)")),
    ("GET", &[("sec-fetch-site", "none"), ("sec-fetch-site", "same-site")], Never("same-site")),
    ("GET", &[("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")], Never("cross-site")),
    // Prefetches.
    ("GET", &[("sec-purpose", "prefetch")], Never("(Sec-Purpose)")),
    ("GET", &[("sec-purpose", "prefetch;prerender")], Never("(Sec-Purpose)")),
    ("GET", &[("sec-purpose", "prefetch;anonymous-client-ip")], Never("(Sec-Purpose)")),
    ("GET", &[("purpose", "prefetch")], Never("(Purpose)")),
    ("GET", &[("purpose", "Prefetch")], Never("(Purpose)")),
    (
        "GET",
        &[("sec-fetch-site", "none"), ("sec-fetch-dest", "document"), ("sec-purpose", "prefetch")],
        Never("(Sec-Purpose)"),
    ),
    // Browsers, with fewer and more headers.
    ("GET", &[("user-agent", FIREFOX)], ANY),
    ("GET", &[("user-agent", "mozilla/4.0")], ANY),
    ("POST", &[("user-agent", FIREFOX), ("origin", "OWN"), ("referer", "OWN/")], ANY),
    ("GET", &[("upgrade-insecure-requests", "1")], ANY),
    ("GET", &[("sec-ch-ua", "\"Chromium\";v=\"140\"")], ANY),
    ("GET", &[("sec-fetch-site", "")], ANY),
    ("GET", &[("sec-fetch-site", "none")], ANY),
    ("GET", &[("sec-fetch-site", "of-tomorrow"), ("sec-fetch-dest", "document")], ANY),
    ("GET", &[("user-agent", FIREFOX), ("sec-fetch-dest", "document")], ANY),
    ("GET", &[("sec-fetch-site", "none"), ("sec-fetch-dest", "empty")], ANY),
    ("GET", &[("sec-fetch-site", "none"), ("sec-fetch-dest", "iframe")], ANY),
    ("GET", &[("sec-fetch-site", "none"), ("sec-fetch-site", "none"), ("sec-fetch-dest", "document")], ANY),
    (
        "GET",
        &[("sec-fetch-site", "none"), ("sec-fetch-dest", "document"), ("sec-fetch-dest", "document")],
        ANY,
    ),
    ("GET", &[("sec-fetch-site", "same-origin")], SAME_ORIGIN),
    ("GET", &[("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "image")], SAME_ORIGIN),
    ("POST", &[("user-agent", FIREFOX), ("sec-fetch-site", "same-origin"), ("origin", "OWN")], SAME_ORIGIN),
    ("GET", &[("sec-fetch-site", "none"), ("sec-fetch-dest", "document")], NAVIGATION),
    ("GET", &[("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "document")], NAVIGATION),
];

/// A seller that also speaks TLS, and a rule with this setting for browsers.
async fn shop(browsers: Option<&str>, alpn: &[&str]) -> (Fair, Alice, Running, Notary) {
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", alpn).await;
    let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config };
    let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
    let consent = browsers.map(|browsers| format!("browsers = \"{browsers}\"\n")).unwrap_or_default();
    let rules = format!(
        "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n{consent}{QUICK}[upstream]\nca_file = \"{}\"\n",
        notary.ca_file().display()
    );
    let alice = Alice::ruled(&fair.market, &rules).await;
    let proxy = alice.start().await;
    (fair, alice, proxy, notary)
}

/// The paid path for a method.
fn path(method: &str) -> &'static str {
    if method == "POST" { "/paid/echo" } else { "/paid" }
}

fn written(value: &str, own: &str) -> String {
    value.replace("OWN", own).replace("HOST", own.split("://").nth(1).unwrap())
}

/// Whether a request over this scheme is paid with this setting.
fn is_paid(paid: Paid, setting: Option<&str>, is_plain: bool) -> bool {
    match paid {
        Always => true,
        Never(_) => false,
        ByRule(_) if is_plain => setting == Some("any"),
        ByRule(settings) => settings.contains(&setting.unwrap_or("navigations")),
    }
}

fn assert_told(got: &Got, paid: Paid, setting: Option<&str>, is_plain: bool, row: &str) {
    let expected = is_paid(paid, setting, is_plain);
    let reason = got.header(&PROXY_STATUS).unwrap_or_default();
    assert_eq!(
        got.status,
        if expected { StatusCode::OK } else { StatusCode::PAYMENT_REQUIRED },
        "{row}: {got:?}"
    );
    match paid {
        _ if expected => assert_eq!(reason, "", "{row}"),
        Never(why) => assert!(reason.contains(why), "{row}: {reason}"),
        Always | ByRule(_) => {
            let usual = if is_plain { "never" } else { "navigations" };
            let key = format!("browsers = \\\"{}\\\"", setting.unwrap_or(usual));
            assert!(reason.contains(&key), "{row}: {reason}");
            assert_eq!(reason.contains("only \\\"any\\\" pays"), is_plain, "{row}: {reason}");
        }
    }
}

#[tokio::test]
async fn a_requests_initiator_decides_whether_it_is_paid() {
    for setting in SETTINGS {
        let (fair, _alice, proxy, _notary) = shop(setting, &["http/1.1"]).await;
        let mut bought = 0;
        for own in [fair.origin.url(), fair.origin.secure_url().unwrap()] {
            let is_plain = own.starts_with("http:");
            for (method, fields, paid) in ROWS {
                let mut request = Request::builder().method(*method).uri(format!("{own}{}", path(method)));
                for (name, value) in *fields {
                    request = request.header(*name, written(value, &own));
                }
                let got = ask(proxy.address, request.body(empty()).unwrap()).await;
                let row = format!("{setting:?} {method} {own} {fields:?}");
                assert_told(&got, *paid, setting, is_plain, &row);
                bought += u64::from(is_paid(*paid, setting, is_plain));
                assert_eq!(fair.origin.total_registered(), Amount::from(bought * PRICE), "{row}");
            }
        }
        // Not even promised: if the price is known, the first request is paid.
        assert_eq!(proxy.promised().await, Amount::from(bought * PRICE), "{setting:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn inside_of_tls_browsers_are_judged_by_the_same_marks_in_both_versions() {
    for (alpn, version) in [(&["http/1.1"][..], "--http1.1"), (&["h2", "http/1.1"], "--http2")] {
        let (fair, alice, proxy, _notary) = shop(None, alpn).await;
        let ca = alice.state_dir().join("ca.pem");
        let own = fair.origin.secure_url().unwrap();
        let mut bought = 0;
        for (method, fields, paid) in ROWS {
            let mut more = vec!["--cacert".to_owned(), ca.display().to_string(), version.to_owned()];
            more.extend(["-X".to_owned(), (*method).to_owned()]);
            for (name, value) in *fields {
                let value = written(value, &own);
                // curl's syntax for a header without a value.
                more.extend([
                    "-H".to_owned(),
                    if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") },
                ]);
            }
            more.push(format!("{own}{}", path(method)));
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let got = curl(Some(proxy.address), &more).await.got;
            let row = format!("{version} {method} {fields:?}");
            assert_told(&got, *paid, None, false, &row);
            bought += u64::from(is_paid(*paid, None, false));
            assert_eq!(fair.origin.total_registered(), Amount::from(bought * PRICE), "{row}");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_route_answers_under_names_that_browsers_do_not_protect_only_behind_its_token() {
    let fair = Fair::open().await;
    let origin = fair.origin.url();
    let rest = format!(
        "{QUICK}[[client]]\nname = \"laptop\"\ntoken_file = \"laptop\"\n\
         [[route]]\nprefix = \"/seller\"\norigin = \"{origin}\"\n\
         [[route]]\nlisten = \"127.0.0.1:0\"\norigin = \"{origin}\"\n\
         [limits]\nauth_failures = 1000\n"
    );
    let mut alice = Alice::with(&fair.market, &rest).await;
    write_private(&alice.directory.path().join("laptop"), "a-token-of-the-laptop");
    let mut bought = 0;
    // On loopback, only names that browsers do not protect need the token.
    let proxy = alice.start().await;
    routes_need_their_token(&alice, &proxy, false, &mut bought).await;
    proxy.stop().await;
    let token = route_token(&alice);
    // Beyond it, all names do, and every name may be the proxy's.
    alice.change("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"");
    alice.change("state_dir =", "allow_remote = true\nstate_dir =");
    let proxy = alice.start().await;
    proxy.ready().await;
    assert_eq!(route_token(&alice), token, "it stays the same");
    routes_need_their_token(&alice, &proxy, true, &mut bought).await;
    proxy.stop().await;
}

fn route_token(alice: &Alice) -> String {
    std::fs::read_to_string(alice.state_dir().join("route-token")).unwrap().trim_end().to_owned()
}

/// Asks for routes at many hosts, with and without the token.
async fn routes_need_their_token(alice: &Alice, proxy: &Running, is_exposed: bool, bought: &mut u64) {
    let token = route_token(alice);
    let token = token.as_str();
    for (port, prefix) in [(proxy.address.port(), "/seller"), (proxy.routes[0].port(), "")] {
        let reached = ([127, 0, 0, 1], port).into();
        for (host, is_kept_apart) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("localhost", true),
            ("LocalHost", true),
            ("[::1]", true),
            ("tollpass.local", false),
            ("Tollpass.Local.", false),
            ("[::ffff:127.0.0.1]", false),
            ("[::ffff:7f00:1]", false),
            ("0.0.0.0", false),
            ("192.168.1.5", false),
            ("[fe80::1]", false),
            ("[::]", false),
        ] {
            // As a server, and as a proxy if the name is one of its own there.
            let is_ours = is_exposed
                || is_kept_apart
                || matches!(
                    host,
                    "tollpass.local" | "Tollpass.Local." | "[::ffff:127.0.0.1]" | "[::ffff:7f00:1]"
                );
            let is_named = matches!(host, "127.0.0.1" | "localhost" | "LocalHost" | "tollpass.local")
                || is_exposed && matches!(host, "127.9.9.9" | "[::1]");
            let whole = format!("http://{host}:{port}");
            for base in [Some(""), is_named.then_some(whole.as_str())].into_iter().flatten() {
                for (before, is_served) in [
                    (String::new(), is_kept_apart && !is_exposed),
                    (format!("/{token}"), true),
                    (format!("/{}", token.replace(|_| true, "0")), false),
                    (format!("/{}", token.to_uppercase()), false),
                ] {
                    // A wrong token is part of the path if every path leads to a route.
                    let is_wrong = !before.is_empty() && before != format!("/{token}");
                    if is_wrong && is_kept_apart && !is_exposed && prefix.is_empty() {
                        continue;
                    }
                    let request = format!(
                        "GET {base}{before}{prefix}/paid HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
                    );
                    let mut client = Raw::asking(reached, &request).await;
                    let head = client.head().await;
                    let status = head.split(' ').nth(1).unwrap().to_owned();
                    if !is_ours {
                        assert_eq!(status, "421", "{request}{head}");
                    } else if is_served {
                        assert_eq!(status, "200", "{request}{head}");
                        *bought += 1;
                    } else {
                        assert_eq!(status, "403", "{request}{head}");
                        let told = field(&head, "proxy-status").unwrap();
                        assert!(told.contains("route-token"), "{told}");
                    }
                    assert_eq!(proxy.promised().await, Amount::from(*bought * PRICE), "{request}");
                }
            }
        }
    }
    // The set-up page shows where the token is, but not the token: under such a name other sites may read it.
    for host in
        if is_exposed { ["tollpass.local", "192.168.1.5"] } else { ["tollpass.local", "[::ffff:127.0.0.1]"] }
    {
        let request =
            format!("GET / HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\n\r\n", proxy.address.port());
        let page = Raw::asking(([127, 0, 0, 1], proxy.address.port()).into(), request).await.rest().await;
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("/seller") && !page.contains(token), "{page}");
        let needs_token = is_exposed || host != "tollpass.local";
        assert_eq!(page.contains("TOKEN is in the file route-token of state_dir"), needs_token, "{page}");
    }
}

#[tokio::test]
async fn a_page_spends_nothing_through_a_route_and_a_program_does() {
    let fair = Fair::open().await;
    let origin = fair.origin.url();
    let rest = format!("{QUICK}[[route]]\nprefix = \"/seller\"\norigin = \"{origin}\"\n");
    let alice = Alice::with(&fair.market, &rest).await;
    let proxy = alice.start().await;
    let (port, mut bought) = (proxy.address.port(), 0);
    let itself = format!("http://localhost:{port}");
    for (fields, status, reason) in [
        (vec![], 200, ""),
        (vec![("accept", "text/html")], 200, ""),
        (vec![("sec-fetch-mode", "cors"), ("user-agent", "node")], 200, ""),
        (vec![("origin", itself.as_str())], 200, ""),
        (vec![("origin", origin.as_str())], 200, ""),
        (vec![("origin", "http://localhost:3000")], 402, "(Origin)"),
        (vec![("origin", "http://127.0.0.1:3000")], 402, "(Origin)"),
        (vec![("referer", "http://localhost:3000/")], 402, "(Referer)"),
        (vec![("sec-fetch-site", "same-site")], 402, "(Sec-Fetch-Site: same-site)"),
        (vec![("sec-fetch-site", "cross-site")], 403, ""),
        (vec![("origin", "https://evil.example")], 403, ""),
        (vec![("user-agent", FIREFOX)], 402, "over plain http only"),
        (vec![("sec-fetch-site", "same-origin"), ("referer", itself.as_str())], 402, "over plain http only"),
        (vec![("sec-fetch-site", "none"), ("sec-fetch-dest", "document")], 402, "over plain http only"),
        (vec![("sec-purpose", "prefetch")], 402, "(Sec-Purpose)"),
    ] {
        let mut request = Request::get("/seller/paid").header("host", format!("localhost:{port}"));
        for (name, value) in &fields {
            request = request.header(*name, *value);
        }
        let got = ask(proxy.address, request.body(empty()).unwrap()).await;
        assert_eq!(got.status, status, "{fields:?}: {got:?}");
        let told = got.header(&PROXY_STATUS).unwrap_or_default();
        assert!(told.contains(reason), "{fields:?}: {told}");
        bought += u64::from(status == 200);
        assert_eq!(proxy.promised().await, Amount::from(bought * PRICE), "{fields:?}");
    }
    proxy.stop().await;
}

/// Requests that go upstream as https came over plain http, for which browsers omit their headers.
#[tokio::test]
async fn a_request_that_is_made_secure_on_its_way_is_judged_as_the_plain_one_that_it_was() {
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", &["http/1.1"]).await;
    let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config };
    let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
    let upstream =
        format!("[upstream]\nca_file = \"{}\"\nupgrade = [\"127.0.0.1\"]\n", notary.ca_file().display());
    let alice = Alice::with(&fair.market, &format!("{QUICK}{upstream}")).await;
    let proxy = alice.start().await;
    let asked = fair.origin.secure_url().unwrap().replace("https://", "http://");
    let mut bought = 0;
    for (fields, status) in [
        (vec![], 200),
        (vec![("origin", asked.as_str())], 200),
        (vec![("sec-fetch-site", "none"), ("sec-fetch-dest", "document")], 402),
        (vec![("user-agent", FIREFOX)], 402),
        (vec![("origin", "http://evil.example")], 402),
    ] {
        let mut request = Request::get(format!("{asked}/paid"));
        for (name, value) in &fields {
            request = request.header(*name, *value);
        }
        let got = ask(proxy.address, request.body(empty()).unwrap()).await;
        assert_eq!(got.status, status, "{fields:?}: {got:?}");
        bought += u64::from(status == 200);
        assert_eq!(proxy.promised().await, Amount::from(bought * PRICE), "{fields:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn places_behind_the_token_of_a_route_come_back_behind_it() {
    use tollpass::proxy::frontend::{FrontendLayer, Page, ReverseRoute, RouteToken};
    use tower::Layer as _;

    let origin = RawOrigin::start().await;
    let proxy = crate::support::proxy::Proxy::behind(Default::default(), |address, inner| {
        let page = Page { ca: None, pays: true, since: std::time::SystemTime::now() };
        let route = ReverseRoute {
            prefix: "/a".to_owned(),
            scheme: http::uri::Scheme::HTTP,
            authority: origin.address.to_string().parse().unwrap(),
            base: "/v1".to_owned(),
            client: None,
        };
        FrontendLayer::proxy(address, page, vec![route], Some(RouteToken::new("c0ffee")), Vec::new())
            .layer(inner)
    })
    .await;
    let request = "GET /c0ffee/a/x?y HTTP/1.1\r\nHost: tollpass.local\r\n\r\n";
    let mut client = Raw::asking(proxy.address, request).await;
    let mut server = origin.accept().await;
    let head = server.head().await;
    assert!(head.starts_with("GET /v1/x?y HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("c0ffee"), "{head}");
    server
        .send("HTTP/1.1 302 Found\r\nLocation: /v1/z\r\nSet-Cookie: s=1; Path=/\r\nContent-Length: 0\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(field(&head, "location"), Some("/c0ffee/a/z"), "{head}");
    assert_eq!(field(&head, "set-cookie"), Some("s=1; Path=/c0ffee/a"), "{head}");
    client.send("GET /c0ffee/a/../x HTTP/1.1\r\nHost: tollpass.local\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_preflight_request_is_not_paid() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &format!("browsers = \"any\"\n{QUICK}")).await;
    let proxy = alice.start().await;
    let origin = RawOrigin::start().await;
    for (fields, reason) in
        [("Access-Control-Request-Method: POST\r\n", "CORS preflight"), ("", "no payment scheme")]
    {
        let address = origin.address;
        let request = format!("OPTIONS http://{address}/x HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n");
        let mut client = Raw::asking(proxy.address, request).await;
        let mut server = origin.accept().await;
        server.head().await;
        server.send("HTTP/1.1 402 Payment Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        let head = client.head().await;
        assert!(field(&head, "proxy-status").unwrap().contains(reason), "{head}");
    }
    proxy.stop().await;
}
