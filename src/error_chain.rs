//! Formats errors with their causes in one line.

use std::error::Error;

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
