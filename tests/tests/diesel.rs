//! What only Diesel has: closures of several statements, transactions that run again, leases that are connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use diesel::dsl::{count_star, insert_into, select, sql};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_query;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection as _};
use futures_util::TryStreamExt as _;
use routing_cluster::Login;
use routing_core::RouterConfig;
use routing_diesel::{Diesel, is_commit_unknown, route_error};
use routing_tests::note::schema::{self, note};
use routing_tests::{
    NodeView as _, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, reader, reader_on, router, writer,
};

/// How often a closure ran.
#[derive(Clone, Debug, Default)]
struct Runs(Arc<AtomicU32>);

impl Runs {
    /// Counts one more; returns how many there were before.
    fn another(&self) -> u32 {
        AtomicU32::fetch_add(&self.0, 1, Relaxed)
    }

    fn so_far(&self) -> u32 {
        AtomicU32::load(&self.0, Relaxed)
    }
}

/// The name of the server, and the number of its process.
async fn session(conn: &mut AsyncPgConnection) -> QueryResult<(String, i32)> {
    let name = sql::<Text>("current_setting('cluster_name')");
    select((name, sql::<Integer>("pg_backend_pid()"))).get_result(conn).await
}

async fn sleep(conn: &mut AsyncPgConnection, seconds: f64) -> QueryResult<usize> {
    sql_query(format!("SELECT pg_sleep({seconds})")).execute(conn).await
}

async fn terminate_sleepers(cluster: &TestCluster, node: &str) {
    let asleep = "wait_event = 'PgSleep'";
    eventually(PATIENCE, "it sleeps", async || cluster.app_processes(node, asleep).await == 1).await;
    cluster
        .sql(node, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {asleep}"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_queries_work_unchanged() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<Diesel>().await;
    let db = writer(&router);

    let id: i32 = db
        .run(async |conn| schema::insert("ada", "one").returning(note::id).get_result(conn).await)
        .await
        .expect("INSERT … RETURNING");
    let many: Vec<_> =
        (2..=30).map(|n| (note::author.eq("ada"), note::text.eq(format!("number {n}")))).collect();
    let stored = db.run(async |conn| insert_into(note::table).values(&many).execute(conn).await).await;
    assert_eq!(stored.expect("a batch"), 29);
    let changed = diesel::update(note::table.find(id)).set(note::text.eq("one, changed"));
    assert_eq!(db.run(async |conn| changed.execute(conn).await).await.expect("UPDATE"), 1);
    db.run(async |conn| schema::insert("bob", "gone").execute(conn).await).await.expect("INSERT");
    let gone = diesel::delete(note::table.filter(note::author.eq("bob")));
    assert_eq!(db.run(async |conn| gone.execute(conn).await).await.expect("DELETE"), 1);
    cluster.wait_replayed().await;

    let db = reader(&router);
    let found: Option<String> = db
        .run(async |conn| note::table.find(id).select(note::text).first(conn).await.optional())
        .await
        .expect("a row");
    assert_eq!(found.as_deref(), Some("one, changed"));
    let missing: QueryResult<String> =
        db.run(async |conn| note::table.find(-1).select(note::text).first(conn).await).await;
    assert_eq!(missing, Err(DieselError::NotFound));
    let by_ada = note::table.filter(note::author.eq("ada")).order_by(note::id);
    let count: i64 =
        db.run(async |conn| note::table.select(count_star()).get_result(conn).await).await.expect("a count");
    assert_eq!(count, 30);
    let page: Vec<(i32, String, String)> =
        db.run(async |conn| by_ada.limit(12).offset(24).load(conn).await).await.expect("a page");
    assert_eq!(page.last().map(|(_, _, text)| text.as_str()), Some("number 30"));
    let rows = db.stream::<(i32, String, String), _>(by_ada).await.expect("a stream");
    assert_eq!(rows.try_collect::<Vec<_>>().await.expect("all rows").len(), 30);
    let served = db.routed().session().last_decision().expect("a decision").node;
    assert!(REPLICAS.contains(&&*served), "{served} served the reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statements_of_one_closure_share_a_session_and_move_on_together() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<Diesel>().await;

    let both = async |conn: &mut routing_core::Lease<Diesel>| {
        Ok::<_, DieselError>((session(conn).await?, session(conn).await?))
    };
    let (first, second) = reader(&router).run(both).await.expect("a read");
    assert_eq!(first, second);
    let (first, second) = writer(&router).run(both).await.expect("statements");
    assert_eq!((first.0.as_str(), &first), (PRIMARY, &second));

    let db = reader_on(&router, "pg2").await;
    let runs = Runs::default();
    let reading = tokio::spawn({
        let runs = runs.clone();
        async move {
            db.run(async |conn| {
                let (first, _) = session(conn).await?;
                let pause = if runs.another() == 0 { 600.0 } else { 0.0 };
                sleep(conn, pause).await?;
                Ok::<_, DieselError>((first, session(conn).await?.0))
            })
            .await
        }
    });
    terminate_sleepers(&cluster, "pg2").await;
    let seen = reading.await.expect("no panic").expect("another node runs all of it");
    assert_eq!(seen, ("pg3".to_owned(), "pg3".to_owned()));
    assert_eq!(runs.so_far(), 2);

    // An error of its own is handed out at once.
    let runs = Runs::default();
    let outcome: QueryResult<()> = reader(&router)
        .run(async |_| {
            runs.another();
            Err(DieselError::NotFound)
        })
        .await;
    assert_eq!((outcome, runs.so_far()), (Err(DieselError::NotFound), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_transaction_moves_on_as_a_whole() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<Diesel>().await;

    let db = reader_on(&router, "pg2").await;
    let runs = Runs::default();
    let reading = tokio::spawn({
        let runs = runs.clone();
        async move {
            db.transaction(async |conn| {
                let first = session(conn).await?;
                let pause = if runs.another() == 0 { 600.0 } else { 0.0 };
                sleep(conn, pause).await?;
                let mode: String =
                    select(sql::<Text>("current_setting('transaction_read_only')")).get_result(conn).await?;
                Ok::<_, DieselError>((first, session(conn).await?, mode))
            })
            .await
        }
    });
    terminate_sleepers(&cluster, "pg2").await;
    let (first, last, mode) = reading.await.expect("no panic").expect("another node runs all of it");
    assert_eq!((first.0.as_str(), &first, mode.as_str()), ("pg3", &last, "on"));
    assert_eq!(runs.so_far(), 2);
    let refused =
        reader(&router).transaction(async |conn| schema::insert("a", "b").execute(conn).await).await;
    assert!(
        matches!(refused, Err(DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_transaction_runs_again_after_a_serialization_failure() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<Diesel>().await;
    let id: i32 = writer(&router)
        .run(async |conn| schema::insert("counter", "0").returning(note::id).get_result(conn).await)
        .await
        .expect("a note");

    // Each waits until both have read, the first time, so that one of them must fail.
    let meet = Arc::new(tokio::sync::Barrier::new(2));
    let runs = Runs::default();
    let clients = (0..2).map(|_| {
        let (router, meet, runs) = (router.clone(), meet.clone(), runs.clone());
        let mine = Runs::default();
        tokio::spawn(async move {
            writer(&router)
                .transaction(async |conn| {
                    runs.another();
                    conn.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
                    let text: String = note::table.find(id).select(note::text).first(conn).await?;
                    if mine.another() == 0 {
                        meet.wait().await;
                    }
                    let more = text.parse::<i32>().expect("a number") + 1;
                    let update = diesel::update(note::table.find(id)).set(note::text.eq(more.to_string()));
                    update.execute(conn).await
                })
                .await
        })
    });
    for done in futures_util::future::join_all(clients).await {
        assert_eq!(done.expect("no panic").expect("it is repeated"), 1);
    }
    assert_eq!(runs.so_far(), 3, "one of them ran again");
    let counter: String = cluster.value(PRIMARY, "SELECT text FROM note WHERE author = 'counter'").await;
    assert_eq!(counter, "2", "no update is lost");
    assert_eq!(router.node(PRIMARY).breaker, "closed");

    // The closure's own error ends it.
    let runs = Runs::default();
    let outcome: QueryResult<()> = writer(&router)
        .transaction(async |conn| {
            runs.another();
            schema::insert("own", "undone").execute(conn).await?;
            Err(DieselError::NotFound)
        })
        .await;
    assert_eq!((outcome, runs.so_far()), (Err(DieselError::NotFound), 1));
    let duplicate: QueryResult<usize> = writer(&router)
        .transaction(async |conn| {
            runs.another();
            insert_into(note::table)
                .values((note::id.eq(id), note::author.eq("own"), note::text.eq("twice")))
                .execute(conn)
                .await
        })
        .await;
    assert!(
        matches!(duplicate, Err(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _))),
        "{duplicate:?}"
    );
    assert_eq!(runs.so_far(), 2);
    assert_eq!(cluster.notes_by(PRIMARY, "own").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serialization_failure_outside_a_transaction_is_the_closures_own() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<Diesel>().await;
    let runs = Runs::default();
    let raise = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$";
    let outcome = writer(&router)
        .run(async |conn| {
            runs.another();
            conn.batch_execute(raise).await
        })
        .await;
    let error = outcome.expect_err("it was raised");
    assert!(
        matches!(error, DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _)),
        "{error:?}"
    );
    assert!(!is_commit_unknown(&error) && route_error(&error).is_none(), "{error}");
    assert_eq!(runs.so_far(), 1, "statements before it may have had an effect");
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_a_connection() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<Diesel>().await;

    let mut conn = writer(&router).get().await.expect("a lease");
    assert_eq!(session(&mut conn).await.expect("a statement").0, PRIMARY);
    schema::insert("lease", "executed").execute(&mut conn).await.expect("execute");
    conn.transaction(async |conn| schema::insert("lease", "committed").execute(conn).await)
        .await
        .expect("commit");
    let undone: QueryResult<()> = conn
        .transaction(async |conn| {
            schema::insert("lease", "undone").execute(conn).await?;
            Err(DieselError::RollbackTransaction)
        })
        .await;
    assert_eq!(undone, Err(DieselError::RollbackTransaction));
    let refused = conn
        .build_transaction()
        .read_only()
        .run(async |conn| schema::insert("lease", "refused").execute(conn).await)
        .await;
    assert!(
        matches!(refused, Err(DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))),
        "{refused:?}"
    );
    let texts = note::table.filter(note::author.eq("lease")).order_by(note::id).select(note::text);
    let loaded: Vec<String> = texts.load(&mut conn).await.expect("load");
    assert_eq!(loaded, ["executed", "committed"]);
    drop(conn);
    cluster.wait_replayed().await;

    // Pipelining: the statements are sent before the first is answered, and so overlap on one connection.
    let conn = reader(&router).get().await.expect("a lease");
    assert!(REPLICAS.contains(&conn.node().name()), "{:?}", conn.node());
    let pooled: &AsyncPgConnection = &conn;
    let (one, two, three) = tokio::try_join!(
        texts.load::<String>(&mut &*pooled),
        note::table.count().get_result::<i64>(&mut &*pooled),
        select(sql::<Integer>("pg_backend_pid()")).get_result::<i32>(&mut &*pooled),
    )
    .expect("all three");
    assert_eq!((one.len(), two), (2, 2));
    assert!(three > 0);
    drop(conn);
    for node in [PRIMARY, "pg2", "pg3"] {
        eventually(PATIENCE, "it is given back", async || {
            let node = router.node(node);
            node.in_flight == 0 && node.read_pool.open == node.read_pool.idle
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lease_meets_reaches_the_breaker_though_diesel_hides_it() {
    let cluster = TestCluster::start().await;
    let mut config = cluster.config();
    config.breaker.failures = 1;
    config.breaker.first_open = Duration::from_secs(60);
    config.breaker.longest_open = Duration::from_secs(60);
    let router = router::<Diesel>(config).await;

    let mut conn = reader_on(&router, "pg2").await.get().await.expect("a lease");
    let sleeping = tokio::spawn(async move { sleep(&mut conn, 600.0).await });
    terminate_sleepers(&cluster, "pg2").await;
    let error = sleeping.await.expect("no panic").expect_err("its session is over");
    assert!(
        matches!(error, DieselError::DatabaseError(DatabaseErrorKind::Unknown, _)),
        "Diesel does not say what ended it: {error:?}"
    );
    assert_eq!(router.node("pg2").breaker, "open");
    // A statement's own error on a lease opens nothing.
    let mut conn = reader_on(&router, "pg3").await.get().await.expect("a lease");
    sql_query("SELECT 1 / 0").execute(&mut conn).await.expect_err("division by zero");
    drop(conn);
    assert_eq!(router.node("pg3").breaker, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_dropped_in_its_middle_leaves_nothing_behind() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { write_pool_size: 1, ..cluster.config() };
    let router = router::<Diesel>(config).await;

    let setting = async || {
        let work_mem = sql::<Text>("current_setting('work_mem') || (now() = statement_timestamp())");
        writer(&router).run(async |conn| select(work_mem).get_result::<String>(conn).await).await
    };
    let clean = setting().await.expect("a setting");
    let locked = cluster.database(PRIMARY, Login::Superuser).await;
    locked.run("BEGIN; LOCK TABLE note").await.expect("the lock");
    for patience in [0, 1, 5, 20, 100] {
        let conn = writer(&router).get().await.expect("a lease");
        let pooled: &AsyncPgConnection = &conn;
        let pipeline = async {
            let (mut first, mut second, mut third) = (pooled, pooled, pooled);
            tokio::try_join!(
                sql_query("SELECT set_config('work_mem', '1MB', false)").execute(&mut first),
                schema::insert("pipeline", "undone").execute(&mut second),
                sql_query("SELECT set_config('work_mem', '2MB', false)").execute(&mut third),
            )
        };
        let dropped = tokio::time::timeout(Duration::from_millis(patience), pipeline).await;
        assert!(dropped.is_err(), "the lock holds it up: {dropped:?}");
        drop(conn);
        assert_eq!(setting().await.expect("a setting"), clean, "after {patience} ms");
    }
    eventually(PATIENCE, "none of it is left on the server", async || {
        cluster.app_processes(PRIMARY, "state <> 'idle'").await == 0
    })
    .await;
    locked.run("COMMIT").await.expect("the lock's end");
    assert_eq!(cluster.notes_by(PRIMARY, "pipeline").await, 0);
}
