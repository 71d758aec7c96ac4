//! Reads `[frontend]`: how clients address the proxy itself.

use std::sync::Arc;

use ::config::Value;

use super::key::{Shape, Table, keys};
use super::raw_value::{InvalidValue, quoted};
use super::section::Section;
use super::values;
use crate::hosts::host::{Host, canonical};

/// The most names.
const MOST_NAMES: usize = 64;

/// The keys of `[frontend]`.
pub(super) static FRONTEND: Table = Table::new(
    "frontend",
    "How clients address the proxy itself.",
    keys! {
        /// Further host names of the proxy, such as that of its service in a compose file. It always has the names localhost and
        /// tollpass.local, and those in the certificate of tls_cert. A request for the set-up page, /health, /ready or a route
        /// under any other name gets a 421.
        "names": Shape::List(&Shape::Text("^[0-9A-Za-z._-]+$"), 1, MOST_NAMES),
    },
);

/// Reads the names: in lower case, and without a trailing dot.
pub(super) fn names(section: &Section<'_>) -> Arc<[String]> {
    section.read("names", |value| values::list(value, MOST_NAMES, name)).unwrap_or_default().into()
}

fn name(value: &Value) -> Result<String, InvalidValue> {
    let text = values::text(value)?;
    match Host::read(text) {
        Ok(Host::Name(name)) => Ok(canonical(name).into_owned()),
        Ok(Host::Address(_) | Host::Zoned(..)) => Err(InvalidValue::new(
            format!("{} is an address", quoted(text)),
            "remove it: the proxy knows its addresses",
        )),
        Err(_) => Err(InvalidValue::new(
            format!("{} is not a host name", quoted(text)),
            "write a name without scheme, port and path, such as \"tollpass\"",
        )),
    }
}
