//! A leased connection, and in what state it goes back.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};

use diesel::connection::get_default_instrumentation;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::{
    AnsiTransactionManager, AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection,
    TransactionManager,
};
use routing_core::pool::{CLEANUP_TIMEOUT, RESET_SQL};
use routing_core::wire::Wire;
use routing_core::{Access, Fault, Straggler, Usage};
use tokio::time::{Instant, timeout};

use crate::drain::{drain, end};
use crate::error::made_here;
use crate::pool::Pooled;

/// A connection out of a node's pool: by dereference an `AsyncPgConnection`.
///
/// Dropped with a statement unanswered that does not end within [`LAST_WORD`](routing_core::pool::LAST_WORD), it is cancelled
/// on the server and closed. Dropped with a transaction open, it is closed, which rolls back. Dropped with session state set,
/// it is reset before anyone else gets it.
pub struct Connection {
    /// `None` only while it is being dropped.
    object: Option<Pooled>,
    access: Access,
    /// The last step ran to its end: nothing is under way between Diesel and the socket.
    finished: bool,
}

impl Connection {
    pub(crate) fn new(mut object: Pooled, access: Access) -> Self {
        object.wire.begin_lease();
        // What the last user set to watch its own statements does not see the next one's.
        object.connection.set_instrumentation(get_default_instrumentation());
        Self { object: Some(object), access, finished: false }
    }

    fn object(&self) -> &Pooled {
        // Only `drop` takes it out.
        self.object.as_ref().expect("a connection holds its object until it is dropped")
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.object().wire
    }

    pub(crate) fn opened(&self) -> Instant {
        self.object().opened()
    }

    pub(crate) fn usage(&self) -> Usage {
        match self.wire().fault(self.access) {
            Some(fault) => Usage::Failed(fault),
            None if self.wire().is_busy() => Usage::Abandoned,
            None => Usage::Answered,
        }
    }

    /// What a failure says about the node, of which Diesel's error said `said`. The wire knows better, unless the failure
    /// happened elsewhere.
    pub(crate) fn diagnose(&self, said: Option<Fault>) -> Option<Fault> {
        match self.wire().fault(self.access) {
            Some(fault) => Some(fault),
            // Diesel could not even send the statement: a value that does not encode, or a transaction that it has lost
            // count of. The server owes nothing and knows nothing of it.
            None if said == Some(Fault::Unresponsive) && !self.wire().is_busy() => None,
            None => said,
        }
    }

    pub(crate) fn is_untouched(&self) -> bool {
        !self.wire().has_completed() && !self.wire().has_ended() && !self.wire().is_busy()
    }

    pub(crate) fn set_finished(&mut self) {
        self.finished = true;
    }

    pub(crate) fn abandoned(&mut self, straggler: Straggler) {
        if let Some(object) = &mut self.object {
            object.abandoned(straggler);
        }
    }

    /// Waits until the server owes nothing.
    pub(crate) async fn settle(&mut self) -> Result<(), DieselError> {
        if self.wire().is_busy() {
            // Allowed in a failed transaction as well.
            self.batch_execute("").await?;
        }
        Ok(())
    }

    /// Waits until the server owes nothing; what it says last can be that the statement failed after all, although Diesel
    /// has returned its row.
    pub(crate) async fn complete(&mut self) -> Result<(), DieselError> {
        self.settle().await?;
        if self.wire().failed_late() {
            let message = "the server failed the statement after its first row";
            return Err(made_here(DatabaseErrorKind::Unknown, message));
        }
        Ok(())
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
        let Some(mut object) = self.object.take() else { return };
        let wire = &object.wire;
        let over = wire.has_ended() || wire.fault(self.access).is_some_and(Fault::ends_connection);
        let settled = self.finished && !wire.is_busy();
        let broken = AnsiTransactionManager::is_broken_transaction_manager(&mut object.connection);
        let wire = &object.wire;
        let clean =
            settled && !broken && !wire.in_transaction() && !wire.keeps_state() && !wire.spoiled_statement();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !over && !clean => {
                runtime.spawn(restore(object, settled));
            }
            Ok(_) if !over => drop(object),
            // Dropping what was taken out closes it.
            _ => drop(object.discard()),
        }
    }
}

/// Gives a connection back once nothing is under way on it, as it was at its start. One in a transaction is closed, since
/// Diesel counts transactions on its side as well and cannot be told that one was rolled back behind it.
async fn restore(mut object: Pooled, settled: bool) {
    if AnsiTransactionManager::is_broken_transaction_manager(&mut object.connection) {
        return end(object).await;
    }
    if !settled {
        let Some(drained) = drain(object).await else { return };
        object = drained;
    }
    if object.wire.in_transaction() || object.wire.spoiled_statement() {
        return drop(object.discard());
    }
    if object.wire.keeps_state() {
        let sql = match &object.restore {
            Some(restore) => format!("{RESET_SQL}; {restore}").into(),
            None => Cow::Borrowed(RESET_SQL),
        };
        match timeout(CLEANUP_TIMEOUT, object.connection.batch_execute(&sql)).await {
            Ok(Ok(())) => object.wire.was_reset(),
            failed => {
                tracing::debug!(?failed, "a connection could not be reset and is closed");
                return drop(object.discard());
            }
        }
    }
    drop(object);
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("access", &self.access).finish_non_exhaustive()
    }
}
