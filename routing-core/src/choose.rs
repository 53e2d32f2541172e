//! Which node may serve a read, and which of those does.
//!
//! Pure: a picture of the cluster, a demand and the time in, a choice out. It takes no lock and, up to 32 nodes,
//! allocates nothing.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::balance::{Balance, Candidate};
use crate::config::RouterConfig;
use crate::decision::{Reason, Refusal};
use crate::demand::Demand;
use crate::gate::Admission;
use crate::node_id::NodeId;
use crate::sabotage::{Sabotage, disabled};
use crate::session::Session;
use crate::topology::{NodeState, Primary, Topology};
use crate::tried::Tried;

/// The limits that a read is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_staleness: Duration,
    pub(crate) commit_delay: Duration,
    pub(crate) min_serving: usize,
    pub(crate) writer_lease: Duration,
}

impl From<&RouterConfig> for Limits {
    fn from(config: &RouterConfig) -> Self {
        Self {
            max_staleness: config.max_staleness,
            commit_delay: config.commit_delay(),
            min_serving: config.min_serving_replicas as usize,
            writer_lease: config.writer_lease(),
        }
    }
}

/// A node for a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen<'t> {
    pub(crate) state: &'t NodeState,
    pub(crate) reason: Reason,
    /// The node's half-open slot must be taken first.
    pub(crate) trial: bool,
}

type Eligible = SmallVec<[(usize, bool); 32]>;

/// Chooses a replica for a read that `demand` lets a replica serve.
pub(crate) fn replica<'t>(
    topology: &'t Topology,
    demand: Demand,
    session: &Session,
    tried: &Tried,
    balance: &dyn Balance,
    limits: Limits,
    now: Instant,
) -> Option<Chosen<'t>> {
    if demand.primary.is_some() {
        return None;
    }
    let mut eligible = Eligible::new();
    for (index, state) in topology.nodes.iter().enumerate() {
        if unserving(topology, state, index, tried, now).is_none()
            && unfresh(state, demand, limits, now).is_none()
        {
            let trial = state.node.admission(now) == Admission::Trial;
            if session.prefers(state.node.id()) && !trial {
                return Some(Chosen { state, reason: Reason::SameRequest, trial });
            }
            eligible.push((index, trial));
        }
    }
    if eligible.is_empty() {
        return least_stale(topology, demand, session, tried, limits, now);
    }
    let candidates: SmallVec<[Candidate<'_>; 32]> = eligible
        .iter()
        .map(|(index, _)| {
            let node = &topology.nodes[*index].node;
            Candidate {
                name: node.name(),
                in_flight: node.in_flight(),
                weight: node.weight(),
                latency: node.latency(),
            }
        })
        .collect();
    let choice = balance.choose(&candidates).min(eligible.len() - 1);
    let (index, trial) = eligible[choice];
    Some(Chosen { state: &topology.nodes[index], reason: balance.reason(), trial })
}

/// The node that the session keeps to, if it can go on serving it.
pub(crate) fn kept(
    topology: &Topology,
    demand: Demand,
    session: &Session,
    tried: &Tried,
    limits: Limits,
    now: Instant,
) -> Option<NodeId> {
    let serving = |(index, state): (usize, &NodeState)| {
        unserving(topology, state, index, tried, now).is_none()
            && state.node.admission(now) == Admission::Admitted
    };
    let fresh = |state: &NodeState| unfresh(state, demand, limits, now).is_none();
    let mut nodes = topology.nodes.iter().enumerate();
    let kept = nodes.clone().find(|(_, state)| session.serves(state.node.id()));
    let (_, state) = kept.filter(|kept| serving(*kept))?;
    // All are stale: whoever served goes on.
    let goes_on = fresh(state)
        || may_be_stale(demand, limits)
            && !nodes.any(|(index, state)| serving((index, state)) && fresh(state));
    goes_on.then(|| state.node.id())
}

/// Whether the least stale replicas may serve when all exceed the limit.
fn may_be_stale(demand: Demand, limits: Limits) -> bool {
    !demand.needs_proof() && !demand.token && limits.min_serving > 0
}

/// Replicas that only have to replay more before they can serve, and whether one of them is nearly there.
pub(crate) fn behind<'t>(
    topology: &'t Topology,
    demand: Demand,
    tried: &Tried,
    limits: Limits,
    patience: Duration,
    now: Instant,
) -> (SmallVec<[&'t NodeState; 32]>, bool) {
    let fits = |index: usize, state: &NodeState| {
        unserving(topology, state, index, tried, now).is_none()
            && unfresh(state, demand.without_position(), limits, now).is_none()
            && state.lineage_proven
    };
    let nodes = topology.nodes.iter().enumerate();
    let behind: SmallVec<[&NodeState; 32]> =
        nodes.filter(|(index, state)| fits(*index, state)).map(|(_, state)| state).collect();
    // What it has replayed since it was last asked is not known, and is no lag of it.
    let lag_then = |state: &NodeState| state.probed.and_then(|probed| state.lag(probed));
    let near = behind.iter().any(|state| lag_then(state).is_some_and(|lag| lag <= patience));
    (behind, near)
}

/// When all replicas exceed the limit, the least stale of those whose staleness was ever known; only for reads
/// without a bound. The `min_serving` least stale share the reads.
fn least_stale<'t>(
    topology: &'t Topology,
    demand: Demand,
    session: &Session,
    tried: &Tried,
    limits: Limits,
    now: Instant,
) -> Option<Chosen<'t>> {
    if !may_be_stale(demand, limits) {
        return None;
    }
    let mut known: SmallVec<[(Instant, usize); 32]> = topology
        .nodes
        .iter()
        .enumerate()
        .filter(|(index, state)| unserving(topology, state, *index, tried, now).is_none())
        .filter_map(|(index, state)| Some((state.last_known_fresh?, index)))
        .collect();
    known.sort_unstable_by_key(|(fresh, _)| std::cmp::Reverse(*fresh));
    let kept = known.iter().find(|(_, index)| session.prefers(topology.nodes[*index].node.id())).copied();
    known.truncate(limits.min_serving);
    let least = known.into_iter().min_by_key(|(_, index)| topology.nodes[*index].node.in_flight());
    let (_, index) = kept.or(least)?;
    let state = &topology.nodes[index];
    let trial = state.node.admission(now) == Admission::Trial;
    Some(Chosen { state, reason: Reason::LeastStale, trial })
}

/// The primary, for a read. The same rules as for a replica, and its confirmation must be within the writer lease.
pub(crate) fn primary<'t>(
    topology: &'t Topology,
    demand: Demand,
    tried: &Tried,
    limits: Limits,
    reason: Reason,
    now: Instant,
) -> Option<Chosen<'t>> {
    let state = topology.writer(now, limits.writer_lease).ok().flatten()?;
    let admission = state.node.admission(now);
    if state.blocked.is_some()
        || state.timeline < demand.timeline
        || state.node.is_draining()
        || tried.fault(state.node.id()).is_some()
        || matches!(admission, Admission::Refused(_))
    {
        return None;
    }
    Some(Chosen { state, reason, trial: admission == Admission::Trial })
}

/// Whether a chosen node still meets the demand after the time that getting a connection took.
pub(crate) fn still_meets(
    state: &NodeState,
    demand: Demand,
    limits: Limits,
    reason: Reason,
    now: Instant,
) -> bool {
    match reason {
        Reason::LeastStale => state.blocked.is_none(),
        _ => state.blocked.is_none() && unfresh(state, demand, limits, now).is_none(),
    }
}

/// Why a node cannot serve as a replica, whatever the demand.
pub(crate) fn unserving(
    topology: &Topology,
    state: &NodeState,
    index: usize,
    tried: &Tried,
    now: Instant,
) -> Option<Refusal> {
    if let Some(refusal) = &state.blocked {
        return Some(refusal.clone());
    }
    if matches!(topology.primary, Primary::Known { index: primary, .. } if primary == index) {
        return Some(Refusal::IsPrimary);
    }
    if state.node.is_draining() {
        return Some(Refusal::Draining);
    }
    if !state.node.serves_reads() {
        return Some(Refusal::NoReads);
    }
    if let Some(left) = state.kept_waiting(now) {
        return Some(Refusal::Flapping(left));
    }
    if let Some(fault) = tried.fault(state.node.id()) {
        return Some(Refusal::Tried(fault));
    }
    match state.node.admission(now) {
        Admission::Refused(left) => Some(Refusal::BreakerOpen(left)),
        Admission::Admitted | Admission::Trial => None,
    }
}

/// Why a replica is not fresh enough for the demand at `now`.
pub(crate) fn unfresh(state: &NodeState, demand: Demand, limits: Limits, now: Instant) -> Option<Refusal> {
    if demand.primary.is_some() {
        return Some(Refusal::IsReplica);
    }
    let limit = match demand.bound {
        Some(_) if disabled(Sabotage::StalenessBound) => limits.max_staleness,
        Some(_) if !state.lineage_proven => return Some(Refusal::StalenessUnknown),
        Some(bound) => bound.min(limits.max_staleness),
        None => limits.max_staleness,
    };
    let Some(bound) = state.staleness(now).map(|staleness| staleness + limits.commit_delay) else {
        return Some(Refusal::StalenessUnknown);
    };
    if bound > limit {
        Some(Refusal::Stale { bound, limit })
    } else if state.returning {
        Some(Refusal::Returning)
    } else {
        behind_position(state, demand)
    }
}

/// Why a replica does not have what the session has seen.
fn behind_position(state: &NodeState, demand: Demand) -> Option<Refusal> {
    if !demand.needs_position() {
        return None;
    }
    match (demand.ask, demand.floor, state.lsn) {
        (None, Some(floor), Some(lsn)) if state.lineage_proven => {
            (lsn < floor).then(|| Refusal::BehindToken { bytes: Some(floor.bytes_after(lsn)) })
        }
        _ => Some(Refusal::BehindToken { bytes: None }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::breaker::BreakerConfig;
    use crate::config::NodeConfig;
    use crate::lsn::{Lsn, Timeline};
    use crate::node::Node;

    const LIMITS: Limits = Limits {
        max_staleness: Duration::from_secs(5),
        commit_delay: Duration::ZERO,
        min_serving: 1,
        writer_lease: Duration::from_secs(1),
    };

    fn topology(now: Instant) -> Topology {
        let config = NodeConfig::new("pg1", "postgres://h/d".parse().unwrap());
        let mut topology = Topology::unseen(&[Arc::new(Node::new(config, BreakerConfig::default()))], now);
        let state = &mut topology.nodes[0];
        (state.blocked, state.fresh_as_of, state.lsn) = (None, Some(now), Some(Lsn::from(100)));
        state.lineage_proven = true;
        topology
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_fresh_enough_by_its_bound_its_history_its_lineage_and_its_position() {
        let now = Instant::now();
        let state = topology(now).nodes.remove(0);
        let later =
            |state: NodeState| NodeState { fresh_as_of: now.checked_sub(LIMITS.max_staleness * 2), ..state };
        let bound = Demand { bound: Some(Duration::from_secs(1)), ..Demand::ANY };
        let floor = |lsn| Demand { floor: Some(Lsn::from(lsn)), token: true, ..Demand::ANY };
        let asked = Demand { ask: Some(now), ..Demand::ANY };
        let hidden = NodeState { lineage_proven: false, ..state.clone() };
        let returning = NodeState { returning: true, ..state.clone() };
        let unknown = NodeState { lsn: None, ..state.clone() };
        let behind = |bytes| Some(Refusal::BehindToken { bytes });
        let cases = [
            ("fresh", &state, Demand::ANY, None),
            ("within a bound", &state, bound, None),
            ("at a position", &state, floor(100), None),
            ("behind a position", &state, floor(101), behind(Some(1))),
            ("a position that is still asked for", &state, asked, behind(None)),
            ("no position of its own", &unknown, floor(1), behind(None)),
            ("of unknown lineage", &hidden, Demand::ANY, None),
            ("of unknown lineage, within a bound", &hidden, bound, Some(Refusal::StalenessUnknown)),
            ("of unknown lineage, at a position", &hidden, floor(100), behind(None)),
            ("returning", &returning, Demand::ANY, Some(Refusal::Returning)),
            ("returning, within a bound", &returning, bound, Some(Refusal::Returning)),
            ("returning, at a position", &returning, floor(100), Some(Refusal::Returning)),
        ];
        for (name, state, demand, expected) in cases {
            assert_eq!(unfresh(state, demand, LIMITS, now), expected, "{name}");
        }
        for demand in [Demand::ANY, bound, floor(100)] {
            let found = unfresh(&later(state.clone()), demand, LIMITS, now);
            assert!(matches!(found, Some(Refusal::Stale { .. })), "{demand:?}: {found:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_primary_reads_within_its_lease_and_on_no_lower_timeline_than_a_token_names() {
        let now = Instant::now();
        let mut topology = topology(now);
        topology.nodes[0].timeline = Some(Timeline(2));
        let at = |confirmed, timeline| Primary::Known { index: 0, timeline, confirmed, read_only: false };
        let above = |timeline| Demand { timeline: Some(Timeline(timeline)), ..Demand::ANY };
        let just = now.checked_sub(LIMITS.writer_lease).unwrap();
        let before = just.checked_sub(Duration::from_millis(1)).unwrap();
        for (confirmed, demand, serves) in [
            (now, Demand::ANY, true),
            (just, Demand::ANY, true),
            (before, Demand::ANY, false),
            (now, above(2), true),
            (now, above(3), false),
        ] {
            topology.primary = at(confirmed, Timeline(2));
            let chosen = primary(&topology, demand, &Tried::default(), LIMITS, Reason::Strong, now);
            assert_eq!(chosen.is_some(), serves, "{demand:?}");
        }
    }
}
