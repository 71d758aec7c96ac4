//! Names of hosts as channels and limits hold them.

use std::sync::Arc;

use crate::hosts::host::canonical;

/// A host name or IP address, without a port: whose channel it is.
pub type HostName = Arc<str>;

/// The host of a URL in its one spelling, without brackets, a root dot and a zone: as channels are known by it.
pub fn host_name(host: &str) -> HostName {
    canonical(host).into()
}
