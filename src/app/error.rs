//! Errors of starting and running the proxy.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::clients::ClientTokenError;
use crate::admin::RunRefused;
use crate::chain;
use crate::config::ConfigError;
use crate::payments::journal::JournalError;
use crate::private::PrivateFileError;
use crate::protocol::Address;
use crate::tls::{AuthorityError, LeafError};

/// What to do, unless the error itself says so.
fn state_remedy(error: &PrivateFileError) -> &'static str {
    match error {
        PrivateFileError::Io { .. } => {
            "; set state_dir to a directory that this user can create and write, such as \"~/.local/state/tollpass\""
        }
        _ => "",
    }
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}; choose another one with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The address of a route cannot be bound.
    #[error(
        "cannot listen on {address} for the route to {origin}: {source}; choose another address in [[route]]"
    )]
    RouteListen {
        /// The address.
        address: SocketAddr,
        /// The scheme and host of the route's origin.
        origin: String,
        /// The reason.
        source: io::Error,
    },
    /// The address for metrics cannot be bound.
    #[error("cannot listen on {address} for metrics: {source}; choose another address with metrics_listen")]
    MetricsListen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The system refuses threads.
    #[error("cannot start the worker threads: {0}; set workers to fewer")]
    Workers(io::Error),
    /// A worker thread has ended by itself.
    #[error("a worker thread has failed; the log says why")]
    WorkerEnded,
    /// The state directory cannot be created or used.
    #[error("cannot use the state directory {}: {source}; set state_dir to another one", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The state directory, or a file in it, is accessible to other users.
    #[error("cannot use the state directory: {0}{remedy}", remedy = state_remedy(.0))]
    StateFile(#[from] PrivateFileError),
    /// Another process uses the state directory.
    #[error("another tollpass uses the state directory {}; stop it, or choose another state_dir", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Another process of the user pays with the same key.
    #[error(
        "another tollpass pays with the key of {payer}, with the state directory {}; stop it, or give each a key of its own \
         (it holds {})", other.display(), path.display()
    )]
    KeyInUse {
        /// The address of the key.
        payer: Address,
        /// The state directory of the other process.
        other: PathBuf,
        /// The lock file.
        path: PathBuf,
    },
    /// The log file cannot be opened, or is not private.
    #[error("cannot log to log.file: {0}")]
    LogFile(PrivateFileError),
    /// The log file cannot be written.
    #[error("cannot write log.file {}: {source}; free some space, or choose another file", path.display())]
    LogWrite {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// Another process logs to the same file.
    #[error("another tollpass logs to {}; choose another log.file", path.display())]
    LogLocked {
        /// The file.
        path: PathBuf,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The chain's settings are invalid.
    #[error(transparent)]
    Chain(#[from] chain::ChainError),
    /// The admin socket cannot be created.
    #[error("cannot listen on the admin socket {}: {source}", path.display())]
    Admin {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// There is no wallet.
    #[error("the configuration has no [wallet]: there is nothing to pay with")]
    NoWallet,
    /// At exit, a seller did not sign that a channel be closed, and the policy treats that as an error.
    #[error("{0}")]
    NotClosed(String),
    /// Startup took too long.
    #[error(
        "not ready within limits.ready_timeout ({0:?}): is the node up? `tollpass check` shows the cause"
    )]
    NotReady(Duration),
    /// The local CA cannot be opened or created.
    #[error("cannot intercept TLS without a CA: {0}; set intercept.hosts = [] to switch interception off")]
    Authority(#[from] AuthorityError),
    /// No certificate can be issued.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The token that protects routes cannot be read or created.
    #[error("cannot use the route token: {0}")]
    RouteToken(PrivateFileError),
    /// The token of a client cannot be used.
    #[error(transparent)]
    Client(#[from] ClientTokenError),
    /// The file with the outbound proxy's credentials cannot be used.
    #[error("cannot use upstream.proxy_auth_file: {0}")]
    ProxyAuth(PrivateFileError),
    /// That file does not contain credentials.
    #[error("cannot use upstream.proxy_auth_file: {} does not hold user:password on one line", path.display())]
    ProxyAuthForm {
        /// The file.
        path: PathBuf,
    },
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The payment service has panicked.
    #[error(
        "stopped because of a bug in tollpass ({0}): payments were no longer possible. What was promised is recorded, and the \
         next start recovers it"
    )]
    Panicked(String),
    /// A run gets no port.
    #[error(transparent)]
    Run(#[from] RunRefused),
    /// The key cannot be loaded.
    #[error("cannot open the wallet: {0}")]
    Key(String),
}
