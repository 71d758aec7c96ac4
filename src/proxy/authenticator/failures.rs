//! Counts failed attempts to authenticate by the address that they come from, in bounded memory.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hashlink::LruCache;

use crate::limits::Limits;
use crate::mutex::lock;

/// The bits of an IPv6 address that name a network; one machine can use every address in it.
const NETWORK: u128 = !(u64::MAX as u128);

/// The failed attempts of each address within a window that begins with the first one.
pub(super) struct FailedAttempts {
    most: u32,
    window: Duration,
    by_address: Mutex<LruCache<IpAddr, Attempts>>,
}

struct Attempts {
    count: u32,
    since: Instant,
}

impl FailedAttempts {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            most: limits.auth_failures,
            window: limits.auth_window,
            by_address: Mutex::new(LruCache::new(limits.auth_addresses)),
        }
    }

    /// How long an address must wait before its next attempt.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let mut attempts = lock(&self.by_address);
        let key = network(address);
        let Attempts { count, since } = attempts.peek(&key)?;
        let left = self.window.saturating_sub(now.saturating_duration_since(*since));
        if left.is_zero() {
            attempts.remove(&key);
            return None;
        }
        (*count >= self.most).then_some(left)
    }

    /// Counts a failed attempt; returns true if it is the last one that the address may make.
    pub(super) fn count(&self, address: IpAddr, now: Instant) -> bool {
        let mut by_address = lock(&self.by_address);
        let key = network(address);
        let is_current = |attempts: &Attempts| now.saturating_duration_since(attempts.since) < self.window;
        let known = by_address.remove(&key).filter(is_current);
        let Attempts { count, since } = known.unwrap_or(Attempts { count: 0, since: now });
        let count = count.saturating_add(1);
        by_address.insert(key, Attempts { count, since });
        count == self.most
    }
}

/// The address itself, or the /64 network of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::authenticator::failures::*;

    fn failures(most: u32, addresses: usize) -> FailedAttempts {
        FailedAttempts::new(&Limits {
            auth_failures: most,
            auth_window: Duration::from_secs(60),
            auth_addresses: addresses,
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_waits_for_the_end_of_its_window_and_no_other_does() {
        let (failures, now) = (failures(3, 10), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        for (second, is_last) in [(0, false), (10, false), (20, true)] {
            assert_eq!(failures.wait(ip("10.0.0.1"), later(second)), None);
            assert_eq!(failures.count(ip("10.0.0.1"), later(second)), is_last);
        }
        assert_eq!(failures.wait(ip("10.0.0.1"), later(20)), Some(Duration::from_secs(40)));
        assert_eq!(failures.wait(ip("::ffff:10.0.0.1"), later(59)), Some(Duration::from_secs(1)));
        assert_eq!(failures.wait(ip("10.0.0.2"), later(20)), None);
        assert_eq!(failures.wait(ip("10.0.0.1"), later(60)), None);
        assert!(!failures.count(ip("10.0.0.1"), later(60)), "a new window begins");
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let (failures, now) = (failures(2, 10), Instant::now());
        failures.count(ip("2001:db8::1"), now);
        failures.count(ip("2001:db8::ffff:1"), now);
        assert!(failures.wait(ip("2001:db8::2"), now).is_some());
        assert_eq!(failures.wait(ip("2001:db8:0:1::1"), now), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (failures, now) = (failures(1, 4), Instant::now());
        for last in 0..100 {
            failures.count(IpAddr::from([10, 0, 0, last]), now);
        }
        assert_eq!(lock(&failures.by_address).len(), 4);
        assert!(failures.wait(ip("10.0.0.99"), now).is_some());
        assert_eq!(failures.wait(ip("10.0.0.1"), now), None);
    }
}
