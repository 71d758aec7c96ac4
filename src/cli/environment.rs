//! The environment variables that make programs use the proxy and trust its certificates. `run` sets them for a
//! program, `env` prints them.
//!
//! Left out on purpose: `ALL_PROXY`, which would also send `ftp` and other protocols to a proxy that supports only
//! HTTP, and which some programs take for SOCKS. Java has a key store of its own, and prints a message on each start if
//! `JAVA_TOOL_OPTIONS` is set.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::admin::RunName;

/// A variable and its value.
pub(super) type Variable = (&'static str, OsString);

/// The proxy for HTTP and HTTPS.
pub(super) const PROXY: [&str; 4] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"];
/// Hosts that bypass the proxy.
pub(super) const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// Makes Node's own HTTP client honour the proxy variables.
pub(super) const NODE: &str = "NODE_USE_ENV_PROXY";
/// The configuration file.
pub(super) const CONFIG: &str = "TOLLPASS_CONFIG";
/// The state directory.
pub(super) const STATE_DIR: &str = "TOLLPASS_STATE_DIR";
/// The name of the run that a program belongs to.
pub(super) const RUN: &str = "TOLLPASS_RUN";
/// Each replaces the root certificates of a program: OpenSSL and programs based on it, Go, Rust; curl; Python's
/// requests and httplib2; git; pip; the AWS and Google Cloud tools; cargo; Nix; gRPC; npm and pnpm, whose cafile setting
/// would replace what Node adds; Yarn; Bundler; Composer; Hex.
pub(super) const BUNDLES: [&str; 16] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CARGO_HTTP_CAINFO",
    "NIX_SSL_CERT_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "npm_config_cafile",
    "YARN_HTTPS_CA_FILE_PATH",
    "BUNDLE_SSL_CA_CERT",
    "COMPOSER_CAFILE",
    "HEX_CACERTS_PATH",
];
/// Each adds to the root certificates of a program: Node; Deno.
pub(super) const ADDITIONS: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
/// Replaces the system-wide settings of wget, which has no variable for certificates.
pub(super) const WGET: &str = "SYSTEM_WGETRC";

/// The certificate files for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrustFiles {
    /// The previously trusted roots and tollpass's CA.
    pub bundle: PathBuf,
    /// The CA and earlier additions, for variables that add to a program's own roots.
    pub addition: PathBuf,
    /// Settings for wget that name the bundle.
    pub wgetrc: PathBuf,
}

/// How programs on this machine reach the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProxyPlace {
    scheme: &'static str,
    /// Host and port.
    authority: String,
}

impl ProxyPlace {
    /// A port without TLS that listens on this address.
    pub(super) fn plain(listen: SocketAddr) -> Self {
        Self { scheme: "http", authority: SocketAddr::new(reachable(listen.ip()), listen.port()).to_string() }
    }

    /// A port with TLS, whose certificate is for this host.
    pub(super) fn tls(host: &str, port: u16) -> Self {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self { scheme: "https", authority: format!("{host}:{port}") }
    }
}

/// The variables for a proxy, which the program uses as `user`. Entries of `no_proxy` are added to those already
/// `present`.
pub(super) fn variables(
    proxy: &ProxyPlace,
    user: Option<&str>,
    trust: Option<&TrustFiles>,
    no_proxy: &[OsString],
    present: impl Fn(&str) -> Option<OsString>,
) -> Vec<Variable> {
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let ProxyPlace { scheme, authority } = proxy;
    let url = format!("{scheme}://{user}{authority}");
    let mut variables: Vec<Variable> = PROXY.iter().map(|name| (*name, url.clone().into())).collect();
    let before = NO_PROXY.iter().filter_map(|name| present(name));
    let direct = joined(before.chain(no_proxy.iter().cloned()));
    if !direct.is_empty() {
        variables.extend(NO_PROXY.iter().map(|name| (*name, direct.clone())));
    }
    variables.push((NODE, "1".into()));
    if let Some(TrustFiles { bundle, addition, wgetrc }) = trust {
        variables.extend(BUNDLES.iter().map(|name| (*name, bundle.clone().into())));
        variables.extend(ADDITIONS.iter().map(|name| (*name, addition.clone().into())));
        variables.push((WGET, wgetrc.clone().into()));
    }
    variables
}

/// Whether this process belongs to a run.
pub(super) fn is_in_run() -> bool {
    std::env::var_os(RUN).is_some_and(|name| !name.is_empty())
}

/// The run that this process belongs to, if it belongs to one.
///
/// # Errors
/// The variable was changed, or set by another version.
pub(super) fn surrounding_run() -> anyhow::Result<Option<RunName>> {
    let name = std::env::var_os(RUN).filter(|name| !name.is_empty());
    name.map(|name| name.to_string_lossy().parse()).transpose().with_context(|| format!("cannot use {RUN}"))
}

/// The address for clients on this machine, if the proxy listens on all addresses.
pub(super) fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Merges lists, without duplicates.
fn joined(lists: impl Iterator<Item = OsString>) -> OsString {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for list in lists {
        for entry in list.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if !entry.is_empty() && !entries.iter().any(|known| known == entry) {
                entries.push(entry.to_owned());
            }
        }
    }
    OsString::from_vec(entries.join(&b","[..]))
}

/// Whether a variable's value is a path within `directory`.
pub(super) fn is_within(value: &OsStr, directory: &Path) -> bool {
    Path::new(value).starts_with(directory)
}

#[cfg(test)]
mod tests {
    use crate::cli::environment::*;

    fn plain(listen: &str) -> ProxyPlace {
        ProxyPlace::plain(listen.parse().unwrap())
    }

    fn value<'a>(variables: &'a [Variable], name: &str) -> Option<&'a str> {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_str().unwrap())
    }

    #[test]
    fn both_cases_name_the_proxy_and_nothing_else_does() {
        let variables = variables(&plain("127.0.0.1:8402"), None, None, &[], |_| None);
        for name in PROXY {
            assert_eq!(value(&variables, name), Some("http://127.0.0.1:8402"));
        }
        assert_eq!(value(&variables, NODE), Some("1"));
        // No variables for certificates without interception, and none for exemptions without exempt hosts.
        assert_eq!(variables.len(), 5, "{variables:?}");
    }

    #[test]
    fn the_proxy_variables_have_the_clients_credentials() {
        let variables = variables(&plain("127.0.0.1:8402"), Some("me:a%40b"), None, &[], |_| None);
        for name in PROXY {
            assert_eq!(value(&variables, name), Some("http://me:a%40b@127.0.0.1:8402"));
        }
    }

    #[test]
    fn each_program_is_pointed_at_the_certificates() {
        let trust =
            TrustFiles { bundle: "/s/bundle".into(), addition: "/s/ca".into(), wgetrc: "/s/rc".into() };
        let variables = variables(&plain("127.0.0.1:1"), None, Some(&trust), &[], |_| None);
        assert_eq!(value(&variables, "SSL_CERT_FILE"), Some("/s/bundle"));
        assert_eq!(value(&variables, "CURL_CA_BUNDLE"), Some("/s/bundle"));
        assert_eq!(value(&variables, "NODE_EXTRA_CA_CERTS"), Some("/s/ca"));
        assert_eq!(value(&variables, "ALL_PROXY"), None);
        assert_eq!(value(&variables, "SYSTEM_WGETRC"), Some("/s/rc"));
        assert_eq!(variables.len(), 5 + BUNDLES.len() + ADDITIONS.len() + 1);
    }

    #[test]
    fn exempt_hosts_stay_exempt() {
        let present = |name: &str| match name {
            "no_proxy" => Some("a.example, .b.example".into()),
            "NO_PROXY" => Some("a.example,10.0.0.0/8".into()),
            _ => None,
        };
        let more = ["c.example,a.example".into(), "d".into()];
        let variables = variables(&plain("127.0.0.1:1"), None, None, &more, present);
        for name in NO_PROXY {
            assert_eq!(value(&variables, name), Some("a.example,.b.example,10.0.0.0/8,c.example,d"));
        }
    }

    #[test]
    fn an_address_for_all_is_reached_here() {
        for (listens, reached) in [
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "http://[::1]:1"),
            ("192.0.2.7:1", "http://192.0.2.7:1"),
        ] {
            let variables = variables(&plain(listens), None, None, &[], |_| None);
            assert_eq!(value(&variables, "http_proxy"), Some(reached));
        }
    }

    #[test]
    fn a_proxy_with_tls_has_an_https_url() {
        for (host, url) in [
            ("proxy.example", "https://me:x@proxy.example:8443"),
            ("2001:db8::1", "https://me:x@[2001:db8::1]:8443"),
        ] {
            let variables = variables(&ProxyPlace::tls(host, 8443), Some("me:x"), None, &[], |_| None);
            for name in PROXY {
                assert_eq!(value(&variables, name), Some(url));
            }
        }
    }
}
