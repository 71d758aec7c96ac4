//! Operations on channels for the command line, the shutdown of `serve` and the idle-channel reaper: open, top up,
//! close with or without the seller, settle, and sync with the chain; and allowances, which the same key sends.

mod allowances;
mod approver;
mod close;
mod error;
mod operate;
mod reaper;
mod seller;
mod seller_client;
mod service;
mod totals;
mod words;

pub use allowances::{AllowanceChange, AllowanceName, Permit2Allowance, SetAllowance};
pub use approver::{CloseApprovalRequest, CloseApprover};
pub use error::OperationError;
#[cfg(feature = "testing")]
pub use operate::PlannedAction;
pub use operate::{Operation, OperationOutcome, OperationReport, Plan};
pub use reaper::IdleChannelReaper;
pub use seller_client::SellerClient;
pub use service::Channels;
