//! Servers that a test asks past the router, whoever runs them.

use tokio_postgres::types::FromSqlOwned;

use crate::database::Database;

/// Servers known by their names, with the superuser's way in.
pub trait Servers: Sync {
    /// A connection of the superuser to the application's database.
    ///
    /// # Panics
    /// When the node does not let us in.
    fn superuser(&self, node: &str) -> impl Future<Output = Database> + Send;

    /// Runs statements as the superuser.
    ///
    /// # Panics
    /// When one fails.
    fn sql(&self, node: &str, sql: &str) -> impl Future<Output = ()> + Send {
        async move {
            let ran = self.superuser(node).await.run(sql).await;
            ran.unwrap_or_else(|error| panic!("{sql} on {node}: {error:?}"));
        }
    }

    /// Asks for one value as the superuser.
    ///
    /// # Panics
    /// When the query fails.
    fn value<T: FromSqlOwned + Send>(&self, node: &str, sql: &str) -> impl Future<Output = T> + Send {
        async move {
            let answer = self.superuser(node).await.value(sql).await;
            answer.unwrap_or_else(|error| panic!("{sql} on {node}: {error:?}"))
        }
    }

    /// How many server processes of the application there are on a node.
    ///
    /// # Panics
    /// When the query fails.
    fn app_processes(&self, node: &str) -> impl Future<Output = i64> + Send {
        self.value(node, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")
    }
}
