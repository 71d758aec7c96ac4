//! The links that `tollpass dashboard` prints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::admin::{DashboardLink, LinkIssuer};
use crate::config::Config;
use crate::proxy::frontend::DashboardAccess;
use crate::tls::ServerTls;

/// Makes links to the dashboard on one port.
#[derive(Debug)]
pub(in crate::app) struct DashboardLinks {
    access: DashboardAccess,
    /// The page, without the secret.
    page: String,
}

impl DashboardLinks {
    /// Of the proxy's own port at this address, which speaks TLS if there is `tls`.
    pub(in crate::app) fn new(
        access: DashboardAccess,
        address: SocketAddr,
        tls: Option<&ServerTls>,
        config: &Config,
    ) -> Self {
        let host = host(address.ip(), tls, &config.names);
        let scheme = if tls.is_some() { "https" } else { "http" };
        Self { access, page: format!("{scheme}://{host}:{}/dashboard", address.port()) }
    }
}

impl LinkIssuer for DashboardLinks {
    fn issue(&self) -> DashboardLink {
        // In the fragment, which browsers do not send.
        let url = format!("{}#{}", self.page, self.access.link().expose());
        DashboardLink { url, valid_for_s: self.access.link_lasts().as_secs() }
    }
}

/// The host at which a browser on this machine reaches the port, and for which the certificate is, if there is one.
fn host(listen: IpAddr, tls: Option<&ServerTls>, names: &[String]) -> String {
    let ip = match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let literal = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let Some(tls) = tls.filter(|tls| !tls.is_for(&ip.to_string())) else { return literal };
    let mut names = names.iter().map(String::as_str).chain(["localhost"]);
    names.find(|name| tls.is_for(name)).map_or(literal, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_this_machine() {
        for (listen, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "[::1]"),
            ("::1", "[::1]"),
            ("192.168.1.5", "192.168.1.5"),
        ] {
            assert_eq!(host(listen.parse().unwrap(), None, &[]), expected);
        }
    }
}
