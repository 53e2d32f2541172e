//! What changed from one picture to the next, logged once.

use std::mem::discriminant;

use crate::decision::Refusal;
use crate::topology::{NodeState, Primary, Topology};

/// Logs every transition between two pictures.
pub(crate) fn report(old: &Topology, new: &Topology) {
    for after in &new.nodes {
        match old.node(after.node.id()) {
            Some(before) => report_node(before, after, new.lineage.epoch),
            None => tracing::info!(node = after.node.name(), "node {} joins", after.node.name()),
        }
    }
    for before in old.nodes.iter().filter(|before| new.node(before.node.id()).is_none()) {
        tracing::info!(node = before.node.name(), "node {} has left", before.node.name());
    }
    report_primary(old, new);
}

fn report_node(before: &NodeState, after: &NodeState, epoch: u64) {
    let node = after.node.name();
    match (&before.blocked, &after.blocked) {
        // Before the first primary is accepted nobody is proven, which is no news.
        (_, Some(Refusal::NotProven { .. })) if epoch == 0 => {}
        // The same refusal with other figures is no transition.
        (was, Some(why)) if was.as_ref().map(discriminant) != Some(discriminant(why)) => {
            tracing::warn!(node, %why, "node {node} serves no reads: {why}");
        }
        (Some(_), None) => tracing::info!(node, role = %after.role, "node {node} may serve reads"),
        _ => {}
    }
    if !before.returning && after.returning {
        tracing::warn!(node, "replica {node} exceeds max_staleness");
    } else if before.returning && !after.returning {
        tracing::info!(node, "replica {node} is fresh again");
    }
}

fn report_primary(old: &Topology, new: &Topology) {
    let name = |topology: &Topology| topology.primary().map(|state| state.node.shared_name().clone());
    match (&old.primary, &new.primary) {
        (Primary::Known { .. }, Primary::Unknown) => {
            tracing::warn!(was = name(old).as_deref(), "no node is proven to be the primary");
        }
        (Primary::Known { .. } | Primary::Unknown, Primary::Ambiguous(claims)) => {
            tracing::error!(%claims, "several nodes claim to be the primary: no writes");
        }
        (_, Primary::Known { timeline, .. }) if old.lineage.epoch != new.lineage.epoch => {
            let node = name(new).unwrap_or_default();
            tracing::info!(%node, %timeline, epoch = new.lineage.epoch, "{node} is the primary on timeline {timeline}");
        }
        (Primary::Known { read_only: false, .. }, Primary::Known { read_only: true, .. }) => {
            let node = name(new).unwrap_or_default();
            tracing::warn!(%node, "{node} is the primary and read-only: writes wait");
        }
        (Primary::Known { read_only: true, .. }, Primary::Known { read_only: false, .. }) => {
            let node = name(new).unwrap_or_default();
            tracing::info!(%node, "{node} may be written to again");
        }
        (Primary::Unknown | Primary::Ambiguous(_), Primary::Known { .. }) => {
            let node = name(new).unwrap_or_default();
            tracing::info!(%node, "{node} is the primary again");
        }
        _ => {}
    }
}
