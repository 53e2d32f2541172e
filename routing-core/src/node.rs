//! One server: its name and what this process counts about it.
//!
//! A node outlives every topology that names it, so its breaker, its counters and its latency survive each new
//! snapshot.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::breaker::{BreakerConfig, BreakerState, Failure};
use crate::config::{NodeConfig, RouterConfig};
use crate::decision::{Access, Reason};
use crate::fading::Fading;
use crate::fault::Fault;
use crate::gate::{Admission, Gate};
use crate::metrics::NodeMeters;
use crate::node_id::NodeId;
use crate::recent::Recent;
use crate::role::Role;
use crate::signal::{Signal, Watcher};
use crate::slow_start::SlowStart;

/// A slow answer counts half after this time without another: a node that was slow, and gets no requests because of that,
/// is tried again some time. Twenty times as slow as the others, it is after some 20 s.
const LATENCY_HALF_LIFE: Duration = Duration::from_secs(5);

/// A fault counts half of a request in flight after this time.
const FAULT_HALF_LIFE: Duration = Duration::from_secs(1);

/// The parts of a request in flight.
const PARTS: u32 = 1 << 10;

/// One server with its breaker and counters.
pub struct Node {
    id: NodeId,
    name: Arc<str>,
    config: NodeConfig,
    gate: Gate,
    in_flight: AtomicU32,
    /// Microseconds; an average that follows peaks.
    latency: Fading,
    /// What it owes for its faults, in parts of a request in flight.
    faults: Fading,
    slow_start: SlowStart,
    /// It joined or was down, and has not served since.
    cold: AtomicBool,
    draining: AtomicBool,
    weight: AtomicU32,
    zone: ArcSwapOption<String>,
    /// The zone of this process, if that counts.
    own_zone: Option<String>,
    /// It is in that zone, or no zone counts.
    local: AtomicBool,
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
            gate: Gate::new(cluster.breaker.clone()),
            weight: AtomicU32::new(config.weight),
            local: AtomicBool::new(is_local(cluster.zone.as_deref(), config.zone.as_deref())),
            zone: ArcSwapOption::from_pointee(config.zone.clone()),
            own_zone: cluster.zone.clone(),
            reads: AtomicBool::new(config.reads),
            write_refused: AtomicBool::new(false),
            config,
            in_flight: AtomicU32::new(0),
            latency: Fading::new(LATENCY_HALF_LIFE),
            faults: Fading::new(FAULT_HALF_LIFE),
            slow_start: SlowStart::new(cluster.slow_start),
            cold: AtomicBool::new(false),
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
        let zone = self.zone.swap(config.zone.clone().map(Arc::new));
        self.local.store(is_local(self.own_zone.as_deref(), config.zone.as_deref()), Relaxed);
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
        self.local.load(Relaxed)
    }

    /// Requests of this process that hold one of its connections or wait for one.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Its recent latency; zero before the first answer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.latency_at(Instant::now())
    }

    /// The same at `now`: it fades without answers.
    pub(crate) fn latency_at(&self, now: Instant) -> Duration {
        Duration::from_micros(self.latency.at(now).into())
    }

    /// Its requests in flight, and the faults that it met lately as if they were.
    pub(crate) fn load(&self, now: Instant) -> u32 {
        self.in_flight().saturating_add((self.faults.at(now) + PARTS / 2) / PARTS)
    }

    /// The part of its share of reads that it gets at `now`, from 0.1 to 1: less than 1 in its slow start.
    #[must_use]
    pub fn ramp(&self, now: Instant) -> f32 {
        self.slow_start.at(now)
    }

    /// It joins, or is down: its cache is taken to be cold when it serves next.
    pub(crate) fn cool(&self) {
        self.cold.store(true, Relaxed);
    }

    /// It may serve from this instant on.
    pub(crate) fn may_serve_from(&self, at: Instant) {
        if self.cold.swap(false, Relaxed) {
            self.begin_slowly(at);
        }
    }

    /// What it failed before is settled by that.
    fn begin_slowly(&self, at: Instant) {
        self.faults.set(0, at);
        self.slow_start.begin(at);
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
    pub(crate) fn enter(&self, access: Access, role: Role, reason: Reason, now: Instant) {
        self.in_flight.fetch_add(1, Relaxed);
        self.recent.record(access, reason, now);
        self.meters.decision(access, role, reason);
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Takes the half-open state's only slot; `false` when another request has it.
    pub(crate) fn take_trial(&self, now: Instant) -> bool {
        self.gate.take_trial(now)
    }

    pub(crate) fn return_trial(&self) {
        self.gate.return_trial();
    }

    /// A request that took `elapsed` used the node successfully.
    pub(crate) fn record_success(&self, elapsed: Duration, now: Instant) {
        self.record_latency(elapsed, now);
        if self.gate.success(now) {
            self.begin_slowly(now);
        }
    }

    /// A request was given up after `elapsed`: the node is at least as slow.
    pub(crate) fn record_unfinished(&self, elapsed: Duration, now: Instant) {
        if elapsed > self.latency_at(now) {
            self.record_latency(elapsed, now);
        }
    }

    /// A request found a fault. What it means for the breaker is the fault's own table.
    pub(crate) fn record_fault(&self, fault: Fault, now: Instant) {
        self.meters.fault(fault);
        if fault.trips_breaker() {
            let kind = if fault == Fault::Refusing { Failure::Refusal } else { Failure::Hard };
            self.gate.failure(kind, now);
        }
        if fault.costs() {
            self.charge(now);
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
        self.charge(now);
        self.probe_now();
    }

    /// A node that fails at once has nothing in flight; nobody is to take that for speed.
    fn charge(&self, now: Instant) {
        self.faults.set(self.faults.at(now).saturating_add(PARTS).min(u32::MAX / 2), now);
    }

    /// The monitor reached the node. (One that it does not reach is kept away by the topology.)
    pub(crate) fn record_reached(&self, now: Instant) {
        self.gate.probe_succeeded(now);
    }

    /// Rises to a slower answer at once and forgets it over some 20 faster ones, or with time: a node that has become slow
    /// is seen with its first slow answer.
    fn record_latency(&self, elapsed: Duration, now: Instant) {
        let sample = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX).max(1);
        let old = self.latency.at(now);
        let new = if sample >= old { sample } else { old - (old - sample).div_ceil(8) };
        self.latency.set(new, now);
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
        assert!(node.take_trial(later));
        assert_eq!(node.admission(later), Admission::Refused(Duration::ZERO));
        assert!(!node.take_trial(later));
        node.return_trial();
        assert_eq!(node.admission(later), Admission::Trial);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_says_that_the_node_fails_opens_its_breaker() {
        use BreakerState::{Closed, Open};
        let now = Instant::now();
        let open = |seconds: f64| Open { until: now + Duration::from_secs_f64(seconds) };
        // fault, and the breaker after fifty of it: at the longest, as the open period is jittered
        let table = [
            (Fault::Unreachable, open(1.2)),
            (Fault::Refusing, open(0.6)),
            (Fault::Unresponsive, Closed),
            (Fault::Saturated, Closed),
            (Fault::Conflict, Closed),
            (Fault::NotPrimary, Closed),
            (Fault::Misrouted, Closed),
        ];
        assert_eq!(table.map(|row| row.0), Fault::ALL);
        for (fault, expected) in table {
            let node = node();
            (0..50).for_each(|_| node.record_fault(fault, now));
            match (node.breaker_state(now), expected) {
                (Closed, Closed) => {}
                (Open { until }, Open { until: latest }) => {
                    assert!(until <= latest && until - now >= (latest - now).mul_f64(0.66), "{fault}");
                }
                other => panic!("{fault}: {other:?}"),
            }
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

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_forgotten_with_time_and_faults_make_nobody_look_fast() {
        let node = node();
        let (now, ms) = (Instant::now(), Duration::from_millis);
        node.record_success(ms(100), now);
        for fault in Fault::ALL {
            node.record_fault(fault, now);
            assert_eq!(node.latency_at(now), ms(100), "{fault}");
        }
        assert_eq!(node.load(now), 4, "those that cost count as in flight");
        assert_eq!(node.in_flight(), 0);
        let later = |secs| now + Duration::from_secs(secs);
        assert_eq!([1, 2, 3, 9].map(|secs| node.load(later(secs))), [2, 1, 1, 0]);
        let after = node.latency_at(later(20));
        assert!((ms(6)..ms(7)).contains(&after), "{after:?}");
        node.record_unfinished(ms(5), later(20));
        assert_eq!(node.latency_at(later(20)), after);
        node.record_unfinished(ms(70), later(20));
        assert_eq!(node.latency_at(later(20)), ms(70), "it was at least as slow");
    }
}
