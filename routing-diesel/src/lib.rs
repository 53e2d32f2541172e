//! diesel-async on routed PostgreSQL connections.
//!
//! [`Diesel`] is the backend of `routing_core::Router`. A handler gets a [`ReadHandle`] or a [`WriteHandle`]:
//!
//! | form | read handle | write handle |
//! |---|---|---|
//! | `db.run(async \|conn\| …)` | on a replica; again elsewhere when its node fails | on the primary; never twice |
//! | `db.transaction(async \|conn\| …)` | READ ONLY on one node; again elsewhere | again only if nothing was committed |
//! | `db.stream(query)` | the first row may come from another node | – |
//! | `db.get()` | a lease, protected up to its checkout | a lease, protected up to its checkout |
//!
//! A lease is an `AsyncPgConnection`: `load`, `execute`, `transaction`, `build_transaction` and pipelining work on it as
//! they do without a router. What the server says on it is watched on its way to Diesel, whose own errors hide most
//! SQLSTATEs, so the breaker and the monitor hear of faults there as well.

mod backend;
mod begin;
mod cancel;
mod connection;
mod drain;
mod error;
mod fault;
mod pool;
mod position;
mod primary;
mod prober;
mod read;
mod session;
mod stream;
mod target;
mod tls;
mod transaction;
mod write;

pub use backend::{Diesel, DieselOptions};
pub use connection::Connection;
pub use error::{ConnectError, Error, is_commit_unknown, route_error};
pub use primary::connect_primary;
pub use prober::DieselProber;
pub use read::ReadHandle;
pub use stream::RoutedStream;
pub use write::WriteHandle;
