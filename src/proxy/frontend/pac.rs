//! The PAC file, which tells browsers which requests to send through the proxy.

/// The PAC file for a proxy at `address`, a host and a port, which speaks TLS if `is_tls`.
///
/// Plain host names and loopback addresses are direct, as with a proxy that is set manually. When the proxy does not run,
/// everything is direct except its own name, which no other server may answer.
pub(super) fn file(address: &str, is_tls: bool) -> String {
    let kind = if is_tls { "HTTPS" } else { "PROXY" };
    format!(
        r#"// Made by tollpass. Requests go through it while it runs, and directly when it does not.
function FindProxyForURL(url, host) {{
  if (host === "tollpass.local") return "{kind} {address}";
  var isPlain = host.indexOf(".") < 0 && host.indexOf(":") < 0;
  var isLoopback = /^127(\.\d+){{3}}$/.test(host) || /^\[?::1\]?$/.test(host) || /(^|\.)localhost$/.test(host);
  if (isPlain || isLoopback) return "DIRECT";
  return "{kind} {address}; DIRECT";
}}
"#
    )
}
