//! A leased connection: what runs on it, and in what state it goes back.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use routing_core::{NotWritable, Straggler, Usage};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard};
use tokio::time::Instant;

use crate::error::wrap;
use crate::pool::Pooled;
use crate::session::Session;

/// A connection out of a node's pool. It implements SeaORM's `ConnectionTrait`; statements on it are not repeated.
///
/// Dropped with a statement unanswered that does not end within [`LAST_WORD`](routing_core::pool::LAST_WORD), it is closed
/// and its server process ended. Dropped with a transaction open or with session state set, it is rolled back and reset before
/// anyone else gets it.
pub struct Connection(Arc<Held>);

struct Held {
    object: Arc<Mutex<Option<Pooled>>>,
    opened: Instant,
    session: Session,
}

impl Connection {
    pub(crate) fn new(object: Pooled) -> Self {
        let opened = object.opened();
        let object = Arc::new(Mutex::new(Some(object)));
        Self(Arc::new(Held { object, opened, session: Session::default() }))
    }

    pub(crate) fn usage(&self) -> Usage {
        self.0.session.usage()
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.0.session.is_lost()
    }

    pub(crate) fn session(&self) -> &Session {
        &self.0.session
    }

    pub(crate) fn opened(&self) -> Instant {
        self.0.opened
    }

    pub(crate) fn abandoned(&self, straggler: Straggler) {
        // Where a stream has the connection, its reader goes on.
        if let Some(object) = self.0.object.try_lock().ok().as_mut().and_then(|object| object.as_mut()) {
            object.abandoned(straggler);
        }
    }

    /// The same connection, for a stream of rows that its lease outlives.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// Runs `BEGIN …`; from now on a drop rolls back.
    pub(crate) async fn begin(&self, sql: &str) -> Result<(), DbErr> {
        self.0.session.set_transaction(true);
        self.command(sql).await
    }

    /// The same for a transaction that is to write. A server whose sessions have become read-only, as one that hands over to
    /// its successor, would begin it all the same and refuse its first statement: here it is refused at once.
    pub(crate) async fn begin_writing(&self, sql: &str) -> Result<(), DbErr> {
        self.0.session.set_transaction(true);
        let sql = format!("{sql}; SHOW transaction_read_only");
        let row = {
            let mut open = self.open().await?;
            let outcome = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(open.connection()).await;
            open.answered(outcome).map_err(wrap)?
        };
        let read_only: String = row.try_get(0).map_err(wrap)?;
        if read_only == "on" {
            self.finish("ROLLBACK").await?;
            return Err(wrap(sqlx::Error::AnyDriverError(Box::new(NotWritable::ReadOnly))));
        }
        Ok(())
    }

    /// Runs COMMIT or ROLLBACK, which end the transaction even when they fail.
    pub(crate) async fn finish(&self, sql: &str) -> Result<(), DbErr> {
        let outcome = self.command(sql).await;
        if outcome.is_ok() {
            self.0.session.set_transaction(false);
        }
        outcome
    }

    /// COMMIT. The server would answer that of a transaction in which a statement has failed with a rollback, and call it a
    /// success; here it is an error. Whether the transaction still stands the server is asked: it may have gone back to a
    /// savepoint of the caller's own.
    pub(crate) async fn commit(&self) -> Result<(), DbErr> {
        if self.0.session.has_failed() {
            if self.command("SELECT 1").await.is_err() {
                if !self.is_lost() {
                    self.finish("ROLLBACK").await?;
                }
                let why =
                    "a statement failed in the transaction: it was rolled back, not committed".to_owned();
                return Err(DbErr::Exec(RuntimeErr::Internal(why)));
            }
            self.0.session.goes_on();
        }
        self.0.session.listen(self.finish("COMMIT")).await
    }

    /// Runs a command of this crate's own, by the simple protocol: one round trip.
    pub(crate) async fn command(&self, sql: &str) -> Result<(), DbErr> {
        let mut open = self.open().await?;
        let outcome = sqlx::raw_sql(AssertSqlSafe(sql)).execute(open.connection()).await;
        open.answered(outcome).map(drop).map_err(wrap)
    }

    /// The physical connection for one statement. Until [`Open::answered`] it counts as busy, so that a dropped future
    /// leaves it marked.
    async fn open(&self) -> Result<Open<'_>, DbErr> {
        self.0.session.refuse_while_streaming()?;
        let guard = self.0.object.lock().await;
        self.0.session.occupy()?;
        Ok(Open { guard, session: &self.0.session })
    }

    pub(crate) async fn open_owned(&self, sql: &str) -> Result<OpenRows, DbErr> {
        self.0.session.note(sql);
        self.0.session.refuse_while_streaming()?;
        let guard = self.0.object.clone().lock_owned().await;
        self.0.session.occupy()?;
        self.0.session.set_streaming(true);
        Ok(OpenRows { guard, held: self.0.clone() })
    }
}

struct Open<'a> {
    guard: MutexGuard<'a, Option<Pooled>>,
    session: &'a Session,
}

impl Open<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        physical(&mut self.guard)
    }

    fn answered<T>(&self, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.session.answered(outcome.as_ref().err());
        outcome
    }
}

/// The physical connection for rows that are still to be read. It counts as busy until they are.
pub(crate) struct OpenRows {
    guard: OwnedMutexGuard<Option<Pooled>>,
    held: Arc<Held>,
}

impl OpenRows {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        physical(&mut self.guard)
    }

    /// What to call when the last row was read, or an error came instead.
    pub(crate) fn answered(&self) -> impl Fn(Option<&sqlx::Error>) + Send + 'static {
        let held = self.held.clone();
        move |error| held.session.answered(error)
    }
}

impl Drop for OpenRows {
    fn drop(&mut self) {
        self.held.session.set_streaming(false);
    }
}

fn physical(object: &mut Option<Pooled>) -> &mut PgConnection {
    // Only `Held::drop` takes it out.
    &mut object.as_mut().expect("a connection holds its object until it is dropped").connection
}

/// What the protocol can carry: it counts parameters with 16 bits. Beyond that sqlx reports a broken protocol, as it does
/// when the server's answer makes no sense.
const MOST_PARAMETERS: usize = 65_535;

/// Refuses a statement that cannot be sent.
pub(crate) fn sendable(statement: &Statement) -> Result<(), DbErr> {
    let count = statement.values.as_ref().map_or(0, |values| values.0.len());
    if count > MOST_PARAMETERS {
        let message =
            format!("the statement has {count} parameters; PostgreSQL takes {MOST_PARAMETERS} at most");
        return Err(DbErr::Query(RuntimeErr::Internal(message)));
    }
    Ok(())
}

/// A statement as sqlx takes it.
pub(crate) fn prepared(statement: &Statement) -> sqlx::query::Query<'_, Postgres, SqlxValues> {
    let values = statement.values.clone().unwrap_or(sea_orm::Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

/// The statements, for those who keep theirs: a read that moves to another node sends it again.
impl Connection {
    pub(crate) async fn execute_statement(&self, statement: &Statement) -> Result<ExecResult, DbErr> {
        sendable(statement)?;
        self.0.session.note(&statement.sql);
        let mut open = self.open().await?;
        let outcome = prepared(statement).execute(open.connection()).await;
        let outcome = open.answered(outcome);
        outcome.map(ExecResult::from).map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error))))
    }

    pub(crate) async fn execute_text(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.0.session.note(sql);
        let mut open = self.open().await?;
        let outcome = open.connection().execute(AssertSqlSafe(sql)).await;
        let outcome = open.answered(outcome);
        outcome.map(ExecResult::from).map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error))))
    }

    pub(crate) async fn query_one(&self, statement: &Statement) -> Result<Option<QueryResult>, DbErr> {
        sendable(statement)?;
        self.0.session.note(&statement.sql);
        let mut open = self.open().await?;
        let outcome = prepared(statement).fetch_optional(open.connection()).await;
        open.answered(outcome).map(|row| row.map(QueryResult::from)).map_err(wrap)
    }

    pub(crate) async fn query_all(&self, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        sendable(statement)?;
        self.0.session.note(&statement.sql);
        let mut open = self.open().await?;
        let outcome = prepared(statement).fetch_all(open.connection()).await;
        open.answered(outcome).map(|rows| rows.into_iter().map(QueryResult::from).collect()).map_err(wrap)
    }
}

#[async_trait]
impl ConnectionTrait for Connection {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.execute_statement(&statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.execute_text(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.query_one(&statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.query_all(&statement).await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Its users hold an `Arc` of it, so none is left.
        if let Some(object) = self.object.try_lock().ok().and_then(|mut object| object.take()) {
            self.session.give_back(object);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
