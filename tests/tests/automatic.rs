//! The handle that tells reads from writes by their text, on real servers.

use routing_axum::{Db, RoutingLayer};
use routing_core::sql::Classifier;
use routing_core::{AutomaticBackend as _, Consistency, Router, Session};
use routing_seaorm::{AutomaticHandle, SeaOrm, SeaOrmOptions};
use routing_tests::note::entity::{self as note, Column, Entity};
use routing_tests::{NAME, PRIMARY, REPLICAS, TestCluster, ready};
use sea_orm::{
    AccessMode, ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, EntityTrait as _,
    IsolationLevel, PaginatorTrait as _, QueryFilter as _, Statement, StreamTrait as _,
    TransactionSession as _, TransactionTrait as _,
};

fn request(router: &Router<SeaOrm>) -> AutomaticHandle {
    SeaOrm::automatic(router.routed(Session::new(), Consistency::Session))
}

/// The first column of the only row.
async fn text(db: &impl ConnectionTrait, sql: &str) -> Result<String, DbErr> {
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.expect("one row").try_get_by_index(0)
}

fn is_replica(name: &str) -> bool {
    REPLICAS.contains(&name)
}

/// A handler as it was written for a plain connection.
async fn add_and_count(db: &impl ConnectionTrait, author: &str) -> Result<u64, DbErr> {
    note::new(author, "one").insert(db).await?;
    Entity::find().filter(Column::Author.eq(author)).count(db).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_handler_reads_on_replicas_and_writes_on_the_primary() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    assert!(is_replica(&text(&request(&router), NAME).await.expect("a read")));
    // INSERT … RETURNING travels through a query, and the reads after it see what it wrote.
    for number in 0..20 {
        let db = request(&router);
        let author = format!("author {number}");
        assert_eq!(add_and_count(&db, &author).await.expect("a write and a read"), 1);
        assert_eq!(text(&db, NAME).await.expect("a read"), PRIMARY, "it follows the write");
    }
    let returning =
        "WITH gone AS (DELETE FROM note WHERE author = 'author 1' RETURNING text) SELECT text FROM gone";
    assert_eq!(text(&request(&router), returning).await.expect("a write in a query"), "one");
    let locked = "SELECT author FROM note WHERE author = 'author 2' FOR UPDATE";
    assert_eq!(text(&request(&router), locked).await.expect("a lock"), "author 2");
    let changed = request(&router).execute_unprepared("UPDATE note SET text = 'two'").await.expect("a write");
    assert_eq!(changed.rows_affected(), 19);
    let sql = Statement::from_string(
        DbBackend::Postgres,
        "INSERT INTO note (author, text) VALUES ('s', 't') RETURNING id",
    );
    drop(request(&router).stream_raw(sql).await.expect("a stream of what was written"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_a_read_runs_on_the_primary_and_goes_there_at_once_afterwards() {
    let cluster = TestCluster::start().await;
    let app = "CREATE FUNCTION take(what text) RETURNS text LANGUAGE sql AS
               $$ INSERT INTO note (author, text) VALUES (what, '') RETURNING author $$";
    cluster.database(PRIMARY, routing_cluster::Login::Application).await.run(app).await.expect("a function");
    cluster.wait_replayed().await;
    let router = cluster.router::<SeaOrm>().await;

    let misrouted = "SELECT take('first')";
    assert!(!router.misrouted().knows(misrouted));
    assert_eq!(text(&request(&router), misrouted).await.expect("it is run on the primary"), "first");
    assert!(router.misrouted().knows("select take( 'another' )"));
    let before = refused_on_replicas(&cluster).await;
    let db = request(&router);
    assert_eq!(text(&db, "SELECT take('second')").await.expect("it goes there at once"), "second");
    assert!(db.routed().session().wrote());
    assert_eq!(refused_on_replicas(&cluster).await, before, "no standby was asked again");
    assert_eq!(cluster.notes_by(PRIMARY, "first").await, 1, "it ran once");
}

/// How many transactions of the application the replicas have rolled back.
async fn refused_on_replicas(cluster: &TestCluster) -> i64 {
    let mut count = 0;
    for replica in REPLICAS {
        let sql = "SELECT xact_rollback FROM pg_stat_database WHERE datname = 'app'";
        count += cluster.value::<i64>(replica, sql).await;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_run_on_the_primary_unless_they_only_read() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    let transaction = request(&router).begin().await.expect("begin");
    assert_eq!(text(&transaction, NAME).await.expect("a read"), PRIMARY);
    note::new("ada", "one").insert(&transaction).await.expect("a write");
    transaction.commit().await.expect("commit");

    let db = request(&router);
    let reading = db.begin_with_config(None, Some(AccessMode::ReadOnly)).await.expect("begin");
    assert!(is_replica(&text(&reading, NAME).await.expect("a read")));
    reading.commit().await.expect("commit");
    note::new("ada", "two").insert(&db).await.expect("a write");
    let after = db.begin_with_config(None, Some(AccessMode::ReadOnly)).await.expect("begin");
    assert_eq!(text(&after, NAME).await.expect("a read"), PRIMARY, "it follows the write");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_takes_it_as_one_argument() {
    async fn handler(Db(db): Db<SeaOrm>) -> String {
        add_and_count(&db, "ada").await.expect("a write and a read").to_string()
    }
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;
    let app = axum::Router::new()
        .route("/", axum::routing::post(handler))
        .layer(RoutingLayer::new())
        .with_state(router);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    let client = reqwest::Client::new();
    for expected in ["1", "2"] {
        let response = client.post(format!("http://{address}/")).send().await.expect("an answer");
        assert!(response.headers().contains_key("x-db-session"));
        assert_eq!(response.text().await.expect("a text"), expected);
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_plan_a_migration_has_spoiled_is_not_taken_for_a_write_from_then_on() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;
    let sql = "SELECT * FROM note WHERE author = 'ada'";
    let statement = || Statement::from_string(DbBackend::Postgres, sql);
    // The primary reads, as it does after a write, and prepares the statement on each connection that is open.
    let db = request(&router).with(Consistency::Strong);
    db.query_all_raw(statement()).await.expect("a read");
    let app = cluster.database(PRIMARY, routing_cluster::Login::Application).await;
    app.run("ALTER TABLE note ADD COLUMN later int").await.expect("a migration");
    db.query_all_raw(statement()).await.expect("a read after the migration");
    assert!(!router.misrouted().knows(sql), "it would go to the primary for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_locks_goes_to_the_primary_once_the_application_says_so() {
    let cluster = TestCluster::start().await;
    let app = "CREATE FUNCTION guard() RETURNS text LANGUAGE sql AS
               $$ SELECT pg_advisory_xact_lock(7); SELECT current_setting('cluster_name') $$";
    cluster.database(PRIMARY, routing_cluster::Login::Application).await.run(app).await.expect("a function");
    cluster.wait_replayed().await;

    // A standby takes the lock without a word, where it protects nothing.
    let unaware = cluster.router::<SeaOrm>().await;
    assert!(is_replica(&text(&request(&unaware), "SELECT guard()").await.expect("a lock on a standby")));

    let classifier = Classifier::default().writing(["guard"]);
    let options = SeaOrmOptions { classifier, ..SeaOrmOptions::default() };
    let told = Router::<SeaOrm>::start(cluster.config(), options).expect("a valid configuration");
    ready(&told).await;
    assert_eq!(text(&request(&told), "SELECT guard()").await.expect("a lock on the primary"), PRIMARY);
    assert!(is_replica(&text(&request(&told), NAME).await.expect("a read")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serializable_transaction_that_only_reads_runs_where_it_can() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;
    for (isolation, on_replica) in [
        (IsolationLevel::ReadCommitted, true),
        (IsolationLevel::RepeatableRead, true),
        // No standby can.
        (IsolationLevel::Serializable, false),
    ] {
        let db = request(&router);
        let transaction =
            db.begin_with_config(Some(isolation), Some(AccessMode::ReadOnly)).await.expect("begin");
        let name = text(&transaction, NAME).await.expect("a read");
        assert_eq!(is_replica(&name), on_replica, "{isolation:?} ran on {name}");
        let write = "INSERT INTO note (author, text) VALUES ('a', 'b') RETURNING text";
        let refused = text(&transaction, write).await.expect_err("it only reads");
        assert!(refused.to_string().contains("read-only transaction"), "{refused}");
        transaction.rollback().await.expect("rollback");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_follow_a_write_whatever_they_may_miss_otherwise() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;
    let db = request(&router).with(Consistency::Eventual);
    assert!(is_replica(&text(&db, NAME).await.expect("a read")));
    note::new("ada", "one").insert(&db).await.expect("a write");
    assert_eq!(text(&db, NAME).await.expect("a read"), PRIMARY);

    let db = request(&router).with(Consistency::Eventual);
    note::new("ada", "two").insert(&db).await.expect("a write");
    let reading = db.begin_with_config(None, Some(AccessMode::ReadOnly)).await.expect("begin");
    assert_eq!(text(&reading, NAME).await.expect("a read"), PRIMARY);
    reading.commit().await.expect("commit");
}
