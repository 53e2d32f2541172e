//! Removing a replica from a cluster.

use crate::{
    cluster::LocalCluster,
    condition::Condition,
    error::UnknownNode,
    fence::FenceError,
    layout::DirectoryError,
    node::NodeRecord,
    operation::{Operation, OperationError, asked},
    process,
    progress::Progress,
    state::NodePlan,
};

/// Why a replica was not removed, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveReplicaError {
    /// The node is the primary.
    #[error("{node} is the primary: `switchover` to another node first")]
    IsPrimary {
        /// The node.
        node: String,
    },
    /// Other nodes stream from it.
    #[error("{} from {node}: remove them first, or `rejoin` them elsewhere", streams(.followers))]
    HasFollowers {
        /// The node.
        node: String,
        /// Who streams from it.
        followers: Vec<String>,
    },
    /// The node that it streams from cannot be asked to drop the slot.
    #[error("{node} was not removed: its slot would remain and keep WAL for ever")]
    NoUpstream {
        /// The node.
        node: String,
        /// Why its upstream cannot be asked.
        source: OperationError,
    },
    /// The node could not be stopped.
    #[error("{node} was not removed")]
    NotStopped {
        /// The node.
        node: String,
        /// Why.
        source: FenceError,
    },
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

fn streams(followers: &[String]) -> String {
    format!("{} {}", followers.join(" and "), if followers.len() == 1 { "streams" } else { "stream" })
}

impl From<UnknownNode> for RemoveReplicaError {
    fn from(error: UnknownNode) -> RemoveReplicaError {
        RemoveReplicaError::Operation(error.into())
    }
}

impl From<DirectoryError> for RemoveReplicaError {
    fn from(error: DirectoryError) -> RemoveReplicaError {
        RemoveReplicaError::Operation(error.into())
    }
}

impl LocalCluster {
    /// Removes a replica from the cluster: stops it, and drops its slot. `purge` also removes its data.
    ///
    /// # Errors
    ///
    /// The node is the primary, others stream from it, or the node that has its slot does not run.
    ///
    /// # Cancel safety
    ///
    /// A repeated call goes on; until then `start` and `up` leave the node alone.
    pub async fn remove_replica(
        &mut self,
        name: &str,
        purge: bool,
        progress: &dyn Progress,
    ) -> Result<(), RemoveReplicaError> {
        let mut operation = self.operation().await?;
        let node = operation.node(name)?;
        let primary = operation.check_removable(&node).await?;
        operation.state.set_condition(name, Condition::Removing);
        operation.save()?;
        progress.step(&format!("stopping {name}"));
        let not_stopped = |source| RemoveReplicaError::NotStopped { node: node.name.clone(), source };
        operation.fence(&node).await.map_err(not_stopped)?;
        progress.step(&format!("dropping the slot of {name}"));
        for upstream in operation.nodes() {
            // Also where it streamed from once; a node that does not run drops it when it is told whom to follow.
            if upstream.name != name
                && process::postmaster(&upstream.data_dir).is_some_and(|it| !it.is_paused())
            {
                operation.provision().drop_slot(&node, &upstream).await.map_err(asked(&upstream))?;
            }
        }
        if purge {
            progress.step(&format!("removing the data of {name}"));
            operation.remove_data(&node)?;
        }
        operation.state.nodes.retain(|plan| plan.name != name);
        operation.save()?;
        progress.finish(&format!("{name} is removed; {} remains the primary", primary.name));
        let nodes = operation.nodes();
        drop(operation);
        self.set_nodes(nodes);
        Ok(())
    }
}

impl Operation<'_> {
    /// The primary, if the node may go.
    async fn check_removable(&self, node: &NodeRecord) -> Result<NodeRecord, RemoveReplicaError> {
        let no_upstream = |source| RemoveReplicaError::NoUpstream { node: node.name.clone(), source };
        if self.state.condition(&node.name).may_start() && !node.starts_as_standby() {
            return Err(RemoveReplicaError::IsPrimary { node: node.name.clone() });
        }
        let primary = self.primary().await.map_err(no_upstream)?;
        if primary.name == node.name {
            return Err(RemoveReplicaError::IsPrimary { node: node.name.clone() });
        }
        let follows = |plan: &&NodePlan| plan.upstream.as_deref() == Some(&node.name);
        let followers: Vec<String> =
            self.state.nodes.iter().filter(follows).map(|plan| plan.name.clone()).collect();
        if !followers.is_empty() {
            return Err(RemoveReplicaError::HasFollowers { node: node.name.clone(), followers });
        }
        let upstream = self.upstream(node).await.map_err(no_upstream)?;
        self.session(&upstream).await.map_err(no_upstream)?;
        Ok(primary)
    }
}
