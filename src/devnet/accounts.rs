//! The ten well-known development accounts, the same as in other development nodes. Their keys are public.

use ethers_core::k256::ecdsa::SigningKey;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{H160, H256, Signature, U256};
use ethers_core::utils::{hex, secret_key_to_address};

/// The number of accounts.
pub const COUNT: usize = 10;

/// The private keys, in order, without `0x`.
const KEYS: [&str; COUNT] = [
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    "92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
    "4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
    "dbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
    "2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
];

/// The private key of account `index`, 32 bytes, or `None` past the last one.
pub fn key(index: usize) -> Option<[u8; 32]> {
    hex::decode(KEYS.get(index)?).ok()?.try_into().ok()
}

/// A key and its address. It signs with k256, and not with the library that the payer uses, so that each checks the other.
#[derive(Clone, Debug)]
pub struct DevWallet {
    key: SigningKey,
    address: H160,
}

impl DevWallet {
    /// Takes a private key of 32 bytes; `None` if it is none.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        let key = SigningKey::from_slice(key).ok()?;
        Some(Self { address: secret_key_to_address(&key), key })
    }

    /// The key's address.
    #[must_use]
    pub fn address(&self) -> H160 {
        self.address
    }

    /// Signs a digest, with v 27 or 28; `None` if that is not possible with this key.
    #[must_use]
    pub fn sign(&self, digest: H256) -> Option<Signature> {
        let (signature, recovery) = self.key.sign_prehash_recoverable(digest.as_bytes()).ok()?;
        let (r, s) = signature.split_bytes();
        let v = 27 + u64::from(recovery.to_byte());
        Some(Signature { r: U256::from_big_endian(&r), s: U256::from_big_endian(&s), v })
    }

    /// Signs a transaction of the network with this chain ID, with v as in EIP-155; `None` as for [`Self::sign`].
    #[must_use]
    pub fn sign_transaction(&self, transaction: &TypedTransaction, chain_id: u64) -> Option<Signature> {
        let mut transaction = transaction.clone();
        transaction.set_chain_id(chain_id);
        let signature = self.sign(transaction.sighash())?;
        Some(Signature { v: signature.v - 27 + 35 + 2 * chain_id, ..signature })
    }
}

/// The accounts' wallets, in order.
pub(super) fn wallets() -> Vec<DevWallet> {
    (0..COUNT).filter_map(|index| DevWallet::new(&key(index)?)).collect()
}

/// The accounts' addresses, in order.
pub(super) fn addresses() -> Vec<H160> {
    wallets().iter().map(DevWallet::address).collect()
}

/// The initial balance of each account: 10,000 ether, in wei.
pub(super) fn initial_balance() -> U256 {
    U256::exp10(22)
}

#[cfg(test)]
mod tests {
    use crate::devnet::accounts::*;

    #[test]
    fn the_accounts_are_the_well_known_ones() {
        let addresses = addresses();
        assert_eq!(addresses.len(), COUNT);
        assert_eq!(format!("{:?}", addresses[0]), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        assert_eq!(format!("{:?}", addresses[9]), "0xa0ee7a142d267c1f36714e4a8f75612f20a79720");
        assert_eq!(key(COUNT), None);
    }
}
