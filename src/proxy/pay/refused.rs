//! The latest requests that were not paid, for the operator. They are in memory only, and there is one list for the whole
//! process: a request that is not paid, and only that, then costs an entry, and no other request carries anything for it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::mutex::lock;
use crate::protocol::safe_text::safe_text;
use crate::protocol::{ReasonCode, Refusal};
use crate::proxy::handling::RequestName;

/// The list of this process.
pub static REFUSED_REQUESTS: RefusedRequests = RefusedRequests::new();

/// Longer URLs and details are cut, in characters.
const LONGEST: usize = 400;

/// A request that was not paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequest {
    /// Counts the refusals of this process, from 1 on.
    pub number: u64,
    /// When.
    pub at: SystemTime,
    /// Its method.
    pub method: String,
    /// Its URL, without user info and query.
    pub url: String,
    /// Its host, with the port if the URL has one.
    pub host: String,
    /// Why, for programs.
    pub reason: ReasonCode,
    /// Why, for people; it names the price if that is the reason.
    pub details: String,
}

/// The latest requests that were not paid.
#[derive(Debug)]
pub struct RefusedRequests(Mutex<RefusedList>);

#[derive(Debug)]
struct RefusedList {
    count: u64,
    /// How many are kept.
    most: usize,
    latest: VecDeque<RefusedRequest>,
}

impl RefusedRequests {
    const fn new() -> Self {
        Self(Mutex::new(RefusedList { count: 0, most: 0, latest: VecDeque::new() }))
    }

    /// Keeps this many from now on; none before the first call.
    pub fn keep(&self, most: usize) {
        let mut list = lock(&self.0);
        list.most = most;
        let excess = list.latest.len().saturating_sub(most);
        list.latest.drain(..excess);
    }

    /// How many there were, those that are no longer kept included.
    #[must_use]
    pub fn count(&self) -> u64 {
        lock(&self.0).count
    }

    /// The latest ones, the newest first.
    #[must_use]
    pub fn latest(&self) -> Vec<RefusedRequest> {
        lock(&self.0).latest.iter().rev().cloned().collect()
    }

    /// A request is not paid.
    pub(super) fn add(&self, request: &RequestName, refusal: &Refusal) {
        let mut list = lock(&self.0);
        list.count += 1;
        if list.most == 0 {
            return;
        }
        if list.latest.len() >= list.most {
            list.latest.pop_front();
        }
        let refused = RefusedRequest {
            number: list.count,
            at: SystemTime::now(),
            method: safe_text(request.method().as_str(), LONGEST),
            url: safe_text(&request.safe_url(), LONGEST),
            host: safe_text(&request.host(), LONGEST),
            reason: refusal.reason(),
            details: safe_text(&refusal.to_string(), LONGEST),
        };
        list.latest.push_back(refused);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_latest_are_kept_without_queries_and_never_more_than_the_limit() {
        let refused = RefusedRequests::new();
        let add = |url: &str| {
            let request = Request::post(url).body(()).unwrap();
            refused.add(&RequestName::of(&request), &Refusal::NoWallet);
        };
        add("http://a.example/");
        assert_eq!((refused.count(), refused.latest().len()), (1, 0), "nothing is kept at first");
        refused.keep(2);
        for path in ["x", "y?token=hush", "z"] {
            add(&format!("https://me:hush@b.example:81/{path}"));
        }
        let latest = refused.latest();
        let urls: Vec<_> = latest.iter().map(|one| (one.number, one.url.as_str())).collect();
        assert_eq!(urls, [(4, "https://b.example:81/z"), (3, "https://b.example:81/y")]);
        assert_eq!((&*latest[0].host, &*latest[0].method), ("b.example:81", "POST"));
        assert_eq!(latest[0].reason, ReasonCode::NoWallet);
        refused.keep(1);
        assert_eq!(refused.latest().len(), 1);
    }
}
