//! The composition root: turns a configuration into a running proxy. The only file that depends on every module.

mod amounts;
mod background;
mod certificate;
mod clients;
mod dashboard;
mod error;
mod file_lock;
mod funds;
mod interception;
mod key_lock;
mod log_file;
mod metrics;
pub(crate) mod origins;
mod ports;
mod promises;
mod reload;
mod sellers;

use std::fs::TryLockError;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, Uri};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub use self::amounts::shown_amount;
use self::background::Background;
pub use self::certificate::server_tls;
pub use self::clients::{client_user, known_clients};
use self::dashboard::{Dashboard, DashboardLinks, DashboardParts};
pub use self::error::StartError;
use self::file_lock::FileLock;
pub use self::funds::{HeldToken, WatchedTokens};
use self::interception::{SharedCa, interception};
pub use self::interception::{authority, authority_in, names};
use self::key_lock::KeyLock;
pub use self::log_file::{inspect_log, log_output};
use self::metrics::{MetricsParts, ProxyMetrics};
use self::ports::{Ports, RunOrders, Served};
use self::promises::promises;
use self::reload::Reloader;
pub use self::reload::{DEFAULT_FILTER, ReloadSource, ReloadStage};
use self::sellers::{WebhookCloseApprover, seller_service};
use crate::admin;
use crate::admin::{ClientCount, Listening, ObstacleSource, ReloadOrder, Reloads, RunOrder, Runs};
use crate::chain;
use crate::chain::external::{ExternalSettings, ExternalSigner, SignerPlace};
use crate::chain::keystore;
use crate::chain::keystore::Password;
use crate::chain::{Chain, WalletSigner};
use crate::channels::{Channels, SellerClient};
use crate::config;
use crate::config::{Config, KeySource};
use crate::payments::journal;
use crate::payments::journal::Journal;
use crate::payments::{LedgerBounds, Payments, Startup};
use crate::private;
use crate::private::PrivateFileError;
use crate::protocol::policy::{LocalSpenders, OnExit};
use crate::proxy;
use crate::proxy::access_log::AccessLogLayer;
use crate::proxy::authenticator::Authenticator;
use crate::proxy::frontend::{DashboardAccess, DashboardEndpoint, MetricsSource, Readiness, RouteToken};
use crate::proxy::pay;
use crate::proxy::pay::PayLayer;
use crate::proxy::pay::dry_run::DryRun;
use crate::proxy::pay::inspect::InspectSettings;
pub use crate::proxy::pay::inspect::{InspectedSignIn, Inspection, Preview};
use crate::proxy::pay::refused::REFUSED_REQUESTS;
use crate::proxy::pay::webhook::Approver;
use crate::proxy::request_counts::RequestCounts;
use crate::proxy::rulebook::{CurrentRules, Rulebook};
use crate::proxy::stack::Stack;
use crate::proxy::upstream::egress::{Outbound, OutboundProxy};
use crate::proxy::{Forward, ForwardError};
use crate::shutdown::{Shutdown, outlive_file_size_limit};
use crate::workers::Workers;

/// How long to wait at startup before contacting the node again.
const START_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The file in the state directory with the token that protects routes.
const ROUTE_TOKEN: &str = "route-token";

/// A proxy that is ready to run: ports bound, state directory locked, journal open.
pub struct App {
    ports: Ports,
    config: Config,
    shutdown: Shutdown,
    forward: Forward,
    rules: CurrentRules,
    ca: SharedCa,
    paying: Option<PaidServices>,
    clients: Option<ClientCount>,
    /// Opens ports for runs, which the admin socket asks for.
    runs: Option<(Runs, mpsc::Receiver<RunOrder>)>,
    /// Who may use the dashboard.
    access: DashboardAccess,
    /// Set if nothing may be signed.
    dry_run: Option<DryRun>,
    /// The token that protects the routes of a proxy that pays or has clients.
    token: Option<RouteToken>,
    /// Has the configuration read again.
    reloads: (Reloads, mpsc::Receiver<ReloadOrder>),
    /// Where that is read, if it can be.
    source: Option<ReloadSource>,
    /// Without a wallet, reserves the state directory for the admin socket.
    plain_lock: Option<FileLock>,
    /// Tells the admin socket what keeps the proxy from paying, once it serves.
    obstacles: Arc<OnceLock<Arc<dyn ObstacleSource>>>,
}

/// The additional parts of a proxy that pays.
struct PaidServices {
    payments: Payments,
    channels: Channels,
    task: JoinHandle<()>,
    key: SignerSource,
    /// Without one, nothing is paid from a channel.
    chain: Option<config::ChainConfig>,
    /// Held while the proxy runs: no other process may use the state directory.
    _lock: FileLock,
}

/// The source of the key.
enum SignerSource {
    /// The keystore, key file or signer of the configuration, opened while the proxy already listens.
    Configured(config::WalletConfig),
    /// A signer of the caller.
    Given(Arc<WalletSigner>),
    /// One that was opened and reserved before.
    Open(Arc<WalletSigner>, Option<KeyLock>),
}

impl App {
    /// Binds the ports, locks the state directory and opens the journal. `key` replaces the configured wallet.
    ///
    /// # Errors
    /// If an address, the state directory, the journal or a file that the configuration names cannot be used.
    pub async fn build(
        mut config: Config,
        key: Option<Arc<WalletSigner>>,
        shutdown: Shutdown,
    ) -> Result<Self, StartError> {
        if let Err(error) = outlive_file_size_limit() {
            tracing::warn!("a write beyond the limit on the size of files would end tollpass: {error}");
        }
        let ports = Ports::bind(&config).await?;
        let address = ports.address();
        let key =
            key.map(SignerSource::Given).or_else(|| config.wallet.clone().map(SignerSource::Configured));
        let listens: Vec<SocketAddr> =
            [address, config.usual_listen].into_iter().chain(ports.route_addresses()).collect();
        let (outbound, tls) = (outbound(&config.upstream, &listens)?, origins::load(&config)?);
        let settings = proxy::ProxySettings { outbound, tls, ..proxy_settings(&config) };
        let forward = Forward::new(&settings);
        let clients = Arc::new(known_clients(&config)?);
        config.policy.clients = Arc::clone(&clients);
        let paying =
            key.map(|key| PaidServices::build(&config, key, config.chain.clone(), &forward)).transpose()?;
        let (interception, ca) = (interception(&config, None)?, SharedCa::default());
        ca.set(interception.as_ref());
        let authenticator =
            (!clients.is_empty()).then(|| Arc::new(Authenticator::new(clients, &config.limits)));
        let rules = CurrentRules::new(Rulebook {
            authenticator,
            interception: interception.map(Arc::new),
            ..Rulebook::new(Arc::new(config.policy.clone()), config.local)
        });
        let reloads = Reloads::new();
        let (mut clients, mut runs, obstacles) = (None, None, Arc::default());
        let access = DashboardAccess::new(&config.limits);
        if let Some(paying) = &paying {
            let path = admin::socket(&config.state_dir);
            let (opener, orders) =
                Runs::new(paying.payments.clone(), config.limits.runs, config.limits.drain_timeout);
            let listening = listening(address, &config, &ca, &obstacles);
            let orderers = (opener.clone(), reloads.0.clone());
            let links =
                Arc::new(DashboardLinks::new(access.clone(), address, ports.main_tls(&config), &config));
            let channels = paying.channels.clone();
            let served = admin::serve(&path, channels, listening, orderers, links, &shutdown);
            runs = Some((opener, orders));
            clients = Some(served.map_err(|source| StartError::Admin { path, source })?);
        }
        let is_guarded = paying.is_some() || !config.clients.is_empty();
        let token = match is_guarded && !config.routes.is_empty() {
            true => {
                private::create_directory(&config.state_dir)?;
                Some(route_token(&config.state_dir)?)
            }
            false => None,
        };
        Ok(Self {
            dry_run: None,
            plain_lock: None,
            token,
            ports,
            config,
            shutdown,
            forward,
            rules,
            ca,
            reloads,
            source: None,
            paying,
            clients,
            runs,
            access,
            obstacles,
        })
    }

    /// The address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.ports.address()
    }

    /// The addresses of routes with their own port, in the order of the configuration.
    pub fn route_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports.route_addresses()
    }

    /// The channels of a proxy that pays.
    pub fn channels(&self) -> Option<&Channels> {
        self.paying.as_ref().map(|paying| &paying.channels)
    }

    /// Counts the command-line sessions that use a proxy that pays.
    pub fn clients(&self) -> Option<&ClientCount> {
        self.clients.as_ref()
    }

    /// Opens ports for runs of a proxy that pays, once it runs.
    pub fn runs(&self) -> Option<&Runs> {
        self.runs.as_ref().map(|(runs, _)| runs)
    }

    /// Opens the configured wallet now instead of while the proxy serves, and reserves its key: a caller that announces the
    /// proxy can tell first if it could never pay. May prompt for a password.
    ///
    /// # Errors
    /// The key cannot be loaded, or another process pays with it.
    pub async fn unlock(&mut self) -> Result<(), StartError> {
        let Some(paying) = &mut self.paying else { return Ok(()) };
        if let SignerSource::Configured(wallet) = &paying.key {
            let key = SignerSource::Configured(wallet.clone());
            let (signer, key_lock) = open_key(key, &self.config).await?;
            paying.key = SignerSource::Open(signer, key_lock);
        }
        Ok(())
    }

    /// Lets commands find a proxy without a wallet, too: one with a wallet has its admin socket from the start.
    ///
    /// # Errors
    /// The state directory cannot be used, or another process uses it. The proxy works without.
    pub fn open_status(&mut self) -> Result<(), StartError> {
        if self.paying.is_some() {
            return Ok(());
        }
        let lock = lock_directory(&self.config.state_dir)?;
        let path = admin::socket(&self.config.state_dir);
        let listening = listening(self.address(), &self.config, &self.ca, &self.obstacles);
        let served = admin::serve_status(&path, listening, self.reloads.0.clone(), &self.shutdown);
        served.map_err(|source| StartError::Admin { path, source })?;
        self.plain_lock = Some(lock);
        Ok(())
    }

    /// Lets the proxy read its configuration again while it serves, on request.
    pub fn reload_from(&mut self, source: ReloadSource) -> Reloads {
        self.source = Some(source);
        self.reloads.0.clone()
    }

    /// Makes this a dry run, which signs nothing: the key is not opened and the node not contacted. Returns the tally of
    /// what it would have cost.
    pub fn dry_run(&mut self) -> DryRun {
        self.dry_run.get_or_insert_with(|| DryRun::new(Arc::clone(&self.config.assets))).clone()
    }

    /// Serves until the shutdown begins, then drains within `limits.drain_timeout`.
    ///
    /// # Errors
    /// The wallet cannot be opened, the payment service has failed, or a seller did not sign that a channel be closed
    /// at exit and the policy treats that as an error.
    pub async fn run(self) -> Result<(), StartError> {
        let (workers, mut threads) = Workers::start(self.config.workers).map_err(StartError::Workers)?;
        let shutdown = self.shutdown.clone();
        let mut serving = Box::pin(self.serve_on(workers));
        let ended = tokio::select! {
            biased;
            ended = &mut serving => ended,
            () = threads.failure() => {
                tracing::error!("a worker thread has failed; shutting down");
                shutdown.begin();
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the proxy stopped with another error");
                }
                Err(StartError::WorkerEnded)
            }
        };
        threads.stop().await;
        ended
    }

    async fn serve_on(self, workers: Workers<()>) -> Result<(), StartError> {
        let Self {
            ports,
            config,
            shutdown,
            forward,
            rules,
            ca,
            reloads: (_reloads, reload_orders),
            source,
            paying,
            token,
            dry_run,
            runs,
            access,
            obstacles,
            ..
        } = self;
        let settings = proxy::ProxySettings { idle: forward.idle_connections(), ..proxy_settings(&config) };
        let payments = paying.as_ref().map(|paying| paying.payments.clone());
        let settings_of_payments = pay::PaySettings {
            asks_operator: true,
            dry_run: dry_run.clone(),
            ..pay_settings(&config, rules.clone(), payments.clone(), &shutdown)
        };
        let layer = PayLayer::new(settings_of_payments);
        let access_log = AccessLogLayer::new(config.log.access);
        let stack = Stack::new(forward.clone(), layer, access_log.clone(), rules.clone());
        if rules.get().interception.is_some()
            || !config.routes.is_empty()
            || !config.upstream.upgrade.is_empty()
        {
            let forward = forward.clone();
            shutdown.spawn(async move { forward.prepare().await });
        }
        let pays = paying.is_some();
        let nodes = nodes(&config)?;
        let promised = promises(&config, &nodes, payments.clone(), dry_run.is_some());
        let readiness = Readiness::new(promised, shutdown.clone());
        // It is set once: a proxy serves once.
        let _ = obstacles.set(Arc::new(readiness.clone()));
        // Requests are counted if someone can read the counters.
        let is_counting = config.metrics_listen.is_some() || rules.get().authenticator.is_some();
        let counts = workers.each(|_, _| is_counting.then(Arc::<RequestCounts>::default));
        let counts: Vec<Arc<RequestCounts>> = counts.iter().flatten().cloned().collect();
        let metrics = ProxyMetrics::new(MetricsParts {
            requests: counts.clone(),
            workers: workers.clone(),
            payments: payments.clone(),
            readiness: readiness.clone(),
            most_hosts: config.limits.metrics_hosts,
        });
        let metrics: Arc<dyn MetricsSource> = Arc::new(metrics);
        REFUSED_REQUESTS.keep(config.limits.refused_requests);
        let dashboard = match &paying {
            Some(paying) => {
                let source = Dashboard::new(DashboardParts {
                    channels: paying.channels.clone(),
                    readiness: readiness.clone(),
                    tokens: WatchedTokens::new(&config, &nodes),
                    state_dir: config.state_dir.clone(),
                });
                Some(DashboardEndpoint::new(access, Arc::new(source), shutdown.clone()))
            }
            None => None,
        };
        let orders = runs.zip(payments).map(|((_, orders), payments)| RunOrders { orders, payments });
        let config = Arc::new(config);
        let channels = paying.as_ref().map(|paying| paying.channels.clone());
        let mut background = Background::new(channels, dry_run.is_some(), shutdown.clone());
        background.serve(&config.policy);
        let reloader = Reloader {
            config: Arc::clone(&config),
            rules: rules.clone(),
            nodes,
            payments: paying.as_ref().map(|paying| paying.payments.clone()),
            is_dry_run: dry_run.is_some(),
            is_counting,
            has_route_token: token.is_some(),
            readiness: readiness.clone(),
            access_log,
            ca: ca.clone(),
            background,
            source,
        };
        // Nothing waits for it at the end.
        tokio::spawn(reloader.run(reload_orders, shutdown.clone()));
        let stacks = workers.each(|index, count| stack.for_worker(index, count, counts.get(index).cloned()));
        let served = Served {
            config: &config,
            stacks,
            settings,
            ca,
            pays,
            token,
            readiness,
            metrics,
            rules: rules.clone(),
            dashboard,
        };
        let served = ports.serve(served, orders, &shutdown);
        let drain_timeout = config.limits.drain_timeout;
        let Some(PaidServices { payments, channels, task, key, chain, _lock }) = paying else {
            served.await;
            report_left(shutdown.drain(drain_timeout).await);
            return Ok(());
        };
        let task = watched(task, shutdown.clone());
        let is_dry_run = dry_run.is_some();
        let starting = async {
            if is_dry_run {
                payments.not_ready("this is a dry run, which signs nothing".to_owned()).await;
                return Ok(None);
            }
            start(payments.clone(), key, chain, (&config, true), shutdown.clone()).await
        };
        let (started, ()) = tokio::join!(starting, served);
        let deadline = tokio::time::Instant::now() + drain_timeout;
        let on_exit = rules.get().policy.deposit.on_exit;
        let was_denied = match on_exit {
            _ if is_dry_run => {
                payments.stop().await;
                None
            }
            OnExit::Never => {
                payments.stop().await;
                None
            }
            OnExit::Cooperative => {
                let (denied, was_denied) = oneshot::channel();
                payments.finish().await;
                // Each channel waits until its own payment is finished; the drain bounds the total.
                shutdown.spawn(async move {
                    if let Err(error) = channels.close_all().await {
                        // The receiver lives until the drain is over.
                        let _ = denied.send(error);
                    }
                });
                Some(was_denied)
            }
        };
        report_left(shutdown.drain(drain_timeout).await);
        payments.stop().await;
        drop(payments);
        match tokio::time::timeout_at(deadline + drain_timeout, task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error)) | Err(error)) => return Err(StartError::Panicked(error.to_string())),
            Err(_) => {
                tracing::error!("payments were still in flight; the next start recovers them");
            }
        }
        let _key_lock = started?;
        match was_denied.map(|mut was_denied| was_denied.try_recv()) {
            Some(Ok(trouble)) => Err(StartError::NotClosed(trouble.to_string())),
            Some(Err(_)) | None => Ok(()),
        }
    }
}

/// Begins the shutdown if the payment service ends first: a proxy that kept accepting could only fail its clients.
fn watched(task: JoinHandle<()>, shutdown: Shutdown) -> JoinHandle<Result<(), tokio::task::JoinError>> {
    tokio::spawn(async move {
        let ended = task.await;
        if let Err(error) = &ended {
            shutdown.begin();
            tracing::error!(%error, "the payment service has failed; shutting down");
        }
        ended
    })
}

/// Payments without a proxy, for the command line while no `serve` runs and for users of the library.
pub struct StandalonePayments {
    config: Config,
    shutdown: Shutdown,
    channels: Channels,
    task: JoinHandle<()>,
    _locks: (FileLock, Option<KeyLock>),
}

impl StandalonePayments {
    /// Locks the state directory, opens the wallet and syncs with the chain, if there is one.
    ///
    /// # Errors
    /// The configuration has no wallet, another process uses the state directory, the wallet or the journal
    /// cannot be opened, or the node cannot be reached within `limits.ready_timeout`.
    pub async fn open(config: Config) -> Result<Self, StartError> {
        let wallet = config.wallet.clone().ok_or(StartError::NoWallet)?;
        let chain = config.chain.clone();
        let outbound = outbound(&config.upstream, &[config.listen, config.usual_listen])?;
        let tls = origins::load(&config)?;
        let forward = Forward::new(&proxy::ProxySettings { outbound, tls, ..proxy_settings(&config) });
        let key = SignerSource::Configured(wallet);
        let PaidServices { payments, channels, task, key, chain, _lock } =
            PaidServices::build(&config, key, chain, &forward)?;
        let starting = start(payments.clone(), key, chain, (&config, false), Shutdown::new());
        let key_lock = match tokio::time::timeout(config.policy.ready_timeout, starting).await {
            Ok(started) => started?,
            Err(_) => return Err(StartError::NotReady(config.policy.ready_timeout)),
        };
        // First finish the transactions of an earlier run; `chain.confirm_timeout` bounds the wait.
        payments.await_transactions().await;
        Ok(Self { config, shutdown: Shutdown::new(), channels, task, _locks: (_lock, key_lock) })
    }

    /// The payment service.
    #[must_use]
    pub fn payments(&self) -> &Payments {
        self.channels.payments()
    }

    /// The operations on channels.
    #[must_use]
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// A layer for an HTTP client that pays what the rules of the configuration allow. Hooks without a webhook ask
    /// `approver`.
    #[must_use]
    pub fn layer(&self, approver: Option<Arc<dyn Approver>>) -> PayLayer {
        // The requests are those of this process.
        let rules = Rulebook::new(Arc::new(self.config.policy.clone()), LocalSpenders::Any);
        let (rules, payments) = (CurrentRules::new(rules), Some(self.payments().clone()));
        let settings = pay_settings(&self.config, rules, payments, &self.shutdown);
        PayLayer::new(pay::PaySettings { approver, ..settings })
    }

    /// Finishes pending payments within `limits.drain_timeout`, and closes the journal.
    pub async fn close(self) {
        let Self { config, shutdown, channels, task, _locks } = self;
        let left = shutdown.drain(config.limits.drain_timeout).await;
        if left > 0 {
            tracing::warn!(left, "closed before every payment had finished (limits.drain_timeout)");
        }
        channels.payments().stop().await;
        drop(channels);
        // A panic has been logged.
        let _ = task.await;
    }
}

/// What the admin socket says about the proxy's own port.
fn listening(
    address: SocketAddr,
    config: &Config,
    ca: &SharedCa,
    obstacles: &Arc<OnceLock<Arc<dyn ObstacleSource>>>,
) -> Listening {
    let certificate = config.tls.as_ref().filter(|_| config.is_tls).map(|files| files.certificate.clone());
    let (ca, obstacles) = (Arc::clone(&ca.location), Arc::clone(obstacles));
    Listening { address, is_tls: config.is_tls, certificate, ca, obstacles }
}

fn report_left(left: usize) {
    if left > 0 {
        tracing::warn!(left, "stopped before every exchange had finished (limits.drain_timeout)");
    } else {
        tracing::info!("stopped");
    }
}

impl PaidServices {
    fn build(
        config: &Config,
        key: SignerSource,
        chain: Option<config::ChainConfig>,
        forward: &Forward,
    ) -> Result<Self, StartError> {
        let lock = lock(&config.state_dir)?;
        let journal = Journal::open(&config.state_dir)?;
        let policy = Arc::new(config.policy.clone());
        let seller = Arc::new(SellerClient::new(seller_service(forward), config.limits.seller_timeout));
        let bounds = LedgerBounds { keep: config.ledger.keep, max_size: config.ledger.max_size };
        let assets = Arc::clone(&config.assets);
        let (payments, task) = Payments::spawn(policy, journal, bounds, assets, &config.limits)?;
        let networks = config.networks.iter().map(network).collect::<Result<_, _>>()?;
        payments.ask_networks(networks, &config.limits);
        let approver = Arc::new(WebhookCloseApprover::default());
        let networks = config.networks.iter().map(network_account).collect::<Result<Vec<_>, _>>()?;
        let channels = Channels::new(payments.clone(), seller, approver).with_networks(networks);
        Ok(Self { payments, channels, task, key, chain, _lock: lock })
    }
}

/// The token that protects the routes, created at the first start with a route.
fn route_token(state_dir: &Path) -> Result<RouteToken, StartError> {
    let text = private::token(&state_dir.join(ROUTE_TOKEN)).map_err(StartError::RouteToken)?;
    Ok(RouteToken::new(&text))
}

/// The lock file, which reserves the state directory for one process.
const LOCK: &str = "lock";

/// Opens the journal of a state directory that no other process uses, until both results are dropped.
///
/// # Errors
/// Another process uses it, or it cannot be opened.
pub fn open_journal(state_dir: &Path) -> Result<(Journal, impl Sized), StartError> {
    let lock = lock(state_dir)?;
    Ok((Journal::open(state_dir)?, lock))
}

/// Creates the state directory, locks it and makes the files of the journal private.
fn lock(path: &Path) -> Result<FileLock, StartError> {
    let lock = lock_directory(path)?;
    // SQLite creates its other files with the permissions of this one.
    private::own(&path.join(journal::FILE))?;
    for file in journal::sidecar_files(path).into_iter().filter(|file| file.exists()) {
        private::own(&file)?;
    }
    Ok(lock)
}

/// Creates the state directory and locks it.
fn lock_directory(path: &Path) -> Result<FileLock, StartError> {
    let failed = |source| StartError::StateDir { path: path.to_owned(), source };
    private::create_directory(path)?;
    let lock = private::own(&path.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => {
            inspect_state(path)?;
            Ok(FileLock(lock))
        }
        Err(TryLockError::WouldBlock) => Err(StartError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Sends a request without a payment, and reports what the seller offers and what the proxy would do.
///
/// # Errors
/// A file that the configuration names cannot be used; the inner error is the request's.
pub async fn inspect(
    config: &Config,
    method: Method,
    url: &Uri,
) -> Result<Result<Inspection, ForwardError>, StartError> {
    let outbound = outbound(&config.upstream, &[config.listen, config.usual_listen])?;
    let tls = origins::load(config)?;
    let forward = Forward::new(&proxy::ProxySettings { outbound, tls, ..proxy_settings(config) });
    forward.prepare().await;
    let settings = InspectSettings {
        policy: &config.policy,
        assets: &config.assets,
        limits: &config.limits,
        has_wallet: config.wallet.is_some(),
        address: config.wallet.as_ref().and_then(|wallet| match &wallet.source {
            KeySource::Signer(signer) => Some(signer.address),
            KeySource::Keystore(_) | KeySource::KeyFile(_) => None,
        }),
        // Without a journal, or with one that cannot be read, nothing is known to be frozen.
        is_frozen: matches!(journal::LedgerReader::open(&config.state_dir), Ok(Some(reader)) if reader.is_frozen().is_ok_and(|is| is)),
        contract: config.chain.as_ref().map(|chain| chain.channel_manager),
    };
    Ok(pay::inspect::inspect(forward, method, url, settings).await)
}

/// Revokes a standing approval while no proxy runs on the state directory; false if there is none with this ID.
///
/// # Errors
/// Another process uses the state directory, or the journal cannot be written.
pub fn revoke_approval(state_dir: &Path, id: u64) -> Result<bool, StartError> {
    let _lock = lock(state_dir)?;
    Ok(Journal::open(state_dir)?.revoke_approval(id)?)
}

/// Checks whether [`App::build`] could use a state directory; changes nothing.
///
/// # Errors
/// It could not; the error names the remedy.
pub fn inspect_state(path: &Path) -> Result<(), StartError> {
    private::inspect_directory(path)?;
    for file in [path.join(LOCK), path.join(journal::FILE), admin::socket(path)] {
        private::inspect(&file)?;
    }
    for file in journal::sidecar_files(path) {
        private::inspect(&file)?;
    }
    let socket = admin::socket(path);
    admin::check_path(&socket).map_err(|source| StartError::Admin { path: socket, source })
}

/// Checks who can change the files that decide about money and trust: the configuration and the certificates that it
/// names. Adds warnings if some other user can.
///
/// # Errors
/// Every user can change one of them.
pub fn check_writers(file: Option<&Path>, config: &mut Config) -> Result<(), PrivateFileError> {
    let mut files: Vec<PathBuf> = file.map(Path::to_owned).into_iter().collect();
    files.extend(config.upstream.ca_file.clone());
    files.extend(config.tls.as_ref().map(|tls| tls.certificate.clone()));
    if let config::CaSource::Files { certificate, .. } = &config.intercept.authority {
        files.push(certificate.clone());
    }
    for entry in &config.upstream.tls {
        match &entry.trust {
            config::OriginTrust::Roots(path) | config::OriginTrust::Pinned(path) => files.push(path.clone()),
            config::OriginTrust::System => {}
        }
    }
    for file in files {
        config.warnings.extend(private::check_writers(&file)?);
    }
    Ok(())
}

/// Checks who can change a configuration that may be invalid.
///
/// # Errors
/// Every user can change it.
pub fn check_writers_of(file: &Path) -> Result<(), PrivateFileError> {
    private::check_writers(file).map(drop)
}

/// Unlocks the key, reserves it and starts the payment service. Retries while the node is down. Then logs what the wallet
/// holds, if wanted.
///
/// # Errors
/// The key cannot be loaded, or another process pays with it, which also shuts the proxy down.
async fn start(
    payments: Payments,
    key: SignerSource,
    chain: Option<config::ChainConfig>,
    (config, tells_of_funds): (&Config, bool),
    shutdown: Shutdown,
) -> Result<Option<KeyLock>, StartError> {
    let prepared = async {
        let (signer, key_lock) = open_key(key, config).await?;
        let (payer, has_chain) = (signer.address(), chain.is_some());
        if let Some(chain) = chain {
            let contract = chain.channel_manager;
            let chain = Chain::new(chain_settings(&chain), Arc::clone(&signer))?;
            payments.start(Startup { chain, signer, contract, retry_every: START_RETRY_INTERVAL }).await;
        } else {
            payments.start_without_chain(signer).await;
        }
        if tells_of_funds {
            let tokens = WatchedTokens::new(config, &nodes(config)?);
            funds::tell(&tokens, payer, has_chain).await;
        }
        Ok(key_lock)
    };
    let prepared = tokio::select! {
        prepared = prepared => prepared,
        () = shutdown.stopping() => Ok(None),
    };
    if prepared.is_err() {
        shutdown.begin();
    }
    prepared
}

/// The nodes of `[[network]]`, in its order.
fn nodes(config: &Config) -> Result<Vec<chain::Network>, chain::ChainError> {
    config.networks.iter().map(network).collect()
}

/// Opens the key, and reserves it.
///
/// # Errors
/// It cannot be loaded, or another process pays with it.
async fn open_key(
    key: SignerSource,
    config: &Config,
) -> Result<(Arc<WalletSigner>, Option<KeyLock>), StartError> {
    let signer = match key {
        SignerSource::Open(signer, key_lock) => return Ok((signer, key_lock)),
        SignerSource::Given(signer) => signer,
        SignerSource::Configured(wallet) => Arc::new(unlock(wallet, &config.state_dir).await?),
    };
    let key_lock = KeyLock::reserve(&config.key_locks, signer.address(), &config.state_dir)?;
    Ok((signer, key_lock))
}

/// The file in the state directory that keys for other purposes are derived from if the wallet's is with a signer.
const SIGNER_SECRET: &str = "ledger-secret";

/// Opens the configured wallet on a blocking thread: decrypting a keystore takes about a second.
pub async fn unlock(wallet: config::WalletConfig, state_dir: &Path) -> Result<WalletSigner, StartError> {
    let state_dir = state_dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || match &wallet.source {
        KeySource::KeyFile(path) => {
            keystore::open_key_file(path).map(WalletSigner::from).map_err(|error| error.to_string())
        }
        KeySource::Keystore(path) => keystore::check(path)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                Password::obtain(wallet.password_file.as_deref()).map_err(|error| error.to_string())
            })
            .and_then(|password| keystore::open(path, &password).map_err(|error| error.to_string()))
            .map(WalletSigner::from),
        KeySource::Signer(signer) => {
            let secret = private::create_directory(&state_dir)
                .and_then(|()| private::token(&state_dir.join(SIGNER_SECRET)))
                .map_err(|error| error.to_string())?;
            external_signer(signer, &secret).map(WalletSigner::from)
        }
    });
    opened.await.map_err(|error| error.to_string()).flatten().map_err(StartError::Key)
}

/// An external signer, which is not contacted. Keys for other purposes are derived from `secret`.
///
/// # Errors
/// Its URL cannot be used.
pub fn external_signer(signer: &config::SignerConfig, secret: &str) -> Result<ExternalSigner, String> {
    let config::SignerConfig { location, address, timeout, requests } = signer.clone();
    let place = match location {
        config::SignerLocation::Command(command) => SignerPlace::Command(command),
        config::SignerLocation::Endpoint(url) => {
            SignerPlace::Endpoint(Zeroizing::new(url.expose().to_owned()))
        }
    };
    let settings = ExternalSettings { place, address, timeout, requests };
    let secret = Zeroizing::new(Sha256::digest(secret.as_bytes()).into());
    ExternalSigner::new(settings, secret).map_err(|error| error.to_string())
}

/// The settings of the chain layer from the configuration.
pub fn chain_settings(chain: &config::ChainConfig) -> chain::ChainSettings {
    chain::ChainSettings {
        rpc_url: chain.rpc_url.expose().to_owned(),
        channel_manager: chain.channel_manager,
        confirmations: chain.confirmations,
        start_block: chain.start_block,
        request_timeout: chain.request_timeout,
        poll_every: chain.poll_every,
        confirm_timeout: chain.confirm_timeout,
        log_range: chain.log_range,
        retry_timeout: chain.retry_timeout,
        chain_id: chain.chain_id,
        max_fee_per_gas: chain.max_fee_per_gas,
        max_fee: chain.max_fee,
        max_fees_per_day: chain.max_fees_per_day,
    }
}

/// The payer's account on a network from the configuration; its node is not contacted.
fn network_account(config: &config::NetworkConfig) -> Result<chain::NetworkAccount, chain::ChainError> {
    let limits = chain::TransactionLimits {
        max_fee_per_gas: config.max_fee_per_gas,
        max_fee: config.max_fee,
        max_fees_per_day: config.max_fees_per_day,
        confirm_timeout: config.confirm_timeout,
    };
    Ok(chain::NetworkAccount::new(network(config)?, limits))
}

/// The node of a network from the configuration; not contacted.
///
/// # Errors
/// Its URL cannot be used.
pub fn network(config: &config::NetworkConfig) -> Result<chain::Network, chain::ChainError> {
    chain::Network::new(chain::NetworkSettings {
        chain_id: config.chain_id,
        rpc_url: config.rpc_url.expose().to_owned(),
        confirmations: config.confirmations,
        request_timeout: config.request_timeout,
        retry_timeout: config.retry_timeout,
    })
}

fn proxy_settings(config: &Config) -> proxy::ProxySettings {
    proxy::ProxySettings {
        limits: config.limits.clone(),
        ca_file: config.upstream.ca_file.clone(),
        addresses: config.upstream.addresses.clone(),
        connect_ports: config.connect_ports.clone(),
        ..proxy::ProxySettings::default()
    }
}

/// The outbound proxies with their credentials. One at an address that this proxy listens on is left out.
fn outbound(upstream: &config::UpstreamConfig, listens: &[SocketAddr]) -> Result<Outbound, StartError> {
    let config::UpstreamConfig { http, tunnel, bypass, proxy_auth_file, .. } = upstream;
    let is_asked = http.is_some() || tunnel.is_some();
    let file = proxy_auth_file.as_deref().filter(|_| is_asked);
    let secret = file.map(proxy_secret).transpose()?;
    let with = |proxy: &config::ProxyUrl| {
        let credentials = secret.as_deref().and_then(|bytes| str::from_utf8(bytes).ok());
        let credentials = credentials.or(proxy.credentials());
        OutboundProxy::new(&proxy.host, proxy.port, credentials)
    };
    let (http, tunnel) = (http.as_ref().map(with), tunnel.as_ref().map(with));
    Ok(Outbound { http, tunnel, bypass: bypass.clone() }.other_than(listens))
}

/// Reads the outbound proxy's credentials, `user:password`. A leading byte order mark and one trailing line ending are
/// ignored.
fn proxy_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, StartError> {
    let mut bytes = private::read(path).map_err(StartError::ProxyAuth)?;
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    let mark = bytes.len() - private::without_mark(&bytes).len();
    bytes.drain(..mark);
    let is_text = str::from_utf8(&bytes).is_ok_and(|text| !text.contains(char::is_control));
    if !is_text || !bytes.contains(&b':') {
        return Err(StartError::ProxyAuthForm { path: path.to_owned() });
    }
    Ok(bytes)
}

fn pay_settings(
    config: &Config,
    rules: CurrentRules,
    payments: Option<Payments>,
    shutdown: &Shutdown,
) -> pay::PaySettings {
    pay::PaySettings {
        rules,
        payments,
        limits: config.limits.clone(),
        replay_directory: std::env::temp_dir(),
        shutdown: shutdown.clone(),
        approver: None,
        asks_operator: false,
        dry_run: None,
    }
}

#[cfg(test)]
mod tests {
    use crate::app::*;

    #[test]
    fn the_lock_ends_with_its_holder_though_a_child_still_has_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let held = lock(&path).unwrap();
        // As after a fork.
        let copy = held.0.try_clone().unwrap();
        assert!(matches!(lock(&path), Err(StartError::Locked { .. })));
        drop(held);
        assert!(lock(&path).is_ok());
        drop(copy);
    }
}
