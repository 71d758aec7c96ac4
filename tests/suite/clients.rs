//! Who may use the proxy: on ports that other machines reach, only clients with a token, in all six ways in.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{Request, header};
use tollpass::devnet::origin;
use tollpass::protocol::Amount;

use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, Running, write_private};
use crate::support::raw::{Raw, RawOrigin, field};
use crate::support::secure::Notary;
use crate::support::wire::{Got, ask};

const LAPTOP: &str = "a-token-of-the-laptop";
const SERVER: &str = "a-token-of-the-server";

fn basic(name: &str, token: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{token}")))
}

/// Two clients, with `more` keys for the first.
fn clients(more: &str) -> String {
    format!(
        "[[client]]\nname = \"laptop\"\ntoken_file = \"laptop\"\n{more}\n\
         [[client]]\nname = \"server\"\ntoken_file = \"server\"\n"
    )
}

fn write_tokens(alice: &Alice) {
    write_private(&alice.directory.path().join("laptop"), &format!("{LAPTOP}\n"));
    write_private(&alice.directory.path().join("server"), SERVER);
}

/// A seller, also over TLS with HTTP/2, and Alice's proxy, which listens on every address.
struct Scene {
    fair: Fair,
    alice: Alice,
    proxy: Running,
    ws: RawOrigin,
    _notary: Notary,
}

impl Scene {
    async fn open(limits: &str) -> Self {
        Self::with(&clients(""), limits).await
    }

    async fn with(clients: &str, limits: &str) -> Self {
        let notary = Notary::new();
        let secure = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
        let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config: secure };
        let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
        let more = format!(
            "{QUICK}{clients}[[route]]\nprefix = \"/seller\"\norigin = \"{}\"\n[upstream]\nca_file = \"{}\"\n\
             [limits]\n{limits}\n",
            fair.origin.url(),
            notary.ca_file().display()
        );
        let mut alice = Alice::with(&fair.market, &more).await;
        write_tokens(&alice);
        alice.change("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"\nallow_remote = true");
        let mut proxy = alice.start().await;
        proxy.address = ([127, 0, 0, 1], proxy.address.port()).into();
        Self { fair, alice, proxy, ws: RawOrigin::start().await, _notary: notary }
    }

    fn route_token(&self) -> String {
        std::fs::read_to_string(self.alice.state_dir().join("route-token")).unwrap().trim_end().to_owned()
    }

    /// Sends the head of a request with these `Proxy-Authorization` lines; returns the head of the response.
    async fn head(&self, request: &str, credentials: &[String]) -> (Raw, String) {
        let lines: String =
            credentials.iter().map(|line| format!("Proxy-Authorization: {line}\r\n")).collect();
        let mut client = Raw::asking(self.proxy.address, format!("{request}\r\n{lines}\r\n")).await;
        let head = client.head().await;
        (client, head)
    }

    /// Asks by each way in with these credentials; they are valid or none of them is.
    async fn ask_all(&self, credentials: &[String], is_valid: bool, bought: &mut u64) {
        let origin = self.fair.origin.address();
        let secure = self.fair.origin.secure_url().unwrap();
        let place = secure.strip_prefix("https://").unwrap();
        let row = format!("{credentials:?}");

        // Plain.
        let plain = format!("GET http://{origin}/paid HTTP/1.1\r\nHost: {origin}\r\nConnection: close");
        let (_, head) = self.head(&plain, credentials).await;
        self.judge(&head, is_valid, "200", &row);
        // A blind tunnel: no rule names localhost.
        let blind = format!("localhost:{}", origin.port());
        let request = format!("CONNECT {blind} HTTP/1.1\r\nHost: {blind}");
        let (mut client, head) = self.head(&request, credentials).await;
        self.judge(&head, is_valid, "200", &row);
        if is_valid {
            client.send(format!("GET /free HTTP/1.1\r\nHost: {blind}\r\n\r\n")).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{row}");
        }
        // Intercepted tunnels: only the CONNECT has credentials.
        for version in ["--http1.1", "--http2"] {
            if is_valid {
                let ca = self.alice.state_dir().join("ca.pem");
                let line = format!("Proxy-Authorization: {}", credentials[0]);
                let url = format!("{secure}/paid");
                let more = [version, "--cacert", ca.to_str().unwrap(), "--proxy-header", &line, &url];
                let got = curl(Some(self.proxy.address), &more).await.got;
                assert_eq!(got.status, 200, "{version} {row}");
            } else {
                let request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}");
                let (_, head) = self.head(&request, credentials).await;
                self.judge(&head, false, "200", &row);
            }
        }
        // A WebSocket.
        let request = format!(
            "GET http://{0}/ws HTTP/1.1\r\nHost: {0}\r\nConnection: Upgrade\r\nUpgrade: websocket",
            self.ws.address
        );
        if is_valid {
            let asked = self.head(&request, credentials);
            let answered = async {
                let mut server = self.ws.accept().await;
                let head = server.head().await;
                let switch =
                    "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
                server.send(switch).await;
                head
            };
            let ((mut client, head), received) = tokio::join!(asked, answered);
            self.judge(&head, true, "101", &row);
            assert_eq!(client.exactly(5).await, b"hello");
            assert_eq!(field(&received, "proxy-authorization"), None, "{received}");
            *bought += 3;
        } else {
            let (_, head) = self.head(&request, credentials).await;
            self.judge(&head, false, "101", &row);
        }
        assert_eq!(self.proxy.promised().await, Amount::from(*bought * PRICE), "{row}");
    }

    fn judge(&self, head: &str, is_valid: bool, good: &str, row: &str) {
        if is_valid {
            assert!(head.starts_with(&format!("HTTP/1.1 {good} ")), "{row}: {head}");
            return;
        }
        assert!(head.starts_with("HTTP/1.1 407 "), "{row}: {head}");
        assert_eq!(field(head, "proxy-authenticate"), Some("Basic realm=\"tollpass\""), "{head}");
        assert_eq!(field(head, "content-type"), Some("application/problem+json"), "{head}");
        assert_eq!(head.to_lowercase().matches("\r\nproxy-status:").count(), 1, "{head}");
        let told = field(head, "proxy-status").unwrap();
        assert!(told.contains("error=http_request_denied") && told.contains("[[client]]"), "{told}");
        assert!(!head.contains(LAPTOP) && !head.contains(SERVER), "{head}");
    }
}

#[tokio::test]
async fn each_way_in_needs_the_token_of_a_client() {
    let scene = Scene::open("auth_failures = 1000").await;
    let mut bought = 0;
    for (credentials, is_valid) in [
        (vec![], false),
        (vec![basic("laptop", SERVER)], false),
        (vec![basic("unknown", LAPTOP)], false),
        (vec![basic("", LAPTOP)], false),
        (vec![basic("laptop", "")], false),
        (vec![basic("laptop", &LAPTOP[..LAPTOP.len() - 1])], false),
        (vec![basic("laptop", &format!("{LAPTOP}x"))], false),
        (vec![basic("Laptop", LAPTOP)], false),
        (vec![format!("Bearer {LAPTOP}")], false),
        (vec!["Basic".to_owned()], false),
        (vec![basic("laptop", LAPTOP), basic("laptop", LAPTOP)], false),
        (vec![basic("laptop", LAPTOP)], true),
        (vec![basic("server", SERVER)], true),
        (vec![basic("server", SERVER).replace("Basic", "basic")], true),
    ] {
        scene.ask_all(&credentials, is_valid, &mut bought).await;
    }
    assert_eq!(bought, 9);

    // A route takes the token in its path, and nothing else.
    let token = scene.route_token();
    let port = scene.proxy.address.port();
    for host in ["127.0.0.1", "localhost", "192.0.2.1", "tollpass.local"] {
        for (before, is_valid) in
            [(String::new(), false), (format!("/{token}"), true), (format!("/{SERVER}"), true)]
        {
            for credentials in [vec![], vec![basic("laptop", LAPTOP)]] {
                let request =
                    format!("GET {before}/seller/paid HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close");
                let (_, head) = scene.head(&request, &credentials).await;
                let status = if is_valid { "200" } else { "403" };
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
                bought += u64::from(is_valid);
                if !is_valid {
                    assert!(field(&head, "proxy-status").unwrap().contains("route-token"), "{head}");
                }
            }
        }
        let request = format!("GET /{token}/seller/paid HTTP/1.1\r\nHost: {host}:{port}");
        let (_, head) = scene.head(&request, &[basic("laptop", SERVER)]).await;
        assert!(head.starts_with("HTTP/1.1 407 "), "a wrong token is refused everywhere: {head}");
    }
    assert_eq!(scene.proxy.promised().await, Amount::from(bought * PRICE));
    // The set-up page and the PAC file need no token, and show none.
    for path in ["/", "/proxy.pac", "/ca.pem"] {
        let url = format!("http://{}{path}", scene.proxy.address);
        let page = curl(None, &[&url]).await.got;
        assert_eq!(page.status, 200, "{path}");
        let text = page.text();
        assert!(![token.as_str(), LAPTOP, SERVER].iter().any(|secret| text.contains(secret)), "{text}");
    }
    scene.proxy.stop().await;
}

#[tokio::test]
async fn on_loopback_a_token_is_needed_only_if_it_is_required() {
    for (auth, without) in [("", 200), ("auth = \"remote\"\n", 200), ("auth = \"required\"\n", 407)] {
        let fair = Fair::open().await;
        let mut alice = Alice::with(&fair.market, &format!("{QUICK}{}", clients(""))).await;
        write_tokens(&alice);
        alice.change("listen =", &format!("{auth}listen ="));
        let proxy = alice.start().await;
        for (credentials, status) in
            [(None, without), (Some(basic("laptop", SERVER)), 407), (Some(basic("server", SERVER)), 200)]
        {
            let got = get(&proxy, &fair, credentials.as_deref()).await;
            assert_eq!(got.status, status, "{auth}{credentials:?}");
        }
        proxy.stop().await;
    }
}

async fn get(proxy: &Running, fair: &Fair, credentials: Option<&str>) -> Got {
    let mut request = Request::get(format!("{}/paid", fair.origin.url()));
    if let Some(line) = credentials {
        request = request.header(header::PROXY_AUTHORIZATION, line);
    }
    ask(proxy.address, request.body(empty()).unwrap()).await
}

/// Requests as pages of other sites, prefetches and browsers make them.
const BROWSERS: [&[&str]; 5] = [
    &["Origin: https://evil.example"],
    &["Sec-Fetch-Site: cross-site"],
    &["Referer: http://evil.example/", "User-Agent: Mozilla/5.0 Firefox/140.0"],
    &["Sec-Purpose: prefetch"],
    &["User-Agent: Mozilla/5.0 Firefox/140.0"],
];

#[tokio::test]
async fn only_the_credentials_of_a_program_exempt_from_the_browser_test() {
    let scene = Scene::with(&clients("kind = \"program\""), "").await;
    let ca = scene.alice.state_dir().join("ca.pem");
    let (plain, secure) = (scene.fair.origin.url(), scene.fair.origin.secure_url().unwrap());
    let mut bought = 0;
    for (name, token, is_program) in [("laptop", LAPTOP, true), ("server", SERVER, false)] {
        let line = format!("Proxy-Authorization: {}", basic(name, token));
        for headers in BROWSERS {
            for (version, url) in [("--http1.1", &plain), ("--http1.1", &secure), ("--http2", &secure)] {
                let url = format!("{url}/paid");
                let mut more = vec![version, "--cacert", ca.to_str().unwrap(), "--proxy-header", &line];
                more.extend(headers.iter().flat_map(|header| ["-H", *header]));
                more.push(&url);
                let got = curl(Some(scene.proxy.address), &more).await.got;
                assert_eq!(
                    got.status,
                    if is_program { 200 } else { 402 },
                    "{name} {headers:?} {url}: {got:?}"
                );
                bought += u64::from(is_program);
            }
        }
    }
    // Through a route, no credentials prove that it is no page.
    for token in [scene.route_token().as_str(), LAPTOP] {
        for headers in &BROWSERS[1..] {
            let port = scene.proxy.address.port();
            let request = format!(
                "GET /{token}/seller/paid HTTP/1.1\r\nHost: localhost:{port}\r\n{}",
                headers.join("\r\n")
            );
            let (_, head) = scene.head(&request, &[]).await;
            assert!(!head.starts_with("HTTP/1.1 200 "), "{request}: {head}");
        }
    }
    assert_eq!(scene.proxy.promised().await, Amount::from(bought * PRICE));
    scene.proxy.stop().await;
}

#[tokio::test]
async fn guesses_are_slowed_down_and_lock_out_no_client() {
    let fair = Fair::open().await;
    let rest = format!("{QUICK}{}[limits]\nauth_failures = 3\nauth_window = \"1h\"\n", clients(""));
    let alice = Alice::with(&fair.market, &rest).await;
    write_tokens(&alice);
    let proxy = alice.start().await;
    for _ in 0..3 {
        assert_eq!(get(&proxy, &fair, Some(&basic("laptop", "a-wrong-token-here"))).await.status, 407);
    }
    let got = get(&proxy, &fair, Some(&basic("laptop", "a-wrong-token-here"))).await;
    assert_eq!(got.status, 429);
    let wait: u64 = got.header(&header::RETRY_AFTER).unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert!(got.header(&"proxy-status".parse().unwrap()).unwrap().contains("limits.auth_failures"));
    // Each further guess costs a connection.
    assert_eq!(got.header(&header::CONNECTION), Some("close"));
    // Guesses lock out no client: any user of this machine shares its address.
    assert_eq!(get(&proxy, &fair, Some(&basic("laptop", LAPTOP))).await.status, 200);
    // Requests without an attempt are not affected.
    assert_eq!(get(&proxy, &fair, None).await.status, 200);
    assert_eq!(proxy.promised().await, Amount::from(2 * PRICE));
    proxy.stop().await;
}

#[tokio::test]
async fn the_log_names_the_client_and_never_its_token() {
    let fair = Fair::open().await;
    let route =
        format!("[[route]]\nprefix = \"/seller\"\norigin = \"{}\"\nclient = \"server\"\n", fair.origin.url());
    let rest = format!("{QUICK}{}{route}[log]\naccess = true\n", clients(""));
    let alice = Alice::with(&fair.market, &rest).await;
    write_tokens(&alice);
    let serving = alice.serve(&[("TOLLPASS_LOG", "trace"), ("TOLLPASS_LOG_FORMAT", "json")]).await;
    let url = format!("{}/paid", fair.origin.url());
    for (token, status) in [(LAPTOP, 200), (SERVER, 407)] {
        let request = Request::get(&url).header(header::PROXY_AUTHORIZATION, basic("laptop", token));
        assert_eq!(ask(serving.address, request.body(empty()).unwrap()).await.status, status);
    }
    // The route of a client needs its token at every host.
    let token = std::fs::read_to_string(alice.state_dir().join("route-token")).unwrap();
    let token = token.trim_end();
    let befores = ["", token, LAPTOP, SERVER].map(|token| format!("/{token}"));
    for (before, status) in befores.iter().zip([403, 403, 403, 200]) {
        let url = format!("http://{}{}/seller/paid", serving.address, before.trim_end_matches('/'));
        assert_eq!(curl(None, &[&url]).await.got.status, status, "{before}");
    }
    let page = curl(None, &[&format!("http://{}/", serving.address)]).await.got;
    assert!(page.text().contains("/TOKEN/seller (TOKEN is the token of its [[client]])"), "{}", page.text());
    serving.terminate();
    let (_, log) = serving.ended().await;
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let access: Vec<_> = lines.filter(|line| line["target"] == "tollpass::access").collect();
    let [paid, refused, no_token, _, _, by_route, _page] = access.as_slice() else { panic!("{log}") };
    assert_eq!((&no_token["name"], &no_token["handled"]), (&().into(), &"refused".into()));
    assert_eq!((&by_route["name"], &by_route["handled"]), (&"server".into(), &"paid".into()));
    assert_eq!((&paid["name"], &paid["handled"]), (&"laptop".into(), &"paid".into()));
    assert_eq!((&refused["name"], &refused["handled"]), (&().into(), &"refused".into()));
    assert!(log.contains("\"client\":\"laptop\""), "the span names the client: {log}");
    for token in [LAPTOP, SERVER, token] {
        assert!(!log.contains(token) && !log.contains(&basic("laptop", token)), "{log}");
    }
}

#[test]
fn a_token_that_cannot_be_used_is_reported() {
    let read = |laptop: &str, server: &str| {
        let alice = Alice::without_chain(&clients(""));
        write_private(&alice.directory.path().join("laptop"), laptop);
        write_private(&alice.directory.path().join("server"), server);
        let config = tollpass::config::Config::load(Some(&alice.config_path())).unwrap();
        tollpass::app::known_clients(&config).map(|_| ()).map_err(|error| error.to_string())
    };
    let long = "x".repeat(1025);
    for (laptop, server, said) in [
        (LAPTOP, SERVER, None),
        ("0123456789abcdef", SERVER, None),
        ("0123456789abcde", SERVER, Some("laptop: ")),
        ("", SERVER, Some("laptop: ")),
        (LAPTOP, "two words are not a token", Some("server: ")),
        (LAPTOP, "a-tok\u{e9}n-of-the-server", Some("server: ")),
        (LAPTOP, &long, Some("server: ")),
        (LAPTOP, " a-token-of-the-laptop\r\n", Some("laptop and server have the same token")),
    ] {
        let found = read(laptop, server);
        match said {
            None => assert_eq!(found, Ok(())),
            Some(said) => {
                let error = found.unwrap_err();
                assert!(error.contains(said), "{error}");
                assert!(!error.contains("words") && !error.contains(LAPTOP), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_clients_own_rules_replace_the_global_ones() {
    let own =
        "pay = [{ host = \"localhost\", max_price = 10000 }, { host = \"127.0.0.1\", max_price = 999 }]";
    let scene = Scene::with(&clients(own), "").await;
    let ca = scene.alice.state_dir().join("ca.pem");
    let (plain, secure) = (scene.fair.origin.url(), scene.fair.origin.secure_url().unwrap());
    let at_localhost = plain.replace("127.0.0.1", "localhost");
    let mut bought = 0;
    // The global rule pays 10000 at 127.0.0.1, also before the client that may not has its turn.
    for (name, token, url, reason) in [
        ("server", SERVER, &plain, None),
        ("server", SERVER, &secure, None),
        ("laptop", LAPTOP, &plain, Some("the price 1000 is above max_price 999")),
        ("laptop", LAPTOP, &secure, Some("the price 1000 is above max_price 999")),
        ("laptop", LAPTOP, &at_localhost, None),
        ("server", SERVER, &at_localhost, Some("no [[pay]] rule matches localhost")),
        ("laptop", LAPTOP, &plain, Some("the price 1000 is above max_price 999")),
    ] {
        let line = format!("Proxy-Authorization: {}", basic(name, token));
        let url = format!("{url}/paid");
        let more = ["--cacert", ca.to_str().unwrap(), "--proxy-header", &line, &url];
        let got = curl(Some(scene.proxy.address), &more).await.got;
        let told = got.header(&"proxy-status".parse().unwrap()).unwrap_or_default();
        assert_eq!(got.status, if reason.is_some() { 402 } else { 200 }, "{name} {url}: {told}");
        assert!(told.contains(reason.unwrap_or_default()), "{name} {url}: {told}");
        bought += u64::from(reason.is_none());
        assert_eq!(scene.proxy.promised().await, Amount::from(bought * PRICE), "{name} {url}");
    }
    scene.proxy.stop().await;
    // An empty list pays nothing.
    let scene = Scene::with(&clients("pay = []"), "").await;
    let got = get(&scene.proxy, &scene.fair, Some(&basic("laptop", LAPTOP))).await;
    let told = got.header(&"proxy-status".parse().unwrap()).unwrap_or_default();
    assert!(got.status == 402 && told.contains("no [[client.pay]] rule of the client laptop"), "{told}");
    assert_eq!(get(&scene.proxy, &scene.fair, Some(&basic("server", SERVER))).await.status, 200);
    scene.proxy.stop().await;
}
