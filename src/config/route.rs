//! Reads `[[route]]`: base URLs of the proxy that map to origins. Does not connect to them.

use std::net::SocketAddr;
use std::sync::Arc;

use ::config::Value;
use http::Uri;
use http::uri::{Authority, Scheme};
use serde_json::json;

use super::client;
use super::client::ClientConfig;
use super::key::{SOCKET, Shape, Table, keys};
use super::listener::Exposure;
use super::raw_value::{InvalidValue, quoted};
use super::rules::is_set;
use super::section::{Issues, Section, entries};
use super::values;
use crate::hosts::host::Host;
use crate::protocol::policy::ProxyClient;

/// The keys of one `[[route]]` entry.
pub(super) static ROUTE: Table = Table::new(
    "route",
    "A base URL of tollpass for programs that support no proxy.",
    keys! {
        /// http://127.0.0.1:8402/name/x goes to https://api.example.com/v1/x: give the program
        /// http://127.0.0.1:8402/name as its base URL. Paths with a segment "." or ".." are refused, even if escaped.
        "prefix": Shape::Text("^/[0-9A-Za-z._~/-]*$"),
        /// An http or https URL.
        "origin": Shape::Text("^[hH][tT][tT][pP][sS]?://."); required(),
        /// A separate port for this route, for programs that need a base URL without a path; the default of prefix is
        /// then "/".
        "listen": SOCKET,
        /// Whether this separate port speaks TLS if tls_cert is set.
        "tls": Shape::Boolean(true),
        /// The name of the only [[client]] that uses the route: its path then always starts with the token of that client.
        "client": client::NAME,
    },
)
.with_rules(|| {
    vec![
        json!({"anyOf": [is_set("prefix"), is_set("listen")]}),
        json!({"dependentRequired": {"tls": ["listen"]}}),
    ]
});

pub(super) const MAX_ROUTES: usize = 256;
const LONGEST_PREFIX: usize = 256;

/// `[[route]]`: requests below a path go to an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The prefix of the path, without a trailing slash; empty, for every path, only with `listen`.
    pub prefix: String,
    /// The origin's scheme, `http` or `https`.
    pub scheme: Scheme,
    /// The origin's host, and its port if it is not the scheme's default.
    pub authority: Authority,
    /// The path that replaces the prefix, without a trailing slash.
    pub base: String,
    /// A separate address to listen on; if absent, the proxy's.
    pub listen: Option<SocketAddr>,
    /// Whether that address speaks TLS; false without one.
    pub is_tls: bool,
    /// The client that uses it.
    pub client: Option<Arc<ProxyClient>>,
}

/// The proxy's own listener, which restricts those of routes.
#[derive(Clone, Copy)]
pub(super) struct MainListener<'a> {
    pub listen: SocketAddr,
    /// Whether there is a certificate.
    pub is_tls: bool,
    pub exposure: Exposure,
    /// The clients that a route can name.
    pub clients: &'a [ClientConfig],
}

/// Reads all `[[route]]` entries.
pub(super) fn routes(value: Option<Value>, proxy: MainListener<'_>, issues: &Issues) -> Vec<RouteConfig> {
    let mut routes: Vec<(usize, RouteConfig)> = Vec::new();
    for (index, entry) in entries("route", value, MAX_ROUTES, issues).into_iter().enumerate() {
        let section = Section::new(format!("route[{index}]"), Some(entry), &ROUTE, issues);
        let Some(route) = route(&section, proxy) else { continue };
        let is_same =
            |other: &&(usize, RouteConfig)| other.1.listen == route.listen && other.1.prefix == route.prefix;
        if let Some((other, _)) = routes.iter().find(is_same) {
            let key = if route.prefix.is_empty() { "listen" } else { "prefix" };
            section.issue(key, format!("the same as in route[{other}]"), "give each origin its own");
            continue;
        }
        let differs = |other: &&(usize, RouteConfig)| {
            route.listen.is_some() && other.1.listen == route.listen && other.1.is_tls != route.is_tls
        };
        if let Some((other, _)) = routes.iter().find(differs) {
            let problem = format!("not the same as in route[{other}], which listens on the same address");
            section.issue("tls", problem, "write the same in both, or choose another port");
            continue;
        }
        routes.push((index, route));
    }
    routes.into_iter().map(|(_, route)| route).collect()
}

fn route(section: &Section<'_>, proxy: MainListener<'_>) -> Option<RouteConfig> {
    let listen = section.read("listen", |value| listen(value, proxy));
    let prefix = if section.has("prefix") || !section.has("listen") {
        section.require("prefix", "\"/name\", or listen = \"127.0.0.1:8410\"", prefix)
    } else {
        Some(String::new())
    };
    let origin = section.require("origin", "\"https://api.example.com/v1\"", origin);
    let prefix = prefix?;
    if prefix.is_empty() && !section.has("listen") {
        section.issue(
            "prefix",
            "\"/\" would hide the setup page",
            "add a name, or listen = \"127.0.0.1:8410\"",
        );
        return None;
    }
    let is_dashboard =
        prefix.strip_prefix("/dashboard").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if is_dashboard && !section.has("listen") {
        section.issue(
            "prefix",
            "\"/dashboard\" would hide the dashboard",
            "choose another name, or add listen = \"127.0.0.1:8410\"",
        );
        return None;
    }
    let client = section.read("client", |value| {
        let name = values::text(value)?;
        let client = proxy.clients.iter().map(|known| &known.client).find(|client| client.name == name);
        let remedy = "write the name of a [[client]], or remove it";
        client.cloned().ok_or_else(|| InvalidValue::new("no valid [[client]] has this name", remedy))
    });
    // An invalid name must not turn into no client.
    if section.has("client") && client.is_none() {
        return None;
    }
    // An invalid address must not turn into the proxy's own.
    if section.has("listen") && listen.is_none() {
        return None;
    }
    let is_tls = section.read("tls", values::boolean);
    if section.has("tls") && !section.has("listen") {
        let problem = "has no effect without listen: the route is on the proxy's own port";
        section.issue("tls", problem, "remove it, or add listen = \"127.0.0.1:8410\"");
    }
    let is_tls = listen.is_some() && proxy.is_tls && is_tls.unwrap_or(true);
    let (scheme, authority, base) = origin?;
    Some(RouteConfig { prefix, scheme, authority, base, listen, is_tls, client })
}

fn listen(value: &Value, proxy: MainListener<'_>) -> Result<SocketAddr, InvalidValue> {
    let listen = values::socket(value)?;
    if listen == proxy.listen && listen.port() != 0 {
        let remedy = "remove it and write a prefix, or choose another port";
        return Err(InvalidValue::new(format!("the proxy itself listens on {listen}"), remedy));
    }
    match proxy.exposure.issue(listen) {
        Some(issue) => Err(InvalidValue::new(issue.problem, issue.remedy)),
        None => Ok(listen),
    }
}

/// A path of unreserved characters only, so that it has one spelling.
fn prefix(value: &Value) -> Result<String, InvalidValue> {
    let text = values::text(value)?;
    let invalid =
        |why: &str| Err(InvalidValue::new(format!("{} {why}", quoted(text)), "write one such as \"/name\""));
    let bare = text.strip_suffix('/').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !text.starts_with('/') || !text.bytes().all(is_plain) {
        return invalid("must begin with a slash and contain only letters, digits, - . _ ~ and slashes");
    }
    if text.len() > LONGEST_PREFIX {
        return invalid("is too long");
    }
    if bare.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return invalid("has an empty segment, \".\" or \"..\"");
    }
    Ok(bare.to_owned())
}

/// The scheme, the authority and the path of an origin.
fn origin(value: &Value) -> Result<(Scheme, Authority, String), InvalidValue> {
    let text = values::text(value)?;
    // Not quoted: it may contain a secret.
    let invalid = |why: &str| InvalidValue::new(why, "write one such as \"https://api.example.com/v1\"");
    let uri: Uri = text.parse().map_err(|_| invalid("not an http:// or https:// URL"))?;
    let parts = uri.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err(invalid("not an http:// or https:// URL"));
    };
    if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
        return Err(invalid("not an http:// or https:// URL"));
    }
    if authority.as_str().contains('@') {
        return Err(InvalidValue::new(
            "user names in a URL are not sent",
            "let the program send its own credentials",
        ));
    }
    let has_bad_port = authority.as_str().len() > authority.host().len() && authority.port_u16().is_none();
    if authority.host().is_empty() || has_bad_port || authority.port_u16() == Some(0) {
        return Err(invalid("its host or port is not valid"));
    }
    let host = Host::read(authority.host());
    let host = host.map_err(|_| invalid("its host is not a valid name or IP address"))?;
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let authority = format!("{host}{port}").parse().map_err(|_| invalid("its host or port is not valid"))?;
    let path = parts.path_and_query.as_ref().map_or("/", |path| path.path());
    if text.contains(['?', '#']) {
        return Err(invalid("it has a query or a fragment, which a route cannot have"));
    }
    let base = path.trim_end_matches('/');
    if base
        .split('/')
        .any(|segment| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
    {
        return Err(invalid("its path has a segment \".\" or \"..\""));
    }
    Ok((scheme, authority, base.to_owned()))
}
