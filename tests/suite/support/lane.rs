//! A way for bytes from a client through a proxy to an origin that records what reaches it.

use std::sync::Arc;

use tempfile::TempDir;
use tollpass::protocol::policy::{HostPattern, Hosts};
use tollpass::proxy::ProxySettings;
use tollpass::proxy::intercept::Interception;
use tollpass::tls::{Authority, Leaves};

use super::proxy::Proxy;
use super::raw::{Raw, RawOrigin};
use super::secure;
use super::secure::Notary;

/// How bytes go: the same is to be true of each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the open, to the proxy as a proxy.
    Plain,
    /// In TLS through `CONNECT`, which the proxy reads.
    Intercepted,
}

/// A client's side, a proxy and an origin. In the bytes for it `{t}` stands for what a target starts with, and `{o}`
/// for the origin's host and port.
pub struct Lane {
    pub proxy: Proxy,
    pub origin: RawOrigin,
    /// Where the certificates are that the client trusts, and the origin's.
    secure: Option<(TempDir, Notary)>,
}

impl Way {
    pub async fn lane(self) -> Lane {
        self.lane_with(ProxySettings::default()).await
    }

    /// The same with other limits.
    pub async fn lane_with(self, mut settings: ProxySettings) -> Lane {
        if self == Self::Plain {
            return Lane {
                proxy: Proxy::with(settings).await,
                origin: RawOrigin::start().await,
                secure: None,
            };
        }
        let (directory, notary) = (tempfile::tempdir().unwrap(), Notary::new());
        settings.ca_file = Some(notary.ca_file());
        let leaves = Leaves::new(Arc::new(Authority::open(directory.path(), &[]).unwrap()), 16).unwrap();
        let hosts = Hosts::listed([HostPattern::Exactly("127.0.0.1".to_owned())]);
        let proxy = Proxy::intercepting(settings, Interception { hosts, leaves }).await;
        let origin = RawOrigin::secure(notary.certify("127.0.0.1", HTTP_1).await).await;
        Lane { proxy, origin, secure: Some((directory, notary)) }
    }
}

const HTTP_1: &[&str] = &["http/1.1"];

impl Lane {
    /// Over bare TCP on both sides.
    pub async fn plain() -> Self {
        Way::Plain.lane().await
    }

    pub fn is_plain(&self) -> bool {
        self.secure.is_none()
    }

    /// A new connection of the client.
    pub async fn connect(&self) -> Raw {
        let Some((directory, _)) = &self.secure else { return Raw::connect(self.proxy.address).await };
        let stream = secure::connect(self.proxy.address, &self.origin.address.to_string()).await;
        let ca = directory.path().join("ca.pem");
        Raw::over(secure::trusting(&ca, stream, "127.0.0.1", HTTP_1).await.unwrap())
    }

    /// A new connection of the client on which these bytes have been sent.
    pub async fn asking(&self, bytes: impl AsRef<[u8]>) -> Raw {
        let mut client = self.connect().await;
        client.send(self.fill(bytes)).await;
        client
    }

    /// The next connection that reaches the origin.
    pub async fn accept(&self) -> Raw {
        self.origin.accept().await
    }

    /// Both ends of a new exchange; the request has not been read at the origin's.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> (Raw, Raw) {
        let client = self.asking(bytes).await;
        (client, self.accept().await)
    }

    /// Puts the places in.
    pub fn fill(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let origin = self.origin.address.to_string();
        let start = if self.secure.is_some() { String::new() } else { format!("http://{origin}") };
        let filled = replace(bytes.as_ref(), b"{t}", start.as_bytes());
        replace(&filled, b"{o}", origin.as_bytes())
    }

    /// What reached an end, as text in which everything is visible that could be told apart; places are named again,
    /// and what differs each time is left out.
    pub fn show(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).replace(&self.origin.address.to_string(), "{o}");
        let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
        lines
            .map(|line| if line.starts_with("via: ") { mark_left_out(line) } else { line.to_owned() })
            .collect()
    }
}

/// A `Via` line without what is different in each process.
fn mark_left_out(line: &str) -> String {
    let mut shown = String::new();
    let mut is_comment = false;
    for character in line.chars() {
        is_comment |= character == '(';
        if !is_comment {
            shown.push(character);
        }
        is_comment &= character != ')';
    }
    shown.replace(" \r", "\r")
}

fn replace(bytes: &[u8], place: &[u8], with: &[u8]) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(place.len()).position(|part| part == place) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(with);
        rest = &rest[at + place.len()..];
    }
    filled.extend_from_slice(rest);
    filled
}
