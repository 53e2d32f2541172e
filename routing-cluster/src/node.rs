//! One node of a cluster, as the cluster directory records it.

use std::path::PathBuf;

use crate::{layout::Layout, state::NodePlan};

/// One PostgreSQL server of a cluster. Its role is not recorded: the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeRecord {
    /// The node's name: `pg1` was born the primary, `pg2`, `pg3`, … its replicas.
    pub name: String,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The server's data directory.
    pub data_dir: PathBuf,
    /// Where the server writes what it has to say.
    pub log_file: PathBuf,
    /// The directory of the server's Unix socket; `None` when its path would be too long for one.
    pub socket_dir: Option<PathBuf>,
}

impl NodeRecord {
    pub(crate) fn new(layout: &Layout, state: &NodePlan) -> NodeRecord {
        NodeRecord {
            name: state.name.clone(),
            port: state.port,
            data_dir: layout.data_dir(&state.name),
            log_file: layout.log_file(&state.name),
            socket_dir: layout.socket_dir(),
        }
    }

    /// Whether the server, when it starts, starts as a standby; while it runs, only it knows its role.
    #[must_use]
    pub fn starts_as_standby(&self) -> bool {
        self.data_dir.join("standby.signal").exists()
    }
}
