//! Rows that are still being read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::pg::Pg;
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::AsyncConnectionCore;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use routing_core::{Access, Failure, Lease, LeaseWatch, RouteError};

use crate::backend::Diesel;
use crate::error::{Error, made_here};
use crate::read::ReadHandle;

/// A stream of rows that owns its connection. Dropping it before its end cancels the statement on the server and closes
/// the connection. It ends with an error when its node is declared dead.
pub struct RoutedStream<U> {
    first: Option<Result<U, DieselError>>,
    rest: Option<BoxStream<'static, Result<U, DieselError>>>,
    /// Reported when the rows end; held until then.
    lease: Option<Lease<Diesel>>,
    watch: LeaseWatch,
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl ReadHandle {
    /// The rows of a query as they come. The first row decides the node: until it is there another node can take over,
    /// afterwards an error is handed out.
    ///
    /// # Errors
    /// Diesel's, or the router's as such: see [`route_error`](crate::route_error).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn stream<U, Q>(&self, query: Q) -> Result<RoutedStream<U>, DieselError>
    where
        Q: AsQuery + Clone + Send + Sync + 'static,
        Q::Query: QueryFragment<Pg> + QueryId + Send + 'static,
        Pg: QueryMetadata<Q::SqlType>,
        U: FromSqlRow<Q::SqlType, Pg> + Send + 'static,
    {
        let first_row = async |lease: &mut Lease<Diesel>| {
            let connection: &mut diesel_async::AsyncPgConnection = lease;
            let rows = AsyncConnectionCore::load(connection, query.clone()).await?;
            let mut rest = rows
                .map(|row| U::build_from_row(&row?).map_err(DieselError::DeserializationError))
                .fuse()
                .boxed();
            let first = rest.next().await.transpose()?;
            Ok::<_, DieselError>((first.map(Ok), Rows(rest)))
        };
        let ((first, Rows(rest)), lease) = self.routed().run_read_keeping(first_row).await?;
        let watch = self.routed().watch(&lease);
        let own = watch.clone();
        let lost = Box::pin(async move { own.end().await });
        Ok(RoutedStream { first, rest: Some(rest), lease: Some(lease), watch, lost })
    }
}

/// Names the type, which an async closure cannot infer to be long-lived enough.
struct Rows<U>(BoxStream<'static, Result<U, DieselError>>);

impl<U: Unpin> Stream for RoutedStream<U> {
    type Item = Result<U, DieselError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let next = match rest.poll_next_unpin(context) {
            Poll::Ready(next) => next,
            Poll::Pending if self.lost.as_mut().poll(context).is_ready() => {
                if self.watch.was_cut() {
                    // It says nothing about the node.
                    (self.rest, self.lease) = (None, None);
                    return Poll::Ready(Some(Err(Error::from(RouteError::Closed).into())));
                }
                let message = "the node was lost while its rows were read";
                Some(Err(made_here(DatabaseErrorKind::ClosedConnection, message)))
            }
            Poll::Pending => return Poll::Pending,
        };
        let fault = match &next {
            Some(Ok(_)) => return Poll::Ready(next),
            Some(Err(error)) => Failure::<Diesel>::fault(error, Access::Read),
            None => None,
        };
        self.rest = None;
        if let Some(lease) = self.lease.take() {
            let fault = lease.diagnose(fault);
            lease.end(fault);
        }
        Poll::Ready(next)
    }
}

impl<U> fmt::Debug for RoutedStream<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutedStream").field("lease", &self.lease).finish_non_exhaustive()
    }
}
