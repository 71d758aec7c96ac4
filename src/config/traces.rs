//! Reads `[traces]`: where the traces of requests go.

use std::time::Duration;

use ::config::Value;
use http::Uri;

use super::key::{Shape, Table, keys};
use super::raw_value::InvalidValue;
use super::section::Section;
use super::values;
use crate::limits::{MILLISECOND, MINUTE, Quantity, SECOND, count, time};

const ONE_IN: Quantity = count(1, 1..=1_000_000);
const QUEUE: Quantity = count(2048, 16..=1_000_000);
const TIMEOUT: Quantity = time(10 * SECOND, 100 * MILLISECOND..=5 * MINUTE);

/// The keys of `[traces]`.
pub(super) static TRACES: Table = Table::new(
    "traces",
    "Traces of requests for OpenTelemetry. They name hosts and paths, and what was paid.",
    keys! {
        /// Send a span for each request and each payment to this collector, by OTLP over HTTP. tollpass must be built with
        /// `--features otlp`.
        "endpoint": Shape::Text("^https?://[^/?#@]+"),
        /// Trace one in this many requests. Requests with a `traceparent` follow its sampling flag.
        "one_in": Shape::Quantity(ONE_IN),
        /// How many spans may wait for the collector. Further ones are dropped.
        "queue": Shape::Quantity(QUEUE),
        /// The time for the collector to answer.
        "timeout": Shape::Quantity(TIMEOUT),
    },
);

/// `[traces]`: where the traces of requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracesConfig {
    /// Where the collector takes traces.
    pub endpoint: Uri,
    /// One in this many requests is traced.
    pub one_in: u32,
    /// The most spans that wait.
    pub queue: usize,
    /// How long a collector may take to answer.
    pub timeout: Duration,
}

/// Reads `[traces]`; `None` if there are none.
pub(super) fn read(section: &Section<'_>) -> Option<TracesConfig> {
    let one_in = section.count("one_in", ONE_IN);
    let queue = section.count("queue", QUEUE) as usize;
    let timeout = section.time("timeout", TIMEOUT);
    let endpoint = section.read("endpoint", collector)?;
    Some(TracesConfig { endpoint, one_in, queue, timeout })
}

/// The URL that takes traces: that of a collector, whose path is `/v1/traces` unless it has another one. Errors do not quote
/// it: it may contain a secret.
fn collector(value: &Value) -> Result<Uri, InvalidValue> {
    let remedy = "write one such as \"http://127.0.0.1:4318\"";
    let invalid = |why: &str| InvalidValue::new(why.to_owned(), remedy);
    let mut parts = values::text(value)?.parse::<Uri>().map_err(|_| invalid("not a URL"))?.into_parts();
    if !matches!(parts.scheme.as_ref().map(http::uri::Scheme::as_str), Some("http" | "https")) {
        return Err(invalid("not an http or https URL"));
    }
    if parts.authority.as_ref().is_some_and(|authority| authority.as_str().contains('@')) {
        let remedy = "put credentials into the variable OTEL_EXPORTER_OTLP_HEADERS";
        return Err(InvalidValue::new("user names in a URL are not sent", remedy));
    }
    if parts.path_and_query.as_ref().is_none_or(|path| path == "/") {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/v1/traces"));
    }
    Uri::from_parts(parts).map_err(|_| invalid("not a URL"))
}
