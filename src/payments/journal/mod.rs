//! The journal: what was promised and what is under way, in an SQLite file that outlives a crash.
//!
//! One file, `tollpass.db`, readable with any SQLite tool. Amounts are decimal text, addresses and hashes are
//! hexadecimal text. Every write is one durable transaction (write-ahead log, synchronous = FULL).

mod error;
mod file;
mod load;
mod schema;
mod write;
pub(crate) mod writer;

pub use error::StoreError;
pub use file::{FILE, Store, beside};
pub use load::{BookId, Contents, Owned, Owner};

#[cfg(test)]
mod tests;
