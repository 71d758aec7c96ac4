//! The PAC file: what tells a browser which requests to send through the proxy. Knows no request.

/// The PAC file for a proxy at `address`, a host and a port.
///
/// Plain names and loopback addresses are asked directly, as browsers do by themselves with a proxy that is set by hand:
/// what runs on this machine is the user's own. Where the proxy has ended, everything is asked directly; only its own
/// name is not, since nobody else may answer for it.
pub(super) fn file(address: &str) -> String {
    format!(
        r#"// Made by tollpass. Requests go through it while it runs, and directly when it does not.
function FindProxyForURL(url, host) {{
  if (host === "tollpass.local") return "PROXY {address}";
  var isPlain = host.indexOf(".") < 0 && host.indexOf(":") < 0;
  var isLoopback = /^127(\.\d+){{3}}$/.test(host) || /^\[?::1\]?$/.test(host) || /(^|\.)localhost$/.test(host);
  if (isPlain || isLoopback) return "DIRECT";
  return "PROXY {address}; DIRECT";
}}
"#
    )
}
