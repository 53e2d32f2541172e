//! The replicas that may serve a read, as a balancer sees them.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::balance::Candidate;
use crate::ejection;
use crate::eligible::{Terms, barred, unfresh};
use crate::gate::Admission;
use crate::lsn::Lsn;
use crate::node::Node;
use crate::topology::{NodeState, Primary, Topology};
use crate::tried::Tried;
use crate::zone::{self, Placed};

/// A replica that may serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eligible {
    /// Its place in [`Topology::nodes`].
    pub(crate) index: usize,
    /// Its half-open slot must be taken first.
    pub(crate) trial: bool,
    /// Its breaker refuses, and too many others' do.
    pub(crate) spared: bool,
}

const NO_ONE: Eligible = Eligible { index: 0, trial: false, spared: false };
const NOTHING: Candidate<'_> =
    Candidate { name: "", in_flight: 0, weight: 1, ramp: 1.0, latency: Duration::ZERO };

/// The replicas that may serve.
pub(crate) struct Candidates<'r, 't> {
    topology: &'t Topology,
    eligible: &'r mut [Eligible],
    /// The same, in the same order.
    shown: &'r mut [Candidate<'t>],
    /// One of them is beyond the zone of this process.
    beyond: bool,
}

/// Looks at the replicas that may serve: those that their breakers admit, and those that are spared. Their latencies are
/// computed if they are `heeded`. Up to 32 nodes nothing is allocated.
// Arrays, filled before they are used, are cheaper here than vectors on the stack: the length of those is in memory, and
// each node waits there for the one before.
#[inline(always)]
pub(crate) fn among<'t, T>(
    topology: &'t Topology,
    tried: &Tried,
    terms: &Terms<'_>,
    heeded: bool,
    look: impl Fn(&mut Candidates<'_, 't>) -> T,
) -> T {
    let search = Search { topology, tried, terms, heeded };
    let look = |eligible: &mut [Eligible], shown: &mut [Candidate<'t>]| {
        let (count, beyond) = search.find(eligible, shown);
        let (eligible, shown) = (&mut eligible[..count], &mut shown[..count]);
        look(&mut Candidates { topology, eligible, shown, beyond })
    };
    match topology.nodes.len() {
        0..=8 => look(&mut [NO_ONE; 8], &mut [NOTHING; 8]),
        9..=32 => look(&mut [NO_ONE; 32], &mut [NOTHING; 32]),
        nodes => look(&mut vec![NO_ONE; nodes], &mut vec![NOTHING; nodes]),
    }
}

/// Whom to look at, and what for.
struct Search<'a, 't> {
    topology: &'t Topology,
    tried: &'a Tried,
    terms: &'a Terms<'a>,
    heeded: bool,
}

impl<'t> Search<'_, 't> {
    /// How many there are, and whether one of them is beyond the zone of this process. Both lists are as long as that of the
    /// nodes at least.
    fn find(&self, eligible: &mut [Eligible], shown: &mut [Candidate<'t>]) -> (usize, bool) {
        let topology = self.topology;
        let plain = Plain::of(self.tried, self.terms);
        let primary = match topology.primary {
            Primary::Known { index, .. } => index,
            Primary::Unknown | Primary::Ambiguous(_) => usize::MAX,
        };
        let (mut count, mut beyond) = (0, false);
        let mut refusing: SmallVec<[(Duration, usize); 32]> = SmallVec::new();
        for (index, state) in topology.nodes.iter().enumerate() {
            if index == primary {
                continue;
            }
            if plain.as_ref().is_some_and(|plain| plain.serves(state)) {
                eligible[count] = Eligible { index, trial: false, spared: false };
                shown[count] = show_quiet(&state.node);
                count += 1;
                continue;
            }
            let trial = match self.look_closely(index, state) {
                None => continue,
                Some(Admission::Refused(left)) => {
                    refusing.push((left, index));
                    continue;
                }
                Some(admission) => admission == Admission::Trial,
            };
            eligible[count] = Eligible { index, trial, spared: false };
            shown[count] = self.show(&state.node, trial);
            beyond |= !state.node.is_local();
            count += 1;
        }
        if !refusing.is_empty() {
            for (_, index) in ejection::spared(&mut refusing, count, self.terms.limits.max_ejected) {
                let node = &topology.nodes[*index].node;
                eligible[count] = Eligible { index: *index, trial: false, spared: true };
                shown[count] = self.show(node, false);
                beyond |= !node.is_local();
                count += 1;
            }
        }
        if self.heeded {
            for (eligible, shown) in eligible[..count].iter().zip(shown) {
                shown.latency = topology.nodes[eligible.index].node.latency_at(self.terms.now);
            }
        }
        (count, beyond)
    }

    /// What its breaker says of a node that may serve otherwise.
    #[inline(never)]
    fn look_closely(&self, index: usize, state: &NodeState) -> Option<Admission> {
        let now = self.terms.now;
        let refusal =
            barred(self.topology, state, index, self.tried, now).or_else(|| unfresh(state, self.terms));
        if refusal.is_some() { None } else { Some(state.node.admission(now)) }
    }

    /// What is shown of a node, its latency aside.
    #[inline(never)]
    fn show(&self, node: &'t Node, trial: bool) -> Candidate<'t> {
        let now = self.terms.now;
        Candidate {
            // Its faults have kept a half-open node waiting already.
            in_flight: if trial { node.in_flight() } else { node.load(now) },
            ramp: node.ramp(now),
            ..show_quiet(node)
        }
    }
}

/// [`Search::show`] of a node that is [quiet](Node::is_quiet).
#[inline(always)]
fn show_quiet(node: &Node) -> Candidate<'_> {
    Candidate {
        name: node.name(),
        in_flight: node.in_flight(),
        weight: node.weight(),
        ramp: 1.0,
        latency: Duration::ZERO,
    }
}

/// What nearly every read asks of nearly every node, in a few comparisons: whoever passes them passes all rules, and nothing
/// about it changes what is shown of it. Whoever does not is looked at closely.
struct Plain {
    oldest: Instant,
    floor: Option<Lsn>,
}

impl Plain {
    /// `None` when this read must look at each node closely.
    fn of(tried: &Tried, terms: &Terms<'_>) -> Option<Self> {
        let oldest = terms.oldest_plain().filter(|_| tried.is_empty())?;
        Some(Self { oldest, floor: terms.demand.floor })
    }

    #[inline(always)]
    fn serves(&self, state: &NodeState) -> bool {
        state.blocked.is_none()
            && state.admitted_from.is_none()
            && !state.returning
            && state.fresh_as_of.is_some_and(|fresh| fresh >= self.oldest)
            && self
                .floor
                .is_none_or(|floor| state.lineage_proven && state.lsn.is_some_and(|lsn| lsn >= floor))
            && state.node.is_quiet()
    }
}

impl<'t> Candidates<'_, 't> {
    pub(crate) fn is_empty(&self) -> bool {
        self.eligible.is_empty()
    }

    /// What a balancer sees of them.
    pub(crate) fn shown(&self) -> &[Candidate<'t>] {
        self.shown
    }

    /// One of them by its place; the last for a place beyond.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn at(&self, place: usize) -> (&'t NodeState, Eligible) {
        let eligible = self.eligible[place.min(self.eligible.len() - 1)];
        (&self.topology.nodes[eligible.index], eligible)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'t NodeState, Eligible)> {
        self.eligible.iter().map(|eligible| (&self.topology.nodes[eligible.index], *eligible))
    }

    /// Leaves those of the own zone alone, if they have room.
    #[inline]
    pub(crate) fn stay_in_zone(&mut self, terms: &Terms<'_>) {
        if self.beyond {
            self.leave_others_alone(terms);
        }
    }

    fn leave_others_alone(&mut self, terms: &Terms<'_>) {
        let (now, topology) = (terms.now, self.topology);
        let placed = self.iter().filter(|(_, eligible)| !eligible.spared).map(|(state, _)| {
            let node = &state.node;
            Placed::new(node.is_local(), node.load(now), terms.limits.read_pool, node.ramp(now))
        });
        if !zone::stays(placed) {
            return;
        }
        let mut count = 0;
        for place in 0..self.eligible.len() {
            if topology.nodes[self.eligible[place].index].node.is_local() {
                self.eligible[count] = self.eligible[place];
                self.shown[count] = self.shown[place];
                count += 1;
            }
        }
        if count == 0 {
            // The last local node has just been moved elsewhere.
            return;
        }
        let (eligible, shown) = (std::mem::take(&mut self.eligible), std::mem::take(&mut self.shown));
        (self.eligible, self.shown) = (&mut eligible[..count], &mut shown[..count]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::breaker::BreakerConfig;
    use crate::config::{NodeConfig, RouterConfig};
    use crate::decision::{Access, Reason, Refusal};
    use crate::demand::Demand;
    use crate::eligible::Limits;
    use crate::eligible::tests::{LIMITS, with_nodes};
    use crate::fault::Fault;
    use crate::lsn::Timeline;
    use crate::role::Role;

    /// A picture in which every rule that bars a node bars some, and everything that changes what is shown of one does.
    fn any_topology(random: &mut fastrand::Rng, now: Instant) -> Topology {
        let mut topology = with_nodes(random.usize(0..40), now);
        let count = topology.nodes.len();
        for state in &mut topology.nodes {
            let mut seldom = || random.u8(0..6) == 0;
            let (away, slow) = (seldom(), seldom());
            let config = NodeConfig {
                reads: !seldom(),
                zone: Some(if away { "there" } else { "here" }.to_owned()),
                ..NodeConfig::new(state.node.name().to_owned(), "postgres://h/d".parse().unwrap())
            };
            let slow_start = Duration::from_secs(slow.into());
            let breaker = BreakerConfig::default();
            let cluster = RouterConfig {
                zone: Some("here".to_owned()),
                slow_start,
                breaker,
                ..RouterConfig::default()
            };
            let node = Node::of(config, &cluster);
            node.set_draining(seldom());
            if slow {
                node.cool();
                node.may_serve_from(now);
            }
            let faults = if seldom() { 5 } else { u8::from(seldom()) };
            (0..faults).for_each(|_| node.record_fault(Fault::Unreachable, now));
            state.blocked = seldom().then_some(Refusal::NeverSeen);
            state.admitted_from = seldom().then(|| now + Duration::from_millis(1));
            state.returning = seldom();
            state.lineage_proven = !seldom();
            state.lsn = (!seldom()).then(|| Lsn::from(100));
            let age = if seldom() { LIMITS.max_staleness * 2 } else { Duration::ZERO };
            state.fresh_as_of = now.checked_sub(age).filter(|_| !seldom());
            state.node = Arc::new(node);
        }
        if count > 0 && random.bool() {
            let index = random.usize(..count);
            topology.primary =
                Primary::Known { index, timeline: Timeline(1), confirmed: now, read_only: false };
        }
        topology
    }

    fn any_demand(random: &mut fastrand::Rng, now: Instant) -> Demand {
        let mut seldom = || random.u8(0..4) == 0;
        Demand {
            bound: seldom().then(|| Duration::from_secs(1)),
            floor: seldom().then(|| Lsn::from(if seldom() { 101 } else { 100 })),
            ask: seldom().then_some(now),
            primary: (seldom() && seldom()).then_some(Reason::Strong),
            ..Demand::ANY
        }
    }

    /// All rules, one node after another.
    fn by_the_rules<'t>(
        topology: &'t Topology,
        tried: &Tried,
        terms: &Terms<'_>,
    ) -> Vec<(bool, bool, Candidate<'t>)> {
        let (mut found, mut refusing) = (Vec::new(), SmallVec::new());
        let shown = |node: &'t Node, trial: bool| Candidate {
            name: node.name(),
            in_flight: if trial { node.in_flight() } else { node.load(terms.now) },
            weight: node.weight(),
            ramp: node.ramp(terms.now),
            latency: node.latency_at(terms.now),
        };
        for (index, state) in topology.nodes.iter().enumerate() {
            let barred = barred(topology, state, index, tried, terms.now);
            if barred.or_else(|| unfresh(state, terms)).is_some() {
                continue;
            }
            match state.node.admission(terms.now) {
                Admission::Refused(left) => refusing.push((left, index)),
                admission => {
                    let trial = admission == Admission::Trial;
                    found.push((trial, false, shown(&state.node, trial)));
                }
            }
        }
        let spared = ejection::spared(&mut refusing, found.len(), terms.limits.max_ejected);
        found.extend(
            spared.iter().map(|(_, index)| (false, true, shown(&topology.nodes[*index].node, false))),
        );
        found
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_look_finds_whom_all_rules_find_and_shows_the_same() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut quick, mut close) = (0, 0);
        for round in 0..3_000 {
            let now = Instant::now();
            let mut topology = any_topology(&mut random, now);
            // Faults fade in ten seconds; a breaker stays open, or half-open, for as long as nobody tries.
            let later = Duration::from_millis([0, random.u64(0..3_000), 30_000][random.usize(..3)]);
            tokio::time::advance(later).await;
            let now = now + later;
            for state in &mut topology.nodes {
                state.fresh_as_of = state.fresh_as_of.map(|fresh| fresh + later);
                state.admitted_from = state.admitted_from.map(|from| from + later);
                state.node.record_unfinished(Duration::from_millis(random.u64(1..9)), now);
                if random.bool() {
                    state.node.load(now);
                }
                if random.bool() {
                    state.node.enter(Access::Read, Role::Replica, Reason::Random, now);
                }
            }
            let mut tried = Tried::default();
            if let Some(state) = topology.nodes.first().filter(|_| random.u8(0..5) == 0) {
                tried.add(state.node.id(), Fault::Refusing);
            }
            let demand = any_demand(&mut random, now);
            let max_ejected = [0.0, 0.5, 1.0][random.usize(..3)];
            let commit_delay = LIMITS.max_staleness * [0, 0, 1, 2][random.usize(..4)];
            let limits = Limits { max_ejected, commit_delay, ..LIMITS };
            let terms = Terms::new(&demand, &limits, now);
            let expected = by_the_rules(&topology, &tried, &terms);
            among(&topology, &tried, &terms, true, |candidates| {
                let found: Vec<_> = candidates.iter().zip(candidates.shown()).collect();
                assert_eq!(found.len(), expected.len(), "seed {seed}, round {round}");
                for (((state, eligible), shown), expected) in found.iter().zip(&expected) {
                    let found = (eligible.trial, eligible.spared, **shown);
                    assert_eq!(found, *expected, "seed {seed}, round {round}");
                    assert_eq!(state.node.name(), shown.name, "seed {seed}, round {round}");
                }
                let beyond = found.iter().any(|((state, _), _)| !state.node.is_local());
                assert_eq!(candidates.beyond, beyond, "seed {seed}, round {round}");
            });
            if let Some(plain) = Plain::of(&tried, &terms) {
                quick += topology.nodes.iter().filter(|state| plain.serves(state)).count();
            }
            close += expected.len();
        }
        assert!(quick > 1_000 && close > 2 * quick, "seed {seed}: {quick} {close}");
    }

    #[tokio::test(start_paused = true)]
    async fn faults_that_are_long_past_need_no_closer_look() {
        let now = Instant::now();
        let topology = with_nodes(1, now);
        let node = &topology.nodes[0].node;
        assert!(node.is_quiet());
        node.record_fault(Fault::Unreachable, now);
        for (seconds, quiet) in [(0, false), (5, false), (60, true)] {
            let later = now + Duration::from_secs(seconds);
            node.load(later);
            assert_eq!(node.is_quiet(), quiet, "{seconds} s");
        }
    }
}
