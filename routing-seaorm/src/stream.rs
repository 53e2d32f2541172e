//! Rows that are still being read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{BoxStream, Stream, StreamExt};
use routing_core::{Failure, Fault, Lease};
use sea_orm::{DbErr, QueryResult, Statement};

use crate::backend::SeaOrm;
use crate::connection::{Connection, prepared};
use crate::error::wrap;

/// A stream of rows that owns its connection. Dropping it before its end closes the connection and ends the statement
/// on the server.
pub struct RoutedStream {
    first: Option<Result<QueryResult, DbErr>>,
    rest: Rows,
    /// Reported when the rows end; held until then. `None` within a transaction, which has its own.
    lease: Option<Lease<SeaOrm>>,
    access: routing_core::Access,
}

impl RoutedStream {
    pub(crate) fn new(
        first: Option<Result<QueryResult, DbErr>>,
        rest: Rows,
        lease: Option<Lease<SeaOrm>>,
        access: routing_core::Access,
    ) -> Self {
        Self { first, rest, lease, access }
    }
}

impl Stream for RoutedStream {
    type Item = Result<QueryResult, DbErr>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let next = self.rest.0.poll_next_unpin(context);
        let fault: Option<Option<Fault>> = match &next {
            Poll::Ready(None) => Some(None),
            Poll::Ready(Some(Err(error))) => Some(Failure::<SeaOrm>::fault(error, self.access)),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => None,
        };
        if let Some(fault) = fault
            && let Some(lease) = self.lease.take()
        {
            lease.end(fault);
        }
        next
    }
}

impl fmt::Debug for RoutedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutedStream").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// The rows of one statement, as they come.
pub(crate) struct Rows(BoxStream<'static, Result<QueryResult, DbErr>>);

impl Rows {
    pub(crate) async fn next(&mut self) -> Option<Result<QueryResult, DbErr>> {
        self.0.next().await
    }
}

/// Runs a statement on a connection and yields its rows.
pub(crate) fn rows(connection: Connection, statement: Statement) -> Rows {
    Rows(Box::pin(async_stream::stream! {
        let mut open = match connection.open_owned(&statement.sql).await {
            Ok(open) => open,
            Err(error) => {
                yield Err(error);
                return;
            }
        };
        let answered = open.answered();
        let mut rows = prepared(&statement).fetch(open.connection());
        loop {
            match rows.next().await {
                Some(Ok(row)) => yield Ok(QueryResult::from(row)),
                Some(Err(error)) => {
                    answered(Some(&error));
                    yield Err(wrap(error));
                    return;
                }
                None => {
                    answered(None);
                    return;
                }
            }
        }
    }))
}
