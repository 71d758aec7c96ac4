//! `proxy.toml` and the environment, read into a [`Config`] that is known to be valid. All errors are reported
//! at once. Reads the file, and those that variables name, and nothing else: other modules open keys and connect to nodes.
//!
//! An environment variable sets the key of its name and takes precedence over the file: `TOLLPASS_LISTEN` is `listen`,
//! `TOLLPASS_CHAIN__RPC_URL` is `rpc_url` in `[chain]` (two underscores between levels). Empty variables count as unset.
//! Entries of lists have numbers: `TOLLPASS_PAY__0__HOST`. A variable whose name ends with `_FILE` sets the key of the rest of
//! its name to the content of a file. Those in [`variables::OTHER_VARIABLES`] are not keys, and those that Kubernetes sets for
//! a Service named tollpass are ignored with a warning.
//!
//! Each key is declared once, in the [`key::Table`] of its section: type, default, bounds and documentation. The reader
//! and the JSON [`mod@schema`] come from these tables; `proxy.toml` is checked against them.

mod asset;
mod authorization_limits;
mod budget;
mod builder;
mod chain;
mod client;
mod edit;
mod entries;
mod frontend;
mod hooks;
mod intercept;
mod issue;
mod key;
mod ledger;
mod limits;
mod lines;
mod listener;
mod load;
mod log;
mod network;
mod origin;
mod policy;
mod price;
mod raw_value;
mod reload;
mod renamed;
mod route;
mod rules;
mod schema;
mod secret_files;
mod section;
mod shown;
mod source;
mod traces;
mod upstream;
mod values;
mod variables;
mod wallet;

pub use self::builder::PolicyBuilder;
pub use self::chain::ChainConfig;
pub use self::client::{AuthRequirement, ClientConfig};
pub use self::intercept::CaSource;
#[cfg(feature = "testing")]
pub use self::intercept::InterceptConfig;
pub use self::issue::{ConfigError, ConfigIssue};
pub use self::load::{Config, ReloadedConfig};
pub use self::log::LogConfig;
pub use self::network::NetworkConfig;
pub use self::origin::{OriginTlsConfig, OriginTrust};
pub use self::route::RouteConfig;
pub use self::schema::schema;
pub use self::shown::{KeyOrigin, ShownKey};
pub use self::traces::TracesConfig;
pub use self::upstream::{ProxyUrl, UpstreamConfig};
pub use self::values::listen_address;
#[cfg(feature = "testing")]
pub use self::variables::{ENVIRONMENT_PREFIX, OTHER_VARIABLES};
pub use self::wallet::{KeySource, SignerConfig, SignerLocation, WalletConfig};
