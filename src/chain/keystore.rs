//! Loads and creates the signing key: a V3 JSON keystore with a password, or an unencrypted key file. `form` and `v3`
//! implement the format, [`crate::private`] checks file permissions. Logs nothing.

mod error;
mod form;
mod v3;

use std::{
    env,
    ffi::OsString,
    fmt,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use ethers_core::{
    rand::{RngCore as _, rngs::OsRng},
    utils::hex,
};
use zeroize::Zeroizing;

pub use self::error::V3Error;
use super::signer::Signer;
use crate::private;
use crate::private::PrivateFileError;
use crate::protocol::Address;

/// The environment variable with the password, read if no file is given.
pub const PASSWORD_VARIABLE: &str = "TOLLPASS_WALLET_PASSWORD";
/// The environment variable that names a file with the password, read before the other one.
const PASSWORD_FILE_VARIABLE: &str = "TOLLPASS_WALLET_PASSWORD_FILE";

/// Why no signing key could be loaded. Contains neither key nor password.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// The file cannot be read, or its permissions are unsafe.
    #[error("{error}{remedy}", error = .0, remedy = remedy(.0))]
    File(#[from] PrivateFileError),
    /// The password does not open the keystore.
    #[error("{path}: {error} (the password is {from})", error = V3Error::WrongPassword, path = path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Where the password is from.
        from: PasswordSource,
    },
    /// The keystore cannot be decrypted.
    #[error("{path}: {error}", path = path.display())]
    Keystore {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: V3Error,
    },
    /// The key file does not contain a key.
    #[error("{path} does not hold a private key: {found}", path = path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What it holds instead, and what to do.
        found: String,
    },
    /// It is a key file.
    #[error("{path} is not a keystore: it holds a bare private key; write key_file instead of keystore", path = .0.display())]
    BareKey(PathBuf),
    /// The keystore's content is not a valid key.
    #[error("{path} opens, but its content is not a valid private key: it is zero, or not below the order of the curve", path = .0.display())]
    NoKeyWithin(PathBuf),
    /// The key does not match the address in the file.
    #[error("{path} names the address {named}, but its key belongs to {found}: the file was altered", path = path.display())]
    OtherAddress {
        /// The file.
        path: PathBuf,
        /// The address in the file.
        named: Address,
        /// The address of its key.
        found: Address,
    },
}

/// What to do about a file that cannot be read, if the error does not say it.
fn remedy(error: &PrivateFileError) -> &'static str {
    match error {
        PrivateFileError::Io { error, .. } if error.kind() == std::io::ErrorKind::NotFound => {
            "; correct the name in [wallet], or create a key with `tollpass init`"
        }
        _ => "",
    }
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be read, or its permissions are unsafe.
    #[error("the password file: {0}")]
    File(#[from] PrivateFileError),
    /// There is no terminal for the prompt.
    #[error(
        "no terminal to ask for the keystore's password; name a password file, or set {PASSWORD_VARIABLE}"
    )]
    NoTerminal,
    /// The two passwords differ.
    #[error("the two passwords differ; nothing was written")]
    Differ,
    /// A new keystore must have a password.
    #[error("the password is empty; a new keystore needs one")]
    Empty,
}

/// Where a password is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// A file.
    File(PathBuf),
    /// [`PASSWORD_VARIABLE`].
    Variable,
    /// The prompt.
    Terminal,
}

impl fmt::Display for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "that in {}", path.display()),
            Self::Variable => write!(f, "that in {PASSWORD_VARIABLE}"),
            Self::Terminal => f.write_str("the one that was typed"),
        }
    }
}

/// A keystore's password; zeroized when dropped, hidden in `Debug`.
pub struct Password {
    secret: Zeroizing<Vec<u8>>,
    from: PasswordSource,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Password {
    /// Reads the password from `file`, else from the file that [`PASSWORD_FILE_VARIABLE`] names, else from
    /// [`PASSWORD_VARIABLE`], else from the terminal, without echo. Blocks.
    pub fn obtain(file: Option<&Path>) -> Result<Self, PasswordError> {
        Self::provided(file)?.map_or_else(|| ask("Password of the keystore: "), Ok)
    }

    /// Like [`Self::obtain`], for a new keystore: prompts twice and rejects an empty password.
    pub fn obtain_new(file: Option<&Path>) -> Result<Self, PasswordError> {
        let password = match Self::provided(file)? {
            Some(password) => password,
            None => {
                let first = ask("Password for the new keystore: ")?;
                if !first.secret.is_empty() && ask("Repeat password: ")?.secret != first.secret {
                    return Err(PasswordError::Differ);
                }
                first
            }
        };
        if password.secret.is_empty() { Err(PasswordError::Empty) } else { Ok(password) }
    }

    /// The password from a file or a variable.
    fn provided(file: Option<&Path>) -> Result<Option<Self>, PasswordError> {
        let named = env::var_os(PASSWORD_FILE_VARIABLE).filter(|path| !path.is_empty());
        let file = file.or(named.as_deref().map(Path::new));
        Self::without_asking(file, env::var_os(PASSWORD_VARIABLE))
    }

    /// Reads the file, else the variable. A leading byte order mark and one trailing line ending in the file are
    /// ignored.
    fn without_asking(
        file: Option<&Path>,
        variable: Option<OsString>,
    ) -> Result<Option<Self>, PasswordError> {
        let Some(file) = file else {
            let from = PasswordSource::Variable;
            return Ok(variable.map(|text| Self { secret: Zeroizing::new(text.into_vec()), from }));
        };
        let mut bytes = private::read(file)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let mark = bytes.len() - private::without_mark(&bytes).len();
        bytes.drain(..mark);
        Ok(Some(Self { secret: bytes, from: PasswordSource::File(file.to_owned()) }))
    }
}

/// Checks that a file is a V3 keystore, before someone types its password in vain. Blocks on the disk.
pub fn check(path: &Path) -> Result<(), KeystoreError> {
    let json = private::read(path)?;
    match form::read(&json) {
        Ok(_) => Ok(()),
        Err(_) if key_from_hex(&json).is_some() => Err(KeystoreError::BareKey(path.to_owned())),
        Err(error) => Err(KeystoreError::Keystore { path: path.to_owned(), error }),
    }
}

/// Opens a V3 keystore. At full strength this blocks for about a second and needs 256 MiB: do not call it on an async
/// thread.
pub fn open(path: &Path, password: &Password) -> Result<Signer, KeystoreError> {
    let json = private::read(path)?;
    let opened = v3::open(&json, &password.secret).map_err(|error| match error {
        V3Error::WrongPassword => {
            KeystoreError::Password { path: path.to_owned(), from: password.from.clone() }
        }
        error => KeystoreError::Keystore { path: path.to_owned(), error },
    })?;
    let signer = Signer::new(&opened.key).map_err(|_| KeystoreError::NoKeyWithin(path.to_owned()))?;
    match opened.address {
        Some(named) if named != signer.address() => {
            Err(KeystoreError::OtherAddress { path: path.to_owned(), named, found: signer.address() })
        }
        _ => Ok(signer),
    }
}

/// Opens a key file: 64 hexadecimal digits with or without `0x`, whitespace around them, and perhaps a byte order mark.
/// Blocks on the disk.
pub fn open_key_file(path: &Path) -> Result<Signer, KeystoreError> {
    let text = private::read(path)?;
    let not_a_key = |found: String| KeystoreError::NotAKey { path: path.to_owned(), found };
    let key = key_from_hex(&text).ok_or_else(|| not_a_key(found_in(&text)))?;
    Signer::new(&key).map_err(|_| not_a_key("it is zero, or not below the order of the curve".to_owned()))
}

/// What a file holds instead of a key, and what to do about it. Shows nothing of the file.
fn found_in(text: &[u8]) -> String {
    const EXPECTED: &str = "expected 64 hexadecimal digits";
    let text = String::from_utf8_lossy(private::without_mark(text));
    let text = text.trim();
    let digits = form::unprefixed(text);
    let words = text.split_ascii_whitespace().count();
    let is_of = |accepts: fn(&u8) -> bool| text.bytes().all(|byte| accepts(&byte));
    if text.is_empty() {
        format!("it is empty; {EXPECTED}")
    } else if text.starts_with('{') {
        "it holds a keystore; write keystore instead of key_file".to_owned()
    } else if text.starts_with(['"', '\'']) {
        format!("it begins with a quotation mark; {EXPECTED} and nothing else")
    } else if words >= 12 && is_of(|byte| byte.is_ascii_alphabetic() || byte.is_ascii_whitespace()) {
        format!("it holds {words} words; export the private key of the account from your wallet program")
    } else if text.contains('=') {
        "it holds NAME=VALUE; leave only the value".to_owned()
    } else if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && digits.len() != 64 {
        format!("it holds {} hexadecimal digits; {EXPECTED}", digits.len())
    } else {
        format!("{EXPECTED} and nothing else")
    }
}

/// Generates a key and writes it to a new keystore that only this user can read. Blocks like [`open`].
pub fn create(path: &Path, password: &Password) -> Result<Address, KeystoreError> {
    let (key, address) = random_key();
    let json = v3::write(&key, address, &password.secret)
        .map_err(|error| KeystoreError::Keystore { path: path.to_owned(), error })?;
    private::create(path, format!("{json}\n").as_bytes())?;
    Ok(address)
}

fn random_key() -> (Zeroizing<[u8; 32]>, Address) {
    let mut key = Zeroizing::new([0; 32]);
    loop {
        OsRng.fill_bytes(key.as_mut());
        // All but about one in 2^128 numbers are valid keys.
        if let Ok(signer) = Signer::new(&key) {
            return (key, signer.address());
        }
    }
}

fn key_from_hex(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let text = std::str::from_utf8(private::without_mark(text)).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(form::unprefixed(text.trim()), key.as_mut()).ok()?;
    Some(key)
}

/// Prompts on the terminal, even if standard input is redirected.
fn ask(prompt: &str) -> Result<Password, PasswordError> {
    let text = rpassword::prompt_password(prompt).map_err(|_| PasswordError::NoTerminal)?;
    Ok(Password { secret: Zeroizing::new(text.into_bytes()), from: PasswordSource::Terminal })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use crate::chain::keystore::*;

    const VECTORS: &str = include_str!("../../tests/suite/vectors/microraiden.json");

    fn password(text: &str) -> Password {
        Password { secret: Zeroizing::new(text.into()), from: PasswordSource::Variable }
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        private::create(&path, text.as_bytes()).unwrap();
        (directory, path)
    }

    #[test]
    fn a_created_keystore_opens_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keystore.json");
        let address = create(&path, &password("a long one")).unwrap();
        assert_eq!(open(&path, &password("a long one")).unwrap().address(), address);
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["crypto"]["kdfparams"]["n"], 262_144);
        assert_eq!(json["id"].as_str().unwrap().len(), 36);
        let again = create(&path, &password("other"));
        assert!(matches!(again, Err(KeystoreError::File(PrivateFileError::Exists(_)))));
    }

    #[test]
    fn the_address_beside_the_key_must_be_its_own() {
        let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
        let mut keystore = vectors["keystores"]["scrypt_n1024"].clone();
        let (_directory, path) = written(&keystore.to_string());
        let signer = open(&path, &password("correct horse")).unwrap();
        assert_eq!(signer.address().to_string(), vectors["keystores"]["address"].as_str().unwrap());

        keystore["address"] = "00".repeat(20).into();
        let (_directory, path) = written(&keystore.to_string());
        let error = open(&path, &password("correct horse")).unwrap_err();
        assert!(matches!(error, KeystoreError::OtherAddress { .. }), "{error}");

        keystore.as_object_mut().unwrap().remove("address");
        let (_directory, path) = written(&keystore.to_string());
        assert!(open(&path, &password("correct horse")).is_ok());
    }

    /// See the file itself for where they come from.
    const OTHERS: &str = include_str!("../../tests/suite/vectors/keystores.json");

    #[test]
    fn keystores_of_other_programs_open_in_every_form_they_were_written_in() {
        let others: serde_json::Value = serde_json::from_str(OTHERS).unwrap();
        let others = others["keystores"].as_array().unwrap();
        assert!(others.len() > 40);
        for keystore in others {
            let text = |field: &str| keystore[field].as_str().unwrap();
            let (_directory, path) = written(text("text"));
            let opened = open(&path, &password(text("password")));
            let signer = opened.unwrap_or_else(|error| panic!("{}: {error}", text("name")));
            assert_eq!(signer.address().to_string(), text("address"), "{}", text("name"));
            if text("name").starts_with("a ciphertext that lost") {
                let error = open(&path, &password("another")).unwrap_err().to_string();
                assert!(error.contains("the password is wrong"), "{}: {error}", text("name"));
            }
        }
    }

    #[test]
    fn a_keystore_that_opens_must_hold_a_key_of_the_curve() {
        for key in [[0; 32], [0xff; 32]] {
            let (_directory, path) = written(&v3::write(&key, Address::default(), b"pw").unwrap());
            let error = open(&path, &password("pw")).unwrap_err();
            assert!(matches!(error, KeystoreError::NoKeyWithin(_)), "{error}");
        }
    }

    #[test]
    fn key_files_hold_sixty_four_digits() {
        let key = "a0".repeat(32);
        for (text, is_key) in [
            (key.clone(), true),
            (format!("0x{key}\n"), true),
            (format!(" \t{}\r\n", key.to_uppercase()), true),
            (format!("\u{feff}{key}\r\n"), true),
            (format!("\u{feff} 0X{}\n\n", key.to_uppercase()), true),
            (format!("{key}\u{feff}"), false),
            (format!("{key}00"), false),
            (key[2..].to_owned(), false),
            (format!("{} {}", &key[..32], &key[32..]), false),
            (String::new(), false),
            ("00".repeat(32), false),
            ("ff".repeat(32), false),
        ] {
            let (_directory, path) = written(&text);
            match open_key_file(&path) {
                Ok(signer) => {
                    assert!(is_key, "{text:?}");
                    assert_eq!(signer.address().to_string(), "0x8Bf640A099fE945DA46F354d3B49c48a125F48B6");
                }
                Err(error) => {
                    assert!(!is_key && matches!(error, KeystoreError::NotAKey { .. }), "{text:?}: {error}");
                    assert!(text.len() < 10 || !error.to_string().contains(text.trim()), "shows the key");
                }
            }
        }
    }

    #[test]
    fn what_is_no_key_is_named_and_not_shown() {
        let words = "legal winner thank year wave sausage worth useful legal winner thank yellow";
        let key = "a0".repeat(32);
        for (text, expected) in [
            ("\n".to_owned(), "it is empty"),
            (OTHERS.to_owned(), "write keystore instead of key_file"),
            (format!("\"{key}\""), "quotation mark"),
            (words.to_owned(), "12 words; export the private key"),
            (format!("PRIVATE_KEY={key}"), "NAME=VALUE"),
            (format!("0x{}", &key[..62]), "62 hexadecimal digits"),
            ("ff".repeat(32), "not below the order"),
            ("secret sauce".to_owned(), "expected 64 hexadecimal digits"),
        ] {
            let (_directory, path) = written(&text);
            let error = open_key_file(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(&key[..62]) && !error.contains("sausage"), "shows the content: {error}");
        }
        let (_directory, path) = written(&key);
        let error = check(&path).unwrap_err().to_string();
        assert!(error.contains("write key_file") && !error.contains(&key), "{error}");
        let missing = open_key_file(&path.with_file_name("missing")).unwrap_err().to_string();
        assert!(missing.contains("`tollpass init`"), "{missing}");
    }

    #[test]
    fn a_password_file_wins_and_loses_one_line_end_and_its_mark() {
        for (text, expected) in [
            ("pw", "pw"),
            ("pw\n", "pw"),
            ("pw\r\n", "pw"),
            ("pw\n\n", "pw\n"),
            (" pw ", " pw "),
            ("\u{feff}pw\r\n", "pw"),
            ("\u{feff}\n", ""),
            ("p\u{feff}w", "p\u{feff}w"),
        ] {
            let (_directory, path) = written(text);
            let found = Password::without_asking(Some(&path), Some("variable".into())).unwrap().unwrap();
            assert_eq!(found.secret.as_slice(), expected.as_bytes(), "{text:?}");
            assert_eq!(found.from, PasswordSource::File(path));
            assert_eq!(format!("{found:?}"), "Password(..)");
        }
        let found = Password::without_asking(None, Some("variable\n".into())).unwrap().unwrap();
        assert_eq!(found.secret.as_slice(), b"variable\n");
        assert!(Password::without_asking(None, None).unwrap().is_none());
    }

    #[test]
    fn an_open_file_is_neither_key_nor_password() {
        let (_directory, path) = written("secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open_key_file(&path), Err(KeystoreError::File(PrivateFileError::Open { .. }))));
        assert!(matches!(
            open(&path, &password("")),
            Err(KeystoreError::File(PrivateFileError::Open { .. }))
        ));
        let error = Password::obtain(Some(&path)).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        let (_directory, empty) = written("\n");
        assert!(matches!(Password::obtain_new(Some(&empty)), Err(PasswordError::Empty)));
    }
}
