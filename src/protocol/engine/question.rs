//! Questions that the engine has about a purchase.

use crate::protocol::policy::Webhook;

/// A question to an approver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The key below `[hooks]`.
    pub hook: &'static str,
    /// The webhook to ask; otherwise the program that uses this library, if it has an approver.
    pub webhook: Option<Webhook>,
}
