//! The real openssl: independent verification of certificates, and keys as users create them.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs openssl in a directory and returns its standard output. Panics if it fails.
pub fn openssl(directory: &Path, arguments: &[&str]) -> String {
    let (is_good, said) = try_openssl(directory, arguments);
    assert!(is_good, "openssl {arguments:?}: {said}");
    said
}

/// The same, returning whether it succeeded, and its output.
pub fn try_openssl(directory: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| {
        panic!("these tests need the program openssl in PATH (apt-get install openssl): {error}")
    });
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}
