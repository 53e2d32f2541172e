//! What differs between two configurations.

use crate::config::RouterConfig;

impl RouterConfig {
    /// The names of the settings beside `nodes` that differ in `other`, in the order of their declaration.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let mut different = Vec::new();
        // Naming every field has the compiler ask for each new one.
        macro_rules! compare {
            ($($field:ident),+ $(,)?) => {
                let Self { nodes: _, $($field),+ } = self;
                $(if *$field != other.$field {
                    different.push(stringify!($field));
                })+
            };
        }
        compare!(
            probe_interval,
            suspect_probe_interval,
            probe_timeout,
            connect_timeout,
            checkout_timeout,
            acquire_deadline,
            read_pool_size,
            write_pool_size,
            idle_timeout,
            max_lifetime,
            check_after_idle,
            drain_timeout,
            zone,
            breaker,
            retry,
            hedge,
            slow_start,
            max_staleness,
            max_staleness_return,
            min_serving_replicas,
            serve_without_primary,
            asynchronous_commit,
            consistency,
            session_wait,
            token_lifetime,
            token_keys,
            writer_lease,
            write_quorum,
            authority_required,
            write_wait,
            write_waiters,
            fallback_no_replica,
            fallback_behind_token,
            fallback_rate,
        );
        different
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::NodeConfig;

    #[test]
    fn settings_that_differ_are_named_and_nodes_are_not() {
        let config = RouterConfig::default();
        let node = NodeConfig::new("a", "postgres://h/d".parse().unwrap());
        let other = RouterConfig {
            nodes: vec![node],
            probe_interval: Duration::from_millis(100),
            write_quorum: 1,
            ..config.clone()
        };
        assert_eq!(config.differences(&other), ["probe_interval", "write_quorum"]);
        assert_eq!(config.differences(&config), [""; 0]);
    }
}
