//! Environment variables of tollpass.

/// The prefix of variables that set keys.
pub const ENVIRONMENT_PREFIX: &str = "TOLLPASS_";

/// Variables with that prefix that are not keys: the keystore's password, the log, the command line, and
/// the number of the `tollpass run` around a command.
pub const OTHER_VARIABLES: &[&str] = &[
    "TOLLPASS_WALLET_PASSWORD",
    "TOLLPASS_LOG",
    "TOLLPASS_LOG_FORMAT",
    "TOLLPASS_CONFIG",
    "TOLLPASS_RUN",
    crate::failpoint::VARIABLE,
    crate::failpoint::PANIC_VARIABLE,
];

/// The environment variable of a key.
pub(super) fn variable(path: &str) -> String {
    format!("{}{}", ENVIRONMENT_PREFIX, path.to_ascii_uppercase().replace('.', "__"))
}
