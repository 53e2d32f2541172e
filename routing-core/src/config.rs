//! What an operator sets.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::breaker::BreakerConfig;
use crate::config_error::ConfigError;
use crate::consistency::Consistency;
use crate::hedge::HedgeConfig;
use crate::key::TokenKeys;
use crate::retry::RetryConfig;
use crate::url::DatabaseUrl;

/// One PostgreSQL server of the cluster. Which one is the primary is found out, never configured.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The name in logs, metrics and status; unique. Default: `host:port` of the URL.
    #[serde(default)]
    pub name: String,
    /// Where the application connects and as whom.
    pub url: DatabaseUrl,
    /// Where the monitor connects and as whom: a role with `pg_monitor` sees most. Default: `url`.
    #[serde(default)]
    pub probe_url: Option<DatabaseUrl>,
    /// Its share of reads next to other nodes. Default 1; not 0: drain a node instead. What [`Node::weight`](crate::Node::weight)
    /// says counts: it can be changed while the router runs.
    #[serde(default = "one")]
    pub weight: u32,
    /// Where it stands: the name of an availability zone, a region, a rack. Default: none. See
    /// [`RouterConfig::zone`]. It can be changed while the router runs.
    #[serde(default)]
    pub zone: Option<String>,
    /// Whether it serves as a replica. Default true. Without, as for a standby that is delayed on purpose or kept for
    /// reports, it still counts as a witness of who is primary, and may become the primary.
    #[serde(default = "yes")]
    pub reads: bool,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

impl NodeConfig {
    /// A node of weight 1 that the monitor reaches by the same URL.
    #[must_use]
    pub fn new(name: impl Into<String>, url: DatabaseUrl) -> Self {
        Self { name: name.into(), url, probe_url: None, weight: 1, zone: None, reads: true }
    }

    /// Where the monitor connects.
    #[must_use]
    pub fn probe_url(&self) -> &DatabaseUrl {
        self.probe_url.as_ref().unwrap_or(&self.url)
    }
}

/// Everything a router can be told. Each field says its unit, its default, and what too much or too little of it
/// costs. Durations read `"250ms"`, `"5s"`, `"10min"` in a file.
///
/// ```
/// use routing_core::RouterConfig;
/// use std::time::Duration;
///
/// let config = RouterConfig::default();
/// assert_eq!(config.probe_interval, Duration::from_millis(250));
/// assert_eq!(config.writer_lease(), Duration::from_secs(1));
/// assert_eq!(config.fallback_no_replica(), 10);
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterConfig {
    /// The servers. At least one; no default.
    pub nodes: Vec<NodeConfig>,

    /// Time between two probes of a node, jittered by ±20 %. Default 250 ms. It is also the resolution of every
    /// staleness figure. Lower costs each server a query of some 0.3 ms per process; higher finds faults later.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// The same while no primary is known. Default 50 ms.
    #[serde(with = "humantime_serde")]
    pub suspect_probe_interval: Duration,
    /// How long one probe may take. Default 1 s. A frozen server is noticed after this.
    #[serde(with = "humantime_serde")]
    pub probe_timeout: Duration,

    /// How long opening one connection may take, authentication included. Default 2 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long one attempt to get a connection from one node's pool may take. Default 1 s. Too low turns a busy pool
    /// into errors; too high spends the caller's deadline on one node.
    #[serde(with = "humantime_serde")]
    pub checkout_timeout: Duration,
    /// How long a caller waits for a connection in all: waiting, every checkout and every retry. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub acquire_deadline: Duration,

    /// Connections of the read pool of each node. Default 20. Processes × nodes × pools must fit `max_connections`.
    pub read_pool_size: u32,
    /// Connections of the write pool of the primary. Default 20.
    pub write_pool_size: u32,
    /// A connection unused for this long is closed. Default 10 min.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// A connection older than this is closed when it comes back; jittered down by up to 20 %. Default 1 h. It lets
    /// load move back to a node that returned.
    #[serde(with = "humantime_serde")]
    pub max_lifetime: Duration,
    /// A connection unused for this long is checked with one round trip before use. Default 30 s. Zero checks always,
    /// which costs each statement a round trip.
    #[serde(with = "humantime_serde")]
    pub check_after_idle: Duration,
    /// How long what runs on a node that leaves the cluster may go on. Default 30 s; zero cuts it at once. It should exceed
    /// the longest transaction that must not be cut.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,

    /// Where this process runs. Default: unset, zones count for nothing. Reads then prefer replicas of the same
    /// [`zone`](NodeConfig::zone) while one of them can serve and has fewer requests in flight than `read_pool_size`; others
    /// take what does not fit.
    pub zone: Option<String>,

    /// When a node is left alone after failures.
    pub breaker: BreakerConfig,
    /// How failed attempts are repeated.
    pub retry: RetryConfig,
    /// When a read that keeps its caller waiting is sent to a second replica. Default: `None`, never. It is for single reads:
    /// never within a transaction, never on the primary, and never for a read of priority
    /// [`Batch`](crate::Priority::Batch).
    pub hedge: Option<HedgeConfig>,
    /// How long a replica that has joined, was down, or had its breaker open takes to get its whole share of reads: at first a
    /// tenth, then more along a straight line. Default 10 s; zero gives it all at once. Too short: a server with a cold cache
    /// drowns; too long: the others carry its part. When the router starts every node has its share at once.
    #[serde(with = "humantime_serde")]
    pub slow_start: Duration,

    /// A replica whose proven staleness exceeds this serves no reads. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub max_staleness: Duration,
    /// It serves again once it was under this for two probes. Default 4 s; below `max_staleness`, or it flaps.
    #[serde(with = "humantime_serde")]
    pub max_staleness_return: Duration,
    /// When all replicas exceed `max_staleness`, the least stale ones, up to this many, still serve reads without a
    /// bound, so that they do not all fall on the primary. Default 1; 0 sends them to the primary.
    pub min_serving_replicas: u32,
    /// Replicas stay in use when their WAL receiver is gone *and* no primary is known, as during a failover. Default
    /// true. Their staleness goes on growing all the same.
    pub serve_without_primary: bool,
    /// The servers' `wal_writer_delay`, where clients commit asynchronously: such a commit reaches the log up to three
    /// delays later, which every staleness bound then includes. Default: unset, commits are synchronous.
    #[serde(with = "humantime_serde")]
    pub asynchronous_commit: Option<Duration>,

    /// How much reads may miss where neither the route nor the call says. Default: `Session`. In a file: `"session"`,
    /// `"eventual"`, `"strong"` or `{ bounded_staleness = "2s" }`.
    pub consistency: Consistency,
    /// How long a read waits for a replica to replay what its session has seen, before the primary serves. Default 30 ms.
    /// It waits only while a replica is nearly there: one that is known to lag by more is not waited for.
    #[serde(with = "humantime_serde")]
    pub session_wait: Duration,
    /// How long a token is honoured. Default 5 min. A replica that lags by more than this can show a client less than it has
    /// written; after a failover, tokens of the time before keep their readers on the primary for as long.
    #[serde(with = "humantime_serde")]
    pub token_lifetime: Duration,
    /// What signs tokens. Default: `None`, a random key and one warning; tokens then serve this process alone, so a client
    /// that another process answers next has none.
    pub token_keys: Option<TokenKeys>,

    /// No write begins on a confirmation of the primary that is older than this. Default: three `probe_interval`s, at
    /// least 1 s. It must stay below the time that the failover engine takes to promote another node.
    #[serde(with = "humantime_serde")]
    pub writer_lease: Option<Duration>,
    /// Standbys that must be seen on the primary's timeline before it gets writes. Default 0. With 1 or more an
    /// isolated old primary gets nothing.
    pub write_quorum: u32,
    /// Whether nobody is accepted as the primary whom the authority that the cluster [follows](crate::Cluster::follow), such as
    /// Patroni, does not name as its leader. Default false: its silence stops nothing that the servers confirm. True stops
    /// writes whenever it is silent. Without an authority it must be false.
    pub authority_required: bool,
    /// How long a write waits for a primary. Default 5 s; it lies within `acquire_deadline`.
    #[serde(with = "humantime_serde")]
    pub write_wait: Duration,
    /// How many writes may wait for a primary at once; more fail at once. Default 1,000.
    pub write_waiters: u32,

    /// Reads on the primary at once because no replica can serve. Default: half of `read_pool_size`. More are shed, so
    /// that the loss of the replicas does not take the primary down. A single node has no such cap: there is no replica
    /// to lose.
    pub fallback_no_replica: Option<u32>,
    /// Reads on the primary at once because their token is ahead of every replica. Default: half of `read_pool_size`.
    pub fallback_behind_token: Option<u32>,
    /// How many of such reads may begin a second, for each of the two caps. Default: unset, any number. It protects a primary that
    /// short reads would drown without ever being many at once.
    pub fallback_rate: Option<u32>,
}

impl Default for RouterConfig {
    fn default() -> Self {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        Self {
            nodes: Vec::new(),
            probe_interval: millis(250),
            suspect_probe_interval: millis(50),
            probe_timeout: secs(1),
            connect_timeout: secs(2),
            checkout_timeout: secs(1),
            acquire_deadline: secs(5),
            read_pool_size: 20,
            write_pool_size: 20,
            idle_timeout: secs(10 * 60),
            max_lifetime: secs(60 * 60),
            check_after_idle: secs(30),
            drain_timeout: secs(30),
            zone: None,
            breaker: BreakerConfig::default(),
            retry: RetryConfig::default(),
            hedge: None,
            slow_start: secs(10),
            max_staleness: secs(5),
            max_staleness_return: secs(4),
            min_serving_replicas: 1,
            serve_without_primary: true,
            asynchronous_commit: None,
            consistency: Consistency::Session,
            session_wait: millis(30),
            token_lifetime: secs(5 * 60),
            token_keys: None,
            writer_lease: None,
            write_quorum: 0,
            authority_required: false,
            write_wait: secs(5),
            write_waiters: 1_000,
            fallback_no_replica: None,
            fallback_behind_token: None,
            fallback_rate: None,
        }
    }
}

impl RouterConfig {
    /// The `writer_lease` in force.
    #[must_use]
    pub fn writer_lease(&self) -> Duration {
        self.writer_lease.unwrap_or_else(|| (3 * self.probe_interval).max(Duration::from_secs(1)))
    }

    /// The `fallback_no_replica` cap in force.
    #[must_use]
    pub fn fallback_no_replica(&self) -> u32 {
        self.fallback_no_replica.unwrap_or_else(|| self.read_pool_size.div_ceil(2))
    }

    /// The `fallback_behind_token` cap in force.
    #[must_use]
    pub fn fallback_behind_token(&self) -> u32 {
        self.fallback_behind_token.unwrap_or_else(|| self.read_pool_size.div_ceil(2))
    }

    /// What to add to a staleness bound for commits that reach the log late.
    pub(crate) fn commit_delay(&self) -> Duration {
        self.asynchronous_commit.map_or(Duration::ZERO, |wal_writer_delay| 3 * wal_writer_delay)
    }

    /// A configuration from a TOML file, as [`from_toml`](Self::from_toml). Reading the file again and handing the result to
    /// [`Cluster::reload`](crate::Cluster::reload) has nodes join and leave without a restart.
    ///
    /// # Errors
    /// [`ConfigError::File`] when it cannot be read; [`ConfigError::Toml`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), kind: error.kind() })?;
        Self::from_toml(&text)
    }

    /// A configuration from TOML text; names left out are `host:port`.
    ///
    /// # Errors
    /// [`ConfigError::Toml`] when the text does not parse or names an unknown field; it does not repeat the text.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        // The parser's own words can repeat a value, and a value can be a password.
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let mut config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Toml { line: error.span().map_or(1, |span| line(span.start)) })?;
        for node in &mut config.nodes {
            if node.name.is_empty() {
                node.name = format!("{}:{}", node.url.host(), node.url.port());
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> RouterConfig {
        RouterConfig::from_toml("[[nodes]]\nurl = 'postgres://a@h/d'\n[[nodes]]\nurl = 'postgres://a@i/d'")
            .unwrap()
    }

    #[test]
    fn the_defaults_hold_their_own_rules() {
        assert_eq!(valid().validate(), Ok(()));
    }

    #[test]
    fn a_file_sets_durations_in_words_and_names_nodes_by_address() {
        let config = RouterConfig::from_toml(
            "probe_interval = '100ms'\nmax_staleness = '2m'\nconsistency = { bounded_staleness = '2s' }\n[breaker]\nfailures = 3\n[[nodes]]\nname = 'a'\nurl = 'postgres://u:p@h:6000/d'\n[[nodes]]\nurl = 'postgres://u:p@h:6001/d'\n",
        )
        .unwrap();
        assert_eq!(config.probe_interval, Duration::from_millis(100));
        assert_eq!(config.max_staleness, Duration::from_secs(120));
        assert_eq!(config.consistency, Consistency::BoundedStaleness(Duration::from_secs(2)));
        assert_eq!(config.breaker.failures, 3);
        assert_eq!(config.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["a", "h:6001"]);
    }

    #[test]
    fn a_file_with_an_unknown_field_or_a_bad_url_is_refused_without_its_password() {
        let unknown = RouterConfig::from_toml("[breaker]\nfailures = 1\nfailure = 2").unwrap_err();
        assert_eq!(unknown, ConfigError::Toml { line: 3 });
        for text in [
            "nodes = 'hunter2'",
            "nodes = ['hunter2']",
            "probe_interval = 'hunter2'",
            "hunter2",
            "probe_intervall = '1s'",
            "[[nodes]]\nurl = 'mysql://u:hunter2@h/d'",
            "[[nodes]]\nurl = 'postgres://u:hunter2@/d'",
        ] {
            let error = RouterConfig::from_toml(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
