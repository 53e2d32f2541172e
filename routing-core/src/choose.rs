//! Which node may serve a read, and which of those does.
//!
//! Pure: a picture of the cluster and the terms of a read in, a choice out. It takes no lock and, up to 32 nodes,
//! allocates nothing.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::balance::Balance;
use crate::candidates::{self, Candidates, Eligible};
use crate::decision::Reason;
use crate::eligible::{Terms, barred, unfresh, unserving};
use crate::gate::Admission;
use crate::node_id::NodeId;
use crate::session::Session;
use crate::topology::{NodeState, Topology};
use crate::tried::Tried;

/// A node for a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen<'t> {
    pub(crate) state: &'t NodeState,
    pub(crate) reason: Reason,
    /// The node's half-open slot must be taken first.
    pub(crate) trial: bool,
}

/// Chooses a replica for a read that its demand lets a replica serve.
pub(crate) fn replica<'t>(
    topology: &'t Topology,
    session: &Session,
    tried: &Tried,
    balance: &dyn Balance,
    terms: &Terms<'_>,
) -> Option<Chosen<'t>> {
    if terms.demand.primary.is_some() {
        return None;
    }
    candidates::among(topology, tried, terms, balance.heeds_latency(), |candidates| {
        if candidates.is_empty() {
            least_stale(topology, session, tried, terms)
        } else {
            Some(choose(candidates, session, balance, terms))
        }
    })
}

/// The one that the session prefers, or the balancer. There is one.
fn choose<'t>(
    candidates: &mut Candidates<'_, 't>,
    session: &Session,
    balance: &dyn Balance,
    terms: &Terms<'_>,
) -> Chosen<'t> {
    if let Some(preferred) = session.preferred() {
        let is_preferred = |(state, eligible): &(&NodeState, Eligible)| {
            !eligible.trial && state.node.id().as_u32() == preferred
        };
        if let Some((state, Eligible { spared, .. })) = candidates.iter().find(is_preferred) {
            let reason = if spared { Reason::EjectionLimit } else { Reason::SameRequest };
            return Chosen { state, reason, trial: false };
        }
    }
    candidates.stay_in_zone(terms);
    let (state, Eligible { trial, spared, .. }) = candidates.at(balance.choose(candidates.shown()));
    let reason = match spared {
        true => Reason::EjectionLimit,
        false if !state.node.is_local() => Reason::OtherZone,
        false => balance.reason(),
    };
    Chosen { state, reason, trial }
}

/// When nobody else can serve: of the replicas that only their breakers keep away, the one with the least to do.
pub(crate) fn last_resort<'t>(
    topology: &'t Topology,
    tried: &Tried,
    terms: &Terms<'_>,
) -> Option<Chosen<'t>> {
    let refused = |(index, state): &(usize, &NodeState)| {
        barred(topology, state, *index, tried, terms.now).is_none() && unfresh(state, terms).is_none()
    };
    let nodes = topology.nodes.iter().enumerate().filter(refused);
    let (_, state) = nodes.min_by_key(|(_, state)| state.node.in_flight())?;
    Some(Chosen { state, reason: Reason::LastResort, trial: false })
}

/// The node that the session keeps to, if it can go on serving it.
pub(crate) fn kept(
    topology: &Topology,
    session: &Session,
    tried: &Tried,
    terms: &Terms<'_>,
) -> Option<NodeId> {
    let mut nodes = topology.nodes.iter().enumerate();
    let (index, state) = nodes.find(|(_, state)| session.serves(state.node.id()))?;
    if barred(topology, state, index, tried, terms.now).is_some() {
        return None;
    }
    let id = state.node.id();
    let fresh = unfresh(state, terms).is_none();
    let goes_on = match state.node.admission(terms.now) {
        Admission::Admitted if fresh => true,
        // All are stale: whoever served goes on.
        Admission::Admitted => {
            may_be_stale(terms) && candidates::among(topology, tried, terms, false, |among| among.is_empty())
        }
        Admission::Refused(_) => {
            let is_spared =
                |(state, eligible): (&NodeState, Eligible)| eligible.spared && state.node.id() == id;
            fresh && candidates::among(topology, tried, terms, false, |among| among.iter().any(is_spared))
        }
        Admission::Trial => false,
    };
    goes_on.then_some(id)
}

/// Whether the least stale replicas may serve when all exceed the limit.
fn may_be_stale(terms: &Terms<'_>) -> bool {
    !terms.demand.needs_proof() && !terms.demand.token && terms.limits.min_serving > 0
}

/// Replicas that only have to replay more before they can serve, and whether one of them is nearly there.
pub(crate) fn behind<'t>(
    topology: &'t Topology,
    tried: &Tried,
    terms: &Terms<'_>,
    patience: Duration,
) -> (SmallVec<[&'t NodeState; 32]>, bool) {
    let demand = terms.demand.without_position();
    let proven = |candidates: &mut Candidates<'_, 't>| {
        let states = candidates.iter().map(|(state, _)| state);
        states.filter(|state| state.lineage_proven).collect()
    };
    let behind: SmallVec<[&NodeState; 32]> =
        candidates::among(topology, tried, &terms.with_demand(&demand), false, proven);
    // What it has replayed since it was last asked is not known, and is no lag of it.
    let lag_then = |state: &NodeState| state.probed.and_then(|probed| state.lag(probed));
    let near = behind.iter().any(|state| lag_then(state).is_some_and(|lag| lag <= patience));
    (behind, near)
}

/// When all replicas exceed the limit, the least stale of those whose staleness was ever known; only for reads
/// without a bound. The `min_serving` least stale share the reads.
#[cold]
fn least_stale<'t>(
    topology: &'t Topology,
    session: &Session,
    tried: &Tried,
    terms: &Terms<'_>,
) -> Option<Chosen<'t>> {
    if !may_be_stale(terms) {
        return None;
    }
    let mut known: SmallVec<[(Instant, usize); 32]> = topology
        .nodes
        .iter()
        .enumerate()
        .filter(|(index, state)| unserving(topology, state, *index, tried, terms.now).is_none())
        .filter_map(|(index, state)| Some((state.last_known_fresh?, index)))
        .collect();
    known.sort_unstable_by_key(|(fresh, _)| std::cmp::Reverse(*fresh));
    let node = |index: usize| &topology.nodes[index].node;
    let preferred = session.preferred();
    let kept = known.iter().find(|(_, index)| Some(node(*index).id().as_u32()) == preferred).copied();
    known.truncate(terms.limits.min_serving);
    let least = known.into_iter().min_by_key(|(_, index)| node(*index).in_flight());
    let (_, index) = kept.or(least)?;
    let state = &topology.nodes[index];
    let trial = state.node.admission(terms.now) == Admission::Trial;
    Some(Chosen { state, reason: Reason::LeastStale, trial })
}

/// The primary, for a read. The same rules as for a replica, and its confirmation must be within the writer lease. As the
/// last resort its breaker counts for nothing.
pub(crate) fn primary<'t>(
    topology: &'t Topology,
    tried: &Tried,
    terms: &Terms<'_>,
    reason: Reason,
) -> Option<Chosen<'t>> {
    let state = topology.writer(terms.now, terms.limits.writer_lease).ok().flatten()?;
    let admission = state.node.admission(terms.now);
    if state.blocked.is_some()
        || state.timeline < terms.demand.timeline
        || state.node.is_draining()
        || tried.fault(state.node.id()).is_some()
        || matches!(admission, Admission::Refused(_)) && reason != Reason::LastResort
    {
        return None;
    }
    Some(Chosen { state, reason, trial: admission == Admission::Trial })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Candidate, Random};
    use crate::demand::Demand;
    use crate::eligible::Limits;
    use crate::eligible::tests::{LIMITS, topology, with_nodes};
    use crate::fault::Fault;
    use crate::lsn::Timeline;
    use crate::notes::Serving;
    use crate::topology::Primary;

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
            let terms = Terms::new(&demand, &LIMITS, now);
            let chosen = primary(&topology, &Tried::default(), &terms, Reason::Strong);
            assert_eq!(chosen.is_some(), serves, "{demand:?}");
        }
    }

    fn open_breaker(topology: &Topology, index: usize, now: Instant) {
        for _ in 0..5 {
            topology.nodes[index].node.record_fault(Fault::Unreachable, now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn breakers_keep_no_more_than_their_share_of_the_nodes_away() {
        let now = Instant::now();
        // replicas, breakers open, the share, how many are left to choose from, and of these with an open breaker
        for (count, open, share, left, spared) in [
            (3, 0, 0.5, 3, 0),
            (3, 1, 0.5, 2, 0),
            (3, 2, 0.5, 2, 1),
            (3, 3, 0.5, 2, 2),
            (4, 2, 0.5, 2, 0),
            (4, 3, 0.5, 2, 1),
            (3, 3, 1.0, 0, 0),
            (3, 2, 0.0, 3, 2),
            (1, 1, 0.5, 0, 0),
            (1, 1, 0.0, 1, 1),
        ] {
            let topology = with_nodes(count, now);
            (0..open).for_each(|index| open_breaker(&topology, index, now));
            let limits = Limits { max_ejected: share, ..LIMITS };
            let terms = Terms::new(&Demand::ANY, &limits, now);
            let (mut seen, mut spared_seen) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                let session = Session::new();
                let tried = Tried::default();
                let balance = Random::seeded(seen.len() as u64);
                let Some(chosen) = replica(&topology, &session, &tried, &balance, &terms) else { break };
                seen.push(chosen.state.node.id());
                if chosen.reason == Reason::EjectionLimit {
                    spared_seen.push(chosen.state.node.id());
                }
            }
            for ids in [&mut seen, &mut spared_seen] {
                ids.sort_unstable();
                ids.dedup();
            }
            assert_eq!((seen.len(), spared_seen.len()), (left, spared), "{count} {open} {share}");
        }
    }

    struct Looks(bool);

    impl Balance for Looks {
        fn choose(&self, candidates: &[Candidate<'_>]) -> usize {
            let expected = if self.0 { Duration::from_millis(7) } else { Duration::ZERO };
            assert!(candidates.iter().all(|candidate| candidate.latency == expected), "{candidates:?}");
            0
        }

        fn heeds_latency(&self) -> bool {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_balancer_is_told_latencies_if_it_looks_at_them() {
        let now = Instant::now();
        let topology = with_nodes(3, now);
        for state in &topology.nodes {
            state.node.record_success(Duration::from_millis(7), now);
        }
        let terms = Terms::new(&Demand::ANY, &LIMITS, now);
        let chooses = |balance: &dyn Balance| {
            replica(&topology, &Session::new(), &Tried::default(), balance, &terms).is_some()
        };
        assert!(chooses(&Looks(true)) && chooses(&Looks(false)));
        let looks = |candidates: &[Candidate<'_>]| usize::from(candidates[0].latency.is_zero());
        assert!(looks.heeds_latency(), "a closure may");
    }

    #[tokio::test(start_paused = true)]
    async fn whom_a_session_keeps_to_is_whom_its_next_read_is_given() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let (now, mut spared, mut lost) = (Instant::now(), 0, 0);
        for round in 0..2_000 {
            let mut topology = with_nodes(random.usize(1..6), now);
            for index in 0..topology.nodes.len() {
                if random.u8(0..3) > 0 {
                    open_breaker(&topology, index, now);
                }
                topology.nodes[index].node.set_draining(random.u8(0..8) == 0);
                if random.u8(0..4) == 0 {
                    let stale = now.checked_sub(LIMITS.max_staleness * 2);
                    (topology.nodes[index].fresh_as_of, topology.nodes[index].last_known_fresh) =
                        (stale, stale);
                }
            }
            let (session, tried) = (Session::new(), Tried::default());
            let node = &topology.nodes[random.usize(..topology.nodes.len())].node;
            session.keep_to(Serving::begin(node), false, false);
            let terms = Terms::new(&Demand::ANY, &LIMITS, now);
            let Some(kept) = kept(&topology, &session, &tried, &terms) else {
                lost += 1;
                continue;
            };
            let balance = Random::seeded(seed);
            let chosen = replica(&topology, &session, &tried, &balance, &terms).unwrap();
            assert_eq!(chosen.state.node.id(), kept, "seed {seed}, round {round}");
            spared += u32::from(chosen.reason == Reason::EjectionLimit);
        }
        assert!(spared > 100 && lost > 100, "seed {seed}: {spared} {lost}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_resort_is_each_node_that_only_its_breaker_keeps_away_once() {
        let now = Instant::now();
        let mut topology = with_nodes(3, now);
        topology.nodes[2].node.set_draining(true);
        topology.primary =
            Primary::Known { index: 0, timeline: Timeline(1), confirmed: now, read_only: false };
        (0..3).for_each(|index| open_breaker(&topology, index, now));
        let mut tried = Tried::default();
        let terms = Terms::new(&Demand::ANY, &LIMITS, now);
        let least = |tried: &Tried| last_resort(&topology, tried, &terms);
        let chosen = least(&tried).unwrap();
        assert_eq!((chosen.state.node.name(), chosen.trial), ("pg2", false));
        tried.add(chosen.state.node.id(), Fault::Refusing);
        assert!(least(&tried).is_none());
        let by = |reason| primary(&topology, &tried, &terms, reason).is_some();
        assert!(!by(Reason::FallbackNoReplica) && by(Reason::LastResort));
    }
}
