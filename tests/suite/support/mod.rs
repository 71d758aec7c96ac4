//! What several tests need.

pub mod cheats;
pub mod fair;
pub mod mallory;
pub mod market;
pub mod origins;
pub mod proxy;
pub mod raw;
pub mod wire;
//! What the tests share: networks to pay on.
pub mod chains;
pub mod contracts;
