//! The real router, monitor, breaker, pools, sessions and tokens on simulated servers: see docs/simulation.md.
//!
//! A schedule is drawn from a seed, and one seed gives one run, to the byte. `SIMULATION_SEED=n` prints the trace of one;
//! `SIMULATION_SCHEDULES=n` says how many are run.

mod backend;
mod client;
mod connection;
mod draw;
mod fallback;
mod fault;
mod history;
mod mutant;
mod prober;
mod reads;
mod run;
mod schedule;
mod server;
mod shrink;
mod statement;
mod tests;
mod trouble;
mod underway;
mod violation;
mod wire;
mod world;
mod writes;
mod writing;
