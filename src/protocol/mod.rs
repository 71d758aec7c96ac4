//! The core, pure: values in, values out. No task, socket, clock, key, file or randomness in here.

pub mod address;
pub mod channel;
pub mod microraiden;
pub mod money;
pub mod policy;

pub use address::{Address, ChannelId};
pub use channel::{Intent, OnChain, Order};
pub use microraiden::proof::Signature;
pub use money::Amount;
