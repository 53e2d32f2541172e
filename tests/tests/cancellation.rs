//! What is left when nobody waits any more, and what the next user of a connection finds.

use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use routing_cluster::Login;
use routing_core::{Consistency, Router, RouterConfig};
use routing_seaorm::SeaOrm;
use routing_tests::{
    NODES, NodeView as _, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, note, reader, router,
    served_by, served_by_slowly, writer,
};
use sea_orm::{
    ActiveModelTrait as _, ConnectionTrait, DbBackend, DbErr, Statement, StreamTrait as _,
    TransactionSession as _, TransactionTrait as _,
};
use tokio::time::timeout;

const POOL: u32 = 8;

fn slow_rows() -> Statement {
    let sql = "SELECT number, pg_sleep(0.002)::text FROM generate_series(1, 1000) AS number";
    Statement::from_string(DbBackend::Postgres, sql)
}

/// One request that takes some 20 ms, of a kind that `kind` chooses.
async fn request(router: &Router<SeaOrm>, kind: u32) -> Result<(), DbErr> {
    match kind {
        0 => served_by_slowly(&reader(router), 0.02).await.map(drop),
        1 => served_by_slowly(&writer(router), 0.02).await.map(drop),
        2 => note::new("cancelled", "autocommit").insert(&writer(router)).await.map(drop),
        3 => {
            let transaction = writer(router).begin().await?;
            note::new("cancelled", "transaction").insert(&transaction).await?;
            let savepoint = transaction.begin().await?;
            served_by_slowly(&savepoint, 0.01).await?;
            savepoint.commit().await?;
            transaction.commit().await
        }
        4 => {
            let transaction = reader(router).begin().await?;
            served_by_slowly(&transaction, 0.01).await?;
            transaction.rollback().await
        }
        5 => {
            let db = reader(router);
            let mut rows = db.stream_raw(slow_rows()).await?;
            while let Some(row) = rows.next().await {
                row?;
            }
            Ok(())
        }
        6 => {
            let transaction = writer(router).begin().await?;
            let mut rows = transaction.stream_raw(slow_rows()).await?;
            while let Some(row) = rows.next().await {
                row?;
            }
            drop(rows);
            transaction.commit().await
        }
        _ => {
            let lease = router.read(Consistency::Strong).await.map_err(DbErr::from)?;
            lease.execute_unprepared("SET work_mem = '1MB'").await?;
            served_by_slowly(&*lease, 0.01).await.map(drop)
        }
    }
}

/// Nothing is held: not here, and not on any server.
async fn everything_is_back(cluster: &TestCluster, router: &Router<SeaOrm>) {
    eventually(PATIENCE, "no request is counted and every connection is idle", async || {
        router.status().fallback_in_use == 0
            && router.status().nodes.iter().all(|node| {
                let pools = [&node.read_pool, &node.write_pool];
                node.in_flight == 0 && pools.iter().all(|pool| pool.idle == pool.open && pool.waiting == 0)
            })
    })
    .await;
    for node in NODES {
        eventually(PATIENCE, "no process of the application is at work or in a transaction", async || {
            cluster.app_processes(node, "state <> 'idle'").await == 0
        })
        .await;
        let pools = router.node(node);
        let most = i64::try_from(pools.read_pool.max + pools.write_pool.max).expect("a small number");
        eventually(PATIENCE, "a server has no more processes than the pools allow", async || {
            cluster.app_processes(node, "true").await <= most
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_dropped_at_any_await_give_everything_back() {
    let seed = std::env::var("ROUTING_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("ROUTING_TESTS_SEED={seed}");
    let cluster = TestCluster::start().await;
    let config = RouterConfig { read_pool_size: POOL, write_pool_size: POOL, ..cluster.config() };
    let router = router(config).await;

    let mut seeds = Rng::with_seed(seed);
    let clients = (0..12).map(|_| {
        let (router, mut random) = (router.clone(), seeds.fork());
        tokio::spawn(async move {
            let mut dropped = 0;
            for _ in 0..60 {
                let longest = if random.bool() { 20_000 } else { 400_000 };
                let patience = Duration::from_micros(random.u64(0..longest));
                match timeout(patience, request(&router, random.u32(0..8))).await {
                    Ok(done) => done.expect("what is not dropped succeeds"),
                    Err(_) => dropped += 1,
                }
            }
            dropped
        })
    });
    let dropped: u32 = join_all(clients).await.into_iter().map(|client| client.expect("no panic")).sum();
    eprintln!("{dropped} of 720 requests were dropped");
    assert!((200..700).contains(&dropped), "many are dropped in their middle, and some are not");
    everything_is_back(&cluster, &router).await;

    // All permits are there: every connection that the pools may have can be held at once.
    let mut held = Vec::new();
    for _ in 0..2 * POOL {
        let lease = router.read(Consistency::Eventual).await.expect("a connection to a replica");
        assert_ne!(lease.node().name(), PRIMARY);
        held.push(lease);
    }
    for _ in 0..POOL {
        held.push(router.read(Consistency::Strong).await.expect("a connection to read on the primary"));
        held.push(router.write().await.expect("a connection to write"));
    }
    for lease in &held {
        assert_eq!(served_by(&**lease).await.expect("a statement"), lease.node().name());
    }
    drop(held);
    everything_is_back(&cluster, &router).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_dropped_before_its_end_ends_on_the_server() {
    let cluster = TestCluster::start().await;
    let router = cluster.router().await;

    let endless = "SELECT generate_series(1, 1000000000) AS number";
    let endless = || Statement::from_string(DbBackend::Postgres, endless);
    let (reads, writes) = (reader(&router), writer(&router));
    let mut of_reader = reads.stream_raw(endless()).await.expect("rows");
    let mut of_writer = writes.stream_raw(endless()).await.expect("rows");
    for _ in 0..10 {
        of_reader.next().await.expect("a row").expect("a row");
        of_writer.next().await.expect("a row").expect("a row");
    }
    drop((of_reader, of_writer));
    everything_is_back(&cluster, &router).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_nobody_ends_is_rolled_back() {
    let cluster = TestCluster::start().await;
    let router = cluster.router().await;

    for _ in 0..5 {
        let transaction = writer(&router).begin().await.expect("begin");
        note::new("abandoned", "undone").insert(&transaction).await.expect("insert");
        let savepoint = transaction.begin().await.expect("a savepoint");
        note::new("abandoned", "undone").insert(&savepoint).await.expect("insert");
        drop(transaction);
        drop(savepoint);
        let transaction = reader(&router).begin().await.expect("begin");
        served_by(&transaction).await.expect("a read");
    }
    everything_is_back(&cluster, &router).await;
    assert_eq!(cluster.notes_by(PRIMARY, "abandoned").await, 0);
}

/// The state of a session that a test may have left behind, and the server process that has it.
async fn session(db: &impl ConnectionTrait) -> (i32, String) {
    let sql = "SELECT pg_backend_pid(), concat_ws(', ', \
         'work_mem ' || current_setting('work_mem'), \
         'read_only ' || current_setting('default_transaction_read_only'), \
         'locks ' || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
         'temp ' || coalesce(to_regclass('pg_temp.leak')::text, 'none'), \
         'listens ' || (SELECT count(*) FROM pg_listening_channels()), \
         'cursors ' || (SELECT count(*) FROM pg_cursors), \
         'role ' || current_user)";
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await;
    let row = row.expect("a statement").expect("a row");
    (row.try_get_by_index(0).expect("a number"), row.try_get_by_index(1).expect("a text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn session_state_does_not_reach_the_next_user_of_a_connection() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { read_pool_size: 1, write_pool_size: 1, ..cluster.config() };
    let router = router(config).await;

    let (process, clean) = session(&writer(&router)).await;
    for leak in [
        "SET work_mem = '1MB'",
        "SELECT set_config('work_mem', '1MB', false)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(2)",
        "CREATE TEMP TABLE leak (id int)",
        "LISTEN leak",
        "DECLARE leak CURSOR WITH HOLD FOR SELECT 1",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "DO $$ BEGIN PERFORM set_config('work_mem', '1MB', false); END $$",
        "BEGIN; INSERT INTO note (author, text) VALUES ('leak', 'undone')",
    ] {
        writer(&router).execute_unprepared(leak).await.expect(leak);
        assert_eq!(session(&writer(&router)).await, (process, clean.clone()), "after {leak}");
    }
    let transaction = writer(&router).begin().await.expect("begin");
    transaction.execute_unprepared("SET work_mem = '1MB'").await.expect("SET");
    transaction.execute_unprepared("SELECT pg_advisory_lock(3)").await.expect("a lock");
    note::new("leak", "undone").insert(&transaction).await.expect("insert");
    drop(transaction);
    assert_eq!(session(&writer(&router)).await, (process, clean), "after a dropped transaction");
    let transaction = writer(&router).begin().await.expect("begin");
    transaction.execute_unprepared("SET work_mem = '1MB'").await.expect("SET");
    transaction.commit().await.expect("commit");
    let (_, after) = session(&writer(&router)).await;
    assert!(!after.contains("work_mem 1MB"), "after a committed transaction: {after}");
    assert_eq!(cluster.notes_by(PRIMARY, "leak").await, 0);

    // On a replica.
    router.drain(REPLICAS[1], true);
    let (process, clean) = session(&reader(&router)).await;
    assert!(clean.contains("read_only on"), "{clean}");
    for leak in [
        "SET work_mem = '1MB'",
        "SELECT pg_advisory_lock(1)",
        "SET default_transaction_read_only = off",
        "DECLARE leak CURSOR WITH HOLD FOR SELECT 1",
    ] {
        reader(&router).execute_unprepared(leak).await.expect(leak);
        let (next, left) = session(&reader(&router)).await;
        assert_eq!((next, &left), (process, &clean), "after {leak}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_prepared_in_sql_does_not_reach_the_next_user_of_a_connection() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { write_pool_size: 1, ..cluster.config() };
    let router = router(config).await;

    for user in ["first", "second"] {
        writer(&router).execute_unprepared("PREPARE leak AS SELECT 1").await.expect(user);
    }
    let sql = "SELECT count(*) FROM pg_prepared_statements WHERE from_sql";
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    let row = writer(&router).query_one_raw(statement).await.expect("a statement").expect("a row");
    assert_eq!(row.try_get_by_index::<i64>(0).expect("a number"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_dropped_while_a_lock_holds_it_up_frees_the_server_at_once() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { write_pool_size: 1, ..cluster.config() };
    let router = router(config).await;

    let lock = cluster.database(PRIMARY, Login::Superuser).await;
    lock.run("BEGIN; LOCK TABLE note IN EXCLUSIVE MODE").await.expect("the lock");
    let waiting = tokio::spawn({
        let db = writer(&router);
        async move { note::new("waiting", "undone").insert(&db).await }
    });
    eventually(PATIENCE, "it waits on the server", async || {
        cluster.app_processes(PRIMARY, "wait_event_type = 'Lock'").await == 1
    })
    .await;
    waiting.abort();
    // The lock is still held: only an end of the statement frees its process.
    everything_is_back(&cluster, &router).await;
    assert_eq!(served_by(&writer(&router)).await.expect("the only connection's place is free"), PRIMARY);
    drop(lock);
    assert_eq!(cluster.notes_by(PRIMARY, "waiting").await, 0);
}
