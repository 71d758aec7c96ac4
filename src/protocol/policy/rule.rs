//! The rules: whom to pay, and how much at most.

use std::sync::Arc;

use super::browsers::Browsers;
use super::hooks::Hooks;
use super::host_pattern::HostPattern;
use super::preference::Preference;
use super::price_limit::PriceLimit;
use crate::protocol::Address;
use crate::protocol::budget::Budget;

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

impl Rule {
    /// The first of `rules` that matches `host` (without brackets, in any case) and `port`.
    pub fn first<'a>(rules: &'a [Self], host: &str, port: u16) -> Option<&'a Self> {
        let speaks = |rule: &&Self| rule.port.is_none_or(|only| only == port) && rule.host.matches(host);
        rules.iter().find(speaks)
    }
}
