//! The tokens that open routes: that of routes, and those of clients. Browsers do not mark cross-site requests to
//! `tollpass.local` or to network addresses, so there the path of a route starts with a token that pages of other sites
//! cannot guess.

use std::fmt;

use crate::proxy::extensions::RequestClient;

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
        has(url, &self.segment)
    }
}

/// A token at the start of a path: that of routes, or that of a client.
#[derive(Clone)]
pub(super) struct PathToken {
    /// As the request has it, with a leading slash.
    segment: String,
    /// Whose it is; absent for the token of routes.
    pub(super) client: Option<RequestClient>,
}

impl PathToken {
    /// The token of `client` in a path segment, or without one that of routes.
    pub(super) fn new(segment: &str, client: Option<RequestClient>) -> Self {
        Self { segment: format!("/{segment}"), client }
    }

    /// Whether a URL in a header has it.
    pub(super) fn is_in(&self, url: &[u8]) -> bool {
        has(url, &self.segment)
    }

    /// A prefix, preceded by it.
    pub(super) fn before(&self, prefix: &str) -> String {
        format!("{}{prefix}", self.segment)
    }
}

/// The first segment of a path, without its slash, and the rest, which is empty or starts with a slash.
pub(super) fn first_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

fn has(url: &[u8], segment: &str) -> bool {
    url.windows(segment.len()).any(|part| part == segment.as_bytes())
}

impl fmt::Debug for RouteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouteToken")
    }
}

impl fmt::Debug for PathToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PathToken").field(&self.client.as_ref().map(RequestClient::name)).finish()
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
        let in_path = PathToken::new("c0ffee", None);
        assert_eq!(in_path.before("/a"), "/c0ffee/a");
        assert!(
            token.is_in(b"http://127.0.0.1:8402/c0ffee/a") && !token.is_in(b"http://127.0.0.1:8402/c0ffe")
        );
        assert!(in_path.is_in(b"http://127.0.0.1:8402/c0ffee"));
        assert!(!format!("{token:?}{in_path:?}").contains("c0ffee"));
    }

    #[test]
    fn a_path_has_a_first_segment_and_a_rest() {
        for (path, expected) in [
            ("/a/b/c", Some(("a", "/b/c"))),
            ("/a", Some(("a", ""))),
            ("/a/", Some(("a", "/"))),
            ("/", Some(("", ""))),
            ("//a", Some(("", "/a"))),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(first_segment(path), expected, "{path}");
        }
    }
}
