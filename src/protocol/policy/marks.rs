//! Properties of responses that hooks look for.

use http::{HeaderMap, HeaderName, StatusCode};

/// A response matches if it has any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Statuses.
    pub status: Vec<StatusCode>,
    /// Headers, whatever their values.
    pub header: Vec<HeaderName>,
}

/// What a response matched by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Its status.
    Status,
    /// This header.
    Field(HeaderName),
}

impl Marks {
    /// The first of these that a response matches.
    pub fn found(&self, status: StatusCode, headers: &HeaderMap) -> Option<Mark> {
        if self.status.contains(&status) {
            return Some(Mark::Status);
        }
        self.header.iter().find(|name| headers.contains_key(*name)).cloned().map(Mark::Field)
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::policy::marks::*;

    #[test]
    fn marks_are_any_one_of_them() {
        let marks = Marks {
            status: vec![StatusCode::GONE, StatusCode::OK],
            header: vec![HeaderName::from_static("x-old"), HeaderName::from_static("rdn-cost")],
        };
        let mut fields = HeaderMap::new();
        assert_eq!(marks.found(StatusCode::NOT_FOUND, &fields), None);
        assert_eq!(marks.found(StatusCode::GONE, &fields), Some(Mark::Status));
        fields.insert("rdn-cost", http::HeaderValue::from_static("3"));
        assert_eq!(
            marks.found(StatusCode::NOT_FOUND, &fields),
            Some(Mark::Field(HeaderName::from_static("rdn-cost")))
        );
        assert_eq!(Marks::default().found(StatusCode::OK, &fields), None);
    }
}
