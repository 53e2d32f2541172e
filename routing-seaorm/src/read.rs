//! The handle for reading.

use std::pin::Pin;

use async_trait::async_trait;
use routing_core::{Access, Consistency, Lease, Routed};
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StreamTrait,
};

use crate::backend::SeaOrm;
use crate::begin::{begin_sql, begins_transactions};
use crate::stream::{RoutedStream, rows};
use crate::transaction::RoutedTransaction;

/// Reads, on replicas. Each statement goes to a node that may serve it, and to another when that node fails it, as long
/// as the deadline allows. The statements of one request keep to one node while it serves.
///
/// It holds no connection; clones are cheap. The sessions behind it are read-only on the server: a write fails with
/// SQLSTATE 25006, also when the primary serves.
#[derive(Clone, Debug)]
pub struct ReadHandle(Routed<SeaOrm>);

impl ReadHandle {
    pub(crate) fn new(routed: Routed<SeaOrm>) -> Self {
        Self(routed)
    }

    /// The same request's reads with another consistency.
    #[must_use]
    pub fn with(&self, consistency: Consistency) -> Self {
        Self(self.0.with(consistency))
    }

    /// What it routes by.
    #[must_use]
    pub fn routed(&self) -> &Routed<SeaOrm> {
        &self.0
    }

    /// A READ ONLY transaction on one node, whatever access is asked for: on the primary, READ WRITE would undo the
    /// session's default. BEGIN is the first statement of the loop: a node that fails it is left for another.
    pub(crate) async fn begin_as(
        &self,
        isolation: Option<IsolationLevel>,
        _: Option<AccessMode>,
    ) -> Result<RoutedTransaction, DbErr> {
        let sql = begin_sql(isolation, Some(AccessMode::ReadOnly));
        let begin = async |lease: &mut Lease<SeaOrm>| lease.begin(&sql).await;
        let ((), lease) = self.0.run_read_keeping(begin).await?;
        Ok(RoutedTransaction::new(&self.0, lease, Access::Read))
    }
}

#[async_trait]
impl ConnectionTrait for ReadHandle {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.0.run_read(async |lease: &mut Lease<SeaOrm>| lease.execute_statement(&statement).await).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.0.run_read(async |lease: &mut Lease<SeaOrm>| lease.execute_text(sql).await).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.0.run_read(async |lease: &mut Lease<SeaOrm>| lease.query_one(&statement).await).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.0.run_read(async |lease: &mut Lease<SeaOrm>| lease.query_all(&statement).await).await
    }
}

impl StreamTrait for ReadHandle {
    type Stream<'a> = RoutedStream;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    /// The first row decides the node: until it is there another node can take over, afterwards an error is handed out.
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
            let ((first, rest), lease) = self.0.run_read_keeping(first_row).await?;
            let watch = self.0.watch(&lease);
            Ok(RoutedStream::new(first, rest, Some(lease), watch))
        })
    }
}

begins_transactions!(ReadHandle);
