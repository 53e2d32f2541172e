//! Which servers a cluster has now, and the pools that stand on them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use crate::config_error::ConfigError;
use crate::decision::Access;
use crate::node::Node;
use crate::node_id::NodeId;
use crate::pools::NodePools;

/// Why the nodes were not changed. Nothing of what was asked was done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// No node has this name.
    #[error("there is no node named {name}; the nodes are {nodes}")]
    UnknownNode {
        /// What was asked for.
        name: String,
        /// The names that there are.
        nodes: String,
    },
    /// The nodes would break a rule, or a backend cannot use a node's URL.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster was closed.
    #[error("the cluster is closed")]
    Closed,
}

/// How the nodes were changed: names, in the order of the new list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipChange {
    /// Nodes that joined.
    pub added: Vec<Arc<str>>,
    /// Nodes that left.
    pub removed: Vec<Arc<str>>,
    /// Nodes whose URL changed: each left, and joined anew.
    pub replaced: Vec<Arc<str>>,
    /// Nodes whose weight or zone changed, or whether they serve reads.
    pub adjusted: Vec<Arc<str>>,
    /// Settings beside the nodes that differ from those in force. They take effect with the next start.
    pub needs_restart: Vec<&'static str>,
}

impl MembershipChange {
    /// Whether nothing changed and nothing waits for a restart.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The nodes of now, and the pools that stand on them.
pub(crate) struct Membership {
    nodes: watch::Sender<Arc<[Arc<Node>]>>,
    /// Held while nodes come and go, so that no backend misses one.
    carried: Mutex<Vec<Weak<dyn NodePools>>>,
}

impl Membership {
    pub(crate) fn new(nodes: Vec<Arc<Node>>) -> Self {
        Self { nodes: watch::Sender::new(nodes.into()), carried: Mutex::default() }
    }

    pub(crate) fn nodes(&self) -> Arc<[Arc<Node>]> {
        self.nodes.borrow().clone()
    }

    /// Sees every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<[Arc<Node>]>> {
        self.nodes.subscribe()
    }

    /// Opens a backend's pools on every node, and on each that joins later, for as long as the pools live.
    pub(crate) fn carry(&self, pools: &Arc<impl NodePools + 'static>) -> Result<(), ConfigError> {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        for node in self.nodes().iter() {
            pools.open(node)?;
        }
        let pools: Arc<dyn NodePools> = pools.clone();
        carried.retain(|pools| pools.strong_count() > 0);
        carried.push(Arc::downgrade(&pools));
        Ok(())
    }

    /// A node's idle connections are closed, and those in use when they come back.
    pub(crate) fn retire(&self, node: NodeId, access: Access) {
        self.each(|pools| pools.retire(node, access));
    }

    /// The same for the write connections of all nodes.
    pub(crate) fn retire_writes(&self) {
        self.each(|pools| pools.retire_writes());
    }

    /// A node's pools are closed and forgotten.
    pub(crate) fn close(&self, node: NodeId) {
        self.each(|pools| pools.close(node));
    }

    fn each(&self, act: impl Fn(&dyn NodePools)) {
        self.carried().iter().for_each(|pools| act(&**pools));
    }

    /// The pools of every backend.
    pub(crate) fn carried(&self) -> Vec<Arc<dyn NodePools>> {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.iter().filter_map(Weak::upgrade).collect()
    }

    /// Begins a change of the nodes. Others wait until it is finished or dropped.
    pub(crate) fn changing(&self) -> Changing<'_> {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        Changing { nodes: &self.nodes, carried }
    }
}

/// A change of the nodes under way.
pub(crate) struct Changing<'m> {
    nodes: &'m watch::Sender<Arc<[Arc<Node>]>>,
    carried: MutexGuard<'m, Vec<Weak<dyn NodePools>>>,
}

impl Changing<'_> {
    /// Opens pools on the nodes that join; all or none.
    pub(crate) fn open(&self, joining: &[Arc<Node>]) -> Result<(), ConfigError> {
        let carried: Vec<_> = self.carried.iter().filter_map(Weak::upgrade).collect();
        let opened =
            joining.iter().try_for_each(|node| carried.iter().try_for_each(|pools| pools.open(node)));
        if opened.is_err() {
            for node in joining {
                carried.iter().for_each(|pools| pools.close(node.id()));
            }
        }
        opened
    }

    /// These are the nodes from now on.
    pub(crate) fn finish(self, nodes: Vec<Arc<Node>>) {
        self.nodes.send_replace(nodes.into());
    }
}
