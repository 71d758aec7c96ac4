//! `CONNECT` to intercepted hosts: paid inside TLS in both versions of HTTP, and blind if the tunnel is not HTTP or not
//! to an intercepted host.

mod blind;
mod paid;
mod requests;

use std::path::PathBuf;

use tollpass::devnet::origin;

use crate::pays::QUICK;
use crate::support::fair::Fair;
use crate::support::payer::{Alice, Running};
use crate::support::secure::Notary;

/// Bob's ALPN without HTTP/2.
const HTTP_1: &[&str] = &["http/1.1"];
const HTTP_2: &[&str] = &["h2", "http/1.1"];

/// Bob also sells over TLS, and Alice's proxy intercepts connections to him.
struct Shop {
    notary: Notary,
    fair: Fair,
    alice: Alice,
    proxy: Running,
}

impl Shop {
    /// `alpn` is what Bob speaks; `rest` is added to Alice's configuration.
    async fn open(alpn: &[&str], rest: &str) -> Self {
        let notary = Notary::new();
        let config = notary.certify("127.0.0.1", alpn).await;
        let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config };
        let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
        let more = format!("{QUICK}{}{rest}", trusting(&notary));
        let alice = Alice::with(&fair.market, &more).await;
        let proxy = alice.start().await;
        Self { notary, fair, alice, proxy }
    }

    /// The certificate of Alice's CA.
    fn ca_file(&self) -> PathBuf {
        self.alice.state_dir().join("ca.pem")
    }

    fn url(&self, path: &str) -> String {
        self.fair.origin.secure_url().unwrap() + path
    }

    async fn close(self) {
        self.proxy.stop().await;
        self.fair.origin.stop().await;
    }
}

/// The part of a configuration that trusts the origins of `notary`.
fn trusting(notary: &Notary) -> String {
    format!("[upstream]\nca_file = \"{}\"\n", notary.ca_file().display())
}
