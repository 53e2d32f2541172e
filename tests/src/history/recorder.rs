//! Takes down what happens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::history::operation::Operation;

/// Takes down operations of many tasks. Clones share it.
#[derive(Clone, Debug)]
pub struct Recorder {
    began: Instant,
    operations: Arc<Mutex<Vec<Operation>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { began: Instant::now(), operations: Arc::default() }
    }
}

impl Recorder {
    /// The time of the history that it takes down.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes one down.
    pub fn record(&self, operation: Operation) {
        self.locked().push(operation);
    }

    /// How many of a kind were taken down since the last [`take`](Self::take).
    #[must_use]
    pub fn count(&self, kind: impl Fn(&Operation) -> bool) -> usize {
        self.locked().iter().filter(|operation| kind(operation)).count()
    }

    /// All of them, and begins anew.
    #[must_use]
    pub fn take(&self) -> Vec<Operation> {
        std::mem::take(&mut self.locked())
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
