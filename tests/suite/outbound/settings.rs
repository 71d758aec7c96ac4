//! Which outbound proxy is used: the configuration takes precedence over environment variables, and errors contain no
//! secret.

use std::collections::BTreeMap;
use std::path::Path;

use tollpass::config::{Config, ConfigError, UpstreamConfig};

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut environment = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
    environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Config::parse(text, Path::new("/etc/x"), &environment)
}

/// The proxies for plain requests and for tunnels, as displayed.
fn proxies(upstream: &UpstreamConfig) -> [String; 2] {
    [&upstream.http, &upstream.tunnel]
        .map(|proxy| proxy.as_ref().map(ToString::to_string).unwrap_or_default())
}

#[test]
fn the_key_wins_over_the_environment_and_its_variables_over_each_other() {
    let key = "[upstream]\nproxy = \"http://key:1\"\n";
    let none = "[upstream]\nproxy = \"none\"\n";
    for (text, variables, plain, tunnels) in [
        ("", &[][..], "", ""),
        ("", &[("http_proxy", "http://a:1")], "http://a:1", ""),
        ("", &[("https_proxy", "http://a:1")], "", "http://a:1"),
        ("", &[("HTTP_PROXY", "a:1"), ("HTTPS_PROXY", "b:2")], "http://a:1", "http://b:2"),
        ("", &[("http_proxy", "a:1"), ("HTTP_PROXY", "b:2")], "http://a:1", ""),
        ("", &[("http_proxy", ""), ("HTTP_PROXY", "b:2")], "http://b:2", ""),
        ("", &[("ALL_PROXY", "a:1")], "http://a:1", "http://a:1"),
        ("", &[("ALL_PROXY", "a:1"), ("https_proxy", "b:2")], "http://a:1", "http://b:2"),
        // Not needed if both are set.
        (
            "",
            &[("ALL_PROXY", "socks5://s:1"), ("http_proxy", "a:1"), ("https_proxy", "b:2")],
            "http://a:1",
            "http://b:2",
        ),
        (key, &[("ALL_PROXY", "socks5://s:1")], "http://key:1", "http://key:1"),
        (none, &[("ALL_PROXY", "a:1"), ("http_proxy", "https://s:1")], "", ""),
        (key, &[("TOLLPASS_UPSTREAM__PROXY", "none")], "", ""),
    ] {
        let upstream =
            parse(text, variables).unwrap_or_else(|error| panic!("{text} {variables:?}: {error}")).upstream;
        assert_eq!(proxies(&upstream), [plain, tunnels], "{text} {variables:?}");
    }
}

#[test]
fn the_key_overrides_the_variable_for_direct_hosts() {
    let key = "[upstream]\nno_proxy = [\"a.example\", \"10.0.0.0/8\"]\n";
    for (text, variables, expected) in [
        ("", &[][..], [false; 3]),
        ("", &[("no_proxy", "b.example"), ("NO_PROXY", "a.example")], [false, true, false]),
        ("", &[("NO_PROXY", "*")], [true; 3]),
        (key, &[("no_proxy", "b.example")], [true, false, true]),
        (key, &[("TOLLPASS_UPSTREAM__NO_PROXY", "b.example, a.example")], [true, true, false]),
    ] {
        let config = parse(text, variables).unwrap();
        let hosts = ["a.example", "x.b.example", "10.1.1.1"];
        assert_eq!(
            hosts.map(|host| config.upstream.bypass.covers(host, 80)),
            expected,
            "{text} {variables:?}"
        );
        assert_eq!(config.warnings, Vec::<String>::new());
    }
    let warnings = parse("", &[("NO_PROXY", "a.example,http://b.example")]).unwrap().warnings;
    assert_eq!(warnings, ["NO_PROXY contains \"http://b.example\", which is not a valid host"]);
}

#[test]
fn each_error_names_its_key_and_all_are_reported_at_once() {
    for (text, variables, key, expected) in [
        (
            "[upstream]\nproxy = \"https://me:hunter2@p\"",
            &[][..],
            "upstream.proxy",
            "over TLS (https://) are not supported",
        ),
        ("[upstream]\nproxy = \"socks5://me:hunter2@p\"", &[], "upstream.proxy", "only http:// is supported"),
        ("[upstream]\nproxy = \"me:hunter2@\"", &[], "upstream.proxy", "not a valid http:// URL of a proxy"),
        ("[upstream]\nproxy = 3128", &[], "upstream.proxy", "expected a string"),
        ("[upstream]\nno_proxy = [\"http://a\"]", &[], "upstream.no_proxy", "is not a host"),
        ("[upstream]\nno_proxy = []", &[], "upstream.no_proxy", "empty list"),
        (
            "[upstream]\nproxy = \"http://me:hunter2@p:1\"\nproxy_auth_file = \"f\"",
            &[],
            "upstream.proxy_auth_file",
            "also has a user name",
        ),
        (
            "",
            &[("https_proxy", "https://me:hunter2@p")],
            "https_proxy",
            "over TLS (https://) are not supported",
        ),
        ("", &[("ALL_PROXY", "socks5://me:hunter2@p")], "ALL_PROXY", "only http:// is supported"),
    ] {
        let error = parse(text, variables).unwrap_err();
        let [issue] = &error.issues[..] else { panic!("{text} {variables:?}: {error}") };
        assert!(issue.key == key && issue.problem.contains(expected), "{text} {variables:?}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let error = parse(
        "[upstream]\nno_proxy = [\"a b\"]\nupgarde = 1\n",
        &[("http_proxy", "ftp://a"), ("https_proxy", "https://b")],
    );
    assert_eq!(error.unwrap_err().issues.len(), 4);
    let config = parse("", &[("http_proxy", "http://me:hunter2@p:1")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.upstream.http.unwrap().credentials(), Some("me:hunter2"));
}
