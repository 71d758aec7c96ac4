//! Environment variables of tollpass.

/// The prefix of variables that set keys.
pub const ENVIRONMENT_PREFIX: &str = "TOLLPASS_";

/// Variables with that prefix that are not keys: the keystore's password and the file that contains it, the log, the
/// command line, and the number of the `tollpass run` around a command.
pub const OTHER_VARIABLES: &[&str] = &[
    "TOLLPASS_WALLET_PASSWORD",
    "TOLLPASS_WALLET_PASSWORD_FILE",
    "TOLLPASS_LOG",
    "TOLLPASS_LOG_FORMAT",
    "TOLLPASS_CONFIG",
    "TOLLPASS_RUN",
    crate::failpoint::VARIABLE,
    crate::failpoint::PANIC_VARIABLE,
];

/// What is added to a problem with a value from a variable.
pub(super) fn from_variable(name: &str) -> String {
    format!(" (from {name})")
}

/// The environment variable of a key, such as `TOLLPASS_PAY__0__HOST` of `pay[0].host`.
pub(super) fn variable(path: &str) -> String {
    let name = path.to_ascii_uppercase().replace(['.', '['], "__").replace(']', "");
    format!("{ENVIRONMENT_PREFIX}{name}")
}
