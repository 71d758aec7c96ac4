//! tollpass

pub mod chain;
pub mod protocol;
