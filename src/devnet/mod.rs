//! The development network: an in-memory chain with JSON-RPC, contracts for it, and a seller.
//!
//! For the demo, tests and experiments; nothing here is worth money or part of a production build. It must not use the
//! payer's proof or chain code, so that it checks them independently.

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
