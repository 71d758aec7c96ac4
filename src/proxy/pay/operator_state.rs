//! What the operator knows of a request and has approved.

use http::Extensions;
use tokio::time::Instant;

use crate::protocol::Terms;
use crate::proxy::extensions::{Arrival, RequestClient};

/// What the operator knows of a request and has approved.
#[derive(Default)]
pub(super) struct OperatorState {
    /// The client's name or address, if the operator may be asked.
    pub(super) client: Option<String>,
    /// The approved terms. They bind this request only, and with it its origin and method.
    pub(super) approved: Option<Box<Terms>>,
    /// When the request stops waiting, however often the seller changes its offer.
    pub(super) until: Option<Instant>,
}

impl OperatorState {
    pub(super) fn has_approved(&self, terms: &Terms) -> bool {
        self.approved.as_deref() == Some(terms)
    }
}

/// The client's name, or its address if it has none.
pub(super) fn client_name(extensions: &Extensions) -> Option<String> {
    let name = extensions.get::<RequestClient>().map(|client| client.name().to_owned());
    name.or_else(|| extensions.get::<Arrival>().map(|arrival| arrival.client().to_string()))
}
