//! What the monitor and the routers share.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::authority::Word;
use crate::balance::Balance;
use crate::cap::Cap;
use crate::config::RouterConfig;
use crate::config_error::ConfigError;
use crate::discoverer::Following;
use crate::eligible::Limits;
use crate::event::Events;
use crate::hedge::Hedging;
use crate::key::TokenKeys;
use crate::lsn::Timeline;
use crate::membership::Membership;
use crate::node::Node;
use crate::presented::Reader;
use crate::retry::RetryPolicy;
use crate::seen::{Newest, Seen};
use crate::signal::{Signal, Watcher};
use crate::topology::Topology;

/// How many of the writes that waited for a primary open connections to it at once: a server that was promoted a moment ago
/// has other work than to greet a thousand clients.
const RELEASED_AT_ONCE: usize = 4;

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

impl Shared {
    /// Of nodes of which nothing is known yet.
    ///
    /// # Errors
    /// [`ConfigError::Keys`] when no key can be made.
    pub(crate) fn new(
        config: RouterConfig,
        nodes: Vec<Arc<Node>>,
        balance: Arc<dyn Balance>,
    ) -> Result<Self, ConfigError> {
        let keys = keys(&config)?;
        Ok(Self {
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
        })
    }

    /// Whoever waits for a topology looks again.
    pub(crate) fn wake(&self) {
        self.version.raise();
    }

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
