//! The application's own instrumentation of Diesel. It is the process's, so this file has no other test.

use std::sync::{Mutex, MutexGuard, PoisonError};

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};
use diesel::sql_query;
use diesel_async::{AsyncConnection as _, RunQueryDsl, SimpleAsyncConnection as _};
use routing_cluster::Login;
use routing_diesel::{Diesel, connect_primary};
use routing_tests::note::schema;
use routing_tests::{PATIENCE, TestCluster, reader, writer};

static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn events() -> MutexGuard<'static, Vec<String>> {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers all events, marked with a name.
struct Recorder(&'static str);

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        events().push(format!("{}: {event:?}", self.0));
    }
}

#[expect(clippy::unnecessary_wraps, reason = "Diesel's signature")]
fn by_default() -> Option<Box<dyn Instrumentation>> {
    Some(Box::new(Recorder("default")))
}

/// Whether an event of this name was recorded that shows these words.
fn saw(recorder: &str, words: &str) -> bool {
    events().iter().any(|event| event.starts_with(recorder) && event.contains(words))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_instrumentation_sees_its_statements_and_never_a_password() {
    set_default_instrumentation(by_default).expect("the first to set it");
    let cluster = TestCluster::start().await;
    let router = cluster.router::<Diesel>().await;

    reader(&router).run(async |conn| sql_query("SELECT 'read'").execute(conn).await).await.expect("a read");
    assert!(saw("default", "SELECT 'read'"), "{:?}", events());
    writer(&router)
        .transaction(async |conn| schema::insert("seen", "text").execute(conn).await)
        .await
        .expect("a write");
    assert!(saw("default", "INSERT INTO"), "{:?}", events());
    assert!(saw("default", "BeginTransaction"), "{:?}", events());
    assert!(saw("default", "CommitTransaction"), "{:?}", events());
    reader(&router)
        .run(async |conn| sql_query("SELECT 1 / 0").execute(conn).await)
        .await
        .expect_err("it fails");
    assert!(saw("default", "division by zero"), "{:?}", events());

    let mut lease = writer(&router).get().await.expect("a lease");
    lease.set_instrumentation(Recorder("own"));
    lease.batch_execute("SELECT 'batch'").await.expect("a statement");
    lease
        .transaction(async |conn| sql_query("SELECT 'within'").execute(conn).await)
        .await
        .expect("a transaction");
    drop(lease);
    assert!(saw("own", "SELECT 'batch'") && saw("own", "SELECT 'within'"), "{:?}", events());
    assert!(!saw("default", "SELECT 'batch'"), "the lease's own took its place");

    let mut plain = connect_primary(&router, PATIENCE).await.expect("a plain connection");
    sql_query("SELECT 'plain'").execute(&mut plain).await.expect("a statement");
    assert!(saw("default", "SELECT 'plain'"), "{:?}", events());

    let secrets =
        [Login::Application, Login::Monitor].map(|login| cluster.servers().credentials(login).password);
    let events = events();
    assert!(events.len() > 10, "{events:?}");
    for event in events.iter() {
        assert!(secrets.iter().all(|secret| !event.contains(secret.as_str())), "a password shows: {event}");
        assert!(!event.contains("postgres://"), "a URL shows: {event}");
    }
}
