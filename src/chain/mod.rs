//! The chain layer: contracts, node, transactions and the signing key. It never sees a client's HTTP request.
//!
//! [`Chain`] is a handle to one channel contract through one JSON-RPC node, for one payer. Anything that must
//! survive a crash goes to a [`TransactionRecorder`] before the chain layer acts on it.

mod allowance;
mod client;
mod confirm;
mod contract_call;
mod daily_fees;
mod erc20;
mod error;
pub mod external;
mod fees;
mod free_nonce;
mod gap;
pub mod keystore;
mod microraiden;
mod network;
mod nonces;
mod recorder;
mod refusal;
mod repeated;
mod rpc;
mod send;
mod sent;
mod settings;
pub mod signer;
mod transaction;
mod wallet_signer;

pub use allowance::{
    Allowance, AllowancePlan, AllowanceRecorder, AllowanceTransaction, Allowances, NetworkAccount,
    TransactionLimits,
};
pub use client::Chain;
pub use error::{AllowanceError, ChainError, NotRecorded, OpError, TransactionHash};
#[cfg(feature = "testing")]
pub use error::{PinSource, Underfunded};
pub(crate) use fees::most_it_costs;
pub use microraiden::{Balances, OpResult, Resolution, Synced};
#[cfg(feature = "testing")]
pub use microraiden::{BlockWatcher, ContractInfo};
pub use network::{ConfirmedBlock, Network, NetworkSettings};
pub use recorder::TransactionRecorder;
pub use rpc::{NODE_ERRORS, NODE_LATENCY};
pub use settings::ChainSettings;
pub use wallet_signer::{SigningTurn, WalletSigner};
