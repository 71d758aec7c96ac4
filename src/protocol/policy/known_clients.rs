//! The clients that a policy knows, and which client a request has proven to be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::ProxyClient;

/// The SHA-256 of a token: comparing digests reveals neither the token nor its length.
pub type TokenDigest = [u8; 32];

/// The clients that may spend, each with the digest of its token.
#[derive(Clone, Default)]
pub struct KnownClients(BTreeMap<String, KnownClient>);

#[derive(Clone)]
struct KnownClient {
    client: Arc<ProxyClient>,
    digest: TokenDigest,
}

/// The client that sent a request, as it was when the request began.
#[derive(Clone, PartialEq, Eq)]
pub struct ProvenClient {
    /// The client.
    pub client: Arc<ProxyClient>,
    /// The digest of the token that it has shown.
    pub digest: TokenDigest,
}

impl KnownClients {
    /// Knows these, whose names differ.
    pub fn new(clients: impl IntoIterator<Item = (Arc<ProxyClient>, TokenDigest)>) -> Self {
        let known =
            |(client, digest): (Arc<ProxyClient>, _)| (client.name.clone(), KnownClient { client, digest });
        Self(clients.into_iter().map(known).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The client of this name, with the digest of its token.
    pub fn named(&self, name: &str) -> Option<(&Arc<ProxyClient>, &TokenDigest)> {
        self.0.get(name).map(|KnownClient { client, digest }| (client, digest))
    }

    /// The client whose token has this digest. Compares with all tokens, each in constant time.
    pub fn with_token(&self, shown: &TokenDigest) -> Option<&Arc<ProxyClient>> {
        self.0.values().fold(None, |found, known| match bool::from(known.digest.ct_eq(shown)) {
            true => Some(&known.client),
            false => found,
        })
    }

    /// All clients, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ProxyClient>> {
        self.0.values().map(|known| &known.client)
    }

    /// Whether these are the same names with the same tokens.
    pub fn has_tokens_of(&self, others: &Self) -> bool {
        let tokens = |known: &'_ Self| -> Vec<(String, TokenDigest)> {
            known.0.iter().map(|(name, known)| (name.clone(), known.digest)).collect()
        };
        tokens(self) == tokens(others)
    }

    /// A client as it is by now; `None` if it was removed, or has another token.
    pub fn still(&self, proven: &ProvenClient) -> Option<&Arc<ProxyClient>> {
        let (client, digest) = self.named(&proven.client.name)?;
        (proven.digest == *digest).then_some(client)
    }
}

impl fmt::Debug for KnownClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for ProvenClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProvenClient").field(&self.client.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::policy::ClientKind;
    use crate::protocol::policy::known_clients::*;

    #[test]
    fn a_client_is_still_known_until_it_or_its_token_is_gone() {
        let client = |name: &str| {
            let (kind, rules, budgets) = (ClientKind::Any, None, Vec::new());
            Arc::new(ProxyClient { name: name.to_owned(), kind, rules, budgets })
        };
        let proven = |digest| ProvenClient { client: client("a"), digest };
        for (known, digest, expected) in [
            (vec![("a", [1; 32])], [1; 32], true),
            (vec![("a", [2; 32])], [1; 32], false),
            (vec![("b", [1; 32])], [1; 32], false),
            (vec![], [1; 32], false),
        ] {
            let clients = KnownClients::new(known.iter().map(|(name, digest)| (client(name), *digest)));
            assert_eq!(clients.still(&proven(digest)).is_some(), expected, "{clients:?} {digest:?}");
            let found = clients.with_token(&digest).map(|client| client.name.as_str());
            let holder = known.iter().find(|(_, other)| *other == digest).map(|(name, _)| *name);
            assert_eq!(found, holder, "{clients:?} {digest:?}");
        }
        let shown = format!("{:?}", proven([7; 32]));
        assert!(shown.contains("\"a\"") && !shown.contains('7'), "{shown}");
    }
}
