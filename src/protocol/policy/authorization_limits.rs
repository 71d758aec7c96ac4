//! Limits on payments that are authorizations of a token.

use std::time::Duration;

/// Limits on payments that are authorizations of a token, which expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationLimits {
    /// The longest time that one may be valid.
    pub max_validity: Duration,
    /// The same for one that is sent before the seller asks.
    pub ahead_validity: Duration,
    /// How long a purchase is not repeated after it was paid for and not delivered, or after an authorization whose outcome is
    /// unclear has expired.
    pub retry_window: Duration,
    /// How often one is presented again by itself while its outcome is unclear.
    pub unclear_repeats: u32,
    /// How many may be open: in use, or neither expired nor known to be taken.
    pub open: usize,
    /// How long after one has expired its chain is asked whether it was used.
    pub ask_chain_for: Duration,
    /// How many of served payments a chain is asked about at once; 0 if it is not asked about any.
    pub served_checks: usize,
}

impl Default for AuthorizationLimits {
    /// The values of a configuration without these keys.
    fn default() -> Self {
        let [max_validity, ahead_validity, retry_window, ask_chain_for] =
            [600, 30, 60, 24 * 3600].map(Duration::from_secs);
        let (unclear_repeats, open, served_checks) = (6, 10_000, 200);
        Self {
            max_validity,
            ahead_validity,
            retry_window,
            unclear_repeats,
            open,
            ask_chain_for,
            served_checks,
        }
    }
}
