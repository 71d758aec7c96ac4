//! Tells systemd, if it has started this process, that the proxy listens, and later that it stops.

use sd_notify::NotifyState;

use crate::shutdown::Shutdown;

/// Tells that the proxy listens, and, once `shutdown` begins, that it stops.
pub(super) fn tell_until(shutdown: &Shutdown) {
    tell_of_readiness();
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        stopping.stopping().await;
        tell(&[NotifyState::Stopping]);
    });
}

/// Tells that the proxy listens with the configuration that it has read last.
pub(super) fn tell_of_readiness() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the proxy reads its configuration again.
pub(super) fn tell_of_reload() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot tell the service manager the time"),
    }
}

/// Without a service manager, this does nothing.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager (NOTIFY_SOCKET)");
    }
}
