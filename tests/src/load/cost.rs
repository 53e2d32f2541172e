//! What one more node, one more connection and one more process cost, measured one by one, and many by calculation.

use std::fmt;

use routing_cluster::Login;
use routing_core::probe::{IDENTITY_SQL, PROBE_SQL};
use routing_core::{Consistency, NodeConfig, Router, RouterConfig};

use super::processor::own_memory;
use super::turns::Turns;
use crate::cluster::{PRIMARY, REPLICAS, TestCluster, ready};
use crate::orm::Orm;
use crate::wait::{PATIENCE, eventually};
use crate::{Diesel, SeaOrm};

/// As many probes are averaged: those of one node differ by the digits of a position.
const PROBES: u64 = 200;
/// A router this large is compared with one of one node.
const MANY: u16 = 64;
/// As many connections at once are opened and given back.
const CONNECTIONS: u32 = 40;

/// Bytes to the server and back.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes {
    to_server: f64,
    to_client: f64,
}

impl Bytes {
    fn both(self) -> f64 {
        self.to_server + self.to_client
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} + {:.0}", self.to_server, self.to_client)
    }
}

/// What was measured of one ORM. It displays as lines of a table.
#[derive(Clone, Copy, Debug)]
pub struct Units {
    orm: &'static str,
    /// A probe of a replica, after a connection's first.
    probe: Bytes,
    /// Round trips of it.
    turns: f64,
    /// A probe connection until its first answer.
    set_up: Bytes,
    set_up_turns: u64,
    /// Bytes of memory of one more node in a router, with its probe connection and without pooled connections.
    node: f64,
    /// Bytes of memory of one more pooled connection that nobody uses.
    connection: f64,
}

/// The head of the table.
pub const HEAD: &str = "| ORM | what | measured |\n|---|---|---|";

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let orm = self.orm;
        writeln!(
            f,
            "| {orm} | a probe, to the server + back | {} bytes, {:.2} round trips |",
            self.probe, self.turns
        )?;
        writeln!(
            f,
            "| {orm} | a monitor's connection until its first answer | {} bytes, {} round trips |",
            self.set_up, self.set_up_turns
        )?;
        writeln!(
            f,
            "| {orm} | memory of one more node, with its probe connection | {:.0} KiB |",
            self.node / 1_024.0
        )?;
        write!(
            f,
            "| {orm} | memory of one more pooled connection that is idle | {:.0} KiB |",
            self.connection / 1_024.0
        )
    }
}

/// The head of the calculated table.
pub const MANY_HEAD: &str = "| nodes | processes | monitor's connections to each node | probes a second on each node | bytes a second of probes on each node | bytes a second of probes of each process | memory of the nodes in each process |\n|---|---|---|---|---|---|---|";

/// The calculated lines, for the default interval; amounts that differ by ORM stand beside one another.
#[must_use]
pub fn many(units: &[Units]) -> Vec<String> {
    let interval = RouterConfig::default().probe_interval.as_secs_f64();
    let amounts = |of: &dyn Fn(&Units) -> f64| {
        let amounts: Vec<_> = units.iter().map(|units| amount(of(units))).collect();
        amounts.join(" / ")
    };
    let line = |nodes: u32, processes: u32| {
        let probes = f64::from(processes) / interval;
        let asked = f64::from(nodes) / interval;
        format!(
            "| {nodes} | {processes} | {processes} | {probes:.0} | {} | {} | {} |",
            amounts(&|units| probes * units.probe.both()),
            amounts(&|units| asked * units.probe.both()),
            amounts(&|units| f64::from(nodes) * units.node),
        )
    };
    let sizes =
        [3, 8, 64].into_iter().flat_map(|nodes| [1, 10, 100, 1_000].map(|processes| (nodes, processes)));
    sizes.map(|(nodes, processes)| line(nodes, processes)).collect()
}

/// Bytes in a unit that suits them.
fn amount(bytes: f64) -> String {
    match bytes {
        ..1e3 => format!("{bytes:.0} B"),
        ..1e6 => format!("{:.1} kB", bytes / 1e3),
        _ => format!("{:.1} MB", bytes / 1e6),
    }
}

/// Measures both ORMs. What is measured stays until the end: memory that was given back would be used again unseen.
///
/// # Panics
/// When a probe or a read fails.
pub async fn measure(cluster: &TestCluster) -> [Units; 2] {
    let (seaorm, _seaorm) = one_more_connection::<SeaOrm>(cluster).await;
    let (diesel, _diesel) = one_more_connection::<Diesel>(cluster).await;
    let (seaorm, _seaorm_nodes) = units::<SeaOrm>(cluster, seaorm).await;
    let (diesel, _diesel_nodes) = units::<Diesel>(cluster, diesel).await;
    [seaorm, diesel]
}

async fn units<O: Orm>(cluster: &TestCluster, connection: f64) -> (Units, [Router<O>; 2]) {
    let (node, kept) = one_more_node::<O>(cluster).await;
    let (set_up, set_up_turns, probe, turns) = wire::<O>(cluster).await;
    (Units { orm: O::NAME, probe, turns, set_up, set_up_turns, node, connection }, kept)
}

async fn wire<O: Orm>(cluster: &TestCluster) -> (Bytes, u64, Bytes, f64) {
    let counter = Turns::start(cluster.port(REPLICAS[0])).await.expect("a free port");
    let config = RouterConfig {
        nodes: vec![NodeConfig::new(REPLICAS[0], cluster.url(counter.port(), Login::Monitor))],
        ..RouterConfig::default()
    };
    let prober = O::prober(&config, &O::Options::default());
    let mut connection = prober.connect(&config.nodes[0]).await.expect("the server lets the monitor in");
    connection.query(IDENTITY_SQL).await.expect("who it is");
    connection.query(PROBE_SQL).await.expect("a first probe");
    let (first, first_turns) = (counter.bytes(), counter.count());
    for _ in 0..PROBES {
        connection.query(PROBE_SQL).await.expect("a probe");
    }
    let (all, all_turns) = (counter.bytes(), counter.count());
    let each = |all: u64, first: u64| (all - first) as f64 / PROBES as f64;
    let set_up = Bytes { to_server: first.0 as f64, to_client: first.1 as f64 };
    let probe = Bytes { to_server: each(all.0, first.0), to_client: each(all.1, first.1) };
    (set_up, first_turns, probe, each(all_turns, first_turns))
}

/// A router of this many nodes, which are two servers again and again, that has seen them.
async fn router_of<O: Orm>(cluster: &TestCluster, nodes: u16) -> Router<O> {
    let node = |number: u16| {
        let port = cluster.port(REPLICAS[usize::from(number) % REPLICAS.len()]);
        NodeConfig {
            probe_url: Some(cluster.url(port, Login::Monitor)),
            ..NodeConfig::new(format!("node-{number}"), cluster.url(port, Login::Application))
        }
    };
    let config = RouterConfig { nodes: (0..nodes).map(node).collect(), ..RouterConfig::default() };
    let router = Router::start(config, O::Options::default()).expect("a valid configuration");
    eventually(PATIENCE, "every node is probed", async || {
        router.status().nodes.iter().all(|node| node.probe_age_seconds.is_some())
    })
    .await;
    router
}

async fn one_more_node<O: Orm>(cluster: &TestCluster) -> (f64, [Router<O>; 2]) {
    // What the first router of a process needs is no node's.
    let small = router_of::<O>(cluster, 1).await;
    let before = own_memory();
    let large = router_of::<O>(cluster, MANY).await;
    let more = own_memory().saturating_sub(before);
    (more as f64 / f64::from(MANY), [small, large])
}

async fn one_more_connection<O: Orm>(cluster: &TestCluster) -> (f64, Router<O>) {
    let mut config = cluster.config();
    config.nodes.retain(|node| node.name == PRIMARY);
    config.read_pool_size = CONNECTIONS;
    let router = Router::<O>::start(config, O::Options::default()).expect("a valid configuration");
    ready(&router).await;
    let read = async || router.read(Consistency::Eventual).await.expect("a connection");
    drop(read().await);
    let before = own_memory();
    let mut leases = Vec::new();
    for _ in 0..CONNECTIONS {
        leases.push(read().await);
    }
    drop(leases);
    let more = own_memory().saturating_sub(before);
    // The first was there before.
    (more as f64 / f64::from(CONNECTIONS - 1), router)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_cost_is_calculated_from_one() {
        let probe = Bytes { to_server: 20.0, to_client: 480.0 };
        let zero = Bytes::default();
        let units = Units {
            orm: "ORM",
            probe,
            turns: 1.0,
            set_up: zero,
            set_up_turns: 5,
            node: 50_000.0,
            connection: 0.0,
        };
        let lines = many(&[units, units]);
        assert_eq!(lines.len(), 12);
        assert_eq!(
            lines[11],
            "| 64 | 1000 | 1000 | 4000 | 2.0 MB / 2.0 MB | 128.0 kB / 128.0 kB | 3.2 MB / 3.2 MB |"
        );
        assert_eq!(lines[0], "| 3 | 1 | 1 | 4 | 2.0 kB / 2.0 kB | 6.0 kB / 6.0 kB | 150.0 kB / 150.0 kB |");
    }
}
