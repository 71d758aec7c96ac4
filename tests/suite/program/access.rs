//! The log: one line for each request, no secrets in any line, files of limited size, and quiet libraries.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use http::{Method, Request, StatusCode};
use serde_json::Value;
use tollpass::devnet::origin;

use super::{run, text};
use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, Program};
use crate::support::raw::{Raw, RawOrigin};
use crate::support::secure::Notary;
use crate::support::wire::{Wire, ask};

/// Bob, who also sells over TLS with HTTP/2, and Alice's real proxy, which logs JSON.
struct Scene {
    fair: Fair,
    alice: Alice,
    serving: Program,
    _notary: Notary,
}

impl Scene {
    /// `config` begins in `[hooks]`.
    async fn open(config: &str, filter: &str) -> Self {
        let notary = Notary::new();
        let secure = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
        let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config: secure };
        let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
        let trust = format!("[upstream]\nca_file = \"{}\"\n", notary.ca_file().display());
        let log = if config.contains("[log]") { "" } else { "[log]\naccess = true\n" };
        let alice = Alice::with(&fair.market, &format!("{QUICK}{config}{log}{trust}")).await;
        let variables = [("TOLLPASS_LOG", filter), ("TOLLPASS_LOG_FORMAT", "json")];
        let serving = alice.serve(&variables).await;
        Self { fair, alice, serving, _notary: notary }
    }

    async fn get(&self, url: &str) -> StatusCode {
        ask(self.serving.address, Request::get(url).body(empty()).unwrap()).await.status
    }

    /// Fetches by HTTP/2 inside a tunnel.
    async fn get_inside(&self, path: &str) -> StatusCode {
        let ca = self.alice.state_dir().join("ca.pem");
        let url = self.fair.origin.secure_url().unwrap() + path;
        curl(Some(self.serving.address), &["--http2", "--cacert", text(&ca), &url]).await.got.status
    }

    async fn end(self) -> String {
        self.end_but_keep_files().await.0
    }

    async fn end_but_keep_files(self) -> (String, Alice) {
        self.serving.terminate();
        let (status, log) = self.serving.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        self.fair.origin.stop().await;
        (log, self.alice)
    }
}

/// The lines of the access log by the number of their request.
fn access_lines(log: &str) -> BTreeMap<u64, Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found = BTreeMap::new();
    for line in lines.filter(|line| line["target"] == "tollpass::access") {
        assert_eq!(line["level"], "INFO");
        let before = found.insert(line["id"].as_u64().unwrap(), line);
        assert!(before.is_none(), "a request has two lines: {before:?}");
    }
    found
}

/// Asserts that a line has these values, and no reason, price and the like besides.
fn expect(line: &Value, method: &str, origin: &str, status: Option<u16>, bytes: u64, rest: &[(&str, &str)]) {
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert!(line["time_us"].as_u64().is_some_and(|time| (1..60_000_000).contains(&time)), "{line}");
    let found = (&line["method"], &line["origin"], &line["bytes"]);
    assert_eq!(found, (&method.into(), &origin.into(), &bytes.into()), "{line}");
    assert_eq!(line.get("status").cloned(), status.map(Value::from), "{line}");
    for name in ["handled", "upload", "price", "reason", "details", "ended"] {
        let expected = rest.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let found = line.get(name).map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
        match expected {
            Some(expected) => assert!(found.as_ref().is_some_and(|found| found.contains(expected)), "{line}"),
            None => assert_eq!(found, None, "{line}"),
        }
    }
}

#[tokio::test]
async fn each_request_gets_one_line_that_says_how_it_was_handled() {
    let scene = Scene::open("", "info").await;
    let (proxy, bob) = (scene.serving.address, scene.fair.origin.url());
    let port = scene.fair.origin.address().port();
    assert_eq!(scene.get(&format!("{bob}/free")).await, 200);
    let head = Request::builder().method(Method::HEAD).uri(format!("{bob}/free"));
    assert_eq!(ask(proxy, head.body(empty()).unwrap()).await.status, 200);
    assert_eq!(scene.get(&format!("{bob}/paid")).await, 200);
    assert_eq!(scene.get(&format!("http://localhost:{port}/paid")).await, 402);
    assert_eq!(scene.get("http://127.0.0.1:1/").await, 502);
    assert_eq!(scene.get("http://tollpass.local/").await, 200);

    let mut raw = RawOrigin::start().await;
    let mut tunnel =
        Raw::asking(proxy, format!("CONNECT localhost:{} HTTP/1.1\r\n\r\n", raw.address.port())).await;
    tunnel.head().await;
    tunnel.send("ping").await;
    let mut far = raw.accept().await;
    assert_eq!(far.exactly(4).await, b"ping");
    far.send("pong!!").await;
    assert_eq!(tunnel.exactly(6).await, b"pong!!");
    drop((tunnel, far));

    // The numbers 8 to 11: two tunnels with a request inside each.
    assert_eq!(scene.get_inside("/free").await, 200);
    assert_eq!(scene.get_inside("/paid").await, 200);

    // The client leaves before the response, and in the middle of it; then the origin breaks it off.
    raw = RawOrigin::start().await;
    let slow = format!("http://{}", raw.address);
    let question = format!("GET {slow}/x HTTP/1.1\r\nHost: {}\r\n\r\n", raw.address);
    let mut leaver = Raw::asking(proxy, &question).await;
    let mut far = raw.accept().await;
    far.request().await.unwrap();
    drop(leaver);
    far.rest().await;
    leaver = Raw::asking(proxy, &question).await;
    far = raw.accept().await;
    far.request().await.unwrap();
    far.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
    leaver.head().await;
    assert_eq!(leaver.exactly(3).await, b"abc");
    drop(leaver);
    far.rest().await;
    leaver = Raw::asking(proxy, &question).await;
    far = raw.accept().await;
    far.request().await.unwrap();
    far.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcd").await;
    drop(far);
    leaver.rest().await;

    let secure = scene.fair.origin.secure_url().unwrap();
    let log = scene.end().await;
    let lines = access_lines(&log);
    assert_eq!(lines.keys().copied().collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>(), "{log}");
    let local = format!("http://localhost:{port}");
    let blind = lines[&7]["origin"].as_str().unwrap();
    assert!(blind.starts_with("localhost:"), "{blind}");
    let host = secure.strip_prefix("https://").unwrap();
    let price = PRICE.to_string();
    let page = lines[&6]["bytes"].as_u64().unwrap();
    let (paid, unpaid, refused) =
        (lines[&3]["bytes"].as_u64().unwrap(), lines[&4]["bytes"].as_u64(), lines[&5]["bytes"].as_u64());
    assert!(page > 1000 && paid > 50, "{log}");
    let unpaid = (unpaid.unwrap(), "no [[pay]] rule matches localhost");
    let gone = ("ended", "client connection closed");
    for (number, method, origin, status, bytes, rest) in [
        (1, "GET", &*bob, Some(200), 5, &[("handled", "plain")] as &[_]),
        (2, "HEAD", &bob, Some(200), 0, &[("handled", "plain")]),
        (3, "GET", &bob, Some(200), paid, &[("handled", "paid"), ("price", &price)]),
        (
            4,
            "GET",
            &local,
            Some(402),
            unpaid.0,
            &[("handled", "unpaid"), ("reason", "no-rule"), ("details", unpaid.1)],
        ),
        (
            5,
            "GET",
            "http://127.0.0.1:1",
            Some(502),
            refused.unwrap(),
            &[("handled", "refused"), ("reason", "connection-refused"), ("details", "refused")],
        ),
        (6, "GET", "http://tollpass.local", Some(200), page, &[("handled", "local")]),
        (7, "CONNECT", blind, Some(200), 6, &[("handled", "tunnelled"), ("upload", "4")]),
        (8, "CONNECT", host, Some(200), 0, &[("handled", "intercepted")]),
        (9, "GET", &secure, Some(200), 5, &[("handled", "intercepted")]),
        (10, "CONNECT", host, Some(200), 0, &[("handled", "intercepted")]),
        (11, "GET", &secure, Some(200), paid, &[("handled", "paid"), ("price", &price)]),
        (12, "GET", &slow, None, 0, &[("handled", "unanswered"), gone]),
        (13, "GET", &slow, Some(200), 3, &[("handled", "plain"), gone]),
        (14, "GET", &slow, Some(200), 4, &[("handled", "plain"), ("ended", "response cut off")]),
    ] {
        expect(&lines[&number], method, origin, status, bytes, rest);
    }
}

#[tokio::test]
async fn without_the_access_log_other_lines_name_the_request() {
    let scene = Scene::open("[log]\naccess = false\n", "info").await;
    let (bob, port) = (scene.fair.origin.url(), scene.fair.origin.address().port());
    assert_eq!(scene.get(&format!("http://localhost:{port}/paid?x")).await, 402);
    assert_eq!(scene.get("http://127.0.0.1:1/gone?x").await, 502);
    assert_eq!(scene.get(&format!("{bob}/paid?x")).await, 200);
    let log = scene.end().await;
    assert!(access_lines(&log).is_empty(), "{log}");
    for (message, request) in [
        ("not paid", format!("#1 GET http://localhost:{port}/paid")),
        ("request failed", "#2 GET http://127.0.0.1:1/gone".to_owned()),
    ] {
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<_> = lines.filter(|line| line["message"] == message).collect();
        assert_eq!((found.len(), &found[0]["request"]), (1, &request.into()), "{log}");
    }
    assert!(log.contains(&format!("paid 1000 for #3 GET {bob}/paid\"")), "{log}");
}

#[tokio::test]
async fn no_line_at_any_level_has_a_query_or_credentials() {
    let webhook = RawOrigin::start().await;
    let config = format!(
        "payment_requested = {{ action = \"ask\", webhook = \"http://{}/\" }}\n[[route]]\nprefix = \"/bob\"\n\
         origin = \"http://127.0.0.1:1\"\n",
        webhook.address
    );
    let scene = Scene::open(&config, "tollpass=trace").await;
    let (proxy, bob) = (scene.serving.address, scene.fair.origin.url());
    let port = scene.fair.origin.address().port();
    let token = std::fs::read_to_string(scene.alice.state_dir().join("route-token")).unwrap();
    let agreeing = tokio::spawn(async move {
        loop {
            let mut asked = webhook.accept().await;
            asked.request().await;
            asked.send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"do\":\"pay\"}").await;
        }
    });
    for (url, status) in [
        (format!("{bob}/free?hush"), 200),
        (format!("{bob}/paid?hush"), 200),
        (format!("http://localhost:{port}/paid?hush"), 402),
        (format!("http://me:hush@127.0.0.1:{port}/free"), 400),
        ("http://127.0.0.1:1/?hush".to_owned(), 502),
        (format!("http://127.0.0.1:{}/{}/bob/x?hush", proxy.port(), token.trim()), 502),
        ("ftp://me:hush@127.0.0.1/?hush".to_owned(), 400),
    ] {
        let request = Request::get(&url).header("authorization", "Basic hush").header("cookie", "hush");
        let request = request.header("proxy-authorization", "Basic hush").body(empty()).unwrap();
        assert_eq!(ask(proxy, request).await.status, status, "{url}");
    }
    let mut refused =
        Raw::asking(proxy, "CONNECT me:hush@127.0.0.1:1 HTTP/1.1\r\nHost: me:hush@127.0.0.1\r\n\r\n").await;
    assert!(refused.head().await.starts_with("HTTP/1.1 400"));
    assert_eq!(scene.get_inside("/paid?hush").await, 200);
    agreeing.abort();
    let log = scene.end().await;
    assert!(
        !log.contains("hush"),
        "{}",
        log.lines().filter(|line| line.contains("hush")).collect::<String>()
    );
    assert!(!log.contains(token.trim()), "{log}");
    // Each kind of span was there.
    for name in ["connection", "request", "payment"] {
        assert!(log.contains(&format!("\"name\":\"{name}\"")), "no span {name}: {log}");
    }
    assert_eq!(access_lines(&log).len(), 10, "{log}");
}

#[tokio::test]
async fn a_log_file_is_private_and_bounded_and_takes_the_place_of_standard_error() {
    let config = "[log]\naccess = true\nfile = \"tollpass.log\"\nfile_size = \"64KiB\"\nkept_files = 2\n";
    let scene = Scene::open(config, "info").await;
    let ran = run(&["serve", "--config", text(&scene.alice.config_path())]).await;
    ran.expect_failure(&["another tollpass logs to", "tollpass.log"]);
    let mut wire = Wire::connect(scene.serving.address).await;
    let url = format!("{}/free", scene.fair.origin.url());
    for _ in 0..1200 {
        let request = Request::get(&url).body(empty()).unwrap();
        assert_eq!(wire.ask(request).await.unwrap().status, StatusCode::OK);
    }
    drop(wire);
    let (errors, alice) = scene.end_but_keep_files().await;
    assert_eq!(errors, "");
    let file = |name: &str| alice.directory.path().join(name);
    let mut count = 0;
    for name in ["tollpass.log", "tollpass.log.1", "tollpass.log.2"] {
        let metadata = std::fs::metadata(file(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
        assert!(metadata.len() <= 64 << 10, "{name}: {}", metadata.len());
        let lines = access_lines(&std::fs::read_to_string(file(name)).unwrap());
        count += lines.len();
        assert!(!lines.is_empty(), "{name}");
    }
    assert!(!file("tollpass.log.3").exists());
    assert!((400..1200).contains(&count), "{count}");
}

#[tokio::test]
async fn a_log_file_that_cannot_be_used_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("taken")).unwrap();
    std::fs::write(path("elsewhere"), "").unwrap();
    symlink(path("elsewhere"), path("link")).unwrap();
    for (file, words) in [
        (path("missing/log"), "No such file"),
        (path("taken"), "not a regular file"),
        (path("link"), "symbolic link"),
        (PathBuf::from("/dev/full"), "not a regular file"),
    ] {
        let config = path("proxy.toml");
        let state = path("state");
        let lines = format!(
            "listen = \"127.0.0.1:0\"\nstate_dir = \"{}\"\n[log]\nfile = \"{}\"\n",
            text(&state),
            text(&file)
        );
        std::fs::write(&config, lines).unwrap();
        run(&["serve", "--config", text(&config)]).await.expect_failure(&[
            "cannot log to log.file",
            text(&file),
            words,
        ]);
    }
}

#[tokio::test]
async fn a_level_without_a_target_leaves_libraries_quiet() {
    for (filter, is_quiet) in [("debug", true), ("debug,h2=debug", false)] {
        let scene = Scene::open("", filter).await;
        assert_eq!(scene.get_inside("/paid").await, StatusCode::OK);
        let log = scene.end().await;
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut targets: Vec<_> = lines
            .filter(|line| line["level"] == "DEBUG")
            .map(|line| line["target"].as_str().unwrap().split("::").next().unwrap().to_owned())
            .filter(|target| target != "tollpass")
            .collect();
        targets.dedup();
        let expected: &[&str] = if is_quiet { &[] } else { &["h2"] };
        assert_eq!(targets, expected, "{filter}");
        // Spans show that tollpass itself logs at this level.
        assert!(log.contains("\"name\":\"connection\""), "{log}");
    }
}
