//! The token of routes. A browser treats a page of `tollpass.local` or of a network address like one of any other host, so
//! pages of other sites can reach a route there without a mark. There its path begins with a token that they cannot guess.

use std::fmt;

/// What the path of a route begins with, wherever browsers do not protect it.
#[derive(Clone)]
pub struct Token {
    /// With a slash before it.
    segment: String,
}

impl Token {
    /// From its text, which must be usable as a segment of a path.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { segment: format!("/{text}") }
    }

    /// What follows the token in a path that begins with it.
    pub(super) fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (start, rest) = path.split_at_checked(self.segment.len())?;
        let pairs = start.bytes().zip(self.segment.bytes());
        // How long it takes must not tell how much of a guess is right.
        let difference = pairs.fold(0, |difference, (one, other)| difference | (one ^ other));
        (difference == 0 && (rest.is_empty() || rest.starts_with('/'))).then_some(rest)
    }

    /// A prefix with the token before it.
    pub(super) fn before(&self, prefix: &str) -> String {
        format!("{}{prefix}", self.segment)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::frontend::token::*;

    #[test]
    fn a_path_has_the_token_whole_or_not_at_all() {
        let token = Token::new("c0ffee");
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
        assert!(!format!("{token:?}").contains("c0ffee"));
    }
}
