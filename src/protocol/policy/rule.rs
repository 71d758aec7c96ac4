//! The rules: whom to pay, and how much at most.

use std::sync::Arc;
use std::time::Duration;

use super::browsers::Browsers;
use super::deposit::Deposit;
use super::hooks::Hooks;
use super::host_pattern::HostPattern;
use crate::protocol::{Address, Money};

/// All that the user allows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The first rule that matches a request decides; no rule, no payment.
    pub rules: Vec<Rule>,
    /// How much to lock up.
    pub deposit: Deposit,
    /// What to do at each turn of a purchase, where no rule says otherwise.
    pub hooks: Arc<Hooks>,
    /// How many different payments one client request may lead to. Presenting the same one again is bounded
    /// by the hooks.
    pub max_attempts: u32,
    /// How many further payments of the same price may be signed before the next durable write.
    pub sign_ahead: u64,
    /// How long a 402 waits at start until the key is unlocked and the chain synced.
    pub ready_timeout: Duration,
    /// How long one client request may take from its first 402 to the paid answer's head.
    pub pay_timeout: Duration,
}

/// One `[[pay]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which hosts it speaks of.
    pub host: HostPattern,
    /// Which port it speaks of; any when absent.
    pub port: Option<u16>,
    /// What it allows.
    pub allow: Allow,
}

/// What a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Pay nothing.
    Deny,
    /// Pay at most this.
    Pay {
        /// The highest price of one request. No other asset is paid.
        max_price: Money,
        /// Who may be paid; anyone when empty.
        receivers: Vec<Address>,
        /// True when a price that is known from before is paid in the first request.
        send_ahead: bool,
        /// Which requests of browsers are paid; when absent, what [`Browsers::usual`] says.
        browsers: Option<Browsers>,
        /// What to do at each turn of a purchase: the defaults, and what this rule puts in their place.
        hooks: Arc<Hooks>,
    },
}

impl Policy {
    /// The first rule that speaks of `host` (without brackets, in any case) and `port`.
    pub fn rule(&self, host: &str, port: u16) -> Option<&Rule> {
        let speaks = |rule: &&Rule| rule.port.is_none_or(|only| only == port) && rule.host.matches(host);
        self.rules.iter().find(speaks)
    }
}
