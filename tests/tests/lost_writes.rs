//! Writes whose answer is lost: recognised as such, and never run twice.

use routing_cluster::Login;
use routing_core::Router;
use routing_tests::{
    Database, Handle as _, NodeView as _, Orm, PATIENCE, PRIMARY, Proxies, TestCluster, eventually, router,
    writer,
};
use tokio::task::JoinHandle;

routing_tests::on_both! {
    an_insert_cut_by_the_network_is_unknown_and_runs_once_at_most,
    an_insert_on_a_primary_that_is_killed_is_unknown_and_runs_once_at_most,
    an_insert_on_a_primary_that_freezes_is_cut_and_runs_once_at_most,
    an_error_of_the_statement_is_no_unknown_outcome,
}

/// Waits for an INSERT that a lock holds up.
const ON_A_LOCK: &str = "state = 'active' AND wait_event_type = 'Lock'";

async fn waits(cluster: &TestCluster, condition: &str) {
    eventually(PATIENCE, "the write waits on the server", async || {
        cluster.app_processes(PRIMARY, condition).await == 1
    })
    .await;
}

/// Holds the lock that [`insert`] waits for, until it is dropped.
async fn lock(cluster: &TestCluster) -> Database {
    let database = cluster.database(PRIMARY, Login::Superuser).await;
    database.run("SELECT pg_advisory_lock(7)").await.expect("the lock");
    database
}

/// Writes one row as its statement runs: each run of it writes one more.
fn insert<O: Orm>(router: &Router<O>, text: &str) -> JoinHandle<Result<(), O::Failure>> {
    let (db, text) = (writer(router), text.to_owned());
    let sql = "INSERT INTO note (author, text) SELECT 'lost', $1 || pg_advisory_xact_lock(7)::text";
    tokio::spawn(async move { db.execute_with(sql, &text).await })
}

async fn nothing_runs(cluster: &TestCluster) {
    eventually(PATIENCE, "no statement of the application runs", async || {
        cluster.app_processes(PRIMARY, "state <> 'idle'").await == 0
    })
    .await;
}

async fn through_proxies<O: Orm>() -> (TestCluster, Proxies, Router<O>) {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let router = router::<O>(cluster.config_through(&proxies)).await;
    (cluster, proxies, router)
}

async fn an_insert_cut_by_the_network_is_unknown_and_runs_once_at_most<O: Orm>() {
    let (cluster, proxies, router) = through_proxies::<O>().await;

    let lock = lock(&cluster).await;
    let writing = insert(&router, "cut");
    waits(&cluster, ON_A_LOCK).await;
    proxies.get(PRIMARY).cut();
    let error = writing.await.expect("no panic").expect_err("the answer is lost");
    assert!(O::is_commit_unknown(&error), "{error}");
    assert!(O::route_error(&error).is_none());
    assert_eq!(cluster.app_processes(PRIMARY, ON_A_LOCK).await, 1, "no second one waits");
    // The server knows nothing of the loss: the statement goes on, and commits.
    drop(lock);
    nothing_runs(&cluster).await;
    assert_eq!(cluster.notes_by(PRIMARY, "lost").await, 1, "it ran, and ran once");

    writer(&router).insert_note("next", "kept").await.expect("the next write");
    assert_eq!(cluster.notes_by(PRIMARY, "next").await, 1);
}

async fn an_insert_on_a_primary_that_is_killed_is_unknown_and_runs_once_at_most<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let lock = lock(&cluster).await;
    let writing = insert(&router, "killed");
    waits(&cluster, ON_A_LOCK).await;
    cluster.kill(PRIMARY).await;
    let error = writing.await.expect("no panic").expect_err("the answer is lost");
    assert!(O::is_commit_unknown(&error), "{error}");
    drop(lock);

    cluster.start_node(PRIMARY).await;
    eventually(PATIENCE, "writes come back", async || {
        writer(&router).insert_note("next", "kept").await.is_ok()
    })
    .await;
    assert_eq!(cluster.notes_by(PRIMARY, "lost").await, 0, "it was not run again");
}

async fn an_insert_on_a_primary_that_freezes_is_cut_and_runs_once_at_most<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let lock = lock(&cluster).await;
    let writing = insert(&router, "frozen");
    waits(&cluster, ON_A_LOCK).await;
    cluster.servers().pause(PRIMARY).await.expect("it runs");
    let cut = eventually(PATIENCE, "the write is cut", async || writing.is_finished()).await;
    let error = writing.await.expect("no panic").expect_err("the answer is lost");
    eprintln!("cut after {cut:?}: {error}");
    assert!(O::is_commit_unknown(&error), "{error}");

    cluster.servers().resume(PRIMARY).await.expect("it runs");
    drop(lock);
    eventually(PATIENCE, "writes come back", async || {
        writer(&router).insert_note("next", "kept").await.is_ok()
    })
    .await;
    nothing_runs(&cluster).await;
    let rows = cluster.notes_by(PRIMARY, "lost").await;
    assert!(rows <= 1, "{rows} rows");
}

async fn an_error_of_the_statement_is_no_unknown_outcome<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let twice = "INSERT INTO note VALUES (1, 'a', 'b'), (1, 'a', 'b')";
    let error = writer(&router).execute(twice).await.expect_err("a duplicate key");
    assert_eq!((O::sqlstate(&error).as_deref(), O::is_commit_unknown(&error)), (Some("23505"), false));
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}
