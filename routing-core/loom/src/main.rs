//! What requests share without a lock, under every order in which threads and memory can take their steps.
//!
//! The files are the router's own; only `sync` is another. loom (Norris and Demsky, "CDSChecker", 2013, is its origin) runs
//! each model once for each order that can make a difference.
#![expect(dead_code, reason = "the models need only a part of each file")]

#[path = "../../src/breaker.rs"]
mod breaker;
#[path = "../../src/cap.rs"]
mod cap;
#[path = "../../src/gate.rs"]
mod gate;
#[path = "../../src/priority.rs"]
mod priority;
#[path = "../../src/sabotage.rs"]
mod sabotage;

mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
    pub(crate) use std::sync::PoisonError;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::Instant;

use breaker::{BreakerConfig, BreakerState, Failure};
use cap::Cap;
use gate::{Admission, Gate};
use priority::Priority;

fn main() {
    check("a cap never admits more than its limit, and gets every permit back", cap_limit);
    check("a permit that the rate refuses is given back", cap_rate);
    check("of two that find the breaker half-open, one goes", half_open_slot);
    check("no success is told after a failure that it came before", late_success);
    check("a success and a failure at once leave the breaker closed", success_beside_failure);
    check("what the breaker says is what requests see", published_state);
}

fn check(promise: &str, model: impl Fn() + Send + Sync + 'static) {
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = orders.clone();
    loom::model(move || {
        counted.fetch_add(1, SeqCst);
        model();
    });
    println!("count | loom: {promise} | {} orders", orders.load(SeqCst));
}

fn both<A: Send + 'static, B>(
    first: impl FnOnce() -> A + Send + 'static,
    second: impl FnOnce() -> B,
) -> (A, B) {
    let first = loom::thread::spawn(first);
    let second = second();
    (first.join().expect("no panic"), second)
}

fn cap_limit() {
    let cap = Cap::new(1);
    let held = Arc::new(loom::sync::atomic::AtomicU32::new(0));
    let serve = |cap: Arc<Cap>, held: Arc<loom::sync::atomic::AtomicU32>| {
        move || {
            let Some(_permit) = cap.take() else { return false };
            assert_eq!(held.fetch_add(1, SeqCst), 0, "two at once under a limit of one");
            held.fetch_sub(1, SeqCst);
            true
        }
    };
    let (first, second) = both(serve(cap.clone(), held.clone()), serve(cap.clone(), held));
    assert!(first || second, "one of two gets the only permit");
    assert_eq!(cap.taken(), 0);
}

fn cap_rate() {
    let now = Instant::now();
    // One in a burst, whatever comes at once.
    let cap = Cap::with_rate(10, Some(1));
    let take = |cap: Arc<Cap>| move || cap.take_for(Priority::Normal, now).is_some();
    let (first, second) = both(take(cap.clone()), take(cap.clone()));
    assert!(first ^ second, "a burst of one");
    assert_eq!(cap.taken(), 0);
}

/// A gate whose open period is over, and when that is.
fn half_open() -> (Arc<Gate>, Instant) {
    let config =
        BreakerConfig { failures: 1, first_open: Duration::from_secs(1), ..BreakerConfig::default() };
    let gate = Arc::new(Gate::new(config));
    let now = Instant::now();
    gate.failure(Failure::Hard, now);
    (gate, now + Duration::from_secs(2))
}

fn half_open_slot() {
    let (gate, now) = half_open();
    let attempt = |gate: Arc<Gate>| move || gate.admission(now) == Admission::Trial && gate.take_trial(now);
    let (first, second) = both(attempt(gate.clone()), attempt(gate.clone()));
    assert!(first ^ second, "the one slot has one taker");
    gate.return_trial();
    assert!(gate.take_trial(now), "it can be taken again");
}

/// A success of the time before must not close a breaker that has opened since.
fn late_success() {
    let config =
        BreakerConfig { failures: 2, first_open: Duration::from_secs(1), ..BreakerConfig::default() };
    let (gate, now) = (Arc::new(Gate::new(config)), Instant::now());
    both(
        {
            let gate = gate.clone();
            move || gate.success(now)
        },
        || (0..2).for_each(|_| gate.failure(Failure::Hard, now)),
    );
    let later = now + Duration::from_secs(2);
    if gate.state(now) != BreakerState::Closed {
        // The half-open attempt fails: whatever happened before, the breaker opens again.
        gate.failure(Failure::Hard, later);
        assert!(matches!(gate.state(later), BreakerState::Open { .. }), "an old success has closed it");
    }
}

fn success_beside_failure() {
    let config = BreakerConfig { failures: 2, ..BreakerConfig::default() };
    let (gate, now) = (Arc::new(Gate::new(config)), Instant::now());
    both(
        {
            let gate = gate.clone();
            move || {
                gate.failure(Failure::Hard, now);
                gate.success(now);
            }
        },
        || gate.success(now),
    );
    // Both successes may have come first, or between; none can be left that makes a second failure in a row of it.
    gate.failure(Failure::Hard, now);
    assert_eq!(gate.admission(now), Admission::Admitted, "two failures with a success between them");
}

fn published_state() {
    let (gate, later) = half_open();
    both(
        {
            let gate = gate.clone();
            move || gate.success(later)
        },
        || gate.probe_succeeded(later),
    );
    assert_eq!(gate.state(later), BreakerState::Closed);
    assert_eq!(gate.admission(later), Admission::Admitted);
}
