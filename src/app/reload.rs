//! Reads the configuration again while the proxy runs, and applies what needs no restart: all of it, or nothing.
//!
//! Everything that can fail comes first and changes nothing. Then the engine gets the new policy, in the order of its other
//! events, before requests are judged by the new rules: no request that the engine sees can be ahead of it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::background::Background;
use super::clients::known_clients;
use super::interception::{SharedCa, interception};
use super::promises::promises;
use crate::admin::{ReloadOrder, ReloadRefused, ReloadReport};
use crate::chain::Network;
use crate::config::{Config, ConfigError, ReloadedConfig};
use crate::payments::Payments;
use crate::protocol::Policy;
use crate::protocol::budget::Budget;
use crate::proxy::access_log::AccessLogLayer;
use crate::proxy::authenticator::Authenticator;
use crate::proxy::frontend::Readiness;
use crate::proxy::rulebook::{CurrentRules, Rulebook};
use crate::shutdown::Shutdown;
use crate::telemetry::{FILTER_VARIABLE, LogLevels};

/// The log filter of `tollpass serve` if nothing else says what to log.
pub const DEFAULT_FILTER: &str = "info";

/// Where a proxy reads its configuration again.
pub struct ReloadSource {
    /// Loads it from the same file, variables and options as at the start, and says why it is invalid. Blocks on the disk.
    pub load: Arc<dyn Fn() -> Result<Config, String> + Send + Sync>,
    /// Is told when that begins, and when it has ended.
    pub tell: fn(ReloadStage),
}

/// The stage of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadStage {
    /// The configuration is about to be read.
    Begins,
    /// It applies, or is invalid.
    HasEnded,
}

/// What a reload replaces, in a proxy that serves.
pub(super) struct Reloader {
    /// The configuration that applies.
    pub config: Arc<Config>,
    pub rules: CurrentRules,
    /// Those of the networks, which change only with a restart.
    pub nodes: Vec<Network>,
    /// Absent without a wallet.
    pub payments: Option<Payments>,
    pub is_dry_run: bool,
    /// Whether requests are counted for the metrics.
    pub is_counting: bool,
    /// Whether the paths of routes have a token.
    pub has_route_token: bool,
    pub readiness: Readiness,
    pub access_log: AccessLogLayer,
    pub ca: SharedCa,
    pub background: Background,
    /// Absent if the proxy belongs to another command.
    pub source: Option<ReloadSource>,
}

/// A configuration that is known to be usable.
struct PreparedReload {
    reloaded: ReloadedConfig,
    rules: Rulebook,
    filter: LogLevels,
}

impl Reloader {
    /// Handles orders until the shutdown begins.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<ReloadOrder>, shutdown: Shutdown) {
        loop {
            let order = tokio::select! {
                biased;
                () = shutdown.stopping() => return,
                order = orders.recv() => order,
            };
            let Some(ReloadOrder { reply }) = order else { return };
            let done = self.reload().await;
            if let Some(reply) = reply {
                // The command may have ended.
                let _ = reply.send(done);
            }
        }
    }

    async fn reload(&mut self) -> Result<ReloadReport, ReloadRefused> {
        let Some(ReloadSource { load, tell }) = &self.source else { return Err(ReloadRefused::NotServed) };
        let (load, tell) = (Arc::clone(load), *tell);
        tell(ReloadStage::Begins);
        let (config, rules, ca) = (Arc::clone(&self.config), self.rules.clone(), self.ca.clone());
        let preparing = tokio::task::spawn_blocking(move || prepare(&config, &rules, &ca, &*load));
        // A panic has been logged.
        let prepared = preparing.await.unwrap_or_else(|error| Err(error.to_string()));
        let done = match prepared {
            Ok(prepared) => Ok(self.apply(prepared)),
            Err(reason) => {
                tracing::error!("the configuration cannot be reloaded, and nothing has changed: {reason}");
                Err(ReloadRefused::Invalid(reason))
            }
        };
        tell(ReloadStage::HasEnded);
        done
    }

    /// Applies a configuration; nothing here can fail.
    fn apply(&mut self, prepared: PreparedReload) -> ReloadReport {
        let PreparedReload { reloaded, rules, filter } = prepared;
        let ReloadedConfig { config, mut changed, needs_restart } = reloaded;
        let before = Arc::clone(&self.rules.get().policy);
        if !before.clients.has_tokens_of(&rules.policy.clients) && !changed.iter().any(|key| key == "client")
        {
            changed.push("client".to_owned());
        }
        let mut warnings: Vec<String> = config
            .warnings
            .iter()
            .filter(|warning| !self.config.warnings.contains(warning))
            .cloned()
            .collect();
        warnings.extend(begun_anew(&before, &rules.policy));
        if rules.authenticator.is_some() && !self.is_counting {
            warnings.push("requests are counted in the metrics only after a restart".to_owned());
        }
        if rules.authenticator.is_some() && !self.has_route_token && !config.routes.is_empty() {
            warnings
                .push("the paths of routes need a token only after a restart, which changes them".to_owned());
        }
        if filter.is_overridden() && changed.iter().any(|key| key == "log.filter") {
            warnings.push(format!("{FILTER_VARIABLE} overrides log.filter: unset it and restart"));
        }
        if let Some(payments) = &self.payments {
            payments.set_policy(Arc::clone(&rules.policy), Arc::clone(&config.assets));
        }
        self.ca.set(rules.interception.as_deref());
        self.background.serve(&rules.policy);
        self.rules.replace(rules);
        let promised = promises(&config, &self.nodes, self.payments.clone(), self.is_dry_run);
        self.readiness.promise(promised);
        self.access_log.switch(config.log.access);
        filter.apply();
        self.config = Arc::new(config);
        let report = ReloadReport { changed, needs_restart, warnings };
        tell_of(&report);
        report
    }
}

fn tell_of(ReloadReport { changed, needs_restart, warnings }: &ReloadReport) {
    let changed = if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
    tracing::info!(changed, "reloaded the configuration");
    if !needs_restart.is_empty() {
        tracing::warn!(
            "these keys have changed, and apply after a restart only: {}",
            needs_restart.join(", ")
        );
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Reads and checks everything; changes nothing, except that it creates the local CA when the first host is intercepted.
fn prepare(
    running: &Config,
    rules: &CurrentRules,
    ca: &SharedCa,
    load: &dyn Fn() -> Result<Config, String>,
) -> Result<PreparedReload, String> {
    let newer = load()?;
    if running.wallet.is_some() && newer.wallet.is_none() {
        // A file that is being written may be empty for a moment.
        return Err(
            "the file has no [wallet], but the running proxy pays with one: restart the proxy if it is to stop paying".to_owned()
        );
    }
    let reloaded = running.reloaded(&newer).map_err(|error| in_part(&error))?;
    let config = &reloaded.config;
    let filter = LogLevels::new(config.log.filter.as_deref(), DEFAULT_FILTER).map_err(|error| {
        let line = newer.line_of("log.filter").map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{error}")
    })?;
    let clients = Arc::new(known_clients(config).map_err(|error| error.to_string())?);
    let interception = interception(config, ca.leaves.get()).map_err(|error| error.to_string())?;
    let before = rules.get();
    let authenticator = (!clients.is_empty()).then(|| {
        Arc::new(match &before.authenticator {
            Some(known) => known.with_clients(Arc::clone(&clients)),
            None => Authenticator::new(Arc::clone(&clients), &config.limits),
        })
    });
    let version = before.policy.version + 1;
    let policy = Arc::new(Policy { version, clients, ..config.policy.clone() });
    let interception = interception.map(Arc::new);
    let rules = Rulebook { authenticator, interception, ..Rulebook::new(policy, config.local) };
    Ok(PreparedReload { reloaded, rules, filter })
}

/// Why keys of a valid configuration cannot apply.
fn in_part(error: &ConfigError) -> String {
    format!("it is valid after a restart only, because other keys have changed that need one: {error}")
}

/// Warnings about budgets that count in another way than before, and so anew.
fn begun_anew<'a>(before: &'a Policy, now: &'a Policy) -> impl Iterator<Item = String> + use<'a> {
    let changed = |budget: &&Arc<Budget>| {
        let same = before.budgets.iter().find(|earlier| earlier.name == budget.name);
        same.is_some_and(|earlier| (&earlier.tag, earlier.scope.each) != (&budget.tag, budget.scope.each))
    };
    let warn = |name: &str| {
        format!("the budget {name} counts in another way now (its unit, or `each`), and begins at 0")
    };
    now.budgets.iter().filter(changed).map(move |budget| warn(&budget.name))
}
