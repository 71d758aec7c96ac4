//! `Proxy-Status` (RFC 9209) of origins: what speaks in our name is removed, because clients act on our advice.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Our name in `Via` and `Proxy-Status`.
pub const PSEUDONYM: &str = "tollpass";
/// `Proxy-Status`.
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Removes the entries in our name, and keeps those of other proxies.
pub(crate) fn remove_ours(headers: &mut HeaderMap) {
    if let header::Entry::Occupied(entry) = headers.entry(PROXY_STATUS) {
        let (_, lines) = entry.remove_entry_mult();
        let kept: Vec<HeaderValue> = lines.filter_map(without_ours).collect();
        for line in kept {
            headers.append(PROXY_STATUS, line);
        }
    }
}

/// A line of `Proxy-Status` without entries in our name; `None` if nothing is left, or if its last string has no end.
fn without_ours(line: HeaderValue) -> Option<HeaderValue> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let members = line.as_bytes().split(|byte| {
        let is_end = *byte == b',' && !is_quoted;
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
        is_end
    });
    let is_other = |member: &&[u8]| {
        let name = member.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let name = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(name);
        !name.eq_ignore_ascii_case(PSEUDONYM.as_bytes())
    };
    let members: Vec<&[u8]> = members.collect();
    if is_quoted {
        // It would make the whole field unreadable, and our entry with it.
        return None;
    }
    let kept: Vec<&[u8]> = members.iter().copied().filter(is_other).collect();
    if kept.len() == members.len() {
        return Some(line);
    }
    HeaderValue::from_bytes(kept.join(&b","[..]).trim_ascii()).ok().filter(|line| !line.is_empty())
}
