//! The crate as an application uses it, on a cluster of fake servers.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod control;
mod operations;
mod requests;
mod support;
mod tokens;
