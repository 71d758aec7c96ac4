//! The types of values, each parsed from a value of the file or a variable.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ::config::{Value, ValueKind};
use bytesize::ByteSize;
use http::{HeaderName, StatusCode, Uri};
use zeroize::Zeroizing;

use super::key::Shape;
use super::raw_value::{FROM_ENVIRONMENT, InvalidValue, kind, quoted};
use crate::hosts::port_set::{PortSet, port_range};
use crate::private::is_secret;
use crate::protocol::address::NotAnAddress;
use crate::protocol::policy::HostPattern;
use crate::protocol::{Address, Amount, Wei};

/// The URL of a node's JSON-RPC. It may contain credentials, so only [`RpcUrl::expose`] returns it in full.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcUrl {
    whole: Zeroizing<String>,
    shown: String,
}

/// The string is not an [`RpcUrl`]. Does not quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an http:// or https:// URL of a node")]
pub struct NotAnRpcUrl;

impl RpcUrl {
    /// The full URL, including credentials: for the connection only, never for a log.
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

/// The bases of relative paths and of `~/`.
pub(super) struct BasePaths {
    /// The directory of the file, or the working directory.
    pub directory: PathBuf,
    /// The user's home directory, if known.
    pub home: Option<PathBuf>,
}

impl BasePaths {
    /// A path: absolute, in the home directory (`~/`), or relative to the directory of the file.
    pub(super) fn path(&self, value: &Value) -> Result<PathBuf, InvalidValue> {
        self.resolve(text(value)?)
    }

    /// The same, given the text.
    pub(super) fn resolve(&self, text: &str) -> Result<PathBuf, InvalidValue> {
        if is_secret(text) {
            return Err(InvalidValue::new(
                "holds the key or secret itself, not the name of a file",
                "put it in a file (chmod 600), and write the name of that file",
            ));
        }
        let Some(below_home) = text.strip_prefix("~/").or((text == "~").then_some("")) else {
            // Drops `./`, for readable messages.
            return Ok(self
                .directory
                .join(text)
                .components()
                .filter(|part| *part != Component::CurDir)
                .collect());
        };
        let home = self.home.as_deref().ok_or_else(|| {
            InvalidValue::new(
                format!("{} needs HOME, which is not set", quoted(text)),
                "write an absolute path",
            )
        })?;
        Ok(Path::new(home).join(below_home))
    }
}

/// A string.
pub(super) fn text(value: &Value) -> Result<&str, InvalidValue> {
    match &value.kind {
        ValueKind::String(text) => Ok(text.trim()),
        other => Err(InvalidValue::new(
            format!("expected a string, found {}", kind(other)),
            "write it in \"quotes\"",
        )),
    }
}

/// True or false, bare or as a string (all that a variable can hold).
pub(super) fn boolean(value: &Value) -> Result<bool, InvalidValue> {
    match &value.kind {
        ValueKind::Boolean(claim) => Ok(*claim),
        ValueKind::String(text) if text.trim() == "true" => Ok(true),
        ValueKind::String(text) if text.trim() == "false" => Ok(false),
        other => Err(InvalidValue::new(
            format!("expected true or false, found {}", kind(other)),
            "write true or false",
        )),
    }
}

/// An unsigned integer, bare or as a string.
pub(super) fn integer(value: &Value) -> Result<u64, InvalidValue> {
    let problem = match &value.kind {
        ValueKind::I64(number) => match u64::try_from(*number) {
            Ok(number) => return Ok(number),
            Err(_) => format!("{number} is negative"),
        },
        ValueKind::String(text) => match text.trim().parse() {
            Ok(number) => return Ok(number),
            Err(_) => format!("expected a whole number, found {}", quoted(text)),
        },
        other => format!("expected a whole number, found {}", kind(other)),
    };
    Err(InvalidValue::new(problem, "write digits only"))
}

/// An amount in base units: an integer, or a string of digits.
pub(super) fn amount(value: &Value) -> Result<Amount, InvalidValue> {
    let remedy = "write a whole number of base units; put one above 9223372036854775807 in \"quotes\"";
    match &value.kind {
        ValueKind::I64(units) => u64::try_from(*units)
            .map(Amount::from)
            .map_err(|_| InvalidValue::new(format!("{units} is negative"), remedy)),
        ValueKind::String(text) => text
            .trim()
            .parse()
            .map_err(|error| InvalidValue::new(format!("{} is {error}", quoted(text)), remedy)),
        other => Err(InvalidValue::new(format!("expected an amount, found {}", kind(other)), remedy)),
    }
}

/// An amount of ether in wei: a whole number of wei, or a string with a unit (`wei`, `gwei`, `ETH`).
pub(super) fn wei(value: &Value) -> Result<Wei, InvalidValue> {
    let remedy = "write a number and its unit in \"quotes\", such as \"0.05 ETH\", \"300 gwei\" or \"21000 wei\"; a bare \
                  integer is wei";
    let found = match &value.kind {
        ValueKind::I64(number) => u128::try_from(*number).map(Wei).map_err(|_| number.to_string()),
        ValueKind::String(text) => text.trim().parse().map_err(|_| quoted(text)),
        other => Err(kind(other).to_owned()),
    };
    found.map_err(|found| InvalidValue::new(format!("expected an amount of ether, found {found}"), remedy))
}

/// A duration with its unit, such as `5s`, `1m 30s` or `250ms`.
pub(super) fn duration(value: &Value) -> Result<Duration, InvalidValue> {
    let remedy = "write a number and its unit in \"quotes\", such as \"5s\", \"250ms\" or \"5m\"";
    match &value.kind {
        ValueKind::String(text) => humantime::parse_duration(text.trim()).map_err(|error| {
            InvalidValue::new(format!("{} is not a valid duration: {error}", quoted(text)), remedy)
        }),
        other => Err(InvalidValue::new(format!("expected a duration, found {}", kind(other)), remedy)),
    }
}

/// A number of bytes: an integer, or a string with a unit such as `KB` or `MiB`.
pub(super) fn size(value: &Value) -> Result<u64, InvalidValue> {
    let remedy = "write a number of bytes, or one with its unit in \"quotes\", such as \"64KiB\" or \"10MB\"";
    let found = match &value.kind {
        ValueKind::I64(number) => u64::try_from(*number).map_err(|_| number.to_string()),
        ValueKind::String(text) => {
            text.trim().parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| quoted(text))
        }
        other => Err(kind(other).to_owned()),
    };
    found.map_err(|found| InvalidValue::new(format!("expected a size, found {found}"), remedy))
}

/// An address to listen on, or only its port.
pub(super) fn socket(value: &Value) -> Result<SocketAddr, InvalidValue> {
    let number;
    let text = match &value.kind {
        ValueKind::I64(port) => {
            number = port.to_string();
            &number
        }
        _ => text(value)?,
    };
    listen_address(text).map_err(|error| {
        InvalidValue::new(
            format!("{} is {error}", quoted(text)),
            "write one such as \"127.0.0.1:8402\" or \"[::1]:8402\"; 8402 alone means 127.0.0.1:8402",
        )
    })
}

/// The string is not an address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid IP address with a port, such as 127.0.0.1:8402")]
pub struct NotAListenAddress;

/// Reads an address to listen on. A port without an address, also after a colon, and `localhost` mean 127.0.0.1; an IPv6
/// address needs no brackets.
///
/// # Errors
/// It is none of these.
pub fn listen_address(text: &str) -> Result<SocketAddr, NotAListenAddress> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    // `parse` would also accept a sign.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| is_number).ok_or(NotAListenAddress)?;
    let ip = match host {
        "" => Ipv4Addr::LOCALHOST.into(),
        name if name.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.into(),
        address => IpAddr::V6(address.parse().map_err(|_| NotAListenAddress)?),
    };
    Ok(SocketAddr::new(ip, port))
}

/// The address of an account or a contract.
pub(super) fn address(value: &Value) -> Result<Address, InvalidValue> {
    let text = text(value)?;
    text.parse().map_err(|error| {
        let remedy = match error {
            NotAnAddress::Shape => "write 0x and 40 hexadecimal digits in \"quotes\"",
            NotAnAddress::Checksum => "copy the address again",
        };
        InvalidValue::new(format!("{}: {error}", quoted(text)), remedy)
    })
}

/// A host, or a pattern for hosts. `otherwise` is what to write instead of an invalid one for which there is no better advice.
pub(super) fn host_pattern(
    value: &Value,
    otherwise: impl FnOnce(&str) -> String,
) -> Result<HostPattern, InvalidValue> {
    let text = text(value)?;
    text.parse::<HostPattern>().map_err(|error| {
        let rest = text.trim_start_matches('*').trim_start_matches('.');
        let is_name = rest.parse::<HostPattern>().is_ok_and(|host| matches!(host, HostPattern::Exactly(_)));
        let remedy = if is_name {
            format!("write {}", quoted(format!("*.{rest}")))
        } else if rest.contains('*') {
            "* can stand only at the beginning, as in \"*.example.com\"".to_owned()
        } else {
            otherwise(text)
        };
        InvalidValue::new(format!("{} is {error}", quoted(text)), remedy)
    })
}

/// A list of addresses, in a variable with commas.
pub(super) fn addresses(value: &Value) -> Result<Vec<Address>, InvalidValue> {
    match &value.kind {
        ValueKind::Array(items) => items.iter().map(address).collect(),
        ValueKind::String(text) if value.origin() == Some(FROM_ENVIRONMENT) => {
            text.split(',').map(|item| address(&item.into())).collect()
        }
        other => Err(InvalidValue::new(
            format!("expected a list of addresses, found {}", kind(other)),
            "write [\"0x...\", \"0x...\"]",
        )),
    }
}

/// A list, or a string with commas (all that a variable can hold).
pub(super) fn list<T>(
    value: &Value,
    longest: usize,
    read: impl Fn(&Value) -> Result<T, InvalidValue>,
) -> Result<Vec<T>, InvalidValue> {
    let items = match &value.kind {
        ValueKind::Array(items) => items.clone(),
        ValueKind::String(text) => text.split(',').map(|item| item.trim().to_owned().into()).collect(),
        other => {
            return Err(InvalidValue::new(
                format!("expected a list, found {}", kind(other)),
                "write it in [brackets]",
            ));
        }
    };
    match items.len() {
        0 => Err(InvalidValue::new("an empty list", "write at least one entry, or remove the key")),
        count if count > longest => Err(InvalidValue::new(
            format!("{count} entries are too many"),
            format!("write at most {longest}"),
        )),
        _ => items.iter().map(read).collect(),
    }
}

/// A port, or a range of ports.
pub(super) const PORTS: Shape =
    Shape::Any(&[Shape::Integer(1, 65_535), Shape::Text(r"^\s*\d{1,5}\s*(-\s*\d{1,5}\s*)?$")]);

/// The most entries in a list of ports.
pub(super) const MOST_PORTS: usize = 100;

/// A list of ports and ranges of ports.
pub(super) fn ports(value: &Value) -> Result<PortSet, InvalidValue> {
    let range = |value: &Value| {
        let written = match &value.kind {
            ValueKind::I64(number) => number.to_string(),
            ValueKind::String(text) => text.clone(),
            other => kind(other).to_owned(),
        };
        port_range(&written).ok_or_else(|| {
            InvalidValue::new(
                format!("{} is not a valid port or range", quoted(&written)),
                "write a value from 1 to 65535, or a range such as \"8000-8999\"",
            )
        })
    };
    Ok(PortSet::new(list(value, MOST_PORTS, range)?))
}

/// One of the words of `choices`.
pub(super) fn word<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Result<T, InvalidValue> {
    let text = text(value)?;
    choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let remedy = match words.as_slice() {
            [others @ .., last] if !others.is_empty() => format!("write {} or {last}", others.join(", ")),
            _ => format!("write {}", words.concat()),
        };
        InvalidValue::new(format!("{} is not a valid value", quoted(text)), remedy)
    })
}

/// A status that a response can have.
pub(super) fn status(value: &Value) -> Result<StatusCode, InvalidValue> {
    let number = integer(value)?;
    let status = u16::try_from(number).ok().filter(|number| (200..600).contains(number));
    status.and_then(|number| StatusCode::from_u16(number).ok()).ok_or_else(|| {
        InvalidValue::new(format!("{number} is not a valid response status"), "write a value from 200 to 599")
    })
}

/// The name of a header.
pub(super) fn header_name(value: &Value) -> Result<HeaderName, InvalidValue> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        InvalidValue::new(
            format!("{} is not a valid header name", quoted(text)),
            "write one such as \"x-name\"",
        )
    })
}

/// The URL of a webhook. Errors do not quote it: it may contain a secret.
pub(super) fn webhook(value: &Value) -> Result<Uri, InvalidValue> {
    let remedy = "write one such as \"http://127.0.0.1:9000/\"";
    let invalid = || InvalidValue::new("not an http:// URL", remedy);
    let url: Uri = text(value)?.parse().map_err(|_| invalid())?;
    let authority = url.authority().filter(|_| url.scheme_str() == Some("http")).ok_or_else(invalid)?;
    if authority.as_str().contains('@') {
        return Err(InvalidValue::new("user names in a URL are not sent", "put a secret in the path"));
    }
    if authority.host().is_empty() { Err(invalid()) } else { Ok(url) }
}

/// A size in the largest unit that needs no fraction.
pub(super) fn show_size(bytes: u64) -> String {
    [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, bits)| bytes >= 1 << bits && bytes.trailing_zeros() >= *bits)
        .map_or_else(|| bytes.to_string(), |(unit, bits)| format!("{}{unit}", bytes >> bits))
}

/// A duration as written in the file.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
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
            ("1.5MiB", Some(1_572_864)),
            ("9007199254740993B", Some(9_007_199_254_740_993)),
            ("KiB", None),
            ("-1", None),
            ("1ZB", None),
            ("1 GiB 1", None),
        ] {
            assert_eq!(size(&text.into()).ok(), expected, "{text}");
        }
        assert_eq!(show_size(65_536), "64KiB");
        assert_eq!(show_size(10_000_000), "10000000");
    }

    #[test]
    fn integers_have_digits_only() {
        for (value, expected) in [
            (Value::from(7), Ok(7)),
            ("7".into(), Ok(7)),
            (Value::from(-1), Err("-1 is negative")),
            ("-1".into(), Err("expected a whole number, found \"-1\"")),
            (Value::from(0.5), Err("expected a whole number, found a number with a decimal point")),
        ] {
            assert_eq!(
                integer(&value).map_err(|error| error.problem),
                expected.map_err(str::to_owned),
                "{value}"
            );
        }
    }

    #[test]
    fn a_port_is_enough_to_listen_on() {
        let address = |text: &str| listen_address(text).map(|address| address.to_string()).ok();
        for (text, expected) in [
            ("127.0.0.1:8402", Some("127.0.0.1:8402")),
            ("8402", Some("127.0.0.1:8402")),
            (":8402", Some("127.0.0.1:8402")),
            ("localhost:8402", Some("127.0.0.1:8402")),
            ("LocalHost:0", Some("127.0.0.1:0")),
            ("::1:8402", Some("[::1]:8402")),
            ("[::1]:8402", Some("[::1]:8402")),
            ("2001:db8::1:8402", Some("[2001:db8::1]:8402")),
            ("", None),
            (":", None),
            ("localhost", None),
            ("127.0.0.1", None),
            ("example.com:8402", None),
            ("65536", None),
            ("-1", None),
            ("+8402", None),
            ("127.0.0.1:x", None),
            ("http://127.0.0.1:8402", None),
        ] {
            assert_eq!(address(text).as_deref(), expected, "{text}");
        }
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
