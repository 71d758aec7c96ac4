//! Outbound connections: which address of a name, through which proxy, and never over a stale connection.

mod addresses;
mod guarded;
mod loops;
mod pinned;
mod ports;
mod proxies;
mod redirects;
mod refused;
mod settings;
mod spellings;
mod stale;
pub mod unencrypted;
