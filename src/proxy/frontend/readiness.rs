//! Whether the proxy can pay what its rules promise, for probes. The answer reveals no amounts, addresses or hosts, and is
//! kept for a moment, so that probes cost next to nothing however often they come.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{Response, StatusCode};
use serde_json::json;
use tokio::sync::Mutex as AsyncMutex;

use super::page;
use crate::mutex::lock;
use crate::payments::{Obstacle, Payments};
use crate::proxy::Body;
use crate::shutdown::Shutdown;

/// How long an answer is given again.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Whether the proxy can pay what its rules promise. Clones share what they have found.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<ReadinessState>);

#[derive(Debug, Default)]
struct ReadinessState {
    promises: Mutex<Promises>,
    shutdown: Option<Shutdown>,
    /// What was last found, and when.
    known: Arc<AsyncMutex<Option<KnownObstacles>>>,
}

/// What the rules promise to pay.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// What is in the way until other rules apply.
    pub lasting: Option<Obstacle>,
    /// Absent if there is nothing to pay, or nothing to pay with.
    pub payments: Option<PromisedPayments>,
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
        Self(Arc::new(ReadinessState { promises, shutdown, known: Arc::default() }))
    }

    /// Other rules apply, which promise this.
    pub fn promise(&self, promises: Promises) {
        *lock(&self.0.promises) = promises;
    }

    /// Whether nothing is known to be in the way.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.known().is_empty()
    }

    /// What is known to be in the way, without a look at the disk.
    #[must_use]
    pub fn known(&self) -> Vec<Obstacle> {
        let Promises { lasting, payments } = lock(&self.0.promises).clone();
        let shutdown = &self.0.shutdown;
        let is_stopping = shutdown.as_ref().is_some_and(Shutdown::is_stopping);
        let temporary =
            payments.iter().flat_map(|promised| promised.payments.obstacles(promised.uses_channels));
        let stopping = is_stopping.then_some(Obstacle::Stopping);
        lasting.into_iter().chain(temporary).chain(stopping).collect()
    }

    /// What is in the way.
    pub(super) async fn check(&self) -> Vec<Obstacle> {
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
            let obstacles = this.known();
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
