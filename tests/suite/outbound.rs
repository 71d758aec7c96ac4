//! The way out: which address of a name, over which proxy, and never over a connection that is long dead.

mod addresses;
mod loops;
mod pinned;
mod proxies;
mod refused;
mod settings;
mod spellings;
mod stale;
