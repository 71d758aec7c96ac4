//! All that the user allows.

use std::sync::Arc;
use std::time::Duration;

use super::ProxyClient;
use super::authorization_limits::AuthorizationLimits;
use super::deposit::Deposit;
use super::hooks::Hooks;
use super::known_clients::KnownClients;
use super::limit::SpendLimit;
use super::rule::{Allow, Rule};
use crate::protocol::budget::{Budget, BudgetRef, BudgetSet};
use crate::protocol::host_name::host_name;

/// The user's policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How many policies it has replaced in this run.
    pub version: u64,
    /// The clients that may spend.
    pub clients: Arc<KnownClients>,
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

    /// The client of a limit that an earlier policy has set; `None` if it has none, or was removed.
    pub fn client_by_now(&self, limit: &SpendLimit) -> Option<&Arc<ProxyClient>> {
        limit.origin.client.as_ref().and_then(|proven| self.clients.still(proven))
    }

    /// The current rule for a request whose limit an earlier policy set.
    pub fn rule_by_now(&self, limit: &SpendLimit) -> Option<&Rule> {
        match self.client_by_now(limit).and_then(|client| client.rules.as_deref()) {
            Some(rules) => Rule::first(rules, &limit.host, limit.origin.port),
            None => self.rule(&limit.host, limit.origin.port),
        }
    }

    /// The budgets that a payment counts in by now, although its request was judged by an earlier policy: those of the host,
    /// of the rule and client that apply now, and those that it counted in before, as they are defined now. One that is no
    /// longer defined does not apply; those of runs do.
    pub fn budgets_by_now(&self, limit: &SpendLimit) -> BudgetSet {
        let client = self.client_by_now(limit);
        let of_rule = match self.rule_by_now(limit).map(|rule| &rule.allow) {
            Some(Allow::Pay { budgets, .. }) => budgets.as_slice(),
            Some(Allow::Deny) | None => &[],
        };
        let counted =
            |budget: &&Arc<Budget>| limit.budgets.iter().any(|earlier| earlier.budget.name == budget.name);
        let mut named: Vec<Arc<Budget>> = self.budgets.iter().filter(counted).cloned().collect();
        named.extend(client.into_iter().flat_map(|client| client.budgets.iter().cloned()));
        let of_runs = limit.budgets.iter().filter(|counted| counted.key().is_of_run());
        let now = self.budgets(&limit.host, of_rule, &named);
        now.iter().chain(of_runs).cloned().collect()
    }
}
