//! Ordinary SeaORM code on the handles.

use futures_util::TryStreamExt as _;
use routing_core::Router;
use routing_seaorm::SeaOrm;
use routing_tests::note::{self, Column, Entity};
use routing_tests::{NodeView as _, PRIMARY, REPLICAS, TestCluster, reader, served_by, sqlstate, writer};
use sea_orm::{
    AccessMode, ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait as _, DbBackend, DbErr,
    EntityTrait as _, IntoActiveModel as _, ModelTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, Set, Statement, TransactionError, TransactionSession as _, TransactionTrait as _,
};

const READ_ONLY_TRANSACTION: &str = "25006";

fn rolled_back() -> DbErr {
    DbErr::Custom("the closure wants a rollback".to_owned())
}

async fn texts(router: &Router<SeaOrm>, author: &str) -> Vec<String> {
    let found = Entity::find().filter(Column::Author.eq(author)).order_by_asc(Column::Id);
    let notes = found.all(&writer(router)).await.expect("the primary's notes");
    notes.into_iter().map(|note| note.text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_writes_and_reads_work_unchanged() {
    let cluster = TestCluster::start().await;
    let router = cluster.router().await;
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
    let router = cluster.router().await;
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
    let router = cluster.router().await;

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
    let router = cluster.router().await;

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
        assert_eq!(sqlstate(&error).as_deref(), Some(READ_ONLY_TRANSACTION), "{error}");
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
    let router = cluster.router().await;
    let refused = |error: DbErr| {
        assert_eq!(sqlstate(&error).as_deref(), Some(READ_ONLY_TRANSACTION), "{error}");
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
