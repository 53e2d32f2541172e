//! What is known of a connection's session on the server, and how it goes back to the pool.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use routing_core::pool::{CLEANUP_TIMEOUT, RESET_SQL};
use routing_core::sql::{self, Answers};
use routing_core::{Fault, Usage};
use sea_orm::{DbErr, RuntimeErr};
use tokio::time::timeout;

use crate::drain::drain;
use crate::fault::{ends_connection, spoils_statement};
use crate::notice::listen;
use crate::pool::{Physical, Pooled, terminate};

thread_local! {
    static KEEPS_STATE: Answers<fn(&str) -> bool, bool> = const { Answers::to(sql::keeps_session_state) };
}

/// [`sql::keeps_session_state`], from memory for a text that comes again.
fn keeps_session_state(sql: &str) -> bool {
    let answer = KEEPS_STATE.try_with(|answers| answers.about(sql));
    // While the thread ends nothing is remembered any more.
    answer.unwrap_or_else(|_| sql::keeps_session_state(sql))
}

/// The state of one session during one lease.
#[derive(Default)]
pub(crate) struct Session {
    /// A statement was sent and its answer has not been read to the end.
    busy: AtomicBool,
    /// The driver or the server ended the connection.
    lost: AtomicBool,
    /// One of its prepared statements is of no more use: it is closed when it comes back.
    spoiled: AtomicBool,
    /// Session state may have been set.
    dirty: AtomicBool,
    /// A transaction is open.
    transaction: AtomicBool,
    /// A statement has failed in it: the server would answer COMMIT with a rollback, and call that a success.
    failed: AtomicBool,
    /// Rows are still being read.
    streaming: AtomicBool,
    /// The last statement's rows were, or are, read one by one.
    streamed: AtomicBool,
    /// The server ended the wait of a COMMIT for a synchronous standby.
    unreplicated: AtomicBool,
}

impl Session {
    pub(crate) fn usage(&self) -> Usage {
        if self.is_lost() {
            Usage::Failed(Fault::Unreachable)
        } else if self.busy.load(Relaxed) {
            Usage::Abandoned
        } else {
            Usage::Answered
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    pub(crate) fn set_transaction(&self, open: bool) {
        self.transaction.store(open, Relaxed);
        self.failed.store(false, Relaxed);
    }

    /// Whether a statement has failed in the open transaction.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// The transaction goes on: it went back to a savepoint from before the failure.
    pub(crate) fn goes_on(&self) {
        self.failed.store(false, Relaxed);
    }

    /// Runs a step that may commit, and notes whether the server ended its wait for a standby.
    pub(crate) async fn listen<T>(&self, step: impl Future<Output = T>) -> T {
        let (outcome, unreplicated) = listen(step).await;
        self.unreplicated.fetch_or(unreplicated, Relaxed);
        outcome
    }

    pub(crate) fn is_unreplicated(&self) -> bool {
        self.unreplicated.load(Relaxed)
    }

    pub(crate) fn set_streaming(&self, streaming: bool) {
        self.streaming.store(streaming, Relaxed);
        self.streamed.fetch_or(streaming, Relaxed);
    }

    /// Refuses a statement while rows of another are being read: it would wait for them, and they for their reader.
    pub(crate) fn refuse_while_streaming(&self) -> Result<(), DbErr> {
        if self.streaming.load(Relaxed) {
            let message =
                "rows of a stream on this connection are still to be read: read them, or drop the stream";
            return Err(DbErr::Conn(RuntimeErr::Internal(message.to_owned())));
        }
        Ok(())
    }

    /// Looks at a statement before it is sent.
    pub(crate) fn note(&self, sql: &str) {
        if keeps_session_state(sql) {
            self.dirty.store(true, Relaxed);
            // Text of the caller's own may have begun a transaction as well.
            if sql::may_begin_transaction(sql) {
                self.transaction.store(true, Relaxed);
            }
        }
    }

    /// A statement is about to be sent. Until it is [`answered`](Self::answered) the session counts as busy, so that a
    /// dropped future leaves it marked.
    pub(crate) fn occupy(&self) -> Result<(), DbErr> {
        if self.lost.load(Relaxed) || self.busy.swap(true, Relaxed) {
            let message =
                "the connection was lost, or left in the middle of a statement; it takes no more statements";
            return Err(DbErr::Conn(RuntimeErr::Internal(message.to_owned())));
        }
        self.streamed.store(false, Relaxed);
        Ok(())
    }

    /// The answer was read to its end, or an error came instead.
    pub(crate) fn answered(&self, error: Option<&sqlx::Error>) {
        if error.is_some_and(ends_connection) {
            self.lost.store(true, Relaxed);
        }
        if error.is_some_and(spoils_statement) {
            self.spoiled.store(true, Relaxed);
        }
        if error.is_some_and(|error| error.as_database_error().is_some()) && self.transaction.load(Relaxed) {
            self.failed.store(true, Relaxed);
        }
        self.busy.store(false, Relaxed);
    }

    /// Ends the lease: the connection goes back as it was, is restored first, or is closed.
    pub(crate) fn give_back(&self, object: Pooled) {
        let (busy, transaction, dirty) =
            (self.busy.load(Relaxed), self.transaction.load(Relaxed), self.dirty.load(Relaxed));
        match tokio::runtime::Handle::try_current() {
            // Dropping what was taken out closes it.
            _ if self.is_lost() || self.spoiled.load(Relaxed) && !busy => drop(object.discard()),
            // What a stream has still to bring may have no end; a statement of no more use is not kept.
            Ok(runtime) if busy && (self.streamed.load(Relaxed) || self.spoiled.load(Relaxed)) => {
                runtime.spawn(terminate(object));
            }
            Ok(runtime) if busy => {
                runtime.spawn(async move {
                    if let Some(object) = drain(object).await {
                        restore(object, transaction, dirty).await;
                    }
                });
            }
            Ok(runtime) if transaction || dirty => {
                runtime.spawn(restore(object, transaction, dirty));
            }
            Err(_) if busy || transaction || dirty => drop(object.discard()),
            _ => drop(object),
        }
    }
}

/// Brings a connection back to how it started and gives it back; closes it when that fails.
async fn restore(mut object: Pooled, transaction: bool, dirty: bool) {
    let restoring = async {
        let Physical { connection, restore, .. } = &mut *object;
        if transaction {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
        }
        if dirty {
            sqlx::raw_sql(RESET_SQL).execute(&mut *connection).await?;
            if let Some(restore) = restore {
                sqlx::raw_sql(*restore).execute(&mut *connection).await?;
            }
        }
        Ok::<_, sqlx::Error>(())
    };
    match timeout(CLEANUP_TIMEOUT, restoring).await {
        Ok(Ok(())) => drop(object),
        failed => {
            tracing::debug!(?failed, "a connection could not be reset and is closed");
            drop(object.discard());
        }
    }
}
