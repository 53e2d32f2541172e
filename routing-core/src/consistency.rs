//! How much a read may miss.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much a read may miss, in Cosmos DB's words, from strictest to loosest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The primary reads.
    Strong,
    /// For the client's own writes. Sessions carry no token yet, and a client without one is
    /// [`Eventual`](Self::Eventual): until then `Session` promises no more than that.
    #[default]
    Session,
    /// Nothing older than the duration, proven; else the primary reads. A bound below the monitor's
    /// `probe_interval` can hardly ever be proven, so the primary serves nearly all such reads.
    BoundedStaleness(#[serde(with = "humantime_serde")] Duration),
    /// Any node under the router's `max_staleness`.
    Eventual,
}

/// What a consistency level demands of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// No replica will do.
    Primary,
    /// The proven staleness must not exceed this.
    Bound(Duration),
    /// Under `max_staleness`, and the least stale replicas when all exceed it.
    Any,
}

impl Consistency {
    /// The one place that says what each level asks of a replica. A session carries no token yet, so `Session`
    /// demands what `Eventual` demands.
    pub(crate) fn demand(self) -> Demand {
        match self {
            Self::Strong => Demand::Primary,
            Self::BoundedStaleness(bound) => Demand::Bound(bound),
            Self::Session | Self::Eventual => Demand::Any,
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strong => f.write_str("strong"),
            Self::Session => f.write_str("session"),
            Self::BoundedStaleness(bound) => write!(f, "bounded staleness of {bound:?}"),
            Self::Eventual => f.write_str("eventual"),
        }
    }
}
