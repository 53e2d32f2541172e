//! SeaORM on routed PostgreSQL connections.
//!
//! [`SeaOrm`] is the backend of `routing_core::Router`. A handler gets a [`ReadHandle`] or a [`WriteHandle`]; both
//! implement SeaORM's `ConnectionTrait`, `StreamTrait` and `TransactionTrait`, so `find`, `paginate`, `stream`,
//! `insert`, `save` and `transaction` work on them as on a `DatabaseConnection`.
//!
//! An [`AutomaticHandle`] is both: it tells reads from writes by their text.
//!
//! | | read handle | write handle |
//! |---|---|---|
//! | a statement | on a replica; again elsewhere when its node fails | on the proven primary; never twice |
//! | `begin` | a READ ONLY transaction on one node | a transaction on the primary |
//! | a write | refused by the server, on the primary too | runs |
//! | a lost answer | invisible while a node can serve | [`is_commit_unknown`] |
//!
//! Errors stay SeaORM's `DbErr`. [`route_error`] finds the router's own in one, [`is_commit_unknown`] a write whose
//! outcome nobody knows.

mod automatic;
mod backend;
mod begin;
mod connection;
mod drain;
mod error;
mod fault;
mod notice;
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

pub use automatic::AutomaticHandle;
pub use backend::{SeaOrm, SeaOrmOptions};
pub use connection::Connection;
pub use error::{Error, is_commit_unknown, route_error};
pub use primary::connect_primary;
pub use prober::SeaOrmProber;
pub use read::ReadHandle;
pub use stream::RoutedStream;
pub use transaction::RoutedTransaction;
pub use write::WriteHandle;
