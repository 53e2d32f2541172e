//! What the workspace's tests stand on: real PostgreSQL clusters, and faults between them and the router.
//!
//! - [`TestCluster`]: one primary and two streaming replicas that end with the test.
//! - [`Proxies`]: a [`Proxy`] before each node that refuses, resets, swallows or delays.
//! - [`eventually`] and [`throughout`]: the only places that wait.
//! - [`note`]: the entity that tests write and read.
//! - [`Readers`]: many concurrent readers that remember what they were answered.

mod cluster;
mod database;
mod leftovers;
pub mod note;
mod proxy;
mod readers;
mod seen;
mod wait;

pub use cluster::{NODES, PRIMARY, REPLICAS, TestCluster, reader, reader_with, router, writer};
pub use database::Database;
pub use proxy::{Mode, Proxies, Proxy};
pub use readers::{Readers, Tally};
pub use seen::{NodeView, refusals, served_by, served_by_slowly, sqlstate};
pub use wait::{PATIENCE, eventually, throughout};
