//! Writes whose answer is lost: recognised as such, and never run twice.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use routing_cluster::Login;
use routing_core::{Lease, Router};
use routing_seaorm::{SeaOrm, is_commit_unknown, route_error};
use routing_tests::{
    Database, NodeView as _, PATIENCE, PRIMARY, Proxies, TestCluster, eventually, note, router, sqlstate,
    writer,
};
use sea_orm::{
    ActiveModelTrait as _, ConnectionTrait as _, DbBackend, DbErr, ExecResult, Statement,
    TransactionSession as _, TransactionTrait as _,
};
use tokio::task::JoinHandle;

/// Waits for an INSERT that a lock holds up.
const ON_A_LOCK: &str = "state = 'active' AND wait_event_type = 'Lock'";
/// Waits for a standby that never answers.
const ON_A_STANDBY: &str = "state = 'active' AND wait_event = 'SyncRep'";

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
fn insert(router: &Router<SeaOrm>, text: &str) -> JoinHandle<Result<ExecResult, DbErr>> {
    let db = writer(router);
    let sql = "INSERT INTO note (author, text) SELECT 'lost', $1 || pg_advisory_xact_lock(7)::text";
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [text.into()]);
    tokio::spawn(async move { db.execute_raw(statement).await })
}

async fn nothing_runs(cluster: &TestCluster) {
    eventually(PATIENCE, "no statement of the application runs", async || {
        cluster.app_processes(PRIMARY, "state <> 'idle'").await == 0
    })
    .await;
}

async fn through_proxies() -> (TestCluster, Proxies, Router<SeaOrm>) {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let router = router(cluster.config_through(&proxies)).await;
    (cluster, proxies, router)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_cut_by_the_network_is_unknown_and_runs_once_at_most() {
    let (cluster, proxies, router) = through_proxies().await;

    let lock = lock(&cluster).await;
    let writing = insert(&router, "cut");
    waits(&cluster, ON_A_LOCK).await;
    proxies.get(PRIMARY).cut();
    let error = writing.await.expect("no panic").expect_err("the answer is lost");
    assert!(is_commit_unknown(&error), "{error}");
    assert!(route_error(&error).is_none());
    assert_eq!(cluster.app_processes(PRIMARY, ON_A_LOCK).await, 1, "no second one waits");
    // The server knows nothing of the loss: the statement goes on, and commits.
    drop(lock);
    nothing_runs(&cluster).await;
    assert_eq!(cluster.notes_by(PRIMARY, "lost").await, 1, "it ran, and ran once");

    note::new("next", "kept").insert(&writer(&router)).await.expect("the next write");
    assert_eq!(cluster.notes_by(PRIMARY, "next").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_on_a_primary_that_is_killed_is_unknown_and_runs_once_at_most() {
    let cluster = TestCluster::start().await;
    let router = cluster.router().await;

    let lock = lock(&cluster).await;
    let writing = insert(&router, "killed");
    waits(&cluster, ON_A_LOCK).await;
    cluster.kill(PRIMARY).await;
    let error = writing.await.expect("no panic").expect_err("the answer is lost");
    assert!(is_commit_unknown(&error), "{error}");
    drop(lock);

    cluster.start_node(PRIMARY).await;
    eventually(PATIENCE, "writes come back", async || {
        note::new("next", "kept").insert(&writer(&router)).await.is_ok()
    })
    .await;
    assert_eq!(cluster.notes_by(PRIMARY, "lost").await, 0, "it was not run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_on_a_primary_that_freezes_is_cut_and_runs_once_at_most() {
    let cluster = TestCluster::start().await;
    let router = cluster.router().await;

    let lock = lock(&cluster).await;
    let writing = insert(&router, "frozen");
    waits(&cluster, ON_A_LOCK).await;
    cluster.servers().pause(PRIMARY).await.expect("it runs");
    let cut = eventually(PATIENCE, "the write is cut", async || writing.is_finished()).await;
    let error = writing.await.expect("no panic").expect_err("the answer is lost");
    eprintln!("cut after {cut:?}: {error}");
    assert!(is_commit_unknown(&error), "{error}");

    cluster.servers().resume(PRIMARY).await.expect("it runs");
    drop(lock);
    eventually(PATIENCE, "writes come back", async || {
        note::new("next", "kept").insert(&writer(&router)).await.is_ok()
    })
    .await;
    nothing_runs(&cluster).await;
    let rows = cluster.notes_by(PRIMARY, "lost").await;
    assert!(rows <= 1, "{rows} rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_commit_is_unknown_and_runs_once_at_most() {
    let (cluster, proxies, router) = through_proxies().await;
    // A first write, so that what follows waits for nothing else.
    note::new("next", "first").insert(&writer(&router)).await.expect("a write");
    commits_wait(&cluster).await;

    // A transaction of a handle.
    let transaction = writer(&router).begin().await.expect("begin");
    note::new("lost", "commit").insert(&transaction).await.expect("an insert");
    let committing = tokio::spawn(transaction.commit());
    waits(&cluster, ON_A_STANDBY).await;
    proxies.get(PRIMARY).cut();
    let error = committing.await.expect("no panic").expect_err("the answer is lost");
    assert!(is_commit_unknown(&error), "{error}");
    end_waits(&cluster).await;

    // An autocommit statement.
    let writing = insert(&router, "autocommit");
    waits(&cluster, ON_A_STANDBY).await;
    proxies.get(PRIMARY).cut();
    let error = writing.await.expect("no panic").expect_err("the answer is lost");
    assert!(is_commit_unknown(&error), "{error}");
    end_waits(&cluster).await;

    // The closure form, which repeats what provably had no effect: this has.
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let running = tokio::spawn({
        let router = router.clone();
        async move {
            router
                .run_write(async |lease: &mut Lease<SeaOrm>| {
                    RUNS.fetch_add(1, Relaxed);
                    note::new("lost", "closure").insert(&**lease).await
                })
                .await
        }
    });
    waits(&cluster, ON_A_STANDBY).await;
    proxies.get(PRIMARY).cut();
    let error = running.await.expect("no panic").expect_err("the answer is lost");
    assert!(is_commit_unknown(&error), "{error}");
    end_waits(&cluster).await;
    assert_eq!(RUNS.load(Relaxed), 1, "the closure ran once");

    cluster.set(PRIMARY, "synchronous_standby_names", "").await;
    for text in ["commit", "autocommit", "closure"] {
        let sql = format!("SELECT count(*) FROM note WHERE author = 'lost' AND text = '{text}'");
        let rows: i64 = cluster.value(PRIMARY, &sql).await;
        assert_eq!(rows, 1, "{text}: a wait that is ended has committed, and was not run again");
    }
    note::new("next", "last").insert(&writer(&router)).await.expect("the next write");
}

/// Has commits wait for a standby that does not exist; returns when they do, some time after the server was told.
async fn commits_wait(cluster: &TestCluster) {
    cluster.set(PRIMARY, "synchronous_standby_names", "nobody").await;
    let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually(PATIENCE, "commits wait for the standby", async || {
        let canary = cluster.database(PRIMARY, Login::Superuser).await;
        let committing = tokio::spawn(async move {
            canary.run("INSERT INTO note (author, text) VALUES ('canary', 'waits')").await
        });
        eventually(PATIENCE, "it waits or has committed", async || {
            committing.is_finished() || cluster.value(PRIMARY, waiting).await
        })
        .await;
        !committing.is_finished()
    })
    .await;
    end_waits(cluster).await;
}

/// Ends the server processes that wait for a standby.
async fn end_waits(cluster: &TestCluster) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    cluster.sql(PRIMARY, sql).await;
    nothing_runs(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_lost_before_commit_is_no_unknown_outcome() {
    let (cluster, proxies, router) = through_proxies().await;

    let transaction = writer(&router).begin().await.expect("begin");
    note::new("lost", "before").insert(&transaction).await.expect("an insert");
    proxies.get(PRIMARY).cut();
    let error = transaction.execute_unprepared("SELECT 1").await.expect_err("the connection is lost");
    assert!(!is_commit_unknown(&error), "nothing was committed: {error}");
    let error = transaction.commit().await.expect_err("nothing to commit");
    assert!(!is_commit_unknown(&error), "nothing was committed: {error}");
    nothing_runs(&cluster).await;
    assert_eq!(cluster.notes_by(PRIMARY, "lost").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_statement_is_no_unknown_outcome() {
    let cluster = TestCluster::start().await;
    let router = cluster.router().await;

    let twice = "INSERT INTO note VALUES (1, 'a', 'b'), (1, 'a', 'b')";
    let error = writer(&router).execute_unprepared(twice).await.expect_err("a duplicate key");
    assert_eq!((sqlstate(&error).as_deref(), is_commit_unknown(&error)), (Some("23505"), false));
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}
