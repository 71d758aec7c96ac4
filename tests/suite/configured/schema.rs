//! The JSON Schema of the configuration, against `proxy.toml`, the README and the parser itself.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::{Value, json};
use tollpass::config::schema;
use tollpass::limits::{LIMITS, Limit, Limits, Unit};

use super::{EXAMPLE, PAYING, parse, switched_on};

const README: &str = include_str!("../../../README.md");

/// The TOML `text`, as JSON.
pub fn json_of(text: &str) -> Value {
    let source = config::File::from_str(text, config::FileFormat::Toml);
    config::Config::builder().add_source(source).build().unwrap().try_deserialize().unwrap()
}

/// Validates values by the keywords of draft 2020-12 that the schema uses; an unknown one fails the test.
struct Validator(Value);

impl Validator {
    fn is_valid(&self, value: &Value) -> bool {
        self.accepts(&self.0, value)
    }

    fn accepts(&self, schema: &Value, value: &Value) -> bool {
        let Some(keywords) = schema.as_object() else { return schema != &json!(false) };
        keywords.iter().all(|(keyword, argument)| self.holds(keyword, argument, schema, value))
    }

    fn holds(&self, keyword: &str, argument: &Value, schema: &Value, value: &Value) -> bool {
        let all = || argument.as_array().unwrap().iter();
        let accepted = || all().filter(|schema| self.accepts(schema, value)).count();
        let names = |names: &Value| {
            names.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
        };
        match keyword {
            "$schema" | "$defs" | "title" | "description" | "default" | "then" | "else" => true,
            "x-minimum" | "x-maximum" => true,
            "$ref" => self.accepts(self.0.pointer(&argument.as_str().unwrap()[1..]).unwrap(), value),
            "type" => match argument.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("an unknown type {other}"),
            },
            "enum" => all().any(|word| word == value),
            "const" => argument == value,
            "pattern" => value
                .as_str()
                .is_none_or(|text| Regex::new(argument.as_str().unwrap()).unwrap().is_match(text)),
            "minimum" => number(value).is_none_or(|number| number >= integer(argument)),
            "maximum" => number(value).is_none_or(|number| number <= integer(argument)),
            "minItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 >= argument.as_u64().unwrap())
            }
            "maxItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 <= argument.as_u64().unwrap())
            }
            "items" => {
                value.as_array().is_none_or(|items| items.iter().all(|item| self.accepts(argument, item)))
            }
            "properties" => argument
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, schema)| value.get(name).is_none_or(|value| self.accepts(schema, value))),
            "additionalProperties" => {
                assert_eq!(argument, false);
                let is_known = |name: &String| schema["properties"].get(name).is_some();
                value.as_object().is_none_or(|value| value.keys().all(is_known))
            }
            "required" => !value.is_object() || names(argument),
            "dependentRequired" => argument
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, needs)| value.get(name).is_none() || names(needs)),
            "allOf" => accepted() == all().count(),
            "anyOf" => accepted() > 0,
            "oneOf" => accepted() == 1,
            "not" => !self.accepts(argument, value),
            "if" => {
                let branch = if self.accepts(argument, value) { "then" } else { "else" };
                schema.get(branch).is_none_or(|schema| self.accepts(schema, value))
            }
            other => panic!("an unknown keyword {other}"),
        }
    }
}

fn number(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

fn integer(value: &Value) -> i128 {
    number(value).unwrap()
}

fn validator() -> Validator {
    Validator(schema())
}

/// Follows a reference to a table.
fn resolve<'a>(root: &'a Value, property: &'a Value) -> &'a Value {
    let target = property.get("$ref").or_else(|| property["items"].get("$ref")).and_then(Value::as_str);
    target.map_or(property, |target| root.pointer(target.trim_start_matches('#')).unwrap())
}

/// Every key of the schema that is not a table of the file: its path, without positions, and its property.
fn keys() -> BTreeMap<String, Value> {
    fn collect(root: &Value, table: &Value, path: &str, keys: &mut BTreeMap<String, Value>) {
        for (name, property) in table["properties"].as_object().unwrap() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let inner = resolve(root, property);
            // Hooks are values: the example writes each on one line.
            let is_table = inner.get("properties").is_some()
                && !path.starts_with("hooks.")
                && !["pay.hooks", "client.pay"].contains(&path.as_str());
            if is_table {
                collect(root, inner, &path, keys);
            } else {
                keys.insert(path, property.clone());
            }
        }
    }
    let (root, mut keys) = (schema(), BTreeMap::new());
    collect(&root, &root, "", &mut keys);
    keys
}

/// The example's documentation of each key: its comment, and its value as JSON.
fn documented() -> BTreeMap<String, (String, Value)> {
    let (mut section, mut comment, mut found) = (String::new(), String::new(), BTreeMap::new());
    let mut is_in_comment = false;
    for line in EXAMPLE.lines() {
        if line == "#" || line.starts_with("# ") {
            if !is_in_comment {
                comment.clear();
            }
            is_in_comment = true;
            comment += line.trim_start_matches('#');
            continue;
        }
        is_in_comment = false;
        let line = line.trim_start_matches('#');
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            let value = json_of(line)[key].clone();
            assert!(found.insert(path, (comment.clone(), value)).is_none(), "{key} is there twice");
        }
    }
    found
}

/// Keys whose value in the example is not the default.
fn is_an_example(comment: &str) -> bool {
    comment.contains("Default 0;")
}

#[test]
fn the_schema_is_valid_and_closed() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let definitions = schema["$defs"].as_object().unwrap();
    for (name, table) in definitions.iter().chain([(&"top".to_owned(), &schema)]) {
        assert_eq!(table["additionalProperties"], false, "{name}");
        for (key, property) in table["properties"].as_object().unwrap() {
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 10), "{name}.{key}");
        }
    }
}

#[test]
fn the_example_has_each_key_of_the_schema_once_and_no_other() {
    let (documented, keys) = (documented(), keys());
    assert!(keys.len() > 90, "{}", keys.len());
    let names = |keys: BTreeSet<&String>| keys.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(documented.keys().collect()), names(keys.keys().collect()));
}

#[test]
fn the_example_shows_the_defaults_and_the_documentation_of_the_schema() {
    let keys = keys();
    for (path, (comment, value)) in documented() {
        let property = &keys[&path];
        if let Some(default) = property.get("default").filter(|_| !is_an_example(&comment)) {
            // A minute has two usual spellings.
            let spelled = if value == "60s" { json!("1m") } else { value };
            assert_eq!(spelled, *default, "{path}");
        }
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let description = words(property["description"].as_str().unwrap());
        let sentence = description.trim_end_matches('.');
        assert!(words(&comment).contains(sentence), "{path}: {description:?} is not in {comment:?}");
    }
}

#[test]
fn the_readme_names_only_limits_that_exist() {
    let mut found = 0;
    for rest in README.split("`limits.").skip(1) {
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        assert!(LIMITS.iter().any(|limit| limit.key == name), "limits.{name}");
        found += 1;
    }
    assert!(found > 0);
}

#[test]
fn a_configuration_that_parses_validates() {
    let validator = validator();
    let hooks = "[hooks]\ninit = { action = \"ask\", webhook = \"http://127.0.0.1:9/\", webhook_timeout = \"1s\" }\n\
                 nonexisting_channel = { action = \"reopen\", times = 3 }\nhttp_response = { action = \"abort\", status = [404] }\n";
    let rest = "[deposit]\ninitial = \"1000 units\"\nclose_idle_after = \"10m\"\n[limits]\nhead_bytes = 65536\n\
                replay_file = \"1.5 GiB\"\nexchange_timeout = \"1day 2h\"\n[[upstream.tls]]\nhost = \"*\"\nca_file = \"r\"\n\
                [[route]]\nlisten = \"[::1]:8410\"\norigin = \"https://a.example\"\n[[pay]]\nhost = \"*\"\ndeny = true\n";
    let full = format!("{PAYING}max_fee = 7\nmax_fee_per_gas = \"0.5 gwei\"\n{hooks}{rest}");
    for text in ["", EXAMPLE, &switched_on(), PAYING, &full] {
        parse(text, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert!(validator.is_valid(&json_of(text)), "{text}");
    }
}

#[test]
fn a_configuration_that_the_schema_refuses_does_not_parse() {
    let validator = validator();
    let hook = |rest: &str| format!("[hooks]\n{rest}\n");
    let pay = |rest: &str| format!("[[pay]]\nhost = \"a\"\n{rest}\n");
    let tls = |rest: &str| format!("[[upstream.tls]]\n{rest}\n");
    for text in [
        "colour = 1".to_owned(),
        "listen = \"a.example:1\"".into(),
        "allow_remote = 1".into(),
        "[chain]\nchannel_manager = \"0x1111111111111111111111111111111111111111\"".into(),
        PAYING.replace("[wallet]", "[wallet]\nkey_file = \"b\""),
        PAYING.replace("keystore", "password_file = \"p\"\nkey_file"),
        PAYING.replace("keystore = \"k\"", "signer = \"s\""),
        PAYING.replace("keystore", "address = \"0x1111111111111111111111111111111111111111\"\nkeystore"),
        PAYING.replace(
            "[wallet]",
            "[wallet]\nsigner = \"s\"\naddress = \"0x1111111111111111111111111111111111111111\"",
        ),
        PAYING.replace("http://127", "ws://127"),
        PAYING.replace("0x1440", "0x144"),
        format!("{PAYING}confirmations = 0"),
        format!("{PAYING}chain_id = 0"),
        format!("{PAYING}max_fee = \"5 finney\""),
        pay(""),
        pay("max_price = 0"),
        pay("max_price = \"1e3\""),
        pay("max_price = 1\nport = 65536"),
        pay("max_price = 1\nreceivers = []"),
        pay("max_price = 1\nbrowsers = \"all\""),
        pay("max_price = 1\ndeny = true"),
        pay("max_price = 1\nhooks = { init = { action = \"abort\" } }"),
        "pay = 1".into(),
        "[deposit]\ninitial = 0".into(),
        "[deposit]\ntop_up = \"many units\"".into(),
        "[deposit]\non_exit = \"always\"".into(),
        "[deposit]\nclose_idle_after = \"soon\"".into(),
        hook("init = { webhook = \"http://h/\" }"),
        hook("init = { action = \"ask\" }"),
        hook("init = { action = \"pass\", webhook = \"http://h/\" }"),
        hook("init = { action = \"ask\", webhook = \"https://h/\" }"),
        hook("invalid_amount = { action = \"adopt\", every = \"1s\" }"),
        hook("invalid_amount = { action = \"abort\", times = 3 }"),
        hook("insufficient_confirmations = { action = \"retry\", times = 0 }"),
        hook("nonexisting_channel = { action = \"retry\", webhook_timeout = \"1s\" }"),
        hook("http_response = { action = \"abort\" }"),
        hook("http_response = { action = \"pass\", status = [404] }"),
        hook("http_response = { action = \"abort\", status = [99] }"),
        hook("cooperative_close_denied = { action = \"keep\", webhook = \"http://h/\" }"),
        "[intercept]\nca_cert = \"c\"".into(),
        "[intercept]\nca_cert = \"c\"\nca_key = \"k\"\nname_constraints = true".into(),
        "[[client]]\nname = \"a\"".into(),
        "[[client]]\nname = \"a:b\"\ntoken_file = \"t\"".into(),
        "[[client]]\nname = \"a\"\ntoken_file = \"t\"\nkind = \"robot\"".into(),
        "auth = \"none\"".into(),
        "local = \"all\"".into(),
        "connect_ports = []".into(),
        "connect_ports = [0]".into(),
        "connect_ports = [\"https\"]".into(),
        "[[route]]\norigin = \"http://a\"".into(),
        "[[route]]\nprefix = \"a\"\norigin = \"http://a\"".into(),
        "[[route]]\nprefix = \"/a\"\norigin = \"ftp://a\"".into(),
        "[upstream]\nno_proxy = []".into(),
        tls("host = \"a\""),
        tls("ca_file = \"r\""),
        tls("host = \"a\"\nca_file = \"r\"\ncertificate = \"c\""),
        tls("host = \"a\"\nca_file = \"r\"\nclient_key = \"k\""),
        "[limits]\nhead_bytes = \"64 furlongs\"".into(),
        "[limits]\npay_timeout = 5".into(),
    ] {
        assert!(!validator.is_valid(&json_of(&text)), "the schema accepts {text}");
        assert!(parse(&text, &[]).is_err(), "it parses: {text}");
    }
}

/// A value of `limit`, as the file writes it exactly, in its unit.
fn written(limit: &Limit, number: u64) -> String {
    match limit.quantity.unit {
        Unit::Count | Unit::Bytes => number.to_string(),
        Unit::Time => format!("\"{number}ns\""),
    }
}

#[test]
fn the_schema_and_the_parser_agree_on_the_bounds_of_each_limit() {
    let (validator, keys) = (validator(), keys());
    for limit in LIMITS {
        let (min, max) = (limit.quantity.min, limit.quantity.max);
        let property = &keys[&format!("limits.{}", limit.key)];
        let inside = [Some(min), Some(max)].map(|number| (number, true));
        let outside = [min.checked_sub(1), max.checked_add(1)].map(|number| (number, false));
        for (number, is_inside) in inside.into_iter().chain(outside) {
            let Some(number) = number else { continue };
            let text = format!("[limits]\n{} = {}\n", limit.key, written(limit, number));
            assert_eq!(parse(&text, &[]).is_ok(), is_inside, "{text}");
            match limit.quantity.unit {
                Unit::Count | Unit::Bytes => {
                    assert_eq!(validator.is_valid(&json_of(&text)), is_inside, "{text}");
                }
                // The schema states the bounds of strings, which validators cannot check.
                Unit::Time => assert!(validator.is_valid(&json_of(&text)), "{text}"),
            }
        }
        if limit.quantity.unit != Unit::Count {
            for (bound, number) in [("x-minimum", min), ("x-maximum", max)] {
                let bound = property[bound].as_str().unwrap();
                let [stated, exact] = [format!("\"{bound}\""), written(limit, number)]
                    .map(|value| parse(&format!("[limits]\n{} = {value}\n", limit.key), &[]).unwrap().limits);
                assert_eq!(stated, exact, "{}: {bound}", limit.key);
            }
        }
        let default = &property["default"];
        let stated = parse(&format!("[limits]\n{} = {default}\n", limit.key), &[]).unwrap();
        assert_eq!(stated.limits, Limits::default(), "{} = {default}", limit.key);
    }
}

#[test]
fn a_misspelled_key_suggests_the_key_that_it_means() {
    for (text, expected) in [
        ("lsiten = \"127.0.0.1:1\"", "lsiten: unknown key -> did you mean listen?"),
        (
            "[limits]\npay_withn = \"5s\"",
            "limits.pay_withn: unknown key -> did you mean limits.pay_timeout? (formerly pay_within)",
        ),
        (
            "[limits]\nrouns = 3",
            "limits.rouns: unknown key -> did you mean limits.max_attempts? (formerly rounds)",
        ),
        ("[chain]\nlimits = 1", "chain.limits: unknown key -> move it to the top of the file"),
        ("pay_timeout = \"5s\"", "pay_timeout: unknown key -> move it to [limits]"),
        ("[limits]\nmax_price = 1", "limits.max_price: unknown key -> move it to [[pay]]"),
        (
            "[upstream]\nclient_cert = \"c\"",
            "upstream.client_cert: unknown key -> move it to [[upstream.tls]]",
        ),
    ] {
        let found = super::issues(text, &[]);
        assert!(found.iter().any(|issue| issue == expected), "{text}: {found:?}");
    }
    let found = super::issues("", &[("TOLLPASS_LIMITS__PAY_WITHN", "5s")]);
    assert!(found[0].contains("did you mean TOLLPASS_LIMITS__PAY_TIMEOUT?"), "{found:?}");
}
