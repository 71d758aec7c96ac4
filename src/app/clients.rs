//! The tokens of the clients that may use the proxy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::config;
use crate::config::Config;
use crate::private;
use crate::private::PrivateFileError;
use crate::protocol::policy::KnownClients;

/// What is escaped in the user info of a URL, RFC 3986 section 3.2.1.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The least and the most characters of a token.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=1024;

/// Why the token of a client cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientTokenError {
    /// The file cannot be read, or is not private.
    #[error("cannot use the token_file of the client {name}: {source}")]
    File {
        /// The client.
        name: String,
        /// The reason.
        source: PrivateFileError,
    },
    /// The file does not contain a token.
    #[error(
        "cannot use the token_file of the client {name}: {} does not hold one line of {} to {} visible ASCII characters; \
         create one with: openssl rand -hex 16",
        path.display(), LENGTH.start(), LENGTH.end()
    )]
    NotAToken {
        /// The client.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// Two clients have the same token.
    #[error("the clients {0} and {1} have the same token; give each its own")]
    Twice(String, String),
}

/// Reads the tokens of all clients.
///
/// # Errors
/// A token cannot be read, is too short, or is that of another client, too.
pub fn known_clients(config: &Config) -> Result<KnownClients, ClientTokenError> {
    let mut tokens: Vec<(&config::ClientConfig, Zeroizing<Vec<u8>>)> = Vec::new();
    for client in &config.clients {
        let token = token(&client.client.name, &client.token_file)?;
        if let Some((other, _)) = tokens.iter().find(|(_, other)| *other == token) {
            return Err(ClientTokenError::Twice(other.client.name.clone(), client.client.name.clone()));
        }
        tokens.push((client, token));
    }
    Ok(KnownClients::new(
        tokens
            .iter()
            .map(|(config, token)| (Arc::clone(&config.client), Sha256::digest(token.as_slice()).into())),
    ))
}

/// The name and token of a client, `NAME:TOKEN`, escaped for the URL of the proxy.
///
/// # Errors
/// The token cannot be read or is not valid.
pub fn client_user(client: &config::ClientConfig) -> Result<Zeroizing<String>, ClientTokenError> {
    let name = &client.client.name;
    let token = token(name, &client.token_file)?;
    // It is ASCII.
    let token = std::str::from_utf8(&token).unwrap_or_default();
    let [name, token] = [name.as_str(), token].map(|text| utf8_percent_encode(text, ESCAPED));
    Ok(Zeroizing::new(format!("{name}:{token}")))
}

fn token(name: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, ClientTokenError> {
    let bytes =
        private::read(path).map_err(|source| ClientTokenError::File { name: name.to_owned(), source })?;
    let token = private::without_mark(&bytes).trim_ascii();
    if !LENGTH.contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
        return Err(ClientTokenError::NotAToken { name: name.to_owned(), path: path.to_owned() });
    }
    Ok(Zeroizing::new(token.to_vec()))
}
