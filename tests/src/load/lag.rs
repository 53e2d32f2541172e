//! How far replicas are behind the primary, by this machine's clock and by what the primary says.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use routing_cluster::Login;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

use crate::cluster::{PRIMARY, TestCluster};
use crate::database::Database;

/// Between two beats.
const BEAT: Duration = Duration::from_millis(100);
/// Between two looks at each replica, and at the primary's view of all.
const LOOK: Duration = Duration::from_millis(50);
/// What the superuser writes to.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS heartbeat (number int NOT NULL); TRUNCATE heartbeat; INSERT INTO heartbeat VALUES (0)";
const BEHIND: &str =
    "SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 FROM pg_stat_replication";

/// An average and a maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    sum: f64,
    count: u32,
    maximum: f64,
}

impl Lag {
    /// One more measurement, in seconds.
    pub fn add(&mut self, seconds: f64) {
        self.sum += seconds;
        self.count += 1;
        self.maximum = self.maximum.max(seconds);
    }

    /// The average in seconds; 0 without a measurement.
    #[must_use]
    pub fn average(&self) -> f64 {
        self.sum / f64::from(self.count.max(1))
    }

    /// The maximum in seconds.
    #[must_use]
    pub fn maximum(&self) -> f64 {
        self.maximum
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} / {:.1} ms", self.average() * 1e3, self.maximum * 1e3)
    }
}

/// When each beat was acknowledged by the primary.
#[derive(Debug, Default)]
struct Beats(Vec<Instant>);

impl Beats {
    /// How long the oldest beat that is not visible has been acknowledged, on a replica that shows this one.
    fn behind(&self, visible: usize, now: Instant) -> Duration {
        self.0.get(visible).map_or(Duration::ZERO, |missing| now.duration_since(*missing))
    }
}

/// Measures until it is stopped: a beat is written ten times a second, and every replica is asked which it shows.
#[derive(Debug)]
pub struct LagSampler {
    tasks: Vec<JoinHandle<()>>,
    lags: Arc<Mutex<Vec<(String, Lag)>>>,
}

impl LagSampler {
    /// Begins on these replicas.
    ///
    /// # Panics
    /// When the primary or a replica does not let the superuser in.
    pub async fn start(cluster: &TestCluster, replicas: &[&str]) -> Self {
        let beats = Arc::<Mutex<Beats>>::default();
        let primary = cluster.database(PRIMARY, Login::Superuser).await;
        primary.run(CREATE).await.expect("a table of beats");
        cluster.wait_replayed().await;
        let named =
            replicas.iter().map(|name| (format!("{name}, beats by this machine's clock"), Lag::default()));
        let primarys = ("all, `replay_lag` in the primary's pg_stat_replication".to_owned(), Lag::default());
        let lags = Arc::new(Mutex::new(named.chain([primarys]).collect::<Vec<_>>()));
        let mut tasks = vec![tokio::spawn(beat(primary, beats.clone()))];
        for (number, name) in replicas.iter().enumerate() {
            let replica = cluster.database(name, Login::Superuser).await;
            tasks.push(tokio::spawn(look(replica, beats.clone(), lags.clone(), number)));
        }
        let primary = cluster.database(PRIMARY, Login::Superuser).await;
        tasks.push(tokio::spawn(ask(primary, lags.clone(), replicas.len())));
        Self { tasks, lags }
    }

    /// What was measured, by whom.
    #[must_use]
    pub fn stop(self) -> Vec<(String, Lag)> {
        locked(&self.lags).clone()
    }
}

impl Drop for LagSampler {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn beat(primary: Database, beats: Arc<Mutex<Beats>>) {
    loop {
        if primary.run("UPDATE heartbeat SET number = number + 1").await.is_err() {
            return;
        }
        locked(&beats).0.push(Instant::now());
        sleep(BEAT).await;
    }
}

async fn look(
    replica: Database,
    beats: Arc<Mutex<Beats>>,
    lags: Arc<Mutex<Vec<(String, Lag)>>>,
    number: usize,
) {
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        // What is acknowledged later can be missing without a fault: the time is from before the question.
        let asked = Instant::now();
        let Ok(visible) = replica.value::<i32>("SELECT number FROM heartbeat").await else { return };
        let behind = locked(&beats).behind(usize::try_from(visible).unwrap_or_default(), asked);
        locked(&lags)[number].1.add(behind.as_secs_f64());
    }
}

async fn ask(primary: Database, lags: Arc<Mutex<Vec<(String, Lag)>>>, number: usize) {
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        let Ok(seconds) = primary.value::<f64>(BEHIND).await else { return };
        locked(&lags)[number].1.add(seconds);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_behind_since_the_first_beat_that_it_does_not_show() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let beats = Beats(vec![at(0), at(100), at(200)]);
        for (visible, now, behind) in [(3, 900, 0), (2, 250, 50), (1, 250, 150), (0, 250, 250), (2, 150, 0)] {
            assert_eq!(beats.behind(visible, at(now)), Duration::from_millis(behind), "{visible} at {now}");
        }
    }

    #[test]
    fn a_lag_is_its_average_and_its_maximum() {
        let mut lag = Lag::default();
        assert_eq!(lag.average(), 0.0);
        for seconds in [0.0, 0.004, 0.002] {
            lag.add(seconds);
        }
        assert_eq!(lag.to_string(), "2.0 / 4.0 ms");
    }
}
