//! What tells a cluster which servers it has.
//!
//! | | says | asked |
//! |---|---|---|
//! | [`FileDiscovery`] | the nodes of a configuration file | on request |
//! | `DnsDiscovery` (feature `dns`) | every address of a name | when the answer's time is over |
//! | `Patroni` (feature `patroni`) | the members of a Patroni cluster, and who leads it | every two seconds, and when a claim changes |
//!
//! Whatever they say, who is primary and how stale a replica is comes from the servers themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::authority::Leader;
use crate::config::{NodeConfig, RouterConfig};

/// Finds the servers of a cluster. See [`Cluster::follow`](crate::Cluster::follow).
///
/// It is *not* responsible for time: the router asks again when [`Discovered::ask_again`] says so or when it needs to
/// know, and gives up an answer that takes longer than [`patience`](Self::patience).
pub trait Discovery: Send + Sync + 'static {
    /// Asks now.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    fn discover(&self) -> BoxFuture<'_, Result<Discovered, DiscoveryError>>;

    /// Whether it also decides who may lead: then [`Discovered::leader`] counts, and its silence is noted.
    fn is_authority(&self) -> bool {
        false
    }

    /// How long one answer may take. Default 2 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// One word for logs and the status page: `file`, `dns`, `patroni`.
    fn kind(&self) -> &'static str;
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovered {
    /// The servers. An empty list is taken as no answer: the last good one stays.
    pub nodes: Vec<NodeConfig>,
    /// Who leads, if an authority says so.
    pub leader: Option<Leader>,
    /// When to ask again at the latest; jittered by ±20 %. `None`: only on request.
    pub ask_again: Option<Duration>,
}

/// Why nothing was found. The last good answer stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} does not say which servers there are: {why}")]
pub struct DiscoveryError {
    /// Who was asked, without credentials.
    pub asked: Arc<str>,
    /// What came of it.
    pub why: Arc<str>,
    /// When to ask again at the latest. `None`: only on request.
    pub ask_again: Option<Duration>,
}

/// The nodes of a configuration file, read on request: at the start and at each
/// [`Cluster::rediscover`](crate::Cluster::rediscover). What else the file says is left aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiscovery {
    path: PathBuf,
}

impl FileDiscovery {
    /// Reads this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Discovery for FileDiscovery {
    fn discover(&self) -> BoxFuture<'_, Result<Discovered, DiscoveryError>> {
        Box::pin(async {
            let read = RouterConfig::from_file(&self.path);
            let nodes = read.map(|config| config.nodes).map_err(|error| DiscoveryError {
                asked: self.path.display().to_string().into(),
                why: error.to_string().into(),
                ask_again: None,
            })?;
            Ok(Discovered { nodes, leader: None, ask_again: None })
        })
    }

    fn kind(&self) -> &'static str {
        "file"
    }
}

impl RouterConfig {
    /// The same with the nodes that a discovery finds now, instead of those that it has.
    ///
    /// # Errors
    /// When nothing is found. Whoever has a list of nodes to begin with may go on with that.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn discovered(self, discovery: &dyn Discovery) -> Result<Self, DiscoveryError> {
        let failed =
            |why: &str| DiscoveryError { asked: discovery.kind().into(), why: why.into(), ask_again: None };
        let found = tokio::time::timeout(discovery.patience(), discovery.discover());
        let nodes = found.await.map_err(|_| failed("it did not answer in time"))??.nodes;
        if nodes.is_empty() { Err(failed("it names none")) } else { Ok(Self { nodes, ..self }) }
    }
}
