//! `CONNECT` to hosts that are to be read: paid inside of TLS in both versions of HTTP, and blind wherever it is not
//! HTTP or not for us.

mod blind;
mod paid;
mod requests;

use std::path::PathBuf;

use tollpass::devnet::origin;

use crate::pays::QUICK;
use crate::support::fair::Fair;
use crate::support::payer::{Alice, Running};
use crate::support::secure::Notary;

/// What covers Bob, and whom he proves himself by is trusted.
const HTTP_1: &[&str] = &["http/1.1"];
const HTTP_2: &[&str] = &["h2", "http/1.1"];

/// Bob sells over TLS as well, and Alice's proxy reads what goes to him.
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

    /// The certificate of Alice's own authority.
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
