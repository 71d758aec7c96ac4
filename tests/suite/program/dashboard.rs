//! The dashboard of the real program: who gets in, what is told without a token, and what its calls show and change. Chromium
//! drives the page itself in `tests/programs/dashboard.py`.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{run, text};
use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::{Fair, empty};
use crate::support::office::Office;
use crate::support::payer::{Alice, PATIENCE, Program, program};
use crate::support::raw::{RawOrigin, soon};
use crate::support::wire::{Body, Got, Wire, ask, whole};

/// What can be read.
const READS: [&str; 6] = ["now", "channels", "ledger", "history", "refused", "setup"];
/// What can be changed.
const CHANGES: [&str; 6] = ["decide", "revoke", "resume", "freeze", "plan", "operate"];

/// A page of the dashboard, as a browser would send its requests.
struct Page {
    address: SocketAddr,
    token: Option<String>,
}

/// The link that `tollpass dashboard` prints: the page and the secret.
async fn link(alice: &Alice) -> (String, String) {
    let ran = run(&["dashboard", "--json", "--config", text(&alice.config_path())]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(told["valid_for_s"].as_u64().unwrap() > 0, "{told}");
    let (page, secret) = told["url"].as_str().unwrap().split_once('#').unwrap();
    (page.to_owned(), secret.to_owned())
}

impl Page {
    fn new(address: SocketAddr) -> Self {
        Self { address, token: None }
    }

    /// Opens the link of a proxy.
    async fn open(alice: &Alice, proxy: &Program) -> Self {
        let (page, secret) = link(alice).await;
        assert_eq!(page, format!("http://{}/dashboard", proxy.address));
        let mut opened = Self::new(proxy.address);
        let got = opened.sign_in(&secret).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        let told: Value = serde_json::from_str(got.text()).unwrap();
        opened.token = Some(told["token"].as_str().unwrap().to_owned());
        opened
    }

    async fn sign_in(&self, secret: &str) -> Got {
        self.post("session", &json!({ "secret": secret })).await
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Request<Body> {
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("/dashboard{path}"))
            .header(header::HOST, self.address.to_string());
        if method == Method::POST {
            request = request
                .header(header::ORIGIN, format!("http://{}", self.address))
                .header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(body).unwrap()
    }

    async fn get(&self, name: &str) -> Got {
        ask(self.address, self.request(Method::GET, &format!("/api/{name}"), empty())).await
    }

    async fn post(&self, path: &str, body: &Value) -> Got {
        ask(self.address, self.request(Method::POST, &format!("/{path}"), whole(body.to_string()))).await
    }

    async fn read(&self, name: &str) -> Value {
        let got = self.get(name).await;
        assert_eq!(got.status, StatusCode::OK, "{name}: {got:?}");
        assert_eq!(got.headers["content-type"], "application/json");
        assert_eq!(got.headers["cache-control"], "no-store");
        serde_json::from_str(got.text()).unwrap()
    }

    async fn change(&self, name: &str, body: Value) -> Value {
        let got = self.post(&format!("api/{name}"), &body).await;
        assert_eq!(got.status, StatusCode::OK, "{name}: {got:?}");
        serde_json::from_str(got.text()).unwrap()
    }

    /// Begins to listen to news.
    async fn listen(&self) -> Result<News, StatusCode> {
        let mut wire = Wire::connect(self.address).await;
        let response = wire.head(self.request(Method::POST, "/news", whole("{}"))).await.unwrap();
        if response.status() != StatusCode::OK {
            return Err(response.status());
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(News { body: response.into_body(), text: String::new(), _wire: wire })
    }
}

/// A stream of events.
struct News {
    body: Incoming,
    text: String,
    _wire: Wire,
}

impl News {
    /// The next event, with its data; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let parsed = event.strip_prefix("event: ").map(|event| {
                    let (name, data) = event.split_once("\ndata: ").unwrap();
                    (name.to_owned(), serde_json::from_str(data).unwrap())
                });
                self.text = rest.to_owned();
                if parsed.is_some() {
                    return parsed;
                }
                continue;
            }
            let frame = soon("news", self.body.frame()).await?;
            let data: Bytes = frame.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// Waits for an event with this name that is as wanted.
    async fn until(&mut self, name: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let (found, data) = self.next().await.expect("the stream goes on");
                if found == name && is_wanted(&data) {
                    return data;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no such {name}"))
    }
}

/// What must not be told to those without a token.
fn assert_nothing_private(got: &Got, alice: &Alice, fair: &Fair) {
    let seller = fair.origin.receiver().to_string();
    let state = alice.state_dir();
    for private in [&alice.address.to_string(), &seller, text(&state), "TOY"] {
        assert!(!got.text().contains(private), "{private} is in {got:?}");
    }
}

/// A token with a name, and a budget.
fn config(fair: &Fair) -> String {
    let token = fair.market.token;
    format!(
        "{QUICK}[[budget]]\nname = \"all\"\nwallet = true\nper_day = \"1000 TOY\"\n\
         [[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\ntoken = \"{token}\"\ndecimals = 2\n"
    )
}

async fn pay(fair: &Fair, proxy: &Program) -> StatusCode {
    ask(proxy.address, Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap())
        .await
        .status
}

#[tokio::test]
async fn a_link_opens_one_page_and_nothing_is_told_without_its_token() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &config(&fair)).await;
    let proxy = alice.serve(&[("TOLLPASS_LOG", "trace")]).await;
    assert_eq!(pay(&fair, &proxy).await, StatusCode::OK);

    let stranger = Page::new(proxy.address);
    for path in ["", "/", "/app.js", "/style.css"] {
        let got = ask(proxy.address, stranger.request(Method::GET, path, empty())).await;
        assert_eq!(got.status, StatusCode::OK, "{path}");
        assert_nothing_private(&got, &alice, &fair);
        let policy = got.headers["content-security-policy"].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(got.headers[name], value);
        }
        assert!(!got.headers.contains_key("access-control-allow-origin"));
        assert!(!got.headers.contains_key("set-cookie"));
    }

    let guesser = Page { token: Some("0".repeat(64)), ..Page::new(proxy.address) };
    for page in [&stranger, &guesser] {
        for name in READS {
            let got = page.get(name).await;
            assert_eq!(got.status, StatusCode::UNAUTHORIZED, "{name}");
            assert_nothing_private(&got, &alice, &fair);
        }
        for name in CHANGES {
            let got = page.post(&format!("api/{name}"), &json!({ "frozen": true })).await;
            assert_eq!(got.status, StatusCode::UNAUTHORIZED, "{name}");
        }
        assert_eq!(page.listen().await.err(), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(page.sign_in("0").await.status, StatusCode::UNAUTHORIZED);
    }

    let (_, secret) = link(&alice).await;
    let first = stranger.sign_in(&secret).await;
    assert_eq!(first.status, StatusCode::OK);
    let again = stranger.sign_in(&secret).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED, "a second time: {again:?}");
    let told: Value = serde_json::from_str(first.text()).unwrap();
    let token = told["token"].as_str().unwrap().to_owned();
    let page = Page { token: Some(token.clone()), ..Page::new(proxy.address) };
    let mut news = page.listen().await.unwrap();
    for name in READS {
        page.read(name).await;
    }
    assert_eq!(page.get("other").await.status, StatusCode::NOT_FOUND);
    // Nothing was frozen by those without a token.
    assert_eq!(page.read("now").await["is_frozen"], false);
    assert_eq!(page.post("session/end", &json!({})).await.status, StatusCode::OK);
    assert_eq!(page.get("now").await.status, StatusCode::UNAUTHORIZED);
    while news.next().await.is_some() {}

    let log = proxy.stop().await;
    assert!(log.contains("a page of the dashboard has signed in"), "{log}");
    for hidden in [&secret, &token] {
        assert!(!log.contains(hidden.as_str()), "a secret is in the log");
    }
}

#[tokio::test]
async fn only_its_own_pages_at_its_own_names_get_through() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &config(&fair)).await;
    let proxy = alice.serve(&[]).await;
    let page = Page::open(&alice, &proxy).await;
    let port = proxy.address.port();
    let own = format!("http://{}", proxy.address);
    let json = ("content-type", "application/json");
    let host = ("host", proxy.address.to_string());
    let with = |headers: &[(&'static str, &str)]| {
        let mut map = HeaderMap::new();
        map.insert(header::HOST, HeaderValue::from_str(&host.1).unwrap());
        let token = format!("Bearer {}", page.token.as_deref().unwrap());
        map.insert(header::AUTHORIZATION, HeaderValue::from_str(&token).unwrap());
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    };
    let other_port = format!("http://127.0.0.1:{}", port ^ 1);
    let rebound = format!("evil.example:{port}");
    let localhost = format!("localhost:{port}");
    let own_localhost = format!("http://{localhost}");
    for (headers, reads, changes) in [
        (&[json, ("origin", own.as_str())][..], 200, 200),
        (&[json, ("origin", own.as_str()), ("sec-fetch-site", "same-origin")], 200, 200),
        (&[json, ("host", localhost.as_str()), ("origin", own_localhost.as_str())], 200, 200),
        (&[json], 200, 403),
        (&[("origin", own.as_str()), ("content-type", "text/plain")], 200, 415),
        (&[json, ("origin", other_port.as_str())], 403, 403),
        (&[json, ("origin", other_port.as_str()), ("sec-fetch-site", "same-site")], 403, 403),
        (&[json, ("origin", own_localhost.as_str())], 403, 403),
        (&[json, ("origin", "https://evil.example")], 403, 403),
        (&[json, ("origin", "null"), ("sec-fetch-site", "cross-site")], 403, 403),
        (&[json, ("origin", own.as_str()), ("sec-fetch-site", "cross-site")], 403, 403),
        (&[json, ("host", rebound.as_str()), ("origin", own.as_str())], 421, 421),
    ] {
        for (method, path, body, expected) in [
            (Method::GET, "/dashboard/api/now", "", reads),
            (Method::POST, "/dashboard/api/freeze", "{\"frozen\":false}", changes),
            (Method::POST, "/dashboard/news", "{}", changes),
        ] {
            let mut request = Request::builder().method(method.clone()).uri(path).body(whole(body)).unwrap();
            *request.headers_mut() = with(headers);
            let response = Wire::connect(proxy.address).await.head(request).await.unwrap();
            assert_eq!(response.status(), expected, "{method} {path} {headers:?}");
            assert!(!response.headers().contains_key("access-control-allow-origin"));
        }
    }
    // A preflight of another page finds nothing that allows it anything.
    let preflight = Request::options("/dashboard/api/now")
        .header("host", &host.1)
        .header("origin", &other_port)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization");
    let got = ask(proxy.address, preflight.body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::FORBIDDEN);
    assert!(!got.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{got:?}");

    // The page of a foreign name says which key would allow it.
    let foreign = Request::get("/dashboard").header("host", &rebound).body(empty()).unwrap();
    let got = ask(proxy.address, foreign).await;
    assert_eq!(got.status, StatusCode::MISDIRECTED_REQUEST);
    assert!(got.text().contains("frontend.names"), "{got:?}");

    // Through the proxy, it is under its own name.
    let got = curl(Some(proxy.address), &["http://tollpass.local/dashboard"]).await.got;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(got.headers["content-type"], "text/html; charset=utf-8");
    proxy.kill().await;
}

#[tokio::test]
async fn a_payment_appears_and_an_approval_lets_its_request_through() {
    let fair = Fair::open().await;
    let rule = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\nask_above = 500\n";
    let alice = Alice::ruled(&fair.market, &format!("{rule}{}", config(&fair))).await;
    let proxy = alice.serve(&[]).await;
    let page = Page::open(&alice, &proxy).await;
    let mut news = page.listen().await.unwrap();
    let first = news.until("now", |_| true).await;
    assert_eq!(first["pending"], json!([]));

    for is_approved in [false, true] {
        let address = proxy.address;
        let url = format!("{}/paid", fair.origin.url());
        let waiting =
            tokio::spawn(async move { ask(address, Request::get(url).body(empty()).unwrap()).await });
        let now = news.until("now", |now| now["pending"] != json!([])).await;
        let pending = &now["pending"][0];
        assert_eq!((&pending["shown"], &pending["host"]), (&"10 TOY".into(), &"127.0.0.1".into()));
        let decided = page.change("decide", json!({ "id": pending["id"], "approve": is_approved })).await;
        assert_eq!(decided["id"], pending["id"]);
        let got = waiting.await.unwrap();
        let expected = if is_approved { StatusCode::OK } else { StatusCode::PAYMENT_REQUIRED };
        assert_eq!(got.status, expected, "{got:?}");
        let again = page.post("api/decide", &json!({ "id": pending["id"], "approve": true })).await;
        assert_eq!(again.status, StatusCode::CONFLICT, "{again:?}");
    }
    let rows = news.until("rows", |rows| rows[0]["state"] == "paid").await;
    let row = &rows[0];
    assert_eq!((&row["amount"], &row["path"]), (&"10 TOY".into(), &"/paid".into()));
    assert_eq!(row["host"], fair.origin.address().to_string());

    // What the command line would say.
    let now = page.read("now").await;
    assert_eq!(now["spent"][0]["shown"], "10 TOY");
    let window = &now["budgets"][0]["windows"][0];
    assert_eq!((&window["key"], &window["spent"]), (&"per_day".into(), &"10 TOY".into()));
    assert_eq!(window["used"], 0.01);
    let ledger = page.read("ledger").await;
    assert_eq!(
        (ledger["rows"].as_array().unwrap().len(), &ledger["rows"][0]["payment"]),
        (1, &row["payment"])
    );
    for (query, count) in
        [("text=paid", 1), ("text=PAID&show=paid", 1), ("show=refused", 0), ("text=else", 0)]
    {
        let found = page.read(&format!("ledger?{query}")).await;
        assert_eq!(found["rows"].as_array().unwrap().len(), count, "{query}: {found}");
    }
    assert_eq!(page.get("ledger?show=x").await.status, StatusCode::BAD_REQUEST);
    let history = page.read("history?days=7").await;
    let asset = &history["assets"][0];
    assert_eq!((&asset["symbol"], &asset["total"]["shown"]), (&"TOY".into(), &"10 TOY".into()));
    let days = asset["days"].as_array().unwrap();
    assert_eq!((days.len(), &days[6]["value"]), (7, &10.0.into()));
    assert_eq!(asset["hosts"][0]["host"], fair.origin.address().to_string());

    // The denied request, and one without a rule.
    let elsewhere = fair.origin.url().replace("127.0.0.1", "localhost");
    let unruled = Request::get(format!("{elsewhere}/paid?hush")).body(empty()).unwrap();
    assert_eq!(ask(proxy.address, unruled).await.status, StatusCode::PAYMENT_REQUIRED);
    let refused = page.read("refused").await;
    let reasons: Vec<_> = refused["latest"].as_array().unwrap().iter().map(|one| &one["reason"]).collect();
    assert_eq!(reasons, ["no-rule", "approval-denied"], "{refused}");
    assert!(!refused.to_string().contains("hush"), "{refused}");
    news.until("now", |now| now["refused"] == 2).await;
    proxy.stop().await;
}

#[tokio::test]
async fn channels_are_operated_after_their_plan_was_shown() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &config(&fair)).await;
    let proxy = alice.serve(&[]).await;
    let page = Page::open(&alice, &proxy).await;
    assert_eq!(pay(&fair, &proxy).await, StatusCode::OK);
    let listed = page.read("channels").await;
    assert_eq!(listed["unit"], "TOY");
    let channel = &listed["channels"][0];
    assert_eq!((&channel["phase"], &channel["promised"]), (&"open".into(), &"10 TOY".into()));
    let id = channel["id"].as_str().unwrap();

    let wanted = json!({ "do": "top_up", "channel": id, "added": "2.5" });
    let plan = page.change("plan", wanted.clone()).await;
    assert_eq!(plan["text"], format!("lock up 2.5 TOY more in {id}"));
    assert!(plan["fees"].as_str().unwrap().starts_with("at most 0."), "{plan}");
    assert_eq!(page.read("channels").await["channels"][0]["deposit"], channel["deposit"], "only a plan");
    page.change("operate", wanted).await;
    let deposit = |value: &Value| -> f64 {
        value["channels"][0]["deposit"].as_str().unwrap().strip_suffix(" TOY").unwrap().parse().unwrap()
    };
    let topped_up = page.read("channels").await;
    assert_eq!(deposit(&topped_up), deposit(&listed) + 2.5);
    let plan = page.change("plan", json!({ "do": "close_together", "channel": id })).await;
    assert!(
        plan["text"].as_str().unwrap().contains("close") && plan["text"].as_str().unwrap().contains("10 TOY"),
        "{plan}"
    );
    page.change("operate", json!({ "do": "close_together", "channel": id })).await;
    let channels = page.read("channels").await;
    assert!(channels["channels"].as_array().unwrap().iter().all(|one| one["phase"] != "open"), "{channels}");

    for (wanted, status) in [
        (json!({ "do": "top_up", "channel": id, "added": "x" }), StatusCode::BAD_REQUEST),
        (json!({ "do": "top_up", "channel": "x", "added": "1" }), StatusCode::BAD_REQUEST),
        (json!({ "do": "close_together", "channel": id }), StatusCode::CONFLICT),
    ] {
        let got = page.post("api/plan", &wanted).await;
        assert_eq!(got.status, status, "{wanted}: {got:?}");
    }

    // All signing is stopped from here, too.
    page.change("freeze", json!({ "frozen": true })).await;
    assert_eq!(pay(&fair, &proxy).await, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(page.read("now").await["is_frozen"], true);
    page.change("freeze", json!({ "frozen": false })).await;
    assert_eq!(pay(&fair, &proxy).await, StatusCode::OK);
    proxy.stop().await;
}

#[tokio::test]
async fn amounts_follow_the_assets_of_a_reload() {
    let fair = Fair::open().await;
    let mut alice = Alice::with(&fair.market, &config(&fair)).await;
    let proxy = alice.serve(&[]).await;
    let page = Page::open(&alice, &proxy).await;
    let mut news = page.listen().await.unwrap();
    assert_eq!(pay(&fair, &proxy).await, StatusCode::OK);
    news.until("rows", |rows| rows[0]["amount"] == "10 TOY").await;

    alice.change("symbol = \"TOY\"", "symbol = \"PLAY\"");
    alice.change("decimals = 2", "decimals = 3");
    alice.change("1000 TOY", "1000 PLAY");
    let ran = run(&["reload", "--json", "--config", text(&alice.config_path())]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(told["needs_restart"], json!([]), "{told}");
    news.until("now", |now| now["spent"][0]["shown"] == "1 PLAY").await;
    let listed = page.read("channels").await;
    assert_eq!((&listed["unit"], &listed["channels"][0]["promised"]), (&"PLAY".into(), &"1 PLAY".into()));
    assert_eq!(page.read("ledger").await["rows"][0]["amount"], "1 PLAY");
    let asset = &page.read("history").await["assets"][0];
    assert_eq!((&asset["symbol"], &asset["total"]["value"]), (&"PLAY".into(), &1.0.into()));
    // What the user types is in the same unit.
    let id = listed["channels"][0]["id"].as_str().unwrap();
    let plan = page.change("plan", json!({ "do": "top_up", "channel": id, "added": "0.125" })).await;
    assert_eq!(plan["text"], format!("lock up 0.125 PLAY more in {id}"));
    assert_eq!(pay(&fair, &proxy).await, StatusCode::OK);
    news.until("rows", |rows| rows[0]["amount"] == "1 PLAY").await;
    proxy.stop().await;
}

#[tokio::test]
async fn pages_streams_and_requests_are_bounded() {
    let fair = Fair::open().await;
    let limits = "[limits]\ndashboard_sessions = 2\ndashboard_streams = 1\ndashboard_body = 1024\nrefused_requests = 1\n";
    let alice = Alice::with(&fair.market, limits).await;
    let proxy = alice.serve(&[]).await;
    let first = Page::open(&alice, &proxy).await;
    let second = Page::open(&alice, &proxy).await;
    let mut news = first.listen().await.unwrap();
    assert_eq!(second.listen().await.err(), Some(StatusCode::SERVICE_UNAVAILABLE));

    // A third page signs the first one out, and its stream ends.
    let third = Page::open(&alice, &proxy).await;
    while news.next().await.is_some() {}
    assert_eq!(first.get("now").await.status, StatusCode::UNAUTHORIZED);
    let waiting = async { while second.listen().await.is_err() {} };
    soon("the place of the first stream", waiting).await;
    // A page that leaves makes room, too.
    soon("the place of the second stream", async { while third.listen().await.is_err() {} }).await;

    let long = json!({ "host": "x".repeat(2000) });
    assert_eq!(third.post("api/resume", &long).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for path in ["/paid?1", "/paid?2"] {
        let elsewhere = fair.origin.url().replace("127.0.0.1", "localhost");
        let unruled = Request::get(format!("{elsewhere}{path}")).body(empty()).unwrap();
        assert_eq!(ask(proxy.address, unruled).await.status, StatusCode::PAYMENT_REQUIRED);
    }
    let refused = third.read("refused").await;
    assert_eq!((refused["latest"].as_array().unwrap().len(), &refused["count"]), (1, &2.into()), "{refused}");

    // A page that listens keeps no proxy from stopping.
    let mut news = third.listen().await;
    if let Ok(news) = &mut news {
        news.until("now", |_| true).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_token_is_enough_at_a_port_with_tls_and_required_clients() {
    let office = Office::new();
    let fair = Fair::open().await;
    let mut alice = Alice::with(&fair.market, QUICK).await;
    let token = alice.directory.path().join("token");
    crate::support::payer::write_private(&token, "a-token-of-a-client\n");
    let client = format!("auth = \"required\"\n{}listen", office.keys());
    alice.change("listen", &client);
    alice.change(
        "[[pay]]",
        &format!("[[client]]\nname = \"c\"\ntoken_file = \"{}\"\n\n[[pay]]", text(&token)),
    );
    let proxy = alice.serve(&[]).await;
    let (page, secret) = link(&alice).await;
    assert_eq!(page, format!("https://{}/dashboard", proxy.address));
    let ca = office.ca_file();
    let origin = format!("Origin: https://{}", proxy.address);
    let post = ["--cacert", text(&ca), "-H", &origin, "-H", "Content-Type: application/json"];
    let body = json!({ "secret": secret }).to_string();
    let session = format!("{page}/session");
    let got = curl(None, &[&post[..], &["-d", &body, &session]].concat()).await.got;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    let told: Value = serde_json::from_str(got.text()).unwrap();
    let token = format!("Authorization: Bearer {}", told["token"].as_str().unwrap());
    let now = format!("{page}/api/now");
    for (headers, status) in [(&[][..], 401), (&["-H", token.as_str()], 200)] {
        let got = curl(None, &[&["--cacert", text(&ca)], headers, &[&now]].concat()).await.got;
        assert_eq!(got.status, status, "{got:?}");
    }
    // As everywhere else at this port, the pages of plain http are others.
    let plain = origin.replace("https", "http");
    let got = curl(None, &["--cacert", text(&ca), "-H", &plain, "-H", &token, &now]).await.got;
    assert_eq!(got.status, StatusCode::FORBIDDEN, "{got:?}");
    proxy.kill().await;
}

/// One of its policies gives it another origin.
fn assert_sandboxed(got: &Got) {
    let policies = got.headers.get_all("content-security-policy").iter();
    let policies: Vec<_> = policies.map(|policy| policy.to_str().unwrap()).collect();
    assert!(policies.iter().any(|policy| policy.starts_with("sandbox")), "{got:?}");
    assert!(!policies.iter().any(|policy| policy.contains("allow-same-origin")), "{got:?}");
}

#[tokio::test]
async fn a_page_behind_a_route_does_not_get_the_origin_of_the_dashboard() {
    let fair = Fair::open().await;
    let route = format!("[[route]]\nprefix = \"/seller\"\norigin = \"{}\"\n", fair.origin.url());
    let alice = Alice::with(&fair.market, &format!("{QUICK}{route}")).await;
    let proxy = alice.serve(&[]).await;
    // A script may fetch what is later taken from the cache and shown as a page.
    for (name, value) in [
        ("sec-fetch-dest", "document"),
        ("sec-fetch-dest", "serviceworker"),
        ("sec-fetch-dest", "empty"),
        ("accept", "text/html,*/*"),
        ("accept", "*/*"),
    ] {
        let request = Request::get("/seller/free").header("host", proxy.address.to_string());
        let got = ask(proxy.address, request.header(name, value).body(empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert_sandboxed(&got);
    }
    proxy.kill().await;

    // The origin's own policies stay, but it cannot let a worker have more than its route.
    let seller = RawOrigin::start().await;
    let route = format!("[[route]]\nprefix = \"/seller\"\norigin = \"http://{}\"\n", seller.address);
    let alice = Alice::with(&fair.market, &format!("{QUICK}{route}")).await;
    let proxy = alice.serve(&[]).await;
    let request = Request::get("/seller/worker.js").header("host", proxy.address.to_string());
    let (got, ()) = tokio::join!(ask(proxy.address, request.body(empty()).unwrap()), async {
        let mut connection = seller.accept().await;
        connection.head().await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/javascript\r\nservice-worker-allowed: /\r\n\
                    content-security-policy: default-src 'self'\r\ncontent-length: 0\r\n\r\n";
        connection.send(head).await;
    });
    assert_sandboxed(&got);
    assert_eq!(got.headers["content-security-policy"], "default-src 'self'");
    assert!(!got.headers.contains_key("service-worker-allowed"), "{got:?}");
    proxy.kill().await;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    for (prefix, hides) in [("/dashboard", true), ("/dashboard/x", true), ("/dashboards", false)] {
        let route = format!("[[route]]\nprefix = \"{prefix}\"\norigin = \"http://a.example\"\n");
        std::fs::write(&path, route).unwrap();
        let ran = run(&["check", "--config", text(&path)]).await;
        let all = format!("{}{}", ran.out, ran.errors);
        assert_eq!(all.contains("would hide the dashboard"), hides, "{prefix}: {all}");
    }
}

#[tokio::test]
async fn a_proxy_that_never_pays_and_a_program_of_a_run_have_no_dashboard() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, "listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n").unwrap();
    let config = ["--config", text(&path)];
    run(&[&["dashboard"], &config[..]].concat()).await.expect_failure(&["no proxy is running"]);
    let proxy = Program::start(program([&["serve"], &config[..]].concat())).await;
    run(&[&["dashboard"], &config[..]].concat()).await.expect_failure(&["never pays"]);
    let got = ask(proxy.address, Page::new(proxy.address).request(Method::GET, "", empty())).await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    proxy.kill().await;

    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.serve(&[]).await;
    let ours = env!("CARGO_BIN_EXE_tollpass");
    let config = alice.config_path();
    let within =
        ["run", "--quiet", "--config", text(&config), "--", "env", "-u", "TOLLPASS_RUN", ours, "dashboard"];
    run(&within).await.expect_failure(&["cannot operate tollpass"]);
    let script = "curl -s -o /dev/null -w '%{http_code}' --noproxy '*' $http_proxy/dashboard";
    let ran = run(&["run", "--quiet", "--config", text(&config), "--", "sh", "-c", script]).await;
    assert_eq!(ran.out, "404", "the port of a run has none: {ran:?}");
    proxy.kill().await;
}
