//! The part of an offer that every scheme has.

use crate::protocol::Address;
use crate::protocol::asset::Money;
use crate::protocol::schemes::SchemeName;

/// The scheme-neutral part of an offer: all that rules, budgets, hooks, quotes, the report and the log may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The price.
    pub price: Money,
    /// The payee.
    pub payee: Address,
    /// The payment scheme.
    pub scheme: SchemeName,
}
