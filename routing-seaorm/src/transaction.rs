//! A transaction on one node.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use routing_core::{Access, CommitUnknown, Failure, Fault, Lease, LeaseWatch, Routed};
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StreamTrait, TransactionError, TransactionSession,
};

use crate::backend::SeaOrm;
use crate::begin::begins_transactions;
use crate::error::Error;
use crate::stream::{RoutedStream, rows};

/// A transaction: READ ONLY on one node when a read handle began it, on the primary when a write handle did.
///
/// It never moves: when its node is lost its statements fail. When another primary is accepted, a write transaction
/// ends with `RouteError::WriterChanged`, its COMMIT as unknown. Dropping it rolls back before the connection is used
/// again. `begin` on it makes a savepoint.
pub struct RoutedTransaction {
    shared: Arc<Shared>,
    /// 0 for the transaction, else the savepoint's number: each has its own, and an inner one a higher.
    savepoint: u32,
    open: bool,
}

struct Shared {
    lease: Lease<SeaOrm>,
    access: Access,
    /// From its beginning, so that a loss between two statements is not missed.
    watch: LeaseWatch,
    savepoints: Mutex<Savepoints>,
}

#[derive(Default)]
struct Savepoints {
    last: u32,
    /// Those that the server knows, outermost first.
    open: Vec<u32>,
    /// The outermost that was dropped without an end: rolled back to before the next statement.
    abandoned: Option<u32>,
}

impl Savepoints {
    /// One has ended, and with it all within it.
    fn close(&mut self, savepoint: u32) {
        self.open.retain(|open| *open < savepoint);
    }

    fn abandon(&mut self, savepoint: u32) {
        if self.open.contains(&savepoint) {
            self.abandoned = Some(self.abandoned.map_or(savepoint, |other| other.min(savepoint)));
        }
    }
}

impl RoutedTransaction {
    pub(crate) fn new(routed: &Routed<SeaOrm>, lease: Lease<SeaOrm>, access: Access) -> Self {
        let watch = routed.watch(&lease);
        let shared = Shared { lease, access, watch, savepoints: Mutex::default() };
        Self { shared: Arc::new(shared), savepoint: 0, open: true }
    }

    /// Commits after success, rolls back after failure.
    pub(crate) async fn conclude<T, E>(self, outcome: Result<T, E>) -> Result<T, TransactionError<E>> {
        match outcome {
            Ok(value) => self.commit().await.map(|()| value).map_err(TransactionError::Connection),
            Err(error) => {
                self.rollback().await.map_err(TransactionError::Connection)?;
                Err(TransactionError::Transaction(error))
            }
        }
    }

    /// Runs one step on the transaction's connection. A write transaction's step is dropped when another primary is
    /// accepted.
    async fn step<T>(&self, step: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        self.shared.roll_back_abandoned().await?;
        match self.shared.watch.unless_lost(pin!(step)).await {
            Some(Err(error)) if self.shared.is_lost_by(&error) => Err(self.shared.writer_changed()),
            Some(outcome) => outcome,
            None => Err(self.shared.writer_changed()),
        }
    }

    /// A savepoint. It has no characteristics of its own; these are ignored, as SeaORM does.
    async fn begin_as(&self, _: Option<IsolationLevel>, _: Option<AccessMode>) -> Result<Self, DbErr> {
        let savepoint = {
            let mut savepoints = self.shared.savepoints();
            savepoints.last += 1;
            savepoints.last
        };
        self.step(self.shared.lease.command(&format!("SAVEPOINT routing_{savepoint}"))).await?;
        self.shared.savepoints().open.push(savepoint);
        Ok(Self { shared: self.shared.clone(), savepoint, open: true })
    }
}

impl Shared {
    /// Whether a write transaction has lost its connection, and all that it did with it.
    fn is_lost_by(&self, error: &DbErr) -> bool {
        self.access == Access::Write && error.fault(self.access).is_some_and(Fault::ends_connection)
    }

    fn writer_changed(&self) -> DbErr {
        Error::from(self.watch.refusal(self.lease.node())).into()
    }

    fn savepoints(&self) -> MutexGuard<'_, Savepoints> {
        self.savepoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn roll_back_abandoned(&self) -> Result<(), DbErr> {
        let abandoned = self.savepoints().abandoned.take();
        match abandoned {
            Some(savepoint) => self.roll_back_to(savepoint).await,
            None => Ok(()),
        }
    }

    async fn roll_back_to(&self, savepoint: u32) -> Result<(), DbErr> {
        let sql = format!("ROLLBACK TO SAVEPOINT routing_{savepoint}; RELEASE SAVEPOINT routing_{savepoint}");
        let step = self.lease.command(&sql);
        self.watch.unless_lost(pin!(step)).await.unwrap_or_else(|| Err(self.writer_changed()))?;
        self.savepoints().close(savepoint);
        self.lease.session().goes_on();
        Ok(())
    }

    /// ROLLBACK of the whole transaction. A lost connection has rolled back by itself.
    async fn roll_back(&self) -> Result<(), DbErr> {
        if self.lease.is_lost() {
            return Ok(());
        }
        let step = self.lease.finish("ROLLBACK");
        self.watch.unless_lost(pin!(step)).await.unwrap_or(Ok(()))
    }

    /// COMMIT of the whole transaction. From the moment it is sent, a lost answer is an unknown outcome.
    async fn commit(&self) -> Result<(), DbErr> {
        if self.watch.is_over() {
            return Err(self.writer_changed());
        }
        if self.lease.is_lost() {
            // Nothing was sent after the loss, and the server rolls back what a lost session leaves.
            if self.access == Access::Write {
                return Err(self.writer_changed());
            }
            let why = "the connection was lost before COMMIT: nothing was committed".to_owned();
            return Err(DbErr::Conn(sea_orm::RuntimeErr::Internal(why)));
        }
        let why = match self.watch.unless_lost(pin!(self.lease.commit())).await {
            Some(Ok(())) if self.lease.session().is_unreplicated() => CommitUnknown::UNREPLICATED.to_owned(),
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => match error.fault(self.access) {
                Some(Fault::Unreachable | Fault::Unresponsive) if self.access == Access::Write => {
                    error.to_string()
                }
                _ => return Err(error),
            },
            None if self.access == Access::Read => return Err(self.writer_changed()),
            None => self.watch.why().to_owned(),
        };
        let node = self.lease.node().shared_name().clone();
        Err(Error::from(CommitUnknown { node, why: why.into() }).into())
    }
}

#[async_trait]
impl TransactionSession for RoutedTransaction {
    async fn commit(mut self) -> Result<(), DbErr> {
        self.shared.roll_back_abandoned().await?;
        self.open = false;
        if self.savepoint > 0 {
            let sql = format!("RELEASE SAVEPOINT routing_{}", self.savepoint);
            self.step(self.shared.lease.command(&sql)).await?;
            self.shared.savepoints().close(self.savepoint);
            return Ok(());
        }
        self.shared.commit().await
    }

    async fn rollback(mut self) -> Result<(), DbErr> {
        self.open = false;
        match self.savepoint {
            0 => self.shared.roll_back().await,
            savepoint => self.shared.roll_back_to(savepoint).await,
        }
    }
}

impl Drop for RoutedTransaction {
    fn drop(&mut self) {
        // The outermost needs nothing: the connection rolls back when its lease ends.
        if self.open && self.savepoint > 0 {
            self.shared.savepoints().abandon(self.savepoint);
        }
    }
}

#[async_trait]
impl ConnectionTrait for RoutedTransaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.step(self.shared.lease.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.step(self.shared.lease.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.step(self.shared.lease.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.step(self.shared.lease.query_all_raw(statement)).await
    }
}

impl StreamTrait for RoutedTransaction {
    type Stream<'a> = RoutedStream;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<RoutedStream, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            self.shared.roll_back_abandoned().await?;
            let rows = rows(self.shared.lease.share(), statement);
            Ok(RoutedStream::new(None, rows, None, self.shared.watch.clone()))
        })
    }
}

begins_transactions!(RoutedTransaction);

impl fmt::Debug for RoutedTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutedTransaction")
            .field("lease", &self.shared.lease)
            .field("savepoint", &self.savepoint)
            .finish_non_exhaustive()
    }
}
