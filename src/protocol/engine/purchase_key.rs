//! What makes requests the same purchase.

/// Identifies a purchase: a keyed hash of what makes two requests the same one, which may be long and contain secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurchaseKey(pub [u8; 32]);
