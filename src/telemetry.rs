//! The log on standard error, as text or JSON. `TOLLPASS_LOG` filters it, for example `TOLLPASS_LOG=debug` or
//! `TOLLPASS_LOG=warn,tollpass::chain=trace`.
//!
//! The log is best effort. A separate thread writes the lines, so a slow, stuck or closed reader never delays or ends
//! the task that logs. Lines that do not fit in the queue or cannot be written are dropped and counted.

mod queue;

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, filter::ParseError, util::SubscriberInitExt as _};

pub use self::queue::Log;

/// The environment variable with the log filter.
pub const FILTER_VARIABLE: &str = "TOLLPASS_LOG";

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human-readable.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why the log cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error("{FILTER_VARIABLE} is not a valid filter: {0}; use for example info, or warn,tollpass=debug")]
    Filter(#[from] ParseError),
    /// The filter is not UTF-8.
    #[error("{FILTER_VARIABLE} is not UTF-8; use for example info")]
    NotUtf8,
    /// The thread that writes the log cannot be started.
    #[error("cannot start the thread that writes the log: {0}; this user may have too many processes")]
    Thread(#[from] std::io::Error),
    /// Another logger is installed in this process.
    #[error("the log is already set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log of this process, once. `default_filter` applies if the variable is not set.
pub fn start(format: LogFormat, default_filter: &str) -> Result<Log, TelemetryError> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => filter(&text, default_filter)?,
        Err(std::env::VarError::NotPresent) => filter("", default_filter)?,
        Err(std::env::VarError::NotUnicode(_)) => return Err(TelemetryError::NotUtf8),
    };
    let log = Log::start(std::io::stderr(), |lost| {
        tracing::warn!(lost, "log lines were lost so far: nothing read them, or the disk was full");
    })?;
    let has_colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .with_ansi(has_colour)
        // The subscriber would print its own errors with a macro that panics if standard error is closed.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => lines.finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(log)
}

fn filter(text: &str, default: &str) -> Result<EnvFilter, ParseError> {
    let text = if text.trim().is_empty() { default } else { text };
    EnvFilter::builder().parse(text)
}

#[cfg(test)]
mod tests {
    use crate::telemetry::*;

    #[test]
    fn an_empty_filter_is_the_default_one() {
        for (text, expected) in
            [("", "info"), ("  ", "info"), ("warn", "warn"), ("tollpass=debug", "tollpass=debug")]
        {
            assert_eq!(filter(text, "info").unwrap().to_string(), expected, "{text:?}");
        }
        assert!(filter("tollpass=loud", "info").is_err());
    }
}
