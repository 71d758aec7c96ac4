//! The port for the questions that the engine asks about a purchase.

use futures_util::future::BoxFuture;

use crate::protocol::engine::Question;
use crate::protocol::policy::Decision;

/// Asks an approver about one client request, which it knows.
pub trait Consultant: Send + Sync {
    /// Asks a question; `None` if there is no approver. The future is dropped at the deadline of the payment.
    fn consult<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Option<Decision>>;
}

/// For requests without an approver.
impl Consultant for () {
    fn consult<'a>(&'a self, _: &'a Question) -> BoxFuture<'a, Option<Decision>> {
        Box::pin(std::future::ready(None))
    }
}
