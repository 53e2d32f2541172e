//! The seam between the core and a driver.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use crate::config::RouterConfig;
use crate::config_error::ConfigError;
use crate::decision::Access;
use crate::error::{CommitUnknown, RouteError};
use crate::fault::Fault;
use crate::lsn::Position;
use crate::node::Node;
use crate::probe::Prober;
use crate::routed::Routed;
use crate::straggler::Straggler;

/// One node's pools. The type is the marker of its ORM in `Router<B>`, `ReadDb<B>` and `WriteDb<B>`.
///
/// It is *not* responsible for which node serves, for retries or for deadlines across steps: the router drops a future
/// that takes too long.
pub trait Backend: Sized + Send + Sync + 'static {
    /// A connection with its place in the pool. Dropping it gives it back, or closes it when it is not fit for reuse.
    type Connection: Send + 'static;
    /// What its operations fail with.
    type Error: std::error::Error + From<RouteError> + From<CommitUnknown> + Send + Sync + 'static;
    /// What an application may tell this backend beside the router's configuration.
    type Options: Clone + Default + Send + Sync + 'static;
    /// The handle that a handler gets for reading.
    type Read: Send + 'static;
    /// The handle that a handler gets for writing.
    type Write: Send + 'static;

    /// Sets up the pools of `node` without connecting.
    ///
    /// # Errors
    /// [`ConfigError::Backend`] when the driver cannot use the node's URL.
    fn open(node: &Arc<Node>, config: &RouterConfig, options: &Self::Options) -> Result<Self, ConfigError>;

    /// What asks servers about themselves over this backend's driver.
    fn prober(config: &RouterConfig, options: &Self::Options) -> Arc<dyn Prober>;

    /// Takes a connection out of a pool, or opens one. A read connection's session is read-only on the server; a new
    /// write connection has verified that the server is out of recovery and writable.
    ///
    /// # Cancel safety
    /// Dropping the future leaks neither a connection nor a place in the pool.
    fn checkout(&self, access: Access) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// What an error of a connection for `access` says about the node; `None` when it says nothing, which counts as a
    /// successful use of the node.
    fn classify(error: &Self::Error, access: Access) -> Option<Fault>;

    /// In what state a connection is at the end of its lease.
    fn usage(connection: &Self::Connection) -> Usage;

    /// What the connection itself knows of a failure of which the error said `said`: an ORM's error can hide what the
    /// server sent. By default it knows nothing more.
    fn diagnose(connection: &Self::Connection, said: Option<Fault>) -> Option<Fault> {
        let _ = connection;
        said
    }

    /// The last step on the connection has run to its end, so nothing that was sent on it is still under way. Called
    /// before a lease ends; a lease dropped without it may hide a statement that was handed to the driver and not sent
    /// yet. By default it changes nothing.
    fn finished(connection: &mut Self::Connection) {
        let _ = connection;
    }

    /// The lease is dropped while a statement runs: the connection keeps this until the statement has ended, or was ended. By
    /// default it is let go at once.
    fn abandoned(connection: &mut Self::Connection, straggler: Straggler) {
        let _ = (connection, straggler);
    }

    /// Waits for the end of the last answer: an ORM can return a row before the server has said whether the statement
    /// succeeded. By default there is nothing to wait for.
    ///
    /// # Cancel safety
    /// As a statement.
    fn complete(connection: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = connection;
        async { Ok(()) }
    }

    /// Whether the server said during this lease that it ended the wait of a COMMIT for a synchronous standby, which it then
    /// reports as a success: it is committed there, and may be nowhere else. By default `false`.
    fn is_unreplicated(connection: &Self::Connection) -> bool {
        let _ = connection;
        false
    }

    /// When the connection was opened.
    fn opened(connection: &Self::Connection) -> Instant;

    /// Whether the server has completed no statement on the connection during this lease, so that running the caller's
    /// closure again repeats nothing. By default `true`: right where a closure runs one statement.
    fn is_untouched(connection: &Self::Connection) -> bool {
        let _ = connection;
        true
    }

    /// Begins a transaction: READ ONLY for [`Access::Read`].
    fn begin(
        connection: &mut Self::Connection,
        access: Access,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Commits the transaction that [`begin`](Self::begin) began.
    fn commit(connection: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Rolls it back.
    fn rollback(connection: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Asks the server for its position: `sql` is one of the texts of [`position`](crate::position), whose columns
    /// [`position::position`](crate::position::position) reads.
    fn position(
        connection: &mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = Result<Position, Self::Error>> + Send;

    /// Makes a handle for reading.
    fn read(routed: Routed<Self>) -> Self::Read;

    /// Makes a handle for writing.
    fn write(routed: Routed<Self>) -> Self::Write;

    /// How full a pool is. The figures are read one after the other and need not agree.
    fn pool(&self, access: Access) -> PoolStatus;

    /// Closes the idle connections of a pool; those in use are closed when they come back.
    fn retire(&self, access: Access);

    /// Closes both pools: idle connections at once, those in use when they come back. No checkout succeeds afterwards.
    fn close(&self);
}

/// A backend whose ORM shows the text of each statement before it is run, so that one handle can both read and write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no automatic handle: its statements are not seen before they have a connection",
    note = "take `ReadDb` or `WriteDb` instead of `Db`"
)]
pub trait AutomaticBackend: Backend {
    /// The handle that a handler gets for both.
    type Automatic: Send + 'static;

    /// Makes a handle for both.
    fn automatic(routed: Routed<Self>) -> Self::Automatic;
}

/// In what state a connection is at the end of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Its last statement was answered.
    Answered,
    /// It was dropped while a statement ran: that says nothing about the node.
    Abandoned,
    /// It met a fault.
    Failed(Fault),
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// Connections it may hold.
    pub max: usize,
    /// Connections it holds.
    pub open: usize,
    /// Of these, how many no one uses.
    pub idle: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

impl PoolStatus {
    /// Whether every connection that it may hold is in use.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.open >= self.max && self.idle == 0
    }
}

/// The error of a closure that the router may run again: it can be made of the backend's error, and tells what it says
/// about the node.
///
/// Adapters implement it for their backend's error and for the ORM's own. An application implements it for its error
/// type by passing the question on:
///
/// ```ignore
/// impl Failure<SeaOrm> for AppError {
///     fn fault(&self, access: Access) -> Option<Fault> {
///         match self {
///             AppError::Database(error) => Failure::<SeaOrm>::fault(error, access),
///             AppError::NotFound => None,
///         }
///     }
/// }
/// ```
pub trait Failure<B: Backend>: From<B::Error> {
    /// See [`Backend::classify`].
    fn fault(&self, access: Access) -> Option<Fault>;
}

/// An async closure whose future is `Send`, as a handler needs it. Plain `AsyncFn` bounds lose that for a closure that
/// borrows anything. Implemented for every closure that qualifies; `Clone` comes with its captures.
pub trait SendFn<A, R>: AsyncFnOnce(A) -> R + FnOnce(A) -> <Self as SendFn<A, R>>::Future {
    /// What calling it returns.
    type Future: Future<Output = R> + Send;
}

impl<F, A, Fut, R> SendFn<A, R> for F
where
    F: AsyncFnOnce(A) -> R + FnOnce(A) -> Fut,
    Fut: Future<Output = R> + Send,
{
    type Future = Fut;
}
