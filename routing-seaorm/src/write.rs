//! The handle for writing.

use std::pin::Pin;

use async_trait::async_trait;
use routing_core::{Access, Lease, Routed};
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StreamTrait,
};

use crate::backend::SeaOrm;
use crate::begin::{begin_sql, begins_transactions};
use crate::stream::{RoutedStream, rows};
use crate::transaction::RoutedTransaction;

/// Writes, on the proven primary; reads on it see them at once. Without a proven primary a statement waits a bounded
/// time, then fails. A statement whose answer is lost is not repeated: see [`is_commit_unknown`](crate::is_commit_unknown).
///
/// It holds no connection; clones are cheap.
#[derive(Clone, Debug)]
pub struct WriteHandle(Routed<SeaOrm>);

impl WriteHandle {
    pub(crate) fn new(routed: Routed<SeaOrm>) -> Self {
        Self(routed)
    }

    /// The same for writes that the client needs not see in its next reads, such as an audit row: they leave no token.
    #[must_use]
    pub fn untracked(&self) -> Self {
        Self(self.0.untracked())
    }

    /// What it routes by.
    #[must_use]
    pub fn routed(&self) -> &Routed<SeaOrm> {
        &self.0
    }

    /// A transaction on the primary.
    pub(crate) async fn begin_as(
        &self,
        isolation: Option<IsolationLevel>,
        access: Option<AccessMode>,
    ) -> Result<RoutedTransaction, DbErr> {
        let sql = begin_sql(isolation, access);
        let writes = access != Some(AccessMode::ReadOnly);
        let begin = async |lease: &mut Lease<SeaOrm>| match writes {
            true => lease.begin_writing(&sql).await,
            false => lease.begin(&sql).await,
        };
        let lease = self.0.acquire_write_after::<DbErr, _>(begin).await?;
        Ok(RoutedTransaction::new(&self.0, lease, Access::Write))
    }
}

#[async_trait]
impl ConnectionTrait for WriteHandle {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.0
            .run_statement(async |lease: &mut Lease<SeaOrm>| {
                lease.session().listen(lease.execute_statement(&statement)).await
            })
            .await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.0
            .run_statement(async |lease: &mut Lease<SeaOrm>| {
                lease.session().listen(lease.execute_text(sql)).await
            })
            .await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.0
            .run_statement(async |lease: &mut Lease<SeaOrm>| {
                lease.session().listen(lease.query_one(&statement)).await
            })
            .await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.0
            .run_statement(async |lease: &mut Lease<SeaOrm>| {
                lease.session().listen(lease.query_all(&statement)).await
            })
            .await
    }
}

impl StreamTrait for WriteHandle {
    type Stream<'a> = RoutedStream;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let first_row = async |lease: &mut Lease<SeaOrm>| {
                let mut rest = rows(lease.share(), statement.clone());
                let first = rest.next().await.transpose()?;
                Ok::<_, DbErr>((first.map(Ok), rest))
            };
            let ((first, rest), lease) = self.0.run_statement_keeping(first_row).await?;
            let watch = self.0.watch(&lease);
            Ok(RoutedStream::new(first, rest, Some(lease), watch))
        })
    }
}

begins_transactions!(WriteHandle);
