//! Why a node may not serve a read: the rules of which each says no by itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::RouterConfig;
use crate::decision::{Reason, Refusal};
use crate::demand::Demand;
use crate::gate::Admission;
use crate::sabotage::{Sabotage, disabled};
use crate::topology::{NodeState, Primary, Topology};
use crate::tried::Tried;

/// The limits that a read is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_staleness: Duration,
    pub(crate) commit_delay: Duration,
    pub(crate) min_serving: usize,
    pub(crate) writer_lease: Duration,
    /// How many reads a node serves at once.
    pub(crate) read_pool: u32,
    /// The share of the nodes that breakers may keep away.
    pub(crate) max_ejected: f64,
}

impl From<&RouterConfig> for Limits {
    fn from(config: &RouterConfig) -> Self {
        Self {
            max_staleness: config.max_staleness,
            commit_delay: config.commit_delay(),
            min_serving: config.min_serving_replicas as usize,
            writer_lease: config.writer_lease(),
            read_pool: config.read_pool_size,
            max_ejected: config.breaker.max_ejected,
        }
    }
}

/// What one read asks of each replica at one moment. What is the same for all of them is computed here, once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) demand: &'a Demand,
    pub(crate) limits: &'a Limits,
    pub(crate) now: Instant,
    /// How stale a replica may be at most, by its proven bound.
    limit: Duration,
    /// Data that is fresh as of an earlier instant is too old. `None`: any data is within the limit.
    oldest: Option<Instant>,
    /// The limit is below what every bound has in it.
    none_fresh: bool,
    /// The bound that is asked for must be proven.
    needs_lineage: bool,
}

impl<'a> Terms<'a> {
    pub(crate) fn new(demand: &'a Demand, limits: &'a Limits, now: Instant) -> Self {
        let bound = demand.bound.filter(|_| !disabled(Sabotage::StalenessBound));
        let limit = bound.map_or(limits.max_staleness, |bound| bound.min(limits.max_staleness));
        let age = limit.checked_sub(limits.commit_delay);
        Self {
            demand,
            limits,
            now,
            limit,
            oldest: age.and_then(|age| now.checked_sub(age)),
            none_fresh: age.is_none(),
            needs_lineage: bound.is_some(),
        }
    }

    /// The same for another demand.
    pub(crate) fn with_demand<'b>(&self, demand: &'b Demand) -> Terms<'b>
    where
        'a: 'b,
    {
        Terms::new(demand, self.limits, self.now)
    }

    /// The instant that data must be fresh as of, where neither its lineage nor anything else about it is in question but
    /// a position.
    pub(crate) fn oldest_plain(&self) -> Option<Instant> {
        let plain = self.demand.primary.is_none() && self.demand.ask.is_none();
        self.oldest.filter(|_| plain && !self.needs_lineage)
    }

    /// How stale data that is fresh as of this instant may be, if that is too stale.
    #[inline(always)]
    fn exceeded(&self, fresh: Instant) -> Option<Duration> {
        // One comparison instead of a subtraction, an addition and a comparison for each node.
        let exceeded = self.none_fresh || self.oldest.is_some_and(|oldest| fresh < oldest);
        exceeded.then(|| self.now.saturating_duration_since(fresh) + self.limits.commit_delay)
    }
}

/// Whether a chosen node still meets the demand after the time that getting a connection took.
pub(crate) fn still_meets(state: &NodeState, terms: &Terms<'_>, reason: Reason) -> bool {
    match reason {
        Reason::LeastStale => state.blocked.is_none(),
        _ => state.blocked.is_none() && unfresh(state, terms).is_none(),
    }
}

/// Why a node cannot serve as a replica, whatever the demand and its breaker.
// Inlined, as its like below: a decision asks only whether there is a reason, and need not make it.
#[inline(always)]
pub(crate) fn barred(
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
    tried.fault(state.node.id()).map(Refusal::Tried)
}

/// [`barred`], or that its breaker refuses it.
pub(crate) fn unserving(
    topology: &Topology,
    state: &NodeState,
    index: usize,
    tried: &Tried,
    now: Instant,
) -> Option<Refusal> {
    barred(topology, state, index, tried, now).or_else(|| match state.node.admission(now) {
        Admission::Refused(left) => Some(Refusal::BreakerOpen(left)),
        Admission::Admitted | Admission::Trial => None,
    })
}

/// Why a replica is not fresh enough.
#[inline(always)]
pub(crate) fn unfresh(state: &NodeState, terms: &Terms<'_>) -> Option<Refusal> {
    if terms.demand.primary.is_some() {
        return Some(Refusal::IsReplica);
    }
    if terms.needs_lineage && !state.lineage_proven {
        return Some(Refusal::StalenessUnknown);
    }
    let Some(fresh) = state.fresh_as_of else { return Some(Refusal::StalenessUnknown) };
    if let Some(bound) = terms.exceeded(fresh) {
        Some(Refusal::Stale { bound, limit: terms.limit })
    } else if state.returning {
        Some(Refusal::Returning)
    } else {
        behind_position(state, terms.demand)
    }
}

/// Why a replica does not have what the session has seen.
#[inline(always)]
fn behind_position(state: &NodeState, demand: &Demand) -> Option<Refusal> {
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
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::breaker::BreakerConfig;
    use crate::config::NodeConfig;
    use crate::lsn::Lsn;
    use crate::node::Node;

    pub(crate) const LIMITS: Limits = Limits {
        max_staleness: Duration::from_secs(5),
        commit_delay: Duration::ZERO,
        min_serving: 1,
        writer_lease: Duration::from_secs(1),
        read_pool: 20,
        max_ejected: 0.5,
    };

    /// One node that may serve.
    pub(crate) fn topology(now: Instant) -> Topology {
        with_nodes(1, now)
    }

    /// So many nodes that may serve as replicas, from `pg1` on.
    pub(crate) fn with_nodes(count: usize, now: Instant) -> Topology {
        let node = |number: usize| {
            let config = NodeConfig::new(format!("pg{number}"), "postgres://h/d".parse().unwrap());
            Arc::new(Node::new(config, BreakerConfig::default()))
        };
        let nodes: Vec<_> = (1..=count).map(node).collect();
        let mut topology = Topology::unseen(&nodes, now);
        for state in &mut topology.nodes {
            (state.blocked, state.fresh_as_of, state.lsn) = (None, Some(now), Some(Lsn::from(100)));
            state.lineage_proven = true;
        }
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
            assert_eq!(unfresh(state, &Terms::new(&demand, &LIMITS, now)), expected, "{name}");
        }
        for demand in [Demand::ANY, bound, floor(100)] {
            let found = unfresh(&later(state.clone()), &Terms::new(&demand, &LIMITS, now));
            assert!(matches!(found, Some(Refusal::Stale { .. })), "{demand:?}: {found:?}");
        }
    }

    /// What is computed once for all nodes says of each what its own bound would, to the nanosecond.
    #[tokio::test(start_paused = true)]
    async fn a_replica_is_stale_exactly_above_the_limit() {
        let now = Instant::now();
        let nanos = |range: std::ops::Range<u64>| range.map(Duration::from_nanos);
        let fresh: Vec<Instant> = nanos(0..6)
            .filter_map(|age| now.checked_sub(age))
            .chain(nanos(1..6).map(|ahead| now + ahead))
            .collect();
        let mut state = topology(now).nodes.remove(0);
        let mut stale = 0;
        for max_staleness in nanos(0..4).chain([Duration::MAX]) {
            for bound in nanos(0..5).map(Some).chain([None, Some(Duration::MAX)]) {
                for commit_delay in nanos(0..4) {
                    let limits = Limits { max_staleness, commit_delay, ..LIMITS };
                    let demand = Demand { bound, ..Demand::ANY };
                    let terms = Terms::new(&demand, &limits, now);
                    let limit = bound.map_or(max_staleness, |bound| bound.min(max_staleness));
                    for fresh in &fresh {
                        state.fresh_as_of = Some(*fresh);
                        let bound = now.saturating_duration_since(*fresh) + commit_delay;
                        let expected = (bound > limit).then_some(Refusal::Stale { bound, limit });
                        stale += u32::from(expected.is_some());
                        assert_eq!(unfresh(&state, &terms), expected, "{limits:?} {demand:?}");
                    }
                }
            }
        }
        assert!(stale > 100, "{stale}");
    }
}
