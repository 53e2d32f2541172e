//! What is left when nobody waits any more, and what the next user of a connection finds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use routing_cluster::Login;
use routing_core::{Consistency, Router, RouterConfig};
use routing_tests::{
    Handle, NAME, NODES, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, reader,
    reader_on, router, served_by, served_by_slowly, slowly, writer,
};
use tokio::time::timeout;

routing_tests::on_both! {
    requests_dropped_at_any_await_give_everything_back,
    each_kind_of_request_dropped_after_each_number_of_polls_gives_everything_back,
    a_stream_dropped_before_its_end_ends_on_the_server,
    a_read_dropped_before_an_answer_without_end_ends_on_the_server,
    a_statement_that_soon_fails_by_itself_keeps_its_connection,
    a_statement_that_ends_while_it_is_being_ended_leaves_no_lost_connection_behind,
    a_transaction_whose_request_is_dropped_is_rolled_back,
    session_state_does_not_reach_the_next_user_of_a_connection,
    a_transaction_begun_in_sql_does_not_reach_the_next_user_of_a_connection,
    a_statement_prepared_in_sql_does_not_reach_the_next_user_of_a_connection,
    a_request_dropped_while_a_lock_holds_it_up_frees_the_server,
    a_request_dropped_in_its_first_poll_leaves_no_statement_behind,
}

const POOL: u32 = 8;

const INSERT: &str = "INSERT INTO note (author, text) VALUES ('cancelled', 'transaction') RETURNING text";

/// One request that takes some 20 ms, of a kind that `kind` chooses.
async fn request<O: Orm>(router: &Router<O>, kind: u32) -> Result<(), O::Failure> {
    match kind {
        0 => served_by_slowly(&reader(router), 0.02).await.map(drop),
        1 => served_by_slowly(&writer(router), 0.02).await.map(drop),
        2 => writer(router).insert_note("cancelled", "autocommit").await,
        3 => writer(router).transaction(&[INSERT, &slowly(0.01), INSERT]).await.map(drop),
        4 => reader(router).undone(&[&slowly(0.01)]).await,
        5 => {
            let sql = "SELECT number, pg_sleep(0.002)::text FROM generate_series(1, 1000) AS number";
            let mut rows = O::rows(&reader(router), sql).await?;
            while let Some(row) = rows.next().await {
                row?;
            }
            Ok(())
        }
        6 => O::nested(&writer(router), "cancelled").await,
        _ => {
            let mut lease = router.read(Consistency::Strong).await?;
            O::execute_on(&mut lease, "SET work_mem = '1MB'").await?;
            O::text_on(&mut lease, &slowly(0.01)).await.map(drop)
        }
    }
}

/// Nothing is held: not here, and not on any server.
async fn everything_is_back<O: Orm>(cluster: &TestCluster, router: &Router<O>) {
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

async fn requests_dropped_at_any_await_give_everything_back<O: Orm>() {
    let seed = std::env::var("ROUTING_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("ROUTING_TESTS_SEED={seed}");
    let cluster = TestCluster::start().await;
    let config = RouterConfig { read_pool_size: POOL, write_pool_size: POOL, ..cluster.config() };
    let router = router::<O>(config).await;

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
    for lease in &mut held {
        let server = O::text_on(lease, NAME).await.expect("a statement");
        assert_eq!(server, lease.node().name());
    }
    drop(held);
    everything_is_back(&cluster, &router).await;
}

/// Polls a future so many times at most; `None` when it had not ended by then.
struct Limited<F> {
    future: Pin<Box<F>>,
    polls: usize,
}

impl<F: Future> Future for Limited<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        match self.future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn each_kind_of_request_dropped_after_each_number_of_polls_gives_everything_back<O: Orm>() {
    const KINDS: u32 = 8;
    let cluster = TestCluster::start().await;
    // Two places, so that what is dropped is also dropped while it waits for one.
    let config = RouterConfig { read_pool_size: 2, write_pool_size: 2, ..cluster.config() };
    let router = router::<O>(config).await;
    let (mut ended, mut dropped) = ([None; KINDS as usize], 0);
    for polls in 0..200 {
        let all = (0..KINDS).map(|kind| {
            let router = router.clone();
            async move { Limited { future: Box::pin(request(&router, kind)), polls }.await }
        });
        // All at once, in one task: each is polled as it is woken, and the places are too few for all.
        for (kind, outcome) in join_all(all).await.into_iter().enumerate() {
            match outcome {
                Some(outcome) => {
                    outcome.unwrap_or_else(|error| panic!("kind {kind} with {polls} polls: {error}"));
                    ended[kind] = ended[kind].or(Some(polls));
                }
                None => dropped += 1,
            }
        }
        everything_is_back(&cluster, &router).await;
        if ended.iter().all(Option::is_some) {
            break;
        }
    }
    eprintln!("{dropped} were dropped; each kind first ended with so many polls: {ended:?}");
    assert!(ended.iter().all(Option::is_some), "{ended:?}");
    assert!(dropped > 40, "{dropped} were dropped");
}

async fn a_stream_dropped_before_its_end_ends_on_the_server<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let endless = "SELECT generate_series(1, 1000000000) AS number, 'row' AS text";
    let mut streams = Vec::new();
    for node in REPLICAS {
        let mut rows = O::rows(&reader_on(&router, node).await, endless).await.expect("rows");
        for _ in 0..10 {
            rows.next().await.expect("a row").expect("a row");
        }
        streams.push(rows);
    }
    for node in REPLICAS {
        assert_eq!(cluster.app_processes(node, "state = 'active'").await, 1, "the server is at it");
    }
    drop(streams);
    everything_is_back(&cluster, &router).await;
}

async fn a_read_dropped_before_an_answer_without_end_ends_on_the_server<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    // The first rows come while the end is still waited for, and then there is always something to read.
    let sql = "SELECT generate_series(1, 1000000000)::text FROM (SELECT pg_sleep(0.04)) AS late";
    let dropped = timeout(Duration::from_millis(5), reader_on(&router, "pg2").await.text(sql)).await;
    assert!(dropped.is_err(), "it has not begun to answer");
    everything_is_back(&cluster, &router).await;
    assert_eq!(served_by(&reader_on(&router, "pg2").await).await.expect("a statement"), "pg2");
}

async fn a_statement_that_soon_fails_by_itself_keeps_its_connection<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = router::<O>(RouterConfig { write_pool_size: 1, ..cluster.config() }).await;
    let mut kept = 0;
    for _ in 0..10 {
        let (before, clean) = session(&writer(&router)).await;
        let fails = "SELECT (1 / (length(pg_sleep(0.01)::text)))::text";
        let _ = timeout(Duration::from_millis(3), writer(&router).text(fails)).await;
        let (after, state) = session(&writer(&router)).await;
        assert_eq!(state, clean);
        kept += u32::from(before == after);
    }
    assert!(kept >= 5, "{kept} of 10 kept it");
    everything_is_back(&cluster, &router).await;
}

async fn a_statement_that_ends_while_it_is_being_ended_leaves_no_lost_connection_behind<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = router::<O>(RouterConfig { write_pool_size: 1, ..cluster.config() }).await;
    let mut dropped = 0;
    // From before the end of the time that it has, to well after.
    for step in 0..40 {
        let seconds = 0.045 + 0.001 * f64::from(step);
        let first = timeout(Duration::from_millis(5), served_by_slowly(&writer(&router), seconds)).await;
        dropped += u32::from(first.is_err());
        // A lost connection would make this one's outcome unknown.
        let next = served_by(&writer(&router)).await;
        assert_eq!(next.unwrap_or_else(|error| panic!("after {seconds} s: {error}")), PRIMARY);
    }
    assert!(dropped > 20, "{dropped} of 40 were dropped");
    everything_is_back(&cluster, &router).await;
}

async fn a_transaction_whose_request_is_dropped_is_rolled_back<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let undone = "INSERT INTO note (author, text) VALUES ('abandoned', 'undone') RETURNING text";
    let write = {
        let db = writer(&router);
        tokio::spawn(async move { db.transaction(&[undone, &slowly(600.0)]).await })
    };
    let read = {
        let db = reader_on(&router, "pg2").await;
        tokio::spawn(async move { db.transaction(&[&slowly(600.0)]).await })
    };
    for node in [PRIMARY, "pg2"] {
        eventually(PATIENCE, "its last statement runs", async || {
            cluster.app_processes(node, "wait_event = 'PgSleep'").await == 1
        })
        .await;
    }
    write.abort();
    read.abort();
    everything_is_back(&cluster, &router).await;
    assert_eq!(cluster.notes_by(PRIMARY, "abandoned").await, 0);
}

/// The server process of a connection, and the state of its session that a test may have left behind.
async fn session<O: Orm>(db: &impl Handle<O>) -> (String, String) {
    let sql = "SELECT pg_backend_pid() || ': ' || concat_ws(', ', \
         'work_mem ' || current_setting('work_mem'), \
         'read_only ' || current_setting('default_transaction_read_only'), \
         'locks ' || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
         'temp ' || coalesce(to_regclass('pg_temp.leak')::text, 'none'), \
         'listens ' || (SELECT count(*) FROM pg_listening_channels()), \
         'cursors ' || (SELECT count(*) FROM pg_cursors), \
         'transaction ' || (SELECT (xact_start <> query_start)::text FROM pg_stat_activity \
                            WHERE pid = pg_backend_pid()), \
         'role ' || current_user)";
    let text = db.text(sql).await.expect("a statement");
    let (process, state) = text.split_once(": ").expect("a process and its state");
    (process.to_owned(), state.to_owned())
}

async fn session_state_does_not_reach_the_next_user_of_a_connection<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { read_pool_size: 1, write_pool_size: 1, ..cluster.config() };
    let router = router::<O>(config).await;

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
    ] {
        writer(&router).execute(leak).await.expect(leak);
        assert_eq!(session(&writer(&router)).await, (process.clone(), clean.clone()), "after {leak}");
    }
    let set = ["SELECT set_config('work_mem', '1MB', false)", "SELECT pg_advisory_lock(3)::text"];
    writer(&router).transaction(&set).await.expect("a transaction");
    assert_eq!(session(&writer(&router)).await.1, clean, "after a committed transaction");
    writer(&router).undone(&set).await.expect("a transaction");
    assert_eq!(session(&writer(&router)).await.1, clean, "after one that was rolled back");

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
        reader(&router).execute(leak).await.expect(leak);
        assert_eq!(session(&reader(&router)).await, (process.clone(), clean.clone()), "after {leak}");
    }
}

async fn a_transaction_begun_in_sql_does_not_reach_the_next_user_of_a_connection<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { read_pool_size: 1, write_pool_size: 1, ..cluster.config() };
    let router = router::<O>(config).await;
    router.drain(REPLICAS[1], true);

    let (_, clean) = session(&writer(&router)).await;
    for leak in [
        "BEGIN",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "BEGIN; INSERT INTO note (author, text) VALUES ('leak', 'undone')",
        "BEGIN; SAVEPOINT inner_one",
    ] {
        writer(&router).execute(leak).await.expect(leak);
        assert_eq!(session(&writer(&router)).await.1, clean, "after {leak}");
    }
    writer(&router).execute("BEGIN; SELECT 1 / 0").await.expect_err("it fails in its transaction");
    assert_eq!(session(&writer(&router)).await.1, clean, "after a failed transaction");
    assert_eq!(cluster.notes_by(PRIMARY, "leak").await, 0);
    writer(&router).insert_note("leak", "kept").await.expect("a write");
    assert_eq!(cluster.notes_by(PRIMARY, "leak").await, 1, "the next write commits by itself");

    let (_, clean) = session(&reader(&router)).await;
    reader(&router).execute("BEGIN").await.expect("BEGIN");
    assert_eq!(session(&reader(&router)).await.1, clean, "after BEGIN on a replica");
    everything_is_back(&cluster, &router).await;
}

async fn a_statement_prepared_in_sql_does_not_reach_the_next_user_of_a_connection<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { write_pool_size: 1, ..cluster.config() };
    let router = router::<O>(config).await;

    for user in ["first", "second"] {
        writer(&router).execute("PREPARE leak AS SELECT 1").await.expect(user);
    }
    let sql = "SELECT count(*)::text FROM pg_prepared_statements WHERE from_sql";
    assert_eq!(writer(&router).text(sql).await.expect("a statement"), "0");
}

async fn a_request_dropped_while_a_lock_holds_it_up_frees_the_server<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { write_pool_size: 1, ..cluster.config() };
    let router = router::<O>(config).await;

    let lock = cluster.database(PRIMARY, Login::Superuser).await;
    lock.run("BEGIN; LOCK TABLE note IN EXCLUSIVE MODE").await.expect("the lock");
    let waiting = tokio::spawn({
        let db = writer(&router);
        async move { db.insert_note("waiting", "undone").await }
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

async fn a_request_dropped_in_its_first_poll_leaves_no_statement_behind<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { read_pool_size: 1, write_pool_size: 1, ..cluster.config() };
    let router = router::<O>(config).await;
    router.drain(REPLICAS[1], true);

    let insert = "INSERT INTO note (author, text) VALUES ('dropped', 'text') RETURNING text";
    let set = "SELECT set_config('work_mem', '1MB', false)";
    let (_, clean) = session(&writer(&router)).await;
    let (_, clean_read) = session(&reader(&router)).await;
    // It never comes to its COMMIT, however much of it one poll can do.
    let long = slowly(600.0);
    let transaction = [set, insert, &long];
    for _ in 0..20 {
        let db = writer(&router);
        tokio::select! {
            biased;
            _ = db.transaction(&transaction) => {}
            () = std::future::ready(()) => {}
        }
        // The next user comes at once, and is the only one that the pool can serve.
        assert_eq!(session(&writer(&router)).await.1, clean, "after a transaction");
        let _ = timeout(Duration::ZERO, db.execute("BEGIN; SET work_mem = '1MB'")).await;
        assert_eq!(session(&writer(&router)).await.1, clean, "after a statement");
        let _ = timeout(Duration::ZERO, reader(&router).execute("SET work_mem = '1MB'")).await;
        assert_eq!(session(&reader(&router)).await.1, clean_read, "after a statement on a replica");
        let mut lease = router.write().await.unwrap_or_else(|error| panic!("a lease: {error}"));
        tokio::select! {
            biased;
            _ = O::execute_on(&mut lease, "BEGIN; SET work_mem = '1MB'") => {}
            () = std::future::ready(()) => {}
        }
        drop(lease);
        assert_eq!(session(&writer(&router)).await.1, clean, "after a statement on a lease");
    }
    everything_is_back(&cluster, &router).await;
    assert_eq!(cluster.notes_by(PRIMARY, "dropped").await, 0, "nothing was committed");
}
