//! The payment service: the engine of all channels behind a lock, one actor for disk and chain effects, and a
//! [`Payments`] handle for all other modules.
//!
//! [`Payments::pay`] returns a [`Lease`]: a signed payment with its channel.

mod account;
mod actor;
mod allowances;
mod approvals;
mod channel_lock;
mod clock;
mod closing_signatures;
mod conditions;
mod consultant;
mod doubts;
mod error;
mod freed;
mod handle;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod idle;
pub mod journal;
mod kept_signatures;
mod lease;
pub mod ledger;
mod listing;
mod message;
mod open_runs;
mod paid_prices;
mod pauses;
mod payer;
mod quotes;
mod readiness;
mod report;
mod request_hasher;
mod run_account;
mod seller_urls;
mod shared_engine;
mod spending;
mod standing;
mod startup;
mod unsupported;

pub use crate::protocol::budget::BudgetView;
pub use account::AccountKey;
pub use approvals::{ListedApproval, PendingApproval};
pub(crate) use approvals::{WantedPayment, listed_approvals};
pub use closing_signatures::ClosingSignature;
pub use consultant::Consultant;
pub use error::ChannelAccessError;
pub use handle::Payments;
#[cfg(test)]
#[cfg(target_os = "linux")]
pub(crate) use idle::idle;
pub use lease::{Lease, Undelivered};
pub use ledger::{LedgerBounds, LedgerKey, LedgerWatch, PaidRequest};
pub use listing::{ListedChannel, ListedHold, Listing};
pub(crate) use message::{ChainContext, ChangedChannel};
pub use open_runs::OpenRuns;
pub use pauses::PausedHost;
pub use readiness::Obstacle;
pub use report::{AssetSpending, PayeeSpending, Spending, SpendingReport, Tally};
pub use run_account::{RunAccount, RunPlace, RunTerms};
pub use startup::Startup;
pub use unsupported::UnsupportedOffers;
