//! Watching over what runs on the writer.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::backend::Backend;
use crate::cluster::Shared;
use crate::lease::Lease;
use crate::router::Routed;

/// Ends a step on a write connection when its node ceases to be the writer: another one is accepted, or the monitor
/// declares the node dead. Without it a statement on a frozen server would wait for ever.
pub struct WriterWatch {
    shared: Arc<Shared>,
    epoch: u64,
    losses: watch::Receiver<u64>,
}

impl<B: Backend> Routed<B> {
    /// Watches the node of a write lease from now on.
    #[must_use]
    pub fn watch_writer(&self, lease: &Lease<B>) -> WriterWatch {
        WriterWatch {
            shared: self.router().cluster().shared().clone(),
            epoch: lease.epoch(),
            losses: lease.node().losses(),
        }
    }
}

impl WriterWatch {
    /// Runs a step. `None`: the node ceased to be the writer meanwhile, and the step was dropped where it was, so what
    /// it had sent may or may not take effect.
    ///
    /// # Cancel safety
    /// That of the step.
    pub async fn unless_lost<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        let mut versions = self.shared.versions();
        let changed = async {
            while self.shared.peek().epoch == self.epoch {
                if versions.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            outcome = step => Some(outcome),
            () = changed => None,
            Ok(()) = self.losses.changed() => None,
        }
    }

    /// Whether another writer has been accepted already.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.shared.peek().epoch != self.epoch
    }
}

impl fmt::Debug for WriterWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterWatch").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
