//! Basic credentials of `Proxy-Authorization`. RFC 7617.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::HeaderValue;
use zeroize::Zeroizing;

/// The longest encoded credentials to decode, far above those of any client.
const LONGEST: usize = 4096;

/// A user name and a password.
pub(super) struct Credentials {
    /// `name:token`.
    pair: Zeroizing<String>,
    /// The position of the first colon.
    colon: usize,
}

impl Credentials {
    /// Parses a header; `None` if it does not hold valid Basic credentials.
    pub(super) fn parse(header: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = header.to_str().ok()?.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Basic") || encoded.len() > LONGEST {
            return None;
        }
        let decoded = Zeroizing::new(BASE64_STANDARD.decode(encoded.trim_start()).ok()?);
        let pair = Zeroizing::new(std::str::from_utf8(&decoded).ok()?.to_owned());
        let colon = pair.find(':')?;
        Some(Self { pair, colon })
    }

    pub(super) fn name(&self) -> &str {
        self.pair.get(..self.colon).unwrap_or_default()
    }

    pub(super) fn token(&self) -> &[u8] {
        self.pair.as_bytes().get(self.colon + 1..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::authenticator::credentials::*;

    #[test]
    fn only_basic_credentials_are_read() {
        let long = format!("Basic {}", "YTpi".repeat(LONGEST / 4 + 1));
        for (header, expected) in [
            ("Basic YTpi", Some(("a", "b"))),
            ("basic  YTpi ", Some(("a", "b"))),
            ("BASIC YTpiOmM=", Some(("a", "b:c"))),
            ("Basic Og==", Some(("", ""))),
            ("Basic YWI=", None),
            ("Basic YTpi=", None),
            ("Basic YTp_", None),
            ("Basic", None),
            ("Basic ", None),
            ("Basic YTpi YTpi", None),
            ("Bearer YTpi", None),
            ("BasicYTpi", None),
            ("Basic /zpi", None),
            ("", None),
            (&long, None),
        ] {
            let read = Credentials::parse(&HeaderValue::from_str(header).unwrap());
            let read = read.map(|read| (read.name().to_owned(), read.token().to_owned()));
            let expected = expected.map(|(name, token)| (name.to_owned(), token.as_bytes().to_owned()));
            assert_eq!(read, expected, "{header}");
        }
    }
}
