//! The printable name of a node, without the secrets of its URL.

use http::Uri;

use crate::chain::error::ChainError;
use crate::chain::repeated::{one_line, truncated};

/// The printable part of a node's URL, and the parts that must not be printed.
#[derive(Clone)]
pub(super) struct NodeName {
    pub(super) shown: String,
    /// Where the URL is written.
    pub(super) key: String,
    secrets: Vec<String>,
}

impl NodeName {
    /// The name of the node at `url`, which is written in `key`.
    pub(super) fn of(key: &str, url: &str) -> Result<Self, ChainError> {
        let refuse = |why: &str| ChainError::Url { key: key.into(), why: why.into() };
        let uri: Uri = url.parse().map_err(|_| refuse("it is not a valid URL"))?;
        let scheme = uri.scheme_str().ok_or_else(|| refuse("it has no scheme"))?;
        if scheme != "http" && scheme != "https" {
            return Err(refuse("its scheme is neither http nor https"));
        }
        let authority = uri.authority().ok_or_else(|| refuse("it has no host"))?;
        if authority.host().is_empty() {
            return Err(refuse("it has no host"));
        }
        let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let shown = format!("{scheme}://{}:{port}", authority.host());
        let user = authority.as_str().rsplit_once('@').map_or("", |(user, _)| user);
        let secrets = user
            .split(':')
            .chain(uri.path().split('/'))
            .chain(uri.query().unwrap_or("").split(['&', '=']))
            .filter(|part| part.len() >= Self::SHORTEST_SECRET)
            .map(String::from)
            .collect();
        Ok(Self { shown, key: key.into(), secrets })
    }

    /// Shorter parts of a URL are words such as `v3`, and removing them would garble harmless text.
    const SHORTEST_SECRET: usize = 4;

    /// `text` in one line, truncated, with every part of the URL that could be a secret removed.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = one_line(text);
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "…");
        }
        truncated(text)
    }
}

#[cfg(test)]
mod tests {
    use crate::chain::repeated::MAX_REPEATED;
    use crate::chain::rpc::node_name::*;

    #[test]
    fn repeats_no_secret_and_no_more_than_is_readable() {
        let name = NodeName::of(
            "chain.rpc_url",
            "https://user:hunter22@node.example/v3/0123456789abcdef?key=topsecret",
        )
        .unwrap();
        let cleaned = name.clean("bad project 0123456789abcdef\nfor user, hunter22 or topsecret");
        assert_eq!(cleaned, "bad project … for …, … or …");
        assert_eq!(name.clean(&"x".repeat(10_000)).chars().count(), MAX_REPEATED + 1);
    }
}
