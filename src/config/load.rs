//! The keys at the top of the file, and how a whole configuration is read.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::config::ValueKind;
use serde_json::json;

use super::authorization_limits::authorization_limits;
use super::chain::ChainConfig;
use super::client::{AuthRequirement, ClientConfig};
use super::edit::EditError;
use super::intercept::InterceptConfig;
use super::issue::{ConfigError, ConfigIssue};
use super::key::{SOCKET, Shape, Table, keys};
use super::ledger::LedgerConfig;
use super::lines::KeyLines;
use super::listener::{Exposure, TlsFiles};
use super::log::LogConfig;
use super::network::NetworkConfig;
use super::raw_value::InvalidValue;
use super::reload;
use super::reload::ConfigSource;
use super::route::RouteConfig;
use super::rules::both_or_neither;
use super::section::{Issues, Section};
use super::shown::{KeyOrigin, ShownKey};
use super::traces::TracesConfig;
use super::upstream::UpstreamConfig;
use super::values::BasePaths;
use super::variables::{from_variable, variable};
use super::wallet::WalletConfig;
use super::{
    asset, budget, chain, client, edit, entries, frontend, hooks, intercept, ledger, limits, listener, log,
    network, origin, policy, route, secret_files, shown, source, traces, upstream, values, wallet,
};
use crate::hosts::port_set::PortSet;
use crate::limits::Limits;
use crate::protocol::budget::{BudgetAmount, BudgetUnit};
use crate::protocol::policy::{Hooks, KnownAsset, LocalSpenders, Policy, Rule};

/// The keys at the top of the file.
pub(super) static TOP: Table = Table::new(
    "config",
    "The configuration of tollpass.",
    keys! {
        /// The IP address and port that clients connect to; a port alone, such as 8402, means 127.0.0.1.
        "listen": SOCKET; or(|| json!(DEFAULT_LISTEN.to_string())),
        /// A certificate for TLS on listen, followed by its intermediates, and its key without a password (PEM; the key
        /// chmod 600): clients then use https://HOST:PORT as the proxy.
        "tls_cert": Shape::Path,
        /// A certificate for TLS on listen, followed by its intermediates, and its key without a password (PEM; the key
        /// chmod 600): clients then use https://HOST:PORT as the proxy.
        "tls_key": Shape::Path,
        /// The IP address and port of another listener, which has metrics for Prometheus at /metrics and nothing else.
        "metrics_listen": SOCKET,
        /// A proxy with a wallet listens on loopback only, unless this is true and there is a [[client]]: then only those
        /// with a client's token can spend your money.
        "allow_remote": Shape::Boolean(false),
        /// Which connections need the name and token of a [[client]], as Basic proxy authentication: "remote", those whose
        /// peer or listening address is not loopback, if there is a [[client]]; "required", all.
        "auth": client::AUTH_SHAPE; or(|| json!("remote")),
        /// Whose programs may spend on this machine without the token of a [[client]] or a [[route]]: "own-user", those of
        /// the user who runs tollpass; "any", those of all users.
        "local": client::LOCAL_SHAPE; or(|| json!("own-user")),
        /// How many threads serve clients; if absent, one for each core that this process may use.
        "workers": Shape::Integer(1, MOST_WORKERS),
        /// The ports that CONNECT may lead to, each a number or a range such as "8000-8999".
        "connect_ports": Shape::List(&values::PORTS, 1, values::MOST_PORTS); or(|| json!(["1-65535"])),
        /// The directory for all state: the journal of channels, signed totals and transactions (tollpass.db, SQLite),
        /// a copy of the ledger's head (ledger-head.*), the local CA (ca.pem, ca-key.pem), files for programs
        /// (ca-bundle*.pem, wgetrc*), the control socket (admin.sock), lock, and route-token if there are routes.
        "state_dir": Shape::Path; or(|| json!("~/.local/state/tollpass")),
        /// The key that pays; without it, tollpass never pays.
        "wallet": Shape::Table(&wallet::WALLET),
        /// The blockchain that holds the channels. It needs [wallet]; without it, nothing is paid from a channel.
        "chain": Shape::Table(&chain::CHAIN),
        /// Which hosts may be paid, and how much. The first entry that matches decides; without one, nothing is paid.
        "pay": Shape::Tables(&policy::PAY, policy::MAX_RULES),
        /// A token that [[pay]] entries can name, in addition to RDN, and USDC on several networks. tollpass never believes what
        /// a seller says about a token.
        "asset": Shape::Tables(&asset::ASSET, asset::MAX_ASSETS),
        /// The node of a network on which payments are authorizations of a token. Without one, nothing shows whether an
        /// authorization with an unclear outcome was used: its amount stays spent. `tollpass approve-token` needs one,
        /// too, except on the network of [chain], whose node and limits it uses.
        "network": Shape::Tables(&network::NETWORK_NODE, network::MAX_NETWORKS),
        /// Budgets: how much may be spent together.
        "budget": Shape::Tables(&budget::BUDGET, budget::MAX_BUDGETS),
        /// A program that may use the proxy, and the token with which it proves that: http_proxy=http://NAME:TOKEN@HOST:PORT.
        "client": Shape::Tables(&client::CLIENT, client::MAX_CLIENTS),
        /// A base URL of tollpass for programs that support no proxy: requests below the prefix go to the origin and
        /// are paid by the [[pay]] entries for the origin's host.
        "route": Shape::Tables(&route::ROUTE, route::MAX_ROUTES),
        /// How clients address the proxy itself.
        "frontend": Shape::Table(&frontend::FRONTEND),
        /// How much to lock up in channels.
        "deposit": Shape::Table(&policy::DEPOSIT),
        /// What to do at each step of a payment; a [[pay]] entry can override it.
        "hooks": Shape::Table(&hooks::HOOKS),
        /// Which https connections tollpass decrypts, so that it can pay inside them.
        "intercept": Shape::Table(&intercept::INTERCEPT),
        /// How to reach origins.
        "upstream": Shape::Table(&upstream::UPSTREAM),
        /// How much of the ledger to keep.
        "ledger": Shape::Table(&ledger::LEDGER),
        /// The log of `tollpass serve`.
        "log": Shape::Table(&log::LOG),
        /// Traces of requests for OpenTelemetry. They name hosts and paths, and what was paid.
        "traces": Shape::Table(&traces::TRACES),
        /// Limits on everything that could otherwise grow or last.
        "limits": Shape::Table(&limits::TABLE),
    },
)
.with_rules(|| {
    vec![json!({"dependentRequired": {"chain": ["wallet"]}}), both_or_neither("tls_cert", "tls_key")]
});

/// Each worker has sockets and memory of its own.
const MOST_WORKERS: u64 = 1024;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8402));

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address that clients connect to.
    pub listen: SocketAddr,
    /// `listen` before overrides; never used as the outbound proxy, to prevent a loop.
    pub usual_listen: SocketAddr,
    /// The certificate of the ports that speak TLS.
    pub tls: Option<TlsFiles>,
    /// Whether `listen` speaks TLS; only with `tls`.
    pub is_tls: bool,
    /// The address of the listener for metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// Allows a proxy with a wallet to listen beyond loopback.
    pub allow_remote: bool,
    /// Which connections need the token of one of `clients`.
    pub auth: AuthRequirement,
    /// Whose programs may spend without a token.
    pub local: LocalSpenders,
    /// How many threads serve clients.
    pub workers: usize,
    /// The ports that `CONNECT` may lead to.
    pub connect_ports: PortSet,
    /// The directory for all state; absolute.
    pub state_dir: PathBuf,
    /// Where a process reserves its key, so that no two of the user pay with the same one. The program sets it to the user's
    /// runtime directory, and the one for the user's state; the library reserves nothing unless its caller sets it.
    pub key_locks: Vec<PathBuf>,
    /// The key that pays; without it, the proxy never pays.
    pub wallet: Option<WalletConfig>,
    /// The blockchain that holds the channels; present only if `wallet` is.
    pub chain: Option<ChainConfig>,
    /// The nodes of networks on which payments are made without a channel.
    pub networks: Vec<NetworkConfig>,
    /// The programs that may use the proxy.
    pub clients: Vec<ClientConfig>,
    /// Names under which clients may address the proxy itself, besides those that it has anyway.
    pub names: Arc<[String]>,
    /// Base URLs of the proxy that map to origins.
    pub routes: Vec<RouteConfig>,
    /// The tokens whose symbols are known.
    pub assets: Arc<[KnownAsset]>,
    /// What may be paid.
    pub policy: Policy,
    /// Which tunnels the proxy decrypts.
    pub intercept: InterceptConfig,
    /// How to reach origins.
    pub upstream: UpstreamConfig,
    /// How much of the ledger is kept.
    pub ledger: LedgerConfig,
    /// What is logged, and where.
    pub log: LogConfig,
    /// Where traces go; `None` if requests are not traced.
    pub traces: Option<TracesConfig>,
    /// Every limit; `policy` has its own copy of those that it applies.
    pub limits: Limits,
    /// What is valid but probably a mistake.
    pub warnings: Vec<String>,
    /// Those of the warnings that are about entries that can never pay, or let nothing be paid.
    pub unpayable: Vec<String>,
    /// What it was read from.
    pub(super) source: ConfigSource,
}

/// What a running proxy makes of a newer configuration.
#[derive(Clone, Debug)]
pub struct ReloadedConfig {
    /// What applies from now on.
    pub config: Config,
    /// The keys that have changed, and apply.
    pub changed: Vec<String>,
    /// The keys that have changed, and need a restart.
    pub needs_restart: Vec<String>,
}

/// Whether a line seems to set `state_dir`.
fn mentions_state_dir(text: &str) -> bool {
    text.lines().any(|line| {
        let key = line.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        key.contains("state") && key.contains("dir") && !key.starts_with('#')
    })
}

impl Config {
    /// Reads `file`, if given, and the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`], with every issue found.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::check(&read(file)?, file)
    }

    /// The state directory of a configuration that may be invalid otherwise, and even not TOML; and whether that is certain. It is
    /// not if it is the default and the configuration is invalid: the line that names another one may be missing.
    ///
    /// # Errors
    /// [`ConfigError`] if that cannot be known: then it has every issue.
    pub fn state_dir_of(file: Option<&Path>) -> Result<(PathBuf, bool), ConfigError> {
        let ReadVariables { mut environment, base, issues, .. } = ReadVariables::new(file)?;
        let variable = variable("state_dir");
        if issues.iter().any(|issue| issue.key.strip_suffix(secret_files::END) == Some(&variable)) {
            return Err(ConfigError { file: file.map(Path::to_owned), issues });
        }
        // The warnings about them are those of `load`.
        let _ = (source::without_services(&mut environment), source::without_misspelt(&mut environment));
        let is_given = environment.get(&variable).is_some_and(|path| !path.trim().is_empty());
        // The variable overrides the file.
        let text = if is_given { String::new() } else { read(file)? };
        for part in [text.as_str(), &edit::lines_with(&text, "state_dir")] {
            let Ok((root, _)) = source::merge(part, &environment) else { continue };
            let issues = Issues::new(Vec::new(), &TOP);
            let top = Section::new("", Some(ValueKind::Table(root).into()), &TOP, &issues);
            if let Some(path) = state_dir(&top, &base, &environment) {
                if top.has("state_dir") {
                    return Ok((path, true));
                }
                return match Self::load(file) {
                    // Misspelt, or below the header of a table.
                    Err(error) if mentions_state_dir(&text) => Err(error),
                    loaded => Ok((path, loaded.is_ok())),
                };
            }
        }
        Self::load(file).map(|config| (config.state_dir, true))
    }

    /// The text of a configuration file with a key set to a value, TOML or else a string, and what it configures. The result
    /// is valid; nothing is written.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or would be invalid with this value; the inner error if there is no place
    /// for the key.
    pub fn edited(
        file: &Path,
        key: &str,
        value: &str,
    ) -> Result<Result<(String, Self), EditError>, ConfigError> {
        let text = match edit::with_key(&read(Some(file))?, key, value) {
            Ok(text) => text,
            Err(error) => return Ok(Err(error)),
        };
        let config = Self::check(&text, Some(file)).map_err(|mut error| {
            // The lines of a text that is not written mean nothing if the file itself is valid.
            if Self::load(Some(file)).is_ok() {
                error.file = None;
                error.issues.iter_mut().for_each(|issue| issue.line = None);
            }
            error
        })?;
        Ok(Ok((text, config)))
    }

    /// The variable that sets a key of a file, whatever the file says; `None` if there is none.
    ///
    /// # Errors
    /// [`ConfigError`] if the variables cannot be read.
    pub fn overriding(file: &Path, key: &str) -> Result<Option<String>, ConfigError> {
        let variables = ReadVariables::valid(Some(file))?;
        let variable = variable(key);
        let is_set = variables.environment.get(&variable).is_some_and(|value| !value.is_empty());
        Ok(is_set.then(|| variables.name(&variable)))
    }

    /// The keys of a file and of the process's environment that apply, and the defaults of the others.
    ///
    /// # Errors
    /// [`ConfigError`], if the file, or one that a variable names, cannot be read. It may be invalid otherwise.
    pub fn shown_keys(file: Option<&Path>) -> Result<Vec<ShownKey>, ConfigError> {
        let fail = |issue| ConfigError { file: file.map(Path::to_owned), issues: vec![issue] };
        let variables = ReadVariables::valid(file)?;
        let mut environment = variables.environment.clone();
        // The warnings about them are those of `load`.
        let _ = (source::without_services(&mut environment), source::without_misspelt(&mut environment));
        let mut keys = shown::shown(&TOP, &read(file)?, &environment).map_err(fail)?;
        for shown in &mut keys {
            if let KeyOrigin::Variable(name) = &mut shown.from {
                *name = variables.name(name);
            }
        }
        Ok(keys)
    }

    /// Reads the text of `file`, and the process's environment.
    fn check(text: &str, file: Option<&Path>) -> Result<Self, ConfigError> {
        let variables = ReadVariables::valid(file)?;
        Self::parse(text, &variables.base.directory, &variables.environment).map_err(|mut error| {
            let is_from_file = |issue: &ConfigIssue| {
                let name = variable(&issue.key);
                // A key that is missing in an entry that variables set has no variable.
                let is_set = variables.environment.contains_key(&name)
                    || entries::list_of(&name).is_some_and(|list| {
                        variables.environment.keys().any(|set| entries::list_of(set) == Some(list))
                    });
                !is_set
            };
            let file = file.filter(|_| error.issues.iter().any(is_from_file));
            for issue in &mut error.issues {
                let variable = variable(&issue.key);
                let (merged, set) = (from_variable(&variable), from_variable(&variables.name(&variable)));
                issue.problem = issue.problem.replace(&merged, &set);
            }
            ConfigError { file: file.map(Path::to_owned), ..error }
        })
    }

    /// Reads the content of a file in `directory` (the base of relative paths) and the variables of `environment`, including
    /// `HOME`, `XDG_STATE_HOME` and those that name an outbound proxy.
    ///
    /// # Errors
    /// [`ConfigError`], with every issue found.
    pub fn parse(
        text: &str,
        directory: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let fail = |issues| ConfigError { file: None, issues };
        let mut environment = environment.clone();
        let services = source::without_services(&mut environment);
        let misspelt = source::without_misspelt(&mut environment);
        let (root, of_entries) = source::merge(text, &environment).map_err(|issue| fail(vec![issue]))?;
        let (text, directory) = (text.to_owned(), directory.to_owned());
        let mut config = Self::from_source(ConfigSource { root, text, directory, environment }, of_entries)?;
        config.warnings.extend(services);
        config.warnings.extend(misspelt);
        Ok(config)
    }

    /// Reads what a file and the environment were merged into, with issues that were found before.
    fn from_source(source: ConfigSource, issues: Vec<ConfigIssue>) -> Result<Self, ConfigError> {
        let fail = |issues| ConfigError { file: None, issues };
        let environment = &source.environment;
        let base = BasePaths { directory: source.directory.clone(), home: absolute_in(environment, "HOME") };
        let issues = Issues::new(issues, &TOP);
        let config = assemble(&source, &base, &issues);
        match (config, issues.into_result()) {
            (Some(mut config), Ok(renamed)) => {
                config.warnings.extend(renamed);
                Ok(config)
            }
            (_, issues) => {
                let mut issues = issues.err().unwrap_or_default();
                let lines = KeyLines::new(&source.text);
                for issue in &mut issues {
                    let is_from_file = !environment.contains_key(&variable(&issue.key));
                    issue.line = lines.of(&issue.key).filter(|_| is_from_file);
                }
                // Those without a line, such as missing tables, come last.
                issues.sort_by_key(|issue| (issue.line.is_none(), issue.line));
                Err(fail(issues))
            }
        }
    }

    /// Whether a running proxy takes a key over when it reads its configuration again; all others need a restart.
    pub fn reload_applies(key: &str) -> bool {
        reload::applies(key)
    }

    /// The configuration that applies once a running proxy has read `newer`, which is valid: what needs a restart is as before.
    ///
    /// # Errors
    /// [`ConfigError`] if the new keys are not valid together with those.
    pub fn reloaded(&self, newer: &Self) -> Result<ReloadedConfig, ConfigError> {
        let differences = self.source.differences(&newer.source, &TOP);
        let source = self.source.reloaded(&newer.source, &TOP);
        let mut config = Self::from_source(source, Vec::new())?;
        if config.listen != self.listen {
            config.listen_on(self.listen)?;
        }
        config.is_tls = self.is_tls;
        config.usual_listen = self.usual_listen;
        config.state_dir.clone_from(&self.state_dir);
        config.key_locks.clone_from(&self.key_locks);
        let (changed, needs_restart) = differences.into_iter().partition(|key| reload::applies(key));
        Ok(ReloadedConfig { config, changed, needs_restart })
    }

    /// The line of a key in the file, or of its table; `None` if it is not from the file.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        KeyLines::new(&self.source.text).of(key)
    }

    /// Whether every request to a port at `listen` needs the token of a client.
    pub fn needs_client(&self, listen: SocketAddr) -> bool {
        let is_exposed = !self.clients.is_empty() && !listen.ip().to_canonical().is_loopback();
        self.auth == AuthRequirement::Required || is_exposed
    }

    /// The budget of a run, written like a limit of a `[[budget]]`, in one of these tokens.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn run_budget(
        text: &str,
        assets: &[KnownAsset],
        has_chain: bool,
    ) -> Result<(BudgetUnit, BudgetAmount), String> {
        budget::of_run(text, assets, has_chain)
    }

    /// Listens on `address` instead, under the same rules.
    ///
    /// # Errors
    /// [`ConfigError`] if a proxy with a wallet would listen beyond loopback without `allow_remote` and a client.
    pub fn listen_on(&mut self, address: SocketAddr) -> Result<(), ConfigError> {
        let exposure = Exposure {
            allow_remote: self.allow_remote,
            is_paying: self.wallet.is_some(),
            has_clients: !self.clients.is_empty(),
        };
        if let Some(issue) = exposure.issue(address) {
            return Err(ConfigError { file: None, issues: vec![issue] });
        }
        self.warnings.extend(exposure.warning(address, self.is_tls));
        self.listen = address;
        Ok(())
    }

    /// Listens on any free port of this machine instead, without TLS. Routes with their own port keep it.
    pub fn listen_locally(&mut self) {
        self.listen = (Ipv4Addr::LOCALHOST, 0).into();
        self.is_tls = false;
    }
}

/// The text of a file, or an empty one.
fn read(file: Option<&Path>) -> Result<String, ConfigError> {
    let Some(path) = file else { return Ok(String::new()) };
    source::read(path).map_err(|issue| ConfigError { file: Some(path.to_owned()), issues: vec![issue] })
}

/// What the environment of the process has for a configuration.
struct ReadVariables {
    /// The variables, with the values from files that they name.
    environment: BTreeMap<String, String>,
    /// The bases of relative paths.
    base: BasePaths,
    /// Those whose values are from files, without the end of their names.
    from_files: Vec<String>,
    /// What is wrong with those files.
    issues: Vec<ConfigIssue>,
}

impl ReadVariables {
    /// Those for a configuration in `file`.
    fn new(file: Option<&Path>) -> Result<Self, ConfigError> {
        let fail = |issue| ConfigError { file: file.map(Path::to_owned), issues: vec![issue] };
        let directory = file.and_then(Path::parent).unwrap_or(Path::new(""));
        // `absolute` refuses the empty path, which means the working directory.
        let directory = std::path::absolute(directory.join(".")).map_err(|error| {
            let problem = format!("its directory cannot be found: {error}");
            fail(ConfigIssue::new("", problem, "use an absolute path"))
        })?;
        let mut environment = source::environment().map_err(fail)?;
        let base = BasePaths { directory, home: absolute_in(&environment, "HOME") };
        let (from_files, issues) = secret_files::resolve(&mut environment, &TOP, &base);
        Ok(Self { environment, base, from_files, issues })
    }

    /// The same, if nothing is wrong.
    fn valid(file: Option<&Path>) -> Result<Self, ConfigError> {
        let read = Self::new(file)?;
        if read.issues.is_empty() {
            return Ok(read);
        }
        Err(ConfigError { file: file.map(Path::to_owned), issues: read.issues })
    }

    /// The variable that is set, of one that may have its value from a file.
    fn name(&self, variable: &str) -> String {
        match self.from_files.iter().any(|name| name == variable) {
            true => format!("{variable}{}", secret_files::END),
            false => variable.to_owned(),
        }
    }
}

/// The absolute path in a variable.
fn absolute_in(environment: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The directory for all state, or the default one; `None` also if what is written is invalid.
fn state_dir(top: &Section<'_>, base: &BasePaths, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let state_home = || {
        let state_home = absolute_in(environment, "XDG_STATE_HOME");
        state_home.or_else(|| base.home.as_ref().map(|home| home.join(".local/state")))
    };
    if top.has("state_dir") {
        return top.read("state_dir", |value| base.path(value));
    }
    state_home().map(|home| home.join("tollpass"))
}

fn assemble(source: &ConfigSource, base: &BasePaths, issues: &Issues) -> Option<Config> {
    let (root, environment) = (source.root.clone(), &source.environment);
    let mut top = Section::new("", Some(ValueKind::Table(root).into()), &TOP, issues);
    let listen = top.read("listen", values::socket);
    let tls = listener::tls(&top, base);
    let metrics_listen = top.read("metrics_listen", values::socket);
    let allow_remote = top.read("allow_remote", values::boolean).unwrap_or(false);
    let workers = top.read("workers", |value| match values::integer(value)? {
        count @ 1..=MOST_WORKERS => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        other => Err(InvalidValue::new(
            format!("{other} is out of range"),
            format!("write a number from 1 to {MOST_WORKERS}, or remove it for one thread per core"),
        )),
    });
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let connect_ports = top.read("connect_ports", values::ports).unwrap_or_default();
    let state_dir = state_dir(&top, base, environment);
    if state_dir.is_none() && !top.has("state_dir") {
        top.issue(
            "state_dir",
            "neither HOME nor XDG_STATE_HOME is set",
            "write state_dir = \"/a/directory\"",
        );
    }

    let wallet_section = Section::new("wallet", top.take("wallet"), &wallet::WALLET, issues);
    let chain_section = Section::new("chain", top.take("chain"), &chain::CHAIN, issues);
    let is_paying = wallet_section.is_written;
    if chain_section.is_written && !is_paying {
        wallet_section.issue(
            "",
            "missing, but [chain] is set: only a wallet can use it",
            "write [wallet], or remove [chain] for a proxy that never pays",
        );
    }
    let wallet = is_paying.then(|| wallet::read(&wallet_section, base));
    let chain = chain_section.is_written.then(|| chain::read(&chain_section));

    let hooks = Arc::new(hooks::hooks(top.take("hooks"), "hooks", &Hooks::default(), issues));
    let assets = asset::assets(top.take("asset"), issues);
    let networks = network::networks(top.take("network"), issues);
    let budgets = budget::budgets(top.take("budget"), &assets, issues);
    let context = policy::PayContext { assets: &assets, budgets: &budgets, hooks: &hooks };
    let rules = policy::rules("pay", top.take("pay"), context, issues);
    let clients = client::clients(top.take("client"), context, base, issues);
    let auth = client::auth(&top, !clients.is_empty());
    let local = client::local(&top);
    let deposit = policy::deposit(&Section::new("deposit", top.take("deposit"), &policy::DEPOSIT, issues));
    let intercept_section = Section::new("intercept", top.take("intercept"), &intercept::INTERCEPT, issues);
    let own = clients
        .iter()
        .enumerate()
        .filter_map(|(index, client)| Some((index, client.client.rules.as_deref()?)));
    let own: Vec<(usize, &[Rule])> = own.collect();
    let all: Vec<&[Rule]> =
        std::iter::once(rules.as_slice()).chain(own.iter().map(|(_, rules)| *rules)).collect();
    let intercept = intercept::read(&intercept_section, base, if is_paying { &all } else { &[] });
    let ledger = ledger::read(&Section::new("ledger", top.take("ledger"), &ledger::LEDGER, issues));
    let log = log::read(&Section::new("log", top.take("log"), &log::LOG, issues), base);
    let traces = traces::read(&Section::new("traces", top.take("traces"), &traces::TRACES, issues));
    let limits = limits::read(&Section::new("limits", top.take("limits"), &limits::TABLE, issues));

    let listen = listen.unwrap_or(DEFAULT_LISTEN);
    let exposure = Exposure { allow_remote, is_paying, has_clients: !clients.is_empty() };
    issues.extend(exposure.issue(listen));
    if metrics_listen == Some(listen) && listen.port() != 0 {
        top.issue("metrics_listen", "the same as listen", "choose another port");
    }
    let main = route::MainListener { listen, is_tls: tls.is_some(), exposure, clients: &clients };
    let names = frontend::names(&Section::new("frontend", top.take("frontend"), &frontend::FRONTEND, issues));
    let routes = route::routes(top.take("route"), main, issues);
    let mut warnings = policy::warnings("pay", &rules, &deposit);
    for (index, rules) in &own {
        warnings.extend(policy::warnings(&format!("client[{index}].pay"), rules, &deposit));
    }
    warnings.extend(metrics_listen.and_then(listener::metrics_warning));
    let listens = routes.iter().filter_map(|route| Some((route.listen?, route.is_tls)));
    let listens = listens.chain([(listen, tls.is_some())]);
    warnings.extend(listens.filter_map(|(listen, is_tls)| exposure.warning(listen, is_tls)));
    warnings.extend(intercept::warnings(&intercept_section, intercept.as_ref()));
    warnings.extend(client::local_warning(local).filter(|_| is_paying));
    let mut upstream = Section::new("upstream", top.take("upstream"), &upstream::UPSTREAM, issues);
    let origins = origin::origins(upstream.take("tls"), base, issues, &mut warnings);
    let upstream = upstream::upstream(&upstream, origins, base, environment, &mut warnings);
    let has_rules = all.iter().any(|rules| !rules.is_empty());
    let distinguishes_clients =
        !own.is_empty() || clients.iter().any(|client| !client.client.budgets.is_empty());
    budget::check_use(&budgets, &all, clients.iter().map(|client| &*client.client), issues);
    if has_rules && !is_paying {
        warnings.push("[[pay]] rules pay nothing without [wallet]".to_owned());
    } else if has_rules && chain.is_none() {
        warnings
            .push("without [chain], nothing is paid from a channel: µRaiden sellers are not paid".to_owned());
    }
    let mut unpayable = Vec::new();
    if is_paying && chain.is_none() {
        unpayable = policy::unpayable("pay", &rules);
        for (index, rules) in &own {
            unpayable.extend(policy::unpayable(&format!("client[{index}].pay"), rules));
        }
        unpayable.extend(budget::unpayable(&budgets));
    }
    warnings.extend(unpayable.iter().cloned());
    // Each is absent or complete: an inner None has been reported.
    let wallet = wallet.map_or(Some(None), |wallet| wallet.map(Some))?;
    let chain = chain.map_or(Some(None), |chain| chain.map(Some))?;
    let Limits { max_attempts, sign_ahead, pay_timeout, ready_timeout, .. } = limits;
    let policy = Policy {
        version: 0,
        clients: Arc::default(),
        rules,
        distinguishes_clients,
        budgets,
        deposit,
        hooks,
        max_attempts,
        sign_ahead,
        pay_timeout,
        ready_timeout,
        authorizations: authorization_limits(&limits),
    };
    let (state_dir, intercept) = (state_dir?, intercept?);
    Some(Config {
        listen,
        usual_listen: listen,
        is_tls: tls.is_some(),
        tls,
        key_locks: Vec::new(),
        metrics_listen,
        allow_remote,
        auth,
        local,
        workers: workers.unwrap_or_else(cores),
        connect_ports,
        state_dir,
        wallet,
        chain,
        networks,
        clients,
        names,
        routes,
        assets: assets.into(),
        policy,
        intercept,
        upstream,
        ledger,
        log,
        traces,
        limits,
        warnings,
        unpayable,
        source: source.clone(),
    })
}
