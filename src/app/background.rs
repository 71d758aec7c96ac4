//! What goes on beside requests, as far as the policy wants it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::channels::{Channels, IdleChannelReaper};
use crate::protocol::Policy;
use crate::proxy::pay::budget_notices;
use crate::shutdown::Shutdown;

/// Bounds of the interval between scans for idle channels.
const REAPER_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The tasks that a policy needs: each starts with the first one that does.
pub(super) struct Background {
    /// Absent without a wallet.
    channels: Option<Channels>,
    /// When idle channels are closed, once that has started.
    close_idle_after: Option<watch::Sender<Option<Duration>>>,
    is_dry_run: bool,
    shutdown: Shutdown,
}

impl Background {
    pub(super) fn new(channels: Option<Channels>, is_dry_run: bool, shutdown: Shutdown) -> Self {
        Self { channels, close_idle_after: None, is_dry_run, shutdown }
    }

    /// Does what this policy wants from now on.
    pub(super) fn serve(&mut self, policy: &Policy) {
        let Some(channels) = &self.channels else { return };
        let has_webhooks = policy.budgets.iter().any(|budget| budget.webhook.is_some());
        if has_webhooks && let Some(notices) = channels.payments().take_budget_notices() {
            self.shutdown.spawn(budget_notices::tell_webhooks(notices, self.shutdown.clone()));
        }
        let after = policy.deposit.close_idle_after;
        match &self.close_idle_after {
            Some(known) => drop(known.send_replace(after)),
            None if after.is_none() || self.is_dry_run => {}
            None => {
                let (known, idle_after) = watch::channel(after);
                self.shutdown.spawn(close_idle_channels(channels.clone(), idle_after, self.shutdown.clone()));
                self.close_idle_after = Some(known);
            }
        }
    }
}

/// Closes idle channels periodically, after the time that the policy says. A close that has begun finishes within the drain.
async fn close_idle_channels(
    channels: Channels,
    mut idle_after: watch::Receiver<Option<Duration>>,
    shutdown: Shutdown,
) {
    loop {
        let after = *idle_after.borrow_and_update();
        let mut reaper = after.map(|after| IdleChannelReaper::new(channels.clone(), after));
        let (shortest, longest) = REAPER_INTERVAL;
        let every = after.map_or(longest, |after| (after / 4).clamp(shortest, longest));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = idle_after.changed() => match changed {
                    Ok(()) => break,
                    // It can change as long as the proxy serves.
                    Err(_) => return,
                },
                () = shutdown.stopping() => return,
            }
            if let Some(reaper) = &mut reaper {
                while !shutdown.is_stopping() && reaper.close_next().await {}
            }
        }
    }
}
