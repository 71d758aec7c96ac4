//! The proxy for one command: a running one, or one in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::bill::Statement;
use super::say::say;
use super::signals::SignalListener;
use crate::admin;
use crate::admin::{AdminError, ClientCount, OpenRun, RunName, RunRequest, Session, Status};
use crate::app;
use crate::app::{App, StartError};
use crate::chain::WalletSigner;
use crate::config::Config;
use crate::payments::{Payments, SpendingReport};
use crate::shutdown::Shutdown;

/// How long another process may hold the state directory without responding, while it exits or works on channels.
const BUSY_WITHIN: Duration = Duration::from_secs(15);
/// The pause before checking again.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The proxy for one command.
pub(super) enum Proxy {
    Running {
        socket: PathBuf,
        session: Box<Session>,
    },
    /// One that runs and has no wallet; it has no port for each run.
    Plain(Box<Status>),
    Own(Box<Own>),
}

/// A proxy in this process.
pub(super) struct Own {
    address: SocketAddr,
    shutdown: Shutdown,
    /// Without a wallet, nothing is paid.
    paying: Option<OwnRun>,
    task: JoinHandle<Result<(), StartError>>,
}

/// The run at a proxy in this process that pays.
struct OwnRun {
    run: OpenRun,
    payments: Payments,
    clients: ClientCount,
}

impl Proxy {
    /// A port of its own at the proxy running on the state directory or, if there is none, a new one on any free port.
    pub(super) async fn find_or_start(mut config: Config, request: &RunRequest) -> anyhow::Result<Self> {
        let socket = admin::socket(&config.state_dir);
        config.listen_locally();
        let mut signer: Option<Arc<WalletSigner>> = None;
        let deadline = Instant::now() + BUSY_WITHIN;
        loop {
            // If that fails, the next question tells why.
            let plain = admin::status(&socket).await.ok().flatten().filter(|status| status.never_pays);
            let opened = match plain {
                Some(status) if !status.is_tls => return Ok(Self::Plain(Box::new(status))),
                // Not every program can use it.
                Some(_) => Ok(None),
                None => admin::open_run(&socket, request).await,
            };
            match opened {
                Ok(Some(session)) => return Ok(Self::Running { socket, session: Box::new(session) }),
                Err(AdminError::Stopping | AdminError::Gone) if Instant::now() < deadline => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(None) => {}
            }
            // A proxy of its own would pay beyond the limits of that run.
            if let Some(within) = request.within {
                bail!(
                    "the proxy of the surrounding `tollpass run` ({within}) has stopped, so that nothing is paid for this one \
                     either; start the command outside of it"
                );
            }
            // Before the command starts: this may prompt for the password, and a wrong one ends `run` here.
            if let (None, Some(wallet)) = (&signer, &config.wallet) {
                signer = Some(Arc::new(app::unlock(wallet.clone(), &config.state_dir).await?));
                continue;
            }
            match Own::start(config.clone(), signer.clone(), request).await {
                // Another process was faster and will respond soon.
                Err(StartError::Locked { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                own => return Ok(Self::Own(Box::new(own?))),
            }
        }
    }

    /// The address for the command.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Running { session, .. } => session.opened.listen,
            Self::Plain(status) => status.listen,
            Self::Own(own) => own.address,
        }
    }

    /// What programs call the run; `None` without a wallet.
    pub(super) fn name(&self) -> Option<RunName> {
        match self {
            Self::Running { session, .. } => Some(session.opened.name),
            Self::Plain(_) => None,
            Self::Own(own) => own.paying.as_ref().map(|paying| paying.run.name()),
        }
    }

    /// What a proxy in another process says about itself.
    pub(super) async fn running(&self) -> Option<Status> {
        match self {
            // If it has ended meanwhile, the command finds out.
            Self::Running { socket, .. } => admin::status(socket).await.ok().flatten(),
            Self::Plain(status) => Some(status.as_ref().clone()),
            Self::Own(_) => None,
        }
    }

    /// Whether a wallet is configured.
    pub(super) fn can_pay(&self) -> bool {
        match self {
            Self::Running { .. } => true,
            Self::Plain(_) => false,
            Self::Own(own) => own.paying.is_some(),
        }
    }

    /// Stops a proxy of this process and returns what was paid. A signal shortens the wait.
    pub(super) async fn end(self, signals: &mut SignalListener) -> Statement {
        match self {
            Self::Own(own) => own.end(signals).await,
            Self::Plain(_) => Statement::complete(SpendingReport::default()),
            Self::Running { socket, session } => {
                let report = tokio::select! {
                    report = admin::end_run(&socket, session.opened.name) => report,
                    () = signals.stop() => admin::run_report(&socket, session.opened.name).await,
                };
                match report {
                    Ok(Some(report)) => Statement::complete(report),
                    Ok(None) => Statement::unknown(),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read from the running proxy what it paid");
                        Statement::unknown()
                    }
                }
            }
        }
    }
}

impl Own {
    async fn start(
        config: Config,
        signer: Option<Arc<WalletSigner>>,
        request: &RunRequest,
    ) -> Result<Self, StartError> {
        let warnings = config.warnings.clone();
        let shutdown = Shutdown::new();
        let app = App::build(config, signer, shutdown.clone()).await?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let payments = app.channels().map(|channels| channels.payments().clone());
        let (clients, runs) = (app.clients().cloned(), app.runs().cloned());
        let main = app.address();
        let task = tokio::spawn(app.run());
        let Some(((payments, clients), runs)) = payments.zip(clients).zip(runs) else {
            return Ok(Self { address: main, shutdown, paying: None, task });
        };
        match runs.open(request.clone(), Some(std::process::id().cast_signed())).await {
            Ok(run) => {
                let (address, paying) = (run.address(), Some(OwnRun { run, payments, clients }));
                Ok(Self { address, shutdown, paying, task })
            }
            // If the proxy could not start, it says why.
            Err(refused) => {
                shutdown.begin();
                match task.await {
                    Ok(Err(error)) => Err(error),
                    Ok(Ok(())) | Err(_) => Err(StartError::Run(refused)),
                }
            }
        }
    }

    async fn end(self, signals: &mut SignalListener) -> Statement {
        let Self { shutdown, paying, mut task, .. } = self;
        let mut account = None;
        if let Some(OwnRun { run, payments, clients }) = paying {
            account = Some((payments, Arc::clone(run.account())));
            // Nothing more is paid for the command.
            drop(run);
            match clients.count() {
                0 => {}
                1 => {
                    say("another command uses this proxy, which stops when that command ends, or on a signal")
                }
                others => say(format_args!(
                    "{others} other commands use this proxy, which stops when they end, or on a signal"
                )),
            }
            tokio::select! {
                () = clients.close() => {}
                () = signals.stop() => {}
            }
        }
        shutdown.begin();
        let ended = tokio::select! {
            ended = &mut task => ended,
            () = signals.stop() => {
                shutdown.cut();
                task.await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the proxy stopped with an error"),
            Err(error) => tracing::error!(%error, "the proxy panicked"),
        }
        Statement::complete(account.map(|(payments, run)| payments.run_report(&run)).unwrap_or_default())
    }
}
