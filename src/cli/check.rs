//! `tollpass check`: checks all that payments depend on and prints one line for each item, with the remedy if it is
//! wrong.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::config_args::ConfigArgs;
use super::output::print;
use crate::admin;
use crate::app;
use crate::app::{HeldToken, WatchedTokens, chain_settings, origins, unlock};
use crate::chain::external::{ExternalSigner, SignerState};
use crate::chain::{Balances, Chain, WalletSigner};
use crate::config;
use crate::config::{Config, ConfigError, KeySource};
use crate::payments::AccountKey;
use crate::payments::journal;
use crate::payments::journal::{Journal, LedgerReader};
use crate::protocol::policy::{Allow, Rule};
use crate::protocol::{Account, Address, AssetId};
use crate::telemetry::{LogLevels, TraceSettings};
use crate::tls;
use crate::tls::{Authority, AuthorityError};

/// How long to retry transient node errors, since the user is waiting.
const RETRY_WINDOW: Duration = Duration::from_secs(5);
/// How many of the newest blocks to search for unknown channels.
const RECENT_BLOCKS: u64 = 10_000;
/// A hint about entries that allow any receiver.
const NO_TOTAL: &str = "deposit.max_total is not set: a seller that names a new receiver in each 402 gets a deposit for \
                        each, because a [[pay]] entry allows any receiver";
/// The hint if the chain shows channels or transactions that the journal does not have.
const OTHER_USER: &str = "if another program or state directory uses the same key, give each a key of its own; else \
                          `tollpass channels sync` imports the channels";

/// The hint about networks without a node.
const NO_NODE: &str = "rules can pay there, but it has no [[network]] entry: nothing shows whether a payment with an \
                       unclear outcome was taken, so its amount stays spent";

/// What `tollpass check --help` shows below the options.
const AFTER_HELP: &str = "\
Checks the configuration, certificates, log file, ports, state directory, key, node,
contract, networks, balances and nonces, and prints how to fix each problem. It sends no transaction,
asks an external signer for its accounts only, and can run beside `serve`. The exit code is
1 if anything is wrong.";

/// Validate the configuration, wallet, node and contract
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct CheckArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Write the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the report.
///
/// # Errors
/// A check failed, or standard output cannot be written.
pub async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let mut report = CheckReport::new(args.json);
    match args.config.file() {
        Some(path) => report.good("config", &path.display()),
        None => report.good("config", &"environment variables only"),
    }
    for warning in &config.warnings {
        if config.unpayable.contains(warning) {
            report.wrong("config", warning);
        } else {
            report.note("config", warning);
        }
    }
    start(&config, &mut report).await;
    for rule in &config.policy.rules {
        report.good("pay", &describe(rule));
    }
    for (client, rules) in client_rules(&config) {
        for rule in rules {
            report.good("pay", &format!("client {client}: {}", describe(rule)));
        }
    }
    match app::known_clients(&config) {
        Ok(clients) => {
            for client in clients.iter() {
                report.good("client", &client.name);
            }
        }
        Err(error) => report.wrong("client", &error),
    }
    if config.chain.is_some()
        && config.policy.deposit.max_total.is_none()
        && all_rules(&config).any(pays_any_receiver)
    {
        report.note("deposit", &NO_TOTAL);
    }
    certificates(&config, &mut report);
    match config.wallet.clone() {
        Some(wallet) => paying(&config, wallet, &mut report).await,
        None => report.note("wallet", &"no [wallet]: a plain proxy that never pays"),
    }
    let CheckReport { failures, lines, printed } = report;
    let printed = match lines {
        Some(lines) => {
            print(serde_json::to_string_pretty(&json!({ "failures": failures, "checks": lines }))? + "\n")
        }
        None => printed,
    };
    if failures > 0 {
        bail!("{failures} of the checks failed");
    }
    printed
}

/// Checks what could keep `serve` from starting: its log file, its ports and the state directory.
async fn start(config: &Config, report: &mut CheckReport) {
    if let Some(file) = &config.log.file {
        match app::inspect_log(file) {
            Ok(()) => report.good("log", &file.display()),
            Err(error) => report.wrong("log", &error),
        }
    }
    if let Err(error) = LogLevels::new(config.log.filter.as_deref(), app::DEFAULT_FILTER) {
        report.wrong("log", &error);
    }
    if let Some(traces) = &config.traces {
        match TraceSettings::check() {
            Ok(()) => {
                report.good("traces", &traces.endpoint.authority().map_or("", |authority| authority.as_str()))
            }
            Err(error) => report.wrong("traces", &error),
        }
    }
    let directory = &config.state_dir;
    // Opened for reading only: a check changes nothing.
    let state = app::inspect_state(directory).and_then(|()| Ok(LedgerReader::open(directory).map(drop)?));
    match &state {
        Ok(()) => report.good("state", &config.state_dir.display()),
        Err(error) => report.wrong("state", error),
    }
    let running = match admin::status(&admin::socket(&config.state_dir)).await {
        Ok(running) => running,
        Err(error) => {
            if state.is_ok() {
                report.wrong("state", &error);
            }
            None
        }
    };
    if let Some(status) = running {
        return report.good(
            "listen",
            &format!("{}, used by the proxy running on this state directory", status.listen),
        );
    }
    let routes = config.routes.iter().filter_map(|route| Some((route.listen?, route.is_tls)));
    for (address, is_tls) in std::iter::once((config.listen, config.is_tls)).chain(routes) {
        match std::net::TcpListener::bind(address) {
            Ok(_) if is_tls => report.good("listen", &format!("{address} with TLS")),
            Ok(_) => report.good("listen", &address),
            Err(error) => report.wrong("listen", &format!("cannot listen on {address}: {error}")),
        }
    }
}

/// Checks the certificate of our own ports, the roots that tollpass trusts, and the CA that programs must trust.
fn certificates(config: &Config, report: &mut CheckReport) {
    match app::server_tls(config) {
        Ok(None) => {}
        Ok(Some(tls)) => {
            report.good("tls", &tls.description());
            if let Some(trouble) = tls.trouble(SystemTime::now()) {
                report.note("tls", &trouble);
            }
        }
        Err(ConfigError { issues, .. }) => {
            issues.iter().for_each(|issue| report.wrong("tls", &format!("{}: {}", issue.key, issue.problem)));
        }
    }
    match tls::system(config.upstream.ca_file.as_deref()) {
        Ok(roots) => {
            report
                .good("roots", &format!("{} certificates to verify origins with", roots.certificates.len()));
            for warning in &roots.warnings {
                report.note("roots", warning);
            }
        }
        Err(error) => report.wrong("roots", &error),
    }
    for entry in &config.upstream.tls {
        match origins::open(entry) {
            Ok(opened) => {
                report.good("tls", &opened.description);
                opened.untimely.iter().for_each(|trouble| report.wrong("tls", trouble));
            }
            Err(issues) => {
                issues
                    .iter()
                    .for_each(|issue| report.wrong("tls", &format!("{}: {}", issue.key, issue.problem)));
            }
        }
    }
    if config.intercept.hosts.is_empty() {
        return report
            .note("ca", &"HTTPS interception is off: HTTPS is paid only through [[route]] and upgrade");
    }
    match authority(config) {
        Ok(Some((authority, warnings))) => {
            let end = tls::date(authority.validity().end);
            report.good("ca", &format!("{}, valid until {end}", authority.path().display()));
            for warning in &warnings {
                report.note("ca", warning);
            }
        }
        Ok(None) => report
            .note("ca", &"none yet: `tollpass serve` creates one, `tollpass ca trust` shows how to trust it"),
        Err(error) => report.wrong("ca", &error),
    }
}

/// The CA, if there is one, with warnings for the user.
fn authority(config: &Config) -> Result<Option<(Authority, Vec<String>)>, AuthorityError> {
    let (found, permitted) = match &config.intercept.authority {
        config::CaSource::Files { certificate, key } => {
            (Some(Authority::load(certificate, key)?), Vec::new())
        }
        config::CaSource::Generated { permitted } => {
            (Authority::find(&config.state_dir)?, app::names(permitted)?)
        }
    };
    if let Some(authority) = &found {
        authority.check_time(SystemTime::now())?;
    }
    Ok(found.map(|authority| {
        let warnings = authority.warnings(&permitted, SystemTime::now());
        (authority, warnings)
    }))
}

/// Asks an external signer for its accounts; nothing is signed.
async fn probe(signer: &ExternalSigner, report: &mut CheckReport) {
    let address = signer.address();
    let who = format!("{address}, signed for by {signer}, which has the key");
    match signer.probe().await {
        Ok(SignerState::Ready) => report.good("wallet", &who),
        Ok(SignerState::Silent(why)) => {
            report.note("wallet", &format!("{who}; it answers, but does not list its accounts: {why}"));
        }
        Ok(SignerState::OtherAccounts) => {
            report.wrong(
                "wallet",
                &format!("the signer {signer} does not have the account {address} of wallet.address"),
            );
        }
        Err(why) => report.wrong("wallet", &format!("the signer {signer} does not answer: {why}")),
    }
}

async fn paying(config: &Config, wallet: config::WalletConfig, report: &mut CheckReport) {
    let signer = match &wallet.source {
        // Nothing is derived here, so that its secret is not needed.
        KeySource::Signer(signer) => match app::external_signer(signer, "") {
            Ok(signer) => {
                probe(&signer, report).await;
                Arc::new(WalletSigner::from(signer))
            }
            Err(error) => return report.wrong("wallet", &error),
        },
        KeySource::Keystore(_) | KeySource::KeyFile(_) => match unlock(wallet, &config.state_dir).await {
            Ok(signer) => {
                report.good("wallet", &signer.address());
                Arc::new(signer)
            }
            Err(error) => return report.wrong("wallet", &error),
        },
    };
    networks(config, signer.address(), report).await;
    let Some(chain) = &config.chain else {
        return report.note("chain", &"no [chain]: nothing is paid from a channel");
    };
    let mut settings = chain_settings(chain);
    settings.retry_timeout = settings.retry_timeout.min(RETRY_WINDOW);
    let payer = signer.address();
    let node = match Chain::new(settings, signer) {
        Ok(node) => node,
        Err(error) => return report.wrong("node", &error),
    };
    let info = match node.contract_info().await {
        Ok(info) => {
            report.good("node", &format!("{}, chain {}, block {}", chain.rpc_url, info.chain_id, info.head));
            report.good("contract", &format!("{}, version {}", chain.channel_manager, info.version));
            report.good("token", &info.token);
            info
        }
        Err(error) => return report.wrong("node", &error),
    };
    let owner =
        Account { chain_id: info.chain_id, contract: chain.channel_manager, token: info.token, payer };
    if let Err(error) = journal(config, &node, &owner, info.head, report).await {
        report.wrong("journal", &error);
    }
    match node.fee_to_close_together().await {
        Ok(fee) => {
            report.good("fees", &format!("closing a channel costs at most {fee} wei at current prices"))
        }
        Err(error) => report.wrong("fees", &error),
    }
    match node.balances().await {
        Ok(balances) => funds(config, &balances, &owner.token_asset(), report),
        Err(error) => report.wrong("balance", &error),
    }
}

/// Checks the nodes that show whether an authorization was used, with what the wallet has there, and names the networks
/// without one.
async fn networks(config: &Config, payer: Address, report: &mut CheckReport) {
    let mut nodes = Vec::new();
    for entry in &config.networks {
        let config::NetworkConfig { id, rpc_url, retry_timeout, .. } = entry;
        let patient =
            config::NetworkConfig { retry_timeout: RETRY_WINDOW.min(*retry_timeout), ..entry.clone() };
        match app::network(&patient) {
            Ok(network) => match network.confirmed_block().await {
                Ok(block) => {
                    report.good("network", &format!("{id}, {rpc_url}, block {}", block.number));
                    nodes.push(network);
                }
                Err(error) => report.wrong("network", &error),
            },
            Err(error) => report.wrong("network", &error),
        }
    }
    held(config, &WatchedTokens::new(config, &nodes), payer, report).await;
    let mut without = Vec::new();
    for network in all_rules(config).flat_map(networks_of) {
        let has_node = config.networks.iter().any(|entry| entry.id == *network);
        if !has_node && !without.contains(&network) {
            without.push(network);
        }
    }
    if !without.is_empty() {
        report.note("network", &format!("{}: {NO_NODE}", without.join(", ")));
    }
}

/// Shows what the wallet has of the tokens that rules allow. It is wrong if it has none at all, and no channel could pay:
/// then `serve` is not ready.
async fn held(config: &Config, tokens: &WatchedTokens, payer: Address, report: &mut CheckReport) {
    let uses_channels = config.chain.is_some() && all_rules(config).any(allows_channels);
    let held = tokens.read(payer).await;
    let is_broke = !uses_channels && tokens.are_all(config) && held.iter().all(HeldToken::is_lacking);
    for token in &held {
        let HeldToken { asset, amount } = token;
        let (symbol, network) = (&asset.symbol, &asset.network);
        match amount {
            Ok(_) if token.is_lacking() && is_broke => {
                report.wrong("tokens", &format!("no {symbol} on {network}: send some to {payer}"));
            }
            Ok(_) if token.is_lacking() => report.note("tokens", &format!("no {symbol} on {network}")),
            Ok(amount) => report.good("tokens", &format!("{} on {network}", asset.show(*amount))),
            Err(error) => report.note("tokens", &format!("{symbol} on {network}: {error}")),
        }
    }
}

fn allows_channels(rule: &Rule) -> bool {
    matches!(&rule.allow, Allow::Pay { preference, .. } if preference.allows_channels())
}

/// The networks on which a rule allows payments without a channel.
fn networks_of(rule: &Rule) -> Vec<&str> {
    let Allow::Pay { max_price, preference, .. } = &rule.allow else { return Vec::new() };
    // Any scheme if empty.
    if !preference.schemes.is_empty() && preference.schemes.iter().all(|scheme| scheme.uses_channels()) {
        return Vec::new();
    }
    max_price.assets().map(|known| known.network.as_str()).collect()
}

/// Compares the journal with the chain.
async fn journal(
    config: &Config,
    node: &Chain,
    owner: &Account,
    head: u64,
    report: &mut CheckReport,
) -> anyhow::Result<()> {
    let (mut intents, mut known) = (Vec::new(), Vec::new());
    if config.state_dir.join(journal::FILE).exists() {
        let store = Journal::open(&config.state_dir)?;
        store.verify(owner, node.configured_chain().is_some())?;
        intents = store.intents(owner)?;
        let (chain_id, contract, payer) = (owner.chain_id, owner.contract, owner.payer);
        let owners = store
            .accounts()?
            .into_iter()
            .filter(|stored| stored.account == AccountKey { chain_id, contract, payer });
        known.extend(owners.flat_map(|stored| stored.channels).map(|(id, ..)| id));
    }
    match node.gap(&intents).await? {
        Some(gap) => report.wrong("nonces", &gap),
        None if intents.is_empty() => report.good("nonces", &"no pending transactions"),
        None => report.good("nonces", &format!("{} transactions recorded, without a gap", intents.len())),
    }
    let receivers: Vec<Address> = intents.iter().map(|intent| intent.op.receiver()).collect();
    let synced = node.sync(head.saturating_sub(RECENT_BLOCKS), &[]).await?;
    let strange = synced.channels.iter().filter(|(id, on_chain)| {
        on_chain.is_some() && !known.contains(id) && !receivers.contains(&id.receiver)
    });
    for (channel, _) in strange {
        report.note("key", &format!("this state directory did not open the channel {channel}: {OTHER_USER}"));
    }
    let sent = node.transactions().await?;
    if sent > 0 && known.is_empty() && intents.is_empty() {
        let text = format!("{sent} transactions of this account, none from this state directory");
        report.note("key", &format!("{text}: {OTHER_USER}"));
    }
    Ok(())
}

fn funds(config: &Config, balances: &Balances, token: &AssetId, report: &mut CheckReport) {
    let Balances { wei, tokens, .. } = balances;
    if wei.is_zero() {
        report.wrong("ether", &"0 wei: channels cannot be opened; send some ether to the wallet for fees");
    } else {
        report.good("ether", &format!("{wei} wei"));
    }
    let symbol = balances.symbol.as_deref().unwrap_or("the token");
    let decimals = balances.decimals.map(|digits| format!(" ({digits} decimals)")).unwrap_or_default();
    let text = format!("{tokens} base units of {symbol}{decimals}");
    let limits = || {
        all_rules(config).filter_map(|rule| match &rule.allow {
            Allow::Pay { max_price, .. } => Some(max_price),
            Allow::Deny => None,
        })
    };
    match limits().filter_map(|max_price| max_price.channel_token(token)).max() {
        None if limits().next().is_none() => {
            report.note("pay", &"no [[pay]] rule allows a payment: tollpass never pays");
        }
        None => {
            let remedy = "name it in an [[asset]] entry, with its value in dollars if rules use them";
            report.note("pay", &format!("no [[pay]] rule allows the contract's token, {token}: {remedy}"));
        }
        Some(_) if tokens.is_zero() => report.wrong("tokens", &format!("{text}: send some to the wallet")),
        Some(price) if *tokens < config.policy.deposit.initial.of(price) => {
            report
                .note("tokens", &format!("{text}: less than the initial deposit for the highest max_price"));
        }
        Some(_) => report.good("tokens", &text),
    }
}

fn pays_any_receiver(rule: &Rule) -> bool {
    matches!(&rule.allow, Allow::Pay { receivers, .. } if receivers.is_empty())
}

/// The global rules, and those of clients.
fn all_rules(config: &Config) -> impl Iterator<Item = &Rule> {
    config.policy.rules.iter().chain(client_rules(config).flat_map(|(_, rules)| rules))
}

/// The clients with rules of their own.
fn client_rules(config: &Config) -> impl Iterator<Item = (&str, &[Rule])> {
    let clients = config.clients.iter().map(|config| &config.client);
    clients.filter_map(|client| Some((client.name.as_str(), client.rules.as_deref()?)))
}

fn describe(rule: &Rule) -> String {
    let port = rule.port.map(|port| format!(":{port}")).unwrap_or_default();
    match &rule.allow {
        Allow::Deny => format!("{}{port}: denied", rule.host),
        Allow::Pay { max_price, receivers, .. } if receivers.is_empty() => {
            format!("{}{port}: at most {max_price} per request, to any payee", rule.host)
        }
        Allow::Pay { max_price, receivers, .. } => {
            let names: Vec<String> = receivers.iter().map(ToString::to_string).collect();
            format!("{}{port}: at most {max_price} per request, to {}", rule.host, names.join(", "))
        }
    }
}

/// Prints the lines of the report, or collects them for JSON, and counts failures.
struct CheckReport {
    failures: usize,
    lines: Option<Vec<Value>>,
    printed: anyhow::Result<()>,
}

impl CheckReport {
    fn new(as_json: bool) -> Self {
        Self { failures: 0, lines: as_json.then(Vec::new), printed: Ok(()) }
    }

    fn good(&mut self, what: &str, text: &dyn std::fmt::Display) {
        self.line("ok", what, text);
    }

    fn note(&mut self, what: &str, text: &dyn std::fmt::Display) {
        self.line("note", what, text);
    }

    fn wrong(&mut self, what: &str, text: &dyn std::fmt::Display) {
        self.failures += 1;
        self.line("FAIL", what, text);
    }

    fn line(&mut self, verdict: &str, what: &str, text: &dyn std::fmt::Display) {
        if let Some(lines) = &mut self.lines {
            let verdict = verdict.to_ascii_lowercase();
            lines.push(json!({ "verdict": verdict, "what": what, "text": text.to_string() }));
        } else if self.printed.is_ok() {
            self.printed = print(format!("{verdict:6} {what:9} {text}\n"));
        }
    }
}
