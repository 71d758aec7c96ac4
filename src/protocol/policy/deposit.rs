//! How much to lock up in channels.

use std::time::Duration;

use crate::protocol::Amount;

/// `[deposit]`: how much to lock up in channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deposit {
    /// The deposit of a new channel.
    pub initial: DepositSize,
    /// What a channel that runs low can pay after it was topped up.
    pub top_up: DepositSize,
    /// How many channels to one receiver may be open at once; more than one are opened while requests queue.
    pub channels: u32,
    /// The most that a channel may hold, including top-ups, in base units.
    pub max_per_channel: Amount,
    /// The most that all channels to one receiver may hold together, in base units.
    pub max_per_receiver: Option<Amount>,
    /// The most that all channels may hold together, in base units.
    pub max_total: Option<Amount>,
    /// How long to send no transaction for a receiver and host after one failed. It doubles with each consecutive
    /// failure.
    pub retry_after: Duration,
    /// How many deposits may be made for one receiver and host within `count_window`.
    pub max_count: u32,
    /// See `max_count`.
    pub count_window: Duration,
    /// What to do with open channels at shutdown.
    pub on_exit: OnExit,
    /// How long after its last payment a channel beyond the first to a receiver is closed; never if absent.
    pub close_idle_after: Option<Duration>,
}

/// The size of a deposit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepositSize {
    /// This many times the price.
    Times(u64),
    /// This much, in base units.
    Units(Amount),
}

impl DepositSize {
    /// The deposit for a price.
    pub fn of(self, price: Amount) -> Amount {
        match self {
            Self::Times(factor) => price.saturating_mul(factor),
            Self::Units(amount) => amount,
        }
    }
}

/// A limit on what channels may hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "channels{} hold {locked}, and deposit.{key} allows {limit}: close idle ones with `tollpass channels close`, or \
     raise the limit",
    if *key == "max_per_receiver" { " to this receiver" } else { "" }
)]
pub struct DepositLimit {
    /// Its key in `[deposit]`.
    pub key: &'static str,
    /// What the channels hold, including deposits that are not confirmed yet.
    pub locked: Amount,
    /// The most that they may hold.
    pub limit: Amount,
}

/// What to do with open channels at shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum OnExit {
    /// They stay open.
    #[default]
    Never,
    /// Close them together with their sellers.
    Cooperative,
}

impl Deposit {
    /// What applies if nothing is configured. The contract accepts at most 100 * 10^18 base units per channel.
    pub const DEFAULT: Self = Self {
        initial: DepositSize::Times(10),
        top_up: DepositSize::Times(5),
        channels: 1,
        max_per_channel: Amount::from_units(100 * 10_u128.pow(18)),
        max_per_receiver: None,
        max_total: None,
        retry_after: Duration::from_secs(30),
        max_count: 200,
        count_window: Duration::from_secs(3600),
        on_exit: OnExit::Never,
        close_idle_after: None,
    };
}

impl Default for Deposit {
    fn default() -> Self {
        Self::DEFAULT
    }
}
