//! Hosts and addresses: their spelling, the patterns that match them, and the hosts that `no_proxy` exempts.

pub mod host;
pub mod no_proxy;
