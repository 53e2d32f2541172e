//! What a read through the router costs beside the same read on the same pool without it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use routing_core::{Access, BreakerConfig, Consistency, Node, Router, RouterConfig, Session};

use super::bench::{Bench, Query};
use super::plot::Bars;
use super::slices::{Slice, median, quartiles, run_for};
use crate::cluster::{PRIMARY, TestCluster, ready};
use routing_cluster::Login;

/// How many notes there are to read.
const NOTES: u64 = 1_000;
/// As many clients at once.
const CLIENTS: [usize; 3] = [1, 16, 64];
/// The replica that serves all of it.
const SERVING: &str = "pg2";

/// Who reads.
const CONTENDERS: [&str; 4] = ["bare", "routed", "own pool", "own pool with ping"];
const BARE: usize = 0;
const ROUTED: usize = 1;
const CAREFUL: usize = 3;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Turns of all contenders.
    pub rounds: usize,
    /// How long each reads in each turn.
    pub slice: Duration,
    /// What they read.
    pub query: Query,
    /// As many clients at once, where a table does not vary them.
    pub clients: usize,
}

/// One line: an ORM and a number of clients.
#[derive(Clone, Debug)]
pub struct Line {
    orm: &'static str,
    clients: usize,
    /// For each contender its slices, in the order of the turns.
    slices: [Vec<Slice>; 4],
}

impl Line {
    /// How the contender compares with another, turn by turn.
    fn ratios(&self, contender: usize, with: usize, of: impl Fn(&Slice) -> f64) -> Vec<f64> {
        let pairs = self.slices[contender].iter().zip(&self.slices[with]);
        pairs.map(|(own, other)| of(own) / of(other)).collect()
    }

    /// All turns of a contender as one.
    fn pooled(&self, contender: usize) -> Slice {
        let slices = &self.slices[contender];
        let throughput = median(&slices.iter().map(|slice| slice.throughput).collect::<Vec<_>>());
        let mut latencies: Vec<_> = slices.iter().flat_map(|slice| slice.latencies.iter().copied()).collect();
        latencies.sort_unstable();
        Slice { throughput, latencies }
    }

    /// Requests a second through the router for each one of the same pool without it: the median over the turns.
    #[must_use]
    pub fn throughput_ratio(&self) -> f64 {
        median(&self.ratios(ROUTED, BARE, |slice| slice.throughput))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let throughput = |slice: &Slice| slice.throughput;
        let [low, middle, high] = quartiles(&self.ratios(ROUTED, BARE, throughput));
        let (bare, routed) = (self.pooled(BARE), self.pooled(ROUTED));
        let p99 = |slice: &Slice| slice.percentile(0.99).as_secs_f64();
        let careful = median(&self.ratios(ROUTED, CAREFUL, throughput));
        let own = median(&self.ratios(ROUTED, CAREFUL - 1, throughput));
        let extra = self.pooled(ROUTED).percentile(0.5).as_secs_f64()
            - self.pooled(BARE).percentile(0.5).as_secs_f64();
        write!(
            f,
            "| {} | {} | {:.0} | {:.0} | {middle:.3} ({low:.3} to {high:.3}) | {:.2} | {:+.1} µs | {own:.2} | {careful:.2} |",
            self.orm,
            self.clients,
            bare.throughput,
            routed.throughput,
            p99(&routed) / p99(&bare),
            extra * 1e6,
        )
    }
}

/// The head of the table.
pub const HEAD: &str = "| ORM | clients | bare, 1/s | routed, 1/s | throughput, routed to bare: median (quartiles) | p99, routed to bare | median latency, more | routed to the ORM's own pool | routed to its own pool with a ping |
|---|---|---|---|---|---|---|---|---|";

/// The throughput ratios of all lines beside their goal.
#[must_use]
pub fn plot(lines: &[Line]) -> Bars {
    let label = |line: &Line| format!("{}, {} clients", line.orm, line.clients);
    Bars {
        title: "reads a second through the router, of the same pool without it".to_owned(),
        goal: 0.98,
        bars: lines.iter().map(|line| (label(line), line.throughput_ratio())).collect(),
    }
}

/// A cluster whose notes can be read on the replica.
///
/// # Panics
/// When it does not come up.
pub async fn cluster() -> TestCluster {
    let cluster = TestCluster::start().await;
    let insert = format!(
        "INSERT INTO note (author, text) SELECT 'load', 'note ' || n FROM generate_series(1, {NOTES}) n"
    );
    cluster.database(PRIMARY, Login::Application).await.run(&insert).await.expect("the notes");
    cluster.sql(PRIMARY, "ANALYZE note").await;
    cluster.wait_replayed().await;
    cluster
}

/// All ways to one replica.
struct Ways<O: Bench> {
    router: Router<O>,
    bare: O,
    own: O::Own,
    careful: O::Own,
}

impl<O: Bench> Ways<O> {
    async fn to(cluster: &TestCluster) -> Arc<Self> {
        let mut config = cluster.config();
        config.nodes.retain(|node| node.name == PRIMARY || node.name == SERVING);
        let router =
            Router::<O>::start(config.clone(), O::Options::default()).expect("a valid configuration");
        ready(&router).await;
        let (url, size) = (cluster.url(cluster.port(SERVING), Login::Application), config.read_pool_size);
        let (own, careful) = (O::own(&url, size, false).await, O::own(&url, size, true).await);
        Arc::new(Self { router, bare: bare(&config), own, careful })
    }

    /// One read by this contender.
    async fn read(&self, contender: usize, query: Query, number: u64) {
        let id = (number % NOTES) as i32 + 1;
        let text = match contender {
            BARE => {
                let connection = self.bare.checkout(Access::Read).await;
                let mut connection = connection.unwrap_or_else(|error| panic!("no connection: {error}"));
                let text = O::bare(&mut connection, query, id).await;
                O::finished(&mut connection);
                text
            }
            ROUTED => {
                let request = self.router.routed(Session::new(), Consistency::Session);
                O::routed(&O::read(request), query, id).await
            }
            CAREFUL => O::on_own(&self.careful, query, id).await,
            _ => O::on_own(&self.own, query, id).await,
        };
        assert_eq!(text, format!("note {id}"));
    }
}

/// Measures one ORM.
///
/// # Panics
/// When a read fails.
pub async fn measure<O: Bench>(cluster: &TestCluster, options: Options, said: impl Fn(&str)) -> Vec<Line> {
    let ways = Ways::<O>::to(cluster).await;
    let mut lines = Vec::new();
    for clients in CLIENTS {
        let mut slices: [Vec<Slice>; 4] = Default::default();
        // The first turn opens the connections and prepares the statements; it does not count.
        for round in 0..=options.rounds {
            let mut order = [0, 1, 2, 3];
            fastrand::shuffle(&mut order);
            for contender in order {
                let ways = ways.clone();
                let slice = run_for(clients, options.slice, move |number| {
                    let ways = ways.clone();
                    async move { ways.read(contender, options.query, number).await }
                })
                .await;
                if round > 0 {
                    slices[contender].push(slice);
                }
            }
            said(&format!("{}, {clients} clients: turn {round} of {}", O::NAME, options.rounds));
        }
        lines.push(Line { orm: O::NAME, clients, slices });
    }
    ways.router.close();
    lines
}

/// So many reads one after the other by one contender, for a tool that counts what they cost.
///
/// # Panics
/// When a read fails, or there is no such contender.
pub async fn reads<O: Bench>(cluster: &TestCluster, contender: &str, times: u64) {
    let contender = CONTENDERS.iter().position(|name| *name == contender);
    let contender = contender.unwrap_or_else(|| panic!("the contenders are {}", CONTENDERS.join(", ")));
    let ways = Ways::<O>::to(cluster).await;
    for number in 0..times {
        ways.read(contender, Query::Key, number).await;
    }
}

/// The pools of the serving node, as the router has them.
fn bare<O: Bench>(config: &RouterConfig) -> O {
    let node = config.nodes.iter().find(|node| node.name == SERVING).expect("the serving node");
    let node = Arc::new(Node::new(node.clone(), BreakerConfig::default()));
    O::open(&node, config, &O::Options::default()).expect("a valid URL")
}
