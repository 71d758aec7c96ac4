//! Formats errors: with their causes in one line, and without names that mean nothing to users.

use std::error::Error;
use std::io;

/// `error` and its causes, separated by colons, without causes that the preceding message ends with.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

/// An error without the name of the temporary file that the crate `tempfile` adds: the user knows only the file that was to
/// be written.
pub(crate) fn without_temporary_name(error: io::Error) -> io::Error {
    // It is only in the text.
    match error.to_string().split_once(" at path \"") {
        Some((cause, _)) => io::Error::new(error.kind(), cause),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use crate::error_chain::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn each_cause_is_shown_once() {
        let layer = |message, cause| Layer(message, Some(Box::new(cause)));
        let error = layer("no answer", layer("lost: connection reset", Layer("connection reset", None)));
        assert_eq!(with_causes(&error), "no answer: lost: connection reset");
    }
}
