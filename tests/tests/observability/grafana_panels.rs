//! Grafana's panels and the alert rules on a real Prometheus, with a day's mishaps in some seconds.

use std::fs;

use routing_tests::{PATIENCE, TestCluster, eventually};
use serde_json::Value;

use crate::prometheus::Prometheus;
use crate::screener::{Screener, workspace};

/// Every expression of the dashboard, with Grafana's variables filled in.
fn expressions() -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(text)) = fields.get("expr") {
                    found.push(text.clone());
                }
                fields.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let text = fs::read_to_string(workspace("ops/grafana/routing.json")).unwrap();
    let mut found = Vec::new();
    walk(&serde_json::from_str(&text).expect("JSON"), &mut found);
    let fill = |text: String| {
        text.replace("$__rate_interval", "2m")
            .replace("$__range", "5m")
            .replace("$job", "app")
            .replace("[1m]", "[5m]")
    };
    let filled: Vec<_> = found.into_iter().map(fill).collect();
    assert!(filled.len() > 30 && filled.iter().all(|text| !text.contains('$')), "{filled:?}");
    filled
}

/// The names of all fields, at any depth.
fn fields(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => {
            map.iter().flat_map(|(name, value)| [vec![name.clone()], fields(value)].concat()).collect()
        }
        Value::Array(items) => items.iter().flat_map(fields).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_has_data_every_rule_is_evaluated_and_lag_is_pending_while_replay_stands_still() {
    let cluster = TestCluster::start().await;
    let screener = Screener::start(&cluster, "warn").await;
    let prometheus = Prometheus::start(&screener).await;
    screener.load(20).await;
    assert_eq!(prometheus.state("ReplicationLagHigh").await, "inactive");

    cluster.sql("pg3", "SELECT pg_wal_replay_pause()").await;
    eventually(PATIENCE, "the lag is pending", async || {
        screener.load(1).await;
        prometheus.state("ReplicationLagHigh").await == "pending"
    })
    .await;
    cluster.sql("pg3", "SELECT pg_wal_replay_resume()").await;
    eventually(PATIENCE, "the lag is over", async || {
        prometheus.state("ReplicationLagHigh").await == "inactive"
    })
    .await;

    cluster.kill("pg2").await;
    cluster.kill("pg3").await;
    // At once, before the monitor has seen it: attempts fail and are repeated. Then more than the primary takes over.
    screener.crowd(20).await;
    eventually(PATIENCE, "reads are shed", async || screener.crowd(40).await > 0).await;
    cluster.start_node("pg2").await;
    cluster.start_node("pg3").await;
    eventually(PATIENCE, "replicas serve again", async || {
        screener.status().await["nodes"].as_array().unwrap().iter().all(|node| node["serving"] == true)
    })
    .await;
    cluster.servers().switchover("pg2", &routing_cluster::SilentProgress).await.expect("a switchover");
    eventually(PATIENCE, "the router follows", async || screener.status().await["primary"] == "pg2").await;
    screener.load(20).await;

    for expression in expressions() {
        let mut last = Ok(Vec::new());
        eventually(PATIENCE, &format!("data for {expression}"), async || {
            last = prometheus.query(&expression).await;
            let found = last.as_ref().unwrap_or_else(|error| panic!("{expression}: {error}"));
            // A quantile of nothing is NaN: no data to a person.
            found.iter().any(|sample| sample["value"][1] != "NaN")
        })
        .await;
    }
    for happened in [
        "sum(increase(db_routing_shed_total[5m])) > 0",
        "sum(increase(db_routing_fallback_total[5m])) > 0",
        "sum(increase(db_routing_primary_changes_total[5m])) > 0",
        "sum(db_routing_errors_total) > 0",
        "sum(db_routing_session_reads_total) > 0",
    ] {
        eventually(PATIENCE, happened, async || !prometheus.query(happened).await.unwrap().is_empty()).await;
    }
    let rules = prometheus.rules().await;
    assert!(rules.len() >= 14, "{rules:?}");
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        let expression = rule["query"].as_str().unwrap();
        prometheus.query(expression).await.unwrap_or_else(|error| panic!("{expression}: {error}"));
        // Some seconds of trouble have woken nobody; the alert without a wait of its own is not among what happened.
        assert_ne!(rule["state"], "firing", "{rule}");
    }
    let documented = fs::read_to_string(workspace("docs/observability.md")).unwrap();
    let is_documented = |name: &str| documented.contains(&format!("`{name}`"));
    let metrics = screener.text("/metrics").await;
    for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(is_documented(name), "{name} is not documented");
    }
    for name in fields(&screener.status().await) {
        assert!(is_documented(&name) || is_documented(&format!("{name}[]")), "{name} is not documented");
    }
    eprintln!("count | grafana | expressions with data | {}", expressions().len());
    eprintln!("count | alerts | rules evaluated | {}", rules.len());
}
