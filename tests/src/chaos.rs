//! The screener as two processes, one on each ORM, under steady load while servers and networks fail.
//!
//! - A [`Scene`] is both processes on one cluster of a primary and three replicas, with a proxy for each process before each
//!   node.
//! - A [`Load`] is what clients do: each request has its moment in advance, whatever became of those before. Reads and
//!   writes of watchlists become operations of a [history](crate::history), which judges them.
//! - A [`Fault`] is one thing that breaks, drawn from a [seed](crate::history::Seed).
//! - A [`Tally`] is what clients were answered while each fault lasted.

mod asking;
mod class;
mod disk;
mod fault;
mod load;
mod scene;
mod tally;

pub use class::Class;
pub use fault::{Fault, Kind};
pub use load::Load;
pub use scene::{ALL_NODES, Process, Scene};
pub use tally::{Answered, Broken, Outcome, Tally};
