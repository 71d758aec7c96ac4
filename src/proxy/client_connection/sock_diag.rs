//! Looks up one socket by netlink, sock_diag(7). The time that this takes does not depend on the number of sockets.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::socket::{OPEN, OpenSocket, SocketPair};

/// More than a response needs.
const RESPONSE: usize = 4096;
/// Any socket with these addresses.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// A connected socket, if the kernel finds it.
pub(super) fn find(pair: SocketPair) -> io::Result<Option<OpenSocket>> {
    let (local, remote) = (canonical(pair.local), canonical(pair.remote));
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let interface_id = match pair.local {
        SocketAddr::V6(local) => local.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let socket_id = SocketId {
        source_port: local.port(),
        destination_port: remote.port(),
        source_address: local.ip(),
        destination_address: remote.ip(),
        interface_id,
        cookie: NO_COOKIE,
    };
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG))?;
    // Unconnected, a netlink socket sends to the kernel, which responds before `send` returns.
    send(&socket, &bytes, SendFlags::empty())?;
    let mut response = vec![0; RESPONSE];
    let (length, _) = recv(&socket, &mut response[..], RecvFlags::DONTWAIT)?;
    let response = response.get(..length).unwrap_or_default();
    let response = NetlinkMessage::<SockDiagMessage>::deserialize(response).map_err(io::Error::other)?;
    let found = match response.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => found.header,
        NetlinkPayload::Error(error) => return Err(error.to_io()),
        _ => return Ok(None),
    };
    // Without a connection, the kernel finds a listener at the local address.
    let id = &found.socket_id;
    let is_it = canonical(SocketAddr::new(id.source_address, id.source_port)) == local
        && canonical(SocketAddr::new(id.destination_address, id.destination_port)) == remote;
    let is_open = is_it && found.inode != 0 && OPEN.contains(&found.state);
    Ok(is_open.then_some(OpenSocket { owner: found.uid, inode: found.inode.into() }))
}

/// Without an IPv6 form of an IPv4 address: the kernel finds sockets of both families by the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
