//! What the handles of one request are made of.

use std::fmt;

use crate::backend::Backend;
use crate::consistency::Consistency;
use crate::error::RouteError;
use crate::lease::Lease;
use crate::priority::Priority;
use crate::router::Router;
use crate::session::Session;
use crate::work::Working;

/// A router, the session of one request, and the consistency of its reads: what a handle is made of. It holds no
/// connection.
pub struct Routed<B: Backend> {
    pub(crate) router: Router<B>,
    pub(crate) session: Session,
    pub(crate) consistency: Consistency,
    /// Its writes leave no token.
    pub(crate) untracked: bool,
    /// How much its reads matter when the primary cannot serve everybody.
    pub(crate) priority: Priority,
}

impl<B: Backend> Routed<B> {
    /// The router.
    #[must_use]
    pub fn router(&self) -> &Router<B> {
        &self.router
    }

    /// The request's session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// How much its reads may miss.
    #[must_use]
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }

    /// The same, for writes that no later read of the client needs to see, such as an audit row: they leave no token, and
    /// reads of the request do not follow them to the primary.
    #[must_use]
    pub fn untracked(&self) -> Self {
        Self { untracked: true, ..self.clone() }
    }

    /// The same, whose reads matter this much when the primary cannot serve everybody. Default:
    /// [`Normal`](Priority::Normal).
    #[must_use]
    pub fn prioritized(&self, priority: Priority) -> Self {
        Self { priority, ..self.clone() }
    }

    /// A request begins: it counts as one under way for as long as what this returns lives.
    pub(crate) fn begin(&self) -> Result<Working, RouteError> {
        self.router.work().begin().ok_or(RouteError::Closed)
    }

    /// Set before a write is sent.
    pub(crate) fn mark_wrote(&self, lease: &Lease<B>) {
        if !self.untracked {
            self.session.mark_wrote(self.router.written_in(lease.epoch()));
        }
    }

    /// The same with another consistency.
    #[must_use]
    pub fn with(&self, consistency: Consistency) -> Self {
        Self { consistency, ..self.clone() }
    }
}

impl<B: Backend> Clone for Routed<B> {
    fn clone(&self) -> Self {
        Self {
            router: self.router.clone(),
            session: self.session.clone(),
            consistency: self.consistency,
            untracked: self.untracked,
            priority: self.priority,
        }
    }
}

impl<B: Backend> fmt::Debug for Routed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routed")
            .field("session", &self.session)
            .field("consistency", &self.consistency)
            .finish_non_exhaustive()
    }
}
