//! etcd stands still: nobody can renew or take the leader key.

use std::time::Duration;

use routing_tests::engines::{NAMES, PatroniCluster, PatroniSettings};
use routing_tests::{NodeView as _, Orm, PATIENCE, Servers as _, Writers, eventually, figures, throughout};

use crate::behind::{WRITERS, assert_no_errors, patient, readers};

routing_tests::on_both! {
    a_leader_that_steps_down_without_etcd_is_a_pause_for_writers_and_nothing_for_readers,
    with_failsafe_mode_neither_the_leader_nor_the_router_is_stopped_by_a_silent_etcd,
}

async fn a_leader_that_steps_down_without_etcd_is_a_pause_for_writers_and_nothing_for_readers<O: Orm>() {
    const SCENARIO: &str = "Patroni: etcd stands still";
    let cluster = PatroniCluster::start(PatroniSettings::default()).await;
    let router = cluster.router::<O>(patient()).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    writers.go_on(100).await;

    cluster.freeze_etcd(true);
    eventually(PATIENCE, "the leader steps down", async || router.status().primary.is_none()).await;
    let in_recovery = async || {
        let mut count = 0;
        for name in &NAMES[..3] {
            let role = cluster.ask(name, "/patroni").await;
            count += usize::from(role.is_some_and(|role| role["role"] == "replica"));
        }
        count
    };
    eventually(PATIENCE, "all are standbys", async || in_recovery().await == 3).await;
    let before = readers.tally().total();
    throughout(Duration::from_secs(2), "nobody is written to", async || router.status().primary.is_none())
        .await;
    assert!(readers.tally().total() > before, "reads go on");
    cluster.freeze_etcd(false);
    writers.go_on(200).await;
    cluster.whole(3).await;
    eventually(PATIENCE, "every node serves", async || router.status().nodes.iter().all(|node| node.serving))
        .await;
    readers.go_on(100).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    figures::gap::<O>(SCENARIO, "between acknowledged writes", writes.longest_gap());
    figures::count::<O>(SCENARIO, "writes of unknown outcome", writes.unknown());
    assert_no_errors(&tally);
    writes.assert_typed();
    writes.assert_kept(&cluster, &NAMES[..3]).await;
}

async fn with_failsafe_mode_neither_the_leader_nor_the_router_is_stopped_by_a_silent_etcd<O: Orm>() {
    const SCENARIO: &str = "Patroni: etcd stands still, failsafe_mode";
    let settings = PatroniSettings { failsafe: true, ..PatroniSettings::default() };
    let cluster = PatroniCluster::start(settings).await;
    let router = cluster.router::<O>(patient()).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    writers.go_on(100).await;
    let leader = cluster.leader().await;

    cluster.freeze_etcd(true);
    eventually(PATIENCE, "the leader has failed to renew its key", async || {
        cluster.ask(&leader, "/patroni").await.is_some_and(|said| said["cluster_unlocked"] == true)
    })
    .await;
    eventually(PATIENCE, "the router hears nothing of Patroni", async || {
        router.status().discovery.is_some_and(|discovery| discovery.error.is_some())
    })
    .await;
    writers.go_on(200).await;
    readers.go_on(200).await;
    assert!(!cluster.value::<bool>(&leader, "SELECT pg_is_in_recovery()").await, "it leads all the time");
    cluster.freeze_etcd(false);
    cluster.whole(3).await;
    writers.go_on(100).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    figures::gap::<O>(SCENARIO, "between acknowledged writes", writes.longest_gap());
    assert_no_errors(&tally);
    writes.assert_all_acknowledged();
    writes.assert_kept(&cluster, &NAMES[..3]).await;
    let status = router.status();
    assert_eq!((status.primary.as_deref(), status.epoch), (Some(&*leader), 1));
    assert!(router.serves(&leader));
}
