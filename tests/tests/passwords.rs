//! Passwords that change under a running router.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use routing_cluster::Login;
use routing_core::{
    Password, PasswordError, PasswordRequest, PasswordSource, Passwords, Router, RouterConfig,
};
use routing_tests::{
    Handle as _, Orm, PATIENCE, PRIMARY, REPLICAS, Readers, TestCluster, eventually, on_both, ready, writer,
};

on_both!(a_changed_password_costs_no_request_an_error, without_a_password_nobody_is_let_in);

/// A vault whose answers are kept until one is refused.
#[derive(Clone, Default)]
struct Vault(Arc<Inner>);

#[derive(Default)]
struct Inner {
    true_one: Mutex<String>,
    kept: Mutex<Option<String>>,
    monitor: Mutex<String>,
    asked: AtomicU32,
    refused: AtomicU32,
    closed: AtomicBool,
}

impl PasswordSource for Vault {
    fn password<'a>(
        &'a self,
        request: PasswordRequest<'a>,
    ) -> BoxFuture<'a, Result<Password, PasswordError>> {
        Box::pin(async move {
            let vault = &self.0;
            vault.asked.fetch_add(1, SeqCst);
            if vault.closed.load(SeqCst) {
                return Err(PasswordError { why: "the vault is closed".into() });
            }
            if request.user != "app" {
                return Ok(vault.monitor.lock().unwrap().as_str().into());
            }
            let mut kept = vault.kept.lock().unwrap();
            if request.refused {
                vault.refused.fetch_add(1, SeqCst);
                *kept = None;
            }
            Ok(kept.get_or_insert_with(|| vault.true_one.lock().unwrap().clone()).as_str().into())
        })
    }
}

/// A router whose URLs hold a wrong password.
fn start<O: Orm>(cluster: &TestCluster, vault: &Vault, change: impl FnOnce(&mut RouterConfig)) -> Router<O> {
    *vault.0.true_one.lock().unwrap() = cluster.servers().credentials(Login::Application).password;
    *vault.0.monitor.lock().unwrap() = cluster.servers().credentials(Login::Monitor).password;
    let mut config = cluster.config();
    for node in &mut config.nodes {
        node.url = node.url.with_credentials("app", "hunter2");
        node.probe_url = node.probe_url.take().map(|url| url.with_credentials("monitor", "hunter2"));
    }
    change(&mut config);
    Router::start(config, O::with_passwords(Passwords::new(vault.clone()))).unwrap()
}

async fn a_changed_password_costs_no_request_an_error<O: Orm>() {
    let cluster = TestCluster::start().await;
    let vault = Vault::default();
    let router = start::<O>(&cluster, &vault, |_| {});
    ready(&router).await;
    let readers = Readers::start(&router, 6);
    readers.go_on(50).await;
    writer(&router).insert_note("passwords", "before").await.unwrap();
    assert_eq!(vault.0.refused.load(SeqCst), 0);

    *vault.0.true_one.lock().unwrap() = "another one".to_owned();
    cluster.sql(PRIMARY, "ALTER ROLE app PASSWORD 'another one'").await;
    cluster.wait_replayed().await;
    // Whoever is in stays in; new connections are asked for the new password.
    for node in REPLICAS {
        cluster
            .sql(node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'")
            .await;
    }
    readers.go_on(200).await;
    // The one connection of before serves one of them.
    let write = async || writer(&router).insert_note("passwords", "after").await.unwrap();
    futures_util::future::join_all((0..5).map(|_| write())).await;
    let tally = readers.stop().await;
    assert_eq!(tally.errors, [""; 0]);
    assert!(vault.0.refused.load(SeqCst) >= 1, "it was asked again after a refusal");
    assert_eq!(cluster.notes_by(PRIMARY, "passwords").await, 6);
}

async fn without_a_password_nobody_is_let_in<O: Orm>() {
    let cluster = TestCluster::start().await;
    let vault = Vault::default();
    vault.0.closed.store(true, SeqCst);
    let router = start::<O>(&cluster, &vault, |_| {});
    eventually(PATIENCE, "the monitor says why", async || {
        let nodes = router.status().nodes;
        nodes.iter().all(|node| node.refused.as_ref().is_some_and(|why| why.contains("the vault is closed")))
    })
    .await;
    vault.0.closed.store(false, SeqCst);
    ready(&router).await;
    writer(&router).insert_note("passwords", "a note").await.unwrap();
}
