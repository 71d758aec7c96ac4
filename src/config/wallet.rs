//! Reads `[wallet]`: where the key that pays is. Opens nothing.

use std::path::PathBuf;

use super::section::Section;
use super::values::Places;

/// The keys of `[wallet]`.
pub(super) const KEYS: &[&str] = &["keystore", "key_file", "password_file"];

/// `[wallet]`: where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wallet {
    /// The file of the key.
    pub source: KeySource,
    /// A file with the keystore's password; else the environment or the terminal is asked.
    pub password_file: Option<PathBuf>,
}

/// The file of the key; absolute where the configuration's own path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A V3 JSON keystore, under a password.
    Keystore(PathBuf),
    /// 64 hexadecimal digits, in the clear.
    KeyFile(PathBuf),
}

/// Reads `[wallet]`; `None` when it is wrong, which is then reported.
pub(super) fn read(section: &Section<'_>, places: &Places) -> Option<Wallet> {
    let path = |key| section.read(key, |value| places.path(value));
    let (keystore, key_file, password_file) = (path("keystore"), path("key_file"), path("password_file"));
    let source = match (section.has("keystore"), section.has("key_file")) {
        (true, false) => keystore.map(KeySource::Keystore),
        (false, true) => {
            if section.has("password_file") {
                section.fault("password_file", "means nothing with key_file", "remove it, or use a keystore");
            }
            key_file.map(KeySource::KeyFile)
        }
        (both, _) => {
            let wrong = if both { "keystore and key_file are both there" } else { "no key is named" };
            section.fault("", wrong, "write one of keystore = \"FILE\" and key_file = \"FILE\"");
            None
        }
    };
    source.map(|source| Wallet { source, password_file })
}
