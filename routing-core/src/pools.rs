//! One backend's pools on every node of a cluster. They come and go with the nodes.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::backend::{Backend, PoolStatus};
use crate::config::RouterConfig;
use crate::config_error::ConfigError;
use crate::decision::Access;
use crate::node::Node;
use crate::node_id::NodeId;
use crate::work::Work;

/// What a cluster does with the pools that a backend has on its nodes, whatever the backend.
pub(crate) trait NodePools: Send + Sync {
    /// Sets up the pools of a node, without connecting.
    ///
    /// # Errors
    /// [`ConfigError::Backend`] when the driver cannot use the node's URL.
    fn open(&self, node: &Arc<Node>) -> Result<(), ConfigError>;

    /// Closes a node's idle connections; those in use are closed when they come back.
    fn retire(&self, node: NodeId, access: Access);

    /// Closes every node's idle write connections, and those in use when they come back.
    fn retire_writes(&self);

    /// Closes a node's pools and forgets them.
    fn close(&self, node: NodeId);

    /// Closes all of them, and opens none from now on.
    fn close_all(&self);

    /// What runs on them.
    fn work(&self) -> &Arc<Work>;

    /// Whether every connection is at its place: none is in use, or being restored.
    fn are_idle(&self) -> bool;
}

/// The pools of one backend, by node.
pub(crate) struct Pools<B: Backend> {
    config: Arc<RouterConfig>,
    options: B::Options,
    by_node: ArcSwap<Vec<(NodeId, Arc<B>)>>,
    /// Held while `by_node` changes; whether all were closed for good.
    closed: Mutex<bool>,
    work: Arc<Work>,
}

impl<B: Backend> Pools<B> {
    /// No pools yet.
    pub(crate) fn new(config: Arc<RouterConfig>, options: B::Options) -> Self {
        Self { config, options, by_node: ArcSwap::default(), closed: Mutex::new(false), work: Work::new() }
    }

    pub(crate) fn options(&self) -> &B::Options {
        &self.options
    }

    /// Those of one node; `None` when it has left, or everything was closed.
    pub(crate) fn of(&self, node: &Node) -> Option<Arc<B>> {
        let pools = self.by_node.load();
        pools.iter().find(|(id, _)| *id == node.id()).map(|(_, pools)| pools.clone())
    }

    fn each(&self, node: NodeId, act: impl FnOnce(&B)) {
        if let Some((_, pools)) = self.by_node.load().iter().find(|(id, _)| *id == node) {
            act(pools);
        }
    }
}

impl<B: Backend> NodePools for Pools<B> {
    fn open(&self, node: &Arc<Node>) -> Result<(), ConfigError> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Ok(());
        }
        let opened = (node.id(), Arc::new(B::open(node, &self.config, &self.options)?));
        let mut pools = Vec::clone(&self.by_node.load());
        pools.push(opened);
        self.by_node.store(Arc::new(pools));
        Ok(())
    }

    fn retire(&self, node: NodeId, access: Access) {
        self.each(node, |pools| pools.retire(access));
    }

    fn retire_writes(&self) {
        for (_, pools) in self.by_node.load().iter() {
            pools.retire(Access::Write);
        }
    }

    fn close(&self, node: NodeId) {
        let _changing = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        self.each(node, B::close);
        let mut pools = Vec::clone(&self.by_node.load());
        pools.retain(|(id, _)| *id != node);
        self.by_node.store(Arc::new(pools));
    }

    fn close_all(&self) {
        self.work.close();
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = true;
        for (_, pools) in self.by_node.swap(Arc::default()).iter() {
            pools.close();
        }
    }

    fn work(&self) -> &Arc<Work> {
        &self.work
    }

    fn are_idle(&self) -> bool {
        let idle = |pools: &B, access| {
            let PoolStatus { open, idle, .. } = pools.pool(access);
            open == idle
        };
        self.by_node.load().iter().all(|(_, pools)| idle(pools, Access::Read) && idle(pools, Access::Write))
    }
}
