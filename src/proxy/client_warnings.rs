//! Warnings about the set-up of clients, which only their users can correct: once per client and subject in a while,
//! because each client could fill the log.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::mutex::lock;

/// How long a warning is not repeated.
const PAUSE: Duration = Duration::from_secs(600);
/// The most warnings within that time.
const MOST: usize = 64;

/// What was warned of lately.
#[derive(Debug, Default)]
pub(crate) struct ClientWarnings(Mutex<HashMap<(IpAddr, String), Instant>>);

impl ClientWarnings {
    /// Whether a client should be warned of: not about the same subject again, nor with many others.
    pub(crate) fn is_due(&self, client: SocketAddr, subject: &str) -> bool {
        let now = Instant::now();
        let mut told = lock(&self.0);
        told.retain(|_, at| now.duration_since(*at) < PAUSE);
        let key = (client.ip().to_canonical(), subject.to_owned());
        if told.len() >= MOST || told.contains_key(&key) {
            return false;
        }
        told.insert(key, now);
        true
    }
}

/// Logs a warning about a client at WARN if due, otherwise at DEBUG.
macro_rules! warn_of_client {
    ($warnings:expr, $client:expr, $subject:expr, $($message:tt)+) => {
        if $warnings.is_due($client, $subject) {
            tracing::warn!($($message)+);
        } else {
            tracing::debug!($($message)+);
        }
    };
}
pub(super) use warn_of_client;

#[cfg(test)]
mod tests {
    use crate::proxy::client_warnings::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_warned_of_once_in_a_while() {
        let warnings = ClientWarnings::default();
        let client = |last: u8, port: u16| SocketAddr::from(([127, 0, 0, last], port));
        assert!(warnings.is_due(client(1, 1), "a"));
        assert!(!warnings.is_due(client(1, 2), "a"), "another connection of the same client");
        assert!(warnings.is_due(client(1, 2), "b") && warnings.is_due(client(2, 1), "a"));
        tokio::time::advance(PAUSE).await;
        assert!(warnings.is_due(client(1, 3), "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn many_clients_do_not_fill_the_log() {
        let warnings = ClientWarnings::default();
        let due = |of: u8| warnings.is_due(SocketAddr::from(([10, 0, 0, of], 1)), "a");
        assert_eq!((0..=255).filter(|of| due(*of)).count(), MOST);
        tokio::time::advance(PAUSE).await;
        assert!(due(0));
    }
}
