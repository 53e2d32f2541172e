//! Rows that are still being read.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{BoxStream, Stream, StreamExt};
use routing_core::{Access, CommitUnknown, Failure, Fault, Lease, LeaseWatch, RouteError};
use sea_orm::{DbErr, QueryResult, RuntimeErr, Statement};

use crate::backend::SeaOrm;
use crate::connection::{Connection, prepared, sendable};
use crate::error::{Error, wrap};

/// A stream of rows that owns its connection. Dropping it before its end closes the connection and ends the statement
/// on the server. It ends with an error when its node is declared dead, or is no longer the one to write to; rows that
/// were lost of a statement on a write handle make it `CommitUnknown`.
pub struct RoutedStream {
    first: Option<Result<QueryResult, DbErr>>,
    rest: Option<Rows>,
    /// Reported when the rows end; held until then. `None` within a transaction, which has its own.
    lease: Option<Lease<SeaOrm>>,
    watch: LeaseWatch,
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl RoutedStream {
    pub(crate) fn new(
        first: Option<Result<QueryResult, DbErr>>,
        rest: Rows,
        lease: Option<Lease<SeaOrm>>,
        watch: LeaseWatch,
    ) -> Self {
        let own = watch.clone();
        Self { first, rest: Some(rest), lease, watch, lost: Box::pin(async move { own.end().await }) }
    }

    /// What the router's shutdown leaves of the rows. It says nothing about the node.
    fn cut(&mut self) -> DbErr {
        self.rest = None;
        match self.lease.take() {
            Some(lease) if lease.decision().access == Access::Write => {
                let node = lease.node().shared_name().clone();
                Error::from(CommitUnknown { node, why: self.watch.why().into() }).into()
            }
            _ => Error::from(RouteError::Closed).into(),
        }
    }

    /// The error that a reader gets, and what it says about the node.
    fn failed(&self, error: DbErr) -> (DbErr, Option<Fault>) {
        let access = self.lease.as_ref().map_or(Access::Read, |lease| lease.decision().access);
        let fault = Failure::<SeaOrm>::fault(&error, access);
        match (&self.lease, fault) {
            (Some(lease), Some(Fault::Unreachable | Fault::Unresponsive)) if access == Access::Write => {
                let node = lease.node().shared_name().clone();
                (Error::from(CommitUnknown { node, why: error.to_string().into() }).into(), fault)
            }
            _ => (error, fault),
        }
    }
}

impl Stream for RoutedStream {
    type Item = Result<QueryResult, DbErr>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let next = match rest.0.poll_next_unpin(context) {
            Poll::Ready(next) => next,
            Poll::Pending if self.lost.as_mut().poll(context).is_ready() => {
                if self.watch.was_cut() {
                    return Poll::Ready(Some(Err(self.cut())));
                }
                let message = "the node was lost while its rows were read";
                Some(Err(DbErr::Conn(RuntimeErr::SqlxError(Arc::new(sqlx::Error::Io(io::Error::other(
                    message,
                )))))))
            }
            Poll::Pending => return Poll::Pending,
        };
        match next {
            Some(Ok(row)) => Poll::Ready(Some(Ok(row))),
            Some(Err(error)) => {
                let (error, fault) = self.failed(error);
                self.rest = None;
                if let Some(lease) = self.lease.take() {
                    lease.end(fault);
                }
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.rest = None;
                if let Some(lease) = self.lease.take() {
                    lease.end(None);
                }
                Poll::Ready(None)
            }
        }
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
        if let Err(error) = sendable(&statement) {
            yield Err(error);
            return;
        }
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
