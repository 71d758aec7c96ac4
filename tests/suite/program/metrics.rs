//! `/metrics`: what it says, to whom, and that it is the text format of Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{Request, StatusCode, header};
use regex_lite::Regex;

use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::payer::{Alice, Program, program, write_private};
use crate::support::ports::ReservedPort;
use crate::support::wire::{Got, Wire, ask};

const TOKEN: &str = "a-token-of-the-scraper";

async fn read(address: SocketAddr, path: &str, user: Option<&str>) -> Got {
    let mut request = Request::get(path).header(header::HOST, address.to_string());
    if let Some(user) = user {
        request = request.header(header::AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(user)));
    }
    Wire::connect(address).await.ask(request.body(empty()).unwrap()).await.unwrap()
}

/// The samples by name and labels, as they are written, after a check of the format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let label = r#"[a-z_]+="([^"\\\n]|\\["\\n])*""#;
    let sample = Regex::new(&format!(r"^([a-z_]+)(\{{({label})(,{label})*\}})? (\S+)$")).unwrap();
    let (mut types, mut helped, mut found) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    assert!(text.ends_with('\n'), "{text}");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(helped.insert(help.split_once(' ').unwrap().0), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let parts = sample.captures(line).unwrap_or_else(|| panic!("no sample: {line}"));
            let (name, value) = (parts.get(1).unwrap().as_str(), line.rsplit_once(' ').unwrap().1);
            let of_histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|name| types.get(name) == Some(&"histogram")));
            let family = of_histogram.unwrap_or(name);
            assert!(types.contains_key(family) && helped.contains(family), "{line}");
            assert!(family.starts_with("tollpass_"), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0, "{line}");
            let key = line.rsplit_once(' ').unwrap().0;
            assert!(found.insert(key.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    // Buckets are cumulative, and the last one has everything.
    for (name, _) in types.iter().filter(|(_, kind)| **kind == "histogram") {
        let mut buckets: Vec<(f64, f64)> = found
            .iter()
            .filter_map(|(key, count)| {
                let bound = key.strip_prefix(&format!("{name}_bucket{{le=\""))?.strip_suffix("\"}")?;
                Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() }, *count))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name}: {buckets:?}");
        assert_eq!(buckets.last().unwrap(), &(f64::INFINITY, found[&format!("{name}_count")]), "{name}");
    }
    found
}

#[tokio::test]
async fn what_happened_is_counted() {
    let fair = Fair::open().await;
    let port = ReservedPort::new();
    let mut alice = Alice::with(
        &fair.market,
        &format!("{QUICK}[[budget]]\nname = \"all\"\nwallet = true\ntotal = 100000\n"),
    )
    .await;
    let listen = format!("metrics_listen = \"{}\"\nworkers = 2\nlisten =", port.address());
    alice.change("listen =", &listen);
    let proxy = alice.serve(&[]).await;
    let host = fair.origin.url();
    let get = async |path: &str| {
        ask(proxy.address, Request::get(format!("{host}{path}")).body(empty()).unwrap()).await.status
    };
    for (path, status) in [("/paid", 200), ("/paid", 200), ("/paid", 200), ("/free", 200), ("/none", 404)] {
        assert_eq!(get(path).await, status, "{path}");
    }
    let other = Request::get("http://localhost:1/").body(empty()).unwrap();
    assert_eq!(ask(proxy.address, other).await.status, StatusCode::BAD_GATEWAY);
    let local = host.replace("127.0.0.1", "localhost");
    let unpaid = Request::get(format!("{local}/paid")).body(empty()).unwrap();
    assert_eq!(ask(proxy.address, unpaid).await.status, StatusCode::PAYMENT_REQUIRED);

    let got = read(port.address(), "/metrics", None).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!(got.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let found = samples(got.text());
    let authority = host.strip_prefix("http://").unwrap();
    let token = fair.market.token.to_string();
    let chain =
        found.keys().find_map(|key| key.split_once("network=\"")?.1.split('"').next()).unwrap().to_owned();
    let asset = format!("asset=\"{token}\",network=\"{chain}\"");
    for (sample, expected) in [
        ("requests_total{kind=\"paid\",status=\"2xx\"}", 3.0),
        ("requests_total{kind=\"plain\",status=\"2xx\"}", 1.0),
        ("requests_total{kind=\"plain\",status=\"4xx\"}", 1.0),
        ("requests_total{kind=\"unpaid\",status=\"4xx\"}", 1.0),
        ("requests_total{kind=\"refused\",status=\"5xx\"}", 1.0),
        ("refusals_total{reason=\"no-rule\"}", 1.0),
        ("refusals_total{reason=\"connection-refused\"}", 1.0),
        (&format!("payments_total{{{asset},host=\"{authority}\"}}"), 3.0),
        (&format!("paid_amount_total{{{asset},unit=\"base units\",host=\"{authority}\"}}"), 3000.0),
        (&format!("unclear_payments{{{asset},host=\"{authority}\"}}"), 0.0),
        ("budget_limit{budget=\"all\",host=\"\",limit=\"total\",unit=\"base units\"}", 100_000.0),
        ("channels{phase=\"open\"}", 1.0),
        ("ready", 1.0),
        ("frozen", 0.0),
        ("paused_hosts", 0.0),
        ("approvals_pending", 0.0),
        ("log_lines_lost_total", 0.0),
        ("build_info{version=\"0.1.0\"}", 1.0),
    ] {
        let sample = format!("tollpass_{sample}");
        assert_eq!(found.get(&sample), Some(&expected), "{sample}: {}", got.text());
    }
    for (sample, least) in [
        ("connections", 1.0),
        ("node_request_duration_seconds_count", 1.0),
        ("journal_write_duration_seconds_count", 1.0),
        (&format!("channel_deposits{{{asset},unit=\"base units\"}}"), 3000.0),
        (&format!("holds{{{asset},reason=\"ready\"}}"), 1.0),
    ] {
        let sample = format!("tollpass_{sample}");
        assert!(found.get(&sample).is_some_and(|value| *value >= least), "{sample}: {}", got.text());
    }
    let left = found["tollpass_budget_left{budget=\"all\",host=\"\",limit=\"total\",unit=\"base units\"}"];
    assert!(left <= 97_000.0, "{left}");

    // Nothing else is there.
    assert_eq!(read(port.address(), "/", None).await.status, StatusCode::NOT_FOUND);
    let through = Request::get(format!("{host}/free")).body(empty()).unwrap();
    assert_eq!(ask(port.address(), through).await.status, StatusCode::MISDIRECTED_REQUEST);
    // A page whose name was rebound to this address does not get them.
    let rebound = Request::get("/metrics").header(header::HOST, "evil.example").body(empty()).unwrap();
    let got = Wire::connect(port.address()).await.ask(rebound).await.unwrap();
    assert_eq!(got.status, StatusCode::MISDIRECTED_REQUEST);
    proxy.kill().await;
}

#[tokio::test]
async fn the_proxys_own_port_gives_them_to_clients_only() {
    let mut alice = Alice::without_chain(
        "[[client]]\nname = \"scraper\"\ntoken_file = \"token\"\n[limits]\nauth_failures = 2\n",
    );
    write_private(&alice.directory.path().join("token"), TOKEN);
    let proxy = alice.serve(&[]).await;
    let user = format!("scraper:{TOKEN}");
    let got = read(proxy.address, "/metrics", Some(&user)).await;
    assert_eq!((got.status, got.headers["cache-control"].to_str().unwrap()), (StatusCode::OK, "no-store"));
    assert_eq!(samples(got.text())["tollpass_ready"], 1.0);
    let got = read(proxy.address, "/metrics", None).await;
    assert_eq!(got.status, StatusCode::UNAUTHORIZED);
    assert_eq!(got.headers[header::WWW_AUTHENTICATE], "Basic realm=\"tollpass\"");
    for status in [StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS] {
        let got = read(proxy.address, "/metrics", Some("scraper:guess")).await;
        assert_eq!(got.status, status);
        assert!(!got.text().contains("tollpass_"), "{}", got.text());
    }
    assert_eq!(
        read(proxy.address, "/metrics", Some(&user)).await.status,
        StatusCode::OK,
        "it is not locked out"
    );
    let post =
        Request::post("/metrics").header(header::HOST, proxy.address.to_string()).body(empty()).unwrap();
    let got = Wire::connect(proxy.address).await.ask(post).await.unwrap();
    assert_eq!(got.status, StatusCode::METHOD_NOT_ALLOWED);
    proxy.kill().await;

    // Without a client, no token could tell who may read them.
    alice.change("[[client]]\nname = \"scraper\"\ntoken_file = \"token\"\n", "");
    let proxy = alice.serve(&[]).await;
    let got = read(proxy.address, "/metrics", Some(&user)).await;
    assert_eq!(got.status, StatusCode::FORBIDDEN);
    assert!(got.text().contains("metrics_listen"), "{}", got.text());
    proxy.kill().await;
}

#[tokio::test]
async fn an_address_for_metrics_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
    command.env("TOLLPASS_METRICS_LISTEN", &address);
    command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let ended = command.output().await.unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && told.contains(&address) && told.contains("metrics_listen"), "{told}");
}

#[tokio::test]
async fn a_proxy_that_never_pays_has_metrics_too() {
    let port = ReservedPort::new();
    let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
    command.env("TOLLPASS_METRICS_LISTEN", port.address().to_string());
    let proxy = Program::start(command).await;
    let found = samples(read(port.address(), "/metrics", None).await.text());
    assert_eq!(found["tollpass_ready"], 1.0);
    assert!(!found.keys().any(|name| name.contains("payments")), "{found:?}");
    proxy.kill().await;
}
