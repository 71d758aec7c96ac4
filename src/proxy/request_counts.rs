//! Counts requests by what became of them. Each worker has counters of its own, so that no request waits for another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Response, StatusCode};

use super::handling::Handling;
use crate::protocol::ReasonCode;
use crate::proxy::Body;

/// How a request was handled: as in the access log, except that tunnels are `connect`, whether or not they are intercepted, and
/// that requests without a response are identified by their class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum RequestKind {
    Plain,
    Intercepted,
    Connect,
    Local,
    Paid,
    InDoubt,
    Unpaid,
    Refused,
}

/// The names of the kinds, in their order.
const KINDS: [&str; 8] =
    ["plain", "intercepted", "connect", "local", "paid", "in_doubt", "unpaid", "refused"];
/// The classes of statuses; the last one is of requests whose client left before there was a response.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// The counters of one worker, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct RequestCounts {
    by_kind: [[AtomicU64; CLASSES.len()]; KINDS.len()],
    by_reason: [AtomicU64; ReasonCode::ALL.len()],
}

/// What all workers have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountedRequests {
    /// Kind, class of the status, and how many requests.
    pub by_kind: Vec<(&'static str, &'static str, u64)>,
    /// The reasons of requests that did not get what they asked for, and how many had them; none without any.
    pub by_reason: Vec<(ReasonCode, u64)>,
}

/// A request that is counted once: when there is a response, or when its client leaves.
#[derive(Debug, Default)]
pub(super) struct PendingCount(Option<(Arc<RequestCounts>, RequestOrigin)>);

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestOrigin {
    pub(super) is_in_tunnel: bool,
    pub(super) is_connect: bool,
}

impl Default for RequestCounts {
    fn default() -> Self {
        let zeros = || [const { AtomicU64::new(0) }; CLASSES.len()];
        Self {
            by_kind: std::array::from_fn(|_| zeros()),
            by_reason: [const { AtomicU64::new(0) }; ReasonCode::ALL.len()],
        }
    }
}

impl RequestCounts {
    fn count(&self, kind: RequestKind, class: usize) {
        if let Some(counter) = self.by_kind.get(kind as usize).and_then(|classes| classes.get(class)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count_reason(&self, reason: ReasonCode) {
        if let Some(counter) = self.by_reason.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sums of several workers.
    pub fn sum<'a>(workers: impl Iterator<Item = &'a Self> + Clone) -> CountedRequests {
        let sum = |counter: &dyn Fn(&Self) -> &AtomicU64| {
            workers.clone().map(|counts| counter(counts).load(Ordering::Relaxed)).sum::<u64>()
        };
        let mut counted = CountedRequests::default();
        for (kind, kind_name) in KINDS.iter().enumerate() {
            for (class, class_name) in CLASSES.iter().enumerate() {
                let count = sum(&|counts| &counts.by_kind[kind][class]);
                counted.by_kind.push((kind_name, class_name, count));
            }
        }
        for (index, reason) in ReasonCode::ALL.iter().enumerate() {
            let count = sum(&|counts| &counts.by_reason[index]);
            if count > 0 {
                counted.by_reason.push((*reason, count));
            }
        }
        counted
    }
}

impl RequestOrigin {
    /// The origin of a request by its method.
    pub(super) fn new(is_in_tunnel: bool, method: &Method) -> Self {
        Self { is_in_tunnel, is_connect: *method == Method::CONNECT }
    }

    fn kind(self) -> RequestKind {
        match self {
            Self { is_connect: true, .. } => RequestKind::Connect,
            Self { is_in_tunnel: true, .. } => RequestKind::Intercepted,
            Self { .. } => RequestKind::Plain,
        }
    }
}

impl PendingCount {
    pub(super) fn new(counts: Option<&Arc<RequestCounts>>, origin: RequestOrigin) -> Self {
        Self(counts.map(|counts| (Arc::clone(counts), origin)))
    }

    /// Counts the request by its response.
    pub(super) fn answered(&mut self, response: &Response<Body>) {
        let Some((counts, origin)) = self.0.take() else { return };
        let handling = response.extensions().get::<Handling>();
        let kind = match handling {
            None => origin.kind(),
            Some(Handling::Local) => RequestKind::Local,
            Some(Handling::Refused(_)) => RequestKind::Refused,
            Some(Handling::Unpaid(_)) => RequestKind::Unpaid,
            Some(Handling::Paid { .. }) => RequestKind::Paid,
            Some(Handling::InDoubt { .. }) => RequestKind::InDoubt,
        };
        counts.count(kind, class(response.status()));
        if let Some(why) = handling.and_then(Handling::explanation) {
            counts.count_reason(why.reason);
        }
    }
}

impl Drop for PendingCount {
    fn drop(&mut self) {
        if let Some((counts, origin)) = self.0.take() {
            counts.count(origin.kind(), CLASSES.len() - 1);
        }
    }
}

/// The class of a status; those above 599 are as wrong as a server's error.
fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, 5) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_class_and_reason_has_its_own_counter() {
        let workers = [Arc::new(RequestCounts::default()), Arc::new(RequestCounts::default())];
        let plain = RequestOrigin::new(false, &Method::GET);
        for (worker, status) in [(0, 200), (1, 204), (0, 404), (1, 999)] {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            PendingCount::new(Some(&workers[worker]), plain).answered(&response);
        }
        drop(PendingCount::new(Some(&workers[0]), RequestOrigin::new(true, &Method::GET)));
        let mut refused = Response::new(Body::Empty);
        *refused.status_mut() = StatusCode::FORBIDDEN;
        let why =
            super::super::handling::Explanation { reason: ReasonCode::OverBudget, details: String::new() };
        refused.extensions_mut().insert(Handling::Refused(why));
        PendingCount::new(Some(&workers[1]), RequestOrigin::new(false, &Method::CONNECT)).answered(&refused);
        PendingCount::default().answered(&refused);

        let counted = RequestCounts::sum(workers.iter().map(|counts| &**counts));
        assert_eq!(counted.by_kind.len(), KINDS.len() * CLASSES.len());
        let some: Vec<_> = counted.by_kind.into_iter().filter(|(.., count)| *count > 0).collect();
        let expected = [
            ("plain", "2xx", 2),
            ("plain", "4xx", 1),
            ("plain", "5xx", 1),
            ("intercepted", "none", 1),
            ("refused", "4xx", 1),
        ];
        assert_eq!(some, expected);
        assert_eq!(counted.by_reason, [(ReasonCode::OverBudget, 1)]);
    }
}
