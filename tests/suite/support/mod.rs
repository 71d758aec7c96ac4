//! What several tests need.

pub mod market;
pub mod wire;
