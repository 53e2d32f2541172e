//! What a test sees of a decision, a node and an error.

use routing_core::{NodeStatus, Refusals, RouteError, Router};
use routing_seaorm::SeaOrm;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, RuntimeErr, Statement};

/// The name of the node that answers, as its server knows it.
///
/// # Errors
/// The statement's.
pub async fn served_by(db: &impl ConnectionTrait) -> Result<String, DbErr> {
    name_of_server(db, "SELECT current_setting('cluster_name')".to_owned()).await
}

/// The same by a statement that takes at least that many seconds on the server.
///
/// # Errors
/// The statement's.
pub async fn served_by_slowly(db: &impl ConnectionTrait, seconds: f64) -> Result<String, DbErr> {
    name_of_server(db, format!("SELECT current_setting('cluster_name'), pg_sleep({seconds})::text")).await
}

async fn name_of_server(db: &impl ConnectionTrait, sql: String) -> Result<String, DbErr> {
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.ok_or_else(|| DbErr::Custom("a SELECT without FROM has one row".to_owned()))?.try_get_by_index(0)
}

/// The server's code of an error, if a server made it.
#[must_use]
pub fn sqlstate(error: &DbErr) -> Option<String> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error.as_database_error()?.code()?.into_owned()),
        _ => None,
    }
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

impl NodeView for Router<SeaOrm> {
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
