//! What a test sees of a decision, a node and an error.

use routing_core::{Backend, NodeStatus, Refusals, RouteError, Router};

use crate::handle::Handle;
use crate::orm::Orm;

/// Asks a server for its name: `cluster_name`, unless an engine has given that to the whole cluster.
pub const NAME: &str =
    "SELECT coalesce(nullif(current_setting('routing.node', true), ''), current_setting('cluster_name'))";

/// The name of the node that answers, as its server knows it.
///
/// # Errors
/// The statement's.
pub async fn served_by<O: Orm>(db: &impl Handle<O>) -> Result<String, O::Failure> {
    db.text(NAME).await
}

/// The same by a statement that takes at least that many seconds on the server.
///
/// # Errors
/// The statement's.
pub async fn served_by_slowly<O: Orm>(db: &impl Handle<O>, seconds: f64) -> Result<String, O::Failure> {
    db.text(&slowly(seconds)).await
}

/// A statement that asks a server for its name and takes at least that many seconds.
#[must_use]
pub fn slowly(seconds: f64) -> String {
    format!("{NAME}, pg_sleep({seconds})::text")
}

/// Why each node was refused, if the error says so.
#[must_use]
pub fn refusals(error: &RouteError) -> Option<&Refusals> {
    match error {
        RouteError::NoNode(refusals)
        | RouteError::NoPrimary(refusals)
        | RouteError::Overloaded { refusals, .. }
        | RouteError::DeadlineExceeded { refusals, .. } => Some(refusals),
        _ => None,
    }
}

/// One node's part of a router's status.
pub trait NodeView {
    /// The status of the node with this name.
    ///
    /// # Panics
    /// When there is none.
    fn node(&self, name: &str) -> NodeStatus;

    /// Whether a node is refused for a reason with these words.
    fn refuses(&self, name: &str, words: &str) -> bool {
        self.node(name).refused.is_some_and(|refused| refused.contains(words))
    }

    /// Whether a node may serve reads.
    fn serves(&self, name: &str) -> bool {
        self.node(name).serving
    }

    /// Lets a node have new work, or none.
    ///
    /// # Panics
    /// When there is no node with this name.
    fn drain(&self, name: &str, draining: bool);
}

impl<B: Backend> NodeView for Router<B> {
    fn node(&self, name: &str) -> NodeStatus {
        let nodes = self.status().nodes;
        nodes.into_iter().find(|node| node.name == name).expect("the router knows all nodes of the cluster")
    }

    fn drain(&self, name: &str, draining: bool) {
        let nodes = self.cluster().nodes();
        let node = nodes.iter().find(|node| node.name() == name);
        node.expect("the router knows all nodes of the cluster").set_draining(draining);
    }
}
