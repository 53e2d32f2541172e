//! The handle for reading.

use std::pin::Pin;

use async_trait::async_trait;
use routing_core::{Access, Consistency, Lease, Routed};
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StreamTrait, TransactionError, TransactionOptions, TransactionTrait,
};

use crate::backend::SeaOrm;
use crate::stream::{RoutedStream, rows};
use crate::transaction::{RoutedTransaction, begin_sql, run_transaction};

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

    /// PostgreSQL. It saves a qualified call where both traits that have this method are in scope.
    #[must_use]
    pub fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    /// `TransactionTrait::transaction` for an async closure: a READ ONLY transaction on one node.
    ///
    /// # Errors
    /// The closure's, or that of a step of the transaction.
    pub async fn transaction_async<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> AsyncFnOnce(&'c RoutedTransaction) -> Result<T, E> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        let transaction = self.begin().await.map_err(TransactionError::Connection)?;
        let outcome = callback(&transaction).await;
        transaction.conclude(outcome).await
    }

    /// BEGIN is the first statement of the loop: a node that fails it is left for another.
    async fn begin_read_only(&self, isolation: Option<IsolationLevel>) -> Result<RoutedTransaction, DbErr> {
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
        self.0.run_read(async |lease: &mut Lease<SeaOrm>| lease.execute_raw(statement.clone()).await).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.0.run_read(async |lease: &mut Lease<SeaOrm>| lease.execute_unprepared(sql).await).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.0.run_read(async |lease: &mut Lease<SeaOrm>| lease.query_one_raw(statement.clone()).await).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.0.run_read(async |lease: &mut Lease<SeaOrm>| lease.query_all_raw(statement.clone()).await).await
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

#[async_trait]
impl TransactionTrait for ReadHandle {
    type Transaction = RoutedTransaction;

    async fn begin(&self) -> Result<RoutedTransaction, DbErr> {
        self.begin_read_only(None).await
    }

    /// The access mode is READ ONLY whatever is asked: on the primary, READ WRITE would undo the session's default.
    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        _access_mode: Option<AccessMode>,
    ) -> Result<RoutedTransaction, DbErr> {
        self.begin_read_only(isolation_level).await
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<RoutedTransaction, DbErr> {
        self.begin_read_only(options.isolation_level).await
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c RoutedTransaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
            + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        run_transaction(self.begin().await, callback).await
    }

    async fn transaction_with_config<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c RoutedTransaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
            + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        run_transaction(self.begin_with_config(isolation_level, access_mode).await, callback).await
    }
}
