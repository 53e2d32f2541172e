//! What a new cluster is to be.

use std::path::PathBuf;

use crate::access::Network;

/// What a new cluster is to be. An existing one keeps what it was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterOptions {
    /// The cluster's directory. Default: `./.cluster`.
    pub dir: PathBuf,
    /// Replicas beside the primary, 0 to 8. Default: 2. Each costs about 15 MB of memory, and on disk about
    /// 90 MB (30 MB if not durable).
    pub replicas: u32,
    /// The primary's port; the replicas' ports follow it. Default: 5500. 0 takes free ports below 32768.
    pub port: u16,
    /// Whether the servers flush to disk. Default: true. False makes a cluster in a fraction of the time, for
    /// tests; the crash of a server loses nothing even then, the crash of the machine may lose everything.
    pub durable: bool,
    /// Whether the servers let only encrypted connections in and show a certificate, signed by an authority that is made
    /// with the cluster; URLs then ask for `sslmode=verify-full`. Default: false.
    pub tls: bool,
    /// The networks whose machines may connect beside this one, as the application, the monitor or a replica. A network
    /// beyond loopback needs `tls`, and makes the servers listen on all addresses. Default: none.
    pub allow: Vec<Network>,
    /// Whether finished WAL is archived, in `DIR-archive` beside the directory, which outlives the cluster: with a backup
    /// it leads back to any moment since. Also switched on for an existing cluster that does not run; never off. Default:
    /// false.
    pub archive: bool,
    /// A folder of templates, for tests that make many clusters: the first cluster of a release leaves its empty beginning
    /// there, and later ones copy it, which takes a third of the time. **All of them have the same system identifier and the
    /// same passwords.** Only for clusters that are not `durable`. Default: none.
    pub template: Option<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        ClusterOptions {
            dir: PathBuf::from(".cluster"),
            replicas: 2,
            port: 5500,
            durable: true,
            tls: false,
            allow: Vec::new(),
            archive: false,
            template: None,
        }
    }
}
