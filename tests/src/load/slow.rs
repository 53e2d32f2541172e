//! One replica of three becomes slow, with and without hedged reads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use routing_cluster::{Login, SilentProgress};
use routing_core::balance::{Balance, LeastInFlight, PowerOfTwoChoices, Random, RoundRobin, Weighted};
use routing_core::{Cluster, Consistency, HedgeConfig, NodeConfig, Reason, Router, RouterConfig, Session};

use super::bench::{Bench, Query};
use super::overhead::Options;
use super::slices::{Slice, median, run_for};
use crate::cluster::{PRIMARY, TestCluster, ready};
use crate::proxy::{Mode, Proxy};

/// How much longer the network to each replica takes: so much that what the machine itself does matters little.
const HEALTHY: Duration = Duration::from_millis(1);
/// To the slow one.
const SLOW: Duration = Duration::from_millis(20);
/// The shares of reads that may be sent twice: none, what `HedgeConfig` has by default, and more than a slow node is sent by
/// any balancer that looks where it sends.
const HEDGES: [Option<f64>; 3] = [None, Some(0.05), Some(0.2)];
const REPLICAS: [&str; 3] = ["pg2", "pg3", "pg4"];

/// One balancer: its latencies while all are healthy, and while one is slow.
#[derive(Clone, Debug)]
pub struct Line {
    balancer: &'static str,
    hedge: Option<f64>,
    healthy: Vec<Slice>,
    slow: Vec<Slice>,
    /// The part of all reads that was sent twice.
    twice: f64,
    /// Connections that the replicas took, for each thousand reads.
    opened: f64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |slices: &[Slice]| {
            let mut latencies: Vec<_> =
                slices.iter().flat_map(|slice| slice.latencies.iter().copied()).collect();
            latencies.sort_unstable();
            let throughput = median(&slices.iter().map(|slice| slice.throughput).collect::<Vec<_>>());
            Slice { throughput, latencies }
        };
        let (healthy, slow) = (all(&self.healthy), all(&self.slow));
        let millis = |slice: &Slice, share| slice.percentile(share).as_secs_f64() * 1e3;
        let late = slow.latencies.iter().filter(|latency| **latency >= SLOW).count();
        write!(
            f,
            "| {} | {} | {:.1} / {:.1} ms | {:.1} / {:.1} ms | {:.2} | {:.2} | {:.2} % | {:.2} % | {:.1} |",
            self.balancer,
            self.hedge.map_or_else(|| "no".to_owned(), |ratio| format!("at most {:.0} %", 100.0 * ratio)),
            millis(&healthy, 0.5),
            millis(&healthy, 0.99),
            millis(&slow, 0.5),
            millis(&slow, 0.99),
            millis(&slow, 0.99) / millis(&healthy, 0.99),
            slow.throughput / healthy.throughput,
            100.0 * late as f64 / slow.latencies.len().max(1) as f64,
            100.0 * self.twice,
            self.opened,
        )
    }
}

/// The head of the table.
pub const HEAD: &str = "| balancer | hedged | all healthy: median / p99 | one 20× slower: median / p99 | p99, slow to healthy | throughput, slow to healthy | reads as late as the slow one | sent twice, of all reads | connections opened, of 1,000 reads |\n|---|---|---|---|---|---|---|---|---|";

fn balancers() -> [(&'static str, Arc<dyn Balance>); 5] {
    [
        ("least in flight", Arc::new(LeastInFlight::default())),
        ("power of two choices", Arc::new(PowerOfTwoChoices::default())),
        ("round robin", Arc::new(RoundRobin::default())),
        ("random", Arc::new(Random::default())),
        ("weighted", Arc::new(Weighted::default())),
    ]
}

/// Measures every balancer.
///
/// # Panics
/// When a read fails, or the third replica does not come up.
pub async fn measure<O: Bench>(
    cluster: &mut TestCluster,
    options: Options,
    said: impl Fn(&str),
) -> Vec<Line> {
    let added = cluster.servers_mut().add_replica(Some("pg4"), None, &SilentProgress).await;
    added.expect("a third replica");
    let mut proxies = Vec::new();
    for name in REPLICAS {
        proxies.push(Proxy::start(cluster.port(name)).await.expect("a free port"));
    }
    let node = |name: &str, port: u16| NodeConfig {
        probe_url: Some(cluster.url(cluster.port(name), Login::Monitor)),
        ..NodeConfig::new(name, cluster.url(port, Login::Application))
    };
    let mut nodes = vec![node(PRIMARY, cluster.port(PRIMARY))];
    nodes.extend(REPLICAS.iter().zip(&proxies).map(|(name, proxy)| node(name, proxy.port())));
    let late = |to_client| Mode::Delay { to_server: Duration::ZERO, to_client };
    let mut lines = Vec::new();
    for ((balancer, balance), hedge) in
        balancers().into_iter().flat_map(|known| HEDGES.map(|hedge| (known.clone(), hedge)))
    {
        let config = RouterConfig {
            nodes: nodes.clone(),
            slow_start: Duration::ZERO,
            hedge: hedge.map(|ratio| HedgeConfig { ratio, minimum_delay: HEALTHY, ..HedgeConfig::default() }),
            ..RouterConfig::default()
        };
        let prober = O::prober(&config, &O::Options::default());
        let shared = Cluster::start_with(config, prober, balance).expect("a valid configuration");
        let router = Router::<O>::new(&shared, O::Options::default()).expect("valid URLs");
        ready(&router).await;
        let mut line =
            Line { balancer, hedge, healthy: Vec::new(), slow: Vec::new(), twice: 0.0, opened: 0.0 };
        let mut before = 0;
        for round in 0..=options.rounds {
            for slow in [false, true] {
                for (number, proxy) in proxies.iter().enumerate() {
                    proxy.set(late(if slow && number == 0 { SLOW } else { HEALTHY }));
                }
                let reading = router.clone();
                let slice = run_for(options.clients, options.slice, move |number| {
                    let router = reading.clone();
                    async move {
                        let db = O::read(router.routed(Session::new(), Consistency::Session));
                        O::routed(&db, Query::Key, (number % 1_000) as i32 + 1).await;
                    }
                })
                .await;
                if round == 0 {
                    before = taken(&proxies);
                } else {
                    if slow { line.slow.push(slice) } else { line.healthy.push(slice) }
                }
            }
            said(&format!("{balancer}, hedged {hedge:?}: turn {round} of {}", options.rounds));
        }
        let reads: usize = line.healthy.iter().chain(&line.slow).map(|slice| slice.latencies.len()).sum();
        line.opened = 1e3 * (taken(&proxies) - before) as f64 / reads.max(1) as f64;
        line.twice = twice(&router);
        shared.close();
        lines.push(line);
    }
    lines
}

/// How many connections the application has made to the replicas, ever; probes do not pass here.
fn taken(proxies: &[Proxy]) -> u64 {
    proxies.iter().map(Proxy::taken).sum()
}

/// The part of a router's reads that was sent to a second replica.
fn twice<O: Bench>(router: &Router<O>) -> f64 {
    let nodes = router.status().nodes;
    let counts = || nodes.iter().flat_map(|node| &node.decisions);
    let hedges: u64 = counts().filter(|count| count.reason == Reason::Hedge).map(|count| count.count).sum();
    let all: u64 = counts().map(|count| count.count).sum();
    hedges as f64 / (all - hedges).max(1) as f64
}
