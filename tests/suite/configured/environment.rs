//! The whole configuration from environment variables, and from files that they name.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use tollpass::config::Config;
use tollpass::protocol::policy::Allow;

use super::schema::json_of;
use super::{PAYING, issues, parse, switched_on};
use crate::program::{run_with, text};

/// The variables that set these values.
fn variables(name: &str, value: &Value) -> Vec<(String, String)> {
    let within =
        |(key, value): (String, &Value)| variables(&format!("{name}__{}", key.to_uppercase()), value);
    match value {
        Value::Object(table) => {
            table.iter().map(|(key, value)| (key.clone(), value)).flat_map(within).collect()
        }
        Value::Array(entries) if entries.iter().all(Value::is_object) => entries
            .iter()
            .enumerate()
            .map(|(number, value)| (number.to_string(), value))
            .flat_map(within)
            .collect(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            vec![(name.to_owned(), items.join(","))]
        }
        scalar => vec![(name.to_owned(), plain(scalar))],
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn variables_can_say_all_that_the_file_can() {
    let file = switched_on();
    let all: Vec<(String, String)> = variables("", &json_of(&file))
        .into_iter()
        // The name of a key at the top has one underscore after the prefix.
        .map(|(name, value)| (format!("TOLLPASS_{}", name.trim_start_matches('_')), value))
        .collect();
    for name in [
        "TOLLPASS_LISTEN",
        "TOLLPASS_PAY__0__HOOKS__PAYMENT_REQUESTED__ACTION",
        "TOLLPASS_CLIENT__0__PAY__0__HOST",
    ] {
        assert!(all.iter().any(|(known, _)| known == name), "{name} is not in {all:?}");
    }
    let borrowed: Vec<(&str, &str)> =
        all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let config = |text, variables| format!("{:#?}", parse(text, variables).unwrap());
    assert_eq!(config("", &borrowed), config(&file, &[]));
}

#[test]
fn entries_come_in_the_order_of_their_numbers() {
    let hosts: Vec<(String, String)> = (0..12)
        .map(|number| (format!("TOLLPASS_PAY__{number}__HOST"), format!("h{number}.example")))
        .chain(
            (0..12).map(|number| (format!("TOLLPASS_PAY__{number}__MAX_PRICE"), format!("{}", number + 1))),
        )
        .collect();
    let borrowed: Vec<(&str, &str)> =
        hosts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let config = parse(PAYING, &borrowed).unwrap();
    let order: Vec<String> = config.policy.rules.iter().map(|rule| rule.host.to_string()).collect();
    assert_eq!(order, (0..12).map(|number| format!("h{number}.example")).collect::<Vec<_>>());
    let Allow::Pay { max_price, .. } = &config.policy.rules[11].allow else { panic!("it denies") };
    assert_eq!(max_price.to_string(), "12");
}

#[test]
fn entries_that_cannot_be_told_apart_are_issues() {
    let host = ("TOLLPASS_PAY__0__HOST", "a");
    let price = ("TOLLPASS_PAY__0__MAX_PRICE", "1");
    for (file, variables, expected) in [
        ("", &[host][..], "pay[0].max_price: missing"),
        ("", &[host, ("TOLLPASS_PAY__0__MAX_PRICE", "much")], "(from TOLLPASS_PAY__0__MAX_PRICE)"),
        ("", &[host, price, ("TOLLPASS_PAY__0__MAXPRICE", "1")], "did you mean TOLLPASS_PAY__0__MAX_PRICE?"),
        (
            "[[pay]]\nhost = \"b\"\ndeny = true\n",
            &[host, price],
            "pay: entries are in the file, and in variables (TOLLPASS_PAY__0__HOST) -> write all of them in one place",
        ),
        ("pay = []\n", &[host, price], "pay: entries are in the file, and in variables"),
        (
            "[upstream]\ntls = []\n",
            &[("TOLLPASS_UPSTREAM__TLS__0__HOST", "a")],
            "upstream.tls: entries are in the file",
        ),
        (
            "",
            &[host, price, ("TOLLPASS_PAY__2__HOST", "b")],
            "there is an entry TOLLPASS_PAY__2, and no TOLLPASS_PAY__1",
        ),
        ("", &[("TOLLPASS_PAY__1__HOST", "a")], "there is an entry TOLLPASS_PAY__1, and no TOLLPASS_PAY__0"),
        (
            "",
            &[("TOLLPASS_PAY", "a")],
            "TOLLPASS_PAY does not set a key of an entry -> write TOLLPASS_PAY__0__KEY",
        ),
        ("", &[("TOLLPASS_PAY__0", "a")], "TOLLPASS_PAY__0 does not set a key"),
        ("", &[("TOLLPASS_PAY__HOST", "a")], "TOLLPASS_PAY__HOST does not set a key"),
        ("", &[("TOLLPASS_PAY__00__HOST", "a")], "TOLLPASS_PAY__00 does not set a key"),
        ("", &[("TOLLPASS_PAY__-1__HOST", "a")], "TOLLPASS_PAY__-1 does not set a key"),
        ("", &[("TOLLPASS_PAY__99999999999999999999__HOST", "a")], "does not set a key"),
        ("", &[("TOLLPASS_PAY[0]__HOST", "a")], "TOLLPASS_PAY[0]__HOST does not set a key"),
        ("", &[("TOLLPASS_ASSET__SYMBOL", "a")], "TOLLPASS_ASSET__SYMBOL does not set a key"),
        ("", &[("TOLLPASS_CLIENT__0__PAY__HOST", "a")], "TOLLPASS_CLIENT__0__PAY__HOST does not set a key"),
        (
            "",
            &[("TOLLPASS_CLIENT__0__PAY", "a")],
            "client[0].pay: TOLLPASS_CLIENT__0__PAY does not set a key",
        ),
        ("", &[host, ("TOLLPASS_pay__0__host", "b")], "another variable set the same key"),
        (
            "",
            &[host, ("TOLLPASS_PAY__0__HOST__X", "b")],
            "another variable set the same key, or a table and a key in it",
        ),
        (
            "upstream = 1\n",
            &[("TOLLPASS_UPSTREAM__TLS__0__HOST", "a")],
            "upstream: expected a table, found an integer",
        ),
        ("", &[("TOLLPASS_PAY_TIMEOUT", "5s")], "pay_timeout: unknown key"),
        ("", &[("TOLLPASS_PAY_0_HOST", "a")], "did you mean TOLLPASS_PAY__0__HOST?"),
        ("", &[("TOLLPASS_PAY_0_MAXPRICE", "1")], "did you mean TOLLPASS_PAY__0__MAX_PRICE?"),
        ("", &[("TOLLPASS_CLIENT_1_PAY_0_HOST", "a")], "did you mean TOLLPASS_CLIENT__1__PAY__0__HOST?"),
        ("", &[("TOLLPASS_WALLET__PASSWORD", "a")], "did you mean TOLLPASS_WALLET_PASSWORD?"),
        ("", &[("TOLLPASS_WALLET_PASSWORD_FIEL", "a")], "did you mean TOLLPASS_WALLET_PASSWORD_FILE?"),
    ] {
        let found = issues(file, variables);
        assert!(found.iter().any(|issue| issue.contains(expected)), "{variables:?}: {found:#?}");
    }
    // Nesting without an end is no entry either.
    let deep = format!("TOLLPASS_PAY__0{}", "__A".repeat(10_000));
    assert!(parse("", &[(&deep, "x")]).is_err());
    // As everywhere, an empty variable sets nothing.
    assert!(
        parse("", &[("TOLLPASS_PAY__0__HOST", ""), ("TOLLPASS_PAY", " ")]).unwrap().policy.rules.is_empty()
    );
}

/// Prints whether a node is configured; the program's own environment is the only one that names files.
async fn checked(directory: &Path, variables: &[(&str, &str)]) -> (i32, String) {
    let config = directory.join("proxy.toml");
    let state = directory.join("state");
    let variables = [variables, &[("TOLLPASS_STATE_DIR", text(&state))]].concat();
    let ran = run_with(&["check", "--config", text(&config)], &variables).await;
    (ran.code, format!("{}{}", ran.out, ran.errors))
}

#[tokio::test]
async fn a_variable_names_a_file_with_the_value() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str, mode| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    put("proxy.toml", "[wallet]\nkey_file = \"key\"\n", 0o600);
    put("key", &"a1".repeat(32), 0o600);
    put("rpc", "http://127.0.0.1:1/hunter2\n", 0o600);
    put("open", "http://127.0.0.1:1/hunter2\n", 0o644);
    put("bytes", "\u{fffd}", 0o600);
    std::fs::write(directory.path().join("bytes"), [0xff]).unwrap();
    let node = "TOLLPASS_CHAIN__RPC_URL_FILE";
    let manager = ("TOLLPASS_CHAIN__CHANNEL_MANAGER", "0x1440317CB15499083dEE3dDf49C2bD51D0d92e33");
    let (_, told) = checked(directory.path(), &[(node, "rpc"), manager]).await;
    assert!(told.contains("http://127.0.0.1:1") && !told.contains("hunter2"), "{told}");
    // In an entry of a list, and by a name that is a key itself.
    let entry = [("TOLLPASS_NETWORK__0__ID", "eip155:1"), ("TOLLPASS_NETWORK__0__RPC_URL_FILE", "rpc")];
    let (_, told) = checked(directory.path(), &entry).await;
    assert!(told.contains("http://127.0.0.1:1") && !told.contains("hunter2"), "{told}");
    for (variables, expected) in [
        (&[(node, "open")][..], "is readable by other users (mode 644)"),
        (&[(node, "none")], "cannot be read: "),
        (&[(node, "bytes")], "is not UTF-8"),
        (
            &[(node, "rpc"), ("TOLLPASS_CHAIN__RPC_URL", "http://127.0.0.1:2")],
            "TOLLPASS_CHAIN__RPC_URL is set, too",
        ),
        (&[("TOLLPASS_COLOUR_FILE", "rpc")], "unknown key"),
        (&[("TOLLPASS_CHAIN_FILE", "rpc")], "unknown key"),
    ] {
        let (code, told) = checked(directory.path(), variables).await;
        assert!(code != 0 && told.contains(expected), "{variables:?}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    assert!(Config::load(Some(&directory.path().join("proxy.toml"))).is_ok());
}
