//! A statement that nobody waits for any more.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::node::Node;

/// A statement whose lease was dropped while it ran: until it has ended, or was ended, it counts as in flight on its node, whose
/// connection it holds. Then its node hears how long it took at least.
///
/// Dropping it is its end.
pub struct Straggler {
    node: Arc<Node>,
    /// When it began, if how long it takes says something about the node.
    began: Option<Instant>,
}

impl Straggler {
    /// Counts it in.
    pub(crate) fn new(node: &Arc<Node>, began: Option<Instant>) -> Self {
        node.stay();
        Self { node: node.clone(), began }
    }
}

impl Drop for Straggler {
    fn drop(&mut self) {
        self.node.leave();
        if let Some(began) = self.began {
            let now = Instant::now();
            self.node.record_unfinished(now.saturating_duration_since(began), now);
        }
    }
}

impl fmt::Debug for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Straggler").field("node", &self.node.name()).finish_non_exhaustive()
    }
}
