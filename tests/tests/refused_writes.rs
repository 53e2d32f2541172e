//! Writes that the server refuses as read-only.

use routing_tests::{Handle as _, NodeView as _, Orm, PRIMARY, TestCluster, writer};

routing_tests::on_both! {
    a_first_statement_that_the_primary_refuses_as_read_only_is_run_again,
}

async fn a_first_statement_that_the_primary_refuses_as_read_only_is_run_again<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    // A sequence counts the runs: it is not rolled back. Every other run is refused.
    let refuse = "BEGIN IF nextval('runs') % 2 = 1 THEN \
         RAISE EXCEPTION 'in recovery' USING ERRCODE = '25006'; END IF;";
    let function = format!(
        "CREATE SEQUENCE runs; GRANT ALL ON runs TO app; \
         CREATE FUNCTION refused_once() RETURNS text LANGUAGE plpgsql AS $$ {refuse} RETURN 'ran'; END $$"
    );
    cluster.sql(PRIMARY, &function).await;
    for round in 0..15 {
        let db = writer(&router);
        let ran = db.execute(&format!("DO $$ {refuse} END $$")).await;
        ran.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let ran = db.text("SELECT refused_once()").await;
        assert_eq!(ran.unwrap_or_else(|error| panic!("round {round}: {error}")), "ran");
        // What succeeds earns the budget of what is run again.
        for _ in 0..20 {
            db.execute("SELECT 1").await.expect("a statement");
        }
    }
    assert_eq!(cluster.value::<i64>(PRIMARY, "SELECT last_value FROM runs").await, 60);
    assert_eq!(router.node(PRIMARY).breaker, "closed");
}
