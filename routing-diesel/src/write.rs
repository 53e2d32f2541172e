//! The handle for writing.

use routing_core::{Failure, Lease, Routed, SendFn};

use crate::backend::Diesel;
use crate::error::Error;

/// Writes, on the proven primary; reads on it see them at once. Without a proven primary a write waits a bounded time,
/// then fails.
///
/// | form | protected |
/// |---|---|
/// | [`run`](Self::run) | run again only when the server refused the first statement as read-only, which had no effect |
/// | [`transaction`](Self::transaction) | run again as a whole when it provably was not committed |
/// | [`get`](Self::get) | up to the checkout; what runs on the lease is not repeated |
///
/// A lost answer is not repeated: see [`is_commit_unknown`](crate::is_commit_unknown). It holds no connection; clones are
/// cheap.
#[derive(Clone, Debug)]
pub struct WriteHandle(Routed<Diesel>);

impl WriteHandle {
    pub(crate) fn new(routed: Routed<Diesel>) -> Self {
        Self(routed)
    }

    /// The same for writes that the client needs not see in its next reads, such as an audit row: they leave no token.
    #[must_use]
    pub fn untracked(&self) -> Self {
        Self(self.0.untracked())
    }

    /// What it routes by.
    #[must_use]
    pub fn routed(&self) -> &Routed<Diesel> {
        &self.0
    }

    /// Runs a closure on a connection to the primary. It is run again only when the server refused its first statement
    /// as read-only.
    ///
    /// # Errors
    /// The closure's; the router's as such; a commit-unknown error when the answer to a statement was lost.
    ///
    /// # Cancel safety
    /// Dropping the future while a statement runs leaves its outcome unknown; it is ended on the server,
    /// unless it soon ends by itself.
    pub async fn run<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<Diesel> + std::fmt::Display + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<Diesel>, Result<T, E>>,
    {
        self.0.run_statement(f).await
    }

    /// Runs a closure within one transaction on the primary: as a whole again when it provably was not committed
    /// (serialization failure, deadlock, a connection lost before COMMIT was sent).
    ///
    /// # Errors
    /// The closure's; the router's as such; a commit-unknown error when the answer to COMMIT was lost.
    ///
    /// # Cancel safety
    /// Dropping the future before COMMIT is sent rolls back; dropping it later leaves the outcome unknown.
    pub async fn transaction<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<Diesel> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<Diesel>, Result<T, E>>,
    {
        self.0.run_write(f).await
    }

    /// A connection, which is an `AsyncPgConnection`, for what the closures cannot do. It is protected up to its
    /// checkout: what runs on it is not repeated, and a lost answer is Diesel's own error.
    ///
    /// # Errors
    /// [`Error::Route`].
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took.
    pub async fn get(&self) -> Result<Lease<Diesel>, Error> {
        self.0.acquire_write().await
    }
}
