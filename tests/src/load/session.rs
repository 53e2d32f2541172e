//! What a session costs: round trips to the servers, counted on the wire.

use std::fmt;

use routing_cluster::Login;
use routing_core::{Consistency, NodeConfig, Router, RouterConfig, Session};

use super::bench::{Bench, Query};
use super::plot::Bars;
use super::turns::Turns;
use crate::cluster::{NODES, TestCluster, ready};
use crate::handle::Handle as _;
use crate::wait::{PATIENCE, eventually};

/// How often each thing is done.
const TIMES: u64 = 50;

/// One line: what was done, and its round trips.
#[derive(Clone, Debug)]
pub struct Line {
    orm: &'static str,
    what: &'static str,
    /// What an ORM on a plain connection needs.
    bare: u64,
    /// To the primary and to the replicas, in all.
    turns: (u64, u64),
    why: &'static str,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |turns: u64| turns as f64 / TIMES as f64;
        let (primary, replicas) = (each(self.turns.0), each(self.turns.1));
        let more = primary + replicas - self.bare as f64;
        write!(
            f,
            "| {} | {} | {} | {primary:.2} | {replicas:.2} | {more:+.2} | {} |",
            self.orm, self.what, self.bare, self.why
        )
    }
}

/// The head of the table.
pub const HEAD: &str = "| ORM | what | without the router | to the primary | to replicas | more | why |\n|---|---|---|---|---|---|---|";

/// The round trips of each thing that was done once, beside the one of a read on a plain connection.
#[must_use]
pub fn plot(lines: &[Line]) -> Bars {
    let each = |line: &Line| (line.turns.0 + line.turns.1) as f64 / TIMES as f64;
    Bars {
        title: "round trips, of which a read on a plain connection has one".to_owned(),
        goal: 1.0,
        bars: lines.iter().map(|line| (format!("{}, {}", line.orm, line.what), each(line))).collect(),
    }
}

/// Counts for one ORM, on servers of which only the application's connections are counted, not the monitor's.
///
/// # Panics
/// When a statement fails.
pub async fn measure<O: Bench>(cluster: &TestCluster) -> Vec<Line> {
    let mut turns = Vec::new();
    for node in NODES {
        turns.push(Turns::start(cluster.port(node)).await.expect("a free port"));
    }
    let nodes = NODES.iter().zip(&turns).map(|(node, turns)| NodeConfig {
        probe_url: Some(cluster.url(cluster.port(node), Login::Monitor)),
        ..NodeConfig::new(*node, cluster.url(turns.port(), Login::Application))
    });
    let config = RouterConfig { nodes: nodes.collect(), ..RouterConfig::default() };
    let router = Router::<O>::start(config, O::Options::default()).expect("a valid configuration");
    ready(&router).await;
    let counted = || (turns[0].count(), turns[1..].iter().map(Turns::count).sum::<u64>());
    let mut lines = Vec::new();
    let mut line = |what, bare, why, before: (u64, u64)| {
        let after = counted();
        lines.push(Line { orm: O::NAME, what, bare, turns: (after.0 - before.0, after.1 - before.1), why });
    };
    let read = async |session: &Session| {
        O::routed(&O::read(router.routed(session.clone(), Consistency::Session)), Query::Key, 1).await;
    };
    let write = async |session: &Session| {
        let db = O::write(router.routed(session.clone(), Consistency::Strong));
        db.insert_note("session", "kept").await.expect("a write");
    };
    // Opens the connections and prepares the statements, on every node.
    for _ in 0..TIMES {
        let session = Session::new();
        read(&session).await;
        write(&session).await;
        read(&session).await;
        session.signed_token().await.expect("a token");
    }
    let before = counted();
    for _ in 0..TIMES {
        read(&Session::new()).await;
    }
    line("a read", 1, "nothing is added", before);
    let before = counted();
    for _ in 0..TIMES {
        write(&Session::new()).await;
    }
    line("a write", 1, "nothing is added until its token is asked for", before);
    let before = counted();
    for _ in 0..TIMES {
        let session = Session::new();
        write(&session).await;
        session.signed_token().await.expect("a token");
    }
    line(
        "a write and its token",
        1,
        "where the write has ended is known only after its commit, and the primary alone knows it",
        before,
    );
    let before = counted();
    for _ in 0..TIMES {
        let session = Session::new();
        write(&session).await;
        read(&session).await;
    }
    line("a write and a read in one request", 2, "the read follows the write to the primary", before);
    let session = Session::new();
    write(&session).await;
    let token = session.signed_token().await.expect("a token");
    cluster.wait_replayed().await;
    eventually(PATIENCE, "replicas serve the token", async || {
        let session = Session::new();
        session.present(&*token);
        read(&session).await;
        session.last_decision().is_some_and(|decision| decision.role == routing_core::Role::Replica)
    })
    .await;
    let before = counted();
    for _ in 0..TIMES {
        let session = Session::new();
        session.present(&*token);
        read(&session).await;
    }
    line(
        "a read with that token, by the client's next request",
        1,
        "how far replicas are is known from their probes",
        before,
    );
    router.close();
    lines
}
