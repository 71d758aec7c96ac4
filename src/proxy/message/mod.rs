//! HTTP messages: header rules, targets, `Max-Forwards`, `Expect`, and bodies.

pub mod body;
pub(crate) mod expect;
pub mod headers;
pub(crate) mod max_forwards;
pub(crate) mod target;
pub(crate) mod validate;
