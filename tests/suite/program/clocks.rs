//! A CA that has expired or is not yet valid: everything that does not need it works, and the rest is refused with a
//! reason.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{run, text};
use crate::support::payer::{Program, program};
use crate::support::raw::{Raw, RawOrigin, soon};

/// Writes a configuration that intercepts 127.0.0.1, with a CA that is valid in this period.
fn configure(directory: &Path, begin: SystemTime, end: SystemTime) -> std::path::PathBuf {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (epoch + since(begin), epoch + since(end));
    std::fs::write(directory.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(directory.join("key.pem"), mode).unwrap();
    let config = directory.join("proxy.toml");
    let rest = "[intercept]\nhosts = [\"127.0.0.1\"]\nca_cert = \"ca.pem\"\nca_key = \"key.pem\"\n";
    std::fs::write(&config, format!("listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{rest}")).unwrap();
    config
}

async fn serve(config: &Path) -> Program {
    Program::start(program(["serve", "--config", text(config)])).await
}

async fn tunnel(serving: &Program, place: &str) -> String {
    Raw::asking(serving.address, format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n"))
        .await
        .head()
        .await
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[tokio::test]
async fn a_clock_that_is_years_off_stops_only_intercepted_https() {
    let origin = RawOrigin::start().await;
    let elsewhere = format!("localhost:{}", origin.address.port());
    let now = SystemTime::now();
    for (begin, end, reason) in
        [(now - 9 * YEAR, now - 2 * YEAR, "expired on"), (now + 2 * YEAR, now + 9 * YEAR, "clock right")]
    {
        let directory = tempfile::tempdir().unwrap();
        let config = configure(directory.path(), begin, end);
        let ran = run(&["check", "--config", text(&config)]).await;
        ran.expect_failure(&["FAIL   ca", reason]);
        let serving = serve(&config).await;
        for _ in 0..3 {
            let head = tunnel(&serving, &origin.address.to_string()).await;
            assert!(head.starts_with("HTTP/1.1 500 ") && head.contains(reason), "{head}");
        }
        // Another name of the same machine is not intercepted, and works.
        let head = tunnel(&serving, &elsewhere).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        serving.terminate();
        let (status, log) = serving.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        let warned = log.lines().filter(|line| line.contains("cannot intercept HTTPS: ")).count();
        assert_eq!(warned, 1, "{log}");
    }
}

#[tokio::test]
async fn a_ca_that_ends_while_the_proxy_runs_is_warned_of_once() {
    let origin = RawOrigin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let config = configure(directory.path(), now - YEAR, now + Duration::from_secs(3));
    let serving = serve(&config).await;
    let place = origin.address.to_string();
    assert!(tunnel(&serving, &place).await.starts_with("HTTP/1.1 200 "), "it is valid at first");
    soon("the end of the CA", async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        while tunnel(&serving, &place).await.starts_with("HTTP/1.1 200 ") {
            looks.tick().await;
        }
    })
    .await;
    for _ in 0..3 {
        assert!(tunnel(&serving, &place).await.contains("configure a new one with intercept.ca_cert"));
    }
    serving.terminate();
    let (status, log) = serving.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let warned: Vec<_> = log.lines().filter(|line| line.contains("cannot intercept HTTPS: ")).collect();
    assert_eq!(warned.len(), 1, "{log}");
    assert!(warned[0].contains("WARN") && warned[0].contains("intercept.ca_cert"), "{log}");
}
