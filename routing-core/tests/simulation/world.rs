//! All that is simulated, and what is known of it that no router knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use routing_core::Router;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::backend::Simulated;
use super::history::{History, Place};
use super::schedule::{Schedule, Settings};
use super::server::{Role, Server};
use super::violation::{Promise, Violation};

/// What the log takes from a primary to its standbys.
const STREAMING: Duration = Duration::from_millis(1);

/// A simulation under way.
pub(crate) struct Sim {
    state: Mutex<World>,
    /// After each fault, whoever waits for a server looks again.
    changed: Notify,
    /// One for each instance of the application.
    routers: Mutex<Vec<Router<Simulated>>>,
}

/// The state of everything.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) began: Instant,
    /// When everything is repaired.
    pub(crate) ends: Duration,
    pub(crate) history: History,
    pub(crate) servers: Vec<Server>,
    /// By instance and server: nothing gets through.
    pub(crate) blocked: Vec<Vec<bool>>,
    pub(crate) writes: BTreeMap<u64, Write>,
    /// The highest timeline that each instance has accepted.
    pub(crate) accepted: Vec<u32>,
    /// The highest timeline that each instance was told by a token that it had to heed.
    pub(crate) heard: Vec<u32>,
    /// Fallback reads that run now, by instance and cap.
    pub(crate) fallback: Vec<[u32; 2]>,
    /// Calls of clients that have begun and not ended, by instance.
    pub(crate) underway: Vec<usize>,
    pub(crate) violations: Vec<Violation>,
    /// What happened, if that is wanted.
    pub(crate) trace: Option<String>,
    pub(crate) draw: fastrand::Rng,
    /// Statements, for the figures.
    pub(crate) statements: u64,
    next_write: u64,
    /// When the standbys were last moved, if nothing has happened to them since.
    replicated: Option<Instant>,
}

/// What a client knows of one of its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Under way.
    Asked,
    /// Acknowledged.
    Done(Place),
    /// Failed, and not as unknown.
    Refused,
    /// Its outcome is unknown, or nobody waited for it.
    Unknown,
}

impl Sim {
    pub(crate) fn new(schedule: &Schedule, traced: bool) -> Arc<Self> {
        let settings = schedule.settings.clone();
        let now = Instant::now();
        let role = |index| if index == 0 { Role::Primary } else { Role::Standby(0) };
        let (instances, nodes) = (settings.instances, settings.nodes);
        let world = World {
            began: now,
            ends: schedule.ends,
            history: History::new(),
            servers: (0..nodes).map(|index| Server::new(role(index), now)).collect(),
            blocked: vec![vec![false; nodes]; instances],
            writes: BTreeMap::new(),
            accepted: vec![0; instances],
            heard: vec![0; instances],
            fallback: vec![[0; 2]; instances],
            underway: vec![0; instances],
            violations: Vec::new(),
            trace: traced.then(String::new),
            draw: fastrand::Rng::with_seed(schedule.seed),
            statements: 0,
            next_write: 1,
            replicated: None,
            settings,
        };
        Arc::new(Self { state: Mutex::new(world), changed: Notify::new(), routers: Mutex::default() })
    }

    /// The state, with the replication as far as it is now.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        world.replicate();
        world
    }

    /// Changes something that others may wait for.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = {
            let mut world = self.world();
            world.replicated = None;
            change(&mut world)
        };
        self.changed.notify_waiters();
        changed
    }

    /// Waits for the next change from now on.
    pub(crate) fn next_change(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(crate) fn add_router(&self, router: Router<Simulated>) {
        self.routers.lock().unwrap_or_else(PoisonError::into_inner).push(router);
    }

    /// The router of an instance; `None` while it starts, and after the end.
    pub(crate) fn router(&self, instance: usize) -> Option<Router<Simulated>> {
        self.routers.lock().unwrap_or_else(PoisonError::into_inner).get(instance).cloned()
    }

    pub(crate) fn take_routers(&self) -> Vec<Router<Simulated>> {
        std::mem::take(&mut *self.routers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl World {
    /// Notes what happened, where a trace is wanted.
    pub(crate) fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>6} ms  {}\n", self.began.elapsed().as_millis(), what(self));
            self.trace.iter_mut().for_each(|trace| trace.push_str(&line));
        }
    }

    pub(crate) fn violate(&mut self, promise: Promise, what: String) {
        self.note(|_| format!("VIOLATION of {promise}: {what}"));
        self.violations.push(Violation { promise, at: self.began.elapsed(), what });
    }

    pub(crate) fn name(server: usize) -> String {
        format!("pg{}", server + 1)
    }

    /// A number that no other write of the schedule has.
    pub(crate) fn new_write(&mut self) -> u64 {
        let write = self.next_write;
        self.next_write += 1;
        self.writes.insert(write, Write::Asked);
        write
    }

    /// One more record of a primary.
    pub(crate) fn append(&mut self, server: usize, write: u64) -> Place {
        let place = self.history.append(self.servers[server].shown.branch, Some(write), Instant::now());
        self.servers[server].shown = place;
        if self.history.count(place, write) > 1 {
            self.violate(
                Promise::Once,
                format!("write {write} was executed again on {}", Self::name(server)),
            );
        }
        if self.writes.get(&write) == Some(&Write::Refused) {
            self.violate(Promise::Once, format!("write {write} was executed after it had been refused"));
        }
        place
    }

    /// Moves every standby to where it is now.
    fn replicate(&mut self) {
        let now = Instant::now();
        if self.replicated == Some(now) {
            return;
        }
        self.replicated = Some(now);
        for index in 0..self.servers.len() {
            let Role::Standby(upstream) = self.servers[index].role else { continue };
            self.connect(index, upstream, now);
            let server = &self.servers[index];
            if !server.is_open(now) || server.frozen {
                continue;
            }
            let source = &self.servers[upstream];
            let arrives = server.receives_from.is_some() && !server.stream_cut && !source.frozen;
            let mut received = server.received;
            if arrives && let Some(sent) = now.checked_sub(STREAMING + server.stream_lag) {
                let sent = self.history.until(source.shown, sent);
                if self.history.contains(sent, received) {
                    received = sent;
                }
            }
            let mut shown = server.shown;
            let replayed = now.checked_sub(STREAMING + server.stream_lag + server.replay_lag);
            if let Some(replayed) = replayed.filter(|_| !server.replay_paused && server.replays_from <= now) {
                let replayed = self.history.until(received, replayed);
                if self.history.contains(replayed, shown) {
                    shown = replayed;
                }
            }
            let server = &mut self.servers[index];
            (server.received, server.shown) = (received, shown);
        }
    }

    /// Whether a standby's WAL receiver has a connection. One that is cut, or whose primary is frozen, does not notice.
    fn connect(&mut self, index: usize, upstream: usize, now: Instant) {
        let (server, source) = (&self.servers[index], &self.servers[upstream]);
        let serves = source.is_open(now) && source.is_primary() && server.is_open(now);
        let holds = serves && server.receives_from == Some((upstream, source.life));
        let reachable = !server.stream_cut && !source.frozen && !server.frozen;
        let follows = serves && reachable && self.history.contains(source.shown, server.received);
        let (life, branch) = (source.life, source.shown.branch);
        let server = &mut self.servers[index];
        if !server.frozen {
            server.receives_from = (holds || follows).then_some((upstream, life));
        }
        if server.receives_from.is_some() {
            server.seen_on.resize(server.seen_on.len().max(branch + 1), None);
            server.seen_on[branch] = Some(now);
        }
    }
}
