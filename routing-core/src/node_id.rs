//! A node's number.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A node's number: unique within the process, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// Never given to a node.
pub(crate) const NO_NODE: u32 = u32::MAX;

impl NodeId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }

    #[cfg(test)]
    pub(crate) fn for_tests(number: u32) -> Self {
        Self(number)
    }

    pub(crate) fn as_u32(self) -> u32 {
        self.0
    }
}
