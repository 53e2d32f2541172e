//! What changed from one picture to the next, told once.

use std::mem::discriminant;

use crate::decision::Refusal;
use crate::event::{EventKind, Events};
use crate::topology::{NodeState, Primary, Topology};

/// Tells every transition between two pictures.
pub(crate) fn report(events: &Events, old: &Topology, new: &Topology) {
    for after in &new.nodes {
        let name = after.node.shared_name();
        match old.node(after.node.id()) {
            Some(before) => report_node(events, before, after, new.lineage.epoch),
            None => events.tell(EventKind::Joined, Some(name), format!("node {name} joins")),
        }
    }
    for before in old.nodes.iter().filter(|before| new.node(before.node.id()).is_none()) {
        let name = before.node.shared_name();
        events.tell(EventKind::Left, Some(name), format!("node {name} has left"));
    }
    report_primary(events, old, new);
}

fn report_node(events: &Events, before: &NodeState, after: &NodeState, epoch: u64) {
    let node = after.node.shared_name();
    match (&before.blocked, &after.blocked) {
        // Before the first primary is accepted nobody is proven, which is no news.
        (_, Some(Refusal::NotProven { .. })) if epoch == 0 => {}
        // The same refusal with other figures is no transition.
        (was, Some(why)) if was.as_ref().map(discriminant) != Some(discriminant(why)) => {
            events.tell(EventKind::Refused, Some(node), format!("node {node} serves no reads: {why}"));
        }
        (Some(_), None) => {
            events.tell(
                EventKind::Serves,
                Some(node),
                format!("node {node} may serve reads ({})", after.role),
            );
        }
        _ => {}
    }
    if !before.returning && after.returning {
        events.tell(EventKind::Stale, Some(node), format!("replica {node} exceeds max_staleness"));
    } else if before.returning && !after.returning {
        events.tell(EventKind::Fresh, Some(node), format!("replica {node} is fresh again"));
    }
}

fn report_primary(events: &Events, old: &Topology, new: &Topology) {
    let name = |topology: &Topology| topology.primary().map(|state| state.node.shared_name().clone());
    let named = name(new);
    let node = named.as_ref();
    let is = node.map(|node| &**node).unwrap_or_default();
    match (&old.primary, &new.primary) {
        (Primary::Known { .. }, Primary::Unknown) => {
            let was = name(old);
            let message =
                format!("no node is proven to be the primary; it was {}", was.as_deref().unwrap_or_default());
            events.tell(EventKind::PrimaryLost, was.as_ref(), message);
        }
        (Primary::Known { .. } | Primary::Unknown, Primary::Ambiguous(claims)) => {
            let message = format!("several nodes claim to be the primary: {claims}; no writes");
            events.tell(EventKind::Ambiguous, None, message);
        }
        (_, Primary::Known { timeline, .. }) if old.lineage.epoch != new.lineage.epoch => {
            let message = format!("{is} is the primary on timeline {timeline} (epoch {})", new.lineage.epoch);
            events.tell(EventKind::Primary, node, message);
        }
        (Primary::Known { read_only: false, .. }, Primary::Known { read_only: true, .. }) => {
            let message = format!("{is} is the primary and read-only: writes wait");
            events.tell(EventKind::PrimaryReadOnly, node, message);
        }
        (Primary::Known { read_only: true, .. }, Primary::Known { read_only: false, .. }) => {
            events.tell(EventKind::PrimaryBack, node, format!("{is} may be written to again"));
        }
        (Primary::Unknown | Primary::Ambiguous(_), Primary::Known { .. }) => {
            events.tell(EventKind::PrimaryBack, node, format!("{is} is the primary again"));
        }
        _ => {}
    }
}
