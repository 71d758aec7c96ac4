//! HTTP messages: rules for headers and targets, `Via`, `Max-Forwards`, `Expect`, and bodies.

pub mod body;
pub mod byte_body;
pub(crate) mod driven;
pub(crate) mod expect;
pub mod headers;
pub(crate) mod max_forwards;
pub(crate) mod multiplexed;
pub(crate) mod payment_headers;
pub(crate) mod proxy_status;
pub(crate) mod recorded;
pub(crate) mod streamed;
pub(crate) mod target;
pub(crate) mod validate;
pub(crate) mod via;
