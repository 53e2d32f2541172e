//! Transactions on either handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use routing_core::Lease;
use routing_tests::{
    Handle as _, NAME, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, TestCluster, eventually, reader,
    router, served_by, slowly, writer,
};

routing_tests::on_both! {
    a_write_transaction_keeps_all_or_nothing,
    a_nested_transaction_undoes_only_itself,
    a_read_transaction_is_read_only_in_one_session_of_one_replica,
    a_write_through_a_read_handle_is_refused_wherever_it_runs,
    a_transaction_that_the_network_ends_before_its_commit_runs_again_as_a_whole,
}

const READ_ONLY_TRANSACTION: &str = "25006";

fn insert(author: &str, text: &str) -> String {
    format!("INSERT INTO note (author, text) VALUES ('{author}', '{text}') RETURNING text")
}

async fn a_write_transaction_keeps_all_or_nothing<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    let db = writer(&router);

    let texts = db.transaction(&[NAME, &insert("whole", "kept")]).await.expect("it commits");
    assert_eq!(texts, [PRIMARY, "kept"]);
    db.undone(&[&insert("whole", "undone")]).await.expect("it rolls back");
    let failing = [&insert("whole", "undone"), "SELECT (1 / 0)::text", &insert("whole", "unreached")];
    let error = db.transaction(&failing).await.expect_err("division by zero");
    assert!(!O::is_commit_unknown(&error), "{error}");
    // Nobody else sees it before the commit.
    let inside = "SELECT count(*)::text FROM note WHERE author = 'whole'";
    let seen = [&*insert("whole", "undone"), inside];
    db.undone(&seen).await.expect("it rolls back");
    assert_eq!(db.text(inside).await.expect("a count"), "1");
    assert_eq!(cluster.notes_by(PRIMARY, "whole").await, 1);
    assert_eq!(router.node(PRIMARY).breaker, "closed");
    assert_eq!(cluster.app_processes(PRIMARY, "state <> 'idle'").await, 0, "no transaction is left");
}

async fn a_nested_transaction_undoes_only_itself<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    O::nested(&writer(&router), "nested").await.expect("it commits");
    let kept = "SELECT string_agg(text, ', ' ORDER BY id) FROM note WHERE author = 'nested'";
    assert_eq!(writer(&router).text(kept).await.expect("the notes"), "outer, inner");
}

async fn a_read_transaction_is_read_only_in_one_session_of_one_replica<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let session = "SELECT current_setting('transaction_read_only') || pg_backend_pid() || \
         current_setting('cluster_name')";
    for _ in 0..10 {
        let db = reader(&router);
        let seen = db.transaction(&[session, session, session]).await.expect("a transaction");
        let (first, node) = (&seen[0], db.last_decision().expect("a decision").node);
        assert!(REPLICAS.contains(&&*node) && first.ends_with(&*node), "{first} on {node}");
        assert!(first.starts_with("on") && seen.iter().all(|one| one == first), "{seen:?}");
        let error = db.transaction(&[&insert("reader", "refused")]).await.expect_err("read-only");
        assert_eq!(O::sqlstate(&error).as_deref(), Some(READ_ONLY_TRANSACTION), "{error}");
    }
}

async fn a_write_through_a_read_handle_is_refused_wherever_it_runs<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    let refused = |error: O::Failure| {
        assert_eq!(O::sqlstate(&error).as_deref(), Some(READ_ONLY_TRANSACTION), "{error}");
        assert!(!O::is_commit_unknown(&error), "{error}");
    };

    for (drained, server) in [(false, "a replica"), (true, "the primary")] {
        for replica in REPLICAS {
            router.drain(replica, drained);
        }
        let node = served_by(&reader(&router)).await.expect("a read");
        assert_eq!(node == PRIMARY, drained, "{server} serves");

        let db = reader(&router);
        refused(db.insert_note("reader", "insert").await.expect_err(server));
        let sql = insert("reader", "raw");
        refused(db.execute(&sql).await.expect_err(server));
        refused(
            db.text(&format!("WITH written AS ({sql}) SELECT text FROM written")).await.expect_err(server),
        );
        refused(db.transaction(&[&sql]).await.expect_err(server));
        let read_write = "SELECT set_config('transaction_read_only', 'off', true)";
        // A standby refuses to be asked; the primary would allow it before the first query.
        if !drained {
            db.transaction(&[read_write, &sql]).await.expect_err(server);
        }
    }
    assert_eq!(cluster.notes_by(PRIMARY, "reader").await, 0, "nothing was written");
    for replica in REPLICAS {
        router.drain(replica, false);
    }
    assert_ne!(served_by(&reader(&router)).await.expect("a read"), PRIMARY);
}

async fn a_transaction_that_the_network_ends_before_its_commit_runs_again_as_a_whole<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let router = router::<O>(cluster.config_through(&proxies)).await;

    let runs = Arc::<AtomicU32>::default();
    let running = tokio::spawn({
        let (router, runs) = (router.clone(), runs.clone());
        async move {
            router
                .run_write(async |lease: &mut Lease<O>| {
                    O::insert_note_on(lease, "again", "once").await?;
                    let pause = if runs.fetch_add(1, Relaxed) == 0 { 600.0 } else { 0.0 };
                    O::text_on(lease, &slowly(pause)).await
                })
                .await
        }
    });
    eventually(PATIENCE, "its last statement runs", async || {
        cluster.app_processes(PRIMARY, "wait_event = 'PgSleep'").await == 1
    })
    .await;
    proxies.get(PRIMARY).cut();
    let server: Result<String, O::Failure> = running.await.expect("no panic");
    assert_eq!(server.expect("it is repeated, since COMMIT was not sent"), PRIMARY);
    assert_eq!(runs.load(Relaxed), 2);
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    cluster.sql(PRIMARY, ended).await;
    assert_eq!(cluster.notes_by(PRIMARY, "again").await, 1, "the first run left nothing");
}
