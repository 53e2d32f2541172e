//! Short measurements that take turns.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

/// What one contender did in one slice of time.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Requests a second.
    pub throughput: f64,
    /// How long each request took, the fastest first.
    pub latencies: Vec<Duration>,
}

impl Slice {
    /// The latency that this share of the requests did not exceed.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.latencies.get(place).copied().unwrap_or_default()
    }
}

/// So many clients that ask again as soon as they are answered, for so long.
///
/// # Panics
/// When a request panics.
pub async fn run_for<F, Fut>(clients: usize, time: Duration, request: F) -> Slice
where
    F: Fn(u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let request = request.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut number = client as u64 * 7_919;
            while began.elapsed() < time {
                let asked = Instant::now();
                request(number).await;
                latencies.push(asked.elapsed());
                number += 1;
            }
            latencies
        });
    }
    let mut latencies = tasks.join_all().await.concat();
    let elapsed = began.elapsed();
    latencies.sort_unstable();
    Slice { throughput: latencies.len() as f64 / elapsed.as_secs_f64(), latencies }
}

/// The middle one; of an even number the upper of the two.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    quartiles(values)[1]
}

/// The quarter, the half and the three quarters.
#[must_use]
pub fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted.get(sorted.len() * quarter / 4).copied().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_and_percentiles_are_values_that_were_measured() {
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), [2.0, 3.0, 4.0]);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let slice = Slice { throughput: 1.0, latencies };
        assert_eq!(slice.percentile(0.99), Duration::from_millis(99));
        assert_eq!(slice.percentile(1.0), Duration::from_millis(100));
    }
}
