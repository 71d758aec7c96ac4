//! Whether the proxy can pay what its rules promise, for probes. The answer reveals no amounts, addresses or hosts, and is
//! kept for a moment, so that probes cost next to nothing however often they come.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::header::HeaderValue;
use http::{Response, StatusCode};
use serde_json::json;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use super::page;
use crate::mutex::lock;
use crate::payments::{Obstacle, Payments};
use crate::proxy::Body;
use crate::shutdown::Shutdown;

/// How long an answer is given again.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// How long it is believed that the wallet has funds.
const FUNDED_FOR: Duration = Duration::from_secs(60);
/// How long it is believed that it has none.
const UNFUNDED_FOR: Duration = Duration::from_secs(2);
/// How long a probe waits for the first answer about the wallet's funds.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// Whether the proxy can pay what its rules promise. Clones share what they have found.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<ReadinessState>);

#[derive(Debug, Default)]
struct ReadinessState {
    promises: Mutex<Promises>,
    shutdown: Option<Shutdown>,
    /// What was last found, and when.
    known: Arc<AsyncMutex<Option<KnownObstacles>>>,
    funds: Mutex<KnownFunds>,
}

/// What is known of the wallet's funds.
#[derive(Debug, Default)]
struct KnownFunds {
    are_lacking: bool,
    /// When the nodes were last asked.
    asked: Option<Instant>,
    /// Counts what was promised: an answer about earlier promises tells nothing.
    promise: u64,
}

/// Knows whether the wallet has what rules allow it to pay with.
pub trait Funds: Debug + Send + Sync {
    /// Whether it certainly has nothing. Ends within a limit of its own.
    fn are_lacking(&self) -> BoxFuture<'static, bool>;
}

/// What the rules promise to pay.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// What is in the way until other rules apply.
    pub lasting: Option<Obstacle>,
    /// Absent if there is nothing to pay, or nothing to pay with.
    pub payments: Option<PromisedPayments>,
    /// Absent if no node knows all that rules may pay with.
    pub funds: Option<Arc<dyn Funds>>,
}

/// What was found, and when.
#[derive(Debug)]
struct KnownObstacles {
    at: Instant,
    obstacles: Vec<Obstacle>,
}

/// The service that pays what rules promise.
#[derive(Clone, Debug)]
pub struct PromisedPayments {
    /// The service.
    pub payments: Payments,
    /// Whether a rule pays from channels, for which the chain is needed.
    pub uses_channels: bool,
}

impl Readiness {
    /// Of a proxy that promises this, until `shutdown` begins.
    #[must_use]
    pub fn new(promises: Promises, shutdown: Shutdown) -> Self {
        let (promises, shutdown) = (Mutex::new(promises), Some(shutdown));
        let (known, funds) = (Arc::default(), Mutex::default());
        Self(Arc::new(ReadinessState { promises, shutdown, known, funds }))
    }

    /// Other rules apply, which promise this.
    pub fn promise(&self, promises: Promises) {
        *lock(&self.0.promises) = promises;
        let mut funds = lock(&self.0.funds);
        *funds = KnownFunds { promise: funds.promise + 1, ..KnownFunds::default() };
    }

    /// Whether nothing is known to be in the way.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.known().is_empty()
    }

    /// What is known to be in the way, without a look at the disk.
    #[must_use]
    pub fn known(&self) -> Vec<Obstacle> {
        let Promises { lasting, payments, funds: _ } = lock(&self.0.promises).clone();
        let shutdown = &self.0.shutdown;
        let is_stopping = shutdown.as_ref().is_some_and(Shutdown::is_stopping);
        let temporary =
            payments.iter().flat_map(|promised| promised.payments.obstacles(promised.uses_channels));
        let unfunded = lock(&self.0.funds).are_lacking.then_some(Obstacle::NoFunds);
        let stopping = is_stopping.then_some(Obstacle::Stopping);
        lasting.into_iter().chain(temporary).chain(unfunded).chain(stopping).collect()
    }

    /// Asks the nodes whether the wallet has funds, unless that was done a short time ago. Waits for the first answer, though
    /// not for long, as an empty wallet would look ready without it. A later one may take longer than a probe: the next probe
    /// tells it.
    async fn ask_for_funds(&self) {
        let Some(source) = lock(&self.0.promises).funds.clone() else { return };
        let (promise, is_first) = {
            let mut known = lock(&self.0.funds);
            let kept = if known.are_lacking { UNFUNDED_FOR } else { FUNDED_FOR };
            if known.asked.is_some_and(|asked| asked.elapsed() < kept) {
                return;
            }
            let is_first = known.asked.replace(Instant::now()).is_none();
            (known.promise, is_first)
        };
        let this = self.clone();
        let asking = tokio::spawn(async move {
            let are_lacking = source.are_lacking().await;
            let mut known = lock(&this.0.funds);
            if known.promise == promise {
                known.are_lacking = are_lacking;
            }
        });
        if is_first {
            // Without an answer, nothing is known to be in the way.
            let _ = timeout(FIRST_WITHIN, asking).await;
        }
    }

    /// What is in the way.
    pub async fn check(&self) -> Vec<Obstacle> {
        let mut known = Arc::clone(&self.0.known).lock_owned().await;
        if let Some(KnownObstacles { at, obstacles }) = &*known
            && at.elapsed() < KEPT_FOR
        {
            return obstacles.clone();
        }
        let this = self.clone();
        // In a task of its own, so that clients that leave cannot begin one check after the other.
        let checking = tokio::spawn(async move {
            let promised = lock(&this.0.promises).payments.clone();
            if let Some(promised) = promised {
                promised.payments.check_disk().await;
            }
            let mut obstacles = this.known();
            // Without the key it is not known whose funds these are.
            if !obstacles.contains(&Obstacle::Locked) {
                this.ask_for_funds().await;
                obstacles = this.known();
            }
            *known = Some(KnownObstacles { at: Instant::now(), obstacles: obstacles.clone() });
            obstacles
        });
        // The task ends early only with its worker.
        checking.await.unwrap_or_else(|_| vec![Obstacle::Stopping])
    }
}

/// The response to a probe.
pub(super) fn answer(obstacles: &[Obstacle]) -> Response<Body> {
    let reasons = obstacles.iter().map(|one| json!({ "reason": one.name(), "details": one.details() }));
    let text = json!({ "ready": obstacles.is_empty(), "reasons": reasons.collect::<Vec<_>>() });
    let status = if obstacles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    page::with(status, HeaderValue::from_static("application/json"), Body::full(format!("{text}\n")))
}
