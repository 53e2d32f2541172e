//! What requests and the monitor tell about a node.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Node;
use crate::breaker::Failure;
use crate::fault::Fault;

/// A slow answer counts half after this time without another: a node that was slow, and gets no requests because of that,
/// is tried again some time: twenty times as slow as its peers, after 10 to 20 s.
pub(super) const LATENCY_HALF_LIFE_MILLIS: u64 = 5_000;

/// A fault counts half of a request in flight after this time.
pub(super) const FAULT_HALF_LIFE_MILLIS: u64 = 1_000;

/// The parts of a request in flight.
const PARTS: u32 = 1 << 10;

impl Node {
    /// What its fading numbers count time by.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }

    /// Its recent latency; zero before the first answer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.latency_at(Instant::now())
    }

    /// The same at `now`: it fades without answers.
    pub(crate) fn latency_at(&self, now: Instant) -> Duration {
        Duration::from_micros(self.live.latency.at(|| self.age(now)).into())
    }

    /// Its requests in flight, and the faults that it met lately as if they were.
    #[inline]
    pub(crate) fn load(&self, now: Instant) -> u32 {
        self.in_flight().saturating_add((self.live.faults.until_gone(|| self.age(now)) + PARTS / 2) / PARTS)
    }

    /// Nothing about it needs a closer look: it is not drained, serves reads, and stands where this process does; its breaker
    /// is closed, it owes nothing for faults, and gets its whole share.
    // One jump for all of it.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        let live = &self.live;
        let set_apart = self.is_draining() | !self.serves_reads() | !self.is_local();
        !(set_apart | live.faults.is_some() | live.slow_start.is_on() | live.gate.has_opened())
    }

    /// The part of its share of reads that it gets at `now`, from 0.1 to 1: less than 1 in its slow start.
    #[must_use]
    #[inline]
    pub fn ramp(&self, now: Instant) -> f32 {
        self.live.slow_start.at(|| self.age(now))
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
        self.live.faults.set(0, self.age(at));
        self.live.slow_start.begin(self.age(at));
    }

    /// A request that took `elapsed` used the node successfully.
    pub(crate) fn record_success(&self, elapsed: Duration, now: Instant) {
        self.record_latency(elapsed, now);
        self.record_answer(now);
    }

    /// The node was used successfully, for who knows how long.
    pub(crate) fn record_answer(&self, now: Instant) {
        if self.live.gate.success(now) {
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
            self.live.gate.failure(kind, now);
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
        self.live.gate.failure(Failure::Hard, now);
        self.charge(now);
        self.probe_now();
    }

    /// A node that fails at once has nothing in flight; nobody is to take that for speed.
    fn charge(&self, now: Instant) {
        self.live.faults.update(self.age(now), |owed| owed.saturating_add(PARTS).min(u32::MAX / 2));
    }

    /// The monitor reached the node. (One that it does not reach is kept away by the topology.)
    pub(crate) fn record_reached(&self, now: Instant) {
        self.live.gate.probe_succeeded(now);
    }

    /// Rises to a slower answer at once and forgets it over some 20 faster ones, or with time: a node that has become slow
    /// is seen with its first slow answer.
    fn record_latency(&self, elapsed: Duration, now: Instant) {
        let sample = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX).max(1);
        self.live.latency.update(self.age(now), |old| {
            if sample >= old { sample } else { old - (old - sample).div_ceil(8) }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::{BreakerConfig, BreakerState};
    use crate::config::NodeConfig;
    use crate::gate::Admission;

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
