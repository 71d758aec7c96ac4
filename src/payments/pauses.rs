//! Hosts that are paid and do not deliver, or raise their prices: after a number of such payments in a row, or one such
//! price, a host is paused, and gets no further payment until the operator resumes it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hashlink::LruCache;
use serde::{Deserialize, Serialize};

use super::clock::unix_time;
use super::journal::JournalError;
use crate::limits::Limits;
use crate::mutex::lock;
use crate::protocol::Refusal;
use crate::protocol::engine::HostName;
use crate::protocol::refusal::PauseReason;

/// A host that is not paid until the operator resumes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedHost {
    /// Its canonical name, without a port.
    pub host: String,
    /// When it was paused, in seconds since 1970.
    pub since: u64,
    /// Why it was paused.
    pub reason: PauseReason,
}

/// Why a host is not resumed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResumeError {
    /// It is not paused.
    #[error("the host {0} is not paused: see `tollpass resume`")]
    NotPaused(String),
    /// The journal cannot be written.
    #[error("not recorded, so the host stays paused: {0}")]
    Journal(#[from] JournalError),
    /// The service has stopped.
    #[error("tollpass is shutting down")]
    ShuttingDown,
}

/// Counts payments without delivery, and knows the paused hosts.
#[derive(Debug)]
pub(super) struct HostPauses {
    /// After how many payments in a row a host is paused; 0 for never.
    payments: u32,
    /// How many hosts to count for, and how many may be paused.
    hosts: usize,
    /// Whether `state` names a host: usually it does not, and payments need no lock.
    is_watching: AtomicBool,
    state: Mutex<PauseState>,
}

#[derive(Debug)]
struct PauseState {
    /// How many payments in a row each host did not deliver for.
    undelivered: LruCache<HostName, u32>,
    /// Since when and why each host is paused, the oldest pause first.
    paused: LruCache<HostName, (u64, PauseReason)>,
}

impl HostPauses {
    /// `paused` comes from the journal, the oldest pause first.
    pub(super) fn new(limits: &Limits, paused: Vec<PausedHost>) -> Self {
        let (payments, hosts) = (limits.undelivered_payments, limits.undelivered_hosts);
        let mut state = PauseState { undelivered: LruCache::new(hosts), paused: LruCache::new(hosts) };
        for PausedHost { host, since, reason } in paused {
            state.paused.insert(host.into(), (since, reason));
        }
        let is_watching = AtomicBool::new(!state.paused.is_empty());
        Self { payments, hosts, is_watching, state: Mutex::new(state) }
    }

    /// How many hosts may be paused.
    pub(super) fn most(&self) -> usize {
        self.hosts
    }

    /// # Errors
    /// The host is paused.
    pub(super) fn check(&self, host: &str) -> Result<(), Refusal> {
        let reason = self.reason(host);
        reason.map_or(Ok(()), |reason| Err(Refusal::Paused { host: host.into(), reason }))
    }

    pub(super) fn is_paused(&self, host: &str) -> bool {
        self.reason(host).is_some()
    }

    fn reason(&self, host: &str) -> Option<PauseReason> {
        let is_watching = self.is_watching.load(Ordering::Acquire);
        is_watching.then(|| lock(&self.state).paused.peek(host).map(|(_, reason)| *reason)).flatten()
    }

    /// The host delivered, so counting starts again. A pause stays.
    pub(super) fn delivered(&self, host: &str) {
        if self.is_watching.load(Ordering::Acquire) {
            let mut state = lock(&self.state);
            state.undelivered.remove(host);
            self.watch(&state);
        }
    }

    /// The host may have taken a payment and did not deliver. Returns the pause if this starts one.
    pub(super) fn undelivered(&self, host: &HostName) -> Option<PausedHost> {
        if self.payments == 0 {
            return None;
        }
        let mut state = lock(&self.state);
        if state.paused.peek(&**host).is_some() {
            return None;
        }
        let count = state.undelivered.remove(&**host).unwrap_or_default().saturating_add(1);
        let paused = if count >= self.payments {
            Some(self.add(&mut state, host, PauseReason::Undelivered))
        } else {
            state.undelivered.insert(HostName::clone(host), count);
            None
        };
        self.watch(&state);
        paused
    }

    /// The host raised a price by too much. Returns the pause if this starts one.
    pub(super) fn price_rose(&self, host: &HostName) -> Option<PausedHost> {
        let mut state = lock(&self.state);
        if state.paused.peek(&**host).is_some() {
            return None;
        }
        let paused = self.add(&mut state, host, PauseReason::PriceRise);
        self.watch(&state);
        Some(paused)
    }

    fn add(&self, state: &mut PauseState, host: &HostName, reason: PauseReason) -> PausedHost {
        let since = unix_time();
        if state.paused.len() >= self.hosts
            && let Some((oldest, _)) = state.paused.remove_lru()
        {
            tracing::warn!(
                host = %oldest,
                "no longer paused: limits.undelivered_hosts other hosts were paused later"
            );
        }
        state.paused.insert(HostName::clone(host), (since, reason));
        PausedHost { host: host.to_string(), since, reason }
    }

    /// Ends a pause; counting starts again.
    pub(super) fn resume(&self, host: &str) -> bool {
        let mut state = lock(&self.state);
        state.undelivered.remove(host);
        let was_paused = state.paused.remove(host).is_some();
        self.watch(&state);
        was_paused
    }

    /// The paused hosts, the oldest pause first.
    pub(super) fn list(&self) -> Vec<PausedHost> {
        let state = lock(&self.state);
        let paused = state.paused.iter();
        paused
            .map(|(host, (since, reason))| PausedHost {
                host: host.to_string(),
                since: *since,
                reason: *reason,
            })
            .collect()
    }

    fn watch(&self, state: &PauseState) {
        let is_empty = state.undelivered.is_empty() && state.paused.is_empty();
        self.is_watching.store(!is_empty, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(payments: u32, hosts: usize) -> HostPauses {
        let limits = Limits { undelivered_payments: payments, undelivered_hosts: hosts, ..Limits::default() };
        HostPauses::new(&limits, Vec::new())
    }

    /// Applies outcomes, such as `a-` for a payment that `a` did not deliver for, `a+` for one that it did, and `a!` for
    /// `tollpass resume a`. Returns the hosts that are paused then.
    fn paused_after(pauses: &HostPauses, outcomes: &str) -> Vec<String> {
        for outcome in outcomes.split_whitespace() {
            let (host, outcome) = outcome.split_at(1);
            match outcome {
                "+" => pauses.delivered(host),
                "-" => drop(pauses.undelivered(&host.into())),
                _ => drop(pauses.resume(host)),
            }
        }
        pauses.list().into_iter().map(|paused| paused.host).collect()
    }

    #[test]
    fn a_host_is_paused_after_so_many_payments_in_a_row() {
        let cases: &[(u32, &str, &[&str])] = &[
            (3, "a- a-", &[]),
            (3, "a- a- a-", &["a"]),
            (3, "a- a- a+ a- a-", &[]),
            (3, "a- a- b+ a-", &["a"]),
            (3, "a- b- a- b- c-", &[]),
            (3, "b- b- b- a- a- a-", &["b", "a"]),
            // An answer to an earlier request ends no pause.
            (3, "a- a- a- a+ a-", &["a"]),
            (3, "a- a- a- a! a- a-", &[]),
            (3, "a- a- a! a-", &[]),
            (1, "a-", &["a"]),
            (0, "a- a- a- a-", &[]),
        ];
        for (payments, outcomes, expected) in cases {
            assert_eq!(paused_after(&pauses(*payments, 10), outcomes), *expected, "{payments}: {outcomes}");
        }
    }

    #[test]
    fn a_pause_is_reported_once_and_refuses_only_its_host() {
        let pauses = pauses(2, 10);
        assert_eq!(pauses.undelivered(&"a".into()), None);
        assert!(pauses.check("a").is_ok());
        assert_eq!(pauses.undelivered(&"a".into()).unwrap().host, "a");
        assert_eq!(pauses.undelivered(&"a".into()), None);
        assert!(pauses.check("b").is_ok());
        let refusal = pauses.check("a").unwrap_err();
        assert_eq!(refusal, Refusal::Paused { host: "a".into(), reason: PauseReason::Undelivered });
        assert!(refusal.to_string().contains("`tollpass resume a`"), "{refusal}");
        assert!(pauses.resume("a") && !pauses.resume("a"));
        assert!(pauses.check("a").is_ok());
        // A price that rises pauses at once, even if missing deliveries never do.
        let pauses = self::pauses(0, 10);
        assert_eq!(pauses.price_rose(&"a".into()).unwrap().reason, PauseReason::PriceRise);
        assert_eq!(pauses.price_rose(&"a".into()), None);
        assert!(pauses.check("b").is_ok());
        let refusal = pauses.check("a").unwrap_err().to_string();
        assert!(refusal.contains("limits.price_rise_percent"), "{refusal}");
    }

    #[test]
    fn the_hosts_are_bounded_and_the_oldest_are_forgotten() {
        assert_eq!(paused_after(&pauses(2, 2), "a- b- c- a- b- c-"), [""; 0]);
        assert_eq!(paused_after(&pauses(1, 2), "a- b- c-"), ["b", "c"]);
        // Asking does not make a pause younger.
        let pauses = pauses(1, 2);
        paused_after(&pauses, "a- b-");
        assert!(pauses.is_paused("a"));
        assert_eq!(paused_after(&pauses, "c-"), ["b", "c"]);
    }

    #[test]
    fn pauses_of_earlier_runs_stay_even_if_no_further_host_is_paused() {
        let paused = PausedHost { host: "a".to_owned(), since: 7, reason: PauseReason::PriceRise };
        let limits = Limits { undelivered_payments: 0, ..Limits::default() };
        let pauses = HostPauses::new(&limits, vec![paused.clone()]);
        assert_eq!(pauses.list(), [paused]);
        assert!(pauses.is_paused("a"));
    }
}
