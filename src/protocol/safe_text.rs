//! What a seller wrote, made safe to show.

/// At most this many characters of `text`, with `?` for what is not printable ASCII: it may be meant for a terminal, or for a
/// reader from right to left.
pub fn safe_text(text: &str, most: usize) -> String {
    let safe = |letter: char| if matches!(letter, ' '..='~') { letter } else { '?' };
    text.chars().take(most).map(safe).collect()
}

/// Names in a row.
pub fn in_a_row(names: &[String]) -> String {
    if names.is_empty() { "there is none".to_owned() } else { names.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_printable_ascii_is_left() {
        assert_eq!(safe_text("USD Coin\u{1b}[2J\n\u{202e}é", 100), "USD Coin?[2J???");
        assert_eq!(safe_text(&"x".repeat(1000), 3), "xxx");
    }
}
