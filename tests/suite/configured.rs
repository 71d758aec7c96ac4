//! The configuration: the documented example, the environment, and the error messages.

mod budgets;
mod environment;
mod networks;
mod prices;
mod schema;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tollpass::config::{CaSource, Config, ConfigError, KeySource, OriginTrust, SignerLocation};
use tollpass::limits::Limits;
use tollpass::protocol::policy::{
    Adopt, Allow, CloseDenied, Deposit, Exit, Hooks, Init, Marks, Missing, OnError, OnResponse, Requested,
    Retry, Success,
};
use tollpass::protocol::{Amount, Wei};

const EXAMPLE: &str = include_str!("../../proxy.toml");
const README: &str = include_str!("../../README.md");
const PAYING: &str = "[wallet]\nkeystore = \"k\"\n[chain]\nrpc_url = \"http://127.0.0.1:8545\"\n\
                      channel_manager = \"0x1440317CB15499083dEE3dDf49C2bD51D0d92e33\"\n";

const CLIENT: &str = "[[client]]\nname = \"laptop\"\ntoken_file = \"t\"\n";

/// Parses a file `/etc/x/proxy.toml` with this text, for a user whose home is /home/me.
fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut environment = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
    environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Config::parse(text, Path::new("/etc/x"), &environment)
}

/// The issues of an invalid text, each in one line.
fn issues(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let error = parse(text, variables).err().unwrap_or_else(|| panic!("loads: {text} {variables:?}"));
    error.issues.iter().map(|issue| format!("{}: {} -> {}", issue.key, issue.problem, issue.remedy)).collect()
}

/// The example with its commented-out keys enabled.
fn switched_on() -> String {
    let on = |line: &'static str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key,
        _ => line,
    };
    EXAMPLE.lines().map(on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_a_plain_proxy() {
    let config = parse(EXAMPLE, &[]).unwrap();
    assert_eq!((config.wallet, config.chain), (None, None));
    assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 8402)));
    assert_eq!(config.state_dir, Path::new("/home/me/.local/state/tollpass"));
    assert!(config.policy.rules.is_empty() && config.warnings.is_empty());
}

#[test]
fn the_example_shows_the_defaults() {
    let config = parse(&switched_on(), &[]).unwrap();
    let default = parse(PAYING, &[]).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.intercept.authority, default.intercept.authority);
    assert!(config.intercept.covers("api.example.com", 443));
    let mut deposit = config.policy.deposit;
    // Without a default, as chain_id below.
    assert!(deposit.max_per_receiver.take().is_some() && deposit.max_total.take().is_some());
    assert_eq!(deposit, Deposit::default());
    assert_eq!(*config.policy.hooks, Hooks::default());
    let mut hooks = hooks_of(&config.policy.rules[0].allow).clone();
    assert!(hooks.ask_above.take().is_some());
    assert_eq!(hooks, Hooks::default());
    assert_eq!(config.policy.max_attempts, default.policy.max_attempts);
    assert_eq!(config.policy.pay_timeout, default.policy.pay_timeout);
    assert_eq!(config.listen, default.listen);
    assert_eq!(config.state_dir, default.state_dir);
    let mut chain = config.chain.unwrap();
    assert_eq!(chain.start_block, 4_958_602);
    chain.start_block = 0;
    assert_eq!(chain.chain_id.take(), Some(1));
    assert_eq!(chain, default.chain.unwrap());
    assert_eq!(config.wallet.unwrap().source, KeySource::Keystore("/etc/x/keystore.json".into()));
    assert_eq!(config.policy.rules.len(), 1);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_signer_is_a_program_with_arguments_or_a_url() {
    let account = "0x00000000000000000000000000000000000000aa";
    let read = |signer: &str, more: &str| {
        let text = format!("[wallet]\nsigner = \"{signer}\"\naddress = \"{account}\"\n{more}");
        let KeySource::Signer(signer) = parse(&text, &[]).unwrap().wallet.unwrap().source else {
            panic!("{text}")
        };
        signer
    };
    let command =
        |words: &[&str]| SignerLocation::Command(words.iter().map(|word| (*word).to_owned()).collect());
    for (text, expected) in [
        ("signer", command(&["signer"])),
        (" signer  --account 0 ", command(&["signer", "--account", "0"])),
        ("/opt/sign -x", command(&["/opt/sign", "-x"])),
        ("./bin/sign a/b", command(&["/etc/x/bin/sign", "a/b"])),
        ("http://127.0.0.1:9/x", SignerLocation::Endpoint("http://127.0.0.1:9/x".parse().unwrap())),
        ("https://signer.example/", SignerLocation::Endpoint("https://signer.example/".parse().unwrap())),
    ] {
        let signer = read(text, "");
        assert_eq!(signer.location, expected, "{text}");
        assert_eq!((signer.address.to_string().to_lowercase(), signer.requests), (account.to_owned(), 8));
        assert_eq!(signer.timeout, Duration::from_secs(30));
    }
    let signer = read("signer", "signer_timeout = \"2m\"\nsigner_requests = 1\n");
    assert_eq!((signer.timeout, signer.requests), (Duration::from_secs(120), 1));
    let shown = format!("{:?}", read("https://signer.example/secret", ""));
    assert!(!shown.contains("/secret"), "{shown}");
}

#[test]
fn the_readme_shows_configurations_that_load() {
    let blocks: Vec<&str> =
        README.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2, "{blocks:?}");
    for block in blocks {
        let config = parse(block, &[]).unwrap_or_else(|error| panic!("{error}\n{block}"));
        assert_eq!(config.warnings, Vec::<String>::new(), "{block}");
    }
}

#[test]
fn variables_win_over_the_file() {
    let config = parse(
        &format!("listen = \"127.0.0.1:1\"\n{PAYING}confirmations = 2\n"),
        &[
            ("TOLLPASS_LISTEN", "[::1]:9"),
            ("TOLLPASS_ALLOW_REMOTE", "true"),
            ("TOLLPASS_STATE_DIR", "~/state"),
            ("TOLLPASS_CHAIN__CONFIRMATIONS", "12"),
            ("TOLLPASS_CHAIN__RPC_URL", "https://node.example/key"),
            ("TOLLPASS_CHAIN__START_BLOCK", ""),
            ("TOLLPASS_CHAIN__CHAIN_ID", "100"),
            ("TOLLPASS_CHAIN__MAX_FEE", "0.05 ETH"),
            ("TOLLPASS_CHAIN__MAX_FEE_PER_GAS", "300gwei"),
            ("TOLLPASS_DEPOSIT__MAX_PER_CHANNEL", "20000000000000000000"),
            ("TOLLPASS_HOOKS__INVALID_AMOUNT__DO", "abort"),
            ("TOLLPASS_HOOKS__HTTP_RESPONSE__DO", "abort"),
            ("TOLLPASS_HOOKS__HTTP_RESPONSE__STATUS", "404, 410"),
            ("TOLLPASS_HOOKS__HTTP_RESPONSE__HEADER", "X-A,x-b"),
            ("TOLLPASS_LIMITS__REPLAY_FILE", "10MB"),
            ("TOLLPASS_LIMITS__PAY_TIMEOUT", "1m 30s"),
            ("TOLLPASS_WALLET_PASSWORD", "secret"),
            ("TOLLPASS_LOG", "debug"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.listen.to_string(), "[::1]:9");
    assert!(config.allow_remote);
    assert_eq!(config.state_dir, Path::new("/home/me/state"));
    let chain = config.chain.unwrap();
    assert_eq!((chain.confirmations, chain.start_block, chain.chain_id), (12, 0, Some(100)));
    assert_eq!((chain.max_fee, chain.max_fee_per_gas), (Wei(50_000_000_000_000_000), Wei(300_000_000_000)));
    assert_eq!(chain.rpc_url.expose(), "https://node.example/key");
    assert_eq!(config.policy.deposit.max_per_channel, "20000000000000000000".parse().unwrap());
    assert_eq!(config.policy.hooks.invalid_amount.action, Adopt::Abort);
    assert_eq!(
        config.policy.hooks.http_response.action,
        OnResponse::Abort(marks(&[404, 410], &["x-a", "x-b"]))
    );
    assert_eq!(config.limits.replay_file, 10_000_000);
    assert_eq!(config.policy.pay_timeout, Duration::from_secs(90));
}

#[test]
fn variables_alone_make_a_proxy_that_pays() {
    let config = parse(
        "",
        &[
            ("TOLLPASS_WALLET__KEY_FILE", "/run/key"),
            ("TOLLPASS_CHAIN__RPC_URL", "http://node:8545"),
            ("TOLLPASS_CHAIN__CHANNEL_MANAGER", "0x1440317CB15499083dEE3dDf49C2bD51D0d92e33"),
            ("XDG_STATE_HOME", "/var/state"),
        ],
    )
    .unwrap();
    assert_eq!(config.wallet.unwrap().source, KeySource::KeyFile("/run/key".into()));
    assert_eq!(config.state_dir, Path::new("/var/state/tollpass"));
}

#[test]
fn rules_are_read_in_order() {
    let config = parse(
        &format!(
            "{PAYING}[[pay]]\nhost = \"*.A.example\"\nport = 8080\nmax_price = 5\n\
             receivers = [\"0x08c86B491A37C2FFC25072a17c7A97EF2D0357dd\"]\n\
             [[pay]]\nhost = \"b.example\"\ndeny = true\n[[pay]]\nhost = \"*\"\nmax_price = \"99999999999999999999\"\n"
        ),
        &[],
    )
    .unwrap();
    let [first, second, third] = config.policy.rules.as_slice() else { panic!("{:?}", config.policy.rules) };
    assert_eq!((first.host.to_string().as_str(), first.port), ("*.a.example", Some(8080)));
    let receivers = vec!["0x08c86B491A37C2FFC25072a17c7A97EF2D0357dd".parse().unwrap()];
    assert_eq!(
        first.allow,
        Allow::Pay {
            max_price: Amount::from(5).into(),
            receivers,
            preference: Arc::default(),
            send_ahead: true,
            allow_plain_http: false,
            browsers: None,
            hooks: Arc::default(),
            budgets: Vec::new()
        }
    );
    assert_eq!(second.allow, Allow::Deny);
    let max_price = "99999999999999999999".parse::<Amount>().unwrap().into();
    assert_eq!(
        third.allow,
        Allow::Pay {
            max_price,
            receivers: Vec::new(),
            preference: Arc::default(),
            send_ahead: true,
            allow_plain_http: false,
            browsers: None,
            hooks: Arc::default(),
            budgets: Vec::new()
        }
    );
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("decrypt every https connection"), "{:?}", config.warnings);
}

#[test]
fn hosts_of_paying_rules_are_intercepted_by_default() {
    let rules = "[[pay]]\nhost = \"a.example\"\nport = 8443\nmax_price = 5\n[[pay]]\nhost = \"b.example\"\ndeny = true\n\
                 [[pay]]\nhost = \"*.example\"\nmax_price = 5\n";
    let covered = |text: &str, variables: &[(&str, &str)]| {
        let intercept = parse(text, variables).unwrap().intercept;
        let asked = [("a.example", 8443), ("a.example", 443), ("b.example", 443), ("c.d.example", 443)];
        asked.map(|(host, port)| intercept.covers(host, port))
    };
    let paying = format!("{PAYING}{rules}");
    let own = format!("{paying}{CLIENT}[[client.pay]]\nhost = \"own.test\"\nmax_price = 1\n");
    let own = parse(&own, &[]).unwrap();
    assert!(own.intercept.covers("own.test", 443), "{:?}", own.intercept);
    assert_eq!(covered(&paying, &[]), [true, true, false, true]);
    assert_eq!(covered(rules, &[]), [false; 4], "nothing can be paid without a wallet");
    assert_eq!(covered(&format!("{paying}[intercept]\nhosts = []\n"), &[]), [false; 4]);
    let named = "[intercept]\nhosts = [\"B.example\", \"*.d.example\"]\n";
    assert_eq!(covered(&format!("{paying}{named}"), &[]), [false, false, true, true]);
    let variable = ("TOLLPASS_INTERCEPT__HOSTS", "a.example, b.example");
    assert_eq!(covered(rules, &[variable]), [true, true, true, false]);
    assert_eq!(parse(&paying, &[]).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn the_authority_is_made_or_given() {
    let authority = |keys: &str| {
        let hosts = "hosts = [\"a.example\", \"*.b.example\", \"[::1]\"]\n";
        parse(&format!("[intercept]\n{hosts}{keys}"), &[]).unwrap().intercept.authority
    };
    assert_eq!(authority(""), CaSource::Generated { permitted: Vec::new() });
    let permitted = ["a.example", "b.example", "::1"].map(str::to_owned).to_vec();
    assert_eq!(authority("name_constraints = true\n"), CaSource::Generated { permitted });
    let (certificate, key) = ("/etc/x/ca.pem".into(), "/home/me/ca.key".into());
    assert_eq!(
        authority("ca_cert = \"ca.pem\"\nca_key = \"~/ca.key\"\n"),
        CaSource::Files { certificate, key }
    );
    for (keys, key, words) in [
        ("ca_cert = \"x\"", "intercept.ca_key", "ca_cert is set"),
        ("ca_key = \"x\"", "intercept.ca_cert", "ca_key is set"),
        ("ca_cert = \"x\"\nca_key = \"y\"\nname_constraints = true", "name_constraints", "your own CA"),
        ("hosts = [\"*\"]\nname_constraints = true", "name_constraints", "intercept.hosts"),
        ("name_constraints = true", "name_constraints", "no hosts"),
        ("hosts = [\"https://a.example\"]", "intercept.hosts", "not a host pattern"),
        ("hosts = \"a.example:443\"", "intercept.hosts", "not a host pattern"),
        ("hosts = 7", "intercept.hosts", "expected a list"),
    ] {
        let issues = issues(&format!("[intercept]\n{keys}\n"), &[]);
        assert!(
            issues.len() == 1 && issues[0].contains(key) && issues[0].contains(words),
            "{keys}: {issues:?}"
        );
    }
}

#[test]
fn hooks_take_missing_keys_from_their_own_defaults() {
    let config = parse(
        "[hooks]\ninsufficient_confirmations = { action = \"retry\", times = 7 }\n\
         invalid_balance_proof = { action = \"retry\" }\nnonexisting_channel = { action = \"abort\" }\n\
         invalid_amount = { action = \"retry\", times = 1 }\ninvalid_contract_address = { action = \"abort\" }\n",
        &[],
    )
    .unwrap();
    let hooks = config.policy.hooks;
    let (every, within) = (Duration::from_secs(5), Duration::from_secs(300));
    assert_eq!(hooks.insufficient_confirmations.action, Retry::Retry { every, times: 7, within });
    assert_eq!(hooks.invalid_balance_proof, Hooks::default().invalid_balance_proof);
    assert_eq!(hooks.nonexisting_channel.action, Missing::Abort);
    assert_eq!(hooks.invalid_amount.action, Adopt::Adopt { times: 1 });
}

fn hooks_of(allow: &Allow) -> &Hooks {
    let Allow::Pay { hooks, .. } = allow else { panic!("it denies") };
    hooks
}

fn marks(status: &[u16], header: &[&str]) -> Marks {
    Marks {
        status: status.iter().map(|status| (*status).try_into().unwrap()).collect(),
        header: header.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

#[test]
fn each_hook_has_its_words() {
    let (every, times, within) = (Duration::from_secs(5), 60, Duration::from_secs(300));
    let webhook = "webhook = \"http://127.0.0.1:9/x\"";
    let asking = |word: &str| format!("{{ action = \"{word}\", {webhook} }}");
    type Check = fn(&Hooks, Duration, u32, Duration) -> bool;
    let table: &[(&str, &str, Check)] = &[
        ("init", "{ action = \"pass\" }", |hooks, _, _, _| hooks.init.action == Init::Pass),
        ("init", &asking("ask"), |hooks, _, _, _| {
            hooks.init.action == Init::Ask && hooks.init.webhook.is_some()
        }),
        ("exit", "{ action = \"pass\" }", |hooks, _, _, _| hooks.exit.action == Exit::Pass),
        ("exit", &asking("webhook"), |hooks, _, _, _| {
            hooks.exit.action == Exit::Tell && hooks.exit.webhook.is_some()
        }),
        ("payment_requested", "{ action = \"pay\" }", |hooks, _, _, _| {
            hooks.payment_requested.action == Requested::Pay
        }),
        ("payment_requested", "{ action = \"abort\" }", |hooks, _, _, _| {
            hooks.payment_requested.action == Requested::Abort
        }),
        ("payment_requested", "{ action = \"ask\" }", |hooks, _, _, _| {
            hooks.payment_requested == Requested::Ask.into()
        }),
        ("payment_requested", &asking("ask"), |hooks, _, _, _| {
            let asked = hooks.payment_requested.webhook.as_ref().unwrap();
            hooks.payment_requested.action == Requested::Ask
                && asked.url == "http://127.0.0.1:9/x"
                && asked.within == Duration::from_secs(2)
        }),
        ("insufficient_confirmations", &asking("retry"), |hooks, every, times, within| {
            hooks.insufficient_confirmations.webhook.is_some()
                && hooks.insufficient_confirmations.action == Retry::Retry { every, times, within }
        }),
        ("nonexisting_channel", "{ action = \"retry\" }", |hooks, every, times, within| {
            hooks.nonexisting_channel.action == Missing::Retry { every, times, within }
        }),
        ("nonexisting_channel", "{ action = \"reopen\", times = 60 }", |hooks, every, times, within| {
            hooks.nonexisting_channel.action == Missing::Reopen { every, times, within }
        }),
        ("invalid_balance_proof", &asking("retry"), |hooks, _, _, _| {
            hooks.invalid_balance_proof.webhook.is_some()
        }),
        ("invalid_balance_proof", "{ action = \"abort\" }", |hooks, _, _, _| {
            hooks.invalid_balance_proof.action == Retry::Abort
        }),
        ("invalid_amount", &asking("adopt"), |hooks, _, _, _| {
            hooks.invalid_amount.webhook.is_some() && hooks.invalid_amount.action == Adopt::Adopt { times: 3 }
        }),
        ("http_error", "{ action = \"pass\" }", |hooks, _, _, _| hooks.http_error.action == OnError::Pass),
        ("http_error", "{ action = \"abort\" }", |hooks, _, _, _| hooks.http_error.action == OnError::Abort),
        ("http_error", &asking("ask"), |hooks, _, _, _| {
            hooks.http_error.action == OnError::Ask && hooks.http_error.webhook.is_some()
        }),
        ("http_response", "{ action = \"pass\" }", |hooks, _, _, _| {
            hooks.http_response.action == OnResponse::Pass
        }),
        (
            "http_response",
            "{ action = \"abort\", status = [410], header = [\"X-Old\"] }",
            |hooks, _, _, _| hooks.http_response.action == OnResponse::Abort(marks(&[410], &["x-old"])),
        ),
        (
            "http_response",
            "{ action = \"ask\", status = [200], webhook = \"http://h/\" }",
            |hooks, _, _, _| {
                hooks.http_response.action == OnResponse::Ask(marks(&[200], &[]))
                    && hooks.http_response.webhook.is_some()
            },
        ),
        ("http_response", "{ action = \"abort\", status = [402] }", |hooks, _, _, _| {
            hooks.http_response.action == OnResponse::Abort(marks(&[402], &[]))
        }),
        ("http_response", &asking("ask"), |hooks, _, _, _| {
            hooks.http_response.action == OnResponse::AskAlways && hooks.http_response.webhook.is_some()
        }),
        ("success", "{ action = \"log\" }", |hooks, _, _, _| hooks.success.action == Success::Log),
        ("success", &asking("webhook"), |hooks, _, _, _| {
            hooks.success.action == Success::Tell && hooks.success.webhook.is_some()
        }),
        ("cooperative_close_denied", "{ action = \"keep\" }", |hooks, _, _, _| {
            hooks.cooperative_close_denied.action == CloseDenied::Keep
        }),
        ("cooperative_close_denied", "{ action = \"close_alone\" }", |hooks, _, _, _| {
            hooks.cooperative_close_denied.action == CloseDenied::CloseAlone
        }),
        ("cooperative_close_denied", &asking("close_alone"), |hooks, _, _, _| {
            hooks.cooperative_close_denied.webhook.is_some()
                && hooks.cooperative_close_denied.action == CloseDenied::CloseAlone
        }),
        ("cooperative_close_denied", "{ action = \"abort\" }", |hooks, _, _, _| {
            hooks.cooperative_close_denied.action == CloseDenied::Abort
        }),
    ];
    for (key, value, holds) in table {
        // As a default, which a rule inherits, and in a rule, which does not change the defaults.
        let config =
            parse(&format!("[[pay]]\nhost = \"a\"\nmax_price = 1\n[hooks]\n{key} = {value}"), &[]).unwrap();
        let hooks = hooks_of(&config.policy.rules[0].allow);
        assert!(holds(hooks, every, times, within), "{key} = {value}: {hooks:?}");
        assert_eq!(*hooks, *config.policy.hooks);
        let rule = format!("[[pay]]\nhost = \"a\"\nmax_price = 1\nhooks = {{ {key} = {value} }}");
        let config = parse(&rule, &[]).unwrap();
        assert!(holds(hooks_of(&config.policy.rules[0].allow), every, times, within), "{rule}");
        assert_eq!(*config.policy.hooks, Hooks::default());
    }
}

#[test]
fn a_rule_replaces_single_hooks() {
    let config = parse(
        "[hooks]\npayment_requested = { action = \"abort\" }\nnonexisting_channel = { action = \"retry\", times = 9 }\n\
         [[pay]]\nhost = \"a\"\nmax_price = 1\n[pay.hooks]\nnonexisting_channel = { action = \"retry\", every = \"1s\" }\n",
        &[],
    )
    .unwrap();
    let hooks = hooks_of(&config.policy.rules[0].allow);
    assert_eq!(hooks.payment_requested.action, Requested::Abort);
    let (every, within) = (Duration::from_secs(1), Duration::from_secs(300));
    assert_eq!(hooks.nonexisting_channel.action, Missing::Retry { every, times: 60, within });
}

#[test]
fn reports_all_issues_at_once() {
    let text = "lisen = \"x\"\nlisten = \"here\"\n[chain]\nrpc_url = \"node\"\nconfirmations = 0\n\
                [[pay]]\nport = 0\nmax_price = 0\n[hooks]\ninvalid_contract_address = { action = \"retry\" }\n\
                [limits]\nmax_attempts = -1\nconnect_timeout = 5\n";
    let error = parse(text, &[("TOLLPASS_LIMITS__MAX_PENDING", "many")]).unwrap_err();
    let keys: Vec<_> = error.issues.iter().map(|issue| issue.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "lisen",
            "listen",
            "chain.channel_manager",
            "chain.rpc_url",
            "chain.confirmations",
            "pay[0].host",
            "pay[0].port",
            "pay[0].max_price",
            "hooks.invalid_contract_address.action",
            "limits.max_attempts",
            "limits.connect_timeout",
            "wallet",
            "limits.max_pending",
        ]
    );
    let said = error.to_string();
    assert!(said.contains("13 errors") && said.contains("did you mean listen?"), "{said}");
    assert!(said.contains("(from TOLLPASS_LIMITS__MAX_PENDING)"), "{said}");
}

#[test]
fn each_fault_names_its_key_and_its_remedy() {
    let pay = |rest: &str| format!("[[pay]]\nhost = \"a\"\n{rest}");
    let hook = |rest: &str| format!("[hooks]\ninsufficient_confirmations = {rest}\n");
    let amount = |rest: &str| format!("[hooks]\ninvalid_amount = {rest}\n");
    let limit = |rest: &str| format!("[limits]\n{rest}\n");
    let hooks = |rest: &str| format!("[hooks]\n{rest}\n");
    let signer = |rest: &str| {
        format!(
            "[wallet]\nsigner = \"sign\"\naddress = \"0x00000000000000000000000000000000000000aa\"\n{rest}"
        )
    };
    for (text, expected) in [
        ("listen = 65536".to_owned(), "listen: \"65536\" is not a valid IP address with a port"),
        ("listen = true".to_owned(), "listen: expected a string, found true or false -> write it in \"quotes\""),
        ("allow_remote = 1".into(), "allow_remote: expected true or false, found an integer"),
        ("colour = 1".into(), "colour: unknown key -> remove it; the known keys here are listen, "),
        ("chain = 1".into(), "chain: expected a table, found an integer"),
        ("[wallet]".into(), "wallet: neither keystore nor key_file nor signer is set -> write keystore"),
        (
            "[wallet]\nkeystore = \"a\"\nkey_file = \"b\"".into(),
            "wallet: more than one of keystore, key_file and",
        ),
        (signer("key_file = \"b\""), "wallet: more than one of keystore, key_file and signer are set"),
        (signer("password_file = \"c\""), "wallet.password_file: has no effect without a keystore"),
        ("[wallet]\nsigner = \"sign\"".into(), "wallet.address: missing, but signer is set -> write address"),
        (
            "[wallet]\nkey_file = \"b\"\naddress = \"0x00000000000000000000000000000000000000aa\"".into(),
            "wallet.address: has no effect without signer",
        ),
        (signer("signer_timeout = \"1ms\""), "wallet.signer_timeout: 1ms is out of range"),
        (signer("signer_requests = 0"), "wallet.signer_requests: 0 is out of range"),
        (
            signer("").replace("sign\"", "sign 'a b'\""),
            "wallet.signer: no shell reads it, so that quotes have no",
        ),
        (
            signer("").replace("sign\"", "http://user:pass@host/\""),
            "wallet.signer: not an http:// or https:// URL",
        ),
        ("[wallet]\nkey_file = \"b\"\npassword_file = \"c\"".into(), "wallet.password_file: has no effect"),
        ("[chain]".into(), "wallet: missing, but [chain] is set"),
        ("[chain]\nchannel_manager = \"0x12\"".into(), "chain.channel_manager: \"0x12\": not an address"),
        (
            format!("[chain]\nchannel_manager = \"0x{}\"", "0".repeat(40)),
            "chain.channel_manager: the zero address",
        ),
        ("[chain]\npoll_every = \"0s\"".into(), "chain.poll_every: 0s is out of range"),
        ("[chain]\nchain_id = 0".into(), "chain.chain_id: no chain has the id 0"),
        (
            "[chain]\nmax_fee = \"5 finney\"".into(),
            "chain.max_fee: expected an amount of ether, found \"5 finney\" -> write a number and its unit",
        ),
        (
            "[chain]\nmax_fee_per_gas = 1.5".into(),
            "chain.max_fee_per_gas: expected an amount of ether, found a number",
        ),
        ("[chain]\nmax_fee_per_gas = 0".into(), "chain.max_fee_per_gas: 0 wei is out of range"),
        ("[chain]\nlog_range = 0".into(), "chain.log_range: 0 is out of range -> write a value from 1 to"),
        (format!("listen = \"0.0.0.0:1\"\n{PAYING}"), "listen: other machines can connect to 0.0.0.0:1"),
        (
            format!("listen = \"0.0.0.0:1\"\nallow_remote = true\n{PAYING}"),
            "listen: other machines can connect to 0.0.0.0:1 and spend your money -> allow_remote = true also needs a \
             [[client]] for each program: write [[client]], name = \"laptop\" and token_file = \"laptop.token\"",
        ),
        (
            format!("listen = \"0.0.0.0:1\"\n{PAYING}{CLIENT}"),
            "listen: other machines can connect to 0.0.0.0:1 and spend your money -> write allow_remote = true",
        ),
        (
            format!(
                "allow_remote = true\n{PAYING}[[route]]\nlisten = \"0.0.0.0:1\"\norigin = \"http://a\"\n"
            ),
            "route[0].listen: other machines can connect to 0.0.0.0:1",
        ),
        ("tls_cert = \"x\"".into(), "tls_key: missing, but tls_cert is set: each needs the other"),
        ("tls_key = \"x\"".into(), "tls_cert: missing, but tls_key is set: each needs the other"),
        (
            "[[route]]\nprefix = \"/a\"\norigin = \"http://a\"\ntls = false".into(),
            "route[0].tls: has no effect without listen",
        ),
        (
            "tls_cert = \"x\"\ntls_key = \"y\"\n[[route]]\nlisten = \"127.0.0.1:1\"\norigin = \"http://a\"\n[[route]]\n\
             listen = \"127.0.0.1:1\"\nprefix = \"/b\"\norigin = \"http://b\"\ntls = false"
                .into(),
            "route[1].tls: not the same as in route[0], which listens on the same address",
        ),
        ("auth = \"required\"".into(), "auth: \"required\" without a valid [[client]] refuses every request"),
        ("auth = \"none\"".into(), "auth: \"none\" is not a valid value -> write \"remote\" or \"required\""),
        ("local = \"all\"".into(), "local: \"all\" is not a valid value -> write \"own-user\" or \"any\""),
        ("connect_ports = []".into(), "connect_ports: an empty list"),
        ("connect_ports = [0]".into(), "connect_ports: \"0\" is not a valid port or range"),
        ("connect_ports = [443, \"9-8\"]".into(), "connect_ports: \"9-8\" is not a valid port or range"),
        ("connect_ports = [true]".into(), "connect_ports: \"true or false\" is not a valid port or range"),
        ("client = 1".into(), "client: expected a list of tables, found an integer"),
        ("[[client]]\nname = \"a\"".into(), "client[0].token_file: missing"),
        ("[[client]]\ntoken_file = \"t\"".into(), "client[0].name: missing"),
        ("[[client]]\nname = \"a:b\"\ntoken_file = \"t\"".into(), "client[0].name: not a valid name"),
        ("[[client]]\nname = \"a b\"\ntoken_file = \"t\"".into(), "client[0].name: not a valid name"),
        (
            "[[client]]\nname = \"a\"\ntoken_file = \"t\"\nkind = \"robot\"".into(),
            "client[0].kind: \"robot\" is not a valid value -> write \"any\" or \"program\"",
        ),
        (
            "[[client]]\nname = \"a\"\ntoken_file = \"t\"\n[[client]]\nname = \"a\"\ntoken_file = \"u\""
                .into(),
            "client[1].name: another [[client]] has the same name",
        ),
        (
            format!("{CLIENT}[client.pay]\nhost = \"a\""),
            "client[0].pay: expected a list of tables, found a table -> write [[client.pay]], with two brackets",
        ),
        (format!("{CLIENT}[[client.pay]]\nhost = \"a\""), "client[0].pay[0].max_price: missing"),
        ("pay = 1".into(), "pay: expected a list of tables, found an integer"),
        (
            "[pay]\nhost = \"a\"".into(),
            "pay: expected a list of tables, found a table -> write [[pay]], with two brackets",
        ),
        ("pay = [1]".into(), "pay[0]: expected a table, found an integer"),
        (pay(""), "pay[0].max_price: missing -> write max_price = "),
        (pay("max_price = 0"), "pay[0].max_price: 0 would pay nothing"),
        (pay("max_price = -1"), "pay[0].max_price: -1 is negative"),
        (pay("max_price = 1.5"), "pay[0].max_price: expected an amount, found a number with a decimal point"),
        (pay("max_price = \"1e3\""), "pay[0].max_price: \"1e3\" is not a whole number of base units"),
        (pay("max_price = 1\nask_above = \"cheap\""), "pay[0].ask_above: \"cheap\" is not a whole number of base units"),
        (
            pay("max_price = 1\nask_above = 0\nhooks = { payment_requested = { action = \"abort\" } }"),
            "pay[0].ask_above: has no effect if payment_requested aborts",
        ),
        (pay("deny = true\nask_above = 1"), "pay[0].ask_above: has no effect with deny = true"),
        (pay("max_price = 1\nport = 65536"), "pay[0].port: 65536 is not a valid port"),
        (pay("max_price = 1\nreceivers = []"), "pay[0].receivers: an empty list"),
        (pay("max_price = 1\nreceivers = [\"a\"]"), "pay[0].receivers: \"a\": not an address"),
        (
            pay("max_price = 1\nreceivers = \"0x\""),
            "pay[0].receivers: expected a list of addresses, found a string",
        ),
        (pay("deny = true\nmax_price = 1"), "pay[0].max_price: has no effect with deny = true"),
        (pay("deny = \"yes\"\nmax_price = 1"), "pay[0].deny: expected true or false, found a string"),
        (
            pay("max_prise = 1\nmax_price = 1"),
            "pay[0].max_prise: unknown key -> did you mean pay[0].max_price?",
        ),
        (
            "[[pay]]\nhost = \"http://a/\"\nmax_price = 1".into(),
            "pay[0].host: \"http://a/\" is not a host pattern",
        ),
        ("[deposit]\ninitial = 0".into(), "deposit.initial: 0 is not a valid deposit"),
        ("[deposit]\ntop_up = \"0 units\"".into(), "deposit.top_up: \"0 units\" is not a valid deposit"),
        (
            "[deposit]\ntop_up = \"many units\"".into(),
            "deposit.top_up: \"many units\" is not a valid deposit",
        ),
        ("[deposit]\ninitial = \"100000000000000000001 units\"".into(), "is not a valid deposit"),
        ("[deposit]\nmax_count = 0".into(), "deposit.max_count: 0 is out of range"),
        ("[deposit]\ncount_window = \"0s\"".into(), "deposit.count_window"),
        ("[deposit]\non_exit = \"always\"".into(), "deposit.on_exit: \"always\" is not a valid value"),
        ("[deposit]\nclose_idle_after = \"999ms\"".into(), "deposit.close_idle_after: 999ms is out of range"),
        (
            "[deposit]\nclose_idle_after = \"soon\"".into(),
            "deposit.close_idle_after: \"soon\" is not a valid duration",
        ),
        ("[deposit]\nmax_per_channel = \"100000000000000000001\"".into(), "deposit.max_per_channel: 1000000"),
        ("[deposit]\nmax_per_receiver = 0".into(), "deposit.max_per_receiver: 0 would allow no channel"),
        ("[deposit]\nmax_total = \"much\"".into(), "deposit.max_total: \"much\" is not a whole number of base units"),
        (hook("1"), "hooks.insufficient_confirmations: expected a table"),
        (hook("{}"), "hooks.insufficient_confirmations.action: missing -> write action = \"retry\""),
        (
            hook("{ action = \"wait\" }"),
            ".action: \"wait\" is not possible here -> write action = \"retry\" or \"abort\"",
        ),
        (hook("{ action = \"retry\", times = 0 }"), ".times: 0 is out of range"),
        (hook("{ action = \"retry\", times = 10001 }"), ".times: 10001 is out of range"),
        (hook("{ action = \"retry\", every = \"0s\" }"), ".every: 0s is out of range"),
        (hook("{ action = \"retry\", timeout = \"1s\" }"), ".timeout: 1s is shorter than every = 5s"),
        (hook("{ action = \"abort\", times = 3 }"), ".times: has no effect with action = \"abort\""),
        (amount("{ action = \"adopt\", every = \"1s\" }"), "hooks.invalid_amount.every: unknown key"),
        (amount("{ action = \"retry\", timeout = \"1s\" }"), "hooks.invalid_amount.timeout: unknown key"),
        (amount("{ action = \"adopt\", times = 0 }"), "hooks.invalid_amount.times: 0 is out of range"),
        (
            hook("{ action = \"retry\", webhook_timeout = \"1s\" }"),
            ".webhook_timeout: has no effect without webhook",
        ),
        (
            hook("{ action = \"retry\", webhook = \"http://h/\", webhook_timeout = \"2m\" }"),
            ".webhook_timeout: 2m is out of range -> write a value from 1ms to 1m",
        ),
        (
            hook("{ action = \"retry\", webhook = \"https://h/\" }"),
            ".webhook: not an http:// URL -> write one such as",
        ),
        (hook("{ action = \"retry\", webhook = \"/h\" }"), ".webhook: not an http:// URL"),
        (
            hook("{ action = \"retry\", webhook = \"http://me:hush@h/\" }"),
            ".webhook: user names in a URL are not sent",
        ),
        (
            hook("{ action = \"abort\", webhook = \"http://h/\" }"),
            ".webhook: has no effect with action = \"abort\"",
        ),
        (hook("{ action = \"reopen\" }"), ".action: \"reopen\" is not possible here"),
        (hooks("init = { action = \"ask\" }"), "hooks.init.webhook: missing -> write webhook = "),
        (
            hooks("payment_requested = { action = \"ask\", webhook_timeout = \"1s\" }"),
            "hooks.payment_requested.webhook_timeout: has no effect without webhook",
        ),
        (
            hooks("payment_requested = { action = \"pay\", webhook = \"http://h/\" }"),
            "hooks.payment_requested.webhook: has an effect only with action = \"ask\"",
        ),
        (
            hooks("payment_requested = { action = \"retry\" }"),
            "write action = \"pay\" or \"ask\" or \"abort\"",
        ),
        (hooks("nonexisting_channel = { action = \"abort\", every = \"1s\" }"), ".every: has no effect with"),
        (
            hooks("http_error = { action = \"retry\" }"),
            "\"retry\" is not possible here: the response is already paid for",
        ),
        (
            hooks("http_response = { action = \"abort\" }"),
            "hooks.http_response: neither status nor header is set",
        ),
        (
            hooks("http_response = { action = \"pass\", status = [404] }"),
            ".status: has no effect with action = \"pass\"",
        ),
        (hooks("init = { action = \"ask\" }"), "hooks.init.webhook: missing"),
        (hooks("init = { action = \"abort\" }"), "write action = \"pass\" or \"ask\""),
        (hooks("exit = { action = \"webhook\" }"), "hooks.exit.webhook: missing"),
        (
            hooks("exit = { action = \"pass\", webhook = \"http://h/\" }"),
            "has an effect only with action = \"webhook\"",
        ),
        (
            hooks("http_response = { action = \"abort\", status = [99] }"),
            ".status: 99 is not a valid response status",
        ),
        (hooks("http_response = { action = \"abort\", status = [] }"), ".status: an empty list"),
        (
            hooks("http_response = { action = \"abort\", status = 404 }"),
            ".status: expected a list, found an integer",
        ),
        (
            hooks("http_response = { action = \"abort\", header = [\"a b\"] }"),
            ".header: \"a b\" is not a valid header name",
        ),
        (
            hooks("http_response = { action = \"ask\", status = [404] }"),
            "hooks.http_response.webhook: missing",
        ),
        (hooks("success = { action = \"webhook\" }"), "hooks.success.webhook: missing"),
        (
            hooks("success = { action = \"log\", webhook = \"http://h/\" }"),
            "has an effect only with action = \"webhook\"",
        ),
        (
            hooks("cooperative_close_denied = { action = \"keep\", webhook = \"http://h/\" }"),
            ".webhook: has an effect only with action = \"close_alone\"",
        ),
        (
            hooks("cooperative_close_denied = { action = \"retry\" }"),
            "write action = \"keep\" or \"close_alone\" or \"abort\"",
        ),
        (hooks("cooperative_close = 1"), "hooks.cooperative_close: unknown key"),
        (pay("max_price = 1\nhooks = 1"), "pay[0].hooks: expected a table, found an integer"),
        (
            pay("max_price = 1\nhooks = { invalid_amont = { action = \"abort\" } }"),
            "pay[0].hooks.invalid_amont: unknown key -> did you mean pay[0].hooks.invalid_amount?",
        ),
        (
            pay("max_price = 1\nhooks = { http_error = { action = \"x\" } }"),
            "pay[0].hooks.http_error.action: \"x\" is not possible here",
        ),
        (pay("deny = true\nhooks = {}"), "pay[0].hooks: has no effect with deny = true"),
        (
            "[hooks]\ninvalid_contract_address = { action = \"retry\" }".into(),
            "through a contract that holds none of our money, and a retry does not change that -> write action = \"abort\"",
        ),
        (
            limit("pay_timeout = \"2h\""),
            "limits.pay_timeout: 2h is out of range -> write a value from 1ms to 1h",
        ),
        (limit("pay_timeout = \"5\""), "limits.pay_timeout: \"5\" is not a valid duration"),
        (limit("max_attempts = 4294967297"), "limits.max_attempts: 4294967297 is out of range"),
        (limit("max_402_body = \"1ZB\""), "limits.max_402_body: expected a size, found \"1ZB\""),
        (
            limit("head_bytes = 100"),
            "limits.head_bytes: 100 is out of range -> write a value from 8KiB to 1MiB",
        ),
    ] {
        let found = issues(&text, &[]);
        assert!(
            found.iter().any(|issue| issue.contains(expected)),
            "{text}\n wanted {expected}\n found {found:#?}"
        );
    }
}

#[test]
fn routes_are_read_in_order() {
    let text = "[upstream]\nupgrade = [\"a.example\", \"*.B.example\"]\n\
                [[route]]\nprefix = \"/one/two/\"\norigin = \"https://a.example\"\n\
                [[route]]\nlisten = \"127.0.0.1:8410\"\norigin = \"http://[::1]:81/v1/\"\n\
                [[route]]\nlisten = \"127.0.0.1:8410\"\nprefix = \"/x\"\norigin = \"https://A.example/a%20b\"\n\
                [[route]]\nlisten = \"127.0.0.1:8411\"\nprefix = \"/\"\norigin = \"https://a.example\"\n";
    let config = parse(text, &[]).unwrap();
    let routes: Vec<String> = config
        .routes
        .iter()
        .map(|route| {
            let listen = route.listen.map_or("-".to_owned(), |listen| listen.to_string());
            format!("{listen} {:?} {}://{} {:?}", route.prefix, route.scheme, route.authority, route.base)
        })
        .collect();
    assert_eq!(
        routes,
        [
            "- \"/one/two\" https://a.example \"\"",
            "127.0.0.1:8410 \"\" http://[::1]:81 \"/v1\"",
            "127.0.0.1:8410 \"/x\" https://A.example \"/a%20b\"",
            "127.0.0.1:8411 \"\" https://a.example \"\"",
        ]
    );
    let upgrade: Vec<String> = config.upstream.upgrade.iter().map(ToString::to_string).collect();
    assert_eq!(upgrade, ["a.example", "*.b.example"]);
    let config = parse("", &[("TOLLPASS_UPSTREAM__UPGRADE", "a.example, b.example")]).unwrap();
    assert_eq!(config.upstream.upgrade.len(), 2);
}

#[test]
fn each_error_in_a_route_is_reported() {
    let origin = "origin = \"https://a.example\"";
    for (entry, expected) in [
        (origin.to_owned(), "route[0].prefix: missing -> write prefix = \"/name\", or listen"),
        (format!("prefix = \"/\"\n{origin}"), "route[0].prefix: \"/\" would hide the setup page"),
        (format!("prefix = \"one\"\n{origin}"), "must begin with a slash"),
        (format!("prefix = \"/a%2e\"\n{origin}"), "must begin with a slash"),
        (format!("prefix = \"/a?b\"\n{origin}"), "must begin with a slash"),
        (format!("prefix = \"/a//b\"\n{origin}"), "an empty segment"),
        (format!("prefix = \"//\"\n{origin}"), "an empty segment"),
        (format!("prefix = \"/a/../b\"\n{origin}"), "an empty segment"),
        (format!("prefix = \"/{}\"\n{origin}", "a".repeat(256)), "is too long"),
        ("prefix = \"/a\"".to_owned(), "route[0].origin: missing"),
        ("prefix = \"/a\"\norigin = \"a.example\"".to_owned(), "not an http:// or https:// URL"),
        ("prefix = \"/a\"\norigin = \"ftp://a.example\"".to_owned(), "not an http:// or https:// URL"),
        ("prefix = \"/a\"\norigin = \"https://u:p@a.example\"".to_owned(), "user names in a URL"),
        ("prefix = \"/a\"\norigin = \"https://a.example/?k=v\"".to_owned(), "a query or a fragment"),
        ("prefix = \"/a\"\norigin = \"https://a.example/#k\"".to_owned(), "a query or a fragment"),
        ("prefix = \"/a\"\norigin = \"https://a.example/b/%2E./c\"".to_owned(), "has a segment \".\""),
        ("prefix = \"/a\"\norigin = \"https://a.example:99999\"".to_owned(), "host or port is not valid"),
        ("prefix = \"/a\"\norigin = \"https://a.example:0\"".to_owned(), "host or port is not valid"),
        (
            format!("listen = \"a.example:1\"\n{origin}"),
            "route[0].listen: \"a.example:1\" is not a valid IP address",
        ),
        (
            format!("listen = \"0.0.0.0:1\"\n{origin}"),
            "route[0].listen: other machines can connect to 0.0.0.0:1",
        ),
        (
            format!("prefix = \"/a\"\n{origin}\nclient = \"other\"\n{CLIENT}"),
            "route[0].client: no valid [[client]] has this name",
        ),
        (format!("listen = \"127.0.0.1:8402\"\n{origin}"), "the proxy itself listens on 127.0.0.1:8402"),
        (format!("prefix = \"/a\"\nprefx = 1\n{origin}"), "did you mean route[0].prefix?"),
        (
            format!("prefix = \"/a\"\n{origin}\n[[route]]\nprefix = \"/a/\"\n{origin}"),
            "route[1].prefix: the same as in route[0]",
        ),
        (
            format!("listen = \"127.0.0.1:1\"\n{origin}\n[[route]]\nlisten = \"127.0.0.1:1\"\n{origin}"),
            "route[1].listen: the same as in route[0]",
        ),
    ] {
        let found = issues(&format!("{PAYING}[[route]]\n{entry}\n"), &[]);
        assert!(found.len() == 1 && found[0].contains(expected), "{entry}: {found:#?}");
    }
    let several = "[route]\n[upstream]\nupgrade = [\"http://a\"]\n";
    let found = issues(several, &[]);
    assert!(
        found.iter().any(|issue| issue.contains("route: expected a list of tables, found a table")),
        "{found:#?}"
    );
    assert!(found.iter().any(|issue| issue.contains("upstream.upgrade: \"http://a\" is not")), "{found:#?}");
    // Without a wallet, a route may listen for all machines.
    assert!(parse(&format!("[[route]]\nlisten = \"0.0.0.0:1\"\n{origin}"), &[]).is_ok());
}

#[test]
fn unknown_variables_are_issues() {
    for (variable, expected) in [
        (
            "TOLLPASS_CHAIN_RPC_URL",
            "unknown key (from TOLLPASS_CHAIN_RPC_URL) -> did you mean TOLLPASS_CHAIN__RPC_URL?",
        ),
        ("TOLLPASS_LISTN", "unknown key (from TOLLPASS_LISTN) -> did you mean TOLLPASS_LISTEN?"),
        ("TOLLPASS_COLOUR", "unknown key (from TOLLPASS_COLOUR) -> remove the variable TOLLPASS_COLOUR"),
        ("TOLLPASS_CHAIN", "chain: expected a table, found a string"),
        ("TOLLPASS_", "unknown key"),
        ("TOLLPASS_CHAIN__", "unknown key"),
    ] {
        let found = issues("", &[(variable, "x")]);
        assert!(found.iter().any(|issue| issue.contains(expected)), "{variable}: {found:#?}");
    }
}

#[test]
fn issues_show_no_secret() {
    for text in [
        "[chain]\nrpc_url = \"htp://me:hunter2@node\"",
        "[chain]\nrpc_url = \"http://me:hunter2@node\" x",
        "[chain]\nrpc_url = http://me:hunter2@node",
        "[chain]\nrpc_url = [\"http://me:hunter2@node\"]",
        "[[network]]\nid = \"eip155:1\"\nrpc_url = \"htp://me:hunter2@node\"",
        "[hooks]\nsuccess = { action = \"webhook\", webhook = \"https://a/hunter2\" }",
        "[wallet]\npassword = \"hunter2\"",
    ] {
        let error = parse(text, &[]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
    }
    let config = parse(PAYING, &[("TOLLPASS_CHAIN__RPC_URL", "http://me:hunter2@node/hunter2")]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn each_issue_is_in_the_order_of_lines_and_says_what_a_variable_has_set() {
    let text = "listen = 1\n[limits]\nmax_attempts = 0\n[[pay]]\nreceivers = [\"0x12\"]\nschemes = [\"x-402\"]\n\
                networks = [\"mars\"]\nmax_price = \"x\"\nask_above = \"y\"\nbudgets = [\"none\"]\nbrowsers = \"all\"\n";
    let error = parse(text, &[]).unwrap_err();
    let lines: Vec<_> = error.issues.iter().map(|issue| issue.line.unwrap()).collect();
    // The entry has no host.
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10, 11], "{error}");
    let found = issues("", &[("TOLLPASS_PAY__0__HOST", "a")]);
    assert_eq!(found, ["pay[0].max_price: missing -> set TOLLPASS_PAY__0__MAX_PRICE to \"$0.05\""]);
    let found = issues("[[pay]]\nhost = \"a\"\n", &[]);
    assert_eq!(found, ["pay[0].max_price: missing -> write max_price = \"$0.05\""]);
}

#[test]
fn common_slips_get_the_right_form() {
    let pay = |rest: &str| format!("[[pay]]\nhost = \"a\"\nmax_price = 1\n{rest}");
    let host = |host: &str| format!("[[pay]]\nhost = \"{host}\"\nmax_price = 1\n");
    let price = |price: &str| format!("[[pay]]\nhost = \"a\"\nmax_price = \"{price}\"\n");
    let budget = |key: &str| format!("[[budget]]\nname = \"b\"\nwallet = true\ntotal = 1\n{key} = 1\n");
    for (text, expected) in [
        (host("*example.com"), "write \"*.example.com\""),
        (host(".example.com"), "write \"*.example.com\""),
        (host("api.*.com"), "* can stand only at the beginning"),
        (price("0.05USDC"), "has no space before the symbol -> write \"0.05 USDC\""),
        (price("5 cents"), "write \"$0.05\""),
        (price("2 dollars"), "write \"$2\""),
        (budget("per_month"), "did you mean per_30_days or per_calendar_month?"),
        (budget("per_week"), "did you mean per_calendar_week?"),
        (
            pay("receivers = [\"0x00000000000000000000000000000000000000aA\"]"),
            "the address has a wrong checksum (EIP-55): a digit is probably mistyped -> copy the address again",
        ),
        (
            pay("hooks = { payment_requested = \"ask\" }"),
            "pay[0].hooks.payment_requested: expected a table, found a string -> write payment_requested = { action = \"ask\" }",
        ),
        (
            "[[wallet]]\nkey_file = \"k\"".into(),
            "wallet: expected a table, found a list -> write [wallet], with one",
        ),
        (
            "[limits]\ncolour = 1".into(),
            "unknown key -> remove it; `tollpass config show --all` lists the known keys",
        ),
        (
            "[log]\n[limits]\n[log]\n".into(),
            "line 3, column 2: duplicate key log -> merge the two, or remove one",
        ),
        ("listen = 1\nlisten = 2\n".into(), "duplicate key listen -> merge the two, or remove one"),
    ] {
        let found = issues(&text, &[]);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:#?}");
    }
}

#[test]
fn a_secret_in_the_place_of_a_name_is_refused_and_not_shown() {
    let words = "legal winner thank year wave sausage worth useful legal winner thank yellow";
    let (key, short) = ("1d".repeat(32), "1d".repeat(31));
    let secrets =
        [key.clone(), format!("0x{key}"), format!("0X{key}"), format!("0x{short}"), words.to_owned()];
    for secret in &secrets {
        let issue = "holds the key or secret itself, not";
        for (text, path) in [
            (format!("[wallet]\nkey_file = \"{secret}\""), "wallet.key_file"),
            (format!("[wallet]\nkey_file = \" '{secret}' \""), "wallet.key_file"),
            (format!("[wallet]\nkeystore = \"{secret}\""), "wallet.keystore"),
            (format!("[wallet]\nkeystore = \"k\"\npassword_file = \"{secret}\""), "wallet.password_file"),
            (format!("[wallet]\nsigner = \"{secret}\""), "wallet.signer"),
            (format!("[[client]]\nname = \"a\"\ntoken_file = \"{secret}\""), "client[0].token_file"),
            (format!("tls_cert = \"c\"\ntls_key = \"{secret}\""), "tls_key"),
        ] {
            let found = issues(&text, &[]);
            assert!(found.iter().any(|found| found.starts_with(&format!("{path}: {issue}"))), "{found:?}");
            assert!(!format!("{found:?}").contains(&secret[..10]), "{found:?}");
        }
        let variable = [("TOLLPASS_WALLET__KEY_FILE", secret.as_str())];
        let found = issues("", &variable);
        assert!(
            found[0].contains(issue) && found[0].contains("(from TOLLPASS_WALLET__KEY_FILE)"),
            "{found:?}"
        );
        assert!(!found[0].contains(&secret[..10]), "{found:?}");
        // It is no address either, and messages quote invalid addresses.
        let text = format!("[wallet]\nsigner = \"sign\"\naddress = \"{secret}\"");
        let found = issues(&text, &[]);
        assert!(found[0].contains("which looks like a secret"), "{found:?}");
        assert!(!found[0].contains(&secret[..10]), "{found:?}");
    }
    for name in ["./".to_owned() + &key, "0x".to_owned() + &key[..40], key[..40].to_owned()] {
        assert!(parse(&format!("[wallet]\nkey_file = \"{name}\""), &[]).is_ok(), "{name}");
    }
}

#[test]
fn invalid_toml_is_reported_with_its_position() {
    let found = issues("listen = \"127.0.0.1:1\"\nlisten = = 3\n", &[]);
    assert!(found.len() == 1 && found[0].contains("line 2"), "{found:?}");
    let found = issues("[[pay]]\nhost = \"a\"\nmax_price = 99999999999999999999\n", &[]);
    assert!(found[0].contains("pay[0].max_price: the number is too large"), "{found:?}");
    assert!(found[0].contains("base units above 9223372036854775807 in \"quotes\""), "{found:?}");
}

#[test]
fn another_address_to_listen_on_is_checked_too() {
    let remote: SocketAddr = "0.0.0.0:80".parse().unwrap();
    for (text, is_allowed) in [("", true), (PAYING, false)] {
        let mut config = parse(text, &[]).unwrap();
        assert_eq!(config.listen_on(remote).is_ok(), is_allowed);
        assert_eq!(config.listen == remote, is_allowed);
        config.listen_on("[::ffff:127.0.0.1]:80".parse().unwrap()).unwrap();
    }
    let mut config = parse(&format!("allow_remote = true\n{PAYING}"), &[]).unwrap();
    assert!(config.listen_on(remote).is_err(), "a wallet is exposed only to clients");
    let mut config = parse(&format!("allow_remote = true\n{PAYING}{CLIENT}"), &[]).unwrap();
    config.listen_on(remote).unwrap();
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    assert!(warning.contains("tokens to 0.0.0.0:80 unencrypted"), "{warning}");
    // Without a wallet, everyone may use it.
    parse("listen = \"0.0.0.0:80\"", &[]).unwrap();
    // A route's own port is exposed, too.
    let route = "[[route]]\nlisten = \"0.0.0.0:1\"\norigin = \"http://a\"\n";
    let config = parse(&format!("allow_remote = true\n{PAYING}{CLIENT}{route}"), &[]).unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn with_tls_no_token_is_unencrypted() {
    let remote: SocketAddr = "0.0.0.0:80".parse().unwrap();
    let top = "allow_remote = true\ntls_cert = \"cert.pem\"\ntls_key = \"~/key.pem\"\n";
    let route = "[[route]]\nlisten = \"0.0.0.0:1\"\norigin = \"http://a\"\n";
    let mut config = parse(&format!("{top}{PAYING}{CLIENT}{route}"), &[]).unwrap();
    config.listen_on(remote).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    let files = config.tls.as_ref().unwrap();
    assert_eq!(
        (&*files.certificate, &*files.key),
        (Path::new("/etc/x/cert.pem"), Path::new("/home/me/key.pem"))
    );
    assert!(config.is_tls && config.routes[0].is_tls);
    // A run's own proxy is on loopback without TLS; ports of routes are the same as always.
    config.listen_locally();
    assert_eq!((config.listen.to_string().as_str(), config.is_tls), ("127.0.0.1:0", false));
    assert!(config.routes[0].is_tls);

    // On request, the port of a route has none, and then its tokens are unencrypted.
    let config = parse(&format!("{top}{PAYING}{CLIENT}{route}tls = false\n"), &[]).unwrap();
    assert!(config.is_tls && !config.routes[0].is_tls);
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    assert!(warning.contains("tokens to 0.0.0.0:1 unencrypted") && warning.contains("tls_cert"), "{warning}");
    // A route on the proxy's own port has no setting of its own.
    let config = parse(&format!("{top}[[route]]\nprefix = \"/a\"\norigin = \"http://a\"\n"), &[]).unwrap();
    assert!(!config.routes[0].is_tls);
}

#[test]
fn warns_of_probable_mistakes() {
    let rules = "[[pay]]\nhost = \"*.example\"\nmax_price = 1\n[[pay]]\nhost = \"a.example\"\ndeny = true\n\
                 [[pay]]\nhost = \"b\"\nmax_price = \"100000000000000000001\"\n";
    let warnings = parse(rules, &[]).unwrap().warnings;
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert!(warnings[0].contains("pay[1] (a.example) never matches: pay[0] above it"), "{warnings:#?}");
    assert!(warnings[1].contains("pay[2] (b) allows more than a channel may hold"), "{warnings:#?}");
    assert!(warnings[2].contains("pay nothing without [wallet]"), "{warnings:#?}");
    assert_eq!(parse(&format!("{PAYING}{rules}"), &[]).unwrap().warnings.len(), 2);
    let warnings = parse(&format!("{PAYING}{CLIENT}{}", rules.replace("[[pay]]", "[[client.pay]]")), &[]);
    let warnings = warnings.unwrap().warnings;
    assert!(
        warnings[0].contains("client[0].pay[1] (a.example) never matches: client[0].pay[0]"),
        "{warnings:#?}"
    );
    assert!(warnings.len() == 2 && warnings[1].contains("client[0].pay[2] (b) allows more"), "{warnings:#?}");
}

#[test]
fn a_file_is_loaded_with_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, format!("state_dir = \"./state\"\n{PAYING}")).unwrap();
    let config = Config::load(Some(&path)).unwrap();
    assert_eq!(config.state_dir, directory.path().join("state"));
    assert_eq!(config.wallet.unwrap().source, KeySource::Keystore(directory.path().join("k")));
    let error = Config::load(Some(&directory.path().join("none.toml"))).unwrap_err();
    assert!(error.to_string().contains("none.toml is invalid: 1 error"), "{error}");
}

#[test]
fn a_state_directory_must_be_known() {
    let error = Config::parse("", Path::new("/"), &BTreeMap::new()).unwrap_err();
    assert_eq!(error.issues[0].key, "state_dir");
    let error = Config::parse("state_dir = \"~/x\"", Path::new("/"), &BTreeMap::new()).unwrap_err();
    assert!(error.issues.len() == 1 && error.issues[0].problem.contains("HOME"), "{error}");
}

#[test]
fn tls_per_origin_is_read_and_contradictions_are_reported() {
    let text = "[[upstream.tls]]\nhost = \"*.example.com\"\nport = 8443\nca_file = \"roots.pem\"\n\
                [upstream]\nca_file = \"more.pem\"\n\
                [[upstream.tls]]\nhost = \"localhost\"\ncertificate = \"/one.pem\"\nclient_cert = \"me.pem\"\n\
                client_key = \"~/me.key\"\n\
                [[upstream.tls]]\nhost = \"LOCALHOST\"\nport = 1\nca_file = \"x\"\n";
    let config = parse(text, &[]).unwrap();
    let [below, localhost, hidden] = &config.upstream.tls[..] else { panic!("{:?}", config.upstream.tls) };
    assert_eq!((below.host.to_string().as_str(), below.port), ("*.example.com", Some(8443)));
    assert_eq!((&below.trust, &below.client), (&OriginTrust::Roots("/etc/x/roots.pem".into()), &None));
    let client = Some(("/etc/x/me.pem".into(), "/home/me/me.key".into()));
    assert_eq!((&localhost.trust, &localhost.client), (&OriginTrust::Pinned("/one.pem".into()), &client));
    assert_eq!((hidden.index, localhost.port), (2, None));
    assert!(config.warnings[0].contains("upstream.tls[2] (localhost) never matches: upstream.tls[1]"));

    for (entry, key, said) in [
        ("ca_file = \"a\"", "upstream.tls[0].host", "missing"),
        ("host = \"https://a\"\nca_file = \"a\"", "upstream.tls[0].host", "is"),
        ("host = \"a\"\nport = 0\nca_file = \"a\"", "upstream.tls[0].port", "0 is not a valid port"),
        ("host = \"a\"", "upstream.tls[0]", "has no TLS settings"),
        ("host = \"a\"\nca_file = \"\"", "upstream.tls[0]", "has no TLS settings"),
        (
            "host = \"a\"\nca_file = \"a\"\ncertificate = \"b\"",
            "upstream.tls[0].certificate",
            "cannot be combined with ca_file",
        ),
        ("host = \"a\"\nclient_cert = \"a\"", "upstream.tls[0].client_key", "client_cert is set"),
        (
            "host = \"a\"\nca_file = \"a\"\nclient_key = \"a\"",
            "upstream.tls[0].client_cert",
            "client_key is set",
        ),
        ("host = \"a\"\nca_file = 1", "upstream.tls[0].ca_file", "expected"),
        ("host = \"a\"\nverify = false\nca_file = \"a\"", "upstream.tls[0].verify", "unknown key"),
    ] {
        let found = issues(&format!("[[upstream.tls]]\n{entry}\n"), &[]);
        let is_it = |fault: &String| fault.starts_with(&format!("{key}: ")) && fault.contains(said);
        assert!(found.len() == 1 && found.iter().all(is_it), "{entry}: {found:?}");
    }
    let found = issues("[upstream.tls]\nhost = \"a\"\n", &[]);
    assert!(found[0].contains("write [[upstream.tls]], with two brackets"), "{found:?}");
}

#[test]
fn variables_of_a_kubernetes_service_are_ignored_with_a_warning() {
    let variables = [
        ("TOLLPASS_SERVICE_HOST", "10.96.0.7"),
        ("TOLLPASS_SERVICE_PORT", "8402"),
        ("TOLLPASS_SERVICE_PORT_HTTP", "8402"),
        ("TOLLPASS_SERVICE_PORT_DNS_TCP", "53"),
        ("TOLLPASS_PORT", "tcp://10.96.0.7:8402"),
        ("TOLLPASS_PORT_8402_TCP", "tcp://10.96.0.7:8402"),
        ("TOLLPASS_PORT_8402_TCP_PROTO", "tcp"),
        ("TOLLPASS_PORT_8402_TCP_PORT", "8402"),
        ("TOLLPASS_PORT_53_UDP_ADDR", "10.96.0.7"),
        ("TOLLPASS_METRICS_SERVICE_HOST", "10.96.0.8"),
        ("TOLLPASS_METRICS_SERVICE_PORT", "9090"),
        ("TOLLPASS_METRICS_PORT", "tcp://10.96.0.8:9090"),
        ("TOLLPASS_METRICS_PORT_9090_TCP_ADDR", "10.96.0.8"),
    ];
    for variable in &variables[..9] {
        let config = parse("", &[*variable]).unwrap();
        assert!(config.warnings[0].contains(variable.0), "{variable:?}: {:?}", config.warnings);
    }
    let mut all = variables.to_vec();
    all.push(("TOLLPASS_LISTEN", "127.0.0.1:9"));
    let config = parse("", &all).unwrap();
    assert_eq!((config.listen.port(), config.warnings.len()), (9, 1), "{:?}", config.warnings);
    assert!(config.warnings[0].contains("12 more"), "{:?}", config.warnings);
}

#[test]
fn a_slip_that_only_looks_like_a_variable_of_kubernetes_is_still_a_fault() {
    for variable in [
        "TOLLPASS_LISTEN_PORT",
        "TOLLPASS_METRICS_SERVICE_HOST",
        "TOLLPASS_CHAIN__PORT",
        "TOLLPASS_PORT_X_TCP",
        "TOLLPASS_PORT_8402",
        "TOLLPASS_PORT_8402_HTTP",
        "TOLLPASS_PORT_8402_TCP_NAME",
        "TOLLPASS_SERVICE_HOSTS",
        "TOLLPASS_PORTS",
    ] {
        assert!(parse("", &[(variable, "1")]).is_err(), "{variable}");
    }
}

#[test]
fn hosts_have_one_spelling_in_the_configuration_too() {
    let text = "[[route]]\nprefix = \"/a\"\norigin = \"http://127.1:81/x\"\n\
                [[route]]\nprefix = \"/b\"\norigin = \"http://[::ffff:10.0.0.1]\"\n\
                [[pay]]\nhost = \"0x7f.1\"\ndeny = true\n[upstream]\nproxy = \"http://0177.0.0.1:3128\"\n";
    let config = parse(text, &[]).unwrap();
    assert_eq!(config.routes[0].authority, "127.0.0.1:81");
    assert_eq!(config.routes[1].authority, "10.0.0.1");
    assert_eq!(config.policy.rules[0].host.to_string(), "127.0.0.1");
    assert_eq!(config.upstream.http.unwrap().host, "127.0.0.1");
    for text in [
        "[[route]]\nprefix = \"/a\"\norigin = \"http://127.0.0.256/\"\n",
        "[[pay]]\nhost = \"1.2.3.4.5\"\ndeny = true\n",
        "[[pay]]\nhost = \"*.0.0.1\"\ndeny = true\n",
        "[upstream]\nproxy = \"http://08.1:3128\"\n",
        "[upstream]\nno_proxy = [\"10.0.0.256\"]\n",
    ] {
        assert!(parse(text, &[]).is_err(), "{text}");
    }
}

#[test]
fn a_key_that_was_renamed_still_works_by_its_old_name_with_a_warning() {
    let hook = |name: &str, rest: &str| format!("[hooks]\n{name} = {{ {rest} }}\n");
    let rule = "[[pay]]\nhost = \"a.example\"\nmax_price = 7\n";
    let limits = "[limits]\n";
    // The text before the key, its old and new name, its value, the text after it, and its path.
    let cases = [
        ("".to_owned(), "request_within", "request_timeout", "\"7s\"", "", "chain"),
        ("".to_owned(), "confirm_within", "confirm_timeout", "\"7m\"", "", "chain"),
        ("".to_owned(), "retry_within", "retry_timeout", "\"7s\"", "", "chain"),
        (rule.to_owned(), "pay_first", "send_ahead", "false", "", "pay[0]"),
        ("[deposit]\n".to_owned(), "surplus_within", "close_idle_after", "\"7m\"", "", "deposit"),
        ("[deposit]\n".to_owned(), "count_within", "count_window", "\"7h\"", "", "deposit"),
        (
            "[hooks.invalid_amount]\n".to_owned(),
            "do",
            "action",
            "\"adopt\"",
            "times = 7",
            "hooks.invalid_amount",
        ),
        (
            "[hooks.nonexisting_channel]\naction = \"retry\"\n".to_owned(),
            "within",
            "timeout",
            "\"7m\"",
            "",
            "hooks.nonexisting_channel",
        ),
        (
            "[hooks.init]\naction = \"ask\"\nwebhook = \"http://127.0.0.1:1/\"\n".to_owned(),
            "webhook_within",
            "webhook_timeout",
            "\"7s\"",
            "",
            "hooks.init",
        ),
        (limits.to_owned(), "pay_within", "pay_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "rounds", "max_attempts", "7", "", "limits"),
        (limits.to_owned(), "reserve_ahead", "sign_ahead", "7", "", "limits"),
        (limits.to_owned(), "ready_within", "ready_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "payees", "report_payees", "7", "", "limits"),
        (limits.to_owned(), "waiting", "max_pending", "7", "", "limits"),
        (limits.to_owned(), "head_within", "head_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "idle_within", "keepalive_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "stalled_within", "stream_idle_timeout", "\"7m\"", "", "limits"),
        (limits.to_owned(), "exchange_within", "exchange_timeout", "\"7h\"", "", "limits"),
        (limits.to_owned(), "linger_within", "linger_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "connect_within", "connect_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "continue_within", "expect_continue_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "answer_within", "answer_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "pool_idle_within", "pool_idle_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "offer_body", "max_402_body", "7777", "", "limits"),
        (limits.to_owned(), "offer_within", "offer_timeout", "\"7s\"", "", "limits"),
        (limits.to_owned(), "leaves", "certificate_cache", "7", "", "limits"),
        (limits.to_owned(), "drain_within", "drain_timeout", "\"7s\"", "", "limits"),
    ];
    let settings = |config: &Config| format!("{:?}", (&config.limits, &config.policy, &config.chain));
    let default = settings(&parse(&format!("{PAYING}{rule}"), &[]).unwrap());
    for (before, old, new, value, after, place) in cases {
        let text = |name: &str| format!("{PAYING}{before}{name} = {value}\n{after}\n");
        let with_rule = |name: &str| {
            let rule = if before.contains("[[pay]]") { "" } else { rule };
            parse(&format!("{}{rule}", text(name)), &[]).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let (by_old, by_new) = (with_rule(old), with_rule(new));
        assert_eq!(settings(&by_old), settings(&by_new), "{old}");
        assert_ne!(settings(&by_new), default, "{new} = {value} is not the default");
        assert!(by_new.warnings.is_empty(), "{:?}", by_new.warnings);
        let warning = format!("{place}.{old} is now called {place}.{new}; the old name still works");
        assert_eq!(by_old.warnings, [warning]);
        // Both names in one place: an error.
        let twice = format!("{}{new} = {value}\n", text(old));
        let expected =
            format!("{place}.{old}: the old name of {place}.{new}, which is also set -> remove it");
        assert_eq!(issues(&twice, &[]), [expected]);
    }
    // An old name is known only in its own table.
    let elsewhere = issues(&hook("init", "within = \"7s\""), &[]);
    assert!(elsewhere[0].starts_with("hooks.init.within: unknown key"), "{elsewhere:?}");
}

#[test]
fn a_variable_takes_precedence_over_the_file_whichever_name_each_uses() {
    let seconds = |text: &str, variable: &str| {
        let config = parse(&format!("[limits]\n{text}\n"), &[(variable, "7s")]).unwrap();
        (config.policy.pay_timeout.as_secs(), config.warnings.len())
    };
    for (text, variable, warnings) in [
        ("pay_timeout = \"5s\"", "TOLLPASS_LIMITS__PAY_TIMEOUT", 0),
        ("pay_timeout = \"5s\"", "TOLLPASS_LIMITS__PAY_WITHIN", 1),
        ("pay_within = \"5s\"", "TOLLPASS_LIMITS__PAY_TIMEOUT", 1),
        ("pay_within = \"5s\"", "TOLLPASS_LIMITS__PAY_WITHIN", 1),
    ] {
        assert_eq!(seconds(text, variable), (7, warnings), "{text} {variable}");
    }
    // An empty one counts as unset.
    let config = parse("[limits]\npay_timeout = \"5s\"\n", &[("TOLLPASS_LIMITS__PAY_WITHIN", "")]).unwrap();
    assert_eq!(config.policy.pay_timeout.as_secs(), 5);
}
