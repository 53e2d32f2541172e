//! How much a read may miss.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much a read may miss, in Cosmos DB's words, from strictest to loosest.
///
/// Whatever the level, the reads of one request do not go back in time: they keep to one node while it serves, and its
/// replacement must have at least what the primary had when it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The primary reads.
    Strong,
    /// Nothing that the client itself has written, or seen through a token: see [`SessionToken`](crate::SessionToken). A
    /// client without a token is [`Eventual`](Self::Eventual). A request that has written reads from the primary.
    #[default]
    Session,
    /// As [`Session`](Self::Session), and nothing older than the duration, proven; else the primary reads. A bound below
    /// the monitor's `probe_interval` can hardly ever be proven, so the primary serves nearly all such reads.
    BoundedStaleness(#[serde(with = "humantime_serde")] Duration),
    /// Any node under the router's `max_staleness`, whatever the client has written.
    Eventual,
}

impl Consistency {
    /// The proven staleness that a replica may have at most.
    pub(crate) fn bound(self) -> Option<Duration> {
        match self {
            Self::BoundedStaleness(bound) => Some(bound),
            Self::Strong | Self::Session | Self::Eventual => None,
        }
    }

    /// Whether what the client has written counts.
    pub(crate) fn is_of_session(self) -> bool {
        !matches!(self, Self::Eventual)
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
