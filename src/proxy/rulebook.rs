//! The rules that requests are judged by. A reload replaces all of them at once; a request keeps those that it began with.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::authenticator::Authenticator;
use super::interception::Interception;
use crate::protocol::Policy;
use crate::protocol::policy::LocalSpenders;

/// What a reload replaces.
#[derive(Debug)]
pub struct Rulebook {
    /// Which hosts and payees may be paid, and how much.
    pub policy: Arc<Policy>,
    /// Which requests without a token may spend.
    pub local: LocalSpenders,
    /// Knows the clients, if there are any.
    pub authenticator: Option<Arc<Authenticator>>,
    /// The tunnels to read, if there are any.
    pub interception: Option<Arc<Interception>>,
}

impl Rulebook {
    /// Pays by this policy, knows no clients and reads no tunnels.
    #[must_use]
    pub fn new(policy: Arc<Policy>, local: LocalSpenders) -> Self {
        Self { policy, local, authenticator: None, interception: None }
    }
}

/// The rules that apply now; clones share them. Reading them takes no lock.
#[derive(Clone, Debug)]
pub struct CurrentRules(Arc<ArcSwap<Rulebook>>);

impl CurrentRules {
    /// Begins with these.
    #[must_use]
    pub fn new(rules: Rulebook) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(rules)))
    }

    /// The rules of this moment. Keep the result for a short time only, not while anything waits.
    #[must_use]
    pub fn get(&self) -> RulesNow {
        RulesNow(self.0.load())
    }

    /// Replaces all rules, for requests that begin from now on.
    pub fn replace(&self, rules: Rulebook) {
        self.0.store(Arc::new(rules));
    }
}

/// The rules of a moment.
pub struct RulesNow(Guard<Arc<Rulebook>>);

impl Deref for RulesNow {
    type Target = Rulebook;

    fn deref(&self) -> &Rulebook {
        &self.0
    }
}
