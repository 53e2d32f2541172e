//! What the workspace's tests stand on: real PostgreSQL clusters, faults between them and the router, and one way to say
//! what a test does for every ORM.
//!
//! - [`TestCluster`]: one primary and two streaming replicas that end with the test.
//! - [`Proxies`]: a [`Proxy`] before each node that refuses, resets, swallows or delays.
//! - [`Eavesdropper`]: someone on the way to a server who keeps how each connection begins.
//! - [`engines`]: Patroni and its like, as they are; [`Servers`]: what a test asks any of them past the router.
//! - [`Orm`] and [`Handle`]: what a test does with an ORM; [`on_both!`] runs it for [`SeaOrm`] and [`Diesel`].
//! - [`eventually`] and [`throughout`]: the only places that wait.
//! - [`note`]: what tests write and read.
//! - [`Readers`] and [`Writers`]: many concurrent ones that remember what they were answered.
//! - [`Screener`]: the example as a program of its own; [`Http`]: a client that knows what it has sent; [`open_loop`]: load that
//!   does not wait for its answers.
//! - [`chaos`]: that program on both ORMs under such load while everything fails that can be made to.
//! - [`load`]: what the router costs and what replicas bring, measured: the program of that name.
//! - [`figures`]: what tests measured, in one form.
//! - [`history`]: what clients of a whole application did and saw, and a check of the promises over all of it.

pub mod chaos;
mod cluster;
mod database;
mod diesel;
mod eavesdropper;
pub mod engines;
pub mod figures;
mod handle;
pub mod history;
mod http;
mod leftovers;
pub mod load;
pub mod note;
pub mod open_loop;
mod orm;
mod process;
mod proxy;
mod readers;
mod screener;
mod seaorm;
mod seen;
mod servers;
mod traffic;
mod wait;

pub use cluster::{
    NODES, PRIMARY, REPLICAS, TestCluster, reader, reader_on, reader_with, ready, router, writer,
};
pub use database::Database;
pub use eavesdropper::Eavesdropper;
pub use handle::Handle;
pub use http::{Http, Lost, Reply};
pub use orm::{Orm, Rows};
pub use process::{Signal, signal};
pub use proxy::{Mode, Proxies, Proxy};
pub use readers::{Readers, Tally};
pub use routing_diesel::Diesel;
pub use routing_seaorm::SeaOrm;
pub use screener::Screener;
pub use seen::{NAME, NodeView, refusals, served_by, served_by_slowly, slowly};
pub use servers::Servers;
pub use traffic::{Fate, Write, Writers, Writes};
pub use wait::{PATIENCE, eventually, throughout};
