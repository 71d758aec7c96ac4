//! Errors of the journal.

use std::path::PathBuf;

use super::schema::SCHEMA_VERSION;
use crate::protocol::Address;

/// The journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite failed.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The journal has the same payer and contract on another chain.
    #[error(
        "the node is on chain {found}, but {} recorded {payer} and the contract {contract} on chain {known}: check \
         chain.rpc_url, or set chain.chain_id = {found} if you mean that chain", path.display()
    )]
    OtherChain {
        /// The file.
        path: PathBuf,
        /// The payer.
        payer: Address,
        /// The channel contract.
        contract: Address,
        /// The chain ID of the node.
        found: u64,
        /// The chain ID of the journal.
        known: u64,
    },
    /// The contract reported another token before.
    #[error(
        "the contract {contract} reports the token {found}, but {} recorded {known}, which cannot change: the node \
         returns false data. Use another node (chain.rpc_url)", path.display()
    )]
    OtherToken {
        /// The file.
        path: PathBuf,
        /// The channel contract.
        contract: Address,
        /// The token that it reports now.
        found: Address,
        /// The token in the journal.
        known: Address,
    },
    /// A record belongs to an account, and the chain has not been read yet.
    #[error("the journal cannot record a channel before the chain has been read")]
    NoAccount,
    /// The writer thread panicked; nothing was done that depends on its unwritten records.
    #[error("the journal is closed after an internal error: restart tollpass")]
    Gone,
    /// The file was written by a newer version.
    #[error("{}: written by a newer version of tollpass (schema {found}, this version supports {SCHEMA_VERSION}): update", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
}
