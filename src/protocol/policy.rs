//! Policy: what the user allows. Rules decide which hosts and payees may be paid and the price limits; hooks decide
//! what to do at each step of a purchase. Nothing is paid without a rule.

mod authorization_limits;
mod browsers;
mod client;
mod complaint;
mod decision;
mod deposit;
mod hooks;
mod host_pattern;
mod hosts;
mod known_asset;
mod known_clients;
mod limit;
mod marks;
mod preference;
mod price_limit;
mod rule;
mod user_policy;

pub use authorization_limits::AuthorizationLimits;
pub use browsers::Browsers;
pub use client::{ClientKind, LocalSpenders, ProxyClient};
pub use complaint::Complaint;
pub use decision::Decision;
pub use deposit::{Deposit, DepositLimit, DepositSize, OnExit};
pub use hooks::{
    Abort, Adopt, CloseDenied, Exit, Hook, Hooks, Init, Missing, OnError, OnResponse, Requested, Retry,
    Success, Webhook,
};
pub use host_pattern::HostPattern;
pub use hosts::Hosts;
pub use known_asset::{KnownAsset, TokenDomain, shown_price, well_known};
pub use known_clients::{KnownClients, ProvenClient, TokenDigest};
pub use limit::{SpendLimit, SpendOrigin};
pub use marks::{Mark, Marks};
pub use preference::Preference;
pub use price_limit::PriceLimit;
pub use rule::{Allow, Rule};
pub use user_policy::Policy;
