//! The text of a node or a signer, as far as tollpass repeats it.

/// The longest part to repeat, in characters.
pub(super) const MAX_REPEATED: usize = 300;

/// The text without control characters, so that it stays in one line.
pub(super) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The beginning of a longer text.
pub(super) fn truncated(text: String) -> String {
    match text.char_indices().nth(MAX_REPEATED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
