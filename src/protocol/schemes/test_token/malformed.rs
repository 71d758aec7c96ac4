//! Why an offer cannot be understood.

use super::headers::OFFER;

/// Why an offer cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{OFFER} is not of the form price=AMOUNT, payee=ADDRESS")]
pub struct MalformedTokenOffer;
