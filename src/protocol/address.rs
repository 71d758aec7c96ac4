//! Addresses and channel identities.

use std::cell::RefCell;
use std::{fmt, str::FromStr};

use ethers_core::types::H160;
use ethers_core::utils::keccak256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A 20-byte account or contract address; displayed with its EIP-55 checksum.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

/// Why a string is not an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAddress {
    /// Not `0x` and 40 hexadecimal digits.
    #[error("not an address: 0x and 40 hexadecimal digits are needed")]
    Shape,
    /// Upper and lower case are mixed, but not as in EIP-55: a digit is probably wrong.
    #[error("the address has a wrong checksum (EIP-55): a digit is probably mistyped")]
    Checksum,
}

/// How many addresses each thread caches the strings of.
const CACHE_SIZE: usize = 16;
/// The string of the zero address.
const ZERO: [u8; 42] = *b"0x0000000000000000000000000000000000000000";

thread_local! {
    /// Strings that this thread displayed recently, indexed by the address's last byte: payments use the same few
    /// addresses again and again, and the hash is the most expensive part of the string.
    static PRINTED: RefCell<[(Address, [u8; 42]); CACHE_SIZE]> = const { RefCell::new([(Address([0; 20]), ZERO); CACHE_SIZE]) };
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).ok_or(NotAnAddress::Shape)?;
        if digits.len() != 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAnAddress::Shape);
        }
        let bytes: H160 = digits.parse().map_err(|_| NotAnAddress::Shape)?;
        let mixed =
            digits.bytes().any(|b| b.is_ascii_uppercase()) && digits.bytes().any(|b| b.is_ascii_lowercase());
        let address = Self(bytes.0);
        if mixed && address.checksummed()[2..] != *digits.as_bytes() {
            return Err(NotAnAddress::Checksum);
        }
        Ok(address)
    }
}

impl Address {
    /// `0x` and 40 hexadecimal digits, with letters in upper case according to the digits' hash (EIP-55).
    fn checksummed(&self) -> [u8; 42] {
        PRINTED.with_borrow_mut(|printed| {
            let (address, text) = &mut printed[usize::from(self.0[19]) % CACHE_SIZE];
            if address != self {
                (*address, *text) = (*self, self.hashed());
            }
            *text
        })
    }

    fn hashed(&self) -> [u8; 42] {
        let mut text = ZERO;
        let digits = &mut text[2..];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[nibble(&self.0, place)];
        }
        let hash = keccak256(&digits);
        for (place, digit) in digits.iter_mut().enumerate() {
            if nibble(&hash, place) >= 8 {
                digit.make_ascii_uppercase();
            }
        }
        text
    }
}

/// The value of one hexadecimal digit of `bytes`.
fn nibble(bytes: &[u8], place: usize) -> usize {
    let byte = bytes[place / 2];
    usize::from(if place.is_multiple_of(2) { byte >> 4 } else { byte & 0xf })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Digits and `0x` are always valid UTF-8.
        f.write_str(str::from_utf8(&self.checksummed()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<H160> for Address {
    fn from(bytes: H160) -> Self {
        Self(bytes.0)
    }
}

impl From<Address> for H160 {
    fn from(address: Address) -> Self {
        Self(address.0)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format!("{text:?}: {error}")))
    }
}

/// A channel of this payer; payer and contract are the same for the whole account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId {
    /// The payee.
    pub receiver: Address,
    /// The block of the opening transaction.
    pub open_block: u32,
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.receiver, self.open_block)
    }
}

/// Why a string is not a [`ChannelId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a channel: write RECEIVER@BLOCK, an address and the block of the opening")]
pub struct NotAChannel;

impl FromStr for ChannelId {
    type Err = NotAChannel;

    fn from_str(text: &str) -> Result<Self, NotAChannel> {
        let (receiver, open_block) = text.split_once('@').ok_or(NotAChannel)?;
        let receiver = receiver.parse().map_err(|_| NotAChannel)?;
        Ok(Self { receiver, open_block: open_block.parse().map_err(|_| NotAChannel)? })
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::address::*;

    #[test]
    fn addresses_that_share_a_place_keep_their_own_texts() {
        let texts = [
            "0x8Bf640A099fE945DA46F354d3B49c48a125F48B6",
            "0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0x0000000000000000000000000000000000000000",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xde709f2102306220921060314715629080e2fB77",
        ];
        let mut addresses: Vec<Address> =
            texts.iter().map(|text| text.to_lowercase().parse().unwrap()).collect();
        // The same cache entry for all.
        addresses.iter_mut().for_each(|address| address.0[19] = 0x10);
        let fresh: Vec<String> = addresses
            .iter()
            .map(|address| std::thread::scope(|scope| scope.spawn(|| address.to_string()).join().unwrap()))
            .collect();
        for _ in 0..2 {
            let here: Vec<String> = addresses.iter().map(Address::to_string).collect();
            assert_eq!(here, fresh);
        }
    }

    #[test]
    fn reads_any_single_case_and_checks_a_mixed_one() {
        let text = "0x8Bf640A099fE945DA46F354d3B49c48a125F48B6";
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        assert_eq!(text.to_lowercase().parse(), Ok(address));
        assert_eq!(format!("0x{}", text[2..].to_uppercase()).parse(), Ok(address));
        assert_eq!(text.replace("8Bf", "8bf").parse::<Address>(), Err(NotAnAddress::Checksum));
        for wrong in ["", "0x", &text[2..], &text[..41], "0xzz f640A099fE945DA46F354d3B49c48a125F48B6"] {
            assert_eq!(wrong.parse::<Address>(), Err(NotAnAddress::Shape), "{wrong}");
        }
    }
}
