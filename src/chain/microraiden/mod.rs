//! Channels of the µRaiden contract: operations, their proof on chain, and the events that show what happened.

mod contract;
mod contracts;
mod effect;
mod end;
mod execute;
mod fund;
mod reason;
mod sync;
mod watch;

pub use contract::Balances;
#[cfg(feature = "testing")]
pub use contract::ContractInfo;
pub use execute::{OpResult, Resolution};
pub use sync::Synced;
#[cfg(feature = "testing")]
pub use watch::BlockWatcher;
