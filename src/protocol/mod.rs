//! The core, pure: values in, values out. No task, socket, clock, key, file or randomness in here.
//!
//! An [`Answer`] is [`read`] into a [`Offer`]; the [`engine`] decides about it within the [`policy`] and the
//! state of the [`channel`]s, and gives back effects in the order in which they must happen.

pub mod account;
pub mod address;
pub mod channel;
pub mod engine;
pub mod money;
pub mod policy;
pub mod quote;
pub mod refusal;
pub mod schemes;

use http::HeaderMap;

pub use account::Account;
pub use address::{Address, ChannelId};
pub use channel::{Channel, ChannelOp, Intent, OnChain, Phase};
pub use money::{Amount, Wei};
pub use policy::Policy;
pub use refusal::Refusal;
use schemes::microraiden;
pub use schemes::microraiden::Draft;
pub use schemes::microraiden::proof::Signature;

/// A 402 as far as a payer looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its header fields.
    pub fields: &'a HeaderMap,
}

/// A demand for money, in one of the schemes that are known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// µRaiden.
    MicroRaiden(microraiden::Offer),
}

/// Reads a 402: which scheme it is in, and what it asks for.
pub fn read(answer: &Answer<'_>) -> Result<Offer, Refusal> {
    match microraiden::read(answer.fields) {
        Some(Ok(challenge)) => Ok(Offer::MicroRaiden(challenge)),
        Some(Err(malformed)) => Err(Refusal::Malformed(malformed)),
        None => Err(Refusal::UnknownScheme),
    }
}
