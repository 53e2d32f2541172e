//! Nodes that join, leave and drain while the router runs.
//!
//! A node that joins starts without connections and serves once the monitor has seen it. One that leaves gets no new
//! work at once; what runs on it may end within `drain_timeout`, then its reads move on, its writes are reported as
//! unknown, and its pools are closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::{NodeConfig, RouterConfig};
use crate::decision::Access;
use crate::membership::{MembershipChange, MembershipError};
use crate::node::Node;
use crate::shared::Shared;

/// How often a node that leaves is looked at.
const LOOK: Duration = Duration::from_millis(20);

impl Cluster {
    /// All nodes, in the order of the configuration; those that joined later come last.
    #[must_use]
    pub fn nodes(&self) -> Arc<[Arc<Node>]> {
        self.shared().membership.nodes()
    }

    /// The node with this name.
    ///
    /// # Errors
    /// [`MembershipError::UnknownNode`].
    pub fn node(&self, name: &str) -> Result<Arc<Node>, MembershipError> {
        let nodes = self.nodes();
        let found = nodes.iter().find(|node| node.name() == name).cloned();
        found.ok_or_else(|| unknown(name, &nodes))
    }

    /// Has a server join. It serves once the monitor has seen it, and starts without connections.
    ///
    /// # Errors
    /// [`MembershipError::Config`] when its name is taken or empty, its weight is 0, or a backend cannot use its URL.
    pub fn add_node(&self, config: NodeConfig) -> Result<Arc<Node>, MembershipError> {
        let name = config.name.clone();
        self.change_nodes(|mut configs| {
            configs.push(config);
            Ok(configs)
        })?;
        self.node(&name)
    }

    /// Has a server leave. It gets no new work from now on; what runs on it may end within `drain_timeout`.
    ///
    /// When it was the primary, writes wait for another one: the accepted timeline is not forgotten. The node is returned
    /// so that its [`in_flight`](Node::in_flight) can be watched.
    ///
    /// # Errors
    /// [`MembershipError::UnknownNode`]; [`MembershipError::Config`] when it is the last node, or too few would be left for
    /// `write_quorum`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn remove_node(&self, name: &str) -> Result<Arc<Node>, MembershipError> {
        let node = self.node(name)?;
        self.change_nodes(|mut configs| {
            let before = configs.len();
            configs.retain(|config| config.name != name);
            if configs.len() < before { Ok(configs) } else { Err(unknown(name, &self.nodes())) }
        })?;
        Ok(node)
    }

    /// Has exactly these servers as nodes from now on. A node whose URL changed leaves and joins anew; what else changed
    /// about it takes effect in place. A node keeps its breaker, its counters and whether it drains.
    ///
    /// # Errors
    /// [`MembershipError::Config`] when the list breaks a rule or a backend cannot use a URL. Nothing is changed then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn set_nodes(&self, configs: Vec<NodeConfig>) -> Result<MembershipChange, MembershipError> {
        self.change_nodes(|_| Ok(configs))
    }

    /// Takes over the nodes of a configuration that was read again, and says which other settings differ: those take
    /// effect with the next start.
    ///
    /// # Errors
    /// As [`set_nodes`](Self::set_nodes); also when the configuration breaks a rule.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn reload(&self, config: RouterConfig) -> Result<MembershipChange, MembershipError> {
        config.validate()?;
        let needs_restart = self.config().differences(&config);
        let change = self.set_nodes(config.nodes)?;
        Ok(MembershipChange { needs_restart, ..change })
    }

    /// The one place where nodes come and go.
    fn change_nodes(
        &self,
        wanted: impl FnOnce(Vec<NodeConfig>) -> Result<Vec<NodeConfig>, MembershipError>,
    ) -> Result<MembershipChange, MembershipError> {
        if self.is_closed() {
            return Err(MembershipError::Closed);
        }
        let shared = self.shared();
        let changing = shared.membership.changing();
        let old = shared.membership.nodes();
        let configs = wanted(old.iter().map(|node| node.current_config()).collect())?;
        shared.config.validate_nodes(&configs)?;

        let mut change = MembershipChange::default();
        let (mut new, mut joining) = (Vec::with_capacity(configs.len()), Vec::new());
        for config in configs {
            let known = old.iter().find(|node| node.name() == config.name);
            if let Some(node) = known.filter(|node| node.is_reached_by(&config)) {
                if node.adjust(&config) {
                    change.adjusted.push(node.shared_name().clone());
                }
                new.push(node.clone());
                continue;
            }
            let node = Arc::new(Node::of(config, &shared.config));
            node.cool();
            if let Some(known) = known {
                node.set_draining(known.is_draining());
            }
            let list = if known.is_some() { &mut change.replaced } else { &mut change.added };
            list.push(node.shared_name().clone());
            joining.push(node.clone());
            new.push(node);
        }
        changing.open(&joining)?;
        let leaving: Vec<_> =
            old.iter().filter(|node| !new.iter().any(|kept| kept.id() == node.id())).cloned().collect();
        let gone = leaving.iter().filter(|node| !new.iter().any(|kept| kept.name() == node.name()));
        change.removed.extend(gone.map(|node| node.shared_name().clone()));
        if !(joining.is_empty() && leaving.is_empty() && change.adjusted.is_empty()) {
            tracing::info!(
                added = ?change.added, removed = ?change.removed, replaced = ?change.replaced,
                adjusted = ?change.adjusted, "the nodes of the cluster change"
            );
        }
        for node in &leaving {
            node.set_draining(true);
        }
        changing.finish(new);
        for node in leaving {
            let_go(shared.clone(), node);
        }
        Ok(change)
    }
}

/// Waits for the end of what runs on a node that has left, for a while, and closes its pools.
fn let_go(shared: Arc<Shared>, node: Arc<Node>) {
    shared.membership.retire(node.id(), Access::Read);
    shared.membership.retire(node.id(), Access::Write);
    tokio::spawn(async move {
        let limit = Instant::now() + shared.config.drain_timeout;
        while node.in_flight() > 0 && Instant::now() < limit {
            tokio::time::sleep(LOOK).await;
        }
        let (name, left) = (node.name(), node.in_flight());
        if left > 0 {
            tracing::warn!(
                node = name,
                in_flight = left,
                "node {name} has left; what still ran on it is cut"
            );
            node.declare_lost();
        }
        shared.membership.close(node.id());
    });
}

fn unknown(name: &str, nodes: &[Arc<Node>]) -> MembershipError {
    let nodes: Vec<&str> = nodes.iter().map(|node| node.name()).collect();
    MembershipError::UnknownNode { name: name.to_owned(), nodes: nodes.join(", ") }
}
