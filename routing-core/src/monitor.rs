//! The one writer of the topology.
//!
//! Each node has a watch of its own with a probe connection of its own, so a slow node never delays news of the others.
//! What they see flows into one loop that weighs it and publishes a new picture each time; the same loop takes in nodes
//! that join and leave. The loop is watched: if it ends, it is started again from the last picture, and the picture's age
//! tells how long that took.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep};

use crate::decision::{Access, Refusal};
use crate::evidence::{Effects, Evidence};
use crate::node::Node;
use crate::node_id::NodeId;
use crate::probe::Prober;
use crate::shared::Shared;
use crate::topology::Topology;
use crate::transitions::report;
use crate::watcher::watch_node;

/// The pause before a part of the monitor that ended unexpectedly is started again.
const RESTART: Duration = Duration::from_millis(100);

/// What it returns ends when the monitor, its tasks and its connections are gone.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    prober: Arc<dyn Prober>,
    closed: watch::Receiver<bool>,
) -> watch::Receiver<()> {
    let (alive, monitoring) = watch::channel(());
    tokio::spawn(async move {
        loop {
            let observing = tokio::spawn(observe(shared.clone(), prober.clone(), closed.clone()));
            let ended = observing.await;
            // An error means that the last user of the cluster is gone.
            if *closed.borrow() || closed.has_changed().is_err() {
                break;
            }
            let why = ended.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::error!(why, "the monitor ended unexpectedly and is started again");
            sleep(RESTART).await;
        }
        drop(alive);
    });
    monitoring
}

async fn observe(shared: Arc<Shared>, prober: Arc<dyn Prober>, mut closed: watch::Receiver<bool>) {
    let mut members = shared.membership.changes();
    let mut nodes = members.borrow_and_update().clone();
    let mut evidence = Evidence::resume(shared.config.clone(), &nodes, &shared.topology());
    let mut authority = shared.authority.subscribe();
    authority.mark_changed();
    let (observed, mut observations) = mpsc::channel(64);
    let mut watchers = Watchers::default();
    let watch = |node: &Arc<Node>| watch_node(node.clone(), shared.clone(), prober.clone(), observed.clone());
    watchers.follow(&nodes, watch);
    loop {
        tokio::select! {
            biased;
            // An error means that the last user of the cluster is gone.
            _ = closed.wait_for(|closed| *closed) => break,
            Some(error) = watchers.next_panic() => {
                // The whole is started again from the last picture.
                tracing::error!(why = ?error, "the watch over a node ended unexpectedly");
                return;
            }
            Ok(()) = members.changed() => {
                nodes = members.borrow_and_update().clone();
                let effects = evidence.set_nodes(&nodes, Instant::now());
                watchers.follow(&nodes, watch);
                publish(&shared, &nodes, &mut evidence, effects, Instant::now());
            }
            Ok(()) = authority.changed() => {
                let Some(word) = authority.borrow_and_update().clone() else { continue };
                let now = Instant::now();
                let effects = evidence.hear(word, now);
                publish(&shared, &nodes, &mut evidence, effects, now);
            }
            Some(observation) = observations.recv() => {
                let now = Instant::now();
                let id = observation.node;
                let reached = observation.outcome.is_ok();
                let effects = evidence.observe(observation, now);
                let seen = nodes.iter().find(|node| node.id() == id);
                if let Some(node) = seen.filter(|_| reached) {
                    node.record_reached(now);
                }
                publish(&shared, &nodes, &mut evidence, effects, now);
                if let Some(node) = seen {
                    verify(&shared, node, effects);
                }
            }
        }
    }
    watchers.end().await;
}

/// The watches over the nodes of now, each a task of its own.
#[derive(Default)]
struct Watchers {
    tasks: JoinSet<()>,
    by_node: HashMap<NodeId, AbortHandle>,
}

impl Watchers {
    /// Ends the watch over nodes that have left and begins one over those that have joined.
    fn follow<F>(&mut self, nodes: &[Arc<Node>], watch: impl Fn(&Arc<Node>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.by_node.retain(|id, task| {
            let stays = nodes.iter().any(|node| node.id() == *id);
            if !stays {
                task.abort();
            }
            stays
        });
        for node in nodes {
            self.by_node.entry(node.id()).or_insert_with(|| self.tasks.spawn(watch(node)));
        }
    }

    /// Ends them all, and waits until their connections are gone.
    async fn end(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Waits until a watch panics: none ends by itself.
    async fn next_panic(&mut self) -> Option<JoinError> {
        loop {
            match self.tasks.join_next().await? {
                Err(error) if error.is_panic() => return Some(error),
                _ => {}
            }
        }
    }
}

/// Replaces the picture, and does what follows from the new one.
fn publish(shared: &Shared, nodes: &[Arc<Node>], evidence: &mut Evidence, effects: Effects, now: Instant) {
    if evidence.awaits_authority(now) {
        shared.rediscover.notify_one();
    }
    let old = shared.topology();
    let new = evidence.topology(now);
    report(&shared.events, &old, &new);
    let excluded = newly_excluded(&old, &new);
    warm_up(&new, now);
    shared.publish(new);
    for id in excluded {
        shared.membership.retire(id, Access::Read);
        shared.membership.retire(id, Access::Write);
    }
    if effects.new_epoch {
        crate::metrics::primary_changed();
        // Nothing that was opened under an earlier writer is used again.
        shared.membership.retire_writes();
    }
    if effects.new_epoch || effects.successor {
        nodes.iter().for_each(|node| node.probe_now());
    }
}

/// Nodes that come back from the dead begin slowly.
fn warm_up(topology: &Topology, now: Instant) {
    for state in &topology.nodes {
        match &state.blocked {
            Some(Refusal::Down { .. }) => state.node.cool(),
            Some(_) => {}
            None => state.node.may_serve_from(state.admitted_from.map_or(now, |from| from.max(now))),
        }
    }
}

/// What an observation of a node asks for beside the new picture.
fn verify(shared: &Shared, node: &Node, effects: Effects) {
    if effects.lost {
        node.declare_lost();
    }
    if node.take_write_refused() {
        let proven = shared.peek().primary().is_some_and(|primary| primary.node.id() == node.id());
        if !proven {
            shared.membership.retire(node.id(), Access::Write);
        }
        shared.probe_all();
    }
}

/// Nodes that may no longer be used whatever they answer: what the pools hold to them is of no use either.
fn newly_excluded(old: &Topology, new: &Topology) -> Vec<NodeId> {
    let excluded = |topology: &Topology, id| {
        let refusal = topology.node(id).and_then(|state| state.blocked.as_ref());
        matches!(refusal, Some(Refusal::Fenced { .. } | Refusal::OtherCluster | Refusal::Duplicate))
    };
    let ids = new.nodes.iter().map(|state| state.node.id());
    ids.filter(|id| excluded(new, *id) && !excluded(old, *id)).collect()
}
