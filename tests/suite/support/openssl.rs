//! The real openssl: a second opinion on certificates, and keys as users make them.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs openssl in a directory; what it writes to standard output. Panics where it fails.
pub fn openssl(directory: &Path, arguments: &[&str]) -> String {
    let (is_good, said) = try_openssl(directory, arguments);
    assert!(is_good, "openssl {arguments:?}: {said}");
    said
}

/// The same; whether it succeeded, and what it wrote.
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
