//! The V3 JSON keystore (Web3 Secret Storage): a private key under a password. Bytes in, bytes out; no files.

use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use ethers_core::{
    rand::{RngCore as _, rngs::OsRng},
    utils::{hex, keccak256},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::protocol::Address;

/// The most that a file may ask of scrypt, in bytes (128 · n · r). The usual n = 2^18, r = 8 takes half.
const MAX_SCRYPT_MEMORY: u64 = 512 << 20;
/// The most work that a file may ask of scrypt (n · r · p): eight times the usual.
const MAX_SCRYPT_WORK: u64 = 1 << 24;
/// The most rounds that a file may ask of PBKDF2. The usual is 262,144.
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;
/// What a new keystore asks of scrypt: log2 of n, then r and p.
const STRENGTH: (u8, u32, u32) = (18, 8, 1);
const DERIVED: usize = 32;

type Aes128Ctr = ctr::Ctr128BE<aes::Aes128>;

/// Why a keystore does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum V3Error {
    /// It is no JSON, or a field is missing or of another type.
    #[error("not a V3 keystore: {0}")]
    Shape(String),
    /// It asks for something that is not supported.
    #[error("the keystore's {0}")]
    Unsupported(String),
    /// Deriving the key would take too much memory or time.
    #[error("the keystore's key derivation is out of bounds: {0}; it was not made by a common wallet")]
    Excessive(String),
    /// The code that proves the password does not fit.
    #[error("the password is wrong, or the keystore is damaged")]
    WrongPassword,
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
    #[serde(default)]
    id: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    #[serde(flatten)]
    kdf: Kdf,
    mac: String,
}

#[derive(Serialize, Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kdf", content = "kdfparams", rename_all = "lowercase")]
enum Kdf {
    Scrypt { dklen: u64, n: u64, r: u32, p: u32, salt: String },
    Pbkdf2 { dklen: u64, c: u32, prf: String, salt: String },
}

/// The key within, and the address that the file names (unproven; the caller compares).
pub(super) struct Opened {
    /// 32 bytes, big endian.
    pub key: Zeroizing<[u8; 32]>,
    /// The field `address`, if there.
    pub address: Option<Address>,
}

/// Opens a keystore. At full strength this takes about a second of one core and 256 MiB.
pub(super) fn open(json: &[u8], password: &[u8]) -> Result<Opened, V3Error> {
    let file: File = serde_json::from_slice(json).map_err(|error| shape(&error))?;
    if file.version != 3 {
        return Err(V3Error::Unsupported(format!("version is {}; only 3 is supported", file.version)));
    }
    if file.crypto.cipher != "aes-128-ctr" {
        return Err(V3Error::Unsupported("cipher is not aes-128-ctr".to_owned()));
    }
    let address = file.address.as_deref().map(address).transpose()?;
    let iv = bytes::<16>(&file.crypto.cipherparams.iv, "cipherparams.iv")?;
    let ciphertext = bytes::<32>(&file.crypto.ciphertext, "ciphertext")?;
    let expected = bytes::<32>(&file.crypto.mac, "mac")?;

    let derived = derive(&file.crypto.kdf, password)?;
    if !is_same(&mac(&derived, &ciphertext), &expected) {
        return Err(V3Error::WrongPassword);
    }
    let mut key = Zeroizing::new(ciphertext);
    encrypt(&derived, &iv, &mut key);
    Ok(Opened { key, address })
}

/// Writes a keystore at full strength, with a fresh salt and a fresh initial vector.
pub(super) fn write(key: &[u8; 32], address: Address, password: &[u8]) -> Result<String, V3Error> {
    let (log_n, r, p) = STRENGTH;
    let (salt, iv) = (random::<32>(), random::<16>());
    let kdf = Kdf::Scrypt { dklen: DERIVED as u64, n: 1 << log_n, r, p, salt: hex::encode(salt) };
    let derived = derive(&kdf, password)?;
    let mut ciphertext = *key;
    encrypt(&derived, &iv, &mut ciphertext);
    let file = File {
        address: Some(hex::encode(address.0)),
        crypto: Crypto {
            cipher: "aes-128-ctr".to_owned(),
            cipherparams: CipherParams { iv: hex::encode(iv) },
            ciphertext: hex::encode(ciphertext),
            kdf,
            mac: hex::encode(mac(&derived, &ciphertext)),
        },
        id: uuid(),
        version: 3,
    };
    serde_json::to_string_pretty(&file).map_err(|error| V3Error::Shape(error.to_string()))
}

fn derive(kdf: &Kdf, password: &[u8]) -> Result<Zeroizing<[u8; DERIVED]>, V3Error> {
    let mut derived = Zeroizing::new([0; DERIVED]);
    let (Kdf::Scrypt { dklen, salt, .. } | Kdf::Pbkdf2 { dklen, salt, .. }) = kdf;
    if *dklen != DERIVED as u64 {
        return Err(V3Error::Unsupported(format!("dklen is {dklen}; only {DERIVED} is supported")));
    }
    let salt = unhex(salt, "salt")?;
    match kdf {
        Kdf::Scrypt { n, r, p, .. } => {
            scrypt::scrypt(password, &salt, &scrypt_params(*n, *r, *p)?, derived.as_mut())
                .map_err(|error| V3Error::Excessive(error.to_string()))?;
        }
        Kdf::Pbkdf2 { c, prf, .. } => {
            if prf != "hmac-sha256" {
                return Err(V3Error::Unsupported("prf is not hmac-sha256".to_owned()));
            }
            if !(1..=MAX_PBKDF2_ROUNDS).contains(c) {
                return Err(V3Error::Excessive(format!("c = {c}, allowed is 1 to {MAX_PBKDF2_ROUNDS}")));
            }
            pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, &salt, *c, derived.as_mut());
        }
    }
    Ok(derived)
}

/// Checks what a file asks of scrypt before any memory is taken for it.
fn scrypt_params(n: u64, r: u32, p: u32) -> Result<scrypt::Params, V3Error> {
    let excessive = || V3Error::Excessive(format!("scrypt n = {n}, r = {r}, p = {p}"));
    let block = n.checked_mul(u64::from(r)).ok_or_else(excessive)?;
    let memory = block.checked_mul(128).ok_or_else(excessive)?;
    let work = block.checked_mul(u64::from(p)).ok_or_else(excessive)?;
    if !n.is_power_of_two() || n < 2 || work == 0 || memory > MAX_SCRYPT_MEMORY || work > MAX_SCRYPT_WORK {
        return Err(excessive());
    }
    // A power of two below 2^64 has an exponent below 64.
    scrypt::Params::new(n.trailing_zeros() as u8, r, p).map_err(|_| excessive())
}

/// Says where the JSON is wrong without quoting it: the file may be something else that is secret.
fn shape(error: &serde_json::Error) -> V3Error {
    let said = error.to_string();
    if error.is_data() && said.starts_with("missing field") {
        return V3Error::Shape(said);
    }
    let what = if error.is_data() { "a value of another type" } else { "no JSON" };
    V3Error::Shape(format!("{what} at line {} column {}", error.line(), error.column()))
}

/// Counter mode: encrypting and decrypting are the same.
fn encrypt(derived: &[u8; DERIVED], iv: &[u8; 16], data: &mut [u8; 32]) {
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&derived[..16]);
    Aes128Ctr::new((&*key).into(), iv.into()).apply_keystream(data);
}

fn mac(derived: &[u8; DERIVED], ciphertext: &[u8; 32]) -> [u8; 32] {
    let mut input = Zeroizing::new([0; 48]);
    input[..16].copy_from_slice(&derived[16..]);
    input[16..].copy_from_slice(ciphertext);
    keccak256(input.as_slice())
}

/// Compares in a time that does not depend on where the two differ.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn address(text: &str) -> Result<Address, V3Error> {
    bytes::<20>(text, "address").map(Address)
}

fn bytes<const N: usize>(text: &str, field: &str) -> Result<[u8; N], V3Error> {
    unhex(text, field)?
        .try_into()
        .map_err(|_| V3Error::Shape(format!("{field} is not {N} bytes in hexadecimal digits")))
}

/// Reads hexadecimal digits, with or without `0x`.
fn unhex(text: &str, field: &str) -> Result<Vec<u8>, V3Error> {
    hex::decode(text).map_err(|_| V3Error::Shape(format!("{field} is not in hexadecimal digits")))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// A random identifier (UUID version 4), which the format asks for and nothing reads.
fn uuid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const VECTORS: &str = include_str!("../../../tests/suite/vectors/microraiden.json");

    fn vector(name: &str) -> Value {
        serde_json::from_str::<Value>(VECTORS).unwrap()["keystores"][name].clone()
    }

    fn open_value(value: &Value, password: &str) -> Result<Opened, V3Error> {
        open(value.to_string().as_bytes(), password.as_bytes())
    }

    #[test]
    fn opens_what_others_wrote() {
        let key = vector("private_key");
        for name in ["scrypt_n1024", "pbkdf2_c1024"] {
            let opened = open_value(&vector(name), "correct horse").ok().unwrap();
            assert_eq!(*opened.key, bytes::<32>(key.as_str().unwrap(), "").unwrap(), "{name}");
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
        for c in [0, MAX_PBKDF2_ROUNDS + 1, u32::MAX] {
            let mut crafted = vector("pbkdf2_c1024");
            crafted["crypto"]["kdfparams"]["c"] = c.into();
            assert!(matches!(open_value(&crafted, "").err(), Some(V3Error::Excessive(_))), "{c}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (pointer, value) in [
            ("/version", json!(1)),
            ("/crypto/cipher", json!("aes-256-gcm")),
            ("/crypto/kdf", json!("argon2")),
            ("/crypto/kdfparams/dklen", json!(16)),
            ("/crypto/kdfparams/dklen", json!(u64::MAX)),
            ("/crypto/kdfparams/salt", json!("zz")),
            ("/crypto/cipherparams/iv", json!("00")),
            ("/crypto/ciphertext", json!("00".repeat(33))),
            ("/crypto/mac", json!("")),
            ("/address", json!("0x12")),
        ] {
            let mut changed = vector("scrypt_n1024");
            *changed.pointer_mut(pointer).unwrap() = value;
            let error = open_value(&changed, "correct horse").err();
            assert!(
                matches!(error, Some(V3Error::Shape(_) | V3Error::Unsupported(_))),
                "{pointer}: {error:?}"
            );
        }
        let error = open(format!("{:?}", "a0".repeat(32)).as_bytes(), b"").err().unwrap();
        assert!(!error.to_string().contains("a0a0"), "{error}");
        for text in ["", "{}", "[]", "null", "{\"version\":3}"] {
            assert!(matches!(open(text.as_bytes(), b"").err(), Some(V3Error::Shape(_))), "{text}");
        }
    }
}
