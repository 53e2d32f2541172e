//! What is true of the servers, whatever ORM asks.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::balance::{Balance, LeastInFlight};
use crate::config::RouterConfig;
use crate::config_error::ConfigError;
use crate::decision::Refusals;
use crate::node::Node;
use crate::probe::Prober;
use crate::refuse::write_refusals;
use crate::shared::Shared;
use crate::topology::Topology;
use crate::tried::Tried;

/// The servers of one replicated PostgreSQL: who they are, what the monitor knows of them, and the limits that all
/// users of them share. One cluster can carry a [`Router`](crate::Router) for each ORM. Clones share it; when the last
/// is gone the monitor stops.
///
/// It must be started within a tokio runtime.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

pub(crate) struct Inner {
    shared: Arc<Shared>,
    closed: watch::Sender<bool>,
    /// Ends with the monitor.
    monitoring: watch::Receiver<()>,
}

impl Cluster {
    /// Starts the monitor. It returns at once; [`settled`](Self::settled) waits for the first picture.
    ///
    /// # Errors
    /// [`ConfigError::Rule`] names a rule that `config` breaks.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: RouterConfig, prober: Arc<dyn Prober>) -> Result<Self, ConfigError> {
        Self::start_with(config, prober, Arc::new(LeastInFlight::default()))
    }

    /// [`start`](Self::start) with a balancer other than [`LeastInFlight`].
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_with(
        config: RouterConfig,
        prober: Arc<dyn Prober>,
        balance: Arc<dyn Balance>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        crate::metrics::describe();
        let nodes: Vec<_> =
            config.nodes.iter().map(|node| Arc::new(Node::of(node.clone(), &config))).collect();
        if let [only] = &nodes[..] {
            // A replica's URL that a deployment has lost is no error, and must not go unnoticed.
            tracing::warn!(
                node = only.name(),
                "one server is configured: the primary serves every read until a discovery finds others"
            );
        }
        let shared = Arc::new(Shared::new(config, nodes, balance)?);
        let closed = watch::Sender::new(false);
        let monitoring = crate::monitor::spawn(shared.clone(), prober, closed.subscribe());
        Ok(Self(Arc::new(Inner { shared, closed, monitoring })))
    }

    /// The newest picture of the servers.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.0.shared.topology()
    }

    /// What it was started with. Its `nodes` are those of the start; [`nodes`](Self::nodes) are those of now.
    #[must_use]
    pub fn config(&self) -> &RouterConfig {
        &self.0.shared.config
    }

    /// Why each node may not be written to now.
    #[must_use]
    pub fn write_refusals(&self) -> Refusals {
        let shared = self.shared();
        write_refusals(&shared.peek(), &Tried::default(), shared.limits, Instant::now())
    }

    /// Waits until a primary is known and every node was tried, or until `limit` has passed. `true` in the first case.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn settled(&self, limit: Duration) -> bool {
        let mut version = self.0.shared.versions();
        let settled = async {
            while !self.topology().is_settled() {
                version.changed().await;
            }
        };
        tokio::time::timeout(limit, settled).await.is_ok() && self.topology().is_settled()
    }

    /// Whether it was closed: by [`close`](Self::close), or at the end of [`shutdown`](Self::shutdown).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }

    /// Stops the monitor at once; [`shutdown`](Self::shutdown) lets what runs end first. Requests that come later or wait
    /// fail with [`RouteError::Closed`](crate::RouteError::Closed).
    pub fn close(&self) {
        self.0.closed.send_replace(true);
        self.0.shared.wake();
        // The discovery sees it as well.
        self.0.shared.rediscover.notify_one();
    }

    /// Waits for the end of the monitor, its tasks and its connections.
    pub(crate) async fn monitor_ended(&self) {
        let mut monitoring = self.0.monitoring.clone();
        while monitoring.changed().await.is_ok() {}
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(inner: &Weak<Inner>) -> Option<Self> {
        inner.upgrade().map(Self)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("nodes", &self.nodes()).finish_non_exhaustive()
    }
}
