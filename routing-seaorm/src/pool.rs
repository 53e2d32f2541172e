//! Opening, checking and keeping connections.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult, TimeoutType};
use deadpool::{Runtime, Status};
use routing_core::{Access, Node, PoolStatus, RouterConfig};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::error::{Error, NotWritable, wrap};

/// Read once for each new connection: whom to end on the server when its statement is abandoned, and whether the server
/// is one to write to.
const SESSION_SQL: &str = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(), \
     pg_catalog.current_setting('transaction_read_only') = 'on'";

/// A pooled connection.
#[derive(Debug)]
pub(crate) struct Physical {
    pub(crate) connection: PgConnection,
    /// The server's process.
    pub(crate) process: i32,
    /// The node's generation when the connection was opened or last checked.
    generation: u64,
    /// How old it may become; drawn for each connection so that a pool does not renew itself all at once.
    lifetime: Duration,
}

/// Opens and checks connections of one node for one kind of access.
#[derive(Debug)]
pub(crate) struct Manager {
    options: PgConnectOptions,
    access: Access,
    node: Arc<Node>,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    connect_timeout: Duration,
    checkout_timeout: Duration,
    check_after_idle: Duration,
    idle_timeout: Duration,
    max_lifetime: Duration,
}

impl managed::Manager for Manager {
    type Type = Physical;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Physical, sqlx::Error> {
        let generation = self.node.generation();
        let mut connection = PgConnection::connect_with(&self.options).await?;
        let row = sqlx::query(SESSION_SQL).persistent(false).fetch_one(&mut connection).await?;
        if self.access == Access::Write {
            verify_writable(row.try_get(1)?, row.try_get(2)?)
                .map_err(|refused| sqlx::Error::AnyDriverError(Box::new(refused)))?;
        }
        let lifetime = self.limits.max_lifetime.mul_f64(1.0 - 0.2 * fastrand::f64());
        Ok(Physical { connection, process: row.try_get(0)?, generation, lifetime })
    }

    async fn recycle(&self, physical: &mut Physical, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        let idle = metrics.last_used();
        if metrics.age() > physical.lifetime || idle > self.limits.idle_timeout {
            return Err(RecycleError::message("too old or idle for too long"));
        }
        let generation = self.node.generation();
        if physical.generation != generation || idle > self.limits.check_after_idle {
            physical.connection.ping().await?;
            physical.generation = generation;
        }
        Ok(())
    }
}

fn verify_writable(in_recovery: bool, read_only: bool) -> Result<(), NotWritable> {
    match (in_recovery, read_only) {
        (true, _) => Err(NotWritable::InRecovery),
        (false, true) => Err(NotWritable::ReadOnly),
        (false, false) => Ok(()),
    }
}

/// One node's connections for one kind of access.
#[derive(Clone, Debug)]
pub(crate) struct Pool(managed::Pool<Manager>);

impl Pool {
    /// A pool without connections. It opens them as they are asked for.
    pub(crate) fn new(
        node: &Arc<Node>,
        access: Access,
        options: PgConnectOptions,
        config: &RouterConfig,
    ) -> Result<Self, managed::BuildError> {
        let (options, size) = match access {
            // As a start-up option it also survives RESET ALL, and holds on the primary as well.
            Access::Read => {
                (options.options([("default_transaction_read_only", "on")]), config.read_pool_size)
            }
            Access::Write => (options, config.write_pool_size),
        };
        let limits = Limits {
            connect_timeout: config.connect_timeout,
            checkout_timeout: config.checkout_timeout,
            check_after_idle: config.check_after_idle,
            idle_timeout: config.idle_timeout,
            max_lifetime: config.max_lifetime,
        };
        let pool = managed::Pool::builder(Manager { options, access, node: node.clone(), limits })
            .max_size(size as usize)
            // A busy pool must be told apart from a silent server, so it has to be the first to give up.
            .wait_timeout(Some(config.checkout_timeout.mul_f64(0.75)))
            .create_timeout(Some(limits.connect_timeout))
            .recycle_timeout(Some(limits.checkout_timeout.mul_f64(0.5)))
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(Self(pool))
    }

    pub(crate) async fn get(&self) -> Result<Object<Manager>, Error> {
        self.0.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => Error::Saturated,
            PoolError::Timeout(TimeoutType::Create) => Error::Unresponsive("connecting"),
            PoolError::Timeout(TimeoutType::Recycle) => Error::Unresponsive("checking an idle connection"),
            PoolError::Backend(error) => Error::Database(wrap(error)),
            PoolError::Closed => Error::Closed,
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => Error::Closed,
        })
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let Status { max_size, size, available, waiting } = self.0.status();
        PoolStatus { max: max_size, open: size, idle: available, waiting }
    }

    /// Closes the idle connections that are too old or unused for too long.
    pub(crate) fn reap(&self) {
        let idle_timeout = self.0.manager().limits.idle_timeout;
        self.0.retain(|physical, metrics| {
            metrics.last_used() <= idle_timeout && metrics.age() <= physical.lifetime
        });
    }

    /// Closes all idle connections.
    pub(crate) fn retire(&self) {
        self.0.retain(|_, _| false);
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// How often idle connections are looked through, at most.
const REAP_INTERVAL: Duration = Duration::from_secs(30);

/// Looks through a node's idle connections for as long as its pools are used.
pub(crate) fn spawn_reaper(pools: [Pool; 2], idle_timeout: Duration) {
    let interval = REAP_INTERVAL.min(idle_timeout / 2).max(Duration::from_millis(10));
    // Weak: a forgotten pool ends its reaper.
    let pools = pools.map(|pool| pool.0.weak());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            for pool in &pools {
                match pool.upgrade().map(Pool) {
                    Some(pool) if !pool.is_closed() => pool.reap(),
                    _ => return,
                }
            }
        }
    });
}

/// How long the end of an abandoned statement may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends a server process whose statement nobody waits for any more, and only then closes the connection: until then its
/// number cannot be another process's.
pub(crate) async fn terminate(options: PgConnectOptions, physical: Physical) {
    let ending = async {
        let mut other = PgConnection::connect_with(&options).await?;
        let sql = format!("SELECT pg_catalog.pg_terminate_backend({})", physical.process);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut other).await?;
        other.close().await
    };
    match tokio::time::timeout(CANCEL_TIMEOUT, ending).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an abandoned statement could not be ended on the server"),
        Err(_) => tracing::debug!("ending an abandoned statement on the server took too long"),
    }
    drop(physical);
}

impl Manager {
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}
