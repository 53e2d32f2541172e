//! Nodes that serve in spite of their breakers.

use std::time::Duration;

use smallvec::SmallVec;

use super::NodeStatus;
use crate::ejection;

pub(super) const BREAKER_OPEN: &str = "breaker open";

/// Replicas that serve although their breakers are open, because too many are.
pub(super) fn spare(nodes: &mut [NodeStatus], share: f64) {
    let ejected = |node: &NodeStatus| node.refused.as_deref() == Some(BREAKER_OPEN);
    let left = |node: &NodeStatus| Duration::try_from_secs_f64(node.breaker_open_seconds?).ok();
    let replicas = nodes.iter().enumerate().filter(|(_, node)| !node.is_primary);
    let mut refusing: SmallVec<[(Duration, usize); 32]> = SmallVec::new();
    let mut admitted = 0;
    for (index, node) in replicas {
        match left(node).filter(|_| ejected(node)) {
            Some(left) => refusing.push((left, index)),
            None => admitted += usize::from(node.serving),
        }
    }
    for (_, index) in ejection::spared(&mut refusing, admitted, share) {
        (nodes[*index].serving, nodes[*index].refused) = (true, None);
    }
}
