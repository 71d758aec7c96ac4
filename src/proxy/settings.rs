//! The settings of the HTTP shell.

use std::path::PathBuf;
use std::sync::Arc;

use super::descriptors::IdleConnections;
use super::upstream::egress::{Outbound, Resolve, SystemResolver};
use super::upstream::tls::OriginTlsSettings;
use crate::hosts::address_rules::AddressRules;
use crate::hosts::port_set::PortSet;
use crate::limits::Limits;
use crate::payments::RunAccount;
use crate::tls::ServerTls;

/// The limits of the HTTP shell, and what it connects with.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Every limit; the HTTP shell applies those on connections, heads and bodies.
    pub limits: Limits,
    /// PEM certificates to trust for origins, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// TLS settings of particular origins; the first match applies.
    pub tls: Vec<OriginTlsSettings>,
    /// Bytes that each direction of a tunnel moves at a time; allocated only while data flows.
    pub tunnel_buffer: usize,
    /// Resolves the names of hosts.
    pub resolver: Arc<dyn Resolve>,
    /// Outbound proxies, and the hosts that bypass them.
    pub outbound: Outbound,
    /// The addresses that clients' requests may reach.
    pub addresses: AddressRules,
    /// The ports that tunnels may lead to.
    pub connect_ports: PortSet,
    /// Idle connections to close when file descriptors run out; shared by all services that free them for each other.
    pub idle: IdleConnections,
    /// The run that the port belongs to.
    pub run: Option<Arc<RunAccount>>,
    /// Whether the requests of its clients reach only what those of other machines do.
    pub is_confined: bool,
    /// TLS towards clients, if the port speaks it.
    pub server_tls: Option<ServerTls>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            ca_file: None,
            tls: Vec::new(),
            tunnel_buffer: 64 * 1024,
            resolver: Arc::new(SystemResolver),
            outbound: Outbound::default(),
            addresses: AddressRules::default(),
            connect_ports: PortSet::default(),
            idle: IdleConnections::default(),
            run: None,
            is_confined: false,
            server_tls: None,
        }
    }
}
