//! News for one open page: the moment, when it has changed, and rows of the ledger as they are written. What happens is found
//! by looking several times a second, and only while a page is open; nothing that pays does anything for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::sleep;

use super::history::row;
use super::snapshot::{Snapshots, lasting};
use crate::mutex::lock;
use crate::payments::LedgerWatch;
use crate::payments::journal::{JournalError, LedgerHeads, LedgerReader};
use crate::payments::ledger::LedgerRow;
use crate::proxy::frontend::{DashboardNews, NewsItem};

/// How long to wait between two looks, at least.
const EVERY: Duration = Duration::from_millis(200);
/// The same, as a multiple of what the last look took.
const REST: u32 = 4;
/// After how long without news the page is told that there are none.
const SILENCE: Duration = Duration::from_secs(15);
/// How many rows a page is sent at once, the newest ones; it reads the others from the ledger.
const MOST_ROWS: u32 = 50;

/// Looks for news.
pub(super) struct Watcher {
    snapshots: Snapshots,
    ledger: Arc<Mutex<Tail>>,
    /// How long to wait before the next look.
    pause: Duration,
    /// The last snapshot that was sent, as far as it lasts.
    sent: Option<Value>,
    sent_at: Instant,
    /// Rows are written sooner for it.
    _watch: LedgerWatch,
}

/// The end of the ledger.
struct Tail {
    state_dir: PathBuf,
    reader: Option<LedgerReader>,
    /// The rows that were seen; `None` before the first look.
    seen: Option<LedgerHeads>,
}

impl Watcher {
    pub(super) fn new(snapshots: Snapshots, state_dir: PathBuf) -> Self {
        let watch = snapshots.payments.watch_ledger();
        let ledger = Arc::new(Mutex::new(Tail { state_dir, reader: None, seen: None }));
        let (pause, sent_at) = (Duration::ZERO, Instant::now());
        Self { snapshots, ledger, pause, sent: None, sent_at, _watch: watch }
    }

    /// The rows since the last look.
    async fn rows(&self) -> Vec<Value> {
        let (ledger, assets) = (Arc::clone(&self.ledger), self.snapshots.payments.approvals().assets());
        let reading = tokio::task::spawn_blocking(move || {
            let rows = lock(&ledger).rows()?;
            Ok::<_, JournalError>(rows.iter().map(|one| row(one, &assets)).collect::<Vec<_>>())
        });
        match reading.await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the dashboard cannot read the ledger");
                Vec::new()
            }
            // The process ends.
            Err(_) => Vec::new(),
        }
    }
}

impl DashboardNews for Watcher {
    fn next(&mut self) -> BoxFuture<'_, Vec<NewsItem>> {
        Box::pin(async move {
            loop {
                sleep(self.pause).await;
                let begun = Instant::now();
                let mut items = Vec::new();
                let rows = self.rows().await;
                if !rows.is_empty() {
                    items.push(NewsItem { name: "rows", data: rows.into() });
                }
                let snapshot = self.snapshots.take();
                let lasting = lasting(snapshot.clone());
                if self.sent.as_ref() != Some(&lasting) {
                    self.sent = Some(lasting);
                    items.push(NewsItem { name: "now", data: snapshot });
                }
                self.pause = EVERY.max(begun.elapsed() * REST);
                if !items.is_empty() || self.sent_at.elapsed() >= SILENCE {
                    self.sent_at = Instant::now();
                    return items;
                }
            }
        })
    }
}

impl Tail {
    fn rows(&mut self) -> Result<Vec<LedgerRow>, JournalError> {
        if self.reader.is_none() {
            self.reader = LedgerReader::open(&self.state_dir)?;
        }
        let Some(reader) = &self.reader else { return Ok(Vec::new()) };
        match &mut self.seen {
            None => {
                self.seen = Some(reader.heads()?);
                Ok(Vec::new())
            }
            Some(seen) => reader.rows_after(seen, MOST_ROWS),
        }
    }
}
