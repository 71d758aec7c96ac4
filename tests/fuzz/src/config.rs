//! The configuration: any file and any variables result in a valid configuration, or in all issues at once.
//!
//! An input is the text of a file. Below a line `%%%`, each line `NAME=value` is a variable.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tollpass::config::{Config, ConfigError, ConfigIssue, RouteConfig};
use tollpass::protocol::policy::{Allow, HostPattern, PriceLimit};
use tollpass::protocol::{Address, Amount};

/// Not a key, nor similar to one.
const STRANGER: &str = "zz_stranger_zz";
/// The problem of an integer that TOML cannot hold.
const TOO_LARGE: &str = "the number is too large";

/// Parses `input`, which is either accepted and satisfies the guarantees of a configuration, or rejected with reasons.
pub fn run(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let (text, variables) = input.split_once("\n%%%\n").unwrap_or((&input, ""));
    let mut environment: BTreeMap<String, String> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    environment.insert("HOME".to_owned(), "/home/me".to_owned());
    let parse = |text: &str| Config::parse(text, Path::new("/etc/x"), &environment);
    match parse(text) {
        Ok(config) => keeps_its_promises(config),
        Err(error) => {
            names_the_problem(&error);
            // Nothing after a syntax error or an integer above 64 bits is read.
            let is_read = |issue: &ConfigIssue| !issue.key.is_empty() && issue.problem != TOO_LARGE;
            let is_toml = error.issues.iter().all(is_read);
            // A byte order mark is only allowed at the start.
            if is_toml && !input.contains(STRANGER) && !input.starts_with('\u{feff}') {
                hides_no_issue(&error, parse(&format!("{STRANGER} = 1\n{text}")));
            }
        }
    }
}

fn names_the_problem(error: &ConfigError) {
    assert!(!error.issues.is_empty(), "refused without a reason");
    let said = error.to_string();
    for issue in &error.issues {
        assert!(!issue.problem.is_empty() && !issue.remedy.is_empty(), "{issue:?}");
        assert!(said.contains(&issue.problem) && said.contains(&issue.remedy), "{issue:?}");
    }
}

/// One more issue is reported together with the previous ones.
fn hides_no_issue(before: &ConfigError, after: Result<Config, ConfigError>) {
    let after = after.expect_err("an unknown key").issues;
    assert!(after.iter().any(|issue| issue.key == STRANGER), "{after:?}");
    // On the next line.
    let is_same = |one: &ConfigIssue, other: &ConfigIssue| {
        (&one.key, &one.problem, &one.remedy) == (&other.key, &other.problem, &other.remedy)
    };
    for issue in &before.issues {
        let is_there = after.iter().any(|other| is_same(issue, other));
        assert!(is_there, "{issue:?} is not reported beside another: {after:?}");
    }
}

fn keeps_its_promises(mut config: Config) {
    assert!(config.state_dir.is_absolute(), "{:?}", config.state_dir);
    assert!(config.chain.is_none() || config.wallet.is_some(), "only a wallet can use a chain");
    let is_safe = is_safe(&config);
    assert!(is_safe || config.listen.ip().to_canonical().is_loopback(), "{} pays for anyone", config.listen);
    if let Some(chain) = &config.chain {
        let shown = chain.rpc_url.to_string();
        assert!(
            !shown.contains(['@', '?', '#']) && shown.matches('/').count() == 2,
            "{shown} is more than a host"
        );
        assert!(!format!("{config:?}").contains(chain.rpc_url.expose()) || chain.rpc_url.expose() == shown);
        assert_ne!(chain.channel_manager, Address::default());
        assert!(chain.confirmations > 0 && chain.log_range > 0);
        lasts([chain.poll_every, chain.request_timeout, chain.confirm_timeout]);
    }
    is_bounded(&config);
    for rule in &config.policy.rules {
        let text = rule.host.to_string();
        assert_eq!(text.parse::<HostPattern>().as_ref(), Ok(&rule.host), "{text}");
        assert_ne!(rule.port, Some(0));
        if let Allow::Pay { max_price, .. } = &rule.allow {
            assert!(!is_nothing(max_price), "{text} pays nothing");
        }
    }
    lead_to_origins(&config);
    let anywhere = SocketAddr::from(([0, 0, 0, 0], 1));
    assert_eq!(config.listen_on(anywhere).is_ok(), is_safe);
}

/// Whether a limit allows no price of some asset that it names.
fn is_nothing(max_price: &PriceLimit) -> bool {
    match max_price {
        PriceLimit::ChannelToken(most) => most.is_zero(),
        PriceLimit::Tokens(tokens) => tokens.is_empty() || tokens.iter().any(|(most, _)| most.is_zero()),
        PriceLimit::Usd(most, tokens) => {
            most.is_zero() || tokens.is_empty() || tokens.iter().any(|token| token.usd.is_none())
        }
    }
}

/// Whether the proxy may listen beyond loopback: it never pays, or only for its clients.
fn is_safe(config: &Config) -> bool {
    config.wallet.is_none() || (config.allow_remote && !config.clients.is_empty())
}

/// Routes are distinct, listen no further than the proxy itself, and do not hide its pages.
fn lead_to_origins(config: &Config) {
    let is_safe = is_safe(config);
    for route in &config.routes {
        let is_plain = route.prefix.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        assert!(is_plain && (route.prefix.is_empty() || route.prefix.starts_with('/')), "{route:?}");
        assert!(!route.base.ends_with('/') && !route.base.contains(['?', '#']), "{route:?}");
        let (host, port) = (route.authority.host(), route.authority.port_u16());
        assert!(!host.is_empty() && !route.authority.as_str().contains('@') && port != Some(0), "{route:?}");
        match route.listen {
            None => assert!(!route.prefix.is_empty(), "{route:?} hides the proxy's own page"),
            Some(listen) => {
                assert!(listen != config.listen || listen.port() == 0, "{route:?} is the proxy's own port");
                assert!(is_safe || listen.ip().to_canonical().is_loopback(), "{route:?} pays for anyone");
            }
        }
        let is_same = |other: &&RouteConfig| (other.listen, &other.prefix) == (route.listen, &route.prefix);
        assert_eq!(config.routes.iter().filter(is_same).count(), 1, "{route:?} stands for two origins");
    }
}

fn is_bounded(config: &Config) {
    let limits = &config.limits;
    let counts = [
        limits.prices,
        limits.max_pending,
        limits.connections,
        limits.streams,
        limits.head_fields,
        limits.pool_idle_per_host,
        limits.origin_streams,
    ];
    assert!(counts.iter().all(|count| (1..=1_000_000).contains(count)), "{limits:?}");
    assert!((8 << 10..=1 << 20).contains(&limits.head_bytes), "{limits:?}");
    assert!(limits.replay_memory <= 1 << 30 && limits.max_402_body <= 16 << 20, "{limits:?}");
    lasts([
        limits.price_age,
        limits.head_timeout,
        limits.connect_timeout,
        limits.answer_timeout,
        limits.pool_idle_timeout,
        limits.ping_every,
        limits.ping_timeout,
        limits.offer_timeout,
        limits.drain_timeout,
    ]);
    let policy = &config.policy;
    assert!((1..=1000).contains(&policy.max_attempts) && policy.sign_ahead <= 1_000_000);
    lasts([policy.pay_timeout, policy.ready_timeout, policy.deposit.retry_after]);
    if let Some(within) = policy.deposit.close_idle_after {
        lasts([within]);
    }
    assert!(policy.deposit.channels > 0 && policy.deposit.max_count > 0);
    assert!(policy.deposit.max_per_channel > Amount::ZERO);
    for size in [policy.deposit.initial, policy.deposit.top_up] {
        assert!(size.of(1.into()) > Amount::ZERO);
    }
}

/// No timeout is zero or infinite.
fn lasts<const N: usize>(waits: [Duration; N]) {
    for wait in waits {
        assert!(!wait.is_zero() && wait <= Duration::from_secs(366 * 24 * 3600), "{wait:?}");
    }
}
