//! A request body that can be sent again: kept while it is sent, in memory first and then in a private temporary
//! file. And a response body held back until it is complete. Nothing here knows why it is sent again.

pub(crate) mod hold;
pub(crate) mod kept;
mod limits;
mod store;

use super::message::body::Body;
pub use hold::{Held, Past, hold};
use kept::KeptBody;
pub use kept::keep;
#[cfg(feature = "testing")]
pub use limits::NotReplayable;
pub use limits::ReplayLimits;

/// A request body that is kept so that it can be sent again.
pub type Kept = KeptBody<Body>;

#[cfg(test)]
mod tests;
