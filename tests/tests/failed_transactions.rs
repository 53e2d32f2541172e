//! Transactions in which a statement failed, without their closure's taking notice.

use routing_core::Lease;
use routing_tests::{NodeView as _, Orm, PRIMARY, TestCluster};

routing_tests::on_both! {
    a_commit_after_a_failed_statement_is_an_error_and_commits_nothing,
    a_commit_after_a_failure_that_a_savepoint_undid_commits,
}

async fn a_commit_after_a_failed_statement_is_an_error_and_commits_nothing<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    // The closure overlooks that a statement failed. The server would answer COMMIT with a rollback, and no error.
    // Many times: the end of the failed statement's answer can arrive after its error.
    for _ in 0..100 {
        let outcome: Result<(), O::Failure> = router
            .run_write(async |lease: &mut Lease<O>| {
                O::insert_note_on(lease, "failed", "undone").await?;
                O::text_on(lease, "SELECT (1 / 0)::text").await.expect_err("division by zero");
                Ok(())
            })
            .await;
        let error = outcome.expect_err("nothing was committed");
        assert!(!O::is_commit_unknown(&error), "it is known that nothing was: {error}");
        assert!(O::route_error(&error).is_none(), "{error}");
    }
    assert_eq!(cluster.notes_by(PRIMARY, "failed").await, 0);
    assert_eq!(router.node(PRIMARY).breaker, "closed");
    assert_eq!(cluster.app_processes(PRIMARY, "state <> 'idle'").await, 0, "no transaction is left");
}

async fn a_commit_after_a_failure_that_a_savepoint_undid_commits<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;

    let outcome: Result<(), O::Failure> = router
        .run_write(async |lease: &mut Lease<O>| {
            O::insert_note_on(lease, "went back", "kept").await?;
            O::execute_on(lease, "SAVEPOINT before").await?;
            O::execute_on(lease, "SELECT 1 / 0").await.expect_err("division by zero");
            O::execute_on(lease, "ROLLBACK TO SAVEPOINT before").await
        })
        .await;
    let kept = cluster.notes_by(PRIMARY, "went back").await;
    assert_eq!((outcome.is_ok(), kept), (true, 1), "{outcome:?}");
    assert_eq!(router.node(PRIMARY).breaker, "closed");
    assert_eq!(cluster.app_processes(PRIMARY, "state <> 'idle'").await, 0, "no transaction is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_of_the_callers_own_saves_a_seaorm_transaction() {
    use sea_orm::{ConnectionTrait as _, TransactionSession as _, TransactionTrait as _};

    let cluster = TestCluster::start().await;
    let router = cluster.router::<routing_tests::SeaOrm>().await;
    let transaction = routing_tests::writer(&router).begin().await.expect("begin");
    for sql in ["INSERT INTO note (author, text) VALUES ('saved', 'kept')", "SAVEPOINT own"] {
        transaction.execute_unprepared(sql).await.expect(sql);
    }
    transaction.execute_unprepared("SELECT 1 / 0").await.expect_err("division by zero");
    transaction.execute_unprepared("ROLLBACK TO SAVEPOINT own").await.expect("back to before the failure");
    transaction.commit().await.expect("the server has nothing against it");
    assert_eq!(cluster.notes_by(PRIMARY, "saved").await, 1);
}
