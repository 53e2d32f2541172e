//! All that happens in one run: settings, clients with their requests, faults.

use std::fmt;
use std::time::Duration;

use routing_core::{Consistency, Priority};

use super::fault::Fault;
use super::world::World;

/// What kind of trouble a schedule is about, and so what it is held to beside what holds always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Anything.
    Chaos,
    /// The primary changes.
    Failover,
    /// One replica is lost, and nothing else happens: no caller sees an error.
    ReplicaLost,
    /// All replicas are lost, and the primary is well: only reads beyond a cap fail.
    ReplicasLost,
}

/// How the routers are set up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) theme: Theme,
    pub(crate) nodes: usize,
    pub(crate) instances: usize,
    pub(crate) pool: u32,
    pub(crate) fallback: u32,
    pub(crate) behind_token: u32,
    pub(crate) write_quorum: u32,
    pub(crate) balancer: u8,
    pub(crate) max_staleness: Duration,
    pub(crate) deadline: Duration,
    pub(crate) min_serving: u32,
    /// Every read that takes longer than half of them is sent to a second replica.
    pub(crate) hedged: bool,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) clients: Vec<Vec<Request>>,
    /// In the order of their time.
    pub(crate) steps: Vec<Step>,
    /// When everything is repaired.
    pub(crate) ends: Duration,
}

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

/// One request of a client; it presents what tokens the client has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    /// After the one before.
    pub(crate) after: Duration,
    pub(crate) instance: usize,
    pub(crate) consistency: Consistency,
    pub(crate) priority: Priority,
    pub(crate) acts: Vec<Act>,
    /// It is dropped when it has to wait for the so manieth time.
    pub(crate) dropped_at: Option<u32>,
}

/// One thing that a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `run_read`.
    Read,
    /// `acquire_read`, and a statement on it.
    ReadLease,
    /// Two reads at the same time.
    ReadTwice,
    /// `run_statement`.
    Write,
    /// `run_write`.
    Transaction,
    /// `acquire_write`, and a statement on it.
    WriteLease,
    /// Nothing for a while.
    Pause(Duration),
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}", self.seed, self.settings)?;
        for step in &self.steps {
            writeln!(f, "{:>6} ms  {}", step.at.as_millis(), step.fault)?;
        }
        writeln!(f, "{:>6} ms  everything is repaired", self.ends.as_millis())?;
        for (number, requests) in self.clients.iter().enumerate() {
            for (index, request) in requests.iter().enumerate() {
                writeln!(f, "client {number}.{index}: {request}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, instance, consistency, acts, .. } = self;
        write!(f, "after {after:?} on app{}, {consistency}, {}: {acts:?}", instance + 1, self.priority)?;
        match self.dropped_at {
            Some(wait) => write!(f, ", dropped at its wait {wait}"),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// The names of the servers.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        (0..self.nodes).map(World::name)
    }
}
