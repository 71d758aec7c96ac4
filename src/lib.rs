//! tollpass

pub mod chain;
pub mod fault;
pub mod manager;
pub mod protocol;
