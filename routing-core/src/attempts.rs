//! What one call has been through.

use tokio::time::Instant;

use crate::demand::Demand;
use crate::fault::Fault;
use crate::node_id::NodeId;
use crate::tried::Tried;

/// What one call has been through.
pub(crate) struct Attempts {
    /// What the last choice demanded.
    pub(crate) demand: Demand,
    /// The replica that the session kept to then.
    pub(crate) kept: Option<NodeId>,
    /// Since when it waits for a replica to replay what the session has seen.
    pub(crate) waiting_since: Option<Instant>,
    /// Only the primary can still serve: recovery cancelled the read on a replica, or no standby can run it.
    pub(crate) primary_only: bool,
    pub(crate) tried: Tried,
    /// Statements that failed.
    pub(crate) failed: u32,
    /// Times that every node had been tried in vain.
    pub(crate) rounds: u32,
    /// No node is tried in spite of its breaker any more: the budget for that is spent.
    pub(crate) heeds_breakers: bool,
    /// The budget was charged for the next attempt already.
    pub(crate) paid: bool,
    /// It has earned its share of hedges.
    pub(crate) earned: bool,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
}

/// A node gave no connection, or none that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoConnection {
    pub(crate) node: NodeId,
    /// Keeps it from being tried again; without one the topology itself does.
    pub(crate) fault: Option<Fault>,
}
