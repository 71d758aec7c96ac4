//! The token of routes. Browsers do not mark cross-site requests to `tollpass.local` or to network addresses, so there the
//! path of a route starts with a token that pages of other sites cannot guess.

use std::fmt;

/// The first path segment of a route at hosts that browsers do not protect.
#[derive(Clone)]
pub struct RouteToken {
    /// With a leading slash.
    segment: String,
    /// Whether routes need it at every host.
    is_required: bool,
}

impl RouteToken {
    /// `text` must be valid as a path segment.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { segment: format!("/{text}"), is_required: false }
    }

    /// The same, needed at every host if `is_required` is true: it then replaces proxy authentication.
    #[must_use]
    pub fn required(self, is_required: bool) -> Self {
        Self { is_required, ..self }
    }

    pub(super) fn is_required(&self) -> bool {
        self.is_required
    }

    /// The rest of a path that starts with the token.
    pub(super) fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (start, rest) = path.split_at_checked(self.segment.len())?;
        let pairs = start.bytes().zip(self.segment.bytes());
        // Compare in constant time.
        let difference = pairs.fold(0, |difference, (one, other)| difference | (one ^ other));
        (difference == 0 && (rest.is_empty() || rest.starts_with('/'))).then_some(rest)
    }

    /// Whether a URL in a header has the token.
    pub(super) fn is_in(&self, url: &[u8]) -> bool {
        url.windows(self.segment.len()).any(|part| part == self.segment.as_bytes())
    }

    /// A prefix, preceded by the token.
    pub(super) fn before(&self, prefix: &str) -> String {
        format!("{}{prefix}", self.segment)
    }
}

impl fmt::Debug for RouteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouteToken")
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::frontend::token::*;

    #[test]
    fn a_path_has_the_token_whole_or_not_at_all() {
        let token = RouteToken::new("c0ffee");
        for (path, rest) in [
            ("/c0ffee/a/b", Some("/a/b")),
            ("/c0ffee/", Some("/")),
            ("/c0ffee", Some("")),
            ("/c0ffe", None),
            ("/c0ffeee/a", None),
            ("/C0ffee/a", None),
            ("/c0ffef/a", None),
            ("/a/c0ffee", None),
            ("/c0ffe\u{e9}", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(token.strip(path), rest, "{path}");
        }
        assert_eq!(token.before("/a"), "/c0ffee/a");
        assert!(
            token.is_in(b"http://127.0.0.1:8402/c0ffee/a") && !token.is_in(b"http://127.0.0.1:8402/c0ffe")
        );
        assert!(!format!("{token:?}").contains("c0ffee"));
    }
}
