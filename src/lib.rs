//! tollpass

pub mod chain;
pub mod fault;
pub mod manager;
pub mod cli;
pub mod config;
pub mod protocol;
pub mod proxy;
pub mod shutdown;
pub mod telemetry;
