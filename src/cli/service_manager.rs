//! Tells systemd, if it has started this process, that the proxy listens, and later that it stops.

use sd_notify::NotifyState;

use crate::shutdown::Shutdown;

/// Tells that the proxy listens, and, once `shutdown` begins, that it stops.
pub(super) fn tell_until(shutdown: &Shutdown) {
    tell(NotifyState::Ready);
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        stopping.stopping().await;
        tell(NotifyState::Stopping);
    });
}

/// Without a service manager, this does nothing.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager (NOTIFY_SOCKET)");
    }
}
