//! The URLs of sellers' REST interfaces, as hosts name them in their responses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::mutex::lock;
use crate::protocol::Address;
use crate::protocol::engine::{HostName, Record};

/// The known URLs, by host and receiver; cheap to clone. A host that names another host's receiver affects only itself.
#[derive(Clone, Debug, Default)]
pub(super) struct SellerUrls(Arc<Mutex<KnownUrls>>);

#[derive(Debug, Default)]
struct KnownUrls {
    urls: BTreeMap<(HostName, Address), String>,
    /// Keys that the journal does not have yet.
    unrecorded: BTreeSet<(HostName, Address)>,
}

impl SellerUrls {
    /// Loads the journal's URLs.
    pub(super) fn load(&self, urls: Vec<((HostName, Address), String)>) {
        lock(&self.0).urls.extend(urls);
    }

    /// Remembers a URL; false if it was known.
    pub(super) fn learn(&self, host: HostName, receiver: Address, url: String) -> bool {
        let mut known = lock(&self.0);
        let key = (host, receiver);
        if known.urls.get(&key) == Some(&url) {
            return false;
        }
        known.urls.insert(key.clone(), url);
        known.unrecorded.insert(key);
        true
    }

    /// The URL named by `host`; without a host, the URL of the only host that names `receiver`.
    pub(super) fn of(&self, host: Option<HostName>, receiver: Address) -> Option<String> {
        let known = lock(&self.0);
        if let Some(host) = host {
            return known.urls.get(&(host, receiver)).cloned();
        }
        let mut urls = known.urls.iter().filter(|((_, payee), _)| *payee == receiver);
        urls.next().filter(|_| urls.next().is_none()).map(|(_, url)| url.clone())
    }

    /// The records that the journal does not have yet.
    pub(super) fn take_unrecorded(&self) -> Vec<Record> {
        let mut known = lock(&self.0);
        let unrecorded = std::mem::take(&mut known.unrecorded);
        let record = |key: (HostName, Address)| {
            let url = known.urls.get(&key)?.clone();
            Some(Record::Gateway(key.0, key.1, url))
        };
        unrecorded.into_iter().filter_map(record).collect()
    }
}
