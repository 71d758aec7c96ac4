//! Where traces go, whether or not this program can send them.

use std::time::Duration;

use http::Uri;

/// Where the traces of requests go.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only what sends traces reads them"))]
pub struct TraceSettings {
    /// Where the collector takes traces.
    pub endpoint: Uri,
    /// One in this many requests is traced, unless it belongs to a trace already.
    pub one_in: u32,
    /// The most spans that wait; further ones are dropped.
    pub queue: usize,
    /// How long the collector may take to answer.
    pub timeout: Duration,
}

impl TraceSettings {
    /// Whether this program can send traces at all.
    ///
    /// # Errors
    /// It was built without that.
    pub fn check() -> Result<(), TracesError> {
        if cfg!(feature = "otlp") {
            return Ok(());
        }
        let remedy = "build it with `--features otlp`, or remove traces.endpoint";
        Err(TracesError(format!("this tollpass was built without the feature otlp; {remedy}")))
    }
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot send traces: {0}")]
pub struct TracesError(pub String);
