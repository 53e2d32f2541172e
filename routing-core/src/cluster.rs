//! What is true of the servers, whatever ORM asks.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::authority::Word;
use crate::balance::{Balance, LeastInFlight};
use crate::cap::Cap;
use crate::config::RouterConfig;
use crate::config_error::ConfigError;
use crate::decision::Refusals;
use crate::discoverer::Following;
use crate::eligible::Limits;
use crate::event::Events;
use crate::hedge::Hedging;
use crate::key::TokenKeys;
use crate::lsn::Timeline;
use crate::membership::Membership;
use crate::node::Node;
use crate::presented::Reader;
use crate::probe::Prober;
use crate::refuse::write_refusals;
use crate::retry::RetryPolicy;
use crate::seen::{Newest, Seen};
use crate::signal::{Signal, Watcher};
use crate::topology::Topology;
use crate::tried::Tried;

/// How many of the writes that waited for a primary open connections to it at once: a server that was promoted a moment ago
/// has other work than to greet a thousand clients.
const RELEASED_AT_ONCE: usize = 4;

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

/// What the monitor and the routers share.
pub(crate) struct Shared {
    pub(crate) config: Arc<RouterConfig>,
    pub(crate) limits: Limits,
    pub(crate) membership: Membership,
    topology: Newest,
    version: Signal,
    pub(crate) balance: Arc<dyn Balance>,
    pub(crate) retry: RetryPolicy,
    /// `None`: no read is sent twice.
    pub(crate) hedging: Option<Hedging>,
    /// Reads on the primary because no replica can serve.
    pub(crate) fallback: Arc<Cap>,
    /// Reads on the primary because their token is ahead of every replica.
    pub(crate) behind_token: Arc<Cap>,
    /// What signs and verifies tokens.
    pub(crate) keys: TokenKeys,
    /// The highest timeline that a token of this cluster has named, and until when that counts.
    heard: Mutex<Option<(Timeline, Instant)>>,
    pub(crate) write_waiters: Arc<Cap>,
    /// What an authority said last; `Some(None)` before its first word, `None` without one.
    pub(crate) authority: watch::Sender<Option<Option<Word>>>,
    /// The discovery that is followed.
    pub(crate) following: Mutex<Option<Following>>,
    /// What happened, for people.
    pub(crate) events: Events,
    /// No replica serves, whatever is asked of a read.
    pub(crate) primary_only: AtomicBool,
    /// Someone wants to know now.
    pub(crate) rediscover: Arc<Notify>,
    /// The discovery's lists are left aside.
    pub(crate) frozen: AtomicBool,
    /// Writes that waited for a primary take their connections one after another through here.
    pub(crate) release: Semaphore,
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
        let keys = keys(&config)?;
        let nodes: Vec<_> =
            config.nodes.iter().map(|node| Arc::new(Node::of(node.clone(), &config))).collect();
        if let [only] = &nodes[..] {
            // A replica's URL that a deployment has lost is no error, and must not go unnoticed.
            tracing::warn!(
                node = only.name(),
                "one server is configured: the primary serves every read until a discovery finds others"
            );
        }
        let shared = Arc::new(Shared {
            limits: Limits::from(&config),
            topology: Arc::new(ArcSwap::from_pointee(Topology::unseen(&nodes, Instant::now()))),
            version: Signal::default(),
            balance,
            retry: RetryPolicy::new(config.retry.clone()),
            hedging: config.hedge.clone().map(Hedging::new),
            fallback: Cap::with_rate(config.fallback_no_replica(), config.fallback_rate),
            behind_token: Cap::with_rate(config.fallback_behind_token(), config.fallback_rate),
            keys,
            heard: Mutex::default(),
            write_waiters: Cap::new(config.write_waiters),
            authority: watch::Sender::new(None),
            following: Mutex::default(),
            events: Events::default(),
            primary_only: AtomicBool::new(false),
            rediscover: Arc::default(),
            frozen: AtomicBool::new(false),
            release: Semaphore::new(RELEASED_AT_ONCE),
            membership: Membership::new(nodes),
            config: Arc::new(config),
        });
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
        self.0.shared.version.raise();
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

impl Shared {
    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// The topology, as a thread keeps it: for decisions.
    #[inline]
    pub(crate) fn newest<'s>(&self, seen: &'s mut Seen) -> &'s Topology {
        seen.newest(&self.topology)
    }

    /// The topology without counting a reference.
    pub(crate) fn peek(&self) -> arc_swap::Guard<Arc<Topology>> {
        self.topology.load()
    }

    /// Sees every new topology from now on.
    pub(crate) fn versions(&self) -> Watcher {
        self.version.watch()
    }

    /// How many topologies there have been, and ends.
    pub(crate) fn version(&self) -> u64 {
        self.version.count()
    }

    /// Sees every new topology after so many.
    pub(crate) fn versions_since(&self, version: u64) -> Watcher {
        self.version.watch_since(version)
    }

    /// The one place where the topology is replaced. Only the monitor calls it.
    pub(crate) fn publish(&self, topology: Topology) {
        self.topology.store(Arc::new(topology));
        self.version.raise();
    }

    /// Who reads what clients present.
    pub(crate) fn reader(&self, topology: &Topology) -> Reader<'_> {
        Reader::new(&self.keys, self.config.token_lifetime, topology.lineage.system_id)
    }

    /// A token of this cluster names a timeline above the accepted one: somewhere a primary on it was accepted. Every node is
    /// looked at, and until one on that timeline is found, or tokens of now have expired, nothing is written to a lower one.
    pub(crate) fn hear(&self, timeline: Timeline, now: Instant) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.filter(|(_, until)| now < *until).map(|(known, _)| known);
        if known > Some(timeline) {
            return;
        }
        *heard = Some((timeline, now + self.config.token_lifetime));
        drop(heard);
        if known != Some(timeline) {
            tracing::warn!(%timeline, "a session token names a timeline that no node is on yet");
            self.probe_all();
        }
    }

    /// The timeline that a writer must at least be on.
    pub(crate) fn least_timeline(&self, now: Instant) -> Option<Timeline> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_some_and(|(_, until)| now >= until) {
            *heard = None;
        }
        heard.map(|(timeline, _)| timeline)
    }

    /// Looks at every node now.
    pub(crate) fn probe_all(&self) {
        for node in self.membership.nodes().iter() {
            node.probe_now();
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("nodes", &self.nodes()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("nodes", &self.membership.nodes()).finish_non_exhaustive()
    }
}

/// The configured keys, or one of this process alone.
fn keys(config: &RouterConfig) -> Result<TokenKeys, ConfigError> {
    if let Some(keys) = &config.token_keys {
        return Ok(keys.clone());
    }
    tracing::warn!(
        "no token keys are set (ROUTING_TOKEN_KEY): session tokens serve this process alone, and none after a restart"
    );
    TokenKeys::random().map_err(|error| ConfigError::Keys { message: error.to_string() })
}
