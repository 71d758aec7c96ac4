//! The line of each key in the text of the file, which the merged values no longer know.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text of a configuration file, to look up lines in.
pub(super) struct KeyLines<'a> {
    text: &'a str,
    top: Option<Spanned<DeTable<'a>>>,
}

impl<'a> KeyLines<'a> {
    /// Parses the text. One that is not TOML has no lines: the error of the parser names the place.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, top: DeTable::parse(text).ok() }
    }

    /// The number of the line with the key at a path such as `chain.rpc_url` or `pay[0].host` or, if it is missing, of the
    /// nearest table around it.
    pub(super) fn of(&self, path: &str) -> Option<usize> {
        let (mut table, mut place) = (self.top.as_ref()?.get_ref(), None);
        for step in path.split('.') {
            let mut parts = step.split(['[', ']']).step_by(2);
            let name = parts.next().unwrap_or_default();
            let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
            place = Some(key.span().start);
            let mut inner = value;
            let indices = step.split(['[', ']']).skip(1).step_by(2).filter_map(|index| index.parse().ok());
            for index in indices {
                let DeValue::Array(entries) = inner.get_ref() else { break };
                let entry: Option<&Spanned<DeValue<'_>>> = entries.get::<usize>(index);
                let Some(entry) = entry else { break };
                (place, inner) = (Some(entry.span().start), entry);
            }
            let DeValue::Table(next) = inner.get_ref() else { break };
            table = next;
        }
        let before = self.text.get(..place?)?;
        Some(before.bytes().filter(|byte| *byte == b'\n').count() + 1)
    }
}

impl KeyLines<'_> {
    /// The path and the line of the first integer that needs more than 64 bits, for which the parser has no position.
    pub(super) fn too_large(&self) -> Option<(String, usize)> {
        let (place, path) = too_large_in("", self.top.as_ref()?.get_ref())?;
        let before = self.text.get(..place)?;
        Some((path, before.bytes().filter(|byte| *byte == b'\n').count() + 1))
    }
}

fn too_large_in(path: &str, table: &DeTable<'_>) -> Option<(usize, String)> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    table.iter().filter_map(|(key, value)| too_large(below(key.get_ref()), value)).min()
}

fn too_large(path: String, value: &Spanned<DeValue<'_>>) -> Option<(usize, String)> {
    match value.get_ref() {
        DeValue::Integer(number) => {
            let is_too_large = i64::from_str_radix(number.as_str(), number.radix()).is_err();
            is_too_large.then(|| (value.span().start, path))
        }
        DeValue::Array(entries) => {
            let each = entries.iter().enumerate();
            each.filter_map(|(index, entry)| too_large(format!("{path}[{index}]"), entry)).min()
        }
        DeValue::Table(table) => too_large_in(&path, table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::lines::*;

    const TEXT: &str = "# a comment\nlisten = 1\n\n[chain]\nrpc_url = \"x\"\n\n[limits]\npay_timeout = 5\n\n\
                        [[pay]]\nhost = \"a\"\n\n[[pay]]\nhost = \"b\"\nhooks = { x = { y = 1 } }\n[[upstream.tls]]\n\
                        ports = [\n  1,\n  \"x\",\n]\n";

    #[test]
    fn each_key_has_the_line_that_it_is_on() {
        let lines = KeyLines::new(TEXT);
        for (path, line) in [
            ("listen", Some(2)),
            ("chain", Some(4)),
            ("chain.rpc_url", Some(5)),
            ("chain.channel_manager", Some(4)),
            ("limits.pay_timeout", Some(8)),
            ("pay[0].host", Some(11)),
            ("pay[0].max_price", Some(10)),
            ("pay[1].host", Some(14)),
            ("pay[1].hooks.x.y", Some(15)),
            ("upstream.tls[0].ports", Some(17)),
            ("wallet", None),
            ("", None),
        ] {
            assert_eq!(lines.of(path), line, "{path}");
        }
        assert_eq!(KeyLines::new("listen = = 1").of("listen"), None);
    }

    #[test]
    fn integers_that_are_too_large_are_found() {
        for (text, expected) in [
            ("a = 9223372036854775807\nb = -9223372036854775808\n", None),
            ("z = 9223372036854775808\nb = 9223372036854775808\n", Some(("z", 1))),
            ("[limits]\na = 1\nb = 0xffffffffffffffffff\n", Some(("limits.b", 3))),
            ("[[pay]]\n[[pay]]\nports = [\n1,\n99999999999999999999,\n]\n", Some(("pay[1].ports[1]", 5))),
        ] {
            let found = KeyLines::new(text).too_large();
            assert_eq!(found.as_ref().map(|(path, line)| (path.as_str(), *line)), expected, "{text}");
        }
    }
}
