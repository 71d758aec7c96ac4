//! The V3 JSON keystore (Web3 Secret Storage): a private key encrypted with a password. Operates on bytes, not files.

use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use ethers_core::{
    rand::{RngCore as _, rngs::OsRng},
    utils::{hex, keccak256},
};
use serde_json::json;
use zeroize::Zeroizing;

use super::error::V3Error;
use super::form;
use super::form::{DERIVED, Form, Kdf};
use crate::protocol::Address;

/// The most memory that a file may require of scrypt, in bytes (128 · n · r). The usual n = 2^18, r = 8 takes half.
const MAX_SCRYPT_MEMORY: u64 = 512 << 20;
/// The most additional memory (128 · r · p). Usually below 10 KiB.
const MAX_SCRYPT_BLOCKS: u64 = 16 << 20;
/// The most work that a file may require of scrypt (n · r · p): eight times the usual.
const MAX_SCRYPT_WORK: u64 = 1 << 24;
/// The most iterations that a file may require of PBKDF2. The usual is 262,144.
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;
/// The scrypt parameters of a new keystore: log2 of n, then r and p.
const STRENGTH: (u8, u32, u32) = (18, 8, 1);
type Aes128Ctr = ctr::Ctr128BE<aes::Aes128>;

/// The decrypted key and the address in the file, which the caller must compare.
pub(super) struct DecryptedKey {
    /// 32 bytes, big endian.
    pub key: Zeroizing<[u8; 32]>,
    /// The member `address`, if present.
    pub address: Option<Address>,
}

/// Decrypts a keystore. At full strength this takes about a second of one core and 256 MiB.
pub(super) fn open(json: &[u8], password: &[u8]) -> Result<DecryptedKey, V3Error> {
    let Form { address, iv, ciphertext, mac: expected, kdf, salt } = form::read(json)?;
    let derived = derive(kdf, &salt, password)?;
    if !is_same(&mac(&derived, &ciphertext), &expected) {
        return Err(V3Error::WrongPassword);
    }
    let mut key = Zeroizing::new(ciphertext);
    encrypt(&derived, &iv, &mut key);
    // Old wallets encrypted keys without leading zeros, and the MAC covers what they wrote.
    Ok(DecryptedKey { key: Zeroizing::new(form::filled_up(&key)), address })
}

/// Encrypts a key at full strength, with a fresh salt and initialisation vector.
pub(super) fn write(key: &[u8; 32], address: Address, password: &[u8]) -> Result<String, V3Error> {
    let (log_n, r, p) = STRENGTH;
    let n = 1_u64 << log_n;
    let (salt, iv) = (random::<32>(), random::<16>());
    let derived = derive(Kdf::Scrypt { n, r: r.into(), p: p.into() }, &salt, password)?;
    let mut ciphertext = *key;
    encrypt(&derived, &iv, &mut ciphertext);
    let file = json!({
        "address": hex::encode(address.0),
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": { "iv": hex::encode(iv) },
            "ciphertext": hex::encode(ciphertext),
            "kdf": "scrypt",
            "kdfparams": { "dklen": DERIVED, "n": n, "r": r, "p": p, "salt": hex::encode(salt) },
            "mac": hex::encode(mac(&derived, &ciphertext)),
        },
        "id": uuid(),
        "version": 3,
    });
    Ok(format!("{file:#}"))
}

fn derive(kdf: Kdf, salt: &[u8], password: &[u8]) -> Result<Zeroizing<[u8; DERIVED]>, V3Error> {
    let mut derived = Zeroizing::new([0; DERIVED]);
    match kdf {
        Kdf::Scrypt { n, r, p } => {
            scrypt::scrypt(password, salt, &scrypt_params(n, r, p)?, derived.as_mut())
                .map_err(|error| V3Error::Excessive(error.to_string()))?;
        }
        Kdf::Pbkdf2 { c } => {
            let excessive = || V3Error::Excessive(format!("c = {c}, but must be 1 to {MAX_PBKDF2_ROUNDS}"));
            let rounds = u32::try_from(c).ok().filter(|rounds| (1..=MAX_PBKDF2_ROUNDS).contains(rounds));
            let rounds = rounds.ok_or_else(excessive)?;
            pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, salt, rounds, derived.as_mut());
        }
    }
    Ok(derived)
}

/// Checks the scrypt parameters before allocating. Wallets have used a larger n than RFC 7914 allows for their block
/// size (n = 2^18 at r = 1), so the cost is bounded instead.
fn scrypt_params(n: u64, r: u64, p: u64) -> Result<scrypt::Params, V3Error> {
    let excessive = || V3Error::Excessive(format!("scrypt n = {n}, r = {r}, p = {p}"));
    let product = |factors: [u64; 3]| {
        factors.into_iter().try_fold(1, u64::checked_mul).filter(|product| *product > 0).ok_or_else(excessive)
    };
    let (memory, blocks, work) = (product([128, n, r])?, product([128, r, p])?, product([n, r, p])?);
    let is_bounded = memory <= MAX_SCRYPT_MEMORY && blocks <= MAX_SCRYPT_BLOCKS && work <= MAX_SCRYPT_WORK;
    if !n.is_power_of_two() || n < 2 || !is_bounded {
        return Err(excessive());
    }
    let narrow = |number: u64| u32::try_from(number).map_err(|_| excessive());
    // A power of two below 2^64 has an exponent below 64.
    scrypt::Params::new(n.trailing_zeros() as u8, narrow(r)?, narrow(p)?).map_err(|_| excessive())
}

/// AES-128-CTR, where encryption and decryption are the same.
fn encrypt(derived: &[u8; DERIVED], iv: &[u8; 16], data: &mut [u8]) {
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&derived[..16]);
    Aes128Ctr::new((&*key).into(), iv.into()).apply_keystream(data);
}

fn mac(derived: &[u8; DERIVED], ciphertext: &[u8]) -> [u8; 32] {
    keccak256(Zeroizing::new([&derived[16..], ciphertext].concat()))
}

/// Compares in constant time.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// A random UUID (version 4); the format requires one, but it is never read.
fn uuid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::chain::keystore::v3::*;

    const VECTORS: &str = include_str!("../../../tests/suite/vectors/microraiden.json");

    fn vector(name: &str) -> Value {
        serde_json::from_str::<Value>(VECTORS).unwrap()["keystores"][name].clone()
    }

    fn open_value(value: &Value, password: &str) -> Result<DecryptedKey, V3Error> {
        open(value.to_string().as_bytes(), password.as_bytes())
    }

    #[test]
    fn opens_keystores_of_other_programs() {
        let key = vector("private_key");
        for name in ["scrypt_n1024", "pbkdf2_c1024"] {
            let opened = open_value(&vector(name), "correct horse").ok().unwrap();
            assert_eq!(hex::encode_prefixed(*opened.key), key.as_str().unwrap(), "{name}");
            assert_eq!(opened.address, Some(vector("address").as_str().unwrap().parse().unwrap()));
        }
    }

    #[test]
    fn refuses_a_wrong_password_and_a_changed_file() {
        for name in ["scrypt_n1024", "pbkdf2_c1024"] {
            for password in ["", "correct hors", "correct horse\n"] {
                assert_eq!(open_value(&vector(name), password).err(), Some(V3Error::WrongPassword));
            }
            for field in ["mac", "ciphertext"] {
                let mut changed = vector(name);
                let text = changed["crypto"][field].as_str().unwrap();
                let last = if text.ends_with('0') { "1" } else { "0" };
                changed["crypto"][field] = format!("{}{last}", &text[..text.len() - 1]).into();
                assert_eq!(
                    open_value(&changed, "correct horse").err(),
                    Some(V3Error::WrongPassword),
                    "{field}"
                );
            }
        }
    }

    #[test]
    fn crafted_derivations_take_no_memory() {
        for (n, r, p) in [
            (1 << 20, 8, 1),
            (1 << 18, 8, 9),
            (1_u64 << 63, 1, 1),
            (u64::MAX, u32::MAX, u32::MAX),
            (1 << 18, u32::MAX, 1),
            (2, 1, 1 << 23),
            (2, 1 << 21, 1),
            (2, 1, u32::MAX),
            (1000, 8, 1),
            (1, 8, 1),
            (0, 8, 1),
            (1024, 0, 1),
            (1024, 8, 0),
        ] {
            let mut crafted = vector("scrypt_n1024");
            crafted["crypto"]["kdfparams"]["n"] = n.into();
            crafted["crypto"]["kdfparams"]["r"] = r.into();
            crafted["crypto"]["kdfparams"]["p"] = p.into();
            let error = open_value(&crafted, "correct horse").err();
            assert!(matches!(error, Some(V3Error::Excessive(_))), "{n} {r} {p}: {error:?}");
        }
        for c in [0, u64::from(MAX_PBKDF2_ROUNDS) + 1, 1 << 32 | 1, u64::MAX] {
            let mut crafted = vector("pbkdf2_c1024");
            crafted["crypto"]["kdfparams"]["c"] = c.into();
            assert!(matches!(open_value(&crafted, "").err(), Some(V3Error::Excessive(_))), "{c}");
        }
    }

    #[test]
    fn refuses_unknown_parameters_and_names_them() {
        for (pointer, value, said) in [
            ("/version", json!(1), "version is 1"),
            ("/version", json!("1"), "version is 1"),
            ("/version", json!(4), "EIP-2335"),
            ("/version", json!("03x"), "version is not a whole number"),
            ("/version", json!(null), "version is missing"),
            ("/encseed", json!("00"), "presale"),
            ("/KeyHeader", json!({}), "version is 1"),
            ("/crypto", json!([]), "crypto is not an object"),
            ("/crypto/KeyHeader", json!({ "Version": "1" }), "version is 1"),
            ("/crypto/cipher", json!("aes-128-cbc"), "cipher is aes-128-cbc"),
            ("/crypto/cipher", json!("aes-256-gcm"), "cipher is unknown; only aes-128-ctr"),
            ("/crypto/kdf", json!("argon2"), "kdf is neither"),
            ("/crypto/kdfparams/dklen", json!(16), "dklen is 16"),
            ("/crypto/kdfparams/dklen", json!(-1), "dklen is not a whole number"),
            ("/crypto/kdfparams/n", json!(1024.5), "n is not a whole number"),
            ("/crypto/kdfparams/n", json!("1e400"), "n is not a whole number"),
            ("/crypto/kdfparams/n", json!(null), "crypto.kdfparams.n is missing"),
            ("/crypto/kdfparams/p", json!([1]), "p is not a whole number"),
            ("/crypto/kdfparams/salt", json!("zz"), "salt is not an even number of hexadecimal digits"),
            ("/crypto/kdfparams/salt", json!(null), "salt is missing"),
            ("/crypto/cipherparams/iv", json!("00".repeat(17)), "iv has 17 bytes; at most 16"),
            ("/crypto/cipherparams/iv", json!(""), "iv is empty"),
            ("/crypto/ciphertext", json!("00".repeat(33)), "ciphertext has 33 bytes; at most 32"),
            ("/crypto/ciphertext", json!("0x"), "ciphertext is empty"),
            ("/crypto/ciphertext", json!("0x0"), "ciphertext is not an even number"),
            ("/crypto/mac", json!(""), "mac is not 32 bytes"),
            ("/address", json!("0x12"), "address is not 20 bytes"),
            ("/address", json!(12), "address is not a string"),
        ] {
            let mut changed = vector("scrypt_n1024");
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap()[name] = value;
            let error = open_value(&changed, "correct horse").err();
            assert!(
                matches!(error, Some(V3Error::Shape(_) | V3Error::Unsupported(_))),
                "{pointer}: {error:?}"
            );
            let error = error.unwrap().to_string();
            assert!(error.contains(said), "{pointer}: {error}");
        }
        let mut prf = vector("pbkdf2_c1024");
        prf["crypto"]["kdfparams"]["prf"] = "hmac-sha512".into();
        assert_eq!(
            open_value(&prf, "correct horse").err(),
            Some(V3Error::Unsupported("prf is not hmac-sha256".to_owned()))
        );
        let error = open(format!("{:?}", "a0".repeat(32)).as_bytes(), b"").err().unwrap();
        assert!(!error.to_string().contains("a0a0"), "{error}");
        for text in [&b""[..], b"{}", b"[]", b"null", b"{\"version\":3}", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf"]
        {
            assert!(matches!(open(text, b"").err(), Some(V3Error::Shape(_))), "{text:?}");
        }
    }
}
