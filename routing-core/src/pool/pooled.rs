//! A connection out of a pool.

use std::fmt;

use deadpool::managed::Object;
use tokio::time::Instant;

use super::{Connector, Keeper};
use crate::straggler::Straggler;

/// So often one connection may be. A statement that was dropped while it was prepared stays on the server, where no driver
/// knows it any more, for as long as its connection: no more of these than sqlx keeps by default.
pub(super) const MOST_DRAINED: u32 = 100;

/// A connection of a pool. Dropping it gives it back; [`discard`](Self::discard) takes it out.
pub struct Pooled<C: Connector> {
    object: Object<Keeper<C>>,
    /// What is still at work on it. It goes with the connection.
    straggler: Option<Straggler>,
}

impl<C: Connector> Pooled<C> {
    pub(super) fn new(object: Object<Keeper<C>>) -> Self {
        Self { object, straggler: None }
    }

    /// When it was opened.
    #[must_use]
    pub fn opened(&self) -> Instant {
        self.object.opened
    }

    /// Its lease was dropped while a statement ran, which stays in flight until it is [`drained`](Self::drained) or the
    /// connection goes.
    pub fn abandoned(&mut self, straggler: Straggler) {
        self.straggler = Some(straggler);
    }

    /// An answer that nobody read was waited for. `None`: once too often, and the connection is closed.
    #[must_use]
    pub fn drained(mut self) -> Option<Self> {
        self.straggler = None;
        self.object.drained += 1;
        if self.object.drained < MOST_DRAINED {
            return Some(self);
        }
        drop(self.discard());
        None
    }

    /// Takes the connection out of the pool, which may open another in its place.
    #[must_use]
    pub fn discard(self) -> C::Connection {
        Object::take(self.object).connection
    }
}

impl<C: Connector> std::ops::Deref for Pooled<C> {
    type Target = C::Connection;

    fn deref(&self) -> &C::Connection {
        &self.object.connection
    }
}

impl<C: Connector> std::ops::DerefMut for Pooled<C> {
    fn deref_mut(&mut self) -> &mut C::Connection {
        &mut self.object.connection
    }
}

impl<C: Connector> fmt::Debug for Pooled<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").finish_non_exhaustive()
    }
}
