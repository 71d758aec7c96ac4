//! Building a policy in code, for programs that use this library.

use std::sync::Arc;
use std::time::Duration;

use super::authorization_limits::authorization_limits;
use crate::limits::Limits;
use crate::protocol::policy::{Allow, Deposit, Hooks, HostPattern, Policy, PriceLimit, Requested, Rule};
use crate::protocol::{Address, Amount};

/// Builds a [`Policy`]. Without a rule nothing is paid; the first rule that matches a request decides.
#[derive(Clone, Debug)]
#[must_use]
pub struct PolicyBuilder {
    rules: Vec<(HostPattern, Option<u16>, Option<Payable>)>,
    deposit: Deposit,
    hooks: Hooks,
    limits: Limits,
}

/// What a rule pays at most, and to whom; anyone if empty.
#[derive(Clone, Debug)]
struct Payable {
    max_price: Amount,
    receivers: Vec<Address>,
}

impl Policy {
    /// Starts a policy that pays nothing, with the defaults of the configuration file.
    ///
    /// ```
    /// use tollpass::Policy;
    ///
    /// let policy = Policy::builder()
    ///     .deny("private.example.com".parse()?)
    ///     .pay("*.example.com".parse()?, 10_000)
    ///     .ask_before_paying()
    ///     .build();
    /// assert!(policy.rule("shop.example.com", 80).is_some());
    /// assert!(policy.rule("example.org", 80).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder {
            rules: Vec::new(),
            deposit: Deposit::default(),
            hooks: Hooks::default(),
            limits: Limits::default(),
        }
    }
}

impl PolicyBuilder {
    /// Pays up to `max_price`, in base units of the token, for one request to a host, on any port and to any receiver.
    pub fn pay(self, host: HostPattern, max_price: impl Into<Amount>) -> Self {
        self.rule(host, None, Some(Payable { max_price: max_price.into(), receivers: Vec::new() }))
    }

    /// Pays nothing to a host, whatever later rules say.
    pub fn deny(self, host: HostPattern) -> Self {
        self.rule(host, None, None)
    }

    /// Restricts the last rule to one port.
    pub fn on_port(mut self, port: u16) -> Self {
        if let Some((_, only, _)) = self.rules.last_mut() {
            *only = Some(port);
        }
        self
    }

    /// Restricts the last rule to payments to these receivers.
    pub fn to(mut self, receivers: impl IntoIterator<Item = Address>) -> Self {
        if let Some((.., Some(payable))) = self.rules.last_mut() {
            payable.receivers.extend(receivers);
        }
        self
    }

    /// Asks before each payment.
    pub fn ask_before_paying(mut self) -> Self {
        self.hooks.payment_requested = Requested::Ask.into();
        self
    }

    /// Sets how much is locked up in channels.
    pub fn deposit(mut self, deposit: Deposit) -> Self {
        self.deposit = deposit;
        self
    }

    /// Sets how long one client request may take from its first 402 to the head of the paid answer.
    pub fn pay_timeout(mut self, timeout: Duration) -> Self {
        self.limits.pay_timeout = timeout;
        self
    }

    /// The policy.
    #[must_use]
    pub fn build(self) -> Policy {
        let Self { rules, deposit, hooks, limits } = self;
        let hooks = Arc::new(hooks);
        let rule = |(host, port, payable): (_, _, Option<Payable>)| {
            let allow = payable.map_or(Allow::Deny, |Payable { max_price, receivers }| Allow::Pay {
                max_price: PriceLimit::ChannelToken(max_price),
                receivers,
                preference: Arc::default(),
                send_ahead: true,
                allow_plain_http: false,
                browsers: None,
                hooks: Arc::clone(&hooks),
                budgets: Vec::new(),
            });
            Rule { host, port, allow }
        };
        Policy {
            version: 0,
            clients: Arc::default(),
            rules: rules.into_iter().map(rule).collect(),
            distinguishes_clients: false,
            budgets: Vec::new(),
            deposit,
            max_attempts: limits.max_attempts,
            sign_ahead: limits.sign_ahead,
            ready_timeout: limits.ready_timeout,
            pay_timeout: limits.pay_timeout,
            authorizations: authorization_limits(&limits),
            hooks,
        }
    }

    fn rule(mut self, host: HostPattern, port: Option<u16>, payable: Option<Payable>) -> Self {
        self.rules.push((host, port, payable));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use crate::config::Config;
    use crate::protocol::Address;
    use crate::protocol::policy::Policy;

    #[test]
    fn a_policy_built_in_code_is_the_one_that_the_same_file_says() {
        let text = r#"
            [[pay]]
            host = "a.example"
            deny = true
            [[pay]]
            host = "*.example"
            port = 8080
            max_price = 7
            receivers = ["0x0101010101010101010101010101010101010101"]
            [limits]
            pay_timeout = "9s"
        "#;
        let environment = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
        let read = Config::parse(text, Path::new("/etc"), &environment).unwrap().policy;
        let built = Policy::builder()
            .deny("a.example".parse().unwrap())
            .pay("*.example".parse().unwrap(), 7)
            .on_port(8080)
            .to([Address([1; 20])])
            .pay_timeout(std::time::Duration::from_secs(9))
            .build();
        assert_eq!(format!("{built:?}"), format!("{read:?}"));
    }
}
