//! Why one replica serves as many reads as it does of those that the primary alone serves.
//!
//! Reads a second are three factors: the cores that a server had, the part of them that its reads had beside probes,
//! recovery and upkeep, and the reads that it served in a second of that. Each is measured, for reads that differ in what a
//! standby has to do differently, on each server and on the primary twice: how far these two differ is the method's own noise.

use std::fmt;
use std::time::Duration;

use routing_core::Router;
use tokio::time::Instant;

use super::capped::{CappedCluster, READ, REPLICAS};
use super::overhead::Options;
use super::scale::{CLIENTS, read_for};
use super::server_time::{Used, Work};
use super::slices::{median, quartiles};
use crate::cluster::{PRIMARY, ready};
use crate::orm::Orm;

/// What is read: the rows of the table that `scale` reads; as much work without a table, of which no row has a visibility; and
/// hardly anything, which is what any statement costs, its snapshot included.
const READS: [(&str, &str); 3] = [
    ("4,000 rows", READ),
    (
        "no table",
        "SELECT count(*)::text FROM generate_series(1, 1500) n WHERE 'the quote of the day is number ' || n LIKE '%77%'",
    ),
    ("a constant", "SELECT '77'"),
];
/// The replica that is promoted in the end.
const PROMOTED: usize = 3;

/// Who serves in a turn.
struct Server<'a, O: Orm> {
    label: &'static str,
    /// Its place in the cluster; the primary is the first.
    place: usize,
    router: &'a Router<O>,
}

/// What one turn brought.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    reads: usize,
    elapsed: Duration,
    used: Used,
    /// The periods in which the server wanted to run, and those in which it used its share up.
    periods: (u64, u64),
    /// Reads that the router sent elsewhere.
    elsewhere: u64,
}

impl Turn {
    fn throughput(&self) -> f64 {
        self.reads as f64 / self.elapsed.as_secs_f64()
    }

    /// Cores that the server had.
    fn cores(&self) -> f64 {
        self.used.all().as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// The part of them that its reads had.
    fn part(&self) -> f64 {
        self.used.part(Work::Reads)
    }

    /// Seconds of a core for one read.
    fn cost(&self) -> f64 {
        self.used.of(Work::Reads).as_secs_f64() / self.reads as f64
    }

    /// Reads for a second of a core.
    fn yielded(&self) -> f64 {
        1.0 / self.cost()
    }
}

/// One line: a read and who served it, beside the primary in the same turns.
#[derive(Clone, Debug)]
pub struct Line {
    orm: &'static str,
    read: &'static str,
    server: &'static str,
    turns: Vec<Turn>,
    primary: Vec<Turn>,
}

impl Line {
    /// Turn by turn, a figure for each one of the primary.
    fn times(&self, of: impl Fn(&Turn) -> f64) -> [f64; 3] {
        let pairs = self.turns.iter().zip(&self.primary);
        quartiles(&pairs.map(|(own, primary)| of(own) / of(primary)).collect::<Vec<_>>())
    }

    fn middle(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(&self.turns.iter().map(of).collect::<Vec<_>>())
    }

    /// What a read costs more than on the primary: the median over the turns, in microseconds.
    fn more(&self) -> [f64; 3] {
        let pairs = self.turns.iter().zip(&self.primary);
        quartiles(&pairs.map(|(own, primary)| 1e6 * (own.cost() - primary.cost())).collect::<Vec<_>>())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, middle, high] = self.times(Turn::throughput);
        write!(
            f,
            "| {}, {}, {} | {:.0} | {middle:.3} ({low:.3} to {high:.3}) |",
            self.orm,
            self.read,
            self.server,
            self.middle(Turn::throughput)
        )?;
        write!(f, " {:.4}: {:.3} |", self.middle(Turn::cores), self.times(Turn::cores)[1])?;
        write!(f, " {:.3} | {:.3} |", self.times(Turn::part)[1], self.times(Turn::yielded)[1])?;
        let [low, middle, high] = self.more();
        write!(f, " {:.0} | {middle:+.1} ({low:+.1} to {high:+.1}) |", 1e6 * self.middle(Turn::cost))?;
        let (mut used, mut periods, mut elsewhere) = (Used::default(), (0, 0), 0);
        for turn in &self.turns {
            used += turn.used;
            periods = (periods.0 + turn.periods.0, periods.1 + turn.periods.1);
            elsewhere += turn.elsewhere;
        }
        let parts = Work::ALL.map(|work| format!("{:.2}", 100.0 * used.part(work)));
        write!(
            f,
            " {} % | {:.0} % | {elsewhere} |",
            parts.join(" / "),
            100.0 * periods.1 as f64 / periods.0.max(1) as f64,
        )
    }
}

/// The head of the table. What is said to be times the primary's is the median over the turns; in brackets are quartiles.
pub const HEAD: &str = "| who serves what | reads, 1/s | times the primary (quartiles) | cores it had: times the primary's | part of them for reads, times | reads in a second of that, times | a read, µs of a core | more than on the primary, µs (quartiles) | cores went to reads / probes / recovery / sending the log / upkeep | periods in which the share was used up | reads served elsewhere |\n|---|---|---|---|---|---|---|---|---|---|---|";

/// Measures one ORM: the primary, the same again, and each standby alone.
///
/// # Panics
/// When a read fails.
pub async fn standbys<O: Orm>(cluster: &CappedCluster, options: Options, said: impl Fn(&str)) -> Vec<Line> {
    let router = Router::<O>::start(cluster.config(REPLICAS.len()), O::Options::default());
    let router = router.expect("a valid configuration");
    ready(&router).await;
    let server = |label, place| Server { label, place, router: &router };
    let servers = [
        server("the primary", 0),
        server("the primary again", 0),
        server("pg2", 1),
        server("pg3", 2),
        server("pg4", 3),
    ];
    let lines = in_turns(cluster, &servers, options, said).await;
    router.close();
    lines
}

/// Has the last replica leave recovery, without a standby of its own; the primary and the other replicas go on as they were.
///
/// # Panics
/// When it does not.
pub async fn promote(cluster: &CappedCluster) {
    let (servers, name) = (cluster.servers(), REPLICAS[PROMOTED - 1]);
    let promoted: bool = servers.value(name, "SELECT pg_promote()").await;
    assert!(promoted, "{name} leaves recovery");
    servers.sql(name, "CHECKPOINT").await;
}

/// The same after [`promote`]: the primary, a standby, and the server that was one.
///
/// # Panics
/// When a read fails.
pub async fn promoted<O: Orm>(cluster: &CappedCluster, options: Options, said: impl Fn(&str)) -> Vec<Line> {
    // Nobody may see both primaries.
    let mut former = cluster.config(REPLICAS.len());
    former.nodes.retain(|node| node.name == REPLICAS[PROMOTED - 1]);
    let router = Router::<O>::start(cluster.config(PROMOTED - 1), O::Options::default());
    let router = router.expect("a valid configuration");
    let former = Router::<O>::start(former, O::Options::default()).expect("a valid configuration");
    ready(&router).await;
    ready(&former).await;
    let servers = [
        Server { label: "the primary", place: 0, router: &router },
        Server { label: "the primary again", place: 0, router: &router },
        Server { label: "pg2", place: 1, router: &router },
        Server { label: "pg4, promoted", place: PROMOTED, router: &former },
    ];
    let lines = in_turns(cluster, &servers, options, said).await;
    router.close();
    former.close();
    lines
}

async fn in_turns<O: Orm>(
    cluster: &CappedCluster,
    servers: &[Server<'_, O>],
    options: Options,
    said: impl Fn(&str),
) -> Vec<Line> {
    let mut turns = READS.map(|_| vec![Vec::new(); servers.len()]);
    let mut order: Vec<_> = (0..servers.len()).collect();
    let mut reads = [0, 1, 2];
    // The first turn opens the connections; it does not count.
    for round in 0..=options.rounds {
        fastrand::shuffle(&mut reads);
        for read in reads {
            fastrand::shuffle(&mut order);
            for &own in &order {
                let turn = turn(cluster, &servers[own], READS[read].1, options.slice).await;
                if round > 0 {
                    turns[read][own].push(turn);
                }
            }
        }
        said(&format!("{}, control: turn {round} of {}", O::NAME, options.rounds));
    }
    let lines = READS.iter().zip(&turns).flat_map(|((read, _), turns)| {
        servers.iter().zip(turns).map(|(server, own)| Line {
            orm: O::NAME,
            read,
            server: server.label,
            turns: own.clone(),
            primary: turns[0].clone(),
        })
    });
    lines.collect()
}

async fn turn<O: Orm>(
    cluster: &CappedCluster,
    server: &Server<'_, O>,
    read: &'static str,
    time: Duration,
) -> Turn {
    let (router, place) = (server.router, server.place);
    let name = [PRIMARY].into_iter().chain(REPLICAS).nth(place).unwrap_or(PRIMARY);
    router.cluster().read_from_primary_only(place == 0 || router.status().nodes.len() == 1);
    for node in router.cluster().nodes().iter() {
        // The primary stays, as in `scale`: a read that comes to it is counted.
        node.set_draining(node.name() != name && node.name() != PRIMARY);
    }
    let (periods, others) = (cluster.periods(place..place + 1), chosen_beside(router, name));
    let (began, used) = (Instant::now(), cluster.time_of(place));
    let slice = read_for(router, read, CLIENTS, time).await;
    let used = cluster.time_of(place).since(&used);
    let elapsed = began.elapsed();
    let after = cluster.periods(place..place + 1);
    Turn {
        reads: slice.latencies.len(),
        elapsed,
        used,
        periods: (after.0 - periods.0, after.1 - periods.1),
        elsewhere: chosen_beside(router, name) - others,
    }
}

/// How often the router has chosen another node than this one, ever.
fn chosen_beside<O: Orm>(router: &Router<O>, name: &str) -> u64 {
    let nodes = router.status().nodes;
    let others = nodes.iter().filter(|node| node.name != name).flat_map(|node| &node.decisions);
    others.map(|count| count.count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second in which the server had this many milliseconds of a core, of them for reads, and served so many.
    fn turn(cores: u64, reading: u64, reads: usize) -> Turn {
        let millis = Duration::from_millis;
        let used = Used::new([reading, 0, cores - reading, 0, 0].map(millis));
        Turn { reads, elapsed: Duration::from_secs(1), used, ..Turn::default() }
    }

    #[test]
    fn reads_a_second_are_cores_and_their_part_for_reads_and_reads_in_a_second_of_it() {
        let turn = turn(200, 100, 500);
        assert_eq!((turn.cores(), turn.part()), (0.2, 0.5));
        assert!((turn.yielded() - 5_000.0).abs() < 1e-6);
        assert!((turn.cores() * turn.part() * turn.yielded() - turn.throughput()).abs() < 1e-6);
    }

    #[test]
    fn each_turn_is_compared_with_the_primary_in_the_same_turn() {
        let line = Line {
            orm: "ORM",
            read: "rows",
            server: "pg2",
            turns: vec![turn(200, 150, 500), turn(100, 50, 100), turn(100, 75, 250)],
            primary: vec![turn(100, 100, 500), turn(100, 100, 400), turn(100, 100, 500)],
        };
        assert_eq!(line.times(Turn::throughput), [0.25, 0.5, 1.0]);
        assert_eq!(line.times(Turn::cores), [1.0, 1.0, 2.0]);
        assert_eq!(line.more().map(f64::round), [100.0, 100.0, 250.0]);
        let shown = line.to_string();
        assert!(
            shown.starts_with("| ORM, rows, pg2 | 250 | 0.500 (0.250 to 1.000) | 0.1000: 1.000 |"),
            "{shown}"
        );
    }
}
