//! What several tests need.

pub mod cheats;
pub mod fair;
pub mod mallory;
pub mod market;
pub mod wire;
