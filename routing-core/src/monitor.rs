//! The one writer of the topology.
//!
//! Each node has a task of its own with a probe connection of its own, so a slow node never delays news of the others.
//! What they see flows into one loop that weighs it and publishes a new picture each time. The loop is watched: if it
//! ends, it is started again from the last picture, and the picture's age tells how long that took.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::Shared;
use crate::config::RouterConfig;
use crate::decision::Refusal;
use crate::evidence::{Effects, Evidence, Observation};
use crate::node::{Node, NodeId};
use crate::probe::{IDENTITY_SQL, Identity, PROBE_SQL, Probe, ProbeConnection, ProbeError, Prober};
use crate::topology::{Primary, Topology};

/// Requests that fail on a node ask for a probe each; one answers all of those that came this shortly before.
const BURST: Duration = Duration::from_millis(10);

/// The pause before a part of the monitor that ended unexpectedly is started again.
const RESTART: Duration = Duration::from_millis(100);

pub(crate) fn spawn(shared: Arc<Shared>, prober: Arc<dyn Prober>, mut closed: watch::Receiver<bool>) {
    tokio::spawn(async move {
        loop {
            let observing = tokio::spawn(observe(shared.clone(), prober.clone(), closed.clone()));
            let abort = observing.abort_handle();
            tokio::select! {
                biased;
                // An error means that the last user of the cluster is gone.
                _ = closed.wait_for(|closed| *closed) => {
                    abort.abort();
                    return;
                }
                ended = observing => {
                    let why = ended.err().map(|error| error.to_string()).unwrap_or_default();
                    tracing::error!(why, "the monitor ended unexpectedly and is started again");
                }
            }
            sleep(RESTART).await;
        }
    });
}

async fn observe(shared: Arc<Shared>, prober: Arc<dyn Prober>, mut closed: watch::Receiver<bool>) {
    let mut evidence = Evidence::resume(shared.config.clone(), &shared.nodes, &shared.topology());
    let (observed, mut observations) = mpsc::channel(64);
    let mut watchers = JoinSet::new();
    for node in &shared.nodes {
        watchers.spawn(watch_node(node.clone(), shared.clone(), prober.clone(), observed.clone()));
    }
    loop {
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return,
            Some(ended) = watchers.join_next() => {
                // A watcher ends only by a panic: the whole is started again from the last picture.
                tracing::error!(why = ?ended.err(), "the watch over a node ended unexpectedly");
                return;
            }
            Some(observation) = observations.recv() => {
                let now = Instant::now();
                let id = observation.node;
                let reached = observation.outcome.is_ok();
                let effects = evidence.observe(observation, now);
                let topology = evidence.topology(now);
                report(&shared.peek(), &topology, id);
                shared.publish(topology);
                act(&shared, id, reached, effects, now);
            }
        }
    }
}

/// What follows from an observation once the picture is published.
fn act(shared: &Shared, id: NodeId, reached: bool, effects: Effects, now: Instant) {
    if let Some(node) = shared.nodes.iter().find(|node| node.id() == id) {
        if reached {
            node.record_reached(now);
        }
        if effects.lost {
            node.declare_lost();
        }
    }
    if effects.new_epoch {
        crate::metrics::primary_changed();
    }
    if effects.new_epoch || effects.successor {
        shared.probe_all();
    }
}

/// Logs transitions, each once.
fn report(old: &Topology, new: &Topology, id: NodeId) {
    if let (Some(before), Some(after)) = (old.node(id), new.node(id)) {
        let node = after.node.name();
        match (&before.blocked, &after.blocked) {
            // The same refusal with other figures is no transition.
            // Before the first primary is accepted nobody is proven, which is no news.
            (_, Some(Refusal::NotProven)) if new.lineage.epoch == 0 => {}
            (was, Some(why)) if was.as_ref().map(discriminant) != Some(discriminant(why)) => {
                tracing::warn!(node, %why, "node {node} serves no reads: {why}");
            }
            (Some(_), None) => tracing::info!(node, role = %after.role, "node {node} may serve reads"),
            _ => {}
        }
        if !before.returning && after.returning {
            tracing::warn!(node, "replica {node} exceeds max_staleness");
        } else if before.returning && !after.returning {
            tracing::info!(node, "replica {node} is fresh again");
        }
    }
    let name = |topology: &Topology| topology.primary().map(|state| state.node.shared_name().clone());
    match (&old.primary, &new.primary) {
        (Primary::Known { .. }, Primary::Unknown) => {
            tracing::warn!(was = name(old).as_deref(), "no node is proven to be the primary");
        }
        (Primary::Known { .. } | Primary::Unknown, Primary::Ambiguous(claims)) => {
            tracing::error!(%claims, "several nodes claim to be the primary: no writes");
        }
        (_, Primary::Known { timeline, .. }) if old.lineage.epoch != new.lineage.epoch => {
            let node = name(new).unwrap_or_default();
            tracing::info!(%node, %timeline, epoch = new.lineage.epoch, "{node} is the primary on timeline {timeline}");
        }
        (Primary::Unknown | Primary::Ambiguous(_), Primary::Known { .. }) => {
            let node = name(new).unwrap_or_default();
            tracing::info!(%node, "{node} is the primary again");
        }
        _ => {}
    }
}

/// Probes one node for as long as the monitor runs.
async fn watch_node(
    node: Arc<Node>,
    shared: Arc<Shared>,
    prober: Arc<dyn Prober>,
    observed: mpsc::Sender<Observation>,
) {
    let config = shared.config.clone();
    let mut versions = shared.versions();
    loop {
        let sent = Instant::now();
        let mut failed = match connect(&node, &*prober, &config).await {
            Err(error) => Some((sent, error)),
            Ok((mut connection, identity)) => loop {
                let sent = Instant::now();
                match ask(&mut *connection, &config).await {
                    Ok(probe) => {
                        let outcome = Ok((identity.clone(), probe));
                        if observed.send(Observation { node: node.id(), sent, outcome }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        // What the pools hold to this server may be dead as well.
                        node.next_generation();
                        break Some((sent, error));
                    }
                }
                pause(&node, &shared, &mut versions).await;
            },
        };
        let lost_connection = node_was_seen(&shared, node.id());
        if let Some((sent, error)) = failed.take() {
            let outcome = Err(error);
            if observed.send(Observation { node: node.id(), sent, outcome }).await.is_err() {
                return;
            }
        }
        // A lost connection is tried again at once: the second failure makes a death of it.
        if !lost_connection {
            pause(&node, &shared, &mut versions).await;
        }
    }
}

fn node_was_seen(shared: &Shared, id: NodeId) -> bool {
    shared.peek().node(id).is_some_and(|state| state.probed.is_some())
}

/// Waits for the next tick, or for someone who wants to know now.
async fn pause(node: &Node, shared: &Shared, versions: &mut watch::Receiver<u64>) {
    let began = Instant::now();
    let jitter = 0.8 + 0.4 * fastrand::f64();
    loop {
        let suspect = shared.peek().is_suspect();
        let config = &shared.config;
        let interval = if suspect { config.suspect_probe_interval } else { config.probe_interval };
        let tick = began + interval.mul_f64(jitter);
        tokio::select! {
            biased;
            () = node.probe_wanted() => {
                tokio::time::sleep_until(began + BURST).await;
                return;
            }
            () = tokio::time::sleep_until(tick) => return,
            // The picture may have become suspect: the interval is taken anew.
            changed = versions.changed(), if !suspect => if changed.is_err() { return },
        }
    }
}

async fn connect(
    node: &Node,
    prober: &dyn Prober,
    config: &RouterConfig,
) -> Result<(Box<dyn ProbeConnection>, Arc<Identity>), ProbeError> {
    let after = config.probe_timeout;
    let opening = async {
        let mut connection = prober.connect(node.config()).await?;
        let identity = Identity::parse(&connection.query(IDENTITY_SQL).await?)?;
        Ok((connection, Arc::new(identity)))
    };
    timeout(after, opening).await.unwrap_or(Err(ProbeError::TimedOut { step: "connecting", after }))
}

async fn ask(connection: &mut dyn ProbeConnection, config: &RouterConfig) -> Result<Probe, ProbeError> {
    let after = config.probe_timeout;
    let answer = timeout(after, connection.query(PROBE_SQL));
    Probe::parse(&answer.await.unwrap_or(Err(ProbeError::TimedOut { step: "asking", after }))?)
}
