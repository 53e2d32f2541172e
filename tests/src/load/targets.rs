//! What an application gains that moves its reads from the primary to replicas: the same load before and after.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use routing_core::{PoolStatus, Router, RouterConfig};
use tokio::time::{Instant, interval};

use super::capped::{CappedCluster, READ};
use super::cpu_quota::NoQuota;
use super::overhead::Options;
use super::scale::read_for;
use super::slices::{Slice, median, run_for};
use crate::cluster::{reader, ready, writer};
use crate::handle::Handle as _;
use crate::open_loop;
use crate::orm::Orm;

/// Replicas that are there after.
const REPLICAS: usize = 3;
/// The parts of the primary's capacity for reads that are asked for before and after: at leisure, and busy.
const LOADS: [f64; 2] = [0.5, 0.8];
/// Writes a second while latencies are measured.
const WRITES: f64 = 10.0;
/// Clients that write again as soon as they are answered, while throughput is measured.
const WRITERS: usize = 4;
/// Clients for each serving server while capacity is measured.
const READERS: usize = 8;

/// One side of the comparison over all turns.
#[derive(Clone, Debug, Default)]
struct Side {
    /// Reads a second at most, turn by turn.
    capacity: Vec<f64>,
    /// Latencies under each common load.
    latencies: [Vec<Duration>; 2],
    /// Writes a second beside the smaller of them, turn by turn.
    writes: Vec<f64>,
    /// The largest part of any pool that was in use at any moment under a common load.
    pools: f64,
    /// Reads of the common loads that failed.
    failed: usize,
}

impl Side {
    /// Mean, median, p95 and p99 under one of the loads, in milliseconds.
    fn figures(&self, load: usize) -> [f64; 4] {
        let mut latencies = self.latencies[load].clone();
        latencies.sort_unstable();
        let mean = latencies.iter().sum::<Duration>().div_f64(latencies.len().max(1) as f64);
        let slice = Slice { throughput: 0.0, latencies };
        [mean, slice.percentile(0.5), slice.percentile(0.95), slice.percentile(0.99)]
            .map(|time| time.as_secs_f64() * 1e3)
    }
}

/// Both sides of one ORM. It displays as the lines of a table.
#[derive(Clone, Debug)]
pub struct Comparison {
    orm: &'static str,
    /// Reads a second of each common load.
    rates: [f64; 2],
    before: Side,
    after: Side,
}

/// The head of the table.
pub const HEAD: &str =
    "| ORM | what | the primary alone | 3 replicas | change | goal | |\n|---|---|---|---|---|---|---|";

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (&self.before, &self.after);
        let verdict = |met: bool| if met { "met" } else { "**not met**" };
        let ratio = |of: fn(&Side) -> &Vec<f64>| {
            let pairs = of(after).iter().zip(of(before));
            median(&pairs.map(|(after, before)| after / before).collect::<Vec<_>>())
        };
        let capacity = ratio(|side| &side.capacity);
        writeln!(
            f,
            "| {} | reads a second at most, writes beside them | {:.0} | {:.0} | {capacity:.2} times | more than 2 times | {} |",
            self.orm,
            median(&before.capacity),
            median(&after.capacity),
            verdict(capacity > 2.0),
        )?;
        for (load, rate) in self.rates.iter().enumerate() {
            let figures = before.figures(load).into_iter().zip(after.figures(load));
            for (name, (before, after)) in ["mean", "median", "p95", "p99"].into_iter().zip(figures) {
                let change = after / before - 1.0;
                writeln!(
                    f,
                    "| {} | latency of {rate:.0} reads a second ({:.0} % of what the primary can), {name} | {before:.1} ms | {after:.1} ms | {:+.0} % | at least 30 % less | {} |",
                    self.orm,
                    100.0 * LOADS[load],
                    100.0 * change,
                    verdict(change < -0.3),
                )?;
            }
        }
        let writes = ratio(|side| &side.writes);
        writeln!(
            f,
            "| {} | writes a second at most, {:.0} reads a second beside them | {:.0} | {:.0} | {writes:.2} times | no loss | {} |",
            self.orm,
            self.rates[0],
            median(&before.writes),
            median(&after.writes),
            verdict(writes >= 1.0),
        )?;
        write!(
            f,
            "| {} | the fullest pool, at any moment of the reads whose latencies are above; of them failed | {:.0} %; {} | {:.0} %; {} | | below 80 %; none | {} |",
            self.orm,
            100.0 * before.pools,
            before.failed,
            100.0 * after.pools,
            after.failed,
            verdict(after.pools < 0.8 && after.failed == 0),
        )
    }
}

/// Measures one ORM: in each turn before, with every replica stopped, and after, with all of them.
///
/// # Errors
/// When a replica that was started again cannot be limited.
///
/// # Panics
/// When a write fails, or a server does not stop or start.
pub async fn measure<O: Orm>(
    cluster: &CappedCluster,
    options: Options,
    said: impl Fn(&str),
) -> Result<Comparison, NoQuota> {
    let (mut before, mut after) = (Side::default(), Side::default());
    let mut rates = None;
    for round in 0..options.rounds {
        cluster.detach().await;
        let alone = started::<O>(cluster.config(0)).await;
        if rates.is_none() {
            let capacity = capacity(&alone, 1, 3 * options.slice).await;
            rates = Some(LOADS.map(|load| load * capacity));
        }
        let rates = rates.unwrap_or_default();
        turn(&alone, 1, rates, options.slice, &mut before).await;
        alone.close();
        cluster.attach().await?;
        let spread = started::<O>(cluster.config(REPLICAS)).await;
        turn(&spread, REPLICAS, rates, options.slice, &mut after).await;
        spread.close();
        said(&format!("{}, before and after: turn {} of {}", O::NAME, round + 1, options.rounds));
    }
    Ok(Comparison { orm: O::NAME, rates: rates.unwrap_or_default(), before, after })
}

async fn started<O: Orm>(config: RouterConfig) -> Router<O> {
    let servers = config.nodes.len();
    let router = Router::<O>::start(config, O::Options::default()).expect("a valid configuration");
    ready(&router).await;
    // Opens the connections.
    read_for(&router, READ, READERS * servers, Duration::from_millis(500)).await;
    write_for(&router, Duration::from_millis(200)).await;
    router
}

async fn turn<O: Orm>(router: &Router<O>, serving: usize, rates: [f64; 2], time: Duration, side: &mut Side) {
    side.capacity.push(capacity(router, serving, time).await);
    for (load, rate) in rates.into_iter().enumerate() {
        let work = async { tokio::join!(asked(router, rate, time), written(router, WRITES, time)).0 };
        let ((latencies, failed), pools) = watching_pools(router, work).await;
        side.latencies[load].extend(latencies);
        side.failed += failed;
        side.pools = side.pools.max(pools);
    }
    let (_, writes) = tokio::join!(asked(router, rates[0], time), write_for(router, time));
    side.writes.push(writes);
}

/// Reads a second at most, while a few writes go on.
async fn capacity<O: Orm>(router: &Router<O>, serving: usize, time: Duration) -> f64 {
    let reads = read_for(router, READ, READERS * serving, time);
    tokio::join!(reads, written(router, WRITES, time)).0.throughput
}

/// Writes a second at most.
async fn write_for<O: Orm>(router: &Router<O>, time: Duration) -> f64 {
    let router = router.clone();
    let write = move |_| {
        let db = writer(&router);
        async move { db.insert_note("load", "written").await.expect("a write") }
    };
    run_for(WRITERS, time, write).await.throughput
}

/// So many writes a second, whatever becomes of those before.
async fn written<O: Orm>(router: &Router<O>, rate: f64, time: Duration) {
    let arrivals = open_loop::arrivals(&mut Rng::new(), rate, time);
    let write = |_, _| {
        let db = writer(router);
        async move { db.insert_note("load", "beside").await.expect("a write") }
    };
    open_loop::run(Instant::now(), &arrivals, write).await;
}

/// So many reads a second, whatever becomes of those before: their latencies, and how many failed.
async fn asked<O: Orm>(router: &Router<O>, rate: f64, time: Duration) -> (Vec<Duration>, usize) {
    let answers = Arc::<Mutex<(Vec<Duration>, usize)>>::default();
    let arrivals = open_loop::arrivals(&mut Rng::new(), rate, time);
    open_loop::run(Instant::now(), &arrivals, |_, moment| {
        let (db, answers) = (reader(router), answers.clone());
        async move {
            let answer = db.text(READ).await;
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(_) => answers.0.push(moment.elapsed()),
                Err(_) => answers.1 += 1,
            }
        }
    })
    .await;
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *answers)
}

/// Does the work, and returns the largest part of any pool that was in use meanwhile.
async fn watching_pools<O: Orm, T>(router: &Router<O>, work: impl Future<Output = T>) -> (T, f64) {
    let (mut fullest, mut look) = (0.0_f64, interval(Duration::from_millis(5)));
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return (done, fullest),
            _ = look.tick() => {
                for node in router.status().nodes {
                    fullest = fullest.max(in_use(&node.read_pool)).max(in_use(&node.write_pool));
                }
            }
        }
    }
}

/// The part of a pool that requests hold.
fn in_use(pool: &PoolStatus) -> f64 {
    pool.open.saturating_sub(pool.idle) as f64 / pool.max.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(capacity: f64, millis: u64, writes: f64, pools: f64) -> Side {
        let latencies = [(); 2].map(|()| vec![Duration::from_millis(millis); 100]);
        Side { capacity: vec![capacity], latencies, writes: vec![writes], pools, failed: 0 }
    }

    #[test]
    fn each_target_is_met_or_not_by_its_own_goal() {
        let verdicts = |after| {
            let before = side(100.0, 10, 50.0, 0.9);
            let table = Comparison { orm: "ORM", rates: [50.0, 80.0], before, after }.to_string();
            table.lines().map(|line| !line.contains("not met")).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(side(210.0, 6, 50.0, 0.7)), [true; 11]);
        assert_eq!(verdicts(side(190.0, 8, 49.0, 0.9)), [false; 11]);
    }

    #[test]
    fn a_connection_that_is_open_and_not_idle_is_in_use() {
        assert_eq!(in_use(&PoolStatus { max: 20, open: 12, idle: 7, waiting: 0 }), 0.25);
    }
}
