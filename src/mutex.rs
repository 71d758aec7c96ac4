//! Locks that ignore poisoning, for data that stays consistent if a holder panics.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, even if a holder has panicked.
///
/// Only for data that no holder can leave half changed. The payment engine is not such data: it refuses to sign once its
/// lock is poisoned.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use crate::mutex::*;

    #[test]
    fn a_panic_of_a_holder_does_not_keep_others_out() {
        let mutex = Mutex::new(1);
        let panicked = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _held = mutex.lock().unwrap();
                    panic!("while the lock is held");
                })
                .join()
        });
        assert!(panicked.is_err() && mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 1);
    }
}
