//! Policy: what the user allows. Rules say whom to pay and how much at most; hooks say what to do at each turn of a
//! purchase. Nothing is paid that no rule allows.

mod browsers;
mod deposit;
mod hooks;
mod host_pattern;
mod hosts;
mod limit;
mod rule;

pub use browsers::Browsers;
pub use deposit::{Deposit, DepositSize, OnExit};
pub use hooks::{
    Abort, Adopt, CloseDenied, Complaint, Exit, Hook, Hooks, Init, Mark, Marks, Missing, OnError, OnResponse,
    Requested, Retry, Success, Webhook,
};
pub use host_pattern::HostPattern;
pub use hosts::Hosts;
pub use limit::SpendLimit;
pub use rule::{Allow, Policy, Rule};
