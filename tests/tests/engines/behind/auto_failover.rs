//! `pg_auto_failover`: a promoted node refuses writes until the old primary cannot be there any more.

use std::time::Duration;

use routing_core::{Router, RouterConfig};
use routing_tests::engines::AutoFailoverCluster;
use routing_tests::{
    Fate, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, Writers, eventually, figures, router,
};
use tokio::time::Instant;

use crate::behind::{READERS, WRITERS, assert_no_errors, patient, readers};

routing_tests::on_both! {
    a_promoted_node_gets_no_write_while_it_is_read_only_and_is_accepted_once,
}

/// Who was promoted, when, and when it took writes. Until then the router must accept nobody.
async fn promotion<O: Orm>(
    cluster: &AutoFailoverCluster,
    router: &Router<O>,
    limit: Duration,
) -> (&'static str, Instant, Instant) {
    let (mut promoted, mut writable, mut refused) = (None, None, 0);
    eventually(limit, "a promoted node takes writes", async || {
        for name in REPLICAS {
            let status = router.status();
            refused += usize::from(router.refuses(name, "read-only"));
            let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' \
                       ELSE current_setting('transaction_read_only') END";
            match cluster.ask::<String>(name, sql).await.as_deref() {
                Some("on") => {
                    promoted = promoted.or(Some((name, Instant::now())));
                    assert_eq!((status.primary, status.epoch), (None, 1), "it is not accepted yet");
                }
                Some("off") => writable = Some(Instant::now()),
                _ => {}
            }
        }
        writable.is_some()
    })
    .await;
    assert!(refused > 10, "the router saw it read-only {refused} times");
    let (name, promoted) = promoted.expect("it was read-only first");
    (name, promoted, writable.expect("it was waited for"))
}

async fn a_promoted_node_gets_no_write_while_it_is_read_only_and_is_accepted_once<O: Orm>() {
    const SCENARIO: &str = "pg_auto_failover: kill -9 of the primary's tree";
    let patience = 4 * PATIENCE;
    let mut cluster = AutoFailoverCluster::start().await;
    // The engine starts the last standby again when it joins the new primary, which then serves alone: it takes over only so
    // many reads.
    let fallback_no_replica = u32::try_from(READERS).ok();
    let config = RouterConfig { nodes: cluster.config().nodes, fallback_no_replica, ..patient() };
    let router =
        router::<O>(RouterConfig { write_wait: patience, acquire_deadline: patience, ..config }).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    writers.go_on(100).await;

    cluster.kill(PRIMARY);
    let killed = Instant::now();
    let (new, promoted, writable) = promotion(&cluster, &router, patience).await;
    writers.go_on(200).await;
    let status = router.status();
    assert_eq!((status.primary.as_deref(), status.epoch), (Some(new), 2), "once, and for good");

    // The old one comes back as a standby.
    cluster.run(PRIMARY);
    cluster.reaches(PRIMARY, "secondary").await;
    eventually(PATIENCE, "every node serves", async || router.status().nodes.iter().all(|node| node.serving))
        .await;
    readers.go_on(100).await;
    writers.go_on(100).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    let first = writes.first_after(killed).expect("writes go on");
    figures::gap::<O>(SCENARIO, "from the kill to the promotion", promoted - killed);
    figures::gap::<O>(SCENARIO, "promoted and read-only", writable - promoted);
    figures::gap::<O>(
        SCENARIO,
        "from a server that takes writes to the first write",
        first.saturating_duration_since(writable),
    );
    figures::gap::<O>(SCENARIO, "between acknowledged writes", writes.longest_gap());
    figures::count::<O>(SCENARIO, "writes of unknown outcome", writes.unknown());
    assert!(first > promoted, "nothing was written in between");
    assert_no_errors(&tally);
    // Nothing reached the read-only node: a write that had would have failed or be unknown.
    writes.assert_typed();
    let meanwhile = |write: &&routing_tests::Write| write.began > killed && write.fate != Fate::Acknowledged;
    let failed: Vec<_> = writes.all().filter(meanwhile).collect();
    assert!(failed.is_empty(), "{failed:?}");
    writes.assert_kept(&cluster, &[PRIMARY, REPLICAS[0], REPLICAS[1]]).await;
    assert_eq!(router.status().epoch, 2, "and nobody else since");
    assert!(router.serves(PRIMARY));
}
