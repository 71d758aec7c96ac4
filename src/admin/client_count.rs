//! Counts the command-line sessions that use the proxy. A proxy started for a single command must not exit while others
//! use it.

use tokio::sync::watch;

/// The number of open sessions; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClientCount {
    clients: watch::Sender<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    count: usize,
    is_closed: bool,
}

/// An open session, until dropped.
#[derive(Debug)]
pub(super) struct ClientGuard {
    clients: watch::Sender<Clients>,
}

impl ClientCount {
    /// The number of open sessions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.clients.borrow().count
    }

    /// Waits until no session is open, and then refuses new ones.
    pub async fn close(&self) {
        let mut changes = self.clients.subscribe();
        let close = |clients: &mut Clients| {
            clients.is_closed |= clients.count == 0;
            clients.is_closed
        };
        while !self.clients.send_if_modified(close) {
            // The sender is alive, so this cannot fail.
            let _ = changes.wait_for(|clients| clients.count == 0).await;
        }
    }

    /// Opens a session, unless closed.
    pub(super) fn enter(&self) -> Option<ClientGuard> {
        let enter = |clients: &mut Clients| {
            if !clients.is_closed {
                clients.count += 1;
            }
            !clients.is_closed
        };
        self.clients.send_if_modified(enter).then(|| ClientGuard { clients: self.clients.clone() })
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.clients.send_modify(|clients| clients.count = clients.count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use crate::admin::client_count::*;

    #[tokio::test]
    async fn it_closes_when_the_last_one_has_left_and_then_for_good() {
        let clients = ClientCount::default();
        let (first, second) = (clients.enter().unwrap(), clients.enter().unwrap());
        assert_eq!(clients.count(), 2);
        let closing = tokio::spawn({
            let clients = clients.clone();
            async move { clients.close().await }
        });
        drop(first);
        let third = clients.enter().unwrap();
        drop(second);
        tokio::task::yield_now().await;
        assert!(!closing.is_finished());
        drop(third);
        closing.await.unwrap();
        assert!(clients.enter().is_none());
        assert_eq!(clients.count(), 0);
    }
}
