//! tollpass

pub mod admin;
pub mod app;
pub mod chain;
pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod devnet;
pub mod fault;
pub mod manager;
pub mod protocol;
pub mod proxy;
pub mod shutdown;
pub mod telemetry;
