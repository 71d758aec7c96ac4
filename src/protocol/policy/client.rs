//! Clients of the proxy: those that identify themselves with a token, and those that may spend without one.

use std::sync::Arc;

use super::Rule;
use crate::protocol::budget::Budget;

/// One `[[client]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyClient {
    /// Its name, unique and in visible ASCII: logs show it.
    pub name: String,
    /// The kind of program that uses it.
    pub kind: ClientKind,
    /// What it may pay for, instead of the rules of the policy.
    pub rules: Option<Vec<Rule>>,
    /// The budgets that its payments count in, in addition to those that apply anyway.
    pub budgets: Vec<Arc<Budget>>,
}

/// The kind of program that uses a client's token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientKind {
    /// Any, also browsers.
    #[default]
    Any,
    /// Programs only, never a browser.
    Program,
}

/// Which connections may spend without the token of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalSpenders {
    /// Those of programs of this user on this machine.
    User(u32),
    /// Any that the proxy accepts.
    Any,
}
