//! Sets one key in the text of a configuration file, and leaves the rest as it is, including comments.

use toml_edit::{DocumentMut, Item, Table, Value};

/// Why a key cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file is not TOML; the configuration says where.
    #[error("the file is not TOML; `tollpass check` says where")]
    NotToml,
    /// The path of the key is malformed.
    #[error("{0:?} is not the path of a key, such as limits.pay_timeout or pay[0].max_price")]
    NotAPath(String),
    /// The position in a list is written like a key.
    #[error("{0:?} is not the path of a key: did you mean {1}?")]
    Dotted(String, String),
    /// The path leads through something that has no such part.
    #[error("the file has no {0}; write it there first")]
    Missing(String),
}

/// The text with a key set to a value: TOML, or else a string.
///
/// # Errors
/// The text is not TOML, or it has no place for the key.
pub fn with_key(text: &str, path: &str, value: &str) -> Result<String, EditError> {
    let (mark, text) = match text.strip_prefix(MARK) {
        Some(rest) => (MARK, rest),
        None => ("", text),
    };
    Ok(mark.to_owned() + &with_line_ends(text, &edited(text, path, value)?))
}

fn edited(text: &str, path: &str, value: &str) -> Result<String, EditError> {
    let mut document: DocumentMut = text.parse().map_err(|_| EditError::NotToml)?;
    let value = value.parse::<Value>().unwrap_or_else(|_| value.into());
    if let Some(meant) = bracketed(path) {
        return Err(EditError::Dotted(path.to_owned(), meant));
    }
    let mut steps = steps(path).ok_or_else(|| EditError::NotAPath(path.to_owned()))?;
    let (key, index) = steps.pop().ok_or_else(|| EditError::NotAPath(path.to_owned()))?;
    if index.is_some() {
        return Err(EditError::NotAPath(path.to_owned()));
    }
    let mut table = document.as_table_mut();
    for (name, index) in steps {
        let missing =
            || EditError::Missing(index.map_or_else(|| name.to_owned(), |at| format!("{name}[{at}]")));
        if index.is_none() && !table.contains_key(name) {
            let mut made = Table::new();
            // Its header is needed only if it has keys of its own.
            made.set_implicit(true);
            table.insert(name, Item::Table(made));
        }
        let item = table.get_mut(name).ok_or_else(missing)?;
        let inner = match index {
            None => item.as_table_mut(),
            Some(index) => item.as_array_of_tables_mut().and_then(|tables| tables.get_mut(index)),
        };
        table = inner.ok_or_else(missing)?;
    }
    match table.get_mut(key) {
        Some(Item::Value(present)) => {
            // With the remark after it.
            let decor = present.decor().clone();
            *present = value;
            *present.decor_mut() = decor;
        }
        Some(_) => return Err(EditError::NotAPath(path.to_owned())),
        None => {
            table.insert(key, Item::Value(value));
        }
    }
    Ok(document.to_string())
}

/// The byte order mark that some editors put at the start of a file.
const MARK: &str = "\u{feff}";

/// An edited text, whose lines end with \n, with the ends of the original one.
fn with_line_ends(original: &str, edited: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) =
        (original.split_inclusive('\n').collect(), edited.split_inclusive('\n').collect());
    let is_same = |(old, new): &(&&str, &&str)| bare(old) == bare(new);
    let start = before.iter().zip(&after).take_while(is_same).count();
    let (old, new) = (&before[start..], &after[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(is_same).count();
    let usual = if before.first().is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" };
    let mut text = before[..start].concat();
    for line in &new[..new.len() - end] {
        text.push_str(bare(line));
        if line.ends_with('\n') {
            text.push_str(usual);
        }
    }
    text + &old[old.len() - end..].concat()
}

/// A line without its end.
fn bare(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// The lines of a text that name a key, without remarks, for a text that is not TOML.
pub fn lines_with(text: &str, key: &str) -> String {
    let is_meant = |line: &&str| line.contains(key) && !line.trim_start().starts_with('#');
    text.lines().filter(is_meant).collect::<Vec<_>>().join("\n")
}

/// The path that one with positions as keys, such as `pay.0.max_price`, stands for.
fn bracketed(path: &str) -> Option<String> {
    let is_position = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !path.split('.').any(is_position) {
        return None;
    }
    let mut meant = String::new();
    for part in path.split('.') {
        meant += &match part {
            part if is_position(part) => format!("[{part}]"),
            part if meant.is_empty() => part.to_owned(),
            part => format!(".{part}"),
        };
    }
    Some(meant)
}

/// The names of a path, each with its position in a list.
fn steps(path: &str) -> Option<Vec<(&str, Option<usize>)>> {
    let step = |step: &str| -> Option<(usize, Option<usize>)> {
        match step.split_once('[') {
            None => Some((step.len(), None)),
            Some((name, rest)) => Some((name.len(), Some(rest.strip_suffix(']')?.parse().ok()?))),
        }
    };
    let named = path.split('.').map(|part| {
        let (length, index) = step(part)?;
        let name = part.get(..length)?;
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        (!name.is_empty() && name.chars().all(is_plain)).then_some((name, index))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use crate::config::edit::*;

    const TEXT: &str = "# Mine.\nlisten = 8402 # here\n\n[limits]\n# patience\npay_timeout = \"5s\"\n\n[[pay]]\nhost = \"a\"\n";

    #[test]
    fn a_key_is_set_and_the_rest_stays() {
        for (path, value, from, to) in [
            ("listen", "8403", "listen = 8402 # here", "listen = 8403 # here"),
            ("limits.pay_timeout", "7s", "\"5s\"", "\"7s\""),
            ("pay[0].host", "b.example", "host = \"a\"", "host = \"b.example\""),
            ("allow_remote", "true", "# here\n", "# here\nallow_remote = true\n"),
            ("limits.max_attempts", "3", "\"5s\"\n", "\"5s\"\nmax_attempts = 3\n"),
            (
                "connect_ports",
                "[443, \"8000-8999\"]",
                "# here\n",
                "# here\nconnect_ports = [443, \"8000-8999\"]\n",
            ),
        ] {
            assert_eq!(with_key(TEXT, path, value).unwrap(), TEXT.replace(from, to), "{path}");
        }
        let made = with_key(TEXT, "log.file", "/tmp/log").unwrap();
        assert!(made.starts_with(TEXT) && made.ends_with("[log]\nfile = \"/tmp/log\"\n"), "{made}");
        assert_eq!(with_key("", "hooks.init.action", "pass").unwrap(), "[hooks.init]\naction = \"pass\"\n");
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_stay() {
        for (text, expected) in [
            ("a = 1\r\nlisten = 2\r\n# x\r\n", "a = 1\r\nlisten = 8403\r\n# x\r\n"),
            ("\u{feff}a = 1\r\n", "\u{feff}a = 1\r\nlisten = 8403\r\n"),
            ("a = 1\r\n# x\n[b]\r\nc = 2\n", "a = 1\r\nlisten = 8403\r\n# x\n[b]\r\nc = 2\n"),
            ("a = 1\nlisten = 2", "a = 1\nlisten = 8403\n"),
            ("", "listen = 8403\n"),
        ] {
            assert_eq!(with_key(text, "listen", "8403").unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_lines_with_a_key_are_found_without_toml() {
        let text = "a = = 1\n# state_dir = \"x\"\n state_dir = \"y\" # here\n[b\n";
        assert_eq!(lines_with(text, "state_dir"), " state_dir = \"y\" # here");
        assert_eq!(lines_with("a = = 1", "state_dir"), "");
    }

    #[test]
    fn what_has_no_place_is_an_error() {
        for path in [
            "",
            ".",
            "a..b",
            "pay",
            "pay[0]",
            "pay[x].host",
            "pay[1].host",
            "wallet[0].key",
            "listen.x",
            "a b",
        ] {
            assert!(with_key(TEXT, path, "1").is_err(), "{path}");
        }
        assert!(with_key("a = = 1", "listen", "1").is_err());
        for (path, meant) in [("pay.0.host", "pay[0].host"), ("client.1.pay.0.host", "client[1].pay[0].host")]
        {
            let told = with_key(TEXT, path, "1").unwrap_err().to_string();
            assert!(told.ends_with(&format!("did you mean {meant}?")), "{told}");
        }
    }
}
