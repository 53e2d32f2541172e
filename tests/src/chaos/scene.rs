//! Both processes on one cluster, from their start to the judgement.

use std::time::Duration;

use routing_cluster::{Login, SilentProgress};
use routing_core::{NodeConfig, RouterConfig};
use routing_diesel::Diesel;
use routing_seaorm::SeaOrm;
use serde_json::Value as JsonValue;

use crate::chaos::load::{PULSE_SETUP, pulse_sql};
use crate::chaos::tally::Broken;
use crate::cluster::{NODES, PRIMARY, TestCluster};
use crate::history::{History, Key, Pulse, Recorder, Report, Value, check};
use crate::orm::Orm;
use crate::process::Signal;
use crate::proxy::{Proxies, Proxy};
use crate::screener::Screener;
use crate::wait::{PATIENCE, eventually};

/// A primary and three replicas.
pub const ALL_NODES: [&str; 4] = [NODES[0], NODES[1], NODES[2], "pg4"];

/// Between two beats of the pulse.
const BEAT: Duration = Duration::from_millis(100);

/// One process: a screener on one ORM, and a proxy of its own before each node.
#[derive(Debug)]
pub struct Process {
    /// Its ORM's name.
    pub name: &'static str,
    /// The program.
    pub screener: Screener,
    /// What is between it and each node.
    pub proxies: Proxies,
}

/// One application as two processes, on a primary and three replicas.
///
/// Its methods panic when the servers do not do what they are told: that is a failure of the set-up.
#[derive(Debug)]
pub struct Scene {
    /// The servers.
    pub cluster: TestCluster,
    /// The processes.
    pub processes: Vec<Process>,
    /// Takes down what clients do.
    pub recorder: Recorder,
    /// The present primary.
    pub primary: &'static str,
    /// When a primary went for good, and who, and whether what it alone had went with it.
    pub(super) deposed: Vec<(Duration, &'static str, bool)>,
}

impl Scene {
    /// Both processes with data, and the pulse's stock.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start() -> Self {
        let mut cluster = TestCluster::start().await;
        let added = cluster.servers_mut().add_replica(Some(ALL_NODES[3]), None, &SilentProgress).await;
        added.unwrap_or_else(|error| panic!("a fourth node: {error}"));
        let mut processes = vec![Process::start::<SeaOrm>(&cluster).await];
        cluster.sql(PRIMARY, PULSE_SETUP).await;
        processes.push(Process::start::<Diesel>(&cluster).await);
        Self { cluster, processes, recorder: Recorder::default(), primary: PRIMARY, deposed: Vec::new() }
    }

    /// The nodes that are replicas by now.
    #[must_use]
    pub fn replicas(&self) -> Vec<&'static str> {
        ALL_NODES.into_iter().filter(|node| *node != self.primary).collect()
    }

    /// Begins to write what tells how old a screen is.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse::start_with(&self.cluster, &ALL_NODES, self.recorder.clone(), BEAT, pulse_sql)
    }

    /// Waits until each process sees every node serve.
    ///
    /// # Panics
    /// When one does not.
    pub async fn settle(&self) {
        for process in &self.processes {
            let mut status = JsonValue::Null;
            let healthy = async {
                loop {
                    status = process.screener.status().await;
                    if healthy(&status) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            // A node that was killed again and again is kept waiting for up to half a minute.
            let settled = tokio::time::timeout(2 * PATIENCE, healthy).await.is_ok();
            assert!(settled, "{} does not see every node serve: {status:#}", process.name);
        }
    }

    /// Nothing is in use any more: in no process, and on no server.
    ///
    /// # Panics
    /// When something is.
    pub async fn assert_nothing_is_held(&self) {
        for process in &self.processes {
            eventually(PATIENCE, &format!("{} holds nothing", process.name), async || {
                holds_nothing(&process.screener.status().await)
            })
            .await;
        }
        for node in ALL_NODES {
            eventually(PATIENCE, "no process of a request is at work", async || {
                self.cluster.app_processes(node, "state <> 'idle'").await == 0
            })
            .await;
        }
    }

    /// Ends both programs; nothing of them is left on any server.
    ///
    /// # Panics
    /// When one does not end well.
    pub async fn end(&mut self) {
        for process in &mut self.processes {
            process.screener.signal(Signal::SIGTERM);
            let status = process.screener.ended().await;
            assert!(status.success(), "{} ended with {status}\n{}", process.name, process.screener.log());
        }
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('app', 'monitor')";
        for node in ALL_NODES {
            eventually(PATIENCE, "no connection is left", async || {
                self.cluster.value::<i64>(node, sql).await == 0
            })
            .await;
        }
    }

    /// All that happened, judged; what was broken explains what may be lost. It prints what was found.
    ///
    /// What a token covers, what a bound allows, what must be there and what must not is the history's own rule: see
    /// [`check`]. Beyond that, an acknowledged write may be missing only if the primary that acknowledged it was killed and
    /// replaced afterwards, without a synchronous standby; a switchover loses nothing.
    ///
    /// # Panics
    /// When the primary does not say what it has.
    pub async fn judge(&self) -> (Report, Vec<String>) {
        let rows = "SELECT coalesce(string_agg(substr(user_name, 7) || ' ' || stock_id, ','), '') FROM watchlist \
                    WHERE user_name LIKE 'chaos-%'";
        let rows: String = self.cluster.value(self.primary, rows).await;
        let mut kept: Vec<(Key, Value)> = rows
            .split(',')
            .filter_map(|row| row.split_once(' '))
            .map(|(key, value)| (key.parse().expect("a user"), value.parse().expect("a stock")))
            .collect();
        let operations = self.recorder.take();
        // Of the pulse the newest value alone is kept: all that it was acknowledged count as there.
        let pulses =
            operations.iter().filter(|operation| operation.instance.is_none() && operation.is_acknowledged());
        kept.extend(pulses.filter_map(|operation| operation.written()));
        let deposed = self.deposed.iter().map(|(at, ..)| *at).collect();
        let history =
            History { operations, kept, deposed, token_lifetime: RouterConfig::default().token_lifetime };
        let report = check(&history);
        eprintln!("{report}");
        if !report.violations.is_empty() {
            eprintln!("{}", report.describe(&history.operations));
        }
        let lost = report.lost.iter().map(|lost| &history.operations[*lost]);
        let unexplained = lost.filter(|lost| {
            let by = lost.served.as_ref().map(|served| served.node.as_str());
            !self.deposed.iter().any(|(at, node, lossy)| *lossy && by == Some(*node) && lost.invoked < *at)
        });
        let unexplained = unexplained.map(ToString::to_string).collect();
        (report, unexplained)
    }

    /// Notes what was broken, from when until now.
    pub(super) fn broken(&self, kind: &str, of_primary: bool, from: Duration) -> Broken {
        Broken { kind: kind.to_owned(), of_primary, from, to: self.recorder.now() }
    }
}

impl Process {
    async fn start<O: Orm>(cluster: &TestCluster) -> Self {
        let mut proxies = Vec::new();
        for node in ALL_NODES {
            proxies.push((node, Proxy::start(cluster.port(node)).await.expect("a free port")));
        }
        let proxies = Proxies::new(proxies);
        let url = |node: &str, login| cluster.url(proxies.get(node).port(), login);
        let node = |name: &&str| NodeConfig {
            probe_url: Some(url(name, Login::Monitor)),
            ..NodeConfig::new(*name, url(name, Login::Application))
        };
        let config = RouterConfig { nodes: ALL_NODES.iter().map(node).collect(), ..RouterConfig::default() };
        Self { name: O::NAME, screener: Screener::start::<O>(&config, "", &[]).await, proxies }
    }
}

fn nodes(status: &JsonValue) -> &[JsonValue] {
    status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn healthy(status: &JsonValue) -> bool {
    let serves = |node: &JsonValue| node["serving"] == true && node["breaker"] == "closed";
    status["primary"].is_string()
        && status["primary_missing"].is_null()
        && nodes(status).len() == ALL_NODES.len()
        && nodes(status).iter().all(serves)
}

fn holds_nothing(status: &JsonValue) -> bool {
    let pool =
        |pool: &JsonValue| pool["open"].is_u64() && pool["open"] == pool["idle"] && pool["waiting"] == 0;
    let idle =
        |node: &JsonValue| node["in_flight"] == 0 && pool(&node["read_pool"]) && pool(&node["write_pool"]);
    let none = ["fallback_in_use", "fallback_behind_token_in_use", "waiting_writes"];
    healthy(status) && none.iter().all(|count| status[count] == 0) && nodes(status).iter().all(idle)
}
