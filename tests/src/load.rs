//! What the router costs and what replicas bring, measured on a real cluster: the tables of `docs/performance.md`.
//!
//! A figure is a ratio of two things that were measured in turns within one run, in short slices and in an order that
//! changes: what else the machine does meets both alike. Absolute times are printed beside them for orientation.

mod bench;
mod capped;
pub mod control;
pub mod cost;
mod cpu_quota;
mod lag;
pub mod overhead;
mod plot;
mod processor;
pub mod scale;
mod server_time;
pub mod session;
mod slices;
pub mod slow;
pub mod targets;
mod turns;

pub use bench::{Bench, Query};
pub use capped::{CappedCluster, REPLICAS as CAPPED_REPLICAS};
pub use cpu_quota::{CpuQuota, NoQuota};
pub use lag::{Lag, LagSampler};
pub use plot::Bars;
pub use processor::{load_average, own_memory, own_processor_time};
pub use slices::{Slice, median, quartiles, run_for};
pub use turns::Turns;
