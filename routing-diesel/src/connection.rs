//! A leased connection, and in what state it goes back.

use std::fmt;
use std::ops::{Deref, DerefMut};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use routing_core::pool::{CLEANUP_TIMEOUT, RESET_SQL};
use routing_core::{Access, Fault, Usage};

use crate::pool::{Pooled, terminate};

/// A connection out of a node's pool: by dereference an `AsyncPgConnection`.
///
/// Dropped with a statement unanswered, it is cancelled on the server and closed. Dropped with a transaction open, it is
/// closed, which rolls back. Dropped with session state set, it is reset before anyone else gets it.
pub struct Connection {
    /// `None` only while it is being dropped.
    object: Option<Pooled>,
    access: Access,
}

impl Connection {
    pub(crate) fn new(object: Pooled, access: Access) -> Self {
        object.wire.begin_lease();
        Self { object: Some(object), access }
    }

    fn object(&self) -> &Pooled {
        // Only `drop` takes it out.
        self.object.as_ref().expect("a connection holds its object until it is dropped")
    }

    pub(crate) fn usage(&self) -> Usage {
        let wire = &self.object().wire;
        match self.fault() {
            Some(fault) => Usage::Failed(fault),
            None if wire.is_busy() => Usage::Abandoned,
            None => Usage::Answered,
        }
    }

    /// What the server said on it during this lease.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.object().wire.fault(self.access)
    }

    pub(crate) fn is_untouched(&self) -> bool {
        !self.object().wire.has_completed()
    }
}

impl Deref for Connection {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.object().connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        let object = self.object.as_mut();
        &mut object.expect("a connection holds its object until it is dropped").connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        let wire = &object.wire;
        let ended = self.access_fault(&object).is_some_and(Fault::ends_connection);
        let (busy, transaction, dirty) = (wire.is_busy(), wire.in_transaction(), wire.keeps_state());
        match tokio::runtime::Handle::try_current() {
            // Dropping what was taken out closes it.
            _ if ended => drop(object.discard()),
            Ok(runtime) if busy => {
                runtime.spawn(terminate(object.discard()));
            }
            // Diesel counts transactions on its side as well, and cannot be told that one was rolled back behind it.
            _ if busy || transaction => drop(object.discard()),
            Ok(runtime) if dirty => {
                runtime.spawn(restore(object));
            }
            Err(_) if dirty => drop(object.discard()),
            _ => drop(object),
        }
    }
}

impl Connection {
    fn access_fault(&self, object: &Pooled) -> Option<Fault> {
        object.wire.fault(self.access)
    }
}

/// Brings a connection back to how it started and gives it back; closes it when that fails.
async fn restore(mut object: Pooled) {
    match tokio::time::timeout(CLEANUP_TIMEOUT, object.connection.batch_execute(RESET_SQL)).await {
        Ok(Ok(())) => drop(object),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection could not be reset and is closed");
            drop(object.discard());
        }
        Err(_) => {
            tracing::debug!("resetting a connection took too long; it is closed");
            drop(object.discard());
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("access", &self.access).finish_non_exhaustive()
    }
}
