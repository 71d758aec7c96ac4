//! Who uses the proxy for as long as a program of theirs runs. A proxy that runs for one program only must not end
//! under the others.

use tokio::sync::watch;

/// Counts those who attend; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Attendance {
    seats: watch::Sender<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: usize,
    is_closed: bool,
}

/// A place among those who attend, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: watch::Sender<Seats>,
}

impl Attendance {
    /// How many attend now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seats.borrow().taken
    }

    /// Waits until nobody attends; from then on nobody may begin to.
    pub async fn close(&self) {
        let mut changes = self.seats.subscribe();
        let close = |seats: &mut Seats| {
            seats.is_closed |= seats.taken == 0;
            seats.is_closed
        };
        while !self.seats.send_if_modified(close) {
            // The sender is ours, so there is always an answer.
            let _ = changes.wait_for(|seats| seats.taken == 0).await;
        }
    }

    /// A place, unless it is closed.
    pub(super) fn enter(&self) -> Option<Seat> {
        let enter = |seats: &mut Seats| {
            if !seats.is_closed {
                seats.taken += 1;
            }
            !seats.is_closed
        };
        self.seats.send_if_modified(enter).then(|| Seat { seats: self.seats.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.send_modify(|seats| seats.taken = seats.taken.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use crate::admin::attendance::*;

    #[tokio::test]
    async fn it_closes_when_the_last_one_has_left_and_then_for_good() {
        let attendance = Attendance::default();
        let (first, second) = (attendance.enter().unwrap(), attendance.enter().unwrap());
        assert_eq!(attendance.count(), 2);
        let closing = tokio::spawn({
            let attendance = attendance.clone();
            async move { attendance.close().await }
        });
        drop(first);
        let third = attendance.enter().unwrap();
        drop(second);
        tokio::task::yield_now().await;
        assert!(!closing.is_finished());
        drop(third);
        closing.await.unwrap();
        assert!(attendance.enter().is_none());
        assert_eq!(attendance.count(), 0);
    }
}
