//! Sniffs the protocol inside a tunnel from its first bytes, which are kept for the handler of that protocol.

use std::io;

use bytes::{Bytes, BytesMut};
use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::proxy::downstream::client_io::HANDSHAKE;
use crate::proxy::downstream::client_stream::ClientStream;

/// Limit on the bytes to sniff; a ClientHello is shorter.
const LONGEST: usize = 64 * 1024;
/// Bytes to read at a time.
const PIECE: usize = 4096;
/// The methods of RFC 9110 and RFC 5789, as a request line starts.
const METHODS: [&[u8]; 8] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"TRACE ", b"PATCH "];

/// The protocol inside a tunnel.
pub(super) enum Sniffed {
    /// The client closed the tunnel without sending anything.
    None,
    /// TLS: the ClientHello, parsed and as bytes.
    Tls { accepted: Box<Accepted>, heard: Bytes },
    /// HTTP/1: the first bytes of a request.
    Http(Bytes),
    /// Another protocol, or an origin that sends first.
    Other(Bytes),
    /// Malformed TLS, and the alert to send.
    Broken { alert: Vec<u8> },
}

/// Waits for the first bytes of the client or, if it is connected, of the origin.
///
/// `early` are bytes that the client sent with its `CONNECT`.
pub(super) async fn sniff(
    client: &mut ClientStream,
    early: Bytes,
    origin: Option<&TcpStream>,
) -> io::Result<Sniffed> {
    let mut heard = BytesMut::from(early);
    if heard.is_empty() {
        match first_bytes(client, &mut heard, origin).await? {
            FirstSender::Client => {}
            FirstSender::Origin => return Ok(Sniffed::Other(Bytes::new())),
            FirstSender::None => return Ok(Sniffed::None),
        }
    }
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        match kind(&heard) {
            FirstBytes::Tls => match feed(&mut acceptor, &heard, &mut fed) {
                Ok(Some(accepted)) => {
                    return Ok(Sniffed::Tls { accepted: Box::new(accepted), heard: heard.freeze() });
                }
                Ok(None) => {}
                Err(alert) => return Ok(Sniffed::Broken { alert }),
            },
            FirstBytes::Http => return Ok(Sniffed::Http(heard.freeze())),
            FirstBytes::Other => return Ok(Sniffed::Other(heard.freeze())),
            FirstBytes::Unclear => {}
        }
        if heard.len() >= LONGEST {
            return Ok(Sniffed::Other(heard.freeze()));
        }
        heard.reserve(PIECE);
        if client.read_buf(&mut heard).await? == 0 {
            // The origin may understand a fragment that the client closed after.
            return Ok(if heard.is_empty() { Sniffed::None } else { Sniffed::Other(heard.freeze()) });
        }
    }
}

/// The side that sends first.
enum FirstSender {
    Client,
    Origin,
    /// The client has closed the tunnel.
    None,
}

/// Reads the first bytes of the client, unless the origin sends before.
async fn first_bytes(
    client: &mut ClientStream,
    heard: &mut BytesMut,
    origin: Option<&TcpStream>,
) -> io::Result<FirstSender> {
    heard.reserve(PIECE);
    let mut other = [0];
    let origin_sends = async {
        match origin {
            // If the origin closes or fails, its next use reports that.
            Some(origin) => origin.peek(&mut other).await.is_ok_and(|count| count > 0),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        // Reads nothing if it is cancelled.
        read = client.read_buf(heard) => {
            Ok(if read? == 0 { FirstSender::None } else { FirstSender::Client })
        }
        is_first = origin_sends => {
            if is_first {
                return Ok(FirstSender::Origin);
            }
            Ok(if client.read_buf(heard).await? == 0 { FirstSender::None } else { FirstSender::Client })
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstBytes {
    Tls,
    Http,
    Other,
    /// Needs more bytes.
    Unclear,
}

fn kind(heard: &[u8]) -> FirstBytes {
    match heard.first() {
        None => return FirstBytes::Unclear,
        Some(&HANDSHAKE) => return FirstBytes::Tls,
        Some(_) => {}
    }
    if METHODS.iter().any(|method| heard.starts_with(method)) {
        return FirstBytes::Http;
    }
    if METHODS.iter().any(|method| method.starts_with(heard)) {
        FirstBytes::Unclear
    } else {
        FirstBytes::Other
    }
}

/// Feeds new bytes to the TLS acceptor; `Err` is the alert to send.
fn feed(acceptor: &mut Acceptor, heard: &[u8], fed: &mut usize) -> Result<Option<Accepted>, Vec<u8>> {
    while *fed < heard.len() {
        let mut unread = &heard[*fed..];
        match acceptor.read_tls(&mut unread) {
            Ok(0) | Err(_) => return Err(Vec::new()),
            Ok(count) => *fed += count,
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some(accepted)),
            Ok(None) => {}
            Err((_, mut alert)) => {
                let mut bytes = Vec::new();
                // Writing to memory does not fail.
                let _ = alert.write_all(&mut bytes);
                return Err(bytes);
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use crate::proxy::intercept::sniff::*;

    #[test]
    fn the_first_bytes_decide() {
        for (heard, expected) in [
            (&b""[..], FirstBytes::Unclear),
            (b"\x16", FirstBytes::Tls),
            (b"\x16\x03\x01", FirstBytes::Tls),
            (b"G", FirstBytes::Unclear),
            (b"GET", FirstBytes::Unclear),
            (b"GET ", FirstBytes::Http),
            (b"PATCH /x HTTP/1.1\r\n", FirstBytes::Http),
            (b"P", FirstBytes::Unclear),
            (b"PRI * HTTP/2.0", FirstBytes::Other),
            (b"SSH-2.0-OpenSSH", FirstBytes::Other),
            (b"get / ", FirstBytes::Other),
            (b"GETS ", FirstBytes::Other),
            (b"\x00", FirstBytes::Other),
            (b"\x80\x2e\x01", FirstBytes::Other),
        ] {
            assert_eq!(kind(heard), expected, "{heard:?}");
        }
    }
}
