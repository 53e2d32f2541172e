//! What an operator can have a cluster do while it runs. Each is seen in the status and told once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::decision::Access;
use crate::event::{Event, EventKind};
use crate::membership::MembershipError;
use crate::node::Node;

impl Cluster {
    /// Gives a node no new reads. Its requests go on; its idle read connections are closed. Writes go on where they are:
    /// they have nowhere else to go. A read that nothing but the primary can serve fails while the primary drains.
    ///
    /// # Errors
    /// [`MembershipError::UnknownNode`].
    pub fn drain(&self, name: &str) -> Result<Arc<Node>, MembershipError> {
        let node = self.node(name)?;
        if !node.is_draining() {
            node.set_draining(true);
            self.shared().membership.retire(node.id(), Access::Read);
            self.note(Some(&node), format!("node {name} is drained"));
        }
        Ok(node)
    }

    /// Lets a drained node have work again, slowly at first.
    ///
    /// # Errors
    /// [`MembershipError::UnknownNode`].
    pub fn undrain(&self, name: &str) -> Result<Arc<Node>, MembershipError> {
        let node = self.node(name)?;
        if node.is_draining() {
            node.set_draining(false);
            node.cool();
            node.may_serve_from(Instant::now());
            self.note(Some(&node), format!("node {name} may have work again"));
        }
        Ok(node)
    }

    /// Has the primary serve every read (`true`), whatever it asks for, or replicas again. For the day when replicas show what
    /// they should not. The primary's read pool alone limits them then.
    pub fn read_from_primary_only(&self, only: bool) {
        if self.shared().primary_only.swap(only, Relaxed) != only {
            let whom = if only { "by the primary alone" } else { "by replicas again" };
            self.note(None, format!("reads are served {whom}"));
        }
    }

    /// Whether the primary serves every read.
    #[must_use]
    pub fn reads_from_primary_only(&self) -> bool {
        self.shared().primary_only.load(Relaxed)
    }

    /// Has the lists of the discovery left aside (`true`) or taken over again. Whom an authority lets lead goes on to count.
    pub fn freeze_discovery(&self, frozen: bool) {
        if self.shared().frozen.swap(frozen, Relaxed) != frozen {
            let how = if frozen { "left aside" } else { "taken over again" };
            self.note(None, format!("the discovery's lists are {how}"));
            self.rediscover();
        }
    }

    /// What happened last, the oldest first; at most 64.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared().events.last()
    }

    fn note(&self, node: Option<&Arc<Node>>, message: String) {
        self.shared().events.tell(EventKind::Control, node.map(|node| node.shared_name()), message);
    }
}
