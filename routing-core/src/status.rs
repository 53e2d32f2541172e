//! What a person sees of a router: the JSON of `/routing`.

mod config;
mod node;
mod spared;

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::backend::{Backend, PoolStatus};
use crate::cluster::Cluster;
use crate::decision::Access;
use crate::discoverer::DiscoveryStatus;
use crate::event::Event;
use crate::lsn::{SystemId, Timeline};
use crate::node::Node;
use crate::role::Role;
use crate::router::Router;
use crate::token::UnixMillis;
use crate::topology::{Primary, Topology};
use node::node_status;
use spared::spare;

pub use config::ConfigStatus;
pub use node::{DecisionCount, NodeStatus};

/// A router's state at one moment. Durations are seconds. It holds no secret.
#[derive(Clone, Debug, Serialize)]
pub struct RouterStatus {
    /// The version of this schema.
    pub schema: u32,
    /// When this was so, by this machine's clock: milliseconds since 1970, as in the events.
    pub unix_millis: u64,
    /// The node that is proven to be the primary.
    pub primary: Option<String>,
    /// Why nothing can be written: `unknown`, with what the nodes that are out of recovery claim; `ambiguous: …`; or
    /// `read-only`, while a primary is known.
    pub primary_missing: Option<String>,
    /// How often another node or timeline was accepted as the primary.
    pub epoch: u64,
    /// The cluster's identifier.
    pub system_id: Option<SystemId>,
    /// The highest timeline of any accepted primary.
    pub highest_timeline: Option<Timeline>,
    /// How old this picture is: more than some probe intervals means that the monitor stands still.
    pub monitor_age_seconds: f64,
    /// Reads that the primary runs for lost replicas.
    pub fallback_in_use: u32,
    /// The same for reads whose token is ahead of every replica.
    pub fallback_behind_token_in_use: u32,
    /// Writes that wait for a primary.
    pub waiting_writes: u32,
    /// An operator has the primary serve every read.
    pub reads_from_primary_only: bool,
    /// What happened last, the oldest first.
    pub events: Vec<Event>,
    /// What the followed discovery has said, if one is followed.
    pub discovery: Option<DiscoveryStatus>,
    /// The settings that explain the rest.
    pub config: ConfigStatus,
    /// All nodes, in the order of the configuration.
    pub nodes: Vec<NodeStatus>,
}

impl<B: Backend> Router<B> {
    /// The state of the cluster and of this router's pools.
    #[must_use]
    pub fn status(&self) -> RouterStatus {
        self.cluster().status_with(|node| {
            let pools = self.pools(node)?;
            Some((pools.pool(Access::Read), pools.pool(Access::Write)))
        })
    }
}

impl Cluster {
    /// The state of the cluster, with empty pools.
    #[must_use]
    pub fn status(&self) -> RouterStatus {
        self.status_with(|_| None)
    }

    fn status_with(&self, pools: impl Fn(&Node) -> Option<(PoolStatus, PoolStatus)>) -> RouterStatus {
        let now = Instant::now();
        let topology = self.topology();
        let config = self.config();
        let primary = topology.primary();
        let nodes = topology.nodes.iter().map(|state| {
            let is_primary = primary.is_some_and(|primary| primary.node.id() == state.node.id());
            let lag_bytes = match (topology.primary_lsn, state.lsn, state.lag(now)) {
                (Some(newest), Some(own), Some(_)) => Some(newest.bytes_after(own)),
                _ => None,
            };
            let mut shown = node_status(state, is_primary, lag_bytes, config.max_staleness, now);
            if let Some(pools) = pools(&state.node) {
                (shown.read_pool, shown.write_pool) = pools;
            }
            shown
        });
        let mut nodes: Vec<NodeStatus> = nodes.collect();
        spare(&mut nodes, config.breaker.max_ejected);
        RouterStatus {
            schema: 1,
            unix_millis: UnixMillis::now().0,
            primary: primary.map(|state| state.node.name().to_owned()),
            primary_missing: match &topology.primary {
                Primary::Known { read_only, .. } => read_only.then(|| "read-only".to_owned()),
                Primary::Unknown => Some(unknown_primary(&topology)),
                Primary::Ambiguous(claims) => Some(format!("ambiguous: {claims}")),
            },
            epoch: topology.lineage.epoch,
            system_id: topology.lineage.system_id,
            highest_timeline: topology.lineage.highest,
            monitor_age_seconds: seconds(now.saturating_duration_since(topology.published)),
            fallback_in_use: self.shared().fallback.taken(),
            fallback_behind_token_in_use: self.shared().behind_token.taken(),
            waiting_writes: self.shared().write_waiters.taken(),
            reads_from_primary_only: self.reads_from_primary_only(),
            events: self.events(),
            discovery: self.discovery(),
            config: ConfigStatus::from(config),
            nodes,
        }
    }
}

/// What those who are out of recovery claim, and why it is not believed.
fn unknown_primary(topology: &Topology) -> String {
    let claims = topology.nodes.iter().filter(|state| state.role == Role::Primary);
    let claims =
        claims.filter_map(|state| Some(format!("{} {}", state.node.name(), state.blocked.as_ref()?)));
    let claims: Vec<_> = claims.collect();
    if claims.is_empty() { "unknown".to_owned() } else { format!("unknown: {}", claims.join("; ")) }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
