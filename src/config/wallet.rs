//! Reads `[wallet]`: where the key that pays is. Opens no file.

use std::path::PathBuf;

use serde_json::json;

use super::key::{Shape, Table, keys};
use super::rules::is_set;
use super::section::Section;
use super::values::BasePaths;

/// The keys of `[wallet]`.
pub(super) static WALLET: Table = Table::new(
    "wallet",
    "The key that pays.",
    keys! {
        /// A V3 JSON keystore, as created by `tollpass init`, geth or eth-account.
        "keystore": Shape::Path,
        /// Instead of a keystore: a file that contains the private key, 64 hexadecimal digits with or without 0x (chmod
        /// 600).
        "key_file": Shape::Path,
        /// A file that contains the keystore's password (chmod 600; one trailing newline is ignored).
        "password_file": Shape::Path,
    },
)
.with_rules(|| {
    vec![
        json!({"oneOf": [is_set("keystore"), is_set("key_file")]}),
        json!({"not": {"allOf": [is_set("key_file"), is_set("password_file")]}}),
    ]
});

/// `[wallet]`: where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletConfig {
    /// The file of the key.
    pub source: KeySource,
    /// A file with the keystore's password; if absent, it comes from the environment or the terminal.
    pub password_file: Option<PathBuf>,
}

/// The file of the key; absolute if the path of the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A V3 JSON keystore, protected by a password.
    Keystore(PathBuf),
    /// 64 hexadecimal digits, unencrypted.
    KeyFile(PathBuf),
}

/// Reads `[wallet]`; `None` if it is invalid, which is then reported.
pub(super) fn read(section: &Section<'_>, base: &BasePaths) -> Option<WalletConfig> {
    let path = |key| section.read(key, |value| base.path(value));
    let (keystore, key_file, password_file) = (path("keystore"), path("key_file"), path("password_file"));
    let source = match (section.has("keystore"), section.has("key_file")) {
        (true, false) => keystore.map(KeySource::Keystore),
        (false, true) => {
            if section.has("password_file") {
                section.issue("password_file", "has no effect with key_file", "remove it, or use a keystore");
            }
            key_file.map(KeySource::KeyFile)
        }
        (both, _) => {
            let problem = if both {
                "both keystore and key_file are set"
            } else {
                "neither keystore nor key_file is set"
            };
            section.issue("", problem, "write either keystore = \"FILE\" or key_file = \"FILE\"");
            None
        }
    };
    source.map(|source| WalletConfig { source, password_file })
}
