//! Patroni has another node lead: asked to, and because the leader is gone.

use routing_tests::engines::{NAMES, PatroniCluster, PatroniSettings};
use routing_tests::{Fate, NodeView as _, Orm, PATIENCE, Writers, eventually, figures};
use tokio::time::Instant;

use crate::behind::{WRITERS, assert_no_errors, patient, readers};

routing_tests::on_both! {
    a_switchover_by_patroni_is_a_pause_for_writers_and_nothing_for_readers,
    a_killed_leader_is_followed_and_serves_again_as_a_replica,
}

async fn a_switchover_by_patroni_is_a_pause_for_writers_and_nothing_for_readers<O: Orm>() {
    let cluster = PatroniCluster::start(PatroniSettings::default()).await;
    let router = cluster.router::<O>(patient()).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    writers.go_on(100).await;
    let old = cluster.leader().await;
    let new = *NAMES[..3].iter().find(|name| **name != old).expect("another one");

    cluster.switchover(&old, new).await;
    writers.go_on(200).await;
    cluster.whole(3).await;
    readers.go_on_at(&old, 50).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    figures::gap::<O>("Patroni: switchover", "between acknowledged writes", writes.longest_gap());
    figures::count::<O>("Patroni: switchover", "acknowledged writes", writes.acknowledged().count());
    figures::count::<O>("Patroni: switchover", "writes of unknown outcome", writes.unknown());
    // Patroni's fast shutdown ends sessions also within a COMMIT: their outcome is unknown, and nothing else fails.
    for write in writes.all().filter(|write| write.fate != Fate::Acknowledged) {
        eprintln!("not acknowledged: {write:?}");
        assert!(matches!(write.fate, Fate::Unknown(_)), "{write:?}");
    }
    assert_no_errors(&tally);
    writes.assert_kept(&cluster, &NAMES[..3]).await;
    let status = router.status();
    assert_eq!((status.primary.as_deref(), status.epoch), (Some(new), 2));
}

async fn a_killed_leader_is_followed_and_serves_again_as_a_replica<O: Orm>() {
    let mut cluster = PatroniCluster::start(PatroniSettings::default()).await;
    let router = cluster.router::<O>(patient()).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    writers.go_on(100).await;
    let old = cluster.leader().await;

    cluster.kill_agent(&old);
    cluster.kill_server(&old);
    let killed = Instant::now();
    cluster.delete_key("leader");
    let new = cluster.leader_after(&old).await;
    writers.go_on(200).await;
    eventually(PATIENCE, "the router follows", async || router.status().primary.as_deref() == Some(&new))
        .await;
    cluster.start_agent(&old);
    cluster.whole(3).await;
    eventually(PATIENCE, "it serves again", async || router.serves(&old)).await;
    readers.go_on_at(&old, 20).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    figures::gap::<O>("Patroni: kill -9 of the leader", "between acknowledged writes", writes.longest_gap());
    figures::count::<O>("Patroni: kill -9 of the leader", "writes of unknown outcome", writes.unknown());
    assert_no_errors(&tally);
    writes.assert_typed();
    // Replication is asynchronous: what the old leader alone had goes with it, and nothing that was acknowledged after.
    let lost = writes.lost_on(&cluster, &new).await;
    figures::count::<O>("Patroni: kill -9 of the leader", "acknowledged writes lost with it", lost.len());
    assert!(lost.iter().all(|write| write.ended <= killed), "{lost:?}");
    assert_eq!(router.status().epoch, 2);
}
