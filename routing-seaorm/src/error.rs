//! The router's errors within SeaORM's, and back.

use std::sync::Arc;

use routing_core::pool::CheckoutError;
use routing_core::{Access, CommitUnknown, Failure, Fault, RouteError};
use sea_orm::{DbErr, RuntimeErr};

use crate::backend::SeaOrm;

/// What an operation of this backend fails with.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection was handed out; nothing was sent.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A write was sent and its answer lost.
    #[error(transparent)]
    CommitUnknown(#[from] CommitUnknown),
    /// The local pool gave no connection in time. It says nothing about the server.
    #[error("no connection of the pool was free in time")]
    Saturated,
    /// The server let no connection in, in time.
    #[error("the server let no connection in, in time")]
    Unresponsive,
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
    /// SeaORM, the driver or the server.
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl From<CheckoutError<sqlx::Error>> for Error {
    fn from(error: CheckoutError<sqlx::Error>) -> Self {
        match error {
            CheckoutError::Driver(error) => Self::Database(wrap(error)),
            CheckoutError::Saturated => Self::Saturated,
            CheckoutError::Unresponsive => Self::Unresponsive,
            _ => Self::Closed,
        }
    }
}

/// A driver's error as SeaORM shows it for a query.
pub(crate) fn wrap(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

impl From<Error> for DbErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error,
            // The typed error travels as the driver's source, where `route_error` and `is_commit_unknown` find it.
            other => {
                Self::Conn(RuntimeErr::SqlxError(Arc::new(sqlx::Error::AnyDriverError(Box::new(other)))))
            }
        }
    }
}

/// The error of this crate that a `DbErr` carries.
fn carried(error: &DbErr) -> Option<&Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(source))
        | DbErr::Exec(RuntimeErr::SqlxError(source))
        | DbErr::Query(RuntimeErr::SqlxError(source)) => match &**source {
            sqlx::Error::AnyDriverError(inner) => inner.downcast_ref(),
            _ => None,
        },
        _ => None,
    }
}

/// Why the router handed out no connection, if that is what the error says: an application answers 503 to it.
///
/// ```
/// use routing_core::RouteError;
/// use routing_seaorm::{Error, route_error};
///
/// let error = sea_orm::DbErr::from(Error::from(RouteError::Closed));
/// assert_eq!(route_error(&error), Some(&RouteError::Closed));
/// assert_eq!(route_error(&sea_orm::DbErr::Custom("x".into())), None);
/// ```
#[must_use]
pub fn route_error(error: &DbErr) -> Option<&RouteError> {
    match carried(error)? {
        Error::Route(error) => Some(error),
        _ => None,
    }
}

/// Whether the error says that a write was sent and its answer lost: it may or may not have been committed.
#[must_use]
pub fn is_commit_unknown(error: &DbErr) -> bool {
    matches!(carried(error), Some(Error::CommitUnknown(_)))
}

impl Failure<SeaOrm> for Error {
    fn fault(&self, access: Access) -> Option<Fault> {
        crate::fault::of_error(self, access)
    }
}

impl Failure<SeaOrm> for DbErr {
    fn fault(&self, access: Access) -> Option<Fault> {
        match carried(self) {
            Some(error) => crate::fault::of_error(error, access),
            None => crate::fault::of_database(self, access),
        }
    }
}
