//! What one read demands of a node, given what its request has seen and what the cluster is now.
//!
//! Pure: the memory of a session and a picture of the cluster in, a demand out.

use std::time::Duration;

use tokio::time::Instant;

use crate::consistency::Consistency;
use crate::decision::Reason;
use crate::lsn::{Lsn, Position, Timeline};
use crate::sabotage::{Sabotage, disabled};
use crate::token::{Mark, SessionToken, UnixMillis};
use crate::topology::{Primary, Topology};

/// What one read demands of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Demand {
    /// No replica will do, and why.
    pub(crate) primary: Option<Reason>,
    /// The proven staleness that a replica may have at most.
    pub(crate) bound: Option<Duration>,
    /// A replica must have replayed this much.
    pub(crate) floor: Option<Lsn>,
    /// A replica must have replayed what the primary had after this instant, which is still to be asked.
    pub(crate) ask: Option<Instant>,
    /// No node on a lower timeline may serve.
    pub(crate) timeline: Option<Timeline>,
    /// A token has a part in this.
    pub(crate) token: bool,
}

impl Demand {
    /// What every read demands: any node under `max_staleness`.
    pub(crate) const ANY: Self =
        Self { primary: None, bound: None, floor: None, ask: None, timeline: None, token: false };

    /// Whether a replica must prove more than that it is not stale beyond `max_staleness`.
    pub(crate) fn needs_proof(&self) -> bool {
        self.bound.is_some() || self.needs_position()
    }

    /// Whether a replica must have replayed up to some position.
    pub(crate) fn needs_position(&self) -> bool {
        self.floor.is_some() || self.ask.is_some()
    }

    /// The same of replicas that have not replayed enough yet.
    pub(crate) fn without_position(&self) -> Self {
        Self { floor: None, ask: None, ..*self }
    }
}

/// What a replacement for a lost node must have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Floor {
    /// What the primary had after this instant: where the lost node was cannot be told any more, but it was not further.
    PrimaryAfter(Instant),
    /// This much.
    At(Position),
}

/// What a session remembers that a read must heed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// It was sent a write.
    pub(crate) wrote: bool,
    /// The primary has served a read.
    pub(crate) on_primary: bool,
    /// What its tokens demand, merged: of this cluster, or of one that is not known yet.
    pub(crate) token: Option<SessionToken>,
    /// What the replacement for a lost node must have.
    pub(crate) floor: Option<Floor>,
}

/// What a read of this consistency demands.
#[inline(always)]
pub(crate) fn demand(
    consistency: Consistency,
    memory: &Memory,
    topology: &Topology,
    wall: UnixMillis,
) -> Demand {
    let mut demand = Demand { bound: consistency.bound(), ..Demand::ANY };
    let writer_timeline = topology.lineage.writer.map(|(_, timeline)| timeline);
    if consistency.is_of_session() {
        if let Some(token) = memory.token.filter(|_| !disabled(Sabotage::Tokens)) {
            heed(&mut demand, &token, writer_timeline, wall);
        }
        if memory.wrote {
            demand.primary = Some(Reason::PinnedBySession);
            demand.token = false;
        }
    }
    match memory.floor {
        Some(Floor::At(position)) if Some(position.timeline) == writer_timeline => {
            demand.floor = demand.floor.max(Some(position.lsn));
        }
        // Positions of two timelines do not compare.
        Some(Floor::At(_)) => demand.primary = Some(Reason::SameRequest),
        Some(Floor::PrimaryAfter(since)) => demand.ask = Some(since),
        None => {}
    }
    if memory.on_primary {
        // A replica could show an older state.
        demand.primary = Some(Reason::SameRequest);
        demand.token = false;
    }
    if consistency == Consistency::Strong {
        demand.primary = Some(Reason::Strong);
        demand.token = false;
    }
    demand
}

fn heed(demand: &mut Demand, token: &SessionToken, writer_timeline: Option<Timeline>, wall: UnixMillis) {
    let lsn = match token.mark {
        Mark::Pin(until) if wall >= until => return,
        Mark::Pin(_) => None,
        Mark::Position(lsn) => Some(lsn),
    };
    demand.token = true;
    if writer_timeline.is_none_or(|own| own < token.timeline) {
        demand.timeline = Some(token.timeline);
    }
    match lsn {
        Some(lsn) if writer_timeline == Some(token.timeline) => demand.floor = Some(lsn),
        // On an older timeline the position may lie beyond the point where the current one began: what was written there
        // may be lost, and no replica can tell.
        _ => demand.primary = Some(Reason::PinnedBySession),
    }
}

/// Where a floor lies, once the primary was asked after its instant.
pub(crate) fn settle(floor: Floor, topology: &Topology) -> Option<Position> {
    match floor {
        Floor::At(position) => Some(position),
        Floor::PrimaryAfter(since) => match topology.primary {
            Primary::Known { index, timeline, confirmed, .. } if confirmed > since => {
                let lsn = topology.nodes.get(index)?.lsn?;
                Some(Position { timeline, lsn })
            }
            Primary::Known { .. } | Primary::Unknown | Primary::Ambiguous(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::SystemId;
    use crate::node_id::NodeId;
    use crate::primary::Lineage;

    const WALL: UnixMillis = UnixMillis(1_000_000);

    fn topology(writer_timeline: Option<u32>) -> Topology {
        let mut topology = Topology::unseen(&[], Instant::now());
        let writer = writer_timeline.map(|timeline| (NodeId::for_tests(0), Timeline(timeline)));
        topology.lineage = Lineage { system_id: Some(SystemId(7)), writer, ..Lineage::default() };
        topology
    }

    fn token(timeline: u32, mark: Mark) -> Memory {
        let token =
            SessionToken { system_id: SystemId(7), timeline: Timeline(timeline), mark, issued_at: WALL };
        Memory { token: Some(token), ..Memory::default() }
    }

    #[tokio::test]
    async fn a_demand_follows_from_what_was_written_seen_and_lost() {
        let at = |lsn| Mark::Position(Lsn::from(lsn));
        let (pinned, same) = (Some(Reason::PinnedBySession), Some(Reason::SameRequest));
        let (floor, higher) = (Some(Lsn::from(50)), Some(Timeline(4)));
        let bound = Duration::from_secs(1);
        let since = Instant::now();
        let on =
            |timeline, lsn| Some(Floor::At(Position { timeline: Timeline(timeline), lsn: Lsn::from(lsn) }));
        let any = Demand::ANY;
        let from_token = Demand { token: true, ..any };
        use Consistency::{BoundedStaleness, Eventual, Session, Strong};
        let wrote = Memory { wrote: true, ..Memory::default() };
        let cases = [
            ("nothing happened", Session, Memory::default(), any),
            ("strong", Strong, Memory::default(), Demand { primary: Some(Reason::Strong), ..any }),
            ("a bound", BoundedStaleness(bound), Memory::default(), Demand { bound: Some(bound), ..any }),
            ("it wrote", Session, wrote, Demand { primary: pinned, ..any }),
            ("it wrote, and does not care", Eventual, wrote, any),
            ("a token", Session, token(3, at(50)), Demand { floor, ..from_token }),
            ("a token and no care", Eventual, token(3, at(50)), any),
            (
                "a token and a bound",
                BoundedStaleness(bound),
                token(3, at(50)),
                Demand { floor, bound: Some(bound), ..from_token },
            ),
            (
                "a token of an older timeline",
                Session,
                token(2, at(50)),
                Demand { primary: pinned, ..from_token },
            ),
            (
                "a token of a newer timeline",
                Session,
                token(4, at(50)),
                Demand { primary: pinned, timeline: higher, ..from_token },
            ),
            (
                "a pin",
                Session,
                token(3, Mark::Pin(WALL.after(bound))),
                Demand { primary: pinned, ..from_token },
            ),
            ("a pin that is over", Session, token(3, Mark::Pin(WALL)), any),
            (
                "a node was lost",
                Eventual,
                Memory { floor: on(3, 60), ..Memory::default() },
                Demand { floor: Some(Lsn::from(60)), ..any },
            ),
            (
                "a node was lost after a token",
                Session,
                Memory { floor: on(3, 40), ..token(3, at(50)) },
                Demand { floor, ..from_token },
            ),
            (
                "a node was lost before a failover",
                Eventual,
                Memory { floor: on(2, 60), ..Memory::default() },
                Demand { primary: same, ..any },
            ),
            (
                "a node was lost just now",
                Eventual,
                Memory { floor: Some(Floor::PrimaryAfter(since)), ..Memory::default() },
                Demand { ask: Some(since), ..any },
            ),
            (
                "the primary has served",
                Eventual,
                Memory { on_primary: true, ..Memory::default() },
                Demand { primary: same, ..any },
            ),
        ];
        for (name, consistency, memory, expected) in cases {
            assert_eq!(demand(consistency, &memory, &topology(Some(3)), WALL), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn a_token_before_any_primary_is_known_waits_for_one() {
        let memory = token(3, Mark::Position(Lsn::from(50)));
        let demand = demand(Consistency::Session, &memory, &topology(None), WALL);
        assert_eq!((demand.primary, demand.timeline), (Some(Reason::PinnedBySession), Some(Timeline(3))));
    }
}
