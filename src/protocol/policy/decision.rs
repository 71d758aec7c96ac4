//! The decision of an approver.

/// The decision of an approver. Each hook accepts some of these; any other one stops the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// `payment_requested`: pay. On a seller's complaint or a response: continue according to the policy.
    Pay,
    /// On a seller's complaint: continue, from the same channel. On an answer: pass it on.
    Retry,
    /// `nonexisting_channel`: retry, and pay from another channel, once, if the chain does not know this one either.
    Reopen,
    /// `invalid_amount`: continue from the seller's total, if that is harmless or proven.
    Adopt,
    /// `init`: send the request. `http_response` and `http_error`: pass the answer on.
    Pass,
    /// `cooperative_close_denied`: leave the channel open and continue with others.
    Keep,
    /// `cooperative_close_denied`: close the channel without its seller.
    CloseAlone,
    /// Stop.
    Abort {
        /// The reason, for the client and the log.
        reason: String,
    },
}
