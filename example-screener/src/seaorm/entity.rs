//! The tables, as SeaORM sees them.

pub mod close;
pub mod stock;
pub mod watchlist;
