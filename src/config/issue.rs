//! What is wrong with a configuration and how to correct it.

use std::{fmt, path::PathBuf};

/// The configuration is invalid. Holds every issue that was found, not only the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// At least one.
    pub issues: Vec<ConfigIssue>,
}

/// One error in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigIssue {
    /// The path of the key, such as `chain.rpc_url` or `pay[0].host`; empty for the file as a whole.
    pub key: String,
    /// What is wrong. Never quotes a value that may contain a secret.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
    /// The line of the key in the file, or of its table; `None` if it is not from the file.
    pub line: Option<usize>,
}

impl ConfigIssue {
    /// An issue with the key at the path `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into(), remedy: remedy.into(), line: None }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    /// A summary, then two lines for each issue.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{} is invalid", file.display())?,
            None => f.write_str("the configuration is invalid")?,
        }
        match self.issues.len() {
            1 => f.write_str(": 1 error")?,
            many => write!(f, ": {many} errors")?,
        }
        for ConfigIssue { key, problem, remedy, line } in &self.issues {
            f.write_str("\n  ")?;
            if let Some(line) = line {
                write!(f, "line {line}: ")?;
            }
            if !key.is_empty() {
                write!(f, "{key}: ")?;
            }
            write!(f, "{problem}\n    -> {remedy}")?;
        }
        Ok(())
    }
}

/// The longest key that is compared with known ones: a file may contain keys of any length.
const LONGEST_TYPO: usize = 64;

/// The name in `known` that `written` is most likely a typo of, if one is close enough.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > LONGEST_TYPO {
        return None;
    }
    let written = written.to_ascii_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&written, &name.to_ascii_lowercase()), name))
        .filter(|&(distance, name)| distance <= name.len() / 3)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use crate::config::issue::*;

    #[test]
    fn suggests_only_similar_names() {
        let known = ["listen", "state_dir", "rpc_url"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("lsiten", known), Some("listen"));
        assert_eq!(nearest("RPC_URL", known), Some("rpc_url"));
        assert_eq!(nearest("statedir", known), Some("state_dir"));
        assert_eq!(nearest("usd", ["RDN", "USDC"]), Some("USDC"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"l".repeat(1_000_000), known), None);
    }
}
