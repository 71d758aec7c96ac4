//! The rules: whom to pay, and how much at most.

use std::sync::Arc;
use std::time::Duration;

use super::authorization_limits::AuthorizationLimits;
use super::browsers::Browsers;
use super::deposit::Deposit;
use super::hooks::Hooks;
use super::host_pattern::HostPattern;
use super::preference::Preference;
use super::price_limit::PriceLimit;
use crate::protocol::Address;
use crate::protocol::budget::{Budget, BudgetRef, BudgetSet};
use crate::protocol::host_name::host_name;

/// The user's policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The first rule that matches a request decides; no rule, no payment.
    pub rules: Vec<Rule>,
    /// Whether some client has rules or budgets of its own.
    pub distinguishes_clients: bool,
    /// All budgets.
    pub budgets: Vec<Arc<Budget>>,
    /// Deposits.
    pub deposit: Deposit,
    /// The default hooks, which rules may override.
    pub hooks: Arc<Hooks>,
    /// How many different payments one client request may cause. Hooks limit how often the same one is presented.
    pub max_attempts: u32,
    /// How many further payments of the same price may be signed before the next durable write.
    pub sign_ahead: u64,
    /// How long a 402 that arrives during startup waits for the key and the chain.
    pub ready_timeout: Duration,
    /// The longest time from a request's first 402 to the headers of its paid response.
    pub pay_timeout: Duration,
    /// Payments that are authorizations of a token.
    pub authorizations: AuthorizationLimits,
}

/// One `[[pay]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The hosts it matches.
    pub host: HostPattern,
    /// The port it matches; every port if absent.
    pub port: Option<u16>,
    /// Whether and what it pays.
    pub allow: Allow,
}

/// Whether a rule pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Pay nothing.
    Deny,
    /// Pay at most this.
    Pay {
        /// The highest price of one request, and with it the assets that may be paid.
        max_price: PriceLimit,
        /// The payees that may be paid; any if empty.
        receivers: Vec<Address>,
        /// Which schemes it allows, and which of several offers it prefers.
        preference: Arc<Preference>,
        /// Whether a remembered price is paid with the first request.
        send_ahead: bool,
        /// Whether sellers on other machines are paid over unencrypted http.
        allow_plain_http: bool,
        /// Which requests of browsers are paid; if absent, [`Browsers::usual`] applies.
        browsers: Option<Browsers>,
        /// The hooks: the defaults with this rule's overrides.
        hooks: Arc<Hooks>,
        /// The budgets that the rule names.
        budgets: Vec<Arc<Budget>>,
    },
}

impl Policy {
    /// The first rule that matches `host` (without brackets, in any case) and `port`.
    pub fn rule(&self, host: &str, port: u16) -> Option<&Rule> {
        Rule::first(&self.rules, host, port)
    }
}

impl Policy {
    /// The budgets that a payment to `host` (without brackets, in any case) counts in, each once: those that rules or
    /// clients name, and those that apply to the host.
    pub fn budgets(&self, host: &str, named: &[Arc<Budget>], of_client: &[Arc<Budget>]) -> BudgetSet {
        if self.budgets.is_empty() {
            return BudgetSet::default();
        }
        let is_named =
            |budget: &Arc<Budget>| named.iter().chain(of_client).any(|named| Arc::ptr_eq(named, budget));
        let applicable = self.budgets.iter().filter(|budget| budget.applies_to(host) || is_named(budget));
        applicable
            .map(|budget| BudgetRef {
                budget: Arc::clone(budget),
                host: budget.scope.each.then(|| host_name(host)),
            })
            .collect()
    }
}

impl Rule {
    /// The first of `rules` that matches `host` (without brackets, in any case) and `port`.
    pub fn first<'a>(rules: &'a [Self], host: &str, port: u16) -> Option<&'a Self> {
        let speaks = |rule: &&Self| rule.port.is_none_or(|only| only == port) && rule.host.matches(host);
        rules.iter().find(speaks)
    }
}
