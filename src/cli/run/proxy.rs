//! The proxy that one program uses: one that runs already, or one of our own in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::bill::Statement;
use super::say;
use super::signals::SignalListener;
use crate::admin;
use crate::admin::{AdminError, ClientCount, Session};
use crate::app;
use crate::app::{App, StartError};
use crate::chain::signer::Signer;
use crate::config::Config;
use crate::payments::Payments;
use crate::shutdown::Shutdown;

/// How long another process may hold the state directory without answering: one that ends, or works on channels.
const BUSY_WITHIN: Duration = Duration::from_secs(15);
/// The pause between two looks at whether it still does.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The proxy of one program.
pub(super) enum Proxy {
    Running { socket: PathBuf, session: Box<Session> },
    Own(Own),
}

/// A proxy in this process.
pub(super) struct Own {
    address: SocketAddr,
    shutdown: Shutdown,
    payments: Option<Payments>,
    clients: Option<ClientCount>,
    task: JoinHandle<Result<(), StartError>>,
}

impl Proxy {
    /// The proxy that runs on the state directory; where none does, one of our own on any free port.
    pub(super) async fn find_or_start(mut config: Config) -> anyhow::Result<Self> {
        let socket = admin::socket(&config.state_dir);
        config.listen_on((Ipv4Addr::LOCALHOST, 0).into())?;
        let mut signer: Option<Arc<Signer>> = None;
        let give_up = Instant::now() + BUSY_WITHIN;
        loop {
            match admin::open_session(&socket).await {
                Ok(Some(session)) => return Ok(Self::Running { socket, session: Box::new(session) }),
                Err(AdminError::Stopping) if Instant::now() < give_up => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(None) => {}
            }
            // Before the program begins: the terminal may be asked for the password, and a wrong one ends it here.
            if let (None, Some(wallet), Some(_)) = (&signer, &config.wallet, &config.chain) {
                signer = Some(Arc::new(app::unlock(wallet.clone()).await?));
                continue;
            }
            match Own::start(config.clone(), signer.clone()).await {
                // Another one was faster, and answers soon.
                Err(StartError::Locked { .. }) if Instant::now() < give_up => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                own => return Ok(Self::Own(own?)),
            }
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Running { session, .. } => session.status.listen,
            Self::Own(own) => own.address,
        }
    }

    /// Whether there is a wallet.
    pub(super) fn can_pay(&self) -> bool {
        match self {
            Self::Running { .. } => true,
            Self::Own(own) => own.payments.is_some(),
        }
    }

    /// Ends what is ours, and says what was paid. A signal hurries it.
    pub(super) async fn end(self, signals: &mut SignalListener) -> Statement {
        match self {
            Self::Own(own) => own.end(signals).await,
            Self::Running { socket, session } => {
                let after = admin::status(&socket).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the running proxy cannot be asked what it paid");
                    None
                });
                Statement::shared(&session.status.bill, after.map(|status| status.bill))
            }
        }
    }
}

impl Own {
    async fn start(config: Config, signer: Option<Arc<Signer>>) -> Result<Self, StartError> {
        let warnings = config.warnings.clone();
        let shutdown = Shutdown::new();
        let app = App::build(config, signer, shutdown.clone()).await?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let (address, payments, clients) = (
            app.address(),
            app.channels().map(|channels| channels.payments().clone()),
            app.clients().cloned(),
        );
        let task = tokio::spawn(app.run());
        Ok(Self { address, shutdown, payments, clients, task })
    }

    async fn end(self, signals: &mut SignalListener) -> Statement {
        let Self { shutdown, payments, clients, mut task, .. } = self;
        if let Some(clients) = clients {
            match clients.count() {
                0 => {}
                1 => say("one more program uses this proxy; it ends with that, or on a signal"),
                others => say(format_args!(
                    "{others} more programs use this proxy; it ends with them, or on a signal"
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
            Ok(Err(error)) => tracing::error!(%error, "the proxy has ended early"),
            Err(error) => tracing::error!(%error, "the proxy has failed"),
        }
        Statement::own(payments.map(|payments| payments.report()).unwrap_or_default())
    }
}
