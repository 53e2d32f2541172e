//! What only SeaORM has: its own code on the handles, transactions that are handed out, streams on every handle.

use futures_util::TryStreamExt as _;
use routing_core::{Router, RouterConfig};
use routing_seaorm::SeaOrm;
use routing_tests::note::entity::{self as note, Column, Entity};
use routing_tests::{
    NAME, NODES, NodeView as _, Orm as _, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, reader,
    router, writer,
};
use sea_orm::{
    AccessMode, ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, EntityTrait as _,
    IntoActiveModel as _, ModelTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _, Set,
    Statement, StreamTrait as _, TransactionError, TransactionSession as _, TransactionTrait as _,
};
use tokio::time::timeout;

const READ_ONLY_TRANSACTION: &str = "25006";

fn rolled_back() -> DbErr {
    DbErr::Custom("the closure wants a rollback".to_owned())
}

/// The name of the server that answers.
async fn served_by(db: &impl ConnectionTrait) -> Result<String, DbErr> {
    text(db, NAME).await
}

/// The first column of the only row.
async fn text(db: &impl ConnectionTrait, sql: &str) -> Result<String, DbErr> {
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.expect("one row").try_get_by_index(0)
}

async fn nothing_runs(cluster: &TestCluster) {
    for node in NODES {
        eventually(PATIENCE, "no process of the application is at work or in a transaction", async || {
            cluster.app_processes(node, "state <> 'idle'").await == 0
        })
        .await;
    }
}

async fn texts(router: &Router<SeaOrm>, author: &str) -> Vec<String> {
    let found = Entity::find().filter(Column::Author.eq(author)).order_by_asc(Column::Id);
    let notes = found.all(&writer(router)).await.expect("the primary's notes");
    notes.into_iter().map(|note| note.text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_writes_and_reads_work_unchanged() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;
    let db = writer(&router);

    let first = note::new("ada", "one").insert(&db).await.expect("insert");
    let saved = note::new("ada", "two").save(&db).await.expect("save inserts what has no key");
    let many = (3..=30).map(|number| note::new("ada", &format!("number {number}")));
    Entity::insert_many(many).exec(&db).await.expect("insert_many");
    let mut changed = first.clone().into_active_model();
    changed.text = Set("one, changed".to_owned());
    let changed = changed.update(&db).await.expect("update");
    assert_eq!((changed.id, changed.text.as_str()), (first.id, "one, changed"));
    let mut resaved = saved;
    resaved.text = Set("two, changed".to_owned());
    resaved.save(&db).await.expect("save updates what has a key");
    let doomed = note::new("bob", "gone").insert(&db).await.expect("insert");
    doomed.delete(&db).await.expect("delete");
    let insert = "INSERT INTO note (author, text) VALUES ('raw', 'one'), ('raw', 'two')";
    let inserted = db.execute_unprepared(insert).await.expect("raw SQL");
    assert_eq!(inserted.rows_affected(), 2);
    cluster.wait_replayed().await;

    let db = reader(&router);
    let found = Entity::find_by_id(first.id).one(&db).await.expect("find");
    assert_eq!(found.map(|note| note.text), Some("one, changed".to_owned()));
    let by_ada = || Entity::find().filter(Column::Author.eq("ada")).order_by_asc(Column::Id);
    assert_eq!(by_ada().all(&db).await.expect("filter").len(), 30);
    assert_eq!(by_ada().count(&db).await.expect("count"), 30);
    assert_eq!(Entity::find().filter(Column::Author.eq("bob")).count(&db).await.expect("count"), 0);
    let pages = by_ada().paginate(&db, 12);
    assert_eq!(pages.num_items().await.expect("num_items"), 30);
    assert_eq!(pages.num_pages().await.expect("num_pages"), 3);
    let last = pages.fetch_page(2).await.expect("fetch_page");
    assert_eq!(last.iter().map(|note| note.text.as_str()).next_back(), Some("number 30"));
    let streamed: Vec<note::Model> =
        by_ada().stream(&db).await.expect("stream").try_collect().await.expect("all rows");
    assert_eq!(streamed, by_ada().all(&db).await.expect("all"));
    let sql = "SELECT text FROM note WHERE author = $1 ORDER BY id";
    let raw = Statement::from_sql_and_values(DbBackend::Postgres, sql, ["raw".into()]);
    let rows = db.query_all_raw(raw).await.expect("raw SQL");
    let raw: Vec<String> = rows.iter().map(|row| row.try_get("", "text").expect("a text")).collect();
    assert_eq!(raw, ["one", "two"]);
    let served = db.routed().session().last_decision().expect("a decision").node;
    assert!(REPLICAS.contains(&&*served), "{served} served the reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_transaction_keeps_all_or_nothing() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;
    let db = writer(&router);

    db.transaction::<_, _, DbErr>(|transaction| {
        Box::pin(async move {
            assert_eq!(served_by(transaction).await?, PRIMARY);
            note::new("boxed", "kept").insert(transaction).await.map(drop)
        })
    })
    .await
    .expect("a boxed closure commits");
    let outcome = db
        .transaction::<_, (), DbErr>(|transaction| {
            Box::pin(async move {
                note::new("boxed", "undone").insert(transaction).await?;
                Err(rolled_back())
            })
        })
        .await;
    assert!(matches!(outcome, Err(TransactionError::Transaction(DbErr::Custom(_)))), "{outcome:?}");
    assert_eq!(texts(&router, "boxed").await, ["kept"]);

    let text = String::from("kept");
    db.transaction_async(async |transaction| note::new("async", &text).insert(transaction).await)
        .await
        .expect("an async closure commits");
    let outcome = db
        .transaction_async(async |transaction| {
            note::new("async", "undone").insert(transaction).await?;
            Err::<(), _>(rolled_back())
        })
        .await;
    assert!(outcome.is_err());
    assert_eq!(texts(&router, "async").await, ["kept"]);

    let transaction = db.begin().await.expect("begin");
    note::new("manual", "kept").insert(&transaction).await.expect("insert");
    assert_eq!(texts(&router, "manual").await, [""; 0], "nobody else sees it before the commit");
    transaction.commit().await.expect("commit");
    let transaction = db.begin().await.expect("begin");
    note::new("manual", "undone").insert(&transaction).await.expect("insert");
    transaction.rollback().await.expect("rollback");
    let transaction = db.begin().await.expect("begin");
    note::new("manual", "dropped").insert(&transaction).await.expect("insert");
    drop(transaction);
    assert_eq!(texts(&router, "manual").await, ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_begin_is_a_savepoint_that_undoes_only_itself() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    let outer = writer(&router).begin().await.expect("begin");
    note::new("nested", "outer").insert(&outer).await.expect("insert");
    let inner = outer.begin().await.expect("a savepoint");
    note::new("nested", "rolled back").insert(&inner).await.expect("insert");
    inner.rollback().await.expect("rollback of the savepoint");
    let inner = outer.begin().await.expect("a savepoint");
    note::new("nested", "dropped").insert(&inner).await.expect("insert");
    drop(inner);
    let inner = outer.begin().await.expect("a savepoint");
    note::new("nested", "inner").insert(&inner).await.expect("insert");
    let innermost = inner.begin().await.expect("a savepoint in a savepoint");
    innermost.execute_unprepared("SELECT 1 / 0").await.expect_err("a failure breaks only the innermost");
    innermost.rollback().await.expect("rollback");
    inner.commit().await.expect("release of the savepoint");
    let outcome = outer
        .transaction::<_, (), DbErr>(|inner| {
            Box::pin(async move {
                note::new("nested", "undone").insert(inner).await?;
                Err(rolled_back())
            })
        })
        .await;
    assert!(outcome.is_err());
    note::new("nested", "last").insert(&outer).await.expect("the outer transaction goes on");
    outer.commit().await.expect("commit");
    assert_eq!(texts(&router, "nested").await, ["outer", "inner", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_transaction_is_read_only_on_one_replica() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    for _ in 0..10 {
        let transaction = reader(&router).begin().await.expect("begin");
        let node = served_by(&transaction).await.expect("a read");
        assert!(REPLICAS.contains(&node.as_str()), "{node}");
        let count = "SELECT current_setting('transaction_read_only') || pg_backend_pid()";
        let statement = || Statement::from_string(DbBackend::Postgres, count);
        let mut seen = Vec::new();
        for _ in 0..5 {
            let row = transaction.query_one_raw(statement()).await.expect("a read").expect("a row");
            seen.push(row.try_get_by_index::<String>(0).expect("a text"));
        }
        assert!(seen.iter().all(|one| one.starts_with("on") && *one == seen[0]), "one process: {seen:?}");
        let error = note::new("reader", "refused").insert(&transaction).await.expect_err("read-only");
        assert_eq!(SeaOrm::sqlstate(&error).as_deref(), Some(READ_ONLY_TRANSACTION), "{error}");
    }
    let found = reader(&router)
        .transaction_async(async |transaction| Entity::find().count(transaction).await)
        .await
        .expect("an async closure");
    assert_eq!(found, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_a_read_handle_is_refused_wherever_it_runs() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;
    let refused = |error: DbErr| {
        assert_eq!(SeaOrm::sqlstate(&error).as_deref(), Some(READ_ONLY_TRANSACTION), "{error}");
    };

    for (drained, server) in [(false, "a replica"), (true, "the primary")] {
        for replica in REPLICAS {
            router.drain(replica, drained);
        }
        let node = served_by(&reader(&router)).await.expect("a read");
        assert_eq!(node == PRIMARY, drained, "{server} serves");

        let db = reader(&router);
        refused(note::new("reader", "insert").insert(&db).await.expect_err(server));
        let sql = "INSERT INTO note (author, text) VALUES ('reader', 'raw')";
        refused(db.execute_unprepared(sql).await.expect_err(server));
        let cte = format!("WITH written AS ({sql} RETURNING id) SELECT id FROM written");
        let statement = Statement::from_string(DbBackend::Postgres, cte);
        refused(db.query_all_raw(statement).await.expect_err(server));

        let transaction = db.begin().await.expect("begin");
        refused(note::new("reader", "begun").insert(&transaction).await.expect_err(server));
        drop(transaction);
        // Asking for READ WRITE does not help.
        let asked = db.begin_with_config(None, Some(AccessMode::ReadWrite)).await.expect("begin");
        assert_eq!(served_by(&asked).await.expect("a read") == PRIMARY, drained, "{server} serves");
        refused(note::new("reader", "asked").insert(&asked).await.expect_err(server));
        drop(asked);
        let outcome = db
            .transaction_with_config::<_, _, DbErr>(
                |transaction| {
                    Box::pin(async move { note::new("reader", "config").insert(transaction).await })
                },
                None,
                Some(AccessMode::ReadWrite),
            )
            .await;
        match outcome {
            Err(TransactionError::Transaction(error)) => refused(error),
            other => panic!("{server}: {other:?}"),
        }
    }
    assert_eq!(cluster.notes_by(PRIMARY, "reader").await, 0, "nothing was written");
    for replica in REPLICAS {
        router.drain(replica, false);
    }
    assert_ne!(served_by(&reader(&router)).await.expect("a read"), PRIMARY);
}

#[tokio::test(flavor = "multi_thread")]
async fn savepoints_dropped_from_the_outermost_undo_all_of_theirs_and_nothing_else() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    let transaction = writer(&router).begin().await.expect("begin");
    note::new("nested", "first").insert(&transaction).await.expect("insert");
    let outer = transaction.begin().await.expect("a savepoint");
    note::new("nested", "outer").insert(&outer).await.expect("insert");
    let inner = outer.begin().await.expect("a savepoint in a savepoint");
    note::new("nested", "inner").insert(&inner).await.expect("insert");
    drop(outer);
    drop(inner);
    note::new("nested", "last").insert(&transaction).await.expect("the transaction goes on");
    let again = transaction.begin().await.expect("a savepoint with a number that was used");
    note::new("nested", "again").insert(&again).await.expect("insert");
    again.commit().await.expect("release");
    transaction.commit().await.expect("commit");
    assert_eq!(texts(&router, "nested").await, ["first", "last", "again"]);
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_after_a_failed_statement_is_an_error() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    let transaction = writer(&router).begin().await.expect("begin");
    note::new("failed", "undone").insert(&transaction).await.expect("insert");
    transaction.execute_unprepared("SELECT 1 / 0").await.expect_err("division by zero");
    let error = transaction.commit().await.expect_err("the server rolls back");
    assert!(!SeaOrm::is_commit_unknown(&error), "{error}");
    let outcome = writer(&router)
        .transaction_async(async |transaction| {
            note::new("failed", "undone").insert(transaction).await?;
            let _ = transaction.execute_unprepared("SELECT 1 / 0").await;
            Ok::<_, DbErr>(())
        })
        .await;
    assert!(matches!(outcome, Err(TransactionError::Connection(_))), "{outcome:?}");
    assert_eq!(texts(&router, "failed").await, [""; 0]);
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_lost_before_commit_is_no_unknown_outcome() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let router = router::<SeaOrm>(cluster.config_through(&proxies)).await;

    let transaction = writer(&router).begin().await.expect("begin");
    note::new("lost", "before").insert(&transaction).await.expect("an insert");
    proxies.get(PRIMARY).cut();
    let error = transaction.execute_unprepared("SELECT 1").await.expect_err("the connection is lost");
    assert!(!SeaOrm::is_commit_unknown(&error), "nothing was committed: {error}");
    let error = transaction.commit().await.expect_err("nothing to commit");
    assert!(!SeaOrm::is_commit_unknown(&error), "nothing was committed: {error}");
    nothing_runs(&cluster).await;
    assert_eq!(cluster.notes_by(PRIMARY, "lost").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_is_rolled_back_and_its_connection_used_again() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { write_pool_size: 1, ..cluster.config() };
    let router = router::<SeaOrm>(config).await;

    let session = "SELECT pg_backend_pid() || current_setting('work_mem') || \
         (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
    let before = text(&writer(&router), session).await.expect("a statement");
    for _ in 0..5 {
        let transaction = writer(&router).begin().await.expect("begin");
        transaction.execute_unprepared("SET work_mem = '1MB'").await.expect("SET");
        transaction.execute_unprepared("SELECT pg_advisory_lock(3)").await.expect("a lock");
        note::new("abandoned", "undone").insert(&transaction).await.expect("insert");
        let savepoint = transaction.begin().await.expect("a savepoint");
        note::new("abandoned", "undone").insert(&savepoint).await.expect("insert");
        drop(transaction);
        drop(savepoint);
        assert_eq!(text(&writer(&router), session).await.expect("a statement"), before);
        let transaction = reader(&router).begin().await.expect("begin");
        served_by(&transaction).await.expect("a read");
    }
    nothing_runs(&cluster).await;
    assert_eq!(cluster.notes_by(PRIMARY, "abandoned").await, 0);
}

/// Rows that never end.
fn endless() -> Statement {
    Statement::from_string(DbBackend::Postgres, "SELECT generate_series(1, 1000000000) AS number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_beside_an_open_stream_of_its_transaction_fails_at_once() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    for transaction in
        [writer(&router).begin().await.expect("begin"), reader(&router).begin().await.expect("begin")]
    {
        let few = "SELECT generate_series(1, 3) AS number";
        let mut rows =
            transaction.stream_raw(Statement::from_string(DbBackend::Postgres, few)).await.expect("a stream");
        rows.try_next().await.expect("a row").expect("a row");
        let beside = timeout(PATIENCE, served_by(&transaction)).await.expect("it does not hang");
        let error = beside.expect_err("the rows come first");
        assert!(error.to_string().contains("stream"), "{error}");
        timeout(PATIENCE, transaction.begin()).await.expect("no hanging").expect_err("no savepoint either");
        while rows.try_next().await.expect("a row").is_some() {}
        drop(rows);
        served_by(&transaction).await.expect("afterwards statements run again");
        transaction.commit().await.expect("commit");
    }

    // A stream that is dropped in its middle takes the transaction along.
    let transaction = writer(&router).begin().await.expect("begin");
    let mut rows = transaction.stream_raw(endless()).await.expect("a stream");
    rows.try_next().await.expect("a row").expect("a row");
    drop(rows);
    let lost = timeout(PATIENCE, served_by(&transaction)).await.expect("it does not hang");
    lost.expect_err("the connection is in the middle of an answer");
    let error = timeout(PATIENCE, transaction.commit()).await.expect("it does not hang");
    assert!(!SeaOrm::is_commit_unknown(&error.expect_err("nothing to commit")));
    nothing_runs(&cluster).await;
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_a_write_handle_dropped_before_its_end_ends_on_the_server() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    let db = writer(&router);
    let mut rows = db.stream_raw(endless()).await.expect("rows");
    for _ in 0..10 {
        rows.try_next().await.expect("a row").expect("a row");
    }
    drop(rows);
    nothing_runs(&cluster).await;
    eventually(PATIENCE, "nothing is in flight", async || router.node(PRIMARY).in_flight == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_with_too_many_parameters_is_refused_and_says_nothing_about_the_node() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<SeaOrm>().await;

    // Two for each note.
    let notes = || (0..33_000).map(|number| note::new("many", &number.to_string()));
    let many = || {
        let places: Vec<String> = (1..=65_536).map(|number| format!("(${number}::int)")).collect();
        let sql = format!("SELECT count(*) FROM (VALUES {}) AS many", places.join(", "));
        Statement::from_sql_and_values(DbBackend::Postgres, sql, (0..65_536).map(Into::into))
    };
    for _ in 0..8 {
        let error = Entity::insert_many(notes()).exec(&writer(&router)).await.expect_err("too many");
        assert!(!SeaOrm::is_commit_unknown(&error), "nothing was sent");
        assert!(error.to_string().contains("parameters"), "it says what is wrong");
        reader(&router).query_all_raw(many()).await.expect_err("too many");
        reader(&router).stream_raw(many()).await.expect_err("too many");
    }
    for node in NODES {
        assert_eq!(router.node(node).breaker, "closed", "{node}");
    }
    let transaction = writer(&router).begin().await.expect("begin");
    note::new("many", "kept").insert(&transaction).await.expect("insert");
    Entity::insert_many(notes()).exec(&transaction).await.expect_err("too many");
    transaction.commit().await.expect("the server knows nothing of it");
    assert_eq!(texts(&router, "many").await, ["kept"]);
}
