//! One ORM's connections on a cluster.

use std::fmt;
use std::sync::Arc;

use crate::backend::{Backend, Failure, SendFn};
use crate::cluster::Cluster;
use crate::config::RouterConfig;
use crate::config_error::ConfigError;
use crate::consistency::Consistency;
use crate::lease::Lease;
use crate::misrouted::Misrouted;
use crate::node::Node;
use crate::pools::{NodePools as _, Pools};
use crate::priority::Priority;
use crate::routed::Routed;
use crate::session::Session;
use crate::shared::Shared;
use crate::work::Work;

/// Routes the reads and writes of one backend over a [`Cluster`]. Clones share it.
///
/// What is retried: a checkout that failed (nothing was sent); in [`run_read`](Self::run_read) also a closure whose
/// error says that the *node* failed it, or whose node was declared dead meanwhile, since a read has no effect; in
/// [`run_write`](Self::run_write) a whole transaction that provably was not committed. Nothing else.
pub struct Router<B: Backend>(Arc<RouterInner<B>>);

pub(crate) struct RouterInner<B: Backend> {
    cluster: Cluster,
    owns_cluster: bool,
    pools: Arc<Pools<B>>,
    misrouted: Misrouted,
}

impl<B: Backend> Router<B> {
    /// Starts a cluster of its own, with this backend's prober, and routes on it.
    ///
    /// # Errors
    /// A rule of the configuration that is broken, or a URL that the driver cannot use.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: RouterConfig, options: B::Options) -> Result<Self, ConfigError> {
        let prober = B::prober(&config, &options);
        Self::on(&Cluster::start(config, prober)?, options, true)
    }

    /// Routes on a cluster that others may use too.
    ///
    /// # Errors
    /// [`ConfigError::Backend`] when the driver cannot use a node's URL.
    pub fn new(cluster: &Cluster, options: B::Options) -> Result<Self, ConfigError> {
        Self::on(cluster, options, false)
    }

    fn on(cluster: &Cluster, options: B::Options, owns_cluster: bool) -> Result<Self, ConfigError> {
        let pools = Arc::new(Pools::<B>::new(cluster.shared().config.clone(), options));
        cluster.shared().membership.carry(&pools)?;
        Ok(Self(Arc::new(RouterInner {
            cluster: cluster.clone(),
            owns_cluster,
            pools,
            misrouted: Misrouted::default(),
        })))
    }

    /// What the backend was told.
    #[must_use]
    pub fn options(&self) -> &B::Options {
        self.0.pools.options()
    }

    /// The cluster that it routes on.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    /// The handles of one request. Its reads keep to one node while that node serves.
    #[must_use]
    pub fn routed(&self, session: Session, consistency: Consistency) -> Routed<B> {
        let priority = Priority::default();
        Routed { router: self.clone(), session, consistency, untracked: false, priority }
    }

    fn alone(&self, consistency: Consistency) -> Routed<B> {
        self.routed(Session::new(), consistency)
    }

    /// A connection for reading. It is protected up to its checkout; what runs on it afterwards is not repeated.
    ///
    /// # Errors
    /// [`RouteError`](crate::RouteError), as the backend's error.
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took.
    pub async fn read(&self, consistency: Consistency) -> Result<Lease<B>, B::Error> {
        self.alone(consistency).acquire_read().await
    }

    /// A connection for writing, to the proven primary.
    ///
    /// # Errors
    /// [`RouteError`](crate::RouteError), as the backend's error.
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took.
    pub async fn write(&self) -> Result<Lease<B>, B::Error> {
        self.alone(Consistency::Strong).acquire_write().await
    }

    /// Runs a closure on a connection for reading, again on another node when the node failed it. The closure may run
    /// several times: its effects outside the database are its own concern.
    ///
    /// # Errors
    /// The closure's error, or [`RouteError`](crate::RouteError) as such.
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took; a statement under way is ended on the
    /// server, unless it soon ends by itself.
    pub async fn run_read<T, E, F>(&self, consistency: Consistency, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        self.alone(consistency).run_read(f).await
    }

    /// Runs a closure within one transaction on the primary, and again from the start when the transaction provably had
    /// no effect.
    ///
    /// # Errors
    /// The closure's error, [`RouteError`](crate::RouteError), or [`CommitUnknown`](crate::CommitUnknown) when the
    /// answer to COMMIT was lost.
    ///
    /// # Cancel safety
    /// Dropping the future before COMMIT is sent rolls back; dropping it later leaves the outcome unknown.
    pub async fn run_write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        self.alone(Consistency::Strong).run_write(f).await
    }

    /// Closes all its pools at once; [`shutdown`](Self::shutdown) lets what runs end first. Connections in use are closed
    /// when they come back; requests that come later, or wait for a connection, fail with
    /// [`RouteError::Closed`](crate::RouteError::Closed). A cluster that it [started](Self::start) is closed with it; one
    /// that it was [put on](Self::new) goes on for others.
    pub fn close(&self) {
        self.work().close();
        if self.0.owns_cluster {
            self.0.cluster.close();
        }
        self.0.pools.close_all();
    }

    /// Whether it takes no more requests: it, or its cluster, was closed, or its [`shutdown`](Self::shutdown) has begun.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.work().is_open() || self.0.cluster.is_closed()
    }

    /// Whether requests that have begun get no connection any more.
    pub(crate) fn serves_none(&self) -> bool {
        self.work().is_closed() || self.0.cluster.is_closed()
    }

    pub(crate) fn owns_cluster(&self) -> bool {
        self.0.owns_cluster
    }

    /// What runs on it.
    pub(crate) fn work(&self) -> &Arc<Work> {
        self.0.pools.work()
    }

    /// The pools of all nodes.
    pub(crate) fn all_pools(&self) -> &Arc<Pools<B>> {
        &self.0.pools
    }

    /// Statements that turned out to need the primary.
    #[must_use]
    pub fn misrouted(&self) -> &Misrouted {
        &self.0.misrouted
    }

    pub(crate) fn inner(&self) -> &Arc<RouterInner<B>> {
        &self.0
    }

    pub(crate) fn from_inner(inner: Arc<RouterInner<B>>) -> Self {
        Self(inner)
    }

    /// The pools of one node.
    pub(crate) fn pools(&self, node: &Node) -> Option<Arc<B>> {
        self.0.pools.of(node)
    }
}

impl<B: Backend> RouterInner<B> {
    pub(crate) fn shared(&self) -> &Shared {
        self.cluster.shared()
    }
}

impl<B: Backend> Clone for Router<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> fmt::Debug for Router<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("cluster", &self.0.cluster).finish()
    }
}
