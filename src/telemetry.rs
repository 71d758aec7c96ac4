//! The log on standard error or in a file, as text or JSON. `TOLLPASS_LOG` filters it, for example `TOLLPASS_LOG=debug` or
//! `TOLLPASS_LOG=warn,tollpass::chain=trace`; without the variable, the configuration does, also while the program runs. A
//! level without a target is for tollpass: libraries log at `info` at most, unless a directive names them, such as
//! `debug,h2=debug`.
//!
//! The log is best effort. A separate thread writes the lines, so a slow, stuck or closed reader never delays or ends
//! the task that logs. Lines that do not fit in the queue or cannot be written are dropped and counted.
//!
//! With the feature `otlp`, spans of requests can also go to a collector.

mod queue;
mod rotation;
mod trace_settings;
#[cfg(feature = "otlp")]
mod traces;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

pub use self::queue::Log;
pub use self::rotation::{LogFile, LogFileLimits};
pub use self::trace_settings::{TraceSettings, TracesError};

/// The environment variable with the log filter.
pub const FILTER_VARIABLE: &str = "TOLLPASS_LOG";
/// The key of the configuration with the log filter.
pub const FILTER_KEY: &str = "log.filter";

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
    #[error("{name} is not a valid filter: {source}; use for example info, or warn,tollpass=debug")]
    Filter {
        /// The variable or key that has it.
        name: &'static str,
        /// What is wrong.
        source: ParseError,
    },
    /// A word of the filter is neither a level nor a target of tollpass.
    #[error(
        "{name} is not a valid filter: {word:?} is not a level; use error, warn, info, debug, trace or off, or TARGET=LEVEL, \
         for example warn,tollpass=debug"
    )]
    NotALevel {
        /// The variable or key that has it.
        name: &'static str,
        /// The word.
        word: String,
    },
    /// The filter is not UTF-8.
    #[error("{FILTER_VARIABLE} is not UTF-8; use for example info")]
    NotUtf8,
    /// The thread that writes the log cannot be started.
    #[error("cannot start the thread that writes the log: {0}; this user may have too many processes")]
    Thread(#[from] std::io::Error),
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// Another logger is installed in this process.
    #[error("the log is already set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Where the log goes.
#[derive(Debug)]
pub struct LogOutput {
    /// A file instead of standard error.
    pub file: Option<LogFile>,
    /// The most bytes that are queued; further lines are dropped.
    pub queue: usize,
    /// The filter if the variable is not set.
    pub filter: Option<String>,
    /// Where traces go, with the feature `otlp`.
    pub traces: Option<TraceSettings>,
}

/// A valid filter.
#[derive(Debug)]
pub struct LogLevels {
    filter: EnvFilter,
    is_overridden: bool,
}

impl LogLevels {
    /// The filter of the environment, else this one of the configuration, else the default.
    ///
    /// # Errors
    /// One of them is invalid.
    pub fn new(configured: Option<&str>, default: &str) -> Result<Self, TelemetryError> {
        let variable = match std::env::var(FILTER_VARIABLE) {
            Ok(text) => Some(text).filter(|text| !text.trim().is_empty()),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => return Err(TelemetryError::NotUtf8),
        };
        let configured = filter(configured.unwrap_or_default(), default, FILTER_KEY)?;
        Ok(match variable {
            Some(text) => Self { filter: filter(&text, default, FILTER_VARIABLE)?, is_overridden: true },
            None => Self { filter: configured, is_overridden: false },
        })
    }

    /// Whether the variable says what to log, whatever the configuration says.
    #[must_use]
    pub fn is_overridden(&self) -> bool {
        self.is_overridden
    }

    /// Filters the log of this process from now on, if it is started.
    pub fn apply(self) {
        if let Some(replace) = REPLACE.get() {
            replace(self.filter);
        }
    }
}

/// Starts the log of this process, once. `default_filter` applies if no other one is set.
pub fn start(format: LogFormat, default_filter: &str, output: LogOutput) -> Result<Log, TelemetryError> {
    let LogLevels { filter, .. } = LogLevels::new(output.filter.as_deref(), default_filter)?;
    if output.traces.is_some() {
        TraceSettings::check()?;
    }
    let report = |lost| {
        tracing::warn!(lost, "log lines were lost so far: nothing read them, or the disk was full");
    };
    let is_terminal = output.file.is_none() && std::io::stderr().is_terminal();
    let has_colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let log = match output.file {
        Some(file) => Log::start(file, output.queue, report)?,
        None => Log::start(std::io::stderr(), output.queue, report)?,
    };
    #[cfg(feature = "otlp")]
    if let Some(settings) = &output.traces {
        use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

        let traces = traces::layer(settings)?;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(log.clone())
            .with_ansi(has_colour)
            .log_internal_errors(false);
        let lines = match format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        // A filter of the lines alone: spans are traced whatever the log shows.
        let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
        tracing_subscriber::registry().with(lines.with_filter(filter)).with(traces).try_init()?;
        replace_by(move |filter| handle.reload(filter).is_ok());
        // A second one cannot be started.
        let _ = LOG.set(log.clone());
        return Ok(log);
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .with_ansi(has_colour)
        // The subscriber would print its own errors with a macro that panics if standard error is closed.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => {
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            lines.finish().try_init()?;
            replace_by(move |filter| handle.reload(filter).is_ok());
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.finish().try_init()?;
            replace_by(move |filter| handle.reload(filter).is_ok());
        }
    }
    // A second one cannot be started.
    let _ = LOG.set(log.clone());
    Ok(log)
}

/// Writes what is left of the log, and sends what is left of traces.
pub fn finish(log: &Log) {
    #[cfg(feature = "otlp")]
    traces::finish();
    log.finish();
}

/// How many lines of the log of this process were lost.
pub fn lost_lines() -> u64 {
    LOG.get().map_or(0, Log::lost)
}

/// The log of this process, once it is started.
static LOG: OnceLock<Log> = OnceLock::new();

/// Replaces the filter of the log of this process, once it is started. It fails only if the log is gone.
static REPLACE: OnceLock<Box<dyn Fn(EnvFilter) -> bool + Send + Sync>> = OnceLock::new();

fn replace_by(replace: impl Fn(EnvFilter) -> bool + Send + Sync + 'static) {
    // A second log cannot be started.
    let _ = REPLACE.set(Box::new(replace));
}

/// The most that libraries log unless a directive names them.
const LIBRARIES: LevelFilter = LevelFilter::INFO;

/// A filter; `name` is the variable or key that has it.
fn filter(text: &str, default: &str, name: &'static str) -> Result<EnvFilter, TelemetryError> {
    let text = if text.trim().is_empty() { default } else { text };
    // A directive overrides earlier ones for the same target, so what the user writes comes last.
    let (mut ours, mut rest) = (Vec::new(), Vec::new());
    for directive in text.split(',').filter(|directive| !directive.trim().is_empty()) {
        match directive.trim().parse::<LevelFilter>() {
            Ok(level) if level > LIBRARIES => {
                ours = vec![LIBRARIES.to_string(), format!("tollpass={level}")];
            }
            Ok(level) => ours = vec![level.to_string()],
            // A word alone would be the target of some library, and silence everything else.
            Err(_) if is_bare(directive.trim()) => {
                return Err(TelemetryError::NotALevel { name, word: directive.trim().to_owned() });
            }
            Err(_) => rest.push(directive.to_owned()),
        }
    }
    ours.extend(rest);
    EnvFilter::builder().parse(ours.join(",")).map_err(|source| TelemetryError::Filter { name, source })
}

/// Whether a directive has neither a level nor the form of a target of tollpass or of a span.
fn is_bare(directive: &str) -> bool {
    !directive.contains(['=', '[']) && directive.split("::").next() != Some("tollpass")
}

#[cfg(test)]
mod tests {
    use crate::telemetry::*;

    #[test]
    fn an_empty_filter_is_the_default_one() {
        for (text, expected) in [
            ("", "info"),
            ("  ", "info"),
            ("warn", "warn"),
            ("tollpass=debug", "tollpass=debug"),
            ("off,", "off"),
        ] {
            assert_eq!(filter(text, "info", FILTER_VARIABLE).unwrap().to_string(), expected, "{text:?}");
        }
        assert!(filter("tollpass=loud", "info", FILTER_KEY).is_err());
    }

    #[test]
    fn a_word_that_is_not_a_level_is_an_error() {
        for text in ["verbose", "info,verbose", "warning", " Informational ", "h2"] {
            let error = filter(text, "info", FILTER_VARIABLE).unwrap_err().to_string();
            assert!(error.contains("is not a level") && error.contains("debug"), "{text}: {error}");
        }
        for text in ["INFO", "tollpass", "tollpass::chain", "h2=debug", "warn,[request]", "3"] {
            assert!(filter(text, "info", FILTER_VARIABLE).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_bare_level_applies_to_tollpass_and_a_directive_to_its_target() {
        for (text, expected) in [
            ("debug", "tollpass=debug,info"),
            ("TRACE", "tollpass=trace,info"),
            ("debug,h2=debug", "tollpass=debug,h2=debug,info"),
            ("h2=debug,debug", "tollpass=debug,h2=debug,info"),
            ("debug,tollpass=warn", "tollpass=warn,info"),
            ("warn,tollpass::chain=trace", "tollpass::chain=trace,warn"),
        ] {
            let found = filter(text, "info", FILTER_VARIABLE).unwrap().to_string();
            let sorted = |text: &str| {
                let mut parts: Vec<_> = text.split(',').map(str::to_owned).collect();
                parts.sort();
                parts
            };
            assert_eq!(sorted(&found), sorted(expected), "{text:?}");
        }
    }
}
