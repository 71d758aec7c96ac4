//! The first words in a tunnel: who says them, and what they begin. What is heard is kept, so that nothing is lost
//! whatever they turn out to be.

use std::io;

use bytes::{Bytes, BytesMut};
use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// More than this is no greeting: TLS allows 64 KiB for a message, and a first record is shorter.
const LONGEST: usize = 64 * 1024;
/// What is read at a time.
const PIECE: usize = 4096;
/// The first byte of a TLS handshake record.
const HANDSHAKE: u8 = 22;
/// What a request line of HTTP/1 can begin with here: the methods of RFC 9110 and RFC 5789 and their space.
const METHODS: [&[u8]; 8] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"TRACE ", b"PATCH "];

/// What a tunnel begins with.
pub(super) enum Greeting {
    /// The client left without a word.
    None,
    /// A TLS client: its first message, and the bytes that it came in.
    Tls { accepted: Box<Accepted>, heard: Bytes },
    /// A request of HTTP/1, or its beginning.
    Http(Bytes),
    /// Something that is not for us, or an origin that speaks first.
    Other(Bytes),
    /// Something that begins like TLS and is not; what to answer.
    Broken { alert: Vec<u8> },
}

/// Waits for the first words of the client or, where there is a connection to it, of the origin.
///
/// `early` is what the client had sent before its tunnel stood.
pub(super) async fn hear(
    client: &mut TcpStream,
    early: Bytes,
    origin: Option<&TcpStream>,
) -> io::Result<Greeting> {
    let mut heard = BytesMut::from(early);
    if heard.is_empty() && origin_is_first(client, origin).await? {
        return Ok(Greeting::Other(Bytes::new()));
    }
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        match kind(&heard) {
            Kind::Tls => match feed(&mut acceptor, &heard, &mut fed) {
                Ok(Some(accepted)) => {
                    return Ok(Greeting::Tls { accepted: Box::new(accepted), heard: heard.freeze() });
                }
                Ok(None) => {}
                Err(alert) => return Ok(Greeting::Broken { alert }),
            },
            Kind::Http => return Ok(Greeting::Http(heard.freeze())),
            Kind::Other => return Ok(Greeting::Other(heard.freeze())),
            Kind::Unclear => {}
        }
        if heard.len() >= LONGEST {
            return Ok(Greeting::Other(heard.freeze()));
        }
        heard.reserve(PIECE);
        if client.read_buf(&mut heard).await? == 0 {
            // A client that says half a word and ends means what it says: the origin may know what.
            return Ok(if heard.is_empty() { Greeting::None } else { Greeting::Other(heard.freeze()) });
        }
    }
}

/// Whether the origin says something before the client does.
async fn origin_is_first(client: &TcpStream, origin: Option<&TcpStream>) -> io::Result<bool> {
    let Some(origin) = origin else { return Ok(false) };
    let (mut one, mut other) = ([0], [0]);
    tokio::select! {
        biased;
        spoken = client.peek(&mut one) => spoken.map(|_| false),
        // An origin that ends or fails before a word is spoken is met again when it is used.
        spoken = origin.peek(&mut other) => Ok(spoken.is_ok_and(|count| count > 0)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tls,
    Http,
    Other,
    /// Too little to say.
    Unclear,
}

fn kind(heard: &[u8]) -> Kind {
    match heard.first() {
        None => return Kind::Unclear,
        Some(&HANDSHAKE) => return Kind::Tls,
        Some(_) => {}
    }
    if METHODS.iter().any(|method| heard.starts_with(method)) {
        return Kind::Http;
    }
    if METHODS.iter().any(|method| method.starts_with(heard)) { Kind::Unclear } else { Kind::Other }
}

/// Gives what is new to the reader of TLS; `Err` is the alert to answer with.
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
            (&b""[..], Kind::Unclear),
            (b"\x16", Kind::Tls),
            (b"\x16\x03\x01", Kind::Tls),
            (b"G", Kind::Unclear),
            (b"GET", Kind::Unclear),
            (b"GET ", Kind::Http),
            (b"PATCH /x HTTP/1.1\r\n", Kind::Http),
            (b"P", Kind::Unclear),
            (b"PRI * HTTP/2.0", Kind::Other),
            (b"SSH-2.0-OpenSSH", Kind::Other),
            (b"get / ", Kind::Other),
            (b"GETS ", Kind::Other),
            (b"\x00", Kind::Other),
            (b"\x80\x2e\x01", Kind::Other),
        ] {
            assert_eq!(kind(heard), expected, "{heard:?}");
        }
    }
}
