//! Load that does not wait for its answers.
//!
//! Clients that ask again only after an answer ask less the slower the answers come, and hide what they should show. Here
//! each request has its moment before the first is sent, and its latency counts from that moment.

use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The moments at which requests are to begin: so many a second on average, each independent of the others (a Poisson
/// process), for so long.
#[must_use]
pub fn arrivals(rng: &mut Rng, per_second: f64, duration: Duration) -> Vec<Duration> {
    let mut arrivals = Vec::new();
    let mut at = 0.0;
    loop {
        at += -(1.0 - rng.f64()).ln() / per_second;
        if at >= duration.as_secs_f64() {
            return arrivals;
        }
        arrivals.push(Duration::from_secs_f64(at));
    }
}

/// Begins one request at each moment after `began`, whatever became of those before, and waits for the last answer.
/// `request` is given the request's number and its moment.
///
/// # Panics
/// When a request panics.
pub async fn run<F>(began: Instant, arrivals: &[Duration], mut request: impl FnMut(usize, Instant) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (number, at) in arrivals.iter().enumerate() {
        let moment = began + *at;
        sleep_until(moment).await;
        tasks.spawn(request(number, moment));
        while let Some(ended) = tasks.try_join_next() {
            ended.expect("a request does not panic");
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a request does not panic");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_has_the_same_moments_as_many_as_were_asked_for() {
        let drawn = || arrivals(&mut Rng::with_seed(7), 100.0, Duration::from_secs(100));
        assert_eq!(drawn(), drawn());
        assert!((9_500..10_500).contains(&drawn().len()), "{}", drawn().len());
        assert!(drawn().is_sorted());
    }
}
