//! The chain: contracts, node, transactions, the signing key. Never sees an HTTP request of a client.

pub mod signer;
