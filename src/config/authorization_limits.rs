//! The limits of the policy on payments that expire.

use crate::limits::Limits;
use crate::protocol::policy::AuthorizationLimits;

/// Those of `[limits]`.
pub(super) fn authorization_limits(limits: &Limits) -> AuthorizationLimits {
    AuthorizationLimits {
        max_validity: limits.max_validity,
        ahead_validity: limits.ahead_validity,
        retry_window: limits.retry_window,
        unclear_repeats: limits.unclear_repeats,
        open: limits.open_authorizations,
        ask_chain_for: limits.chain_check_for,
        served_checks: limits.served_checks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_has_the_default_limits() {
        assert_eq!(authorization_limits(&Limits::default()), AuthorizationLimits::default());
    }
}
