//! The watch over one node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::config::RouterConfig;
use crate::evidence::Observation;
use crate::node::Node;
use crate::node_id::NodeId;
use crate::probe::{IDENTITY_SQL, Identity, Probe, ProbeConnection, ProbeError, Prober};
use crate::shared::Shared;
use crate::signal::Watcher;

/// Requests that fail on a node ask for a probe each; one answers all of those that came this shortly before.
const BURST: Duration = Duration::from_millis(10);

/// Probes one node for as long as it is a node and the monitor runs.
pub(crate) async fn watch_node(
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
                match ask(&mut *connection, identity.probe_sql(), &config).await {
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
async fn pause(node: &Node, shared: &Shared, versions: &mut Watcher) {
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
            () = versions.changed(), if !suspect => {}
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

async fn ask(
    connection: &mut dyn ProbeConnection,
    sql: &'static str,
    config: &RouterConfig,
) -> Result<Probe, ProbeError> {
    let after = config.probe_timeout;
    let answer = timeout(after, connection.query(sql));
    Probe::parse(&answer.await.unwrap_or(Err(ProbeError::TimedOut { step: "asking", after }))?)
}
