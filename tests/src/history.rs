//! What clients did and saw, and whether the consistency promises held for all of it.
//!
//! - A [`Scene`] is one application as two processes ([`Instance`]) on one cluster, with a proxy for each process before
//!   each node. The application is the [`ledger`]: it stores entries and reads the newest.
//! - A [`Workload`] is what many [`Client`]s do with it at once. Each keeps its token as a browser or a script would. A
//!   [`Pulse`] writes past the router, every few milliseconds: how old a read is, is told by it.
//! - A [`Mishap`] breaks something, drawn from a [seed](Seed).
//! - Every request becomes an [`Operation`]. All operations, and the rows that the primary has in the end, are a [`History`].
//!   [`check()`] judges it, without a server or a clock, and returns a [`Report`].

mod check;
mod client;
mod instance;
pub mod ledger;
mod mishap;
mod operation;
mod pulse;
mod recorder;
mod report;
mod scene;
mod seed;
mod violation;
mod workload;

pub use check::{History, check};
pub use client::{Carelessness, Client, Form};
pub use instance::{Instance, TOKEN_KEY};
pub use mishap::Mishap;
pub use operation::{Answer, Ask, Key, Operation, Served, Token, Value, WriteForm};
pub use pulse::{PULSE, Pulse};
pub use recorder::Recorder;
pub use report::{Counts, Report, Share};
pub use scene::Scene;
pub use seed::Seed;
pub use violation::Violation;
pub use workload::{Plan, Workload};
