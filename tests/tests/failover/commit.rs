//! COMMIT waits for a synchronous standby that never answers, and the wait is ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use routing_cluster::Login;
use routing_core::{Consistency, Lease, Router, Session};
use routing_tests::{Handle as _, Orm, PATIENCE, PRIMARY, TestCluster, eventually, router, writer};

routing_tests::on_both! {
    a_commit_whose_wait_for_a_standby_ends_is_unknown_and_runs_once,
}

/// How a write commits.
#[derive(Clone, Copy, Debug)]
enum Form {
    Statement,
    Transaction,
    Closure,
}

/// How its wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// An operator cancels it: the server then calls the commit a success.
    Cancelled,
    /// An operator ends the session.
    Terminated,
    /// The network loses the connection.
    Cut,
    /// The caller waits no longer.
    Abandoned,
}

async fn a_commit_whose_wait_for_a_standby_ends_is_unknown_and_runs_once<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let router = router::<O>(cluster.config_through(&proxies)).await;
    // A first write, so that what follows waits for nothing else.
    writer(&router).insert_note("next", "first").await.expect("a write");
    commits_wait(&cluster).await;
    for end in [End::Cancelled, End::Terminated, End::Cut, End::Abandoned] {
        for form in [Form::Statement, Form::Transaction, Form::Closure] {
            let (text, session, runs) = (format!("{end:?} {form:?}"), Session::new(), Arc::default());
            let committing =
                tokio::spawn(commit(router.clone(), form, text.clone(), session.clone(), Arc::clone(&runs)));
            // For some time: whoever ends it has seen it wait.
            let waits = "wait_event = 'SyncRep' AND clock_timestamp() - query_start > '0.2 s'";
            eventually(PATIENCE, "the commit waits", async || {
                cluster.app_processes(PRIMARY, waits).await == 1
            })
            .await;
            match end {
                End::Cancelled => end_waits(&cluster, "pg_cancel_backend").await,
                End::Terminated => end_waits(&cluster, "pg_terminate_backend").await,
                End::Cut => proxies.get(PRIMARY).cut(),
                End::Abandoned => committing.abort(),
            }
            match committing.await {
                Err(abandoned) => assert!(end == End::Abandoned && abandoned.is_cancelled(), "{abandoned}"),
                Ok(outcome) => {
                    let error = outcome.err().unwrap_or_else(|| panic!("{text}: it is called a success"));
                    assert!(
                        O::is_commit_unknown(&error) && O::route_error(&error).is_none(),
                        "{text}: {error}"
                    );
                    eprintln!("{text}: {error}");
                }
            }
            assert!(session.wrote(), "{text}: the client's next reads know of it");
            if end == End::Cut {
                end_waits(&cluster, "pg_terminate_backend").await;
            }
            eventually(PATIENCE, "nothing runs on the server", async || {
                cluster.app_processes(PRIMARY, "state <> 'idle'").await == 0
            })
            .await;
            assert_eq!(runs.load(Relaxed), 1, "{text}");
            let sql = format!("SELECT count(*) FROM note WHERE author = 'lost' AND text = '{text}'");
            let rows: i64 = cluster.value(PRIMARY, &sql).await;
            assert_eq!(rows, 1, "{text}: a wait that is ended has committed, and was not run again");
        }
    }
    cluster.set(PRIMARY, "synchronous_standby_names", "").await;
    eventually(PATIENCE, "writes go on", async || writer(&router).insert_note("next", "last").await.is_ok())
        .await;
}

/// Stores a note; counts its runs.
async fn commit<O: Orm>(
    router: Router<O>,
    form: Form,
    text: String,
    session: Session,
    runs: Arc<AtomicU32>,
) -> Result<(), O::Failure> {
    let routed = router.routed(session, Consistency::Strong);
    let insert = format!("INSERT INTO note (author, text) VALUES ('lost', '{text}') RETURNING text");
    match form {
        Form::Statement => {
            runs.fetch_add(1, Relaxed);
            O::write(routed).insert_note("lost", &text).await
        }
        Form::Transaction => {
            runs.fetch_add(1, Relaxed);
            O::write(routed).transaction(&[&insert]).await.map(drop)
        }
        Form::Closure => {
            routed
                .run_write(async move |lease: &mut Lease<O>| {
                    runs.fetch_add(1, Relaxed);
                    O::insert_note_on(lease, "lost", &text).await
                })
                .await
        }
    }
}

/// Has commits wait for a standby that does not exist; returns when they do, some time after the server was told.
async fn commits_wait(cluster: &TestCluster) {
    cluster.set(PRIMARY, "synchronous_standby_names", "nobody").await;
    let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually(PATIENCE, "commits wait for the standby", async || {
        let canary = cluster.database(PRIMARY, Login::Superuser).await;
        let committing = tokio::spawn(async move {
            canary.run("INSERT INTO note (author, text) VALUES ('canary', 'waits')").await
        });
        eventually(PATIENCE, "it waits or has committed", async || {
            committing.is_finished() || cluster.value(PRIMARY, waiting).await
        })
        .await;
        !committing.is_finished()
    })
    .await;
    end_waits(cluster, "pg_terminate_backend").await;
}

/// Ends the waits for a standby.
async fn end_waits(cluster: &TestCluster, function: &str) {
    let sql = format!("SELECT {function}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    cluster.sql(PRIMARY, &sql).await;
}
