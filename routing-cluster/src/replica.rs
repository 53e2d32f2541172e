//! Adding a replica to a running cluster.

use std::{fs, io};

use crate::{
    cluster::LocalCluster,
    error::UnknownNode,
    layout::DirectoryError,
    node::NodeRecord,
    operation::{Operation, OperationError, asked, files},
    ports::{PortError, Reservation},
    process::{self, KillGuard},
    progress::Progress,
    provision::ProvisionError,
    state::{NodePlan, is_name},
    up::MOST_REPLICAS,
};

/// Ports tried after the last node's before the search gives up.
const PORTS_TRIED: u16 = 100;
/// PostgreSQL's longest name of a slot, which is the node's name.
pub(crate) const LONGEST_NAME: usize = 63;

/// Why no replica was added. What was begun is removed again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddReplicaError {
    /// The name cannot name a node.
    #[error(
        "{name:?} cannot name a node: use lower-case letters, digits and underscores, at most {LONGEST_NAME}"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// A node, or something else in the cluster's directory, has the name.
    #[error(
        "{name} exists already in the cluster's directory: choose another name, or remove it with `remove-replica {name} --purge`"
    )]
    Exists {
        /// The name.
        name: String,
    },
    /// The cluster has as many replicas as it can feed.
    #[error("the cluster has {replicas} replicas already, the most that it can have")]
    TooMany {
        /// Its replicas.
        replicas: usize,
    },
    /// The new node could not be made.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

macro_rules! from_shared {
    ($($cause:ty),*) => {$(
        impl From<$cause> for AddReplicaError {
            fn from(error: $cause) -> AddReplicaError {
                AddReplicaError::Operation(error.into())
            }
        }
    )*};
}
from_shared!(UnknownNode, DirectoryError, PortError);

impl LocalCluster {
    /// Adds a streaming replica, on the first free port after the others'; returns it when it streams.
    ///
    /// It is called `name`, or the next of `pg1`, `pg2`, …, and copies and follows the node `from`, or the primary. A
    /// replica of a replica costs the primary nothing, and lags behind both.
    ///
    /// # Errors
    ///
    /// The name is taken, the node to copy does not run, or the new node could not be made; then nothing is left of it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what works on the new node. A repeated call, or `up`, makes it again.
    pub async fn add_replica(
        &mut self,
        name: Option<&str>,
        from: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<NodeRecord, AddReplicaError> {
        let mut operation = self.operation().await?;
        let upstream = match from {
            Some(from) => operation.node(from)?,
            None => operation.primary().await?,
        };
        operation.session(&upstream).await?;
        operation.forget_half_made(progress).await?;
        let node = operation.plan_replica(name, &upstream).await?;
        progress.step(&format!("copying {} to {} on port {}", upstream.name, node.name, node.port));
        let made = {
            let mut guard = KillGuard::default();
            guard.watch(node.data_dir.clone());
            let made = operation.provision().replica(&node, &upstream).await;
            if made.is_ok() {
                guard.disarm();
            }
            made
        };
        if let Err(error) = made {
            // The first error counts; what cannot be removed now, the next call finds in the state file.
            let _ = operation.forget_half_made(progress).await;
            return Err(error.into());
        }
        operation.state.complete(&node.name);
        operation.save()?;
        progress.finish(&format!("{} on port {} streams from {}", node.name, node.port, upstream.name));
        let nodes = operation.nodes();
        drop(operation);
        self.set_nodes(nodes);
        Ok(node)
    }
}

impl Operation<'_> {
    /// Removes what an interrupted or failed attempt to add a replica has left.
    async fn forget_half_made(&mut self, progress: &dyn Progress) -> Result<(), OperationError> {
        let half_made = self.state.nodes.iter().filter(|plan| !plan.complete);
        let half_made: Vec<NodeRecord> = half_made.map(|plan| NodeRecord::new(self.layout, plan)).collect();
        for node in half_made {
            progress.step(&format!("removing the half-made {}", node.name));
            self.remove_data(&node)?;
            if let Ok(upstream) = self.upstream(&node).await {
                self.provision().drop_slot(&node, &upstream).await.map_err(asked(&upstream))?;
            }
            self.state.nodes.retain(|plan| plan.name != node.name);
            self.save()?;
        }
        Ok(())
    }

    pub(crate) fn remove_data(&self, node: &NodeRecord) -> Result<(), OperationError> {
        let remove = || {
            process::end_family(&node.data_dir)?;
            match fs::remove_dir_all(self.layout.node_dir(&node.name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        remove().map_err(files("remove the data of", node))
    }

    /// Writes the new node down before anything of it exists, and holds its port.
    async fn plan_replica(
        &mut self,
        name: Option<&str>,
        upstream: &NodeRecord,
    ) -> Result<NodeRecord, AddReplicaError> {
        let replicas = self.state.nodes.len() - 1;
        if replicas >= usize::try_from(MOST_REPLICAS).unwrap_or(usize::MAX) {
            return Err(AddReplicaError::TooMany { replicas });
        }
        let name = name.map_or_else(|| self.next_name(), str::to_owned);
        if !is_name(&name) || name.len() > LONGEST_NAME {
            return Err(AddReplicaError::BadName { name });
        }
        let taken = self.state.nodes.iter().any(|plan| plan.name == name);
        if taken || self.layout.node_dir(&name).symlink_metadata().is_ok() {
            return Err(AddReplicaError::Exists { name });
        }
        let port = self.hold_next_port()?;
        let primary = self.primary().await?;
        let of = (upstream.name != primary.name).then(|| upstream.name.clone());
        let plan = NodePlan::new(name, port, of);
        let node = NodeRecord::new(self.layout, &plan);
        self.state.nodes.push(plan);
        self.save()?;
        Ok(node)
    }

    /// One more than the highest number, counting the directories of removed nodes.
    fn next_name(&self) -> String {
        let entries = fs::read_dir(self.layout.dir()).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.chain(self.state.nodes.iter().map(|plan| plan.name.clone()));
        let highest = names.filter_map(|name| name.strip_prefix("pg")?.parse::<u32>().ok()).max();
        format!("pg{}", highest.unwrap_or(0).saturating_add(1))
    }

    fn hold_next_port(&mut self) -> Result<u16, PortError> {
        let first = self.state.nodes.iter().map(|plan| plan.port).max().unwrap_or(0).saturating_add(1);
        let mut taken = PortError::Overflow { first, count: 1 };
        for port in first..=first.saturating_add(PORTS_TRIED) {
            match Reservation::of(&[port]) {
                Ok(held) => {
                    self.ports = held;
                    return Ok(port);
                }
                Err(error) => taken = error,
            }
        }
        Err(taken)
    }
}
