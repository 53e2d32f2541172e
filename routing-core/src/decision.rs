//! Why a node was chosen, and why another was not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::fault::Fault;
use crate::lsn::Timeline;
use crate::primary::Doubt;
use crate::role::Role;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Its sessions are read-only on the server.
    Read,
    /// It is on the primary.
    Write,
}

impl Access {
    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a node was chosen. A bounded set, so that it can be a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The fewest requests in flight for its weight.
    LeastInFlight,
    /// The cheaper of two drawn at random.
    PowerOfTwoChoices,
    /// Its turn.
    RoundRobin,
    /// Drawn at random.
    Random,
    /// Drawn by weight.
    Weighted,
    /// A balancer of the application's own.
    Balanced,
    /// It served this request before, or nothing else can continue the request without going back in time.
    SameRequest,
    /// A replica that has replayed what the session has seen since the read began to wait for it.
    WaitedForReplay,
    /// All replicas exceed `max_staleness`; this one least.
    LeastStale,
    /// The read asked for the primary.
    Strong,
    /// An operator has all reads served by the primary.
    PrimaryOnly,
    /// The session has written in this request, or its token can only be honoured by the primary.
    PinnedBySession,
    /// What the session has seen is ahead of every replica.
    FallbackBehindToken,
    /// No replica could serve.
    FallbackNoReplica,
    /// Recovery cancelled the read on a replica, or no standby can run it.
    MovedToPrimary,
    /// Another replica keeps the read waiting for longer than most take; this one is asked the same.
    Hedge,
    /// The balancer's choice beyond the zone of this process: no replica there can serve, or all are busy.
    OtherZone,
    /// Its breaker refuses, and breakers may keep no more of the nodes away
    /// ([`max_ejected`](crate::BreakerConfig::max_ejected)).
    EjectionLimit,
    /// Its breaker refuses, and nobody else can serve: rather than failing, each node is tried once.
    LastResort,
    /// A write.
    Writer,
}

/// How many reasons there are, for tables indexed by them.
pub(crate) const REASONS: usize = 20;

impl Reason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; REASONS] = [
        Self::LeastInFlight,
        Self::PowerOfTwoChoices,
        Self::RoundRobin,
        Self::Random,
        Self::Weighted,
        Self::Balanced,
        Self::SameRequest,
        Self::WaitedForReplay,
        Self::LeastStale,
        Self::Strong,
        Self::PrimaryOnly,
        Self::PinnedBySession,
        Self::FallbackBehindToken,
        Self::FallbackNoReplica,
        Self::MovedToPrimary,
        Self::Hedge,
        Self::OtherZone,
        Self::EjectionLimit,
        Self::LastResort,
        Self::Writer,
    ];

    /// Whether the node was chosen in spite of its breaker.
    pub(crate) fn defies_breaker(self) -> bool {
        matches!(self, Self::EjectionLimit | Self::LastResort)
    }

    /// The reason's name in metrics, headers and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastInFlight => "least_in_flight",
            Self::PowerOfTwoChoices => "power_of_two_choices",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Weighted => "weighted",
            Self::Balanced => "balanced",
            Self::SameRequest => "same_request",
            Self::WaitedForReplay => "waited_for_replay",
            Self::PinnedBySession => "pinned_by_session",
            Self::FallbackBehindToken => "fallback_behind_token",
            Self::LeastStale => "least_stale",
            Self::Strong => "strong",
            Self::PrimaryOnly => "primary_only",
            Self::FallbackNoReplica => "fallback_no_replica",
            Self::MovedToPrimary => "moved_to_primary",
            Self::Hedge => "hedge",
            Self::OtherZone => "other_zone",
            Self::EjectionLimit => "ejection_limit",
            Self::LastResort => "last_resort",
            Self::Writer => "writer",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Which node served, as what, and why: what a span, a debug header and the status page show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The node's name.
    pub node: Arc<str>,
    /// Its role when it was chosen.
    pub role: Role,
    /// What it was chosen for.
    pub access: Access,
    /// Why it was chosen.
    pub reason: Reason,
}

/// Why a node may not serve a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// No probe has been answered since the router started.
    NeverSeen,
    /// It does not answer the monitor.
    Down {
        /// Why, in the prober's words.
        why: Arc<str>,
    },
    /// Its breaker is open for this much longer.
    BreakerOpen(Duration),
    /// It gets no new work.
    Draining,
    /// It is configured to serve no reads.
    NoReads,
    /// It has come back again and again; it must stay up for this much longer.
    Flapping(Duration),
    /// It is out of recovery on a timeline below the primary's: a deposed primary.
    Fenced {
        /// Its timeline.
        timeline: Timeline,
        /// The highest timeline of any accepted primary.
        current: Timeline,
    },
    /// It belongs to another cluster.
    OtherCluster,
    /// It is the same server as another node.
    Duplicate,
    /// It is on another timeline than the primary.
    OtherTimeline,
    /// It is out of recovery and not proven to be the primary.
    NotProven {
        /// The timeline that it claims to be the primary on.
        timeline: Option<Timeline>,
    },
    /// It alone claims to be the primary, and there is a reason not to believe it.
    Doubted {
        /// The timeline that it claims to be the primary on.
        timeline: Timeline,
        /// The reason.
        doubt: Doubt,
    },
    /// It is out of recovery, and its sessions start read-only: promoted and not ready, or in maintenance.
    ReadOnly {
        /// Its timeline.
        timeline: Option<Timeline>,
    },
    /// It is a standby; the request needs the primary.
    IsReplica,
    /// It may serve, and gave no connection before the deadline.
    NotReached,
    /// It is the primary; it serves reads only when no replica can.
    IsPrimary,
    /// It is a standby that receives no log.
    NotReceiving,
    /// How stale it is cannot be told.
    StalenessUnknown,
    /// It is staler than allowed.
    Stale {
        /// How stale it may be at most: its proven bound.
        bound: Duration,
        /// What is allowed.
        limit: Duration,
    },
    /// It has not replayed what the session has seen.
    BehindToken {
        /// How many bytes of the log it lacks; `None` when that cannot be told.
        bytes: Option<u64>,
    },
    /// The session has seen a later timeline.
    BelowToken {
        /// That timeline.
        timeline: Timeline,
    },
    /// It was stale and has not been fresh for long enough.
    Returning,
    /// This request tried it and met this fault.
    Tried(Fault),
    /// Its last confirmation as the primary is older than the writer lease.
    LeaseOver(Duration),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverSeen => f.write_str("not seen yet"),
            Self::Down { why } => write!(f, "down: {why}"),
            Self::BreakerOpen(left) => write!(f, "breaker open for {:.1} s more", left.as_secs_f64()),
            Self::Draining => f.write_str("draining"),
            Self::NoReads => f.write_str("configured to serve no reads"),
            Self::Flapping(left) => {
                write!(f, "came back again and again, must stay up for {:.1} s more", left.as_secs_f64())
            }
            Self::Fenced { timeline, current } => write!(f, "fenced: timeline {timeline} < {current}"),
            Self::OtherCluster => f.write_str("belongs to another cluster"),
            Self::Duplicate => f.write_str("the same server as a node before it"),
            Self::OtherTimeline => f.write_str("on another timeline than the primary"),
            Self::NotProven { timeline } => {
                write!(f, "claims to be the primary{}, unproven", on(*timeline))
            }
            Self::Doubted { timeline, doubt } => {
                write!(f, "claims to be the primary on timeline {timeline}, but {doubt}")
            }
            Self::ReadOnly { timeline } => {
                write!(f, "out of recovery{}, and read-only", on(*timeline))
            }
            Self::IsReplica => f.write_str("a replica"),
            Self::NotReached => f.write_str("may serve, and gave no connection in time"),
            Self::IsPrimary => f.write_str("the primary"),
            Self::NotReceiving => f.write_str("receives no log"),
            Self::StalenessUnknown => f.write_str("staleness unknown"),
            Self::Stale { bound, limit } => {
                write!(f, "stale {:.1} s > {:.1} s", bound.as_secs_f64(), limit.as_secs_f64())
            }
            Self::BehindToken { bytes: Some(bytes) } => write!(f, "behind token by {bytes} bytes"),
            Self::BehindToken { bytes: None } => f.write_str("behind token, or unproven"),
            Self::BelowToken { timeline } => {
                write!(f, "below timeline {timeline}, which the session has seen")
            }
            Self::Returning => f.write_str("was stale, not fresh for long enough"),
            Self::Tried(fault) => write!(f, "tried: {fault}"),
            Self::LeaseOver(age) => write!(f, "unconfirmed for {:.1} s", age.as_secs_f64()),
        }
    }
}

fn on(timeline: Option<Timeline>) -> String {
    timeline.map(|timeline| format!(" on timeline {timeline}")).unwrap_or_default()
}

/// Nodes with why each was refused: what an error carries and a page shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusals(pub Vec<(Arc<str>, Refusal)>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no node is known");
        }
        for (index, (node, refusal)) in self.0.iter().enumerate() {
            write!(f, "{}{node}: {refusal}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_indexed_in_order_and_named_apart() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        let mut names = Reason::ALL.map(Reason::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REASONS);
    }

    #[test]
    fn refusals_read_as_one_line() {
        let refusals = Refusals(vec![
            ("pg1".into(), Refusal::Down { why: "connection refused".into() }),
            (
                "pg2".into(),
                Refusal::Stale { bound: Duration::from_millis(3_200), limit: Duration::from_secs(1) },
            ),
            ("pg3".into(), Refusal::Fenced { timeline: Timeline(3), current: Timeline(4) }),
        ]);
        assert_eq!(
            refusals.to_string(),
            "pg1: down: connection refused; pg2: stale 3.2 s > 1.0 s; pg3: fenced: timeline 3 < 4"
        );
    }
}
