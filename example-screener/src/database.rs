//! Which database the screener runs on: one that is named, or a cluster of its own.

use std::path::{Path, PathBuf};

use routing_cluster::{
    ClusterOptions, DownError, LocalCluster, Login, NodeState, OpenError, Progress, UnknownNode, UpError,
};
use routing_core::{ConfigError, InvalidUrl, NodeConfig, RouterConfig};

/// The variable that names a database. Without it the screener starts a cluster.
const VARIABLE: &str = "DATABASE_PRIMARY_URL";

/// The database that the screener runs on.
#[derive(Debug)]
pub struct Database {
    /// What a router needs to know of it.
    pub config: RouterConfig,
    /// Where that was found.
    pub source: Source,
    /// The cluster that was started for it, if one was.
    own: Option<LocalCluster>,
}

/// What says which servers there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The process's environment, which does not change while it runs.
    Environment,
    /// A configuration file.
    File(PathBuf),
    /// A cluster in this directory.
    Cluster(PathBuf),
}

impl Source {
    /// Reads it again.
    ///
    /// # Errors
    /// When it no longer names a database rightly.
    pub async fn read(&self) -> Result<RouterConfig, DatabaseError> {
        match self {
            Self::Environment => Ok(RouterConfig::from_env()?),
            // Tokens must serve every process, whatever names its servers.
            Self::File(path) => Ok(RouterConfig::from_file(path)?.with_keys_from_env()?),
            Self::Cluster(dir) => of_cluster(&LocalCluster::open(dir).await?),
        }
    }
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The environment, or the configuration file, names one wrongly.
    #[error("the configuration names a database that cannot be used")]
    Configuration(#[from] ConfigError),
    /// The cluster did not start.
    #[error("the cluster did not start")]
    Up(#[from] UpError),
    /// The cluster runs already and cannot be used.
    #[error("the running cluster cannot be used")]
    Open(#[from] OpenError),
    /// A node of the cluster has no address.
    #[error("a node of the cluster has no address")]
    Node(#[from] UnknownNode),
    /// A node's address is wrong.
    #[error("a node of the cluster has a wrong address")]
    Url(#[from] InvalidUrl),
}

impl Database {
    /// What the configuration file names, if there is one; else what the environment names; else the cluster in `dir`, which is made or started when it does not run.
    ///
    /// # Errors
    /// When the file or the environment names a database wrongly, or the cluster does not come up; then nothing of it is left
    /// running.
    ///
    /// # Cancel safety
    /// Dropping the future kills the servers that it has started; the next call repairs the rest.
    pub async fn find(
        file: Option<&Path>,
        dir: &Path,
        progress: &dyn Progress,
    ) -> Result<Self, DatabaseError> {
        let named = match file {
            Some(file) => Some(Source::File(file.to_owned())),
            None => {
                std::env::var(VARIABLE).is_ok_and(|url| !url.trim().is_empty()).then_some(Source::Environment)
            }
        };
        if let Some(source) = named {
            return Ok(Self { config: source.read().await?, source, own: None });
        }
        let options = ClusterOptions { dir: dir.to_owned(), replicas: 2, ..ClusterOptions::default() };
        // Whoever started it stops it, even if a node of it had to be brought back.
        let ran = ran_already(dir).await;
        let (cluster, owned) = match LocalCluster::up(options, progress).await {
            Ok(cluster) => (cluster, !ran),
            Err(UpError::AlreadyRunning { .. }) => (LocalCluster::open(dir).await?, false),
            Err(error) => return Err(error.into()),
        };
        match of_cluster(&cluster) {
            Ok(config) => {
                let source = Source::Cluster(dir.to_owned());
                Ok(Self { config, source, own: owned.then_some(cluster) })
            }
            Err(error) => {
                if owned && let Err(down) = cluster.down(false).await {
                    tracing::error!("the cluster was not stopped: {down}");
                }
                Err(error)
            }
        }
    }

    /// Whether [`release`](Self::release) stops a cluster.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Stops the cluster that was started for it; its data stays. Does nothing to a database that ran already.
    ///
    /// # Errors
    /// When a server does not stop, not even when killed.
    pub async fn release(self) -> Result<(), DownError> {
        match self.own {
            Some(cluster) => cluster.down(false).await,
            None => Ok(()),
        }
    }
}

/// The defaults, with the nodes that a cluster has.
fn of_cluster(cluster: &LocalCluster) -> Result<RouterConfig, DatabaseError> {
    let nodes = cluster.nodes();
    let nodes = nodes.iter().map(|node| node_config(cluster, &node.name)).collect::<Result<_, _>>()?;
    Ok(RouterConfig { nodes, ..RouterConfig::default() }.with_keys_from_env()?)
}

fn node_config(cluster: &LocalCluster, name: &str) -> Result<NodeConfig, DatabaseError> {
    let url = |login| -> Result<_, DatabaseError> { Ok(cluster.url(name, login)?.parse()?) };
    let mut node = NodeConfig::new(name, url(Login::Application)?);
    node.probe_url = Some(url(Login::Monitor)?);
    Ok(node)
}

/// Whether a server of the cluster in `dir` runs.
async fn ran_already(dir: &Path) -> bool {
    match LocalCluster::open(dir).await {
        Ok(cluster) => cluster.status().await.nodes.iter().any(|node| node.state != NodeState::Stopped),
        Err(_) => false,
    }
}
