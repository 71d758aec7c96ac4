//! Names of hosts as channels and limits hold them.

use std::sync::Arc;

use crate::hosts::host::canonical;

/// A host name or IP address without a port, which owns channels.
pub type HostName = Arc<str>;

/// The canonical host of a URL, without brackets, trailing dot and zone, by which channels are identified.
pub fn host_name(host: &str) -> HostName {
    canonical(host).into()
}
