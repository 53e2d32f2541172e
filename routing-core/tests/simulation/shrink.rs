//! From a schedule that breaks a promise to a small one that still does.

use super::mutant::Mutant;
use super::run::run;
use super::schedule::Schedule;
use super::violation::Promise;

/// Runs that a search may take.
const RUNS: usize = 600;

/// Leaves out clients, requests, faults and acts for as long as the promise is still broken.
pub(crate) fn shrink(schedule: &Schedule, promise: Promise, mutant: Option<Mutant>) -> Schedule {
    let mut smallest = schedule.clone();
    let mut runs = 0;
    loop {
        let mut smaller = false;
        let mut index = 0;
        while let Some(candidate) = without(&smallest, index) {
            if runs >= RUNS {
                return smallest;
            }
            runs += 1;
            if run(&candidate, mutant, false).violations.iter().any(|found| found.promise == promise) {
                (smallest, smaller) = (candidate, true);
            } else {
                index += 1;
            }
        }
        if !smaller {
            return smallest;
        }
    }
}

/// The schedule without its part with this number: clients first, then faults, requests and acts. `None` after the last.
fn without(schedule: &Schedule, index: usize) -> Option<Schedule> {
    let mut candidate = schedule.clone();
    let mut left = index;
    if left < candidate.clients.len() {
        candidate.clients.remove(left);
        return Some(candidate);
    }
    left -= candidate.clients.len();
    if left < candidate.steps.len() {
        candidate.steps.remove(left);
        return Some(candidate);
    }
    left -= candidate.steps.len();
    for requests in &mut candidate.clients {
        if left < requests.len() {
            let removed = requests.remove(left);
            // Those that follow keep their time.
            if let Some(next) = requests.get_mut(left) {
                next.after += removed.after;
            }
            return Some(candidate);
        }
        left -= requests.len();
        for request in requests {
            if request.acts.len() > 1 && left < request.acts.len() {
                request.acts.remove(left);
                return Some(candidate);
            }
            left = left.saturating_sub(if request.acts.len() > 1 { request.acts.len() } else { 0 });
        }
    }
    None
}
