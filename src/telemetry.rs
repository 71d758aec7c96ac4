//! The log: lines on standard error, as text or as JSON. `TOLLPASS_LOG` filters it, for instance
//! `TOLLPASS_LOG=debug` or `TOLLPASS_LOG=warn,tollpass::chain=trace`.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, filter::ParseError, util::SubscriberInitExt as _};

/// The variable that filters the log.
pub const FILTER_VARIABLE: &str = "TOLLPASS_LOG";

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object in each line, for programs.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("{FILTER_VARIABLE} is no filter: {0}; write such as info, or warn,tollpass=debug")]
    Filter(#[from] ParseError),
    /// The filter is not UTF-8.
    #[error("{FILTER_VARIABLE} is not UTF-8; write such as info")]
    NotUtf8,
    /// Something else logs in this process already.
    #[error("the log is already set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log of this process; can be done once. `default_filter` counts where the variable is not set.
pub fn start(format: LogFormat, default_filter: &str) -> Result<(), TelemetryError> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => filter(&text, default_filter)?,
        Err(std::env::VarError::NotPresent) => filter("", default_filter)?,
        Err(std::env::VarError::NotUnicode(_)) => return Err(TelemetryError::NotUtf8),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
    );
    match format {
        LogFormat::Text => lines.finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

fn filter(text: &str, default: &str) -> Result<EnvFilter, ParseError> {
    let text = if text.trim().is_empty() { default } else { text };
    EnvFilter::builder().parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
