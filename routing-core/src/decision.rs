//! Why a node was chosen.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use crate::refusal::{Refusal, Refusals};
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
}
