//! What an error says: about the statement, about the node, and about what became of a write.

use routing_cluster::Login;
use routing_tests::{
    Handle as _, NODES, NodeView as _, Orm, PATIENCE, PRIMARY, TestCluster, eventually, reader, reader_on,
    slowly, writer,
};

routing_tests::on_both! {
    an_error_that_only_bears_a_connection_failures_code_says_nothing_about_the_node,
    a_read_whose_server_process_is_terminated_is_answered_by_another_node,
    a_deadlock_on_the_primary_is_the_statements_own_error,
}

async fn an_error_that_only_bears_a_connection_failures_code_says_nothing_about_the_node<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    // A sequence counts the runs: it is not rolled back.
    cluster.sql(PRIMARY, "CREATE SEQUENCE runs; GRANT ALL ON runs TO app").await;
    let mut runs = 0;
    for code in ["08006", "08001", "57P01", "57P03", "53300"] {
        for _ in 0..10 {
            let counted = format!(
                "DO $$ BEGIN PERFORM nextval('runs'); RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END $$"
            );
            let error = writer(&router).execute(&counted).await.expect_err(code);
            assert!(error.to_string().contains("on purpose"), "{code} of a write: {error}");
            assert!(!O::is_commit_unknown(&error), "the server answered: {error}");
            assert!(O::route_error(&error).is_none(), "{error}");
            runs += 1;

            let raised = format!("DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END $$");
            let error = reader(&router).execute(&raised).await.expect_err(code);
            assert!(error.to_string().contains("on purpose"), "{code} of a read: {error}");
        }
    }
    assert_eq!(
        cluster.value::<i64>(PRIMARY, "SELECT last_value FROM runs").await,
        runs,
        "each write ran once"
    );
    for node in NODES {
        assert_eq!(router.node(node).breaker, "closed", "{node}");
        assert!(router.serves(node), "{node}");
    }
}

async fn a_read_whose_server_process_is_terminated_is_answered_by_another_node<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    for (victim, other) in [("pg2", "pg3"), ("pg3", "pg2")] {
        let db = reader_on(&router, victim).await;
        let reading = tokio::spawn(async move { db.text(&slowly(1.0)).await });
        let asleep = "wait_event = 'PgSleep'";
        eventually(PATIENCE, "it runs", async || cluster.app_processes(victim, asleep).await == 1).await;
        let terminate = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {asleep}");
        cluster.sql(victim, &terminate).await;
        let answered = reading.await.expect("no panic").expect("another node answers");
        assert_eq!(answered, other);
    }
}

async fn a_deadlock_on_the_primary_is_the_statements_own_error<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    for text in ["one", "two"] {
        writer(&router).insert_note("deadlock", text).await.expect("a note");
    }

    // The other session waits as long as it takes, so that the router's is the one to find the deadlock.
    let other = cluster.database(PRIMARY, Login::Superuser).await;
    other.run("SET deadlock_timeout = '1h'; BEGIN").await.expect("a transaction");
    other.run("UPDATE note SET text = 'other' WHERE id = 2").await.expect("the second note's lock");
    let gate = cluster.database(PRIMARY, Login::Superuser).await;
    gate.run("SELECT pg_advisory_lock(9)").await.expect("the gate's lock");
    let writing = tokio::spawn({
        let db = writer(&router);
        let sql = "DO $$ BEGIN UPDATE note SET text = 'routed' WHERE id = 1; PERFORM pg_advisory_xact_lock(9); \
             UPDATE note SET text = 'routed' WHERE id = 2; END $$";
        async move { db.execute(sql).await }
    });
    let at_gate = "wait_event = 'advisory'";
    eventually(PATIENCE, "the write has the first lock", async || {
        cluster.app_processes(PRIMARY, at_gate).await == 1
    })
    .await;
    let crossing =
        tokio::spawn(async move { other.run("UPDATE note SET text = 'other' WHERE id = 1; COMMIT").await });
    let blocked = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'transactionid'";
    eventually(PATIENCE, "the other waits for the write", async || cluster.value(PRIMARY, blocked).await)
        .await;
    drop(gate);
    let error = writing.await.expect("no panic").expect_err("one of them is the victim");
    assert!(error.to_string().contains("deadlock"), "{error}");
    assert!(!O::is_commit_unknown(&error), "the server rolled it back: {error}");
    assert!(O::route_error(&error).is_none(), "{error}");
    crossing.await.expect("no panic").expect("the other goes on");
    let routed: i64 = cluster.value(PRIMARY, "SELECT count(*) FROM note WHERE text = 'routed'").await;
    assert_eq!(routed, 0, "it was not run again");
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}
