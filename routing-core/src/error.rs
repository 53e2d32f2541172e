//! Why no connection was handed out, and what became of a write that was lost.

use std::sync::Arc;
use std::time::Duration;

use crate::decision::{Access, Refusals};
use crate::priority::Priority;

/// Why a request got no connection. Nothing of it was sent to any server.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No node may serve the read.
    #[error("no node can serve the read ({0})")]
    NoNode(Refusals),
    /// No node is proven to be the primary, and none became it in time.
    #[error("no node is proven to be the primary ({0})")]
    NoPrimary(Refusals),
    /// Several nodes claim to be the primary and nothing tells them apart.
    #[error("several nodes claim to be the primary: {0}; fence all but one of them")]
    AmbiguousPrimary(Claims),
    /// No replica can serve, and the primary runs as many reads for them as it may, or has begun as many in this second.
    #[error(
        "the primary takes over no more {priority} reads from replicas, its cap is {cap} at once ({refusals})"
    )]
    Overloaded {
        /// The cap for reads of normal priority.
        cap: u32,
        /// The read's.
        priority: Priority,
        /// Why no replica could serve.
        refusals: Refusals,
    },
    /// As many writes as allowed already wait for a primary.
    #[error("{limit} writes already wait for a primary")]
    TooManyWaiters {
        /// The limit.
        limit: u32,
    },
    /// The deadline for a connection passed.
    #[error("no connection for the {access} within {after:?} ({refusals})")]
    DeadlineExceeded {
        /// What it was for.
        access: Access,
        /// The deadline.
        after: Duration,
        /// Why no node served in that time.
        refusals: Refusals,
    },
    /// The node ceased to be the primary, or to answer, before anything was committed.
    #[error("{from} ceased to be the primary, or to answer, before anything was committed")]
    WriterChanged {
        /// The node that was the primary.
        from: Arc<str>,
    },
    /// The router was closed.
    #[error("the router is closed")]
    Closed,
}

impl RouteError {
    /// When a caller may try again: what `Retry-After` says. One second, or five while no primary is known.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::NoPrimary(_) | Self::AmbiguousPrimary(_) => Duration::from_secs(5),
            Self::NoNode(_)
            | Self::Overloaded { .. }
            | Self::TooManyWaiters { .. }
            | Self::DeadlineExceeded { .. }
            | Self::WriterChanged { .. }
            | Self::Closed => Duration::from_secs(1),
        }
    }

    /// One fixed word for metrics and for the `code` of an HTTP body.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoNode(_) => "no_node",
            Self::NoPrimary(_) => "no_primary",
            Self::AmbiguousPrimary(_) => "ambiguous_primary",
            Self::Overloaded { .. } => "overloaded",
            Self::TooManyWaiters { .. } => "too_many_waiters",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::WriterChanged { .. } => "writer_changed",
            Self::Closed => "closed",
        }
    }
}

/// Who claims to be the primary, and on which timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(pub Vec<(Arc<str>, crate::lsn::Timeline)>);

impl std::fmt::Display for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (node, timeline)) in self.0.iter().enumerate() {
            write!(f, "{}{node} on timeline {timeline}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The server that a new write connection reached is not one to write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotWritable {
    /// It is a standby.
    #[error("the server is in recovery: it is a standby")]
    InRecovery,
    /// It is out of recovery, and its sessions start read-only: promoted and not ready, or in maintenance.
    #[error("the server's sessions start read-only")]
    ReadOnly,
}

impl NotWritable {
    /// Checks what a server said of itself to [`pool::SESSION_SQL`](crate::pool::SESSION_SQL).
    ///
    /// # Errors
    /// Why it is not one to write to.
    pub fn check(in_recovery: bool, read_only: bool) -> Result<(), Self> {
        match (in_recovery, read_only) {
            (true, _) => Err(Self::InRecovery),
            (false, true) => Err(Self::ReadOnly),
            (false, false) => Ok(()),
        }
    }
}

/// A write whose outcome no one can know: it was sent, and the answer was lost. It may have been committed.
///
/// It is never repeated by the router. An application that must know reads its own data again on the primary, or makes
/// the write idempotent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what became of a write on {node} is not known ({why}): it may or may not have been committed")]
pub struct CommitUnknown {
    /// The node that it was sent to.
    pub node: Arc<str>,
    /// How the answer was lost, in the driver's words.
    pub why: Arc<str>,
}

impl CommitUnknown {
    /// Why the outcome of a commit is unknown that the server calls a success: somebody cancelled its wait for a synchronous
    /// standby. It is committed there, and lost with that server unless a standby has received it after all.
    pub const UNREPLICATED: &'static str = "its wait for a synchronous standby was cancelled";
}
