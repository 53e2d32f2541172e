//! Instrumentation that one user of a Diesel connection sets on its lease.

use std::sync::{Arc, Mutex, PoisonError};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::sql_query;
use diesel_async::{AsyncConnection as _, RunQueryDsl};
use routing_core::RouterConfig;
use routing_tests::{Diesel, TestCluster, router, writer};

/// Remembers all events.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn saw(&self, words: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|event| event.contains(words))
    }
}

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{event:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instrumentation_set_on_a_lease_does_not_see_the_next_users_statements() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { write_pool_size: 1, ..cluster.config() };
    let router = router::<Diesel>(config).await;

    let recorder = Recorder::default();
    let mut lease = writer(&router).get().await.expect("a lease");
    lease.set_instrumentation(recorder.clone());
    sql_query("SELECT 'mine'").execute(&mut lease).await.expect("a statement");
    drop(lease);
    assert!(recorder.saw("SELECT 'mine'"), "it sees its own lease's statements");
    let db = writer(&router);
    db.run(async |conn| sql_query("SELECT 'next'").execute(conn).await).await.expect("a statement");
    assert!(!recorder.saw("SELECT 'next'"), "and no other's");
}
