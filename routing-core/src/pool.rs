//! Keeping connections: the part of a pool that does not depend on the driver.
//!
//! It is deadpool with what a router needs beside it: each time-out names its step, so that a busy pool is told apart
//! from a silent server; connections end when they are too old or idle for too long; one that was idle for long, or is
//! older than the monitor's own connection, is checked before use instead of each one each time.

mod pooled;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use deadpool::managed::{self, Manager, Metrics, PoolError, RecycleError, RecycleResult, TimeoutType};
use deadpool::{Runtime, Status};
use tokio::time::Instant;

use crate::backend::PoolStatus;
use crate::config::RouterConfig;
pub use crate::connector::Connector;
use crate::decision::Access;
use crate::node::Node;
use crate::opening::{Opened, Opener};
pub use pooled::Pooled;

/// Asked once on each new connection: the server process, whether the server is in recovery, whether its sessions start
/// read-only, when the process was started, after how many idle milliseconds the server ends the session (0: never;
/// NULL before PostgreSQL 14), whether this session is read-only by its own default, and its time zone: a pooler in between may
/// have left the start-up options out. One row; the write pool refuses a server by its answer (see
/// [`NotWritable::check`](crate::NotWritable::check)).
pub const SESSION_SQL: &str = "SELECT pid, pg_catalog.pg_is_in_recovery(), \
     pg_catalog.current_setting('transaction_read_only') = 'on', backend_start::text, \
     (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'), \
     pg_catalog.current_setting('default_transaction_read_only') = 'on', \
     pg_catalog.current_setting('TimeZone') \
     FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()";

/// Brings a session back to how it started: what `DISCARD ALL` does, but for the statements that the drivers prepared and
/// go on using. A transaction must not be open.
pub const RESET_SQL: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; \
     DO $$ DECLARE statement text; BEGIN \
     FOR statement IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql LOOP \
     EXECUTE pg_catalog.format('DEALLOCATE %I', statement); END LOOP; END $$";

/// How long a statement that nobody waits for any more may go on before it is ended on the server. One that ends by itself
/// leaves a connection that can be used again; opening another costs several round trips and a SCRAM exchange. (Streams of
/// SeaORM, which may have no end, are ended at once.)
pub const LAST_WORD: Duration = Duration::from_millis(50);

/// How long a reset, or the end of an abandoned statement on the server, may take.
pub const CLEANUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The start-up option that makes a session read-only. Unlike a `SET` it survives `RESET ALL`, and it holds on the
/// primary as well.
pub const READ_ONLY_OPTION: (&str, &str) = ("default_transaction_read_only", "on");

/// The same by a statement, for a session that a pooler did not hand the option on to. [`RESET_SQL`] undoes it.
pub const READ_ONLY_SQL: &str = "SET default_transaction_read_only = on";

/// Why a pool gave no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckoutError<E> {
    /// All connections were in use for too long. It says nothing about the server.
    #[error("no connection of the pool was free in time")]
    Saturated,
    /// The server let no connection in, in time.
    #[error("the server let no connection in, in time")]
    Unresponsive,
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
    /// The driver's error.
    #[error("{0}")]
    Driver(E),
}

/// A kept connection with what its checks need.
struct Kept<T> {
    connection: T,
    /// When it was opened.
    opened: Instant,
    /// The node's generation when it was opened or last checked.
    generation: u64,
    /// How often the pool had been retired when it was opened.
    retirements: u64,
    /// How old it may become; drawn for each, so that a pool does not renew itself all at once.
    lifetime: Duration,
    /// How often an answer that nobody read was waited for.
    drained: u32,
}

struct Keeper<C: Connector> {
    opener: Opener<C>,
    node: Arc<Node>,
    retirements: AtomicU64,
    check_after_idle: Duration,
    idle_timeout: Duration,
    max_lifetime: Duration,
}

impl<C: Connector> Keeper<C> {
    /// Whether a connection may be used again, as far as that can be told without asking the server. deadpool counts
    /// idleness from the last checkout.
    fn keeps(&self, kept: &Kept<C::Connection>, metrics: Metrics) -> bool {
        metrics.age() <= kept.lifetime
            && metrics.last_used() <= self.idle_timeout
            && kept.retirements == self.retirements.load(Relaxed)
            && self.opener.connector().is_alive(&kept.connection)
    }
}

impl<C: Connector> Manager for Keeper<C> {
    type Type = Kept<C::Connection>;
    type Error = C::Error;

    async fn create(&self) -> Result<Self::Type, C::Error> {
        let retirements = self.retirements.load(Relaxed);
        let Opened { connection, generation, at } = self.opener.open().await?;
        let lifetime = self.max_lifetime.mul_f64(1.0 - 0.2 * fastrand::f64());
        Ok(Kept { connection, opened: at, generation, retirements, lifetime, drained: 0 })
    }

    async fn recycle(&self, kept: &mut Self::Type, metrics: &Metrics) -> RecycleResult<C::Error> {
        if !self.keeps(kept, *metrics) {
            return Err(RecycleError::message("too old, idle for too long, retired or ended"));
        }
        let generation = self.node.generation();
        // The server may be about to end the session: half of its patience leaves room for the clock to differ.
        let longest = self.opener.connector().longest_idle(&kept.connection);
        let check_after =
            longest.map_or(self.check_after_idle, |longest| self.check_after_idle.min(longest / 2));
        if kept.generation != generation || metrics.last_used() > check_after {
            self.opener.connector().check(&mut kept.connection).await.map_err(RecycleError::Backend)?;
            kept.generation = generation;
        }
        Ok(())
    }
}

/// One node's connections for one kind of access. Clones share them.
pub struct Pool<C: Connector>(managed::Pool<Keeper<C>>);

impl<C: Connector> Pool<C> {
    /// A pool without connections: it opens them as they are asked for. A task closes idle ones that are too old for as
    /// long as the pool is used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(node: &Arc<Node>, access: Access, connector: C, config: &RouterConfig) -> Self {
        let size = match access {
            Access::Read => config.read_pool_size,
            Access::Write => config.write_pool_size,
        };
        let keeper = Keeper {
            opener: Opener::new(connector, node.clone(), config.connect_timeout, config.check_after_idle),
            node: node.clone(),
            retirements: AtomicU64::new(0),
            check_after_idle: config.check_after_idle,
            idle_timeout: config.idle_timeout,
            max_lifetime: config.max_lifetime,
        };
        let pool = managed::Pool::builder(keeper)
            .max_size(size as usize)
            // A busy pool must be told apart from a silent server, so it has to be the first to give up.
            .wait_timeout(Some(config.checkout_timeout.mul_f64(0.75)))
            .create_timeout(Some(config.connect_timeout))
            .recycle_timeout(Some(config.checkout_timeout.mul_f64(0.5)))
            .runtime(Runtime::Tokio1)
            .build()
            .unwrap_or_else(|_| unreachable!("time-outs have the runtime that they need"));
        let pool = Self(pool);
        pool.spawn_reaper(config.idle_timeout);
        pool
    }

    /// Takes a connection out, or opens one.
    ///
    /// # Errors
    /// [`CheckoutError`] says which step failed.
    ///
    /// # Cancel safety
    /// Dropping the future leaks neither a connection nor a place.
    pub async fn get(&self) -> Result<Pooled<C>, CheckoutError<C::Error>> {
        let object = self.0.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => CheckoutError::Saturated,
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => CheckoutError::Unresponsive,
            PoolError::Backend(error) => CheckoutError::Driver(error),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                CheckoutError::Closed
            }
        })?;
        Ok(Pooled::new(object))
    }

    /// How full it is.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let Status { max_size, size, available, waiting } = self.0.status();
        PoolStatus { max: max_size, open: size, idle: available, waiting }
    }

    /// Closes all idle connections; those in use are closed when they come back.
    pub fn retire(&self) {
        self.0.manager().retirements.fetch_add(1, Relaxed);
        self.0.manager().opener.abandon();
        self.0.retain(|_, _| false);
    }

    /// Closes it: no checkout succeeds afterwards, and connections in use are closed when they come back.
    pub fn close(&self) {
        self.0.close();
        self.0.manager().opener.close();
    }

    fn spawn_reaper(&self, idle_timeout: Duration) {
        let interval = REAP_INTERVAL.min(idle_timeout / 2).max(Duration::from_millis(10));
        // Weak: a forgotten pool ends its reaper.
        let pool = self.0.weak();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(pool) = pool.upgrade().filter(|pool: &managed::Pool<Keeper<C>>| !pool.is_closed())
                else {
                    return;
                };
                pool.retain(|kept, metrics| pool.manager().keeps(kept, metrics));
            }
        });
    }
}

/// How often idle connections are looked through, at most.
const REAP_INTERVAL: Duration = Duration::from_secs(30);

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Connector> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.status()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::pooled::MOST_DRAINED;
    use super::*;
    use crate::breaker::BreakerConfig;
    use crate::config::NodeConfig;
    use crate::straggler::Straggler;

    /// Opens connections that are numbers.
    #[derive(Clone, Default)]
    struct Numbers(Arc<Mutex<u32>>);

    impl Connector for Numbers {
        type Connection = u32;
        type Error = String;

        async fn connect(&self) -> Result<u32, String> {
            let mut number = self.0.lock().unwrap();
            *number += 1;
            Ok(*number)
        }

        fn describe(&self, error: &String) -> String {
            error.clone()
        }

        async fn check(&self, _: &mut u32) -> Result<(), String> {
            Ok(())
        }
    }

    fn pool() -> (Arc<Node>, Pool<Numbers>) {
        let config = NodeConfig::new("a", "postgres://h/d".parse().unwrap());
        let node = Arc::new(Node::new(config, BreakerConfig::default()));
        let pool = Pool::new(&node, Access::Read, Numbers::default(), &RouterConfig::default());
        (node, pool)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_closed_when_it_was_left_unread_a_hundred_times() {
        let (_node, pool) = pool();
        for time in 1..MOST_DRAINED {
            let object = pool.get().await.unwrap();
            assert_eq!(*object, 1, "time {time}");
            let object = object.drained().expect("it is kept");
            assert_eq!(*object, 1);
        }
        // What is read to its end does not count.
        for _ in 0..10 {
            assert_eq!(*pool.get().await.unwrap(), 1);
        }
        assert!(pool.get().await.unwrap().drained().is_none());
        assert_eq!((pool.status().open, *pool.get().await.unwrap()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_on_a_connection_goes_when_it_is_read_or_the_connection_goes() {
        let (node, pool) = pool();
        let abandoned = async || {
            let mut object = pool.get().await.unwrap();
            object.abandoned(Straggler::new(&node, None));
            assert_eq!(node.in_flight(), 1);
            object
        };
        let read = abandoned().await.drained().expect("it is kept");
        assert_eq!(node.in_flight(), 0, "also where what was read is restored yet");
        drop(read);
        drop(abandoned().await);
        assert_eq!(node.in_flight(), 0);
        let connection = abandoned().await.discard();
        assert_eq!((node.in_flight(), connection), (0, 1));
        assert_eq!(pool.status().open, 0);
    }
}
