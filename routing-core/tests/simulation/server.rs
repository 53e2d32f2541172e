//! One simulated server.

use tokio::time::Instant;

use std::time::Duration;

use super::history::Place;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Out of recovery: it writes its branch.
    Primary,
    /// In recovery; it streams from this server.
    Standby(usize),
}

/// One server. What is changed here is changed by faults and by the replication; nothing of it is known to a router but by
/// a probe or a statement.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) role: Role,
    pub(crate) up: bool,
    /// It lets no one in yet (57P03).
    pub(crate) starting_until: Instant,
    /// Stopped as by SIGSTOP.
    pub(crate) frozen: bool,
    /// Rises with each start: what was connected before is dead.
    pub(crate) life: u32,
    /// What it shows: a primary's end of its log, a standby's replay.
    pub(crate) shown: Place,
    /// What a standby has of the log, replayed or not.
    pub(crate) received: Place,
    /// The server, and its life, that its WAL receiver has a connection to.
    pub(crate) receives_from: Option<(usize, u32)>,
    /// The way from its primary is cut: nothing arrives, and nobody notices.
    pub(crate) stream_cut: bool,
    pub(crate) replay_paused: bool,
    /// After a crash it replays what it had replayed before.
    pub(crate) replays_from: Instant,
    pub(crate) replay_lag: Duration,
    pub(crate) stream_lag: Duration,
    /// After a promotion it is read-only for a while.
    pub(crate) read_only_until: Instant,
    /// Where its recovery ended, if it came out of one since its start.
    pub(crate) recovered_to: Option<u64>,
    /// What every message to or from it takes beside the usual.
    pub(crate) slowness: Duration,
    /// Every session but the monitor's breaks at its first statement, and none is let in.
    pub(crate) ill: bool,
    /// No session beside those that there are (53300).
    pub(crate) full: bool,
    /// Sessions of applications.
    pub(crate) sessions: u32,
    /// Statements under way, whether or not anybody waits for their answer.
    pub(crate) executing: u32,
    /// Attempts of applications that failed on it.
    pub(crate) failed: u32,
    /// When a standby last had a WAL receiver connected, by branch.
    pub(crate) seen_on: Vec<Option<Instant>>,
}

impl Server {
    pub(crate) fn new(role: Role, now: Instant) -> Self {
        let start = Place { branch: 0, length: 0 };
        Self {
            role,
            up: true,
            starting_until: now,
            frozen: false,
            life: 0,
            shown: start,
            received: start,
            receives_from: None,
            stream_cut: false,
            replay_paused: false,
            replays_from: now,
            replay_lag: Duration::ZERO,
            stream_lag: Duration::ZERO,
            read_only_until: now,
            recovered_to: None,
            slowness: Duration::ZERO,
            ill: false,
            full: false,
            sessions: 0,
            executing: 0,
            failed: 0,
            seen_on: Vec::new(),
        }
    }

    /// Whether it runs and lets clients in.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.up && self.starting_until <= now
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    pub(crate) fn is_writable(&self, now: Instant) -> bool {
        self.is_primary() && self.read_only_until <= now
    }
}
