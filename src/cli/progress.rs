//! Shows on a terminal that something still waits for the chain.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::output::tell;

/// The interval of the output.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Waits, and counts the seconds meanwhile.
pub(super) async fn with_progress<T>(doing: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    tokio::pin!(doing);
    let mut progress = tokio::time::interval_at((begun + PROGRESS_INTERVAL).into(), PROGRESS_INTERVAL);
    let is_terminal = io::stderr().is_terminal();
    loop {
        tokio::select! {
            done = &mut doing => {
                if is_terminal {
                    tell("");
                }
                return done;
            }
            _ = progress.tick() => {
                if is_terminal {
                    let _ = write!(io::stderr(), "\rwaiting for the chain … {} s", begun.elapsed().as_secs());
                }
            }
        }
    }
}
