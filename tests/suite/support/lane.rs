//! A path for bytes from a client through a proxy to an origin that records what reaches it.

use std::sync::Arc;

use tempfile::TempDir;
use tollpass::protocol::policy::{HostPattern, Hosts};
use tollpass::proxy::ProxySettings;
use tollpass::proxy::interception::Interception;
use tollpass::tls::{Authority, Leaves};

use super::proxy::Proxy;
use super::raw::{Raw, RawOrigin};
use super::secure;
use super::secure::Notary;

/// How bytes travel; the same properties hold for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Unencrypted, with the proxy as a forward proxy.
    Plain,
    /// In TLS through an intercepted `CONNECT`.
    Intercepted,
}

/// A client's side, a proxy and an origin. In its bytes, `{t}` stands for the start of a target and `{o}` for the
/// origin's host and port.
pub struct Lane {
    pub proxy: Proxy,
    pub origin: RawOrigin,
    /// The directory of the certificates that the client trusts, and the origin's CA.
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
        let hosts = Hosts::listed([HostPattern::Exactly("127.0.0.1".into())]);
        let proxy = Proxy::intercepting(settings, Interception { hosts, leaves: Arc::new(leaves) }).await;
        let origin = RawOrigin::secure(notary.certify("127.0.0.1", HTTP_1).await).await;
        Lane { proxy, origin, secure: Some((directory, notary)) }
    }
}

const HTTP_1: &[&str] = &["http/1.1"];

impl Lane {
    /// Over plain TCP on both sides.
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

    /// The next connection to the origin.
    pub async fn accept(&self) -> Raw {
        self.origin.accept().await
    }

    /// Both ends of a new exchange; the origin has not read the request yet.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> (Raw, Raw) {
        let client = self.asking(bytes).await;
        (client, self.accept().await)
    }

    /// Fills in the placeholders.
    pub fn fill(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let origin = self.origin.address.to_string();
        let start = if self.secure.is_some() { String::new() } else { format!("http://{origin}") };
        let filled = replace(bytes.as_ref(), b"{t}", start.as_bytes());
        replace(&filled, b"{o}", origin.as_bytes())
    }

    /// The bytes received at an end, as text that shows every difference; placeholders are restored, and what differs
    /// each time is omitted.
    pub fn show(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).replace(&self.origin.address.to_string(), "{o}");
        let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
        lines
            .map(|line| if line.starts_with("via: ") { mark_left_out(line) } else { line.to_owned() })
            .collect()
    }
}

/// A `Via` line without the part that differs in each process.
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
