//! `proxy.toml` and the environment, read into a [`Config`] that cannot be wrong. Every fault is reported at
//! once. Reads the file and nothing else: whether a key opens or a node answers is found out elsewhere.
//!
//! A variable sets the key of its name, and wins over the file: `TOLLPASS_LISTEN` is `listen`,
//! `TOLLPASS_CHAIN__RPC_URL` is `rpc_url` in `[chain]` (two underscores between levels). An empty one counts
//! as absent. Only `[[pay]]`, `[[route]]` and `[[upstream.tls]]` cannot be set so. The variables of [`OTHER_VARIABLES`] are no keys, and
//! those that Kubernetes sets for a Service named like us are ignored, with a warning.

mod chain;
mod fault;
mod hooks;
mod intercept;
mod limits;
mod origin;
mod policy;
mod renamed;
mod route;
mod section;
mod source;
mod upstream;
mod values;
mod wallet;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::config::{Map, Value, ValueKind};

pub use self::chain::Chain;
pub use self::fault::{ConfigError, Fault};
pub use self::intercept::{Authority, Intercept};
pub use self::origin::{OriginTls, Proof};
pub use self::route::Route;
use self::section::{Faults, Section};
pub use self::upstream::{NotAProxyUrl, ProxyUrl, Upstream};
use self::values::Places;
pub use self::values::{NotAnRpcUrl, RpcUrl};
pub use self::wallet::{KeySource, Wallet};
use crate::limits::Limits;
use crate::protocol::policy::{Hooks, Policy};

/// What the name of a variable that sets a key starts with.
pub const ENVIRONMENT_PREFIX: &str = "TOLLPASS_";

/// Variables that start like a key's, but are read elsewhere: the keystore's password, the log, the
/// command line.
pub const OTHER_VARIABLES: &[&str] = &[
    "TOLLPASS_WALLET_PASSWORD",
    "TOLLPASS_LOG",
    "TOLLPASS_LOG_FORMAT",
    "TOLLPASS_CONFIG",
    crate::failpoint::VARIABLE,
    crate::failpoint::PANIC_VARIABLE,
];

/// Every key: the table it stands in (empty for the top of the file), and the names within.
pub const KEYS: &[(&str, &[&str])] = &[
    ("", &["listen", "allow_remote", "state_dir"]),
    ("wallet", wallet::KEYS),
    ("chain", chain::KEYS),
    ("pay", policy::PAY),
    ("route", route::ROUTE),
    ("deposit", policy::DEPOSIT),
    ("hooks", hooks::HOOKS),
    ("intercept", intercept::KEYS),
    ("upstream", upstream::UPSTREAM),
    (origin::NAME, origin::TLS),
    ("limits", limits::KEYS),
];

const TOP: &[&str] = &[
    "listen",
    "allow_remote",
    "state_dir",
    "wallet",
    "chain",
    "pay",
    "route",
    "deposit",
    "hooks",
    "intercept",
    "upstream",
    "limits",
];

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where they would by the file alone: a shell may name that as its proxy, and so it is never one of ours.
    pub usual_listen: SocketAddr,
    /// Allows a proxy that pays to listen where other machines can reach it.
    pub allow_remote: bool,
    /// The folder of the store, the lock and the admin socket; absolute.
    pub state_dir: PathBuf,
    /// The key that pays. There is one exactly where there is a chain; without, this is simply a proxy.
    pub wallet: Option<Wallet>,
    /// Where the channels live.
    pub chain: Option<Chain>,
    /// Paths and ports that stand for an origin.
    pub routes: Vec<Route>,
    /// What may be paid.
    pub policy: Policy,
    /// Into which tunnels the proxy looks.
    pub intercept: Intercept,
    /// The way to the origins.
    pub upstream: Upstream,
    /// Every limit. The policy holds its own four, too.
    pub limits: Limits,
    /// What is allowed but probably not meant, for the log.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads `file`, if given, and the process's environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let fail = |fault| ConfigError { file: file.map(Path::to_owned), faults: vec![fault] };
        let (text, folder) = match file {
            None => (String::new(), Path::new("")),
            Some(path) => {
                let text = source::read(path).map_err(|error| {
                    let remedy = "give a readable file with --config; `tollpass init` writes one";
                    fail(Fault::new("", format!("cannot be read: {error}"), remedy))
                })?;
                (text, path.parent().unwrap_or(Path::new("")))
            }
        };
        // An empty path stands for the working directory, which `absolute` refuses.
        let folder = std::path::absolute(folder.join(".")).map_err(|error| {
            fail(Fault::new("", format!("its folder cannot be found: {error}"), "give an absolute path"))
        })?;
        let environment = source::environment().map_err(fail)?;
        Self::parse(&text, &folder, &environment)
            .map_err(|error| ConfigError { file: file.map(Path::to_owned), ..error })
    }

    /// Reads the text of a file in `folder` (where relative paths start) and the variables of `environment`,
    /// among them `HOME` and `XDG_STATE_HOME`, and those that name an outbound proxy.
    pub fn parse(
        text: &str,
        folder: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let fail = |faults| ConfigError { file: None, faults };
        let environment = &mut environment.clone();
        let services = source::without_services(environment);
        let root = source::merge(text, environment).map_err(|fault| fail(vec![fault]))?;
        let path_in = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let places = Places { folder: folder.to_owned(), home: path_in("HOME") };
        let state_home =
            path_in("XDG_STATE_HOME").or_else(|| places.home.as_ref().map(|home| home.join(".local/state")));

        let faults = Faults::new(source::entries_in(environment));
        let config = assemble(root, &places, state_home, environment, &faults);
        match (config, faults.into_result()) {
            (Some(mut config), Ok(renamed)) => {
                config.warnings.extend(renamed);
                config.warnings.extend(services);
                Ok(config)
            }
            (_, faults) => Err(fail(faults.err().unwrap_or_default())),
        }
    }

    /// Listens on `address` instead, under the same rules.
    pub fn listen_on(&mut self, address: SocketAddr) -> Result<(), ConfigError> {
        if let Some(fault) = exposed(address, self.allow_remote, self.wallet.is_some()) {
            return Err(ConfigError { file: None, faults: vec![fault] });
        }
        self.listen = address;
        Ok(())
    }
}

fn assemble(
    root: Map<String, Value>,
    places: &Places,
    state_home: Option<PathBuf>,
    environment: &BTreeMap<String, String>,
    faults: &Faults,
) -> Option<Config> {
    let mut top = Section::new("", Some(ValueKind::Table(root).into()), TOP, faults);
    let listen = top.read("listen", values::socket);
    let allow_remote = top.read("allow_remote", values::boolean).unwrap_or(false);
    let state_dir = top.read("state_dir", |value| places.path(value));
    let state_dir = state_dir.or_else(|| state_home.map(|home| home.join("tollpass")));
    if state_dir.is_none() && !top.has("state_dir") {
        top.fault("state_dir", "neither HOME nor XDG_STATE_HOME is set", "write state_dir = \"/a/folder\"");
    }

    let wallet_section = Section::new("wallet", top.take("wallet"), wallet::KEYS, faults);
    let chain_section = Section::new("chain", top.take("chain"), chain::KEYS, faults);
    let is_paying = wallet_section.is_written;
    for (has, name, lacks) in
        [(&wallet_section, "wallet", &chain_section), (&chain_section, "chain", &wallet_section)]
    {
        if has.is_written && !lacks.is_written {
            let wrong = format!("missing, but [{name}] is there: a proxy that pays needs both");
            lacks.fault("", wrong, "write both; or remove both for a proxy that never pays");
        }
    }
    let wallet = is_paying.then(|| wallet::read(&wallet_section, places));
    let chain = chain_section.is_written.then(|| chain::read(&chain_section));

    let hooks = Arc::new(hooks::hooks(top.take("hooks"), "hooks", &Hooks::default(), faults));
    let rules = policy::rules(top.take("pay"), &hooks, faults);
    let deposit = policy::deposit(&Section::new("deposit", top.take("deposit"), policy::DEPOSIT, faults));
    let intercept_section = Section::new("intercept", top.take("intercept"), intercept::KEYS, faults);
    let paying = if is_paying { rules.as_slice() } else { &[] };
    let intercept = intercept::read(&intercept_section, places, paying);
    let limits = limits::read(&Section::new("limits", top.take("limits"), limits::KEYS, faults));

    let listen = listen.unwrap_or_else(default_listen);
    faults.extend(exposed(listen, allow_remote, is_paying));
    let routes =
        route::routes(top.take("route"), route::Neighbour { listen, allow_remote, is_paying }, faults);
    let mut warnings = policy::warnings(&rules, &deposit);
    warnings.extend(intercept::warnings(&intercept_section, intercept.as_ref()));
    let mut upstream = Section::new("upstream", top.take("upstream"), upstream::TABLE, faults);
    let tls = origin::origins(upstream.take("tls"), places, faults, &mut warnings);
    let upstream = upstream::upstream(&upstream, tls, places, environment, &mut warnings);
    if !rules.is_empty() && !is_paying {
        warnings.push("[[pay]] rules pay nothing without [wallet] and [chain]".to_owned());
    }
    // Both are either absent or whole: an inner None has left a fault.
    let wallet = wallet.map_or(Some(None), |wallet| wallet.map(Some))?;
    let chain = chain.map_or(Some(None), |chain| chain.map(Some))?;
    let Limits { max_attempts, sign_ahead, pay_timeout, ready_timeout, .. } = limits;
    let policy = Policy { rules, deposit, hooks, max_attempts, sign_ahead, pay_timeout, ready_timeout };
    let (state_dir, intercept) = (state_dir?, intercept?);
    Some(Config {
        listen,
        usual_listen: listen,
        allow_remote,
        state_dir,
        wallet,
        chain,
        routes,
        policy,
        intercept,
        upstream,
        limits,
        warnings,
    })
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8402))
}

/// The fault of a proxy that would pay for whoever reaches it.
fn exposed(listen: SocketAddr, allow_remote: bool, is_paying: bool) -> Option<Fault> {
    if !is_paying || allow_remote || listen.ip().to_canonical().is_loopback() {
        return None;
    }
    Some(Fault::new(
        "listen",
        format!("{listen} can be reached by other machines, which could then spend your money"),
        "listen on 127.0.0.1 or [::1], or write allow_remote = true if you mean it",
    ))
}
