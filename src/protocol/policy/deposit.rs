//! How much to lock up in channels.

use std::time::Duration;

use crate::protocol::Amount;

/// `[deposit]`: how much to lock up in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deposit {
    /// What a new channel holds.
    pub initial: DepositSize,
    /// What a channel that runs low can pay after it was topped up.
    pub top_up: DepositSize,
    /// How many channels to one receiver may be open at once: further ones are opened when requests queue.
    pub channels: u32,
    /// A channel never holds more than this, top ups included, in base units.
    pub max_per_channel: Amount,
    /// After a transaction failed, how long nothing more is tried for that receiver and host. It doubles with each failure
    /// in a row.
    pub retry_after: Duration,
    /// How often money is put into channels to one receiver for one host within `count_window`.
    pub max_count: u32,
    /// See `max_count`.
    pub count_window: Duration,
    /// What becomes of the channels when tollpass ends.
    pub on_exit: OnExit,
    /// After how long without a payment a channel beyond the first to a receiver is closed; never when absent.
    pub close_idle_after: Option<Duration>,
}

/// How much to put into a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepositSize {
    /// This many times the price.
    Times(u64),
    /// This much, in base units, whatever the price.
    Units(Amount),
}

impl DepositSize {
    /// How much that is for a price.
    pub fn of(self, price: Amount) -> Amount {
        match self {
            Self::Times(factor) => price.saturating_mul(factor),
            Self::Units(amount) => amount,
        }
    }
}

/// What becomes of the channels when tollpass ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum OnExit {
    /// They stay open.
    #[default]
    Never,
    /// They are closed together with their sellers.
    Cooperative,
}

impl Deposit {
    /// What applies if nothing is configured. The contract accepts at most 100 * 10^18 base units per channel.
    pub const DEFAULT: Self = Self {
        initial: DepositSize::Times(10),
        top_up: DepositSize::Times(5),
        channels: 1,
        max_per_channel: Amount::from_units(100 * 10_u128.pow(18)),
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
