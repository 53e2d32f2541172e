//! What a person sees of a router: the JSON of `/routing`.

mod spared;

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::backend::{Backend, PoolStatus};
use crate::breaker::BreakerState;
use crate::cluster::Cluster;
use crate::config::RouterConfig;
use crate::decision::{Access, Reason, Refusal};
use crate::discoverer::DiscoveryStatus;
use crate::event::Event;
use crate::lsn::{Lsn, SystemId, Timeline};
use crate::node::Node;
use crate::recent::RecentDecision;
use crate::role::Role;
use crate::router::Router;
use crate::token::UnixMillis;
use crate::topology::{NodeState, Primary, Topology};
use spared::{BREAKER_OPEN, spare};

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

/// One node's state.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where it is, without credentials.
    pub address: String,
    /// What it says of itself.
    pub role: Role,
    /// Whether it is the proven primary.
    pub is_primary: bool,
    /// Whether it may serve reads now (a primary: when no replica can).
    pub serving: bool,
    /// Why it may not.
    pub refused: Option<String>,
    /// How long the monitor has had no usable answer from it; `None` while it has one, and before the first probe ended.
    pub down_seconds: Option<f64>,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// A standby's replay position, a primary's flush position.
    pub lsn: Option<Lsn>,
    /// Bytes of log that it has not replayed; `None` when that cannot be told.
    pub lag_bytes: Option<u64>,
    /// How long it has been lagging; `None` when that cannot be told.
    pub lag_seconds: Option<f64>,
    /// How stale its data may be at most; `None` when that cannot be told.
    pub staleness_seconds: Option<f64>,
    /// `closed`, `half_open` or `open`.
    pub breaker: &'static str,
    /// How much longer the breaker stays open.
    pub breaker_open_seconds: Option<f64>,
    /// Requests that hold one of its connections or wait for one.
    pub in_flight: u32,
    /// Its recent latency.
    pub latency_seconds: f64,
    /// How long ago its last answered probe was sent.
    pub probe_age_seconds: Option<f64>,
    /// Why it was chosen last.
    pub last_reason: Option<Reason>,
    /// Its last decisions, the newest first; at most 16.
    pub recent: Vec<RecentDecision>,
    /// How often it was chosen since it joined, by access and reason.
    pub decisions: Vec<DecisionCount>,
    /// Its share of reads next to other nodes.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<String>,
    /// The part of that share that it gets so far: less than 1 in its slow start.
    pub ramp: f32,
    /// Whether it gets no new work.
    pub draining: bool,
    /// Its read pool.
    pub read_pool: PoolStatus,
    /// Its write pool.
    pub write_pool: PoolStatus,
}

/// How often a node was chosen for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DecisionCount {
    /// What for.
    pub access: Access,
    /// Why.
    pub reason: Reason,
    /// How often.
    pub count: u64,
}

/// Reports configuration without secrets: what `/routing` shows of it.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// See [`RouterConfig::max_staleness`]; seconds.
    pub max_staleness_seconds: f64,
    /// See [`RouterConfig::probe_interval`]; seconds.
    pub probe_interval_seconds: f64,
    /// See [`RouterConfig::min_serving_replicas`].
    pub min_serving_replicas: u32,
    /// See [`RouterConfig::fallback_no_replica`].
    pub fallback_no_replica: u32,
    /// See [`RouterConfig::fallback_behind_token`].
    pub fallback_behind_token: u32,
    /// See [`RouterConfig::write_quorum`].
    pub write_quorum: u32,
    /// See [`RouterConfig::write_waiters`].
    pub write_waiters: u32,
    /// See [`RouterConfig::zone`].
    pub zone: Option<String>,
}

impl From<&RouterConfig> for ConfigStatus {
    fn from(config: &RouterConfig) -> Self {
        Self {
            max_staleness_seconds: config.max_staleness.as_secs_f64(),
            probe_interval_seconds: config.probe_interval.as_secs_f64(),
            min_serving_replicas: config.min_serving_replicas,
            fallback_no_replica: config.fallback_no_replica(),
            fallback_behind_token: config.fallback_behind_token(),
            write_quorum: config.write_quorum,
            write_waiters: config.write_waiters,
            zone: config.zone.clone(),
        }
    }
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

fn node_status(
    state: &NodeState,
    is_primary: bool,
    lag_bytes: Option<u64>,
    max_staleness: Duration,
    now: Instant,
) -> NodeStatus {
    let node = &state.node;
    let (breaker, open) = match node.breaker_state(now) {
        BreakerState::Closed => ("closed", None),
        BreakerState::HalfOpen => ("half_open", None),
        BreakerState::Open { until } => ("open", Some(until.saturating_duration_since(now))),
    };
    let staleness = state.staleness(now);
    let refused = match (&state.blocked, staleness) {
        (Some(refusal), _) => Some(refusal.to_string()),
        (None, _) if node.is_draining() => Some(Refusal::Draining.to_string()),
        (None, _) if !is_primary && !node.serves_reads() => Some(Refusal::NoReads.to_string()),
        (None, _) if !is_primary && state.kept_waiting(now).is_some() => {
            state.kept_waiting(now).map(|left| Refusal::Flapping(left).to_string())
        }
        (None, _) if open.is_some() => Some(BREAKER_OPEN.to_owned()),
        (None, _) if is_primary => None,
        (None, None) => Some("staleness unknown".to_owned()),
        (None, Some(bound)) if bound > max_staleness => Some(format!("stale {:.1} s", bound.as_secs_f64())),
        (None, Some(_)) if state.returning => Some("was stale, not fresh for long enough".to_owned()),
        (None, Some(_)) => None,
    };
    NodeStatus {
        name: node.name().to_owned(),
        address: node.config().url.to_string(),
        role: state.role,
        is_primary,
        serving: refused.is_none(),
        refused,
        down_seconds: state.down_since.map(|since| seconds(now.saturating_duration_since(since))),
        timeline: state.timeline,
        lsn: state.lsn,
        lag_bytes,
        lag_seconds: state.lag(now).map(seconds),
        staleness_seconds: staleness.map(seconds),
        breaker,
        breaker_open_seconds: open.map(seconds),
        in_flight: node.in_flight(),
        latency_seconds: seconds(node.latency()),
        probe_age_seconds: state.probed.map(|sent| seconds(now.saturating_duration_since(sent))),
        last_reason: node.last_reason(),
        recent: node.recent().last(now),
        decisions: node
            .recent()
            .counts()
            .into_iter()
            .map(|(access, reason, count)| DecisionCount { access, reason, count })
            .collect(),
        weight: node.weight(),
        zone: node.zone().map(|zone| String::clone(&zone)),
        ramp: node.ramp(now),
        draining: node.is_draining(),
        read_pool: PoolStatus::default(),
        write_pool: PoolStatus::default(),
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
