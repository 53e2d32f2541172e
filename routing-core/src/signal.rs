//! Telling everyone who waits that something has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::Notify;

/// Counts changes, and wakes those who wait for the next one in the order in which they came. (tokio's `watch` wakes them in a
/// random order: whoever waited longest for a node could then get it last, and no run of a simulation would be like another.)
#[derive(Debug, Default)]
pub(crate) struct Signal(Arc<Changes>);

#[derive(Debug, Default)]
struct Changes {
    count: AtomicU64,
    next: Notify,
}

/// Sees every change of a [`Signal`] after a certain one.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    changes: Arc<Changes>,
    seen: u64,
}

impl Signal {
    /// Something has changed.
    pub(crate) fn raise(&self) {
        self.0.count.fetch_add(1, SeqCst);
        self.0.next.notify_waiters();
    }

    /// How many changes there have been.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(SeqCst)
    }

    /// Sees every change from now on.
    pub(crate) fn watch(&self) -> Watcher {
        self.watch_since(self.count())
    }

    /// Sees every change after so many.
    pub(crate) fn watch_since(&self, seen: u64) -> Watcher {
        Watcher { changes: self.0.clone(), seen }
    }
}

impl Watcher {
    /// Whether something has changed that was not waited for.
    pub(crate) fn has_changed(&self) -> bool {
        self.changes.count.load(SeqCst) != self.seen
    }

    /// Waits for a change; several that came meanwhile are one.
    ///
    /// # Cancel safety
    /// Dropping the future misses nothing.
    pub(crate) async fn changed(&mut self) {
        self.seen = self.next().await;
    }

    /// The same, for one that is not watched any further.
    ///
    /// # Cancel safety
    /// Dropping the future misses nothing.
    pub(crate) async fn raised(&self) {
        self.next().await;
    }

    /// The count after the next change.
    async fn next(&self) -> u64 {
        loop {
            // Before the count is read: a change in between wakes it.
            let next = self.changes.next.notified();
            let count = self.changes.count.load(SeqCst);
            if count != self.seen {
                return count;
            }
            next.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_in_the_order_of_arrival() {
        let (signal, woken) = (Signal::default(), Arc::new(Mutex::new(Vec::new())));
        let waiters: Vec<_> = (0..100)
            .map(|number| {
                let (mut watcher, woken) = (signal.watch(), woken.clone());
                tokio::spawn(async move {
                    watcher.changed().await;
                    woken.lock().unwrap().push(number);
                })
            })
            .collect();
        // The runtime lets each of them come to its wait.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        signal.raise();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(*woken.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_before_the_wait_ends_it_at_once_and_counts_once() {
        let signal = Signal::default();
        signal.raise();
        let mut watcher = signal.watch();
        assert!(!watcher.has_changed());
        signal.raise();
        signal.raise();
        assert!(watcher.has_changed());
        watcher.changed().await;
        assert!(!watcher.has_changed());
    }
}
