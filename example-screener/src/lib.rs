//! A stock screener on routed PostgreSQL connections: what an application looks like that reads from replicas.
//!
//! Handlers take [`ReadDb`](routing_axum::ReadDb) or [`WriteDb`](routing_axum::WriteDb) and run ordinary code of their ORM
//! on them. [`seaorm::app`] is the whole API over a router on SeaORM, [`diesel::app`] the same API on diesel-async: the
//! same requests have the same responses. [`prepare()`] gives an empty database its tables and its data;
//! [`serve`](fn@serve) does both, and brings its own cluster when no database is named.
//!
//! # Words
//!
//! A *stock* is a listed company, with its daily *closes*. The *screen* ranks stocks by what their closes did. A
//! *watchlist* is what one user keeps an eye on.

mod app;
mod close;
mod data;
mod database;
pub mod diesel;
mod error;
mod extract;
mod home;
mod listener;
mod metrics;
mod migration;
mod orm;
mod page;
mod prepare;
mod reload;
mod screen;
pub mod seaorm;
mod serve;
mod stock;
mod stop;
mod text;
mod watched;

pub use data::{CLOSES, COMPANIES, Company, DailyClose, closes, companies};
pub use database::{Database, DatabaseError, Source};
pub use error::AppError;
pub use metrics::{RecorderError, install_recorder};
pub use migration::Migrator;
pub use orm::Orm;
pub use page::{Page, Paged};
pub use prepare::{PrepareError, Prepared, prepare};
pub use serve::{ServeError, ServeOptions, load, serve};
