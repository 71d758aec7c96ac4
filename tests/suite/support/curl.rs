//! The real curl: a client that knows nothing of paywalls.

use std::net::SocketAddr;
use std::process::Stdio;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::process::Command;

use super::payer::PATIENCE;
use super::wire::Got;

/// What curl received, and its log.
#[derive(Debug)]
pub struct Fetched {
    pub got: Got,
    /// The output of `curl -v`.
    pub told: String,
}

/// Runs curl, through a proxy if given. `more` are further options, then the URL.
pub async fn curl(proxy: Option<SocketAddr>, more: &[&str]) -> Fetched {
    curl_of(None, proxy, more).await
}

/// The same as a program of this user, which only root can start.
pub async fn curl_of(user: Option<u32>, proxy: Option<SocketAddr>, more: &[&str]) -> Fetched {
    let mut command = Command::new("curl");
    if let Some(user) = user {
        command.uid(user).gid(user).current_dir("/");
    }
    // No configuration file and no proxies from the environment.
    command.args(["-q", "-v", "-s", "-i", "--suppress-connect-headers", "--max-time", "60"]);
    for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"]
    {
        command.env_remove(name);
    }
    if let Some(proxy) = proxy {
        command.args(["-x", &format!("http://{proxy}")]);
    }
    command.args(more).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("curl does not end");
    let output = output.unwrap_or_else(|error| {
        panic!("these tests need the program curl in PATH (apt-get install curl): {error}")
    });
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "curl {more:?}: {}\n{told}", output.status);
    Fetched { got: parse(&output.stdout), told }
}

/// Parses the output of `curl -i`: the last head and the body; interim heads come before.
fn parse(output: &[u8]) -> Got {
    let end = output.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
    let (head, body) = (std::str::from_utf8(&output[..end]).unwrap(), &output[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let status: StatusCode = status.parse().unwrap();
    if status.is_informational() {
        return parse(body);
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a field");
        let name = name.parse::<HeaderName>().unwrap();
        headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    Got { status, headers, body: Bytes::copy_from_slice(body) }
}
