//! Why a node was not chosen.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::Fault;
use crate::lsn::Timeline;
use crate::primary::Doubt;

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
