//! The kinds of values that a key can hold, each read from what the file or a variable gives.

use std::{
    fmt,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ::config::{Value, ValueKind};
use http::{HeaderName, StatusCode, Uri};
use zeroize::Zeroizing;

use super::section::{Wrong, kind, quoted};
use crate::protocol::{Address, Amount, Wei};

/// The address of a node's JSON-RPC. It may hold credentials, so that only [`RpcUrl::expose`] shows it whole.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcUrl {
    whole: Zeroizing<String>,
    shown: String,
}

/// Why a text is not an [`RpcUrl`]. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an http:// or https:// address of a node")]
pub struct NotAnRpcUrl;

impl RpcUrl {
    /// The whole address, credentials included: for the connection only, never for a log.
    pub fn expose(&self) -> &str {
        &self.whole
    }
}

impl FromStr for RpcUrl {
    type Err = NotAnRpcUrl;

    fn from_str(text: &str) -> Result<Self, NotAnRpcUrl> {
        let uri: http::Uri = text.parse().map_err(|_| NotAnRpcUrl)?;
        let scheme =
            uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or(NotAnRpcUrl)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(NotAnRpcUrl)?;
        let shown = match uri.port() {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        Ok(Self { whole: Zeroizing::new(text.to_owned()), shown })
    }
}

impl fmt::Display for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Where relative paths and `~/` start.
pub(super) struct Places {
    /// The folder of the file, or the working directory.
    pub folder: PathBuf,
    /// The user's home, if known.
    pub home: Option<PathBuf>,
}

impl Places {
    /// A path: absolute, in the home (`~/`), or relative to the folder of the file.
    pub(super) fn path(&self, value: &Value) -> Result<PathBuf, Wrong> {
        let text = text(value)?;
        let Some(below_home) = text.strip_prefix("~/").or((text == "~").then_some("")) else {
            // Components drop what means nothing (`./`), so that messages stay readable.
            return Ok(self
                .folder
                .join(text)
                .components()
                .filter(|part| *part != Component::CurDir)
                .collect());
        };
        let home = self.home.as_deref().ok_or_else(|| {
            Wrong::new(format!("{} needs HOME, which is not set", quoted(text)), "write an absolute path")
        })?;
        Ok(Path::new(home).join(below_home))
    }
}

/// A text.
pub(super) fn text(value: &Value) -> Result<&str, Wrong> {
    match &value.kind {
        ValueKind::String(text) => Ok(text.trim()),
        other => Err(Wrong::new(format!("expected a text, found {}", kind(other)), "write it in \"quotes\"")),
    }
}

/// True or false, bare or as a text (a variable has nothing else).
pub(super) fn boolean(value: &Value) -> Result<bool, Wrong> {
    match &value.kind {
        ValueKind::Boolean(claim) => Ok(*claim),
        ValueKind::String(text) if text.trim() == "true" => Ok(true),
        ValueKind::String(text) if text.trim() == "false" => Ok(false),
        other => {
            Err(Wrong::new(format!("expected true or false, found {}", kind(other)), "write true or false"))
        }
    }
}

/// A whole number from 0, bare or as a text.
pub(super) fn integer(value: &Value) -> Result<u64, Wrong> {
    let found = match &value.kind {
        ValueKind::I64(number) => u64::try_from(*number).map_err(|_| number.to_string()),
        ValueKind::String(text) => text.trim().parse().map_err(|_| quoted(text)),
        other => Err(kind(other).to_owned()),
    };
    found.map_err(|found| Wrong::new(format!("expected a whole number, found {found}"), "write digits only"))
}

/// A whole number that fits in 32 bits.
pub(super) fn small_integer(value: &Value) -> Result<u32, Wrong> {
    let number = integer(value)?;
    u32::try_from(number)
        .map_err(|_| Wrong::new(format!("{number} is out of range"), format!("write at most {}", u32::MAX)))
}

/// An amount in base units, an integer or a text of digits.
pub(super) fn amount(value: &Value) -> Result<Amount, Wrong> {
    let remedy = "write a whole number of base units; put one above 9223372036854775807 in \"quotes\"";
    match &value.kind {
        ValueKind::I64(units) => u64::try_from(*units)
            .map(Amount::from)
            .map_err(|_| Wrong::new(format!("{units} is negative"), remedy)),
        ValueKind::String(text) => {
            text.trim().parse().map_err(|error| Wrong::new(format!("{} is {error}", quoted(text)), remedy))
        }
        other => Err(Wrong::new(format!("expected an amount, found {}", kind(other)), remedy)),
    }
}

/// An amount of ether in wei: a whole number of wei, or a text with a unit (`wei`, `gwei`, `ETH`).
pub(super) fn wei(value: &Value) -> Result<Wei, Wrong> {
    let remedy = "write a number and its unit in \"quotes\", such as \"0.05 ETH\", \"300 gwei\" or \"21000 wei\"; a bare \
                  integer is wei";
    let found = match &value.kind {
        ValueKind::I64(number) => u128::try_from(*number).map(Wei).map_err(|_| number.to_string()),
        ValueKind::String(text) => text.trim().parse().map_err(|_| quoted(text)),
        other => Err(kind(other).to_owned()),
    };
    found.map_err(|found| Wrong::new(format!("expected an amount of ether, found {found}"), remedy))
}

/// A duration with its unit, such as `5s`, `1m 30s` or `250ms`.
pub(super) fn duration(value: &Value) -> Result<Duration, Wrong> {
    let remedy = "write a number and its unit in \"quotes\", such as \"5s\", \"250ms\" or \"5m\"";
    match &value.kind {
        ValueKind::String(text) => humantime::parse_duration(text.trim()).map_err(|error| {
            Wrong::new(format!("{} is not a valid duration: {error}", quoted(text)), remedy)
        }),
        other => Err(Wrong::new(format!("expected a duration, found {}", kind(other)), remedy)),
    }
}

/// A number of bytes: an integer, or a text with a unit (`B`, `KB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`).
pub(super) fn size(value: &Value) -> Result<u64, Wrong> {
    let remedy = "write a number of bytes, or one with its unit in \"quotes\", such as \"64KiB\" or \"10MB\"";
    let found = match &value.kind {
        ValueKind::I64(number) => u64::try_from(*number).map_err(|_| number.to_string()),
        ValueKind::String(text) => bytes(text.trim()).ok_or_else(|| quoted(text)),
        other => Err(kind(other).to_owned()),
    };
    found.map_err(|found| Wrong::new(format!("expected a size, found {found}"), remedy))
}

/// An IP address and a port.
pub(super) fn socket(value: &Value) -> Result<SocketAddr, Wrong> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        Wrong::new(
            format!("{} is not an IP address with a port", quoted(text)),
            "write one such as \"127.0.0.1:8402\" or \"[::1]:8402\"",
        )
    })
}

/// The address of an account or a contract.
pub(super) fn address(value: &Value) -> Result<Address, Wrong> {
    let text = text(value)?;
    text.parse().map_err(|error| {
        Wrong::new(format!("{}: {error}", quoted(text)), "write 0x and 40 hexadecimal digits in \"quotes\"")
    })
}

/// Addresses: a list, or a text with commas between (a variable has nothing else).
pub(super) fn addresses(value: &Value) -> Result<Vec<Address>, Wrong> {
    match &value.kind {
        ValueKind::Array(items) => items.iter().map(address).collect(),
        other => Err(Wrong::new(
            format!("expected a list of addresses, found {}", kind(other)),
            "write [\"0x...\", \"0x...\"]",
        )),
    }
}

/// A list, or a text with commas between (a variable has nothing else).
pub(super) fn list<T>(
    value: &Value,
    longest: usize,
    read: impl Fn(&Value) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let items = match &value.kind {
        ValueKind::Array(items) => items.clone(),
        ValueKind::String(text) => text.split(',').map(|item| item.trim().to_owned().into()).collect(),
        other => {
            return Err(Wrong::new(
                format!("expected a list, found {}", kind(other)),
                "write it in [brackets]",
            ));
        }
    };
    match items.len() {
        0 => Err(Wrong::new("an empty list", "name one at least, or leave the key out")),
        count if count > longest => {
            Err(Wrong::new(format!("{count} are too many"), format!("name at most {longest}")))
        }
        _ => items.iter().map(read).collect(),
    }
}

/// A status that an answer can have.
pub(super) fn status(value: &Value) -> Result<StatusCode, Wrong> {
    let number = integer(value)?;
    let status = u16::try_from(number).ok().filter(|number| (200..600).contains(number));
    status.and_then(|number| StatusCode::from_u16(number).ok()).ok_or_else(|| {
        Wrong::new(format!("{number} is not a valid response status"), "write something from 200 to 599")
    })
}

/// The name of a field.
pub(super) fn field_name(value: &Value) -> Result<HeaderName, Wrong> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        Wrong::new(format!("{} is not a valid header name", quoted(text)), "write one such as \"x-name\"")
    })
}

/// The URL of a program to ask. The faults do not quote it: it may hold a secret.
pub(super) fn webhook(value: &Value) -> Result<Uri, Wrong> {
    let remedy = "write one such as \"http://127.0.0.1:9000/\"";
    let wrong = || Wrong::new("not an http:// URL", remedy);
    let url: Uri = text(value)?.parse().map_err(|_| wrong())?;
    let authority = url.authority().filter(|_| url.scheme_str() == Some("http")).ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err(Wrong::new("user names in a URL are not sent", "put a secret into the path"));
    }
    if authority.host().is_empty() { Err(wrong()) } else { Ok(url) }
}

/// Shows a size with the largest unit that leaves a whole number.
pub(super) fn show_size(bytes: u64) -> String {
    [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, bits)| bytes >= 1 << bits && bytes.trailing_zeros() >= *bits)
        .map_or_else(|| bytes.to_string(), |(unit, bits)| format!("{}{unit}", bytes >> bits))
}

/// Shows a duration as it is written in the file.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use crate::config::values::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("64KiB", Some(65_536)),
            ("10MB", Some(10_000_000)),
            ("1 GiB", Some(1 << 30)),
            ("2gb", Some(2_000_000_000)),
            ("7B", Some(7)),
            ("", None),
            ("KiB", None),
            ("-1", None),
            ("1.5MB", None),
            ("1TB", None),
            ("99999999999999999999", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(show_size(65_536), "64KiB");
        assert_eq!(show_size(10_000_000), "10000000");
    }

    #[test]
    fn an_rpc_url_shows_no_secret() {
        let url: RpcUrl = "https://user:secret@node.example:8545/v3/secret?key=secret".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://node.example:8545 https://node.example:8545");
        assert!(url.expose().contains("secret"));
        let bare: RpcUrl = "http://[::1]".parse().unwrap();
        assert_eq!(bare.to_string(), "http://[::1]");
        for text in ["", "node", "node:8545", "ws://node", "/path", "http://", "http:// x", "ftp://node"] {
            assert_eq!(text.parse::<RpcUrl>(), Err(NotAnRpcUrl), "{text}");
        }
    }
}
