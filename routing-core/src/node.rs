//! One server: its name and what this process counts about it.
//!
//! A node outlives every topology that names it, so its breaker, its counters and its latency survive each new
//! snapshot.

mod live;
mod outcome;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::breaker::{BreakerConfig, BreakerState};
use crate::config::{NodeConfig, RouterConfig};
use crate::decision::{Access, Reason};
use crate::durations::Durations;
use crate::fading::Fading;
use crate::gate::{Admission, Gate};
use crate::metrics::NodeMeters;
use crate::node_id::NodeId;
use crate::recent::Recent;
use crate::role::Role;
use crate::signal::{Signal, Watcher};
use crate::slow_start::SlowStart;
use live::Live;

/// One server with its breaker and counters.
pub struct Node {
    id: NodeId,
    name: Arc<str>,
    config: NodeConfig,
    live: Live,
    /// What its latency, its faults and its slow start count time from.
    origin: Instant,
    /// It joined or was down, and has not served since.
    cold: AtomicBool,
    zone: ArcSwapOption<String>,
    /// The zone of this process, if that counts.
    own_zone: Option<String>,
    /// A write connection was told that the server is read-only, and the monitor has not looked since.
    write_refused: AtomicBool,
    recent: Recent,
    probe_now: Notify,
    /// Rises each time that the monitor declares the node dead.
    losses: Signal,
    /// Rises each time that a connection is lost, a probe's or a request's: what was connected before may be dead too.
    generation: AtomicU64,
    /// How long its reads take, if reads are hedged.
    answers: Option<Box<Durations>>,
    meters: NodeMeters,
}

impl Node {
    /// A node with a closed breaker and no history, which has its whole share at once.
    #[must_use]
    pub fn new(config: NodeConfig, breaker: BreakerConfig) -> Self {
        Self::of(config, &RouterConfig { breaker, slow_start: Duration::ZERO, ..RouterConfig::default() })
    }

    /// A node of a cluster with this configuration.
    pub(crate) fn of(config: NodeConfig, cluster: &RouterConfig) -> Self {
        let meters = NodeMeters::new(&config.name);
        Self {
            id: NodeId::next(),
            name: config.name.as_str().into(),
            live: Live {
                entered: AtomicU64::new(0),
                weight: AtomicU32::new(config.weight),
                draining: AtomicBool::new(false),
                reads: AtomicBool::new(config.reads),
                local: AtomicBool::new(is_local(cluster.zone.as_deref(), config.zone.as_deref())),
                faults: Fading::new(),
                latency: Fading::new(),
                slow_start: SlowStart::new(cluster.slow_start),
                gate: Gate::new(cluster.breaker.clone()),
            },
            origin: Instant::now(),
            zone: ArcSwapOption::from_pointee(config.zone.clone()),
            own_zone: cluster.zone.clone(),
            write_refused: AtomicBool::new(false),
            config,
            cold: AtomicBool::new(false),
            recent: Recent::new(),
            probe_now: Notify::new(),
            losses: Signal::default(),
            generation: AtomicU64::new(0),
            answers: cluster.hedge.as_ref().map(|hedge| Box::new(Durations::new(hedge.percentile))),
            meters,
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name, to keep without copying it.
    #[must_use]
    pub fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    /// How it was configured when it joined.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// How it would be configured now.
    pub(crate) fn current_config(&self) -> NodeConfig {
        let zone = self.zone().map(|zone| String::clone(&zone));
        NodeConfig { weight: self.weight(), zone, reads: self.serves_reads(), ..self.config.clone() }
    }

    /// Whether a configuration names the same server, reached in the same way.
    pub(crate) fn is_reached_by(&self, config: &NodeConfig) -> bool {
        (&self.config.url, &self.config.probe_url) == (&config.url, &config.probe_url)
    }

    /// Its share of reads next to other nodes; never 0.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.live.weight.load(Relaxed)
    }

    /// Whether it serves as a replica.
    #[must_use]
    pub fn serves_reads(&self) -> bool {
        self.live.reads.load(Relaxed)
    }

    /// Takes over what can change in place; `true` when anything did.
    pub(crate) fn adjust(&self, config: &NodeConfig) -> bool {
        let weight = self.live.weight.swap(config.weight, Relaxed);
        let reads = self.live.reads.swap(config.reads, Relaxed);
        let zone = self.zone.swap(config.zone.clone().map(Arc::new));
        self.live.local.store(is_local(self.own_zone.as_deref(), config.zone.as_deref()), Relaxed);
        (weight, reads, zone.as_deref()) != (config.weight, config.reads, config.zone.as_ref())
    }

    /// Where it stands.
    #[must_use]
    pub fn zone(&self) -> Option<Arc<String>> {
        self.zone.load_full()
    }

    /// Whether it is in the zone of this process; `true` as well when no zone is set for that.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.live.local.load(Relaxed)
    }

    /// Requests of this process that hold one of its connections or wait for one; and statements that nobody waits for any
    /// more, until they have ended.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.live.entered.load(Relaxed) as u32
    }

    /// Why it was chosen last.
    #[must_use]
    pub fn last_reason(&self) -> Option<Reason> {
        self.recent.last(Instant::now()).first().map(|decision| decision.reason)
    }

    /// Its last decisions and how many there were.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Whether it gets no new work.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.live.draining.load(Relaxed)
    }

    /// Gives it no new work (`true`) or lets it have work again.
    pub fn set_draining(&self, draining: bool) {
        self.live.draining.store(draining, Relaxed);
    }

    /// Its breaker's state at `now`.
    #[must_use]
    pub fn breaker_state(&self, now: Instant) -> BreakerState {
        self.live.gate.state(now)
    }

    /// Whether its breaker admits a request at `now`. It changes nothing and takes no lock.
    #[must_use]
    #[inline(always)]
    pub fn admission(&self, now: Instant) -> Admission {
        self.live.gate.admission(now)
    }

    /// Asks the monitor to probe it now instead of at the next tick.
    pub fn probe_now(&self) {
        self.probe_now.notify_one();
    }

    /// Rises each time that the monitor or a request loses its connection. A pooled connection of an earlier generation is checked
    /// before it is used: the server may have gone in between.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    pub(crate) fn next_generation(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    pub(crate) async fn probe_wanted(&self) {
        self.probe_now.notified().await;
    }

    /// How long its reads take; `None` unless reads are hedged.
    pub(crate) fn answers(&self) -> Option<&Durations> {
        self.answers.as_deref()
    }

    pub(crate) fn meters(&self) -> &NodeMeters {
        &self.meters
    }

    /// How often it was lost.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.count()
    }

    /// Sees every loss of the node after so many.
    pub(crate) fn losses_since(&self, seen: u64) -> Watcher {
        self.losses.watch_since(seen)
    }

    /// The monitor declares it dead: reads in flight move on.
    pub(crate) fn declare_lost(&self) {
        self.losses.raise();
    }

    /// It was chosen: one more request is in flight.
    pub(crate) fn enter(&self, access: Access, role: Role, reason: Reason, now: Instant) {
        let number = self.live.entered.fetch_add(1 << 32 | 1, Relaxed) >> 32;
        self.recent.record(number, access, reason, now);
        self.meters.decision(access, role, reason);
    }

    /// What is left of a request stays in flight when the request leaves.
    pub(crate) fn stay(&self) {
        self.live.entered.fetch_add(1, Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.live.entered.fetch_sub(1, Relaxed);
    }

    /// Takes the half-open state's only slot; `false` when another request has it.
    pub(crate) fn take_trial(&self, now: Instant) -> bool {
        self.live.gate.take_trial(now)
    }

    pub(crate) fn return_trial(&self) {
        self.live.gate.return_trial();
    }
}

fn is_local(own: Option<&str>, zone: Option<&str>) -> bool {
    own.is_none() || own == zone
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name())
            .field("url", &self.config.url)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_request_is_counted_in_and_out_and_has_a_number_of_its_own() {
        let config = NodeConfig::new("a", "postgres://h/d".parse().unwrap());
        let node = Node::new(config, BreakerConfig::default());
        let enter = || node.enter(Access::Read, Role::Replica, Reason::LeastInFlight, Instant::now());
        for _ in 0..5 {
            enter();
            enter();
            node.leave();
        }
        assert_eq!(
            (node.in_flight(), node.recent().last(Instant::now()).len()),
            (5, 10),
            "none is overwritten"
        );
        (0..5).for_each(|_| node.leave());
        assert_eq!(node.in_flight(), 0);
        (0..20).for_each(|_| enter());
        assert_eq!((node.in_flight(), node.recent().last(Instant::now()).len()), (20, 16));
    }
}
