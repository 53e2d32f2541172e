//! Opening, checking and ending connections.

use std::sync::Arc;
use std::time::Duration;

use routing_core::pool::{self, CLEANUP_TIMEOUT, Connector, READ_ONLY_OPTION, READ_ONLY_SQL, SESSION_SQL};
use routing_core::{Access, NotWritable};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use crate::target::Target;

/// One node's connections for one kind of access.
pub(crate) type Pool = pool::Pool<SqlxConnector>;

/// A connection out of a pool.
pub(crate) type Pooled = pool::Pooled<SqlxConnector>;

/// An open connection.
pub(crate) struct Physical {
    pub(crate) connection: PgConnection,
    /// The server's process.
    pub(crate) process: Arc<Process>,
    /// How long the server lets it idle, if it ends idle sessions: sqlx does not see that end before it is used again.
    longest_idle: Option<Duration>,
    /// What makes the session what it should be where the start-up option did not, to be said again after each reset.
    pub(crate) restore: Option<&'static str>,
}

/// A process of a server, which serves one connection.
pub(crate) struct Process {
    number: i32,
    /// When it was started, since numbers are used again.
    started: String,
    /// Where to reach the server to end it.
    target: Arc<Target>,
}

/// Opens and checks connections of one node for one kind of access.
pub(crate) struct SqlxConnector {
    target: Arc<Target>,
    access: Access,
}

impl SqlxConnector {
    pub(crate) fn new(target: Target, access: Access) -> Self {
        let target = match access {
            Access::Read => target.with_option(READ_ONLY_OPTION),
            Access::Write => target,
        };
        Self { target: Arc::new(target), access }
    }
}

impl Connector for SqlxConnector {
    type Connection = Physical;
    type Error = sqlx::Error;

    async fn connect(&self) -> Result<Physical, sqlx::Error> {
        let mut connection = self.target.connect().await?;
        let row = sqlx::query(SESSION_SQL).persistent(false).fetch_one(&mut connection).await?;
        if self.access == Access::Write {
            NotWritable::check(row.try_get(1)?, row.try_get(2)?)
                .map_err(|refused| sqlx::Error::AnyDriverError(Box::new(refused)))?;
        }
        let left_out = self.access == Access::Read && !row.try_get::<bool, _>(5)?;
        let restore = left_out.then_some(READ_ONLY_SQL);
        if let Some(restore) = restore {
            sqlx::raw_sql(restore).execute(&mut connection).await?;
        }
        let longest_idle = row.try_get::<Option<i64>, _>(4)?.and_then(|longest| u64::try_from(longest).ok());
        Ok(Physical {
            longest_idle: longest_idle.filter(|longest| *longest > 0).map(Duration::from_millis),
            connection,
            restore,
            process: Arc::new(Process {
                number: row.try_get(0)?,
                started: row.try_get(3)?,
                target: self.target.clone(),
            }),
        })
    }

    fn longest_idle(&self, physical: &Physical) -> Option<Duration> {
        physical.longest_idle
    }

    fn describe(&self, error: &sqlx::Error) -> String {
        self.target.describe(error)
    }

    async fn check(&self, physical: &mut Physical) -> Result<(), sqlx::Error> {
        physical.connection.ping().await
    }
}

const TERMINATE_SQL: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
     WHERE pid = $1 AND backend_start = $2::timestamptz";

impl Process {
    /// Ends it with the statement that nobody waits for any more. (sqlx keeps the key of a cancel request to itself.)
    pub(crate) async fn terminate(&self) {
        let ending = async {
            let mut other = self.target.connect().await?;
            let statement =
                sqlx::query(TERMINATE_SQL).persistent(false).bind(self.number).bind(&self.started);
            statement.execute(&mut other).await?;
            other.close().await
        };
        match tokio::time::timeout(CLEANUP_TIMEOUT, ending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "an abandoned statement could not be ended on the server")
            }
            Err(_) => tracing::debug!("ending an abandoned statement on the server took too long"),
        }
    }
}

/// Ends a connection with its server process.
pub(crate) async fn terminate(object: Pooled) {
    object.process.terminate().await;
    // Only now is its place free: the server process counts among the pool's until it has ended.
    drop(object.discard());
}
