//! The primary is changed on purpose.

use routing_cluster::SilentProgress;
use routing_tests::{NODES, Orm, TestCluster, Writers, figures, router};

use crate::{assert_no_errors, patient, readers};

routing_tests::on_both! {
    a_switchover_is_a_pause_for_writers_and_nothing_for_readers,
}

async fn a_switchover_is_a_pause_for_writers_and_nothing_for_readers<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = router::<O>(patient(cluster.config())).await;
    let readers = readers(&router, 100);
    let writers = Writers::start(&router, 50);
    writers.go_on(500).await;

    let changed = cluster.servers().switchover("pg2", &SilentProgress).await;
    let changed = changed.unwrap_or_else(|error| panic!("no switchover: {error}"));
    writers.go_on(500).await;
    readers.go_on(2_000).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    figures::gap::<O>("switchover", "servers that took no write", changed.unwritable);
    figures::gap::<O>("switchover", "between acknowledged writes", writes.longest_gap());
    figures::count::<O>("switchover", "writes", writes.all().count());
    figures::count::<O>("switchover", "reads", usize::try_from(tally.total()).unwrap_or(usize::MAX));
    let status = router.status();
    assert_eq!((status.primary.as_deref(), status.epoch), (Some("pg2"), 2));
    assert_no_errors(&tally);
    writes.assert_all_acknowledged();
    writes.assert_kept(&cluster, &NODES).await;
}
