//! A set of hosts: a list of patterns, or the hosts that lists of rules pay.

use super::{Allow, HostPattern, Rule};

/// Lists of patterns with optional ports. The first entry of a list that matches decides for it; a host is included if one
/// list includes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    lists: Vec<Vec<HostEntry>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HostEntry {
    host: HostPattern,
    port: Option<u16>,
    is_meant: bool,
}

impl Hosts {
    /// The hosts of `patterns`, on any port.
    pub fn listed(patterns: impl IntoIterator<Item = HostPattern>) -> Self {
        let entry = |host| HostEntry { host, port: None, is_meant: true };
        Self { lists: vec![patterns.into_iter().map(entry).collect()] }
    }

    /// Exactly the hosts and ports that one of these lists of rules pays.
    pub fn paid<'a>(lists: impl IntoIterator<Item = &'a [Rule]>) -> Self {
        let entry = |rule: &Rule| HostEntry {
            host: rule.host.clone(),
            port: rule.port,
            is_meant: matches!(rule.allow, Allow::Pay { .. }),
        };
        Self { lists: lists.into_iter().map(|rules| rules.iter().map(entry).collect()).collect() }
    }

    /// Whether `host` (without brackets, in any case, ignoring a trailing dot) on `port` is included.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let speaks =
            |entry: &&HostEntry| entry.port.is_none_or(|only| only == port) && entry.host.matches(host);
        self.lists.iter().any(|list| list.iter().find(speaks).is_some_and(|entry| entry.is_meant))
    }

    /// Whether no host is included.
    pub fn is_empty(&self) -> bool {
        self.patterns().next().is_none()
    }

    /// The patterns of the included hosts.
    pub fn patterns(&self) -> impl Iterator<Item = &HostPattern> {
        self.lists.iter().flatten().filter(|entry| entry.is_meant).map(|entry| &entry.host)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::protocol::policy::Hooks;
    use crate::protocol::policy::hosts::*;

    fn rule(host: &str, port: Option<u16>, pays: bool) -> Rule {
        let pay = Allow::Pay {
            max_price: 1.into(),
            receivers: Vec::new(),
            preference: Arc::default(),
            send_ahead: true,
            allow_plain_http: false,
            browsers: None,
            hooks: Arc::new(Hooks::default()),
            budgets: Vec::new(),
        };
        Rule { host: host.parse().unwrap(), port, allow: if pays { pay } else { Allow::Deny } }
    }

    #[test]
    fn paid_are_exactly_the_hosts_and_ports_of_rules_that_pay() {
        let rules = [
            rule("internal.example.com", None, false),
            rule("*.example.com", Some(443), true),
            rule("127.0.0.1", None, true),
        ];
        let hosts = Hosts::paid([rules.as_slice()]);
        for (host, port, expected) in [
            ("api.example.com", 443, true),
            ("API.example.com.", 443, true),
            ("api.example.com", 8443, false),
            ("internal.example.com", 443, false),
            ("example.com", 443, false),
            ("127.0.0.1", 1, true),
            ("127.0.0.2", 1, false),
            ("127.1", 1, true),
            ("2130706433", 1, true),
            ("::ffff:127.0.0.1", 1, true),
            ("[::ffff:7f00:1]", 1, true),
            ("0.0.0.0", 1, true),
            ("0", 1, true),
            ("127.2", 1, false),
        ] {
            assert_eq!(hosts.covers(host, port), expected, "{host}:{port}");
        }
        assert_eq!(
            hosts.patterns().map(ToString::to_string).collect::<Vec<_>>(),
            ["*.example.com", "127.0.0.1"]
        );
        assert!(!hosts.is_empty());
        let denied = [rule("*", None, false)];
        assert!(Hosts::paid([denied.as_slice()]).is_empty() && Hosts::default().is_empty());
        // Another list pays the host, whatever the first one denies.
        let both = Hosts::paid([denied.as_slice(), rules.as_slice()]);
        assert!(both.covers("api.example.com", 443) && !both.covers("internal.example.com", 443));
    }

    #[test]
    fn listed_hosts_are_meant_on_any_port() {
        let hosts = Hosts::listed(["a.example".parse().unwrap(), "[::1]".parse().unwrap()]);
        for (host, expected) in [
            ("A.example", true),
            ("::1", true),
            ("0:0:0:0:0:0:0:1", true),
            ("::0001", true),
            ("::2", false),
            ("b.example", false),
        ] {
            assert_eq!((hosts.covers(host, 443), hosts.covers(host, 1)), (expected, expected), "{host}");
        }
    }
}
