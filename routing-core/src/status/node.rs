//! One node of a status.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::seconds;
use super::spared::BREAKER_OPEN;
use crate::backend::PoolStatus;
use crate::breaker::BreakerState;
use crate::decision::{Access, Reason, Refusal};
use crate::lsn::{Lsn, Timeline};
use crate::recent::RecentDecision;
use crate::role::Role;
use crate::topology::NodeState;

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
    /// Requests that hold one of its connections or wait for one, and statements that nobody waits for any more, until they
    /// have ended.
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

/// What is shown of one node, with empty pools.
pub(super) fn node_status(
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
