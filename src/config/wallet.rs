//! Reads `[wallet]`: where the key that pays is. Opens no file.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::key::{Shape, Table, keys};
use super::raw_value::InvalidValue;
use super::rules::{both_or_neither, is_set};
use super::section::Section;
use super::values;
use super::values::{BasePaths, RpcUrl};
use crate::limits::{HOUR, MILLISECOND, Quantity, SECOND, count, time};
use crate::private::is_secret;
use crate::protocol::Address;

const SIGNER_TIMEOUT: Quantity = time(30 * SECOND, 10 * MILLISECOND..=HOUR);
const SIGNER_REQUESTS: Quantity = count(8, 1..=1024);

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
        /// Instead of a key: the program that signs, with its arguments, or the http or https URL of an endpoint that does.
        "signer": Shape::Text("^[^\"']*$"),
        /// The account of that signer.
        "address": Shape::Text(r"^\s*$|^0[xX][0-9a-fA-F]{40}$"),
        /// How long the signer may take for one signature.
        "signer_timeout": Shape::Quantity(SIGNER_TIMEOUT),
        /// How many signatures the signer is asked for at once; more requests wait.
        "signer_requests": Shape::Quantity(SIGNER_REQUESTS),
    },
)
.with_rules(|| {
    vec![
        json!({"oneOf": [is_set("keystore"), is_set("key_file"), is_set("signer")]}),
        json!({"not": {"allOf": [{"anyOf": [is_set("key_file"), is_set("signer")]}, is_set("password_file")]}}),
        both_or_neither("signer", "address"),
    ]
});

/// `[wallet]`: where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletConfig {
    /// The file of the key, or what signs in its place.
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
    /// No file: an external signer.
    Signer(SignerConfig),
}

/// An external signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerConfig {
    /// Where it is.
    pub location: SignerLocation,
    /// Its account.
    pub address: Address,
    /// How long it may take for one signature.
    pub timeout: Duration,
    /// How many signatures it is asked for at once.
    pub requests: usize,
}

/// Where an external signer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerLocation {
    /// A program with its arguments.
    Command(Vec<String>),
    /// An endpoint.
    Endpoint(RpcUrl),
}

/// Reads `[wallet]`; `None` if it is invalid, which is then reported.
pub(super) fn read(section: &Section<'_>, base: &BasePaths) -> Option<WalletConfig> {
    let path = |key| section.read(key, |value| base.path(value));
    let (keystore, key_file, password_file) = (path("keystore"), path("key_file"), path("password_file"));
    let location = section.read("signer", |value| location(values::text(value)?, base));
    let address = section.read("address", values::address);
    let timeout = section.time("signer_timeout", SIGNER_TIMEOUT);
    let requests =
        usize::try_from(section.quantity("signer_requests", SIGNER_REQUESTS)).unwrap_or(usize::MAX);
    let is_external = section.has("signer");
    if section.has("address") && !is_external {
        section.issue("address", "has no effect without signer", "remove it, or write signer");
    }
    if section.has("password_file") && !section.has("keystore") && (section.has("key_file") || is_external) {
        section.issue("password_file", "has no effect without a keystore", "remove it, or use a keystore");
    }
    let source = match (section.has("keystore"), section.has("key_file"), is_external) {
        (true, false, false) => keystore.map(KeySource::Keystore),
        (false, true, false) => key_file.map(KeySource::KeyFile),
        (false, false, true) => {
            if !section.has("address") {
                section.issue(
                    "address",
                    "missing, but signer is set",
                    "write address = \"0x...\", its account",
                );
            }
            location.zip(address).map(|(location, address)| {
                KeySource::Signer(SignerConfig { location, address, timeout, requests })
            })
        }
        (false, false, false) => {
            let remedy = "write keystore = \"FILE\", key_file = \"FILE\" or signer = \"COMMAND\"";
            section.issue("", "neither keystore nor key_file nor signer is set", remedy);
            None
        }
        _ => {
            section.issue(
                "",
                "more than one of keystore, key_file and signer are set",
                "write only one of them",
            );
            None
        }
    };
    source.map(|source| WalletConfig { source, password_file })
}

/// Reads `signer`: the URL of an endpoint, or a program with its arguments.
fn location(text: &str, base: &BasePaths) -> Result<SignerLocation, InvalidValue> {
    if text.starts_with("http://") || text.starts_with("https://") {
        // The error does not quote the URL: it may contain a secret.
        let url = text.parse::<RpcUrl>().ok().filter(|_| !text.contains('@'));
        return url.map(SignerLocation::Endpoint).ok_or_else(|| {
            let problem = "not an http:// or https:// URL without a user name";
            InvalidValue::new(problem, "write one such as \"http://127.0.0.1:9000\"")
        });
    }
    if is_secret(text) {
        let problem = "holds the key or secret itself, not a command";
        return Err(InvalidValue::new(
            problem,
            "put the key in a file (chmod 600), and write key_file = \"FILE\"",
        ));
    }
    if text.contains(['"', '\'']) {
        let problem = "no shell reads it, so that quotes have no meaning";
        return Err(InvalidValue::new(problem, "put the command into a script, and write the path of that"));
    }
    let mut command: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
        let path = base.resolve(program)?.into_os_string().into_string();
        *program = path.map_err(|_| InvalidValue::new("its path is not Unicode", "move the program"))?;
    }
    Ok(SignerLocation::Command(command))
}
