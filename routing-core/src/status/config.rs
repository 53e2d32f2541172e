//! The settings that explain a status.

use serde::Serialize;

use crate::config::RouterConfig;

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
