//! One server: its name and what this process counts about it.
//!
//! A node outlives every topology that names it, so its breaker, its counters and its latency survive each new
//! snapshot.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::breaker::{BreakerConfig, BreakerState, Failure};
use crate::config::NodeConfig;
use crate::decision::{Access, Reason};
use crate::fault::Fault;
use crate::gate::{Admission, Gate};
use crate::metrics::NodeMeters;
use crate::node_id::NodeId;
use crate::recent::Recent;
use crate::role::Role;
use crate::signal::{Signal, Watcher};

/// One server with its breaker and counters.
pub struct Node {
    id: NodeId,
    name: Arc<str>,
    config: NodeConfig,
    gate: Gate,
    in_flight: AtomicU32,
    /// Nanoseconds; a peak-following average.
    latency: AtomicU64,
    draining: AtomicBool,
    weight: AtomicU32,
    reads: AtomicBool,
    /// A write connection was told that the server is read-only, and the monitor has not looked since.
    write_refused: AtomicBool,
    recent: Recent,
    probe_now: Notify,
    /// Rises each time that the monitor declares the node dead.
    losses: Signal,
    /// Rises each time that a connection is lost, a probe's or a request's: what was connected before may be dead too.
    generation: AtomicU64,
    meters: NodeMeters,
}

impl Node {
    /// A node with a closed breaker and no history.
    #[must_use]
    pub fn new(config: NodeConfig, breaker: BreakerConfig) -> Self {
        let meters = NodeMeters::new(&config.name);
        Self {
            id: NodeId::next(),
            name: config.name.as_str().into(),
            gate: Gate::new(breaker),
            weight: AtomicU32::new(config.weight),
            reads: AtomicBool::new(config.reads),
            write_refused: AtomicBool::new(false),
            config,
            in_flight: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            recent: Recent::new(),
            probe_now: Notify::new(),
            losses: Signal::default(),
            generation: AtomicU64::new(0),
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
        NodeConfig { weight: self.weight(), reads: self.serves_reads(), ..self.config.clone() }
    }

    /// Whether a configuration names the same server, reached in the same way.
    pub(crate) fn is_reached_by(&self, config: &NodeConfig) -> bool {
        (&self.config.url, &self.config.probe_url) == (&config.url, &config.probe_url)
    }

    /// Its share of reads next to other nodes; never 0.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Whether it serves as a replica.
    #[must_use]
    pub fn serves_reads(&self) -> bool {
        self.reads.load(Relaxed)
    }

    /// Takes over what can change in place; `true` when anything did.
    pub(crate) fn adjust(&self, config: &NodeConfig) -> bool {
        let weight = self.weight.swap(config.weight, Relaxed);
        let reads = self.reads.swap(config.reads, Relaxed);
        (weight, reads) != (config.weight, config.reads)
    }

    /// Requests of this process that hold one of its connections or wait for one.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Its recent latency; zero before the first answer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency.load(Relaxed))
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
        self.draining.load(Relaxed)
    }

    /// Gives it no new work (`true`) or lets it have work again.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Relaxed);
    }

    /// Its breaker's state at `now`.
    #[must_use]
    pub fn breaker_state(&self, now: Instant) -> BreakerState {
        self.gate.state(now)
    }

    /// Whether its breaker admits a request at `now`. It changes nothing and takes no lock.
    #[must_use]
    pub fn admission(&self, now: Instant) -> Admission {
        self.gate.admission(now)
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

    pub(crate) fn meters(&self) -> &NodeMeters {
        &self.meters
    }

    /// Sees every loss of the node from now on.
    pub(crate) fn losses(&self) -> Watcher {
        self.losses.watch()
    }

    /// The monitor declares it dead: reads in flight move on.
    pub(crate) fn declare_lost(&self) {
        self.losses.raise();
    }

    /// It was chosen: one more request is in flight.
    pub(crate) fn enter(&self, access: Access, role: Role, reason: Reason) {
        self.in_flight.fetch_add(1, Relaxed);
        self.recent.record(access, reason, Instant::now());
        self.meters.decision(access, role, reason);
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Takes the half-open state's only slot; `false` when another request has it.
    pub(crate) fn take_trial(&self) -> bool {
        self.gate.take_trial()
    }

    pub(crate) fn return_trial(&self) {
        self.gate.return_trial();
    }

    /// A request that took `elapsed` used the node successfully.
    pub(crate) fn record_success(&self, elapsed: Duration, now: Instant) {
        self.record_latency(elapsed);
        self.gate.success(now);
    }

    /// A request found a fault. What it means for the breaker is the fault's own table.
    pub(crate) fn record_fault(&self, fault: Fault, now: Instant) {
        self.meters.fault(fault);
        if fault.trips_breaker() {
            let kind = if fault == Fault::Refusing { Failure::Refusal } else { Failure::Hard };
            self.gate.failure(kind, now);
        }
        if fault == Fault::Unreachable {
            // Whatever broke this connection may have broken those that idle beside it.
            self.next_generation();
        }
        if fault == Fault::NotPrimary {
            self.write_refused.store(true, Relaxed);
        }
        if fault.wants_probe() {
            self.probe_now();
        }
    }

    /// Whether a write connection was told since the last call that the server is read-only.
    pub(crate) fn take_write_refused(&self) -> bool {
        self.write_refused.swap(false, Relaxed)
    }

    /// A new connection was not let in within its time, which says more than a slow statement does.
    pub(crate) fn record_silent_connect(&self, now: Instant) {
        self.gate.failure(Failure::Hard, now);
        self.probe_now();
    }

    /// The monitor reached the node. (One that it does not reach is kept away by the topology.)
    pub(crate) fn record_reached(&self, now: Instant) {
        self.gate.probe_succeeded(now);
    }

    /// Rises to a slower answer at once and forgets it over some 20 faster ones: a node that has become slow is seen
    /// with its first slow answer.
    fn record_latency(&self, elapsed: Duration) {
        let sample = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let old = self.latency.load(Relaxed);
        let new = if sample >= old { sample } else { old - (old - sample).div_ceil(8) };
        self.latency.store(new, Relaxed);
    }
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

    fn node() -> Node {
        Node::new(NodeConfig::new("a", "postgres://h/d".parse().unwrap()), BreakerConfig::default())
    }

    fn fail(node: &Node, times: usize, now: Instant) {
        for _ in 0..times {
            node.record_fault(Fault::Unreachable, now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_says_what_the_breaker_says() {
        let node = node();
        let start = Instant::now();
        assert_eq!(node.admission(start), Admission::Admitted);
        fail(&node, 4, start);
        node.record_success(Duration::from_millis(1), start);
        fail(&node, 4, start);
        assert_eq!(node.admission(start), Admission::Admitted, "a success in between counts");
        fail(&node, 1, start);
        assert!(
            matches!(node.admission(start), Admission::Refused(left) if left >= Duration::from_millis(800))
        );
        let later = start + Duration::from_secs(2);
        assert_eq!(node.admission(later), Admission::Trial);
        node.record_success(Duration::from_millis(1), later);
        assert_eq!(node.admission(later), Admission::Admitted);
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_admits_a_single_trial() {
        let node = node();
        fail(&node, 5, Instant::now());
        let later = Instant::now() + Duration::from_secs(2);
        assert_eq!(node.admission(later), Admission::Trial);
        assert!(node.take_trial());
        assert_eq!(node.admission(later), Admission::Refused(Duration::ZERO));
        assert!(!node.take_trial());
        node.return_trial();
        assert_eq!(node.admission(later), Admission::Trial);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_that_are_not_the_nodes_open_nothing() {
        let node = node();
        let now = Instant::now();
        for fault in
            [Fault::Saturated, Fault::Conflict, Fault::Misrouted, Fault::NotPrimary, Fault::Unresponsive]
        {
            for _ in 0..50 {
                node.record_fault(fault, now);
            }
            assert_eq!(node.admission(now), Admission::Admitted, "{fault}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn latency_follows_a_peak_at_once_and_forgets_it_slowly() {
        let node = node();
        let now = Instant::now();
        let ms = Duration::from_millis;
        node.record_success(ms(1), now);
        node.record_success(ms(100), now);
        assert_eq!(node.latency(), ms(100));
        node.record_success(ms(1), now);
        assert!(node.latency() > ms(80));
        for _ in 0..60 {
            node.record_success(ms(1), now);
        }
        assert!(node.latency() < ms(2));
    }
}
