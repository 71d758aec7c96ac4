//! `Via`: our entry, and requests that come back to us. RFC 9110 section 7.6.3.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Uri, Version};

pub use super::proxy_status::PSEUDONYM;
use super::target;
use super::target::hash_caseless;

/// Seeded at random, so that no other process has the same marks.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Our `Via` entry for a request to `target` received in `version`. Its mark identifies the request if it comes back, and
/// differs for each origin, so that origins cannot correlate clients.
pub(crate) fn via(target: &Uri, version: Version) -> HeaderValue {
    let Some(authority) = target.authority() else { return entry(target, version) };
    let scheme = target.scheme();
    LAST.with_borrow_mut(|last| match last {
        Some(last) if last.is_for(scheme, authority, version) => last.entry.clone(),
        _ => {
            let entry = entry(target, version);
            let (scheme, authority) = (scheme.cloned(), authority.clone());
            last.insert(LastEntry { scheme, authority, version, entry }).entry.clone()
        }
    })
}

thread_local! {
    /// Requests to one origin often follow each other.
    static LAST: RefCell<Option<LastEntry>> = const { RefCell::new(None) };
}

/// The entry for the last request of a thread.
struct LastEntry {
    scheme: Option<Scheme>,
    authority: Authority,
    version: Version,
    entry: HeaderValue,
}

impl LastEntry {
    fn is_for(&self, scheme: Option<&Scheme>, authority: &Authority, version: Version) -> bool {
        self.version == version
            && self.authority.as_str() == authority.as_str()
            && self.scheme.as_ref() == scheme
    }
}

fn entry(target: &Uri, version: Version) -> HeaderValue {
    // Copied together, because formatting costs each request several times as much.
    let mut entry = *b"1.1 tollpass (0000000000000000)";
    entry[..3].copy_from_slice(number_of(version));
    entry[14..30].copy_from_slice(&hex(mark(target)));
    // Always a valid header value.
    HeaderValue::from_bytes(&entry).unwrap_or(HeaderValue::from_static(PSEUDONYM))
}

fn hex(mark: u64) -> [u8; 16] {
    std::array::from_fn(|index| b"0123456789abcdef"[(mark >> (60 - 4 * index)) as usize & 0xf])
}

/// Whether a request to `target` has passed through this process before.
pub(crate) fn has_passed(headers: &HeaderMap, target: &Uri) -> bool {
    if !headers.contains_key(header::VIA) {
        return false;
    }
    let mark = format!("{PSEUDONYM} ({:016x})", mark(target));
    let mut lines = headers.get_all(header::VIA).iter();
    lines.any(|line| line.as_bytes().windows(mark.len()).any(|part| part == mark.as_bytes()))
}

/// A mark that is unique to this process and the origin. It is not a secret.
fn mark(target: &Uri) -> u64 {
    let mut hasher = SEED.build_hasher();
    let (host, port) = target::host_and_port(target);
    hash_caseless(host, &mut hasher);
    hasher.write_u16(port);
    hasher.finish()
}

/// Adds our entry to the `Via` of a response, which needs no mark.
pub(crate) fn add_via(headers: &mut HeaderMap, version: Version) {
    let entry = match version {
        Version::HTTP_10 => "1.0 tollpass",
        Version::HTTP_2 => "2.0 tollpass",
        _ => "1.1 tollpass",
    };
    headers.append(header::VIA, HeaderValue::from_static(entry));
}

fn number_of(version: Version) -> &'static [u8; 3] {
    match version {
        Version::HTTP_10 => b"1.0",
        Version::HTTP_2 => b"2.0",
        _ => b"1.1",
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::message::via::*;

    #[test]
    fn via_knows_its_own_and_shows_each_origin_another_one() {
        let target = |text: &str| text.parse::<Uri>().unwrap();
        let (bob, carol) = (target("http://Bob.example/x"), target("http://carol.example/"));
        let elsewhere = HeaderValue::from_static("1.0 elsewhere, 1.1 tollpass (0000000000000000)");
        let mut some = HeaderMap::from_iter([(header::VIA, elsewhere)]);
        assert!(!has_passed(&some, &bob));
        let entry = via(&bob, Version::HTTP_10);
        assert!(entry.to_str().unwrap().starts_with("1.0 tollpass ("), "{entry:?}");
        some.append("via", entry.clone());
        let mark = format!("1.0 {PSEUDONYM} ({:016x})", mark(&bob));
        assert_eq!(entry, mark);
        assert!(has_passed(&some, &bob));
        assert!(has_passed(&some, &target("bob.example:80")));
        assert!(!has_passed(&some, &target("https://bob.example/")));
        assert!(!has_passed(&some, &carol));
        assert_ne!(via(&carol, Version::HTTP_10), entry);
        assert!(via(&bob, Version::HTTP_2).to_str().unwrap().starts_with("2.0 tollpass ("));
    }
}
