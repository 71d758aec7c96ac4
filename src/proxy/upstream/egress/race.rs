//! Races the addresses of a host: Happy Eyeballs, RFC 8305.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Head start of each address. RFC 8305 section 5.
const AHEAD: Duration = Duration::from_millis(250);
/// The most addresses of one host to try.
const MOST: usize = 16;

/// Connects to the address that answers first. The next attempt starts when one fails, or after [`AHEAD`].
///
/// # Errors
/// If all attempts fail: a refusal, which proves that a host is there, otherwise the first error.
pub(super) async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    if let [address] = addresses {
        return TcpStream::connect(address).await;
    }
    let mut waiting = in_turns(addresses).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failure: Option<io::Error> = None;
    loop {
        trying.extend(waiting.next().map(TcpStream::connect));
        let outcome = if waiting.len() == 0 {
            trying.next().await
        } else {
            match timeout(AHEAD, trying.next()).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            }
        };
        match outcome {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => failure = Some(worse(failure, error)),
            None => return Err(failure.unwrap_or_else(|| io::Error::other("no address"))),
        }
    }
}

/// Alternates the address families, starting with that of the first address; otherwise in the order of the resolver.
fn in_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let family = addresses.first().map(SocketAddr::is_ipv6);
    let is_first = |address: &SocketAddr| Some(address.is_ipv6()) == family;
    let (first, second): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::with_capacity(addresses.len().min(MOST));
    while turns.len() < MOST {
        let before = turns.len();
        turns.extend(first.next());
        turns.extend(second.next());
        if turns.len() == before {
            break;
        }
    }
    turns
}

fn worse(before: Option<io::Error>, error: io::Error) -> io::Error {
    match before {
        Some(before) if error.kind() != io::ErrorKind::ConnectionRefused => before,
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::upstream::egress::race::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_first_one_begins() {
        for (given, expected) in [
            (&[][..], &[][..]),
            (&["1.1.1.1:1"], &["1.1.1.1:1"]),
            (
                &["[::1]:1", "[::2]:1", "1.1.1.1:1", "1.1.1.2:1"],
                &["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1"],
            ),
            (
                &["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1", "[::1]:1"],
                &["1.1.1.1:1", "[::1]:1", "1.1.1.2:1", "1.1.1.3:1"],
            ),
        ] {
            assert_eq!(in_turns(&addresses(given)), addresses(expected));
        }
        let many: Vec<SocketAddr> = (0..100).map(|n| ([10, 0, 0, n], 1).into()).collect();
        assert_eq!(in_turns(&many), many[..MOST]);
    }

    /// A closed port.
    async fn gone() -> SocketAddr {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_refusal_starts_the_next_one_at_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let here = listener.local_addr().unwrap();
        let mut addresses = vec![gone().await; MOST - 1];
        addresses.push(here);
        // Waiting after each refusal would take almost four times as long.
        let stream = timeout(AHEAD * 4, race(&addresses)).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
    }

    #[tokio::test]
    async fn only_one_connection_is_made_if_the_first_succeeds() {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = [first.local_addr().unwrap(), second.local_addr().unwrap()];
        let stream = race(&addresses).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[0]);
        assert!(timeout(Duration::ZERO, second.accept()).await.is_err());
    }

    #[tokio::test]
    async fn where_all_fail_a_refusal_says_most() {
        let (refused, other) = (io::ErrorKind::ConnectionRefused, io::ErrorKind::HostUnreachable);
        for (kinds, expected) in
            [([refused, other], refused), ([other, refused], refused), ([other, other], other)]
        {
            let mut failure = None;
            for kind in kinds {
                failure = Some(worse(failure, kind.into()));
            }
            assert_eq!(failure.unwrap().kind(), expected, "{kinds:?}");
        }
        let error = race(&[gone().await, gone().await]).await.unwrap_err();
        assert_eq!(error.kind(), refused);
        assert!(race(&[]).await.is_err());
    }
}
