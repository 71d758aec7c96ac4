//! What an exchange does in a dry run in place of a payment.

use super::dry_run::DryRun;
use super::exchange::Exchange;
use crate::payments::{Consultant, Payments};
use crate::protocol::engine::Question;
use crate::protocol::policy::Decision;
use crate::protocol::{Offer, Refusal};
use crate::proxy::ForwardError;
use crate::proxy::request_service::RequestService;

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Checks an offer and asks for approval as before a payment, and returns why it is not paid.
    pub(super) async fn rehearse(
        &self,
        (payments, dry_run): (&Payments, &DryRun),
        offer: &Offer,
        consultant: &dyn Consultant,
    ) -> Refusal {
        let is_asked = match payments.check(offer, &self.limit) {
            Ok(()) => payments.must_ask(offer, &self.limit),
            Err(refusal) => Err(refusal),
        };
        match is_asked {
            Err(refusal) => return refusal,
            Ok(false) => {}
            Ok(true) => {
                let (hook, webhook) =
                    ("payment_requested", self.limit.hooks.payment_requested.webhook.clone());
                match consultant.consult(&Question { hook, webhook }).await {
                    None => return Refusal::NoApprover { hook },
                    Some(Decision::Abort { reason }) => return Refusal::ApproverRefused { hook, reason },
                    Some(_) => {}
                }
            }
        }
        if let Err(refusal) = payments.rehearse(offer, &self.limit) {
            return refusal;
        }
        dry_run.would_pay(&offer.terms().price)
    }
}
