//! What several tests need.

pub mod cheats;
pub mod mallory;
pub mod market;
pub mod wire;
