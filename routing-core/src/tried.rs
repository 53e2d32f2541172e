//! What one call has tried in vain.

use smallvec::SmallVec;

use crate::fault::Fault;
use crate::node_id::NodeId;
use crate::role::Role;
use crate::topology::Topology;

/// The nodes that one call has tried in vain, each with the fault that it met last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tried {
    faults: SmallVec<[(NodeId, Fault); 4]>,
    /// Entries before this may be tried again; they only explain.
    forgiven: usize,
}

impl Tried {
    pub(crate) fn add(&mut self, node: NodeId, fault: Fault) {
        self.faults.push((node, fault));
    }

    /// [`add`](Self::add), if there is a fault.
    pub(crate) fn extend(&mut self, node: NodeId, fault: Option<Fault>) {
        self.faults.extend(fault.map(|fault| (node, fault)));
    }

    /// All may be tried again.
    pub(crate) fn forgive(&mut self) {
        let mut seen: SmallVec<[NodeId; 4]> = SmallVec::new();
        self.faults.reverse();
        self.faults.retain(|(node, _)| {
            let first = !seen.contains(node);
            seen.push(*node);
            first
        });
        self.forgiven = self.faults.len();
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.faults.len() == self.forgiven
    }

    /// What the node met in this round, which keeps it from being tried again.
    #[inline]
    pub(crate) fn fault(&self, node: NodeId) -> Option<Fault> {
        // Nearly always, and the same for all nodes.
        if self.is_empty() {
            return None;
        }
        self.faults[self.forgiven..].iter().find(|(id, _)| *id == node).map(|(_, fault)| *fault)
    }

    /// What the node met last.
    pub(crate) fn last_fault(&self, node: NodeId) -> Option<Fault> {
        self.faults.iter().rev().find(|(id, _)| *id == node).map(|(_, fault)| *fault)
    }

    /// Whether a replica that the monitor still reaches gave no connection in time: it is busy, not gone. One whose pool is
    /// full is; one that let no new connection in gets the benefit of the doubt for the first round.
    pub(crate) fn busy_replica(&self, topology: &Topology) -> bool {
        let doubt = self.forgiven == 0;
        self.faults[self.forgiven..].iter().any(|(id, fault)| {
            (*fault == Fault::Saturated || doubt && *fault == Fault::Unresponsive)
                && topology
                    .node(*id)
                    .is_some_and(|state| state.blocked.is_none() && state.role == Role::Replica)
        })
    }
}
