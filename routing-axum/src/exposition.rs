//! The gauges of each node, in Prometheus' text format.
//!
//! They are rendered from the status when they are asked for: a node that is removed takes its gauges with it.

use std::fmt::{Display, Write as _};

use routing_core::{NodeStatus, PoolStatus, Role, RouterStatus};

/// The status as gauges in Prometheus' text format 0.0.4.
///
/// A figure that cannot be told is left out: neither 0 nor NaN would be true. The lag is that of standbys only.
#[must_use]
pub fn node_gauges(status: &RouterStatus) -> String {
    let mut text = String::with_capacity(4096);
    replication(&mut text, &status.nodes);
    nodes(&mut text, &status.nodes);
    pools(&mut text, &status.nodes);
    cluster(&mut text, status);
    text
}

fn replication(text: &mut String, nodes: &[NodeStatus]) {
    let standbys = || nodes.iter().filter(|node| node.role == Role::Replica && !node.is_primary);
    let name = "postgresql_replication_lag_seconds";
    head(text, name, "how long a replica has been behind the primary");
    for node in standbys() {
        if let Some(lag) = node.lag_seconds {
            sample(text, name, &[("replica_name", &node.name)], lag);
        }
    }
    let name = "postgresql_replication_lag_bytes";
    head(text, name, "bytes of the primary's log that a replica has not replayed");
    for node in standbys() {
        if let Some(lag) = node.lag_bytes {
            sample(text, name, &[("replica_name", &node.name)], lag);
        }
    }
    let name = "postgresql_replica_status";
    head(text, name, "whether a node that is not the primary may serve reads (1) or not (0)");
    for node in nodes.iter().filter(|node| !node.is_primary) {
        sample(text, name, &[("replica_name", &node.name)], u8::from(node.serving));
    }
}

fn nodes(text: &mut String, nodes: &[NodeStatus]) {
    let name = "db_routing_breaker_state";
    head(text, name, "a node's circuit breaker: closed (0), half-open (1) or open (2)");
    for node in nodes {
        let state = match node.breaker {
            "closed" => 0,
            "half_open" => 1,
            _ => 2,
        };
        sample(text, name, &[("node", &node.name)], state);
    }
    let name = "db_routing_in_flight";
    head(
        text,
        name,
        "requests that hold a connection to a node or wait for one, and statements abandoned there that have not ended",
    );
    for node in nodes {
        sample(text, name, &[("node", &node.name)], node.in_flight);
    }
}

fn pools(text: &mut String, nodes: &[NodeStatus]) {
    let pools =
        || nodes.iter().flat_map(|node| [(node, "read", &node.read_pool), (node, "write", &node.write_pool)]);
    let name = "db_routing_pool_connections";
    head(text, name, "connections of a node's pool, by whether someone uses them");
    for (node, access, pool) in pools() {
        let labels = |state| [("node", node.name.as_str()), ("access", access), ("state", state)];
        sample(text, name, &labels("idle"), pool.idle);
        sample(text, name, &labels("used"), used(pool));
    }
    let name = "db_routing_pool_utilization";
    head(text, name, "the used part of what a node's pool may hold, from 0 to 1");
    for (node, access, pool) in pools().filter(|(.., pool)| pool.max > 0) {
        #[expect(clippy::cast_precision_loss, reason = "pools have far fewer than 2^52 connections")]
        let utilization = used(pool) as f64 / pool.max as f64;
        sample(text, name, &[("node", &node.name), ("access", access)], utilization);
    }
}

fn used(pool: &PoolStatus) -> usize {
    pool.open.saturating_sub(pool.idle)
}

fn cluster(text: &mut String, status: &RouterStatus) {
    let name = "db_routing_primary_known";
    head(text, name, "whether one node is proven to be the primary");
    sample(text, name, &[], u8::from(status.primary.is_some() && status.primary_missing.is_none()));
    let name = "db_routing_split_brain";
    head(text, name, "whether several nodes claim to be the primary and nothing tells them apart");
    let ambiguous = status.primary_missing.as_deref().is_some_and(|why| why.starts_with("ambiguous"));
    sample(text, name, &[], u8::from(ambiguous));
    let name = "db_routing_monitor_age_seconds";
    head(text, name, "age of the newest picture of the nodes; it grows while the monitor stands still");
    sample(text, name, &[], status.monitor_age_seconds);
}

fn head(text: &mut String, name: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    text.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(label);
        text.push_str("=\"");
        escape(text, value);
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_escaped_and_a_sample_without_labels_has_no_braces() {
        let mut text = String::new();
        sample(&mut text, "a", &[("node", "x\\y\"z\n"), ("access", "read")], 0.25);
        sample(&mut text, "b", &[], 2);
        assert_eq!(text, "a{node=\"x\\\\y\\\"z\\n\",access=\"read\"} 0.25\nb 2\n");
    }
}
