//! Payments over unencrypted http: without `allow_plain_http`, only to this machine. Others on the way could read a
//! payment, and answer in the seller's place.

use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

use crate::hosts::host::Host;
use crate::hosts::is_this_machine;
use crate::protocol::Refusal;
use crate::proxy::message::target;

/// Whether a payment for this URL may only be sent to this machine.
pub(super) fn is_limited(url: &Uri, allow_plain_http: bool) -> bool {
    !allow_plain_http && url.scheme() != Some(&Scheme::HTTPS)
}

/// Checks the address that sent a 402 for a limited URL. Without one, as with an outbound proxy, only an address in the
/// URL itself counts: its connections never use a proxy if it is loopback.
///
/// # Errors
/// It is not known to be this machine.
pub(super) fn check(url: &Uri, peer: Option<IpAddr>) -> Result<(), Refusal> {
    let written = || Host::read(target::host_and_port(url).0).ok().and_then(Host::address);
    match peer.or_else(written) {
        Some(address) if is_this_machine(address) => Ok(()),
        _ => Err(Refusal::PlainHttp { peer }),
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::pay::plain_http::*;

    #[test]
    fn only_this_machine_is_paid_without_encryption() {
        for (url, peer, expected) in [
            ("http://seller.test/", Some("127.0.0.1"), Ok(())),
            ("http://seller.test/", Some("127.9.9.9"), Ok(())),
            ("http://seller.test/", Some("::1"), Ok(())),
            ("http://seller.test/", Some("::ffff:127.0.0.1"), Ok(())),
            ("http://seller.test/", Some("10.0.0.1"), Err(Some("10.0.0.1"))),
            ("http://seller.test/", Some("192.168.1.5"), Err(Some("192.168.1.5"))),
            ("http://seller.test/", Some("fe80::1"), Err(Some("fe80::1"))),
            // The address counts that was connected to, not the name.
            ("http://localhost/", Some("8.8.8.8"), Err(Some("8.8.8.8"))),
            ("http://127.0.0.1/", Some("8.8.8.8"), Err(Some("8.8.8.8"))),
            // Over an outbound proxy.
            ("http://seller.test/", None, Err(None)),
            ("http://localhost/", None, Err(None)),
            ("http://10.0.0.1/", None, Err(None)),
            ("http://127.0.0.1:8080/", None, Ok(())),
            ("http://[::1]/", None, Ok(())),
            ("http://2130706433/", None, Ok(())),
        ] {
            let expected = expected.map_err(|peer: Option<&str>| Refusal::PlainHttp {
                peer: peer.map(|peer| peer.parse().unwrap()),
            });
            let peer = peer.map(|peer| peer.parse().unwrap());
            assert_eq!(check(&url.parse().unwrap(), peer), expected, "{url} {peer:?}");
        }
    }

    #[test]
    fn encrypted_and_allowed_urls_are_not_limited() {
        for (url, allow, expected) in
            [("http://a/", false, true), ("http://a/", true, false), ("https://a/", false, false)]
        {
            assert_eq!(is_limited(&url.parse().unwrap(), allow), expected, "{url} {allow}");
        }
    }
}
