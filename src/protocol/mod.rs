//! The pure core: no tasks, sockets, clocks, keys, files or randomness.
//!
//! The [`schemes`] parse an [`Answer`] into [`Offer`]s; the [`engine`] decides about them, based on the [`policy`] and
//! the state of the [`channel`]s, and returns effects in the order in which they must happen.

pub mod account;
pub mod address;
pub mod answer;
pub mod asset;
pub mod budget;
pub mod channel;
pub mod decimal;
pub mod engine;
pub mod host_name;
pub mod money;
pub mod policy;
pub mod precondition;
pub mod quote;
pub mod reason_code;
pub mod refusal;
pub mod safe_text;
pub mod schemes;
pub mod signature;
pub mod signing_request;
pub mod terms;
pub mod usd;

pub use account::Account;
pub use address::{Address, ChannelId};
pub use answer::Answer;
pub use asset::{AssetId, Money};
pub use channel::{Channel, ChannelOp, Intent, OnChain, Phase};
pub use money::{Amount, Wei};
pub use policy::Policy;
pub use precondition::UnmetPrecondition;
pub use reason_code::ReasonCode;
pub use refusal::Refusal;
pub use schemes::{Draft, Offer, SchemeName};
pub use signature::Signature;
pub use signing_request::{SigningRequest, TypedData, TypedValue};
pub use terms::Terms;
pub use usd::Usd;
