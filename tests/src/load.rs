//! What the router costs and what replicas bring, measured on a real cluster: the tables of `docs/performance.md`.
//!
//! A figure is a ratio of two things that were measured in turns within one run, in short slices and in an order that
//! changes: what else the machine does meets both alike. Absolute times are printed beside them for orientation.

mod bench;
pub mod overhead;
mod plot;
pub mod session;
mod slices;
pub mod slow;
mod turns;

pub use bench::Bench;
pub use plot::Bars;
pub use slices::{Slice, median, quartiles, run_for};
pub use turns::Turns;
