//! What is wrong with a configuration, said so that it can be put right. Knows nothing of the keys themselves.

use std::{fmt, path::PathBuf};

/// The configuration cannot be used. Holds every fault that was found, not only the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// At least one.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key's path, such as `chain.rpc_url` or `pay[0].host`; empty where the file as a whole is meant.
    pub key: String,
    /// What is wrong with it. Never quotes a value that may hold a secret.
    pub wrong: String,
    /// What to write instead.
    pub remedy: String,
}

impl Fault {
    /// A fault at the key `key`.
    pub(super) fn new(key: impl Into<String>, wrong: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: key.into(), wrong: wrong.into(), remedy: remedy.into() }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    /// One line on the whole, then two lines for each fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{} cannot be used", file.display())?,
            None => f.write_str("the configuration cannot be used")?,
        }
        match self.faults.len() {
            1 => f.write_str(": 1 fault")?,
            many => write!(f, ": {many} faults")?,
        }
        for fault in &self.faults {
            f.write_str("\n  ")?;
            if !fault.key.is_empty() {
                write!(f, "{}: ", fault.key)?;
            }
            write!(f, "{}\n    -> {}", fault.wrong, fault.remedy)?;
        }
        Ok(())
    }
}

/// The one of `known` that `written` is most likely a slip of, if any is near enough.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A file may hold a key of any length; a long one is no slip of ours.
    if written.len() > 64 {
        return None;
    }
    let written = written.to_ascii_lowercase();
    known
        .into_iter()
        .map(|name| (distance(&written, name), name))
        .filter(|&(distance, name)| distance <= name.len() / 3)
        .min()
        .map(|(_, name)| name)
}

/// How many letters must be put in, taken out or changed to make one word the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, &wanted) in row.iter_mut().skip(1).zip(&other) {
            let above = *cell;
            left = (diagonal + usize::from(letter != wanted)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        row[0] = i + 1;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::config::fault::*;

    #[test]
    fn counts_edits() {
        for (one, other, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("listen", "listen", 0),
            ("lisen", "listen", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), edits, "{one} {other}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["listen", "state_dir", "rpc_url"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("RPC_URL", known), Some("rpc_url"));
        assert_eq!(nearest("statedir", known), Some("state_dir"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"l".repeat(1_000_000), known), None);
    }
}
