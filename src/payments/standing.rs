//! Standing approvals: payments to a payee for a host that the operator has approved in advance, up to a price and until
//! a time.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::clock::unix_time;
use crate::protocol::asset::Token;
use crate::protocol::{Address, Amount, AssetId, Terms};

/// An approval that the operator gave in advance (`tollpass approve --always`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingApproval {
    /// Names it; never reused.
    pub id: u64,
    /// The host of the requests, without a port.
    pub host: String,
    /// The payee.
    pub payee: Address,
    /// The network of the asset, as a CAIP-2 ID.
    pub network: String,
    /// The token on that network.
    pub token: String,
    /// The highest price, in base units.
    pub max_price: Amount,
    /// When it was given, in seconds since 1970.
    pub since: u64,
    /// When it ends, in seconds since 1970.
    pub until: u64,
}

/// All standing approvals, and the time by which they end.
#[derive(Debug)]
pub(super) struct StandingApprovals {
    list: Vec<StandingApproval>,
    clock: ForwardClock,
}

/// A clock that never runs backwards, so that setting the wall clock back extends nothing.
#[derive(Debug)]
struct ForwardClock {
    started: Instant,
    /// Seconds since 1970 at `started`, or the time of the latest record if that is later.
    from: u64,
}

impl ForwardClock {
    fn now(&self) -> u64 {
        self.from.saturating_add(self.started.elapsed().as_secs()).max(unix_time())
    }
}

impl StandingApproval {
    /// The asset that it covers.
    pub(super) fn asset(&self) -> AssetId {
        AssetId::token(&self.network, &self.token)
    }

    /// Whether it takes the place of the earlier `other`: both are about the same payments, and `other` does not cover the
    /// cheaper ones for longer.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.host.clone(), one.payee, one.network.clone(), one.token.clone());
        let lasts_longer = other.until > self.until && other.max_price < self.max_price;
        key(self) == key(other) && !lasts_longer
    }

    fn covers(&self, host: &str, terms: &Terms, asset: &Token, now: u64) -> bool {
        now < self.until
            && self.host == host
            && self.payee == terms.payee
            && self.network == asset.network
            && self.token == asset.token
            && terms.price.amount <= self.max_price
    }
}

impl StandingApprovals {
    pub(super) fn new(list: Vec<StandingApproval>) -> Self {
        let latest = list.iter().map(|approval| approval.since).max().unwrap_or_default();
        let clock = ForwardClock { started: Instant::now(), from: latest.max(unix_time()) };
        Self { list, clock }
    }

    /// The current time, in seconds since 1970.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Those that have not ended, the oldest first.
    pub(super) fn current(&self) -> Vec<StandingApproval> {
        let now = self.now();
        self.list.iter().filter(|approval| now < approval.until).cloned().collect()
    }

    /// Whether a payment is covered; `asset` is the channel contract's token itself if the terms ask for that.
    pub(super) fn cover(&self, host: &str, terms: &Terms, asset: &AssetId) -> bool {
        let AssetId::Token(asset) = asset else { return false };
        !self.list.is_empty() && {
            let now = self.now();
            self.list.iter().any(|approval| approval.covers(host, terms, asset, now))
        }
    }

    /// Adds one, in place of those that it replaces.
    pub(super) fn insert(&mut self, approval: StandingApproval) {
        self.list.retain(|other| !approval.replaces(other));
        self.list.push(approval);
    }

    /// Removes one; false if there is none with this ID.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let before = self.list.len();
        self.list.retain(|approval| approval.id != id);
        self.list.len() < before
    }
}

#[cfg(test)]
mod tests {
    use crate::payments::standing::*;
    use crate::protocol::{Money, SchemeName};

    const ENDS: u64 = 2000;

    fn approval() -> StandingApproval {
        StandingApproval {
            id: 7,
            host: "a.example".to_owned(),
            payee: Address([1; 20]),
            network: "eip155:1".to_owned(),
            token: "0x01".to_owned(),
            max_price: 100.into(),
            since: 1000,
            until: ENDS,
        }
    }

    #[test]
    fn only_the_same_host_payee_and_asset_are_covered_up_to_the_price_and_the_end() {
        let asset = Token { network: "eip155:1".to_owned(), token: "0x01".to_owned() };
        let terms = |amount: u64, payee: u8| Terms {
            price: Money::channel_token(amount.into()),
            payee: Address([payee; 20]),
            scheme: SchemeName::MicroRaiden,
        };
        let given = approval();
        assert!(given.covers("a.example", &terms(100, 1), &asset, ENDS - 1));
        assert!(given.covers("a.example", &terms(1, 1), &asset, 0));
        for (host, amount, payee, network, token, now) in [
            ("b.example", 100, 1, "eip155:1", "0x01", 1),
            ("a.example", 101, 1, "eip155:1", "0x01", 1),
            ("a.example", 100, 2, "eip155:1", "0x01", 1),
            ("a.example", 100, 1, "eip155:2", "0x01", 1),
            ("a.example", 100, 1, "eip155:1", "0x02", 1),
            ("a.example", 100, 1, "eip155:1", "0x01", ENDS),
        ] {
            let asset = Token { network: network.to_owned(), token: token.to_owned() };
            assert!(
                !given.covers(host, &terms(amount, payee), &asset, now),
                "{host} {amount} {asset:?} {now}"
            );
        }
        // Long ago.
        let ended = StandingApprovals::new(vec![given]);
        assert!(ended.current().is_empty());
        assert!(!ended.cover("a.example", &terms(1, 1), &approval().asset()));
    }

    #[test]
    fn a_wall_clock_that_is_set_back_extends_nothing() {
        let later = unix_time() + 1_000_000;
        let recorded = StandingApproval { since: later, until: later + 1000, ..approval() };
        let ends = StandingApproval { id: 8, host: "b".to_owned(), until: later - 1, ..approval() };
        let standing = StandingApprovals::new(vec![ends, recorded.clone()]);
        assert_eq!(standing.current(), [recorded]);
    }

    #[test]
    fn a_later_one_for_a_higher_price_ends_no_earlier_one_that_lasts_longer() {
        let until = unix_time() + 1000;
        let long = StandingApproval { until, ..approval() };
        let mut standing = StandingApprovals::new(vec![long.clone()]);
        let short = StandingApproval { id: 8, max_price: 200.into(), until: until - 1, ..long.clone() };
        standing.insert(short.clone());
        assert_eq!(standing.current(), [long.clone(), short]);
        // That of one which covers the same for longer has no use.
        let both = StandingApproval { id: 9, max_price: 200.into(), ..long };
        standing.insert(both.clone());
        assert_eq!(standing.current(), [both]);
    }

    #[test]
    fn a_later_one_replaces_an_earlier_one_about_the_same_payments() {
        let until = unix_time() + 1000;
        let first = StandingApproval { until, ..approval() };
        let mut standing = StandingApprovals::new(vec![first.clone()]);
        let second = StandingApproval { id: 8, max_price: 200.into(), ..first.clone() };
        standing.insert(second.clone());
        assert_eq!(standing.current(), std::slice::from_ref(&second));
        let other = StandingApproval { id: 9, host: "b.example".to_owned(), ..first };
        standing.insert(other.clone());
        assert_eq!(standing.current(), [second, other]);
        assert!(standing.remove(8) && !standing.remove(8));
        assert_eq!(standing.current().len(), 1);
    }
}
