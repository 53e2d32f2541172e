//! The routes that operators and orchestrators ask.

use std::time::Duration;

use crate::support::{body, get, header, router, servers, silent_servers};
use axum::Router;
use http::StatusCode;
use routing_axum::Operations;
use routing_core::Consistency;
use routing_core::testing::{FakeBackend, Reach};

fn routes(router: &routing_core::Router<FakeBackend>) -> Router {
    Operations::new(router.clone()).metrics(|| "recorded_total 1".to_owned()).into_routes()
}

async fn a_while() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

#[tokio::test(start_paused = true)]
async fn readiness_is_a_gate_for_the_start_and_stays_open_through_outages() {
    let servers = silent_servers();
    let router = router(&servers).await;
    let app = routes(&router);
    assert_eq!(get(&app, "/health/live").await.status(), StatusCode::OK);
    assert_eq!(get(&app, "/health/ready").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    servers.server("pg1").set_reach(Reach::Up);
    a_while().await;
    servers.server("pg1").set_reach(Reach::Refused);
    a_while().await;
    assert!(router.status().primary.is_none());
    // No one asked while the primary was there.
    assert_eq!(get(&app, "/health/ready").await.status(), StatusCode::OK);
    router.close();
    let response = get(&app, "/health/ready").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(body(response).await.contains(r#""code":"closed""#));
    assert_eq!(get(&app, "/health/live").await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn metrics_are_the_recorders_and_the_gauges_of_each_node() {
    let servers = servers();
    let router = router(&servers).await;
    servers.server("pg3").set_reach(Reach::Refused);
    a_while().await;
    let _in_use = router.read(Consistency::Strong).await.unwrap();
    let response = get(&routes(&router), "/metrics").await;
    assert_eq!(header(&response, "content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = body(response).await;
    for line in [
        "recorded_total 1",
        "# TYPE postgresql_replication_lag_seconds gauge",
        "postgresql_replication_lag_seconds{replica_name=\"pg2\"} 0",
        "postgresql_replication_lag_bytes{replica_name=\"pg2\"} 0",
        "postgresql_replica_status{replica_name=\"pg2\"} 1",
        "postgresql_replica_status{replica_name=\"pg3\"} 0",
        "db_routing_in_flight{node=\"pg1\"} 1",
        "db_routing_pool_connections{node=\"pg1\",access=\"read\",state=\"idle\"} 0",
        "db_routing_pool_connections{node=\"pg1\",access=\"read\",state=\"used\"} 1",
        "db_routing_pool_utilization{node=\"pg1\",access=\"read\"} 0.05",
        "db_routing_primary_known 1",
        "db_routing_split_brain 0",
        "db_routing_breaker_state{node=\"pg2\"} 0",
    ] {
        assert!(text.lines().any(|present| present == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("lag_seconds{replica_name=\"pg1\"}"), "a primary has no lag");
    assert!(!text.contains("lag_seconds{replica_name=\"pg3\"}"), "an unknown lag is left out");
    assert!(text.lines().any(|line| line.starts_with("db_routing_monitor_age_seconds ")));
    assert_well_formed(&text);
}

/// Every metric has its help and type before its first sample, and every value is a finite number.
fn assert_well_formed(text: &str) {
    let mut typed = Vec::new();
    for line in text.lines().skip(1) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(!typed.contains(&name), "{name} has two types");
            typed.push(name);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
            assert_eq!(typed.last(), Some(&series.split('{').next().unwrap()), "{line}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_is_json_without_credentials() {
    let response = get(&routes(&router(&servers()).await), "/routing").await;
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    let text = body(response).await;
    assert!(!text.contains("hunter2"), "{text}");
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["primary"], "pg1");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(status["nodes"][1]["serving"], true);
}

#[tokio::test(start_paused = true)]
async fn the_dashboard_is_a_page_that_may_load_nothing() {
    let app = Router::new().nest("/ops", routes(&router(&servers()).await));
    let response = get(&app, "/ops/routing/dashboard").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(header(&response, "content-type").unwrap().starts_with("text/html"));
    assert!(header(&response, "content-security-policy").unwrap().contains("default-src 'none'"));
    assert_eq!(get(&app, "/ops/routing").await.status(), StatusCode::OK);
}
