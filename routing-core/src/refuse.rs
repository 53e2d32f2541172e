//! Why each node refused a request: made when none is left.

use std::sync::Arc;

use tokio::time::Instant;

use crate::decision::{Refusal, Refusals};
use crate::demand::Demand;
use crate::eligible::{Limits, Terms, unfresh, unserving};
use crate::gate::Admission;
use crate::topology::{NodeState, Primary, Topology};
use crate::tried::Tried;

/// Why each node refused a read.
pub(crate) fn read_refusals(
    topology: &Topology,
    demand: Demand,
    tried: &Tried,
    limits: Limits,
    now: Instant,
) -> Refusals {
    let terms = Terms::new(&demand, &limits, now);
    let refusal = |index: usize, state: &NodeState| match unserving(topology, state, index, tried, now) {
        // Why its breaker is open says more than that it is.
        Some(Refusal::BreakerOpen(left)) => {
            tried.last_fault(state.node.id()).map_or(Refusal::BreakerOpen(left), Refusal::Tried)
        }
        Some(Refusal::IsPrimary) => match demand.timeline {
            Some(timeline) if state.timeline < Some(timeline) => Refusal::BelowToken { timeline },
            _ => primary_refusal(topology, state, tried, limits, now),
        },
        Some(refusal) => refusal,
        None => unfresh(state, &terms).unwrap_or(Refusal::NotReached),
    };
    collect(topology, refusal)
}

fn primary_refusal(
    topology: &Topology,
    state: &NodeState,
    tried: &Tried,
    limits: Limits,
    now: Instant,
) -> Refusal {
    if let Err(age) = topology.writer(now, limits.writer_lease) {
        return Refusal::LeaseOver(age);
    }
    match (tried.last_fault(state.node.id()), state.node.admission(now)) {
        (Some(fault), _) => Refusal::Tried(fault),
        (None, Admission::Refused(left)) => Refusal::BreakerOpen(left),
        (None, _) if state.node.is_draining() => Refusal::Draining,
        (None, _) => Refusal::IsPrimary,
    }
}

/// Why each node refused a write.
pub(crate) fn write_refusals(topology: &Topology, tried: &Tried, limits: Limits, now: Instant) -> Refusals {
    let refusal = |index: usize, state: &NodeState| match &state.blocked {
        Some(refusal) => refusal.clone(),
        None if matches!(topology.primary, Primary::Known { index: primary, .. } if primary == index) => {
            match topology.primary {
                Primary::Known { read_only: true, timeline, .. } => {
                    Refusal::ReadOnly { timeline: Some(timeline) }
                }
                _ => primary_refusal(topology, state, tried, limits, now),
            }
        }
        None => Refusal::IsReplica,
    };
    collect(topology, refusal)
}

fn collect(topology: &Topology, refusal: impl Fn(usize, &NodeState) -> Refusal) -> Refusals {
    let nodes = topology.nodes.iter().enumerate();
    Refusals(
        nodes.map(|(index, state)| (Arc::clone(state.node.shared_name()), refusal(index, state))).collect(),
    )
}
