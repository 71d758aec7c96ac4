//! A seller: an HTTP origin whose resources cost money, paid over µRaiden channels; one of them may be sold for x402
//! authorizations, which it settles on the chain.
//!
//! It behaves like the original server, quirks included, so that a payer that works with it works with real sellers. It
//! keeps its ledger in memory and sends no other transactions. It must not use the payer's code apart from header names and
//! plain types, so that it detects mistakes there.

mod authorized;
mod error;
mod faults;
mod gateway;
mod ledger;
mod paths;
mod paywall;
mod proofs;
mod resources;
mod seller;
mod server;
mod settings;
mod shared;
mod switches;
mod watch;

pub use self::authorized::AuthorizedSale;
pub use self::error::SellerStartError;
#[cfg(feature = "testing")]
pub use self::faults::Lose;
#[cfg(feature = "testing")]
pub use self::paths::GATEWAY_PATH;
pub use self::paths::X402_PATH;
#[cfg(feature = "testing")]
pub use self::resources::Kind;
pub use self::resources::{Resource, directory};
pub use self::seller::Origin;
pub use self::settings::{Secure, SellerSettings};
