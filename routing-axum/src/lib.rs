//! The HTTP face of routed PostgreSQL connections, for axum: extractors, a layer, and the routes that operators ask.
//!
//! It is generic over [`Backend`](routing_core::Backend) and knows no ORM.
//!
//! ```
//! use axum::{Router, routing::get};
//! use routing_axum::{Operations, ReadDb, RoutingLayer};
//! use routing_core::{Backend, Consistency};
//!
//! # fn make<B: Backend>(router: routing_core::Router<B>) -> Router {
//! async fn list<B: Backend>(ReadDb(_db): ReadDb<B>) -> &'static str {
//!     "what _db has read"
//! }
//!
//! Router::new()
//!     .route("/", get(list::<B>))
//!     .route("/exact", get(list::<B>).layer(routing_axum::consistency(Consistency::Strong)))
//!     .merge(Operations::new(router.clone()).into_routes())
//!     .layer(RoutingLayer::new())
//!     .with_state(router)
//! # }
//! ```
//!
//! # Words
//!
//! - **layer**: [`RoutingLayer`] gives each request its session, and its response the debug headers.
//! - **extract**ors: [`ReadDb`], [`WriteDb`] and [`Db`] take no connection; the handle does when a statement runs.
//! - **token**: what a client has written comes in and goes out with `db_session` and `x-db-session`.
//! - **setting**s: [`consistency`], how much a route's reads may miss, and [`priority`], how much they matter.
//! - **rejection**: [`Unavailable`] and [`MissingLayer`], the answers to requests that got no connection. A **throttle**
//!   keeps the log readable meanwhile.
//! - **operations**: [`Operations`], the health, status and metrics routes. **exposition**: their per-node gauges.
//! - **control**: [`Control`], the routes by which an operator intervenes.
//! - **dashboard**: the status, drawn for a person.

mod control;
mod dashboard;
mod exposition;
mod extract;
mod layer;
mod operations;
mod rejection;
mod setting;
mod throttle;
mod token;

pub use control::Control;
pub use exposition::node_gauges;
pub use extract::{Db, HoldsRouter, ReadDb, WriteDb};
pub use layer::{RoutingFuture, RoutingLayer, RoutingService};
pub use operations::Operations;
pub use rejection::{MissingLayer, Unavailable};
pub use setting::{SettingLayer, SettingService, consistency, priority};
