//! How many more reads replicas serve, each server on a fixed share of a core.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use routing_core::Router;

use super::capped::{CappedCluster, READ, REPLICAS};
use super::overhead::Options;
use super::plot::Bars;
use super::processor::own_processor_time;
use super::slices::{Slice, median, quartiles, run_for};
use crate::cluster::{reader, ready};
use crate::handle::Handle as _;
use crate::orm::Orm;
use crate::seen::NodeView as _;

/// Clients for each server that serves reads: enough that none of them ever waits for work.
pub(super) const CLIENTS: usize = 8;
/// What a node is to bring of what one node alone does.
const GOAL: f64 = 0.95;
/// As many replicas; none is the primary alone.
const SIZES: Range<usize> = 0..4;

/// One line: an ORM and a number of replicas.
#[derive(Clone, Debug)]
pub struct Line {
    orm: &'static str,
    replicas: usize,
    slices: Vec<Slice>,
    /// Turn by turn, its reads for each one of the primary alone.
    ratios: Vec<f64>,
    /// In which part of their periods the serving servers used their share up.
    used_up: f64,
    /// Cores that this process used: client and router.
    client: f64,
}

impl Line {
    fn throughput(&self) -> f64 {
        median(&self.slices.iter().map(|slice| slice.throughput).collect::<Vec<_>>())
    }

    /// How many servers serve its reads.
    fn servers(&self) -> usize {
        self.replicas.max(1)
    }

    /// Reads for each one that the primary alone serves: the median over the turns.
    #[must_use]
    pub fn times_the_primary(&self) -> f64 {
        median(&self.ratios)
    }

    fn label(&self) -> String {
        match self.replicas {
            0 => format!("{}, the primary alone", self.orm),
            1 => format!("{}, 1 replica", self.orm),
            more => format!("{}, {more} replicas", self.orm),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, middle, high] = quartiles(&self.ratios);
        write!(
            f,
            "| {} | {:.0} | {middle:.2} ({low:.2} to {high:.2}) | {:.3} | {:.0} % | {:.2} |",
            self.label(),
            self.throughput(),
            middle / self.servers() as f64,
            100.0 * self.used_up,
            self.client,
        )
    }
}

/// The head of the table.
pub const HEAD: &str = "| who serves the reads | reads, 1/s | times the primary alone: median (quartiles) | of N times (goal: at least 0.95) | periods in which the servers used their share up | cores of client and router |\n|---|---|---|---|---|---|";

/// Each line's multiple of the primary's throughput, beside the goal of the largest.
#[must_use]
pub fn plot(lines: &[Line]) -> Bars {
    let largest = lines.iter().map(Line::servers).max().unwrap_or(1);
    Bars {
        title: "reads a second, of those of the primary alone".to_owned(),
        goal: GOAL * largest as f64,
        bars: lines.iter().map(|line| (line.label(), line.times_the_primary())).collect(),
    }
}

/// Measures one ORM.
///
/// # Panics
/// When a read fails.
pub async fn measure<O: Orm>(cluster: &CappedCluster, options: Options, said: impl Fn(&str)) -> Vec<Line> {
    // One router for all sizes: each server is probed as often whoever serves.
    let router = Router::<O>::start(cluster.config(REPLICAS.len()), O::Options::default());
    let router = router.expect("a valid configuration");
    ready(&router).await;
    let mut slices: [Vec<Slice>; 4] = Default::default();
    let (mut periods, mut client) = ([(0, 0); 4], [Duration::ZERO; 4]);
    // The first turn opens the connections; it does not count.
    for round in 0..=options.rounds {
        let mut order: Vec<usize> = SIZES.collect();
        fastrand::shuffle(&mut order);
        for size in order {
            let serving = if size == 0 { 0..1 } else { 1..size + 1 };
            let (before, used) = (cluster.periods(serving.clone()), own_processor_time());
            router.cluster().read_from_primary_only(size == 0);
            for (number, name) in REPLICAS.iter().enumerate() {
                router.drain(name, number >= size);
            }
            let slice = read_for(&router, READ, CLIENTS * serving.len(), options.slice).await;
            if round > 0 {
                let after = cluster.periods(serving);
                periods[size].0 += after.0 - before.0;
                periods[size].1 += after.1 - before.1;
                client[size] += own_processor_time() - used;
                slices[size].push(slice);
            }
        }
        said(&format!("{}, scale-out: turn {round} of {}", O::NAME, options.rounds));
    }
    router.close();
    let line = |replicas: usize| Line {
        orm: O::NAME,
        replicas,
        slices: slices[replicas].clone(),
        ratios: slices[replicas]
            .iter()
            .zip(&slices[0])
            .map(|(slice, alone)| slice.throughput / alone.throughput)
            .collect(),
        used_up: periods[replicas].1 as f64 / periods[replicas].0.max(1) as f64,
        client: client[replicas].as_secs_f64() / (options.slice.as_secs_f64() * options.rounds as f64),
    };
    SIZES.map(line).collect()
}

/// Clients that read again as soon as they are answered, each time in a request of its own.
pub(super) async fn read_for<O: Orm>(
    router: &Router<O>,
    read: &'static str,
    clients: usize,
    time: Duration,
) -> Slice {
    let router = router.clone();
    run_for(clients, time, move |_| {
        let db = reader(&router);
        async move {
            db.text(read).await.expect("a read");
        }
    })
    .await
}
