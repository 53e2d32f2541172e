//! What one request has been served so far.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::decision::Decision;
use crate::node::{NO_NODE, NodeId};

/// What one request has been served so far: the node that its reads keep to while it serves, whether it wrote, and the
/// last decision. Clones share it; give one to a spawned task that belongs to the request.
#[derive(Clone)]
pub struct Session(Arc<State>);

struct State {
    /// The node that served the request's last read; [`NO_NODE`] before the first.
    node: AtomicU32,
    on_primary: AtomicBool,
    wrote: AtomicBool,
    last: Mutex<Option<Decision>>,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A request that has been served nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(State {
            node: AtomicU32::new(NO_NODE),
            on_primary: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            last: Mutex::new(None),
        }))
    }

    /// Whether a write was sent for the request. It stays `true` when the write's outcome is unknown.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.0.wrote.load(Relaxed)
    }

    /// The last decision made for the request.
    #[must_use]
    pub fn last_decision(&self) -> Option<Decision> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn serves(&self, id: NodeId) -> bool {
        self.0.node.load(Relaxed) == id.as_u32()
    }

    pub(crate) fn keep_to(&self, id: NodeId, on_primary: bool) {
        self.0.node.store(id.as_u32(), Relaxed);
        if on_primary {
            self.0.on_primary.store(true, Relaxed);
        }
    }

    /// Whether the primary has served a read: a replica could show an older state.
    pub(crate) fn is_on_primary(&self) -> bool {
        self.0.on_primary.load(Relaxed)
    }

    /// Set before a write is sent, so that a response knows of it even when the handler is dropped after that.
    pub(crate) fn mark_wrote(&self) {
        self.0.wrote.store(true, Relaxed);
    }

    pub(crate) fn decided(&self, decision: Decision) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("wrote", &self.wrote())
            .field("last_decision", &self.last_decision())
            .finish_non_exhaustive()
    }
}
