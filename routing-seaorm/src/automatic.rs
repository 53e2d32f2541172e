//! The handle that reads and writes.

use std::pin::Pin;

use async_trait::async_trait;
use routing_core::sql::StatementKind;
use routing_core::{Access, Consistency, Failure as _, Fault, Routed};
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StreamTrait,
};

use crate::backend::SeaOrm;
use crate::begin::begins_transactions;
use crate::fault::is_stale_plan;
use crate::read::ReadHandle;
use crate::stream::RoutedStream;
use crate::transaction::RoutedTransaction;
use crate::write::WriteHandle;

/// Reads on replicas and writes on the primary, told apart by the statement's text: see
/// [`Classifier`](routing_core::sql::Classifier) and [`SeaOrmOptions::classifier`](crate::SeaOrmOptions). After a write in the same request its reads follow to the primary.
///
/// A handler that took a `DatabaseConnection` moves onto it by changing the type. What the text does not show the standby
/// refuses without effect; the statement is then run on the primary, and statements of its shape go there at once from then
/// on. Transactions run on the primary, unless they are begun with `AccessMode::ReadOnly`. A statement that keeps state in
/// its session, such as SET, runs on the primary too; outside a transaction its effect ends with it.
///
/// A read that decides a write belongs in that write's transaction, whatever its text.
///
/// It holds no connection; clones are cheap.
#[derive(Clone, Debug)]
pub struct AutomaticHandle {
    read: ReadHandle,
    write: WriteHandle,
}

impl AutomaticHandle {
    pub(crate) fn new(routed: Routed<SeaOrm>) -> Self {
        Self { read: ReadHandle::new(routed.clone()), write: WriteHandle::new(routed) }
    }

    /// The same request's reads with another consistency.
    #[must_use]
    pub fn with(&self, consistency: Consistency) -> Self {
        Self { read: self.read.with(consistency), write: self.write.clone() }
    }

    /// What it routes by.
    #[must_use]
    pub fn routed(&self) -> &Routed<SeaOrm> {
        self.read.routed()
    }

    /// The handle for a statement that reads; `None` when it must go to the primary as a write.
    fn reader(&self, sql: &str) -> Option<ReadHandle> {
        let router = self.routed().router();
        let reads = router.options().classifier.classify(sql) == StatementKind::Read
            && !router.misrouted().knows(sql);
        reads.then(|| self.following())
    }

    /// Reads, which after a write follow it to the primary.
    fn following(&self) -> ReadHandle {
        match self.routed().session().wrote() {
            true => self.read.with(Consistency::Strong),
            false => self.read.clone(),
        }
    }

    /// Whether a read failed because it is none: without effect, so the primary may run it.
    fn is_no_read(&self, sql: &str, error: &DbErr) -> bool {
        let no_read = error.fault(Access::Read) == Some(Fault::Misrouted);
        // A plan that a migration has spoiled fails with a code that standbys use as well, and once.
        if no_read && !is_stale_plan(error) && self.routed().router().misrouted().remember(sql) {
            tracing::info!(%error, sql, "a statement that looks like a read needs the primary");
        }
        no_read
    }

    async fn begin_as(
        &self,
        isolation: Option<IsolationLevel>,
        access: Option<AccessMode>,
    ) -> Result<RoutedTransaction, DbErr> {
        match access {
            Some(AccessMode::ReadOnly) => self.following().begin_as(isolation, access).await,
            Some(AccessMode::ReadWrite) | None => self.write.begin_as(isolation, access).await,
        }
    }
}

#[async_trait]
impl ConnectionTrait for AutomaticHandle {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        if let Some(reader) = self.reader(&statement.sql) {
            match reader.execute_raw(statement.clone()).await {
                Err(error) if self.is_no_read(&statement.sql, &error) => {}
                outcome => return outcome,
            }
        }
        self.write.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        if let Some(reader) = self.reader(sql) {
            match reader.execute_unprepared(sql).await {
                Err(error) if self.is_no_read(sql, &error) => {}
                outcome => return outcome,
            }
        }
        self.write.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        if let Some(reader) = self.reader(&statement.sql) {
            match reader.query_one_raw(statement.clone()).await {
                Err(error) if self.is_no_read(&statement.sql, &error) => {}
                outcome => return outcome,
            }
        }
        self.write.query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        if let Some(reader) = self.reader(&statement.sql) {
            match reader.query_all_raw(statement.clone()).await {
                Err(error) if self.is_no_read(&statement.sql, &error) => {}
                outcome => return outcome,
            }
        }
        self.write.query_all_raw(statement).await
    }
}

impl StreamTrait for AutomaticHandle {
    type Stream<'a> = RoutedStream;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            if let Some(reader) = self.reader(&statement.sql) {
                match reader.stream_raw(statement.clone()).await {
                    Err(error) if self.is_no_read(&statement.sql, &error) => {}
                    outcome => return outcome,
                }
            }
            self.write.stream_raw(statement).await
        })
    }
}

begins_transactions!(AutomaticHandle);
