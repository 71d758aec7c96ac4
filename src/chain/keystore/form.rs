//! Parses V3 keystores. Wallets have written the format in many variants; every unambiguous one is accepted, because
//! the MAC verifies the rest.

use std::borrow::Cow;

use ethers_core::utils::hex;
use serde_json::{Map, Value};

use super::error::V3Error;
use crate::private;
use crate::protocol::Address;

/// How many bytes of the derived key are used.
pub(super) const DERIVED: usize = 32;

/// A parsed keystore.
#[derive(Debug)]
pub(super) struct Form {
    /// The address in the file; unverified.
    pub(super) address: Option<Address>,
    /// The initialisation vector, left-padded with zeros.
    pub(super) iv: [u8; 16],
    /// The encrypted key as the MAC covers it: 1 to 32 bytes.
    pub(super) ciphertext: Vec<u8>,
    /// The MAC of the ciphertext.
    pub(super) mac: [u8; 32],
    /// The key derivation function.
    pub(super) kdf: Kdf,
    /// The salt for it.
    pub(super) salt: Vec<u8>,
}

/// A key derivation function with the parameters of the file, not yet checked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kdf {
    /// Scrypt (RFC 7914).
    Scrypt {
        /// The cost: number of blocks in memory.
        n: u64,
        /// The block size.
        r: u64,
        /// The parallelisation.
        p: u64,
    },
    /// PBKDF2 with HMAC-SHA-256 (RFC 8018).
    Pbkdf2 {
        /// The iterations.
        c: u64,
    },
}

/// Reads a keystore.
pub(super) fn read(json: &[u8]) -> Result<Form, V3Error> {
    if json.starts_with(&[0xff, 0xfe]) || json.starts_with(&[0xfe, 0xff]) {
        return Err(V3Error::Shape("the file is in UTF-16; save it as UTF-8".to_owned()));
    }
    let file: Map<String, Value> =
        serde_json::from_slice(private::without_mark(json)).map_err(|error| json_error(&error))?;
    let file = Object { path: String::new(), fields: Cow::Owned(file) };
    check_version(&file)?;
    let crypto = file.object("crypto")?;
    let cipher = crypto.word("cipher")?;
    if cipher != "aes128ctr" {
        let name = if cipher == "aes128cbc" { "aes-128-cbc" } else { "unknown" };
        return Err(V3Error::Unsupported(format!("cipher is {name}; only aes-128-ctr is supported")));
    }
    let (kdf, salt) = derivation(&crypto)?;
    Ok(Form {
        address: address(&file)?,
        iv: crypto.object("cipherparams")?.padded("iv")?,
        ciphertext: crypto.up_to("ciphertext", 32)?,
        mac: crypto.exactly("mac")?,
        kdf,
        salt,
    })
}

/// Left-pads with the zeros that some wallets omit. `bytes` has at most `N` bytes.
pub(super) fn filled_up<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    for (to, from) in whole.iter_mut().rev().zip(bytes.iter().rev()) {
        *to = *from;
    }
    whole
}

fn check_version(file: &Object<'_>) -> Result<(), V3Error> {
    let unsupported = |what: String| Err(V3Error::Unsupported(what));
    if file.field("encseed").is_some() {
        return unsupported(
            "format is that of an Ethereum presale wallet; `geth wallet import FILE` converts it to a V3 keystore"
                .to_owned(),
        );
    }
    let has_header = |object: &Object<'_>| object.field("keyheader").is_some();
    let is_older = has_header(file) || file.object("crypto").is_ok_and(|crypto| has_header(&crypto));
    match if is_older { 1 } else { file.number("version")? } {
        3 => Ok(()),
        1 => unsupported(
            "version is 1, from 2015; only 3 is supported: `geth account update ADDRESS` converts it"
                .to_owned(),
        ),
        4 => unsupported(
            "version is 4, which holds a validator key (EIP-2335); only 3 is supported".to_owned(),
        ),
        other => unsupported(format!("version is {other}; only 3 is supported")),
    }
}

fn derivation(crypto: &Object<'_>) -> Result<(Kdf, Vec<u8>), V3Error> {
    let params = crypto.object("kdfparams")?;
    let kdf = match crypto.word("kdf")?.as_str() {
        "scrypt" => Kdf::Scrypt { n: params.number("n")?, r: params.number("r")?, p: params.number("p")? },
        "pbkdf2" => {
            let is_known = params.field("prf").is_none() || params.word("prf")? == "hmacsha256";
            if !is_known {
                return Err(V3Error::Unsupported("prf is not hmac-sha256".to_owned()));
            }
            Kdf::Pbkdf2 { c: params.number("c")? }
        }
        _ => return Err(V3Error::Unsupported("kdf is neither scrypt nor pbkdf2".to_owned())),
    };
    if params.field("dklen").is_some() {
        let dklen = params.number("dklen")?;
        // Only the first bytes of a longer key are used, and they do not depend on its length.
        if dklen < DERIVED as u64 {
            return Err(V3Error::Unsupported(format!("dklen is {dklen}; at least {DERIVED} is needed")));
        }
    }
    Ok((kdf, params.hex("salt")?))
}

/// The address, unless it is absent or empty.
fn address(file: &Object<'_>) -> Result<Option<Address>, V3Error> {
    if file.field("address").is_none() || file.digits("address")?.is_empty() {
        return Ok(None);
    }
    file.exactly("address").map(|bytes| Some(Address(bytes)))
}

/// Reports the position of a JSON error without quoting the file, which may contain some other secret.
fn json_error(error: &serde_json::Error) -> V3Error {
    let what = if error.is_data() { "it is not a JSON object" } else { "it is not JSON" };
    V3Error::Shape(format!("{what} (line {}, column {})", error.line(), error.column()))
}

/// A JSON object in the file. No error quotes a value.
struct Object<'a> {
    path: String,
    fields: Cow<'a, Map<String, Value>>,
}

impl Object<'_> {
    /// A member by name, ignoring ASCII case; `null` counts as absent.
    fn field(&self, name: &str) -> Option<&Value> {
        let other_case = || Some(self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1);
        self.fields.get(name).or_else(other_case).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&Value, V3Error> {
        self.field(name).ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn object(&self, name: &str) -> Result<Object<'_>, V3Error> {
        match self.required(name)? {
            Value::Object(fields) => {
                Ok(Object { path: format!("{}{name}.", self.path), fields: Cow::Borrowed(fields) })
            }
            _ => Err(self.wrong(name, "is not an object")),
        }
    }

    fn text(&self, name: &str) -> Result<&str, V3Error> {
        self.required(name)?.as_str().map(str::trim).ok_or_else(|| self.wrong(name, "is not a string"))
    }

    /// The name of an algorithm, in lower case and without separators.
    fn word(&self, name: &str) -> Result<String, V3Error> {
        Ok(self.text(name)?.to_ascii_lowercase().replace(['-', '_'], ""))
    }

    /// A whole number, also as a float or a string.
    fn number(&self, name: &str) -> Result<u64, V3Error> {
        let value = self.required(name)?;
        let number = match value {
            Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
            Value::String(text) => {
                let text = text.trim();
                text.parse().ok().or_else(|| whole(text.parse().ok()?))
            }
            _ => None,
        };
        number.ok_or_else(|| self.wrong(name, "is not a whole number"))
    }

    /// Hexadecimal digits, without a `0x` prefix.
    fn digits(&self, name: &str) -> Result<&str, V3Error> {
        self.text(name).map(unprefixed)
    }

    fn hex(&self, name: &str) -> Result<Vec<u8>, V3Error> {
        hex::decode(self.digits(name)?)
            .map_err(|_| self.wrong(name, "is not an even number of hexadecimal digits"))
    }

    fn exactly<const N: usize>(&self, name: &str) -> Result<[u8; N], V3Error> {
        self.hex(name)?.try_into().map_err(|_| self.wrong(name, &format!("is not {N} bytes in hexadecimal")))
    }

    /// Between 1 and `most` bytes.
    fn up_to(&self, name: &str, most: usize) -> Result<Vec<u8>, V3Error> {
        match self.hex(name)? {
            bytes if bytes.is_empty() => Err(self.wrong(name, "is empty")),
            bytes if bytes.len() > most => {
                Err(self.wrong(name, &format!("has {} bytes; at most {most} are possible", bytes.len())))
            }
            bytes => Ok(bytes),
        }
    }

    fn padded<const N: usize>(&self, name: &str) -> Result<[u8; N], V3Error> {
        self.up_to(name, N).map(|bytes| filled_up(&bytes))
    }

    fn wrong(&self, name: &str, what: &str) -> V3Error {
        V3Error::Shape(format!("{}{name} {what}", self.path))
    }
}

/// Strips a `0x` prefix.
pub(super) fn unprefixed(digits: &str) -> &str {
    digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(digits)
}

/// Converts an integral float below 2^53, up to which floats represent every integer.
fn whole(number: f64) -> Option<u64> {
    const END: f64 = (1_u64 << 53) as f64;
    ((0.0..END).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}
