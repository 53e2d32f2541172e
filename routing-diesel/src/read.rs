//! The handle for reading.

use routing_core::{Access, Consistency, Failure, Lease, Routed, SendFn};

use crate::backend::Diesel;
use crate::begin::begin;
use crate::error::Error;
use crate::transaction::{commit, rollback};

/// Reads, on replicas.
///
/// | form | protected |
/// |---|---|
/// | [`run`](Self::run) | the closure runs again on another node when its node fails it |
/// | [`transaction`](Self::transaction) | the same, for a READ ONLY transaction as a whole |
/// | [`stream`](Self::stream) | until the first row is there; afterwards an error is handed out |
/// | [`get`](Self::get) | up to the checkout; what runs on the lease is not repeated |
///
/// It holds no connection; clones are cheap. The sessions behind it are read-only on the server: a write fails with
/// `ReadOnlyTransaction` (SQLSTATE 25006), also when the primary serves.
#[derive(Clone, Debug)]
pub struct ReadHandle(Routed<Diesel>);

impl ReadHandle {
    pub(crate) fn new(routed: Routed<Diesel>) -> Self {
        Self(routed)
    }

    /// The same request's reads with another consistency.
    #[must_use]
    pub fn with(&self, consistency: Consistency) -> Self {
        Self(self.0.with(consistency))
    }

    /// What it routes by.
    #[must_use]
    pub fn routed(&self) -> &Routed<Diesel> {
        &self.0
    }

    /// Runs a closure on a connection of a node that may serve, and again on another when that node fails it, as long
    /// as the deadline allows. The closure may run several times: its effects outside the database are its own concern.
    ///
    /// # Errors
    /// The closure's, or the router's as such: see [`route_error`](crate::route_error).
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took; a statement under way is ended on the server, unless it soon
    /// ends by itself.
    pub async fn run<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<Diesel> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<Diesel>, Result<T, E>>,
    {
        self.0.run_read(f).await
    }

    /// Runs a closure within one READ ONLY transaction on one node, so that its reads see one state of the data; as a
    /// whole again on another node when that node fails it. It is never hedged.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn transaction<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<Diesel> + From<diesel::result::Error> + Send,
        F: Clone + Send + Sync + for<'c> SendFn<&'c mut Lease<Diesel>, Result<T, E>>,
    {
        let (value, lease) = self
            .0
            .run_read_keeping(async |lease: &mut Lease<Diesel>| {
                begin(lease, Access::Read).await?;
                match f.clone()(lease).await {
                    Ok(value) => {
                        commit(lease).await?;
                        Ok(value)
                    }
                    Err(error) => {
                        // A connection that cannot be rolled back is closed at the end of its lease.
                        let _ = rollback(lease).await;
                        Err(error)
                    }
                }
            })
            .await?;
        lease.end(None);
        Ok(value)
    }

    /// A connection, which is an `AsyncPgConnection`, for what the closures cannot do. It is protected up to its
    /// checkout: what runs on it is not repeated.
    ///
    /// # Errors
    /// [`Error::Route`].
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took.
    pub async fn get(&self) -> Result<Lease<Diesel>, Error> {
        self.0.acquire_read().await
    }
}
