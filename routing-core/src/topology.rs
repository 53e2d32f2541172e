//! What is known of all nodes at one moment.
//!
//! A topology is never changed: the monitor, its only writer, replaces it. Readers take it whole, without a lock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::decision::Refusal;
use crate::error::Claims;
use crate::lag::Behind;
use crate::lsn::{Lsn, Timeline};
use crate::node::Node;
use crate::node_id::NodeId;
use crate::primary::Lineage;
use crate::role::Role;
use crate::sabotage::{Sabotage, disabled};

/// An immutable picture of the cluster.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Rises with every new picture.
    pub version: u64,
    /// What was accepted so far: the cluster, the highest timeline, the writer, the epoch.
    pub lineage: Lineage,
    /// Who is the primary.
    pub primary: Primary,
    /// All nodes, in the order of the configuration.
    pub nodes: Vec<NodeState>,
    /// The primary's newest known position.
    pub primary_lsn: Option<Lsn>,
    /// When it was made.
    pub published: Instant,
}

/// Who is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Primary {
    /// One node is proven to be.
    Known {
        /// Its place in [`Topology::nodes`].
        index: usize,
        /// Its timeline.
        timeline: Timeline,
        /// When the probe was sent that last proved it.
        confirmed: Instant,
        /// Its sessions start read-only: it is no less the primary, and gets no writes.
        read_only: bool,
    },
    /// No node is.
    Unknown,
    /// Several claim to be, and nothing tells them apart.
    Ambiguous(Claims),
}

/// What is known of one node.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// The node.
    pub node: Arc<Node>,
    /// What it says of itself.
    pub role: Role,
    /// Its timeline, if known.
    pub timeline: Option<Timeline>,
    /// A standby's replay position, a primary's flush position, if known. A standby that receives nothing counts as far as it was
    /// when it last received: what it has replayed since may be of another timeline.
    pub lsn: Option<Lsn>,
    /// Why it may serve no read at all, whatever the time and the demand.
    pub blocked: Option<Refusal>,
    /// The instant that its data is proven to be fresh as of.
    pub fresh_as_of: Option<Instant>,
    /// The latest instant that its data was ever proven to be fresh as of. It counts only for choosing the least stale.
    pub last_known_fresh: Option<Instant>,
    /// Its timeline is known to be the primary's. Without it a bound is not proven.
    pub lineage_proven: bool,
    /// It exceeded `max_staleness` and has not been fresh for long enough since.
    pub returning: bool,
    /// Since when it lags, for people and metrics.
    pub behind: Behind,
    /// When it may serve as a replica again, for one that has come back several times within a short while.
    pub admitted_from: Option<Instant>,
    /// When its last answered probe was sent.
    pub probed: Option<Instant>,
    /// Since when it does not answer; `None` while it does.
    pub down_since: Option<Instant>,
}

impl NodeState {
    /// How stale it may be at `now` at most; `None` when that cannot be told.
    #[must_use]
    pub fn staleness(&self, now: Instant) -> Option<Duration> {
        self.fresh_as_of.map(|fresh| now.saturating_duration_since(fresh))
    }

    /// How much longer it must stay up at `now` before it serves as a replica: it has come back again and again.
    #[must_use]
    pub fn kept_waiting(&self, now: Instant) -> Option<Duration> {
        self.admitted_from.map(|from| from.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// How long it has been lagging at `now`, for people; `None` when that cannot be told.
    #[must_use]
    pub fn lag(&self, now: Instant) -> Option<Duration> {
        match self.behind {
            Behind::CaughtUp => Some(Duration::ZERO),
            Behind::Since(since) | Behind::SinceBefore(since) => Some(now.saturating_duration_since(since)),
            Behind::Unknown => None,
        }
    }
}

impl Topology {
    /// The picture before the first probe.
    #[must_use]
    pub fn unseen(nodes: &[Arc<Node>], now: Instant) -> Self {
        let unseen = |node: &Arc<Node>| NodeState {
            node: node.clone(),
            role: Role::Unknown,
            timeline: None,
            lsn: None,
            blocked: Some(Refusal::NeverSeen),
            fresh_as_of: None,
            last_known_fresh: None,
            lineage_proven: false,
            returning: false,
            behind: Behind::Unknown,
            admitted_from: None,
            probed: None,
            down_since: None,
        };
        Self {
            version: 0,
            lineage: Lineage::default(),
            primary: Primary::Unknown,
            nodes: nodes.iter().map(unseen).collect(),
            primary_lsn: None,
            published: now,
        }
    }

    /// The node that is proven to be the primary.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeState> {
        match self.primary {
            Primary::Known { index, .. } => self.nodes.get(index),
            Primary::Unknown | Primary::Ambiguous(_) => None,
        }
    }

    /// The proven primary, if its last confirmation is at `now` not older than `lease`.
    ///
    /// # Errors
    /// How old the confirmation is, when it is too old.
    pub fn writer(&self, now: Instant, lease: Duration) -> Result<Option<&NodeState>, Duration> {
        match self.primary {
            Primary::Known { index, confirmed, .. } => {
                let age = now.saturating_duration_since(confirmed);
                if age > lease && !disabled(Sabotage::WriterLease) {
                    Err(age)
                } else {
                    Ok(self.nodes.get(index))
                }
            }
            Primary::Unknown | Primary::Ambiguous(_) => Ok(None),
        }
    }

    /// Whether writes have somewhere to go: a primary is known, and it is not read-only.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        matches!(self.primary, Primary::Known { read_only: false, .. })
    }

    /// The state of the node with this number.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeState> {
        self.nodes.iter().find(|state| state.node.id() == id)
    }

    /// Whether a primary is known and every node was tried.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let tried = |state: &NodeState| state.blocked != Some(Refusal::NeverSeen);
        matches!(self.primary, Primary::Known { .. }) && self.nodes.iter().all(tried)
    }

    /// Whether every node has been down for at least `long` at `now`: there is nothing to wait for.
    #[must_use]
    pub fn is_hopeless(&self, now: Instant, long: Duration) -> bool {
        let gone = |state: &NodeState| {
            state.down_since.is_some_and(|since| now.saturating_duration_since(since) >= long)
        };
        self.nodes.iter().all(gone)
    }

    /// Whether a faster look is worth its cost.
    #[must_use]
    pub(crate) fn is_suspect(&self) -> bool {
        !self.is_writable()
    }
}
