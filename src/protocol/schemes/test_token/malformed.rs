//! Why an offer cannot be understood.

use super::headers::OFFER;

/// Why an offer is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{OFFER} does not have the form price=AMOUNT, payee=ADDRESS")]
pub struct MalformedTokenOffer;
