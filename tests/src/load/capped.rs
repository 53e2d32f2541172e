//! Servers that have a fixed share of a core each.

use std::fs;

use routing_cluster::{Login, SilentProgress};
use routing_core::{NodeConfig, RouterConfig};

use super::cpu_quota::{CpuQuota, NoQuota};
use super::server_time::ServerTime;
use crate::cluster::{PRIMARY, TestCluster};
use crate::wait::{PATIENCE, eventually};

/// The part of a core that each server has: four of them leave most of two cores to whoever asks.
pub(super) const SHARE: f64 = 0.15;
/// The servers that can be replicas.
pub const REPLICAS: [&str; 3] = ["pg2", "pg3", "pg4"];
/// How many rows the table of the reads has.
const ROWS: u32 = 4_000;
/// A read that keeps a server busy for about half a millisecond, and the client for a twentieth of it: it looks at every row.
pub(super) const READ: &str = "SELECT count(*)::text FROM quote WHERE text LIKE '%77%'";

/// A primary and three replicas, each with its processes in a control group of its own.
#[derive(Debug)]
pub struct CappedCluster {
    // Before the servers: they end faster without a limit.
    quotas: Vec<(&'static str, CpuQuota)>,
    cluster: TestCluster,
}

impl CappedCluster {
    /// Starts the servers and limits them.
    ///
    /// # Errors
    /// Where processes cannot be limited.
    ///
    /// # Panics
    /// When the servers do not come up.
    pub async fn start() -> Result<Self, NoQuota> {
        Self::start_with(async |_| ()).await
    }

    /// The same after something was done on servers without a limit.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(prepare: impl AsyncFnOnce(&TestCluster)) -> Result<Self, NoQuota> {
        let mut quotas = Vec::new();
        for name in [PRIMARY].into_iter().chain(REPLICAS) {
            quotas.push((name, CpuQuota::new(name, SHARE)?));
        }
        let mut cluster = TestCluster::start().await;
        let added = cluster.servers_mut().add_replica(Some(REPLICAS[2]), None, &SilentProgress).await;
        added.expect("a third replica");
        let fill = format!(
            "CREATE TABLE quote (id int PRIMARY KEY, text text NOT NULL); \
             INSERT INTO quote SELECT n, 'the quote of the day is number ' || n FROM generate_series(1, {ROWS}) n"
        );
        cluster.database(PRIMARY, Login::Application).await.run(&fill).await.expect("the quotes");
        prepare(&cluster).await;
        // Otherwise replicas look up for each row whether its transaction has committed; possible once they have told the
        // primary that none of their own snapshots is older than the rows.
        eventually(PATIENCE, "all rows are marked as visible to everyone", async || {
            cluster.sql(PRIMARY, "VACUUM (FREEZE, ANALYZE)").await;
            let marked = "SELECT bool_and(relallvisible >= relpages) FROM pg_class \
                          WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
            cluster.value(PRIMARY, marked).await
        })
        .await;
        cluster.wait_replayed_by(&REPLICAS).await;
        let capped = Self { quotas, cluster };
        for (name, quota) in &capped.quotas {
            quota.take_in(capped.postmaster(name))?;
        }
        Ok(capped)
    }

    /// The servers themselves.
    #[must_use]
    pub fn servers(&self) -> &TestCluster {
        &self.cluster
    }

    /// The primary and as many replicas, as the application logs in.
    #[must_use]
    pub fn config(&self, replicas: usize) -> RouterConfig {
        let node = |name: &str| NodeConfig {
            probe_url: Some(self.cluster.url(self.cluster.port(name), Login::Monitor)),
            ..NodeConfig::new(name, self.cluster.url(self.cluster.port(name), Login::Application))
        };
        let names = [PRIMARY].into_iter().chain(REPLICAS).take(replicas + 1);
        RouterConfig {
            nodes: names.map(node).collect(),
            slow_start: std::time::Duration::ZERO,
            ..RouterConfig::default()
        }
    }

    /// Stops every replica, so that the primary streams to nobody.
    ///
    /// # Panics
    /// When one does not stop.
    pub async fn detach(&self) {
        for name in REPLICAS {
            self.cluster.stop(name).await;
        }
    }

    /// Starts every replica again, with its limit, and waits until they have replayed what was written meanwhile.
    ///
    /// # Errors
    /// When one cannot be limited.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn attach(&self) -> Result<(), NoQuota> {
        for (name, quota) in self.quotas.iter().filter(|(name, _)| REPLICAS.contains(name)) {
            self.cluster.start_node(name).await;
            quota.take_in(self.postmaster(name))?;
        }
        self.cluster.wait_replayed().await;
        Ok(())
    }

    /// Over these first servers: the periods in which one wanted to run, and those in which it used its share up.
    #[must_use]
    pub fn periods(&self, servers: std::ops::Range<usize>) -> (u64, u64) {
        let each = self.quotas[servers].iter().map(|(_, quota)| quota.periods());
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// What the processes of one of the servers, the primary first, have used so far.
    pub(super) fn time_of(&self, server: usize) -> ServerTime {
        let (name, quota) = &self.quotas[server];
        ServerTime::read(quota.processes(), self.postmaster(name))
    }

    fn postmaster(&self, node: &str) -> u32 {
        let dir = &self.cluster.servers().node(node).expect("a node of the cluster").data_dir;
        let text = fs::read_to_string(dir.join("postmaster.pid")).expect("the server runs");
        text.lines().next().and_then(|line| line.trim().parse().ok()).expect("it says its number")
    }
}
