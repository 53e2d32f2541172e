//! The router's errors within Diesel's, and back.

use std::sync::Arc;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};
use routing_core::pool::CheckoutError;
use routing_core::tls::{InvalidTls, TlsError, UnusableUrl};
use routing_core::{
    Access, CommitUnknown, Failure, Fault, NotWritable, PasswordError, Passwords, RouteError,
};

use crate::backend::Diesel;

/// What an operation of this backend fails with.
#[derive(Debug, thiserror::Error)]
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
    /// A connection could not be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Diesel, the driver or the server.
    #[error(transparent)]
    Database(#[from] DieselError),
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The network did not get us there.
    #[error("connecting failed: {0}")]
    Io(#[from] std::io::Error),
    /// It is not to be encrypted as the URL demands.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What the URL names cannot be used any more.
    #[error(transparent)]
    Url(#[from] UnusableUrl),
    /// There is no password to connect with.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The driver or the server refused.
    #[error("connecting failed: {}", words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// Diesel could not set the connection up.
    #[error("the connection could not be set up: {0}")]
    Setup(#[from] diesel::ConnectionError),
    /// The server is not one to write to.
    #[error(transparent)]
    NotWritable(#[from] NotWritable),
}

impl From<InvalidTls> for ConnectError {
    fn from(error: InvalidTls) -> Self {
        Self::Url(error.into())
    }
}

impl ConnectError {
    /// What the server said, if it was the server.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.code().map(|state| state.code()),
            Self::Io(_)
            | Self::Tls(_)
            | Self::Url(_)
            | Self::Password(_)
            | Self::Setup(_)
            | Self::NotWritable(_) => None,
        }
    }

    /// Whether the server did not take the password.
    pub(crate) fn is_refused_password(&self) -> bool {
        match self {
            Self::Postgres(error) => error.as_db_error().is_some_and(is_refused_password),
            Self::Io(_)
            | Self::Tls(_)
            | Self::Url(_)
            | Self::Password(_)
            | Self::Setup(_)
            | Self::NotWritable(_) => false,
        }
    }
}

pub(crate) fn is_refused_password(said: &tokio_postgres::error::DbError) -> bool {
    Passwords::is_refusal(said.code().code(), said.message())
}

/// An error in words: the driver's own, "db error", leave out what the server said.
pub(crate) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words += &format!(": {error}");
        cause = error.source();
    }
    words
}

impl From<CheckoutError<ConnectError>> for Error {
    fn from(error: CheckoutError<ConnectError>) -> Self {
        match error {
            CheckoutError::Driver(error) => Self::Connect(error),
            CheckoutError::Saturated => Self::Saturated,
            CheckoutError::Unresponsive => Self::Unresponsive,
            _ => Self::Closed,
        }
    }
}

/// An error of this crate as Diesel carries it. Diesel's `DatabaseErrorInformation` cannot be looked into from outside,
/// so the way back is `QueryBuilderError`, whose source can.
impl From<Error> for DieselError {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error,
            other => Self::QueryBuilderError(Box::new(Carried(Arc::new(other)))),
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
struct Carried(Arc<Error>);

fn carried(error: &DieselError) -> Option<&Error> {
    match error {
        DieselError::QueryBuilderError(source) => source.downcast_ref::<Carried>().map(|carried| &*carried.0),
        _ => None,
    }
}

/// Why the router handed out no connection, if that is what the error says: an application answers 503 to it.
///
/// ```
/// use routing_core::RouteError;
/// use routing_diesel::{Error, route_error};
///
/// let error = diesel::result::Error::from(Error::from(RouteError::Closed));
/// assert_eq!(route_error(&error), Some(&RouteError::Closed));
/// assert_eq!(route_error(&diesel::result::Error::NotFound), None);
/// ```
#[must_use]
pub fn route_error(error: &DieselError) -> Option<&RouteError> {
    match carried(error)? {
        Error::Route(error) => Some(error),
        _ => None,
    }
}

/// Whether the error says that a write was sent and its answer lost: it may or may not have been committed.
#[must_use]
pub fn is_commit_unknown(error: &DieselError) -> bool {
    matches!(carried(error), Some(Error::CommitUnknown(_)))
}

/// An error made here, in the place where Diesel expects one of the server's.
pub(crate) fn made_here(kind: DatabaseErrorKind, message: &'static str) -> DieselError {
    let information: Box<dyn DatabaseErrorInformation + Send + Sync> = Box::new(message.to_owned());
    DieselError::DatabaseError(kind, information)
}

impl Failure<Diesel> for Error {
    fn fault(&self, access: Access) -> Option<Fault> {
        crate::fault::of_error(self, access)
    }
}

impl Failure<Diesel> for DieselError {
    fn fault(&self, access: Access) -> Option<Fault> {
        match carried(self) {
            Some(error) => crate::fault::of_error(error, access),
            None => crate::fault::of_diesel(self, access),
        }
    }
}
