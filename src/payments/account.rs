//! The account that the journal keeps channels for.

use serde::{Deserialize, Serialize};

use crate::protocol::{Account, Address};

/// One payer on one contract of one chain: the key of an account in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountKey {
    /// The chain ID.
    pub chain_id: u64,
    /// The channel contract.
    pub contract: Address,
    /// The payer.
    pub payer: Address,
}

impl From<Account> for AccountKey {
    fn from(Account { chain_id, contract, payer, token: _ }: Account) -> Self {
        Self { chain_id, contract, payer }
    }
}
