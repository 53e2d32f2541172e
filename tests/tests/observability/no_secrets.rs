//! No password shows anywhere, whatever happens.

use routing_cluster::Login;
use routing_tests::{PATIENCE, TestCluster, eventually};

use crate::screener::Screener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_password_is_in_logs_metrics_status_page_or_errors_at_the_finest_level() {
    let cluster = TestCluster::start().await;
    let screener = Screener::start(&cluster, "trace").await;
    screener.load(10).await;
    cluster.kill("pg2").await;
    cluster.kill("pg3").await;
    let mut said = String::new();
    eventually(PATIENCE, "reads are shed", async || screener.crowd(30).await > 0).await;
    cluster.kill("pg1").await;
    for path in [
        "/stocks",
        "/stocks/1",
        "/screen",
        "/watchlist",
        "/metrics",
        "/routing",
        "/routing/dashboard",
        "/health/ready",
    ] {
        said += &screener.text(path).await;
    }
    cluster.start_node("pg1").await;
    // A password that the servers refuse is a failure of another kind.
    cluster.sql("pg1", "ALTER ROLE app PASSWORD 'another'; ALTER ROLE monitor PASSWORD 'another'").await;
    eventually(PATIENCE, "the refusal is told", async || {
        // Again each time: a connection that was being made has its password checked before it shows here.
        cluster
            .sql(
                "pg1",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('app', 'monitor')",
            )
            .await;
        let status = screener.text("/routing").await;
        let told = status.contains("password authentication failed");
        said += &status;
        told
    })
    .await;
    for path in ["/stocks", "/metrics", "/routing"] {
        said += &screener.text(path).await;
    }
    said += &screener.log();
    assert!(said.contains(" DEBUG query{"), "the log is at its finest level");
    assert!(said.contains("db.routing.reason=\"least_in_flight\""), "spans are in the log");
    for login in [Login::Application, Login::Monitor] {
        let password = cluster.servers().credentials(login).password;
        assert!(password.len() >= 8, "a password of some length");
        let found = said.lines().find(|line| line.contains(&password));
        assert!(found.is_none(), "{}", found.unwrap_or_default().replace(&password, "<the password>"));
    }
    eprintln!("count | secrets | bytes searched | {}", said.len());
}
