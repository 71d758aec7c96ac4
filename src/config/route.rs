//! Reads `[[route]]`: paths and ports that stand for an origin. Whether the origin is there is found out elsewhere.

use std::net::SocketAddr;

use ::config::Value;
use http::Uri;
use http::uri::{Authority, Scheme};

use super::section::{Faults, Section, Wrong, entries, quoted};
use super::{exposed, values};
use crate::hosts::host::Host;

/// The keys of one `[[route]]` entry.
pub(super) const ROUTE: &[&str] = &["prefix", "origin", "listen"];

const MAX_ROUTES: usize = 256;
const LONGEST_PREFIX: usize = 256;

/// `[[route]]`: what begins with a path goes to an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What the path begins with, without a slash at its end: empty for every path, on a port of its own only.
    pub prefix: String,
    /// The origin's scheme, `http` or `https`.
    pub scheme: Scheme,
    /// The origin's host, and its port where that is not the scheme's own.
    pub authority: Authority,
    /// The path that takes the prefix's place, without a slash at its end.
    pub base: String,
    /// A port of its own; else it is the proxy's.
    pub listen: Option<SocketAddr>,
}

/// Where the proxy itself listens, and what that means for others.
#[derive(Clone, Copy)]
pub(super) struct Neighbour {
    pub listen: SocketAddr,
    pub allow_remote: bool,
    pub is_paying: bool,
}

/// Reads all `[[route]]` entries.
pub(super) fn routes(value: Option<Value>, proxy: Neighbour, faults: &Faults) -> Vec<Route> {
    let mut routes: Vec<(usize, Route)> = Vec::new();
    for (index, entry) in entries("route", value, MAX_ROUTES, faults).into_iter().enumerate() {
        let section = Section::new(format!("route[{index}]"), Some(entry), ROUTE, faults);
        let Some(route) = route(&section, proxy) else { continue };
        let is_same =
            |other: &&(usize, Route)| other.1.listen == route.listen && other.1.prefix == route.prefix;
        if let Some((other, _)) = routes.iter().find(is_same) {
            let key = if route.prefix.is_empty() { "listen" } else { "prefix" };
            section.fault(key, format!("the same as in route[{other}]"), "let each stand for one origin");
            continue;
        }
        routes.push((index, route));
    }
    routes.into_iter().map(|(_, route)| route).collect()
}

fn route(section: &Section<'_>, proxy: Neighbour) -> Option<Route> {
    let listen = section.read("listen", |value| listen(value, proxy));
    let prefix = if section.has("prefix") || !section.has("listen") {
        section.require("prefix", "\"/name\", or listen = \"127.0.0.1:8410\"", prefix)
    } else {
        Some(String::new())
    };
    let origin = section.require("origin", "\"https://api.example.com/v1\"", origin);
    let prefix = prefix?;
    if prefix.is_empty() && !section.has("listen") {
        section.fault(
            "prefix",
            "\"/\" would hide the set-up page",
            "add a name, or listen = \"127.0.0.1:8410\"",
        );
        return None;
    }
    // A port that is wrong must not turn into the proxy's own.
    if section.has("listen") && listen.is_none() {
        return None;
    }
    let (scheme, authority, base) = origin?;
    Some(Route { prefix, scheme, authority, base, listen })
}

fn listen(value: &Value, proxy: Neighbour) -> Result<SocketAddr, Wrong> {
    let listen = values::socket(value)?;
    if listen == proxy.listen && listen.port() != 0 {
        let remedy = "leave it out, and write a prefix; or choose another port";
        return Err(Wrong::new(format!("the proxy itself listens on {listen}"), remedy));
    }
    match exposed(listen, proxy.allow_remote, proxy.is_paying) {
        Some(fault) => Err(Wrong::new(fault.wrong, fault.remedy)),
        None => Ok(listen),
    }
}

/// A path of plain letters, so that there is one way to write it.
fn prefix(value: &Value) -> Result<String, Wrong> {
    let text = values::text(value)?;
    let wrong = |why: &str| Err(Wrong::new(format!("{} {why}", quoted(text)), "write such as \"/name\""));
    let bare = text.strip_suffix('/').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !text.starts_with('/') || !text.bytes().all(is_plain) {
        return wrong("must begin with a slash and contain only letters, digits, - . _ ~ and slashes");
    }
    if text.len() > LONGEST_PREFIX {
        return wrong("is too long");
    }
    if bare.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return wrong("has a segment that is empty or of dots");
    }
    Ok(bare.to_owned())
}

/// The scheme, the host and port, and the path of an origin.
fn origin(value: &Value) -> Result<(Scheme, Authority, String), Wrong> {
    let text = values::text(value)?;
    // It is not quoted: it may hold a secret.
    let wrong = |why: &str| Wrong::new(why, "write such as \"https://api.example.com/v1\"");
    let uri: Uri = text.parse().map_err(|_| wrong("not an http:// or https:// URL"))?;
    let parts = uri.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err(wrong("not an http:// or https:// URL"));
    };
    if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
        return Err(wrong("not an http:// or https:// URL"));
    }
    if authority.as_str().contains('@') {
        return Err(Wrong::new(
            "user names in a URL are not sent",
            "let the program send its own credentials",
        ));
    }
    let has_bad_port = authority.as_str().len() > authority.host().len() && authority.port_u16().is_none();
    if authority.host().is_empty() || has_bad_port || authority.port_u16() == Some(0) {
        return Err(wrong("its host or port cannot be used"));
    }
    let host = Host::read(authority.host());
    let host = host.map_err(|_| wrong("its host is neither a name nor an IP address"))?;
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let authority = format!("{host}{port}").parse().map_err(|_| wrong("its host or port cannot be used"))?;
    let path = parts.path_and_query.as_ref().map_or("/", |path| path.path());
    if text.contains(['?', '#']) {
        return Err(wrong("it has a query or a fragment, which a route cannot add"));
    }
    let base = path.trim_end_matches('/');
    if base
        .split('/')
        .any(|segment| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
    {
        return Err(wrong("its path has a segment of dots"));
    }
    Ok((scheme, authority, base.to_owned()))
}
