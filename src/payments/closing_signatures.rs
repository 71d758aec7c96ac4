//! Sellers' signatures of the final total of a channel, kept until the channel is closed with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::mutex::lock;
use crate::protocol::{Amount, ChannelId, Signature};

/// A seller's signature and the total that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosingSignature {
    /// The total, in base units.
    pub total: Amount,
    /// The signature.
    pub signature: Signature,
}

/// The unused signatures; cheap to clone. A seller gives one only once.
#[derive(Clone, Debug, Default)]
pub(super) struct ClosingSignatures(Arc<Mutex<HashMap<ChannelId, ClosingSignature>>>);

impl ClosingSignatures {
    /// Loads the journal's signatures.
    pub(super) fn load(&self, signatures: Vec<(ChannelId, ClosingSignature)>) {
        lock(&self.0).extend(signatures);
    }

    pub(super) fn get(&self, channel: &ChannelId) -> Option<ClosingSignature> {
        lock(&self.0).get(channel).copied()
    }

    pub(super) fn insert(&self, channel: ChannelId, signature: ClosingSignature) {
        lock(&self.0).insert(channel, signature);
    }

    pub(super) fn remove(&self, channel: &ChannelId) {
        lock(&self.0).remove(channel);
    }
}
