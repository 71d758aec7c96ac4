//! Paths without tokens: the ledger is kept for long, and some paths grant access to anyone who knows them.

/// The longest path in the ledger, in bytes.
const MAX_PATH: usize = 256;
/// The longest segment that is kept, in bytes.
const MAX_SEGMENT: usize = 64;
/// Replaces a segment that may be a token.
const REMOVED: &str = "*";

/// The path with `*` for each segment that may be a token, cut to a limited length.
pub(super) fn public_path(path: &str) -> String {
    let mut public = String::with_capacity(path.len().min(MAX_PATH));
    let mut is_named = false;
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            public.push('/');
        }
        let name = segment.split(';').next().unwrap_or_default();
        public.push_str(if is_named || is_token(name) { REMOVED } else { name });
        is_named = !name.is_empty() && names_token(name);
        if public.len() > MAX_PATH {
            let end = (0..=MAX_PATH).rev().find(|end| public.is_char_boundary(*end)).unwrap_or_default();
            public.truncate(end);
            break;
        }
    }
    public
}

/// Whether the segment after this one is a token by its name.
fn names_token(segment: &str) -> bool {
    ["token", "key", "secret", "auth", "session", "password", "signature"].iter().any(|word| {
        segment.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    })
}

/// Whether a segment may be a token: long and without words, or with characters that names do not have.
fn is_token(segment: &str) -> bool {
    if segment.len() > MAX_SEGMENT || segment.contains(['=', '@', ':', '%', '+', '~']) {
        return true;
    }
    let is_uuid = segment.len() == 36 && segment.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uuid || segment.split(['-', '_', '.', ',']).any(is_random)
}

/// Whether a word looks random: long, with digits among letters or with capitals inside.
fn is_random(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    let (digits, lower, upper) =
        (has(u8::is_ascii_digit), has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase));
    let kinds = usize::from(digits) + usize::from(lower) + usize::from(upper);
    match word.len() {
        0..=9 => false,
        10..=11 => kinds == 3,
        12..=23 => digits,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::payments::ledger::path::*;

    #[test]
    fn words_stay_and_tokens_go() {
        for (path, public) in [
            ("/", "/"),
            ("", ""),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/news/2024-annual-report_summary.html", "/news/2024-annual-report_summary.html"),
            ("/users/a1b2c3d4-e5f6-7890-abcd-ef0123456789/items", "/users/*/items"),
            ("/f/0123456789abcdef", "/f/*"),
            ("/f/dGhpc2lzYXRva2Vu", "/f/*"),
            ("/f/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "/f/*"),
            ("/token/short/x", "/token/*/x"),
            ("/api-key/abc", "/api-key/*"),
            ("/p;jsessionid=1A2B/x", "/p/x"),
            ("/a=b/c%20d/me@example.com", "/*/*/*"),
            ("/sk_live_4eC39HqLyjWDarjtT1zdp7dc", "/*"),
        ] {
            assert_eq!(public_path(path), public, "{path}");
        }
        let long = "/abc".repeat(1000);
        assert_eq!(public_path(&long).len(), MAX_PATH);
        assert_eq!(public_path(&"/ü".repeat(500)).chars().filter(|letter| *letter == 'ü').count(), 85);
    }
}
