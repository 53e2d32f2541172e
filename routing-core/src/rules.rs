//! The rules that a configuration must hold.

use crate::config::{NodeConfig, RouterConfig};
use crate::config_error::ConfigError;

fn rule(holds: bool, rule: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Rule(rule)) }
}

impl RouterConfig {
    /// Checks every rule between the fields.
    ///
    /// # Errors
    /// [`ConfigError::Rule`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_nodes(&self.nodes)?;
        for (duration, zero) in [
            (self.probe_interval, "probe_interval must be above 0"),
            (self.suspect_probe_interval, "suspect_probe_interval must be above 0"),
            (self.probe_timeout, "probe_timeout must be above 0"),
            (self.connect_timeout, "connect_timeout must be above 0"),
            (self.checkout_timeout, "checkout_timeout must be above 0"),
            (self.idle_timeout, "idle_timeout must be above 0"),
            (self.max_lifetime, "max_lifetime must be above 0"),
            (self.breaker.first_open, "breaker.first_open must be above 0"),
            (self.breaker.window, "breaker.window must be above 0"),
        ] {
            rule(!duration.is_zero(), zero)?;
        }
        rule(
            self.suspect_probe_interval <= self.probe_interval,
            "suspect_probe_interval must not exceed probe_interval",
        )?;
        rule(
            self.checkout_timeout <= self.acquire_deadline,
            "checkout_timeout must not exceed acquire_deadline",
        )?;
        rule(self.write_wait <= self.acquire_deadline, "write_wait must not exceed acquire_deadline")?;
        rule(
            self.probe_interval < self.max_staleness,
            "max_staleness must exceed probe_interval: no replica could ever be proven fresh",
        )?;
        rule(
            self.max_staleness_return <= self.max_staleness,
            "max_staleness_return must not exceed max_staleness",
        )?;
        rule(
            self.probe_interval < self.max_staleness_return,
            "max_staleness_return must exceed probe_interval: no replica could ever return",
        )?;
        rule(
            self.writer_lease() >= 2 * self.probe_interval,
            "writer_lease must be at least two probe_intervals: writes would pause between probes",
        )?;
        rule(self.session_wait < self.acquire_deadline, "session_wait must be below acquire_deadline")?;
        rule(self.read_pool_size > 0, "read_pool_size must be above 0")?;
        rule(self.write_pool_size > 0, "write_pool_size must be above 0")?;
        rule(
            self.fallback_no_replica() <= self.read_pool_size,
            "fallback_no_replica must not exceed read_pool_size",
        )?;
        rule(
            self.fallback_behind_token() <= self.read_pool_size,
            "fallback_behind_token must not exceed read_pool_size",
        )?;
        rule(
            self.fallback_rate != Some(0),
            "fallback_rate must be above 0; fallback_no_replica = 0 sends no read to the primary",
        )?;
        rule(
            (self.min_serving_replicas as usize) <= self.nodes.len(),
            "min_serving_replicas must not exceed the number of nodes",
        )?;
        rule(self.breaker.failures > 0, "breaker.failures must be above 0")?;
        rule(
            self.breaker.failure_rate > 0.0 && self.breaker.failure_rate <= 1.0,
            "breaker.failure_rate must be above 0 and at most 1",
        )?;
        rule(
            self.breaker.first_open <= self.breaker.longest_open,
            "breaker.first_open must not exceed breaker.longest_open",
        )?;
        rule(self.zone.as_deref() != Some(""), "zone must not be empty")?;
        rule((0.0..=1.0).contains(&self.breaker.max_ejected), "breaker.max_ejected must be from 0 to 1")?;
        let hedge = self.hedge.clone().unwrap_or_default();
        rule(hedge.ratio > 0.0 && hedge.ratio <= 1.0, "hedge.ratio must be above 0 and at most 1")?;
        rule(
            hedge.percentile > 0.0 && hedge.percentile < 1.0,
            "hedge.percentile must be above 0 and below 1",
        )?;
        rule(self.retry.attempts > 0, "retry.attempts must be above 0; 1 never retries")?;
        rule(self.retry.base <= self.retry.cap, "retry.base must not exceed retry.cap")?;
        rule((0.0..=10.0).contains(&self.retry.budget_ratio), "retry.budget_ratio must be from 0 to 10")
    }

    /// Checks the rules that a list of nodes must hold, at the start and whenever nodes come and go.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn validate_nodes(&self, nodes: &[NodeConfig]) -> Result<(), ConfigError> {
        rule(!nodes.is_empty(), "nodes must name at least one server")?;
        for (index, node) in nodes.iter().enumerate() {
            rule(!node.name.is_empty(), "the name of a node must not be empty")?;
            rule(node.weight > 0, "the weight of a node must be above 0; drain a node to send it nothing")?;
            rule(node.zone.as_deref() != Some(""), "the zone of a node must not be empty")?;
            let twice = nodes[..index].iter().any(|other| other.name == node.name);
            rule(!twice, "the names of nodes must differ from each other")?;
        }
        rule((self.write_quorum as usize) < nodes.len(), "write_quorum must be below the number of nodes")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hedge::HedgeConfig;

    fn valid() -> RouterConfig {
        RouterConfig::from_toml("[[nodes]]\nurl = 'postgres://a@h/d'\n[[nodes]]\nurl = 'postgres://a@i/d'")
            .unwrap()
    }

    #[test]
    fn every_broken_rule_is_named() {
        type Break = fn(&mut RouterConfig);
        let table: &[(&str, Break)] = &[
            ("nodes must name at least one", |c| c.nodes.clear()),
            ("name of a node must not be empty", |c| c.nodes[0].name.clear()),
            ("names of nodes must differ", |c| c.nodes[1].name = c.nodes[0].name.clone()),
            ("weight of a node", |c| c.nodes[0].weight = 0),
            ("probe_interval must be above", |c| c.probe_interval = Duration::ZERO),
            ("suspect_probe_interval must be above", |c| c.suspect_probe_interval = Duration::ZERO),
            ("suspect_probe_interval must not exceed", |c| c.suspect_probe_interval = Duration::from_secs(1)),
            ("probe_timeout", |c| c.probe_timeout = Duration::ZERO),
            ("connect_timeout", |c| c.connect_timeout = Duration::ZERO),
            ("checkout_timeout must be above", |c| c.checkout_timeout = Duration::ZERO),
            ("checkout_timeout must not exceed", |c| c.checkout_timeout = Duration::from_secs(6)),
            ("write_wait must not exceed", |c| c.write_wait = Duration::from_secs(6)),
            ("max_staleness must exceed", |c| c.max_staleness = Duration::from_millis(100)),
            ("max_staleness_return must not exceed", |c| c.max_staleness_return = Duration::from_secs(6)),
            ("max_staleness_return must exceed", |c| c.max_staleness_return = Duration::from_millis(1)),
            ("writer_lease", |c| c.writer_lease = Some(Duration::from_millis(300))),
            ("session_wait", |c| c.session_wait = Duration::from_secs(5)),
            ("read_pool_size must be above", |c| c.read_pool_size = 0),
            ("write_pool_size", |c| c.write_pool_size = 0),
            ("fallback_no_replica", |c| c.fallback_no_replica = Some(21)),
            ("fallback_behind_token", |c| c.fallback_behind_token = Some(21)),
            ("min_serving_replicas", |c| c.min_serving_replicas = 3),
            ("write_quorum", |c| c.write_quorum = 2),
            ("idle_timeout", |c| c.idle_timeout = Duration::ZERO),
            ("max_lifetime", |c| c.max_lifetime = Duration::ZERO),
            ("breaker.failures", |c| c.breaker.failures = 0),
            ("breaker.failure_rate", |c| c.breaker.failure_rate = 0.0),
            ("breaker.failure_rate", |c| c.breaker.failure_rate = f64::NAN),
            ("breaker.window", |c| c.breaker.window = Duration::ZERO),
            ("breaker.first_open must be above", |c| c.breaker.first_open = Duration::ZERO),
            ("breaker.first_open must not exceed", |c| c.breaker.first_open = Duration::from_secs(61)),
            ("breaker.max_ejected", |c| c.breaker.max_ejected = 1.1),
            ("breaker.max_ejected", |c| c.breaker.max_ejected = f64::NAN),
            ("zone must not be empty", |c| c.zone = Some(String::new())),
            ("zone of a node", |c| c.nodes[1].zone = Some(String::new())),
            ("hedge.ratio", |c| c.hedge = Some(HedgeConfig { ratio: 0.0, ..HedgeConfig::default() })),
            ("hedge.percentile", |c| {
                c.hedge = Some(HedgeConfig { percentile: 1.0, ..HedgeConfig::default() })
            }),
            ("retry.attempts", |c| c.retry.attempts = 0),
            ("retry.base", |c| c.retry.base = Duration::from_secs(1)),
            ("retry.budget_ratio", |c| c.retry.budget_ratio = -1.0),
        ];
        for (rule, breaking) in table {
            let mut config = valid();
            breaking(&mut config);
            let error = config.validate().expect_err(rule).to_string();
            assert!(error.contains(rule), "{error} instead of {rule}");
        }
    }
}
