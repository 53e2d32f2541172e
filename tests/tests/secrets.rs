//! No password comes out anywhere: not in a log at any level, a span, an error, a metric or the status.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use routing_cluster::Login;
use routing_core::testing::Written;
use routing_core::{Consistency, Router, RouterConfig, TokenKeys};
use routing_tests::{
    Diesel, Handle as _, Orm, PATIENCE, PRIMARY, SeaOrm, TestCluster, eventually, reader_with, ready,
    served_by, writer,
};
use tracing_subscriber::fmt::format::FmtSpan;

/// All that the process says.
#[derive(Clone, Default)]
struct Said(Written);

impl Said {
    fn note(&self, text: &str) {
        self.0.clone().write_all(text.as_bytes()).unwrap();
    }

    fn error(&self, error: &(dyn Error + 'static)) {
        let mut text = format!("{error} {error:?} ");
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(text, "{error} {error:?} ");
            cause = error.source();
        }
        self.note(&text);
    }

    fn status<O: Orm>(&self, router: &Router<O>) {
        let status = router.status();
        self.note(&format!("{status:?} {}", serde_json::to_string(&status).unwrap()));
        self.note(&routing_axum::node_gauges(&status));
        self.note(&format!("{router:?} {:?}", router.cluster()));
    }
}

const KEY: &str = "a-key-of-all-instances-of-the-application";

/// What an application goes through, with everything that fails on the way.
async fn live<O: Orm>(cluster: &TestCluster, said: &Said) {
    let keys: TokenKeys = KEY.parse().unwrap();
    let config = RouterConfig {
        token_keys: Some(keys),
        write_wait: Duration::from_millis(300),
        acquire_deadline: Duration::from_millis(1_500),
        ..cluster.config()
    };
    said.note(&format!("{config:?}"));
    let router = Router::<O>::start(config.clone(), O::Options::default()).unwrap();
    ready(&router).await;
    let db = writer(&router);
    db.insert_note("secrets", "a note").await.unwrap();
    served_by(&reader_with(&router, Consistency::Session)).await.unwrap();
    said.error(&db.text("SELECT nothing FROM nowhere").await.unwrap_err());
    said.error(&reader_with(&router, Consistency::Eventual).execute("DELETE FROM note").await.unwrap_err());
    said.status(&router);

    // A password that is wrong, and one that a server refuses.
    let mut wrong = config.clone();
    for node in &mut wrong.nodes {
        node.url = node.url.with_credentials("app", "hunter2-is-wrong");
        node.probe_url = None;
    }
    let refused = Router::<O>::start(wrong.clone(), O::Options::default()).unwrap();
    eventually(PATIENCE, "the servers refuse it", async || {
        refused
            .status()
            .nodes
            .iter()
            .all(|node| node.refused.as_ref().is_some_and(|why| why.contains("28P01")))
    })
    .await;
    said.error(&writer(&refused).insert_note("secrets", "never").await.unwrap_err());
    said.status(&refused);
    refused.close();
    said.error(&router.cluster().set_nodes(Vec::new()).unwrap_err());
    let text = "[[nodes]]\nurl = 'postgres://app:hunter2-is-wrong@h/d'\nnonsense = 1";
    said.error(&RouterConfig::from_toml(text).unwrap_err());
    router.cluster().set_nodes(wrong.nodes).unwrap();
    router.cluster().set_nodes(config.nodes).unwrap();
    ready(&router).await;

    cluster.kill(PRIMARY).await;
    said.error(&writer(&router).insert_note("secrets", "never").await.unwrap_err());
    eventually(PATIENCE, "the primary is missed", async || router.status().primary.is_none()).await;
    said.error(&writer(&router).insert_note("secrets", "never").await.unwrap_err());
    said.error(&served_by(&reader_with(&router, Consistency::Strong)).await.unwrap_err());
    said.status(&router);
    router.close();
    said.error(&writer(&router).insert_note("secrets", "never").await.unwrap_err());
    cluster.start_node(PRIMARY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_said_anywhere() {
    let said = Said::default();
    let writer = said.0.clone();
    // Every level of every crate, and every span with its fields.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let cluster = TestCluster::start().await;
    live::<SeaOrm>(&cluster, &said).await;
    live::<Diesel>(&cluster, &said).await;
    let text = said.0.text();
    for expected in ["routing_core", "SELECT nothing FROM nowhere", "TRACE", "postgresql_replica_status"] {
        assert!(text.contains(expected), "{expected} was not said: the test listens to the wrong thing");
    }
    let application = cluster.servers().credentials(Login::Application).password;
    let monitor = cluster.servers().credentials(Login::Monitor).password;
    for secret in [application.as_str(), monitor.as_str(), "hunter2-is-wrong", KEY] {
        if let Some(at) = text.find(secret) {
            let around: String =
                text[..at].chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
            panic!("a secret was said, after: {around}");
        }
    }
}
