//! Breakers, outliers, slow start, zones, retries and hedged reads: the real router on servers in memory, on tokio's
//! paused clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod breakers;
mod counters;
mod experiments;
mod hedging;
mod outliers;
mod retries;
mod slow_start;
mod zones;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use routing_core::balance::Balance;
use routing_core::testing::{FakeBackend, FakeCluster, FakeError};
use routing_core::{Access, Cluster, Consistency, Lease, Node, Routed, Router, RouterConfig, Session};
use tokio::time::{Instant, sleep_until};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `pg1`, the primary, and some replicas.
#[derive(Clone)]
struct Scene {
    servers: FakeCluster,
    router: Router<FakeBackend>,
}

impl Scene {
    async fn new(replicas: u16, change: impl FnOnce(&mut RouterConfig)) -> Self {
        let servers = FakeCluster::new(replicas);
        let mut config = servers.config();
        change(&mut config);
        let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
        assert!(router.cluster().settled(secs(5)).await);
        Self { servers, router }
    }

    async fn balanced(
        replicas: u16,
        balance: impl Balance + 'static,
        change: impl FnOnce(&mut RouterConfig),
    ) -> Self {
        let servers = FakeCluster::new(replicas);
        let mut config = servers.config();
        change(&mut config);
        let cluster = Cluster::start_with(config, Arc::new(servers.clone()), Arc::new(balance)).unwrap();
        let router = Router::<FakeBackend>::new(&cluster, servers.clone()).unwrap();
        assert!(cluster.settled(secs(5)).await);
        Self { servers, router }
    }

    fn request(&self) -> Routed<FakeBackend> {
        self.router.routed(Session::new(), Consistency::Eventual)
    }

    fn node(&self, name: &str) -> Arc<Node> {
        self.router.cluster().nodes().iter().find(|node| node.name() == name).unwrap().clone()
    }

    fn set_latency(&self, latency: Duration) {
        self.servers.servers().iter().for_each(|server| server.set_latency(latency));
    }

    /// One read: the node that served it, and why that one.
    async fn read(&self) -> Result<(String, &'static str), FakeError> {
        let request = self.request();
        let node = read(&request).await?;
        Ok((node, request.session().last_decision().unwrap().reason.as_str()))
    }

    /// Reads that come at random times, so many a second on average, whether or not earlier ones have ended: how many each
    /// node was to serve of those that came within the time. Reads that fail count for `-`.
    async fn load(&self, per_second: u64, time: Duration, seed: u64) -> Shares {
        let mut random = fastrand::Rng::with_seed(seed);
        let end = Instant::now() + time;
        let mut reads = Vec::new();
        let mut next = Instant::now();
        while next < end {
            sleep_until(next).await;
            let scene = self.clone();
            reads.push(tokio::spawn(async move { scene.read().await }));
            next += secs(1).mul_f64(-(1.0 - random.f64()).ln() / per_second as f64);
        }
        let mut served = BTreeMap::new();
        for read in &mut reads {
            let node = read.await.unwrap().map_or_else(|_| "-".to_owned(), |(node, _)| node);
            *served.entry(node).or_default() += 1;
        }
        Shares { all: reads.len(), served }
    }

    /// Fails a node's connections until its breaker opens; nothing else is wrong with it.
    async fn open_breaker(&self, name: &str) {
        let node = self.node(name);
        self.servers.server(name).refuse_next(u32::MAX);
        while self.breaker(name) != "open" {
            let others: Vec<_> = self
                .router
                .cluster()
                .nodes()
                .iter()
                .filter(|other| other.id() != node.id())
                .cloned()
                .collect();
            others.iter().for_each(|other| other.set_draining(true));
            let consistency = if name == "pg1" { Consistency::Strong } else { Consistency::Eventual };
            let _ = tokio::time::timeout(ms(5), self.router.read(consistency)).await;
            others.iter().for_each(|other| other.set_draining(false));
        }
        self.servers.server(name).refuse_next(0);
    }

    fn breaker(&self, name: &str) -> &'static str {
        self.router.status().nodes.into_iter().find(|node| node.name == name).unwrap().breaker
    }
}

/// How many of some reads each node has served.
#[derive(Debug)]
struct Shares {
    all: usize,
    served: BTreeMap<String, usize>,
}

impl Shares {
    fn count(&self, node: &str) -> usize {
        self.served.get(node).copied().unwrap_or_default()
    }

    fn of(&self, node: &str) -> f64 {
        self.count(node) as f64 / self.all as f64
    }
}

async fn read(request: &Routed<FakeBackend>) -> Result<String, FakeError> {
    request
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            lease.query().await?;
            Ok::<_, FakeError>(lease.node().name().to_owned())
        })
        .await
}

/// How often a node was chosen for reads because of `reason`.
fn chosen(node: &Node, reason: &str, router: &Router<FakeBackend>) -> u64 {
    let status = router.status().nodes.into_iter().find(|status| status.name == node.name()).unwrap();
    let counts = status.decisions.into_iter().filter(|count| count.access == Access::Read);
    counts.filter(|count| count.reason.as_str() == reason).map(|count| count.count).sum()
}
