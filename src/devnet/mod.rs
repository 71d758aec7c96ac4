//! The development network: a chain in memory behind JSON-RPC, contracts of our own to put on it, and a seller.
//!
//! For the demo, for tests and for trying things out; nothing here is worth money and nothing here is in the
//! production build. It must not use our own proof or chain code: what checks the payer must not be the payer.

pub mod accounts;
mod block;
pub mod chain;
pub mod contracts;
pub mod deploy;
mod evm;
mod fault;
mod incoming;
mod logs;
mod node;
pub mod origin;
mod pool;
mod rpc;
pub mod sandbox;
mod view;
