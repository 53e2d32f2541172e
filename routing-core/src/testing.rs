//! A replicated PostgreSQL that exists only in memory, for tests on tokio's paused clock.
//!
//! The router, the monitor and the breaker are the real ones; only the servers are not. A server can be refused, frozen,
//! promoted, demoted, made read-only, cut off from its primary, have its replay paused or delayed, and every connection
//! and statement on it is counted.
//!
//! ```
//! use routing_core::testing::{FakeBackend, FakeCluster};
//! use routing_core::{Consistency, Router};
//! use std::time::Duration;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
//! # runtime.block_on(async {
//! let servers = FakeCluster::new(2); // pg1, the primary, and two replicas
//! let router = Router::<FakeBackend>::start(servers.config(), servers.clone()).unwrap();
//! assert!(router.cluster().settled(Duration::from_secs(1)).await);
//! let lease = router.read(Consistency::Eventual).await.unwrap();
//! assert_ne!(lease.node().name(), "pg1");
//! # });
//! ```

mod backend;
mod cluster;
mod connection;
mod counted;
mod decisions;
mod prober;
mod server;
mod wall;
mod written;

pub use crate::sabotage::{Sabotage, Sabotaged};
pub use backend::{FakeBackend, FakeError, FakeHandle};
pub use cluster::FakeCluster;
pub use connection::FakeConnection;
pub use decisions::{Decisions, Reader};
pub use server::{FakeServer, Reach};
pub use wall::WallClock;
pub(crate) use wall::wall;
pub use written::Written;
