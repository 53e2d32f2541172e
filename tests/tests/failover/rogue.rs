//! A standby is promoted by mistake while the primary lives and another standby streams from it.

use std::time::Duration;

use routing_tests::{
    Mode, NodeView as _, Orm, PATIENCE, PRIMARY, TestCluster, Writers, eventually, reader, router, served_by,
    throughout,
};

use crate::{impatient, quiet};

routing_tests::on_both! {
    a_promotion_that_no_standby_follows_gets_nothing_even_while_the_primary_is_not_heard,
}

async fn a_promotion_that_no_standby_follows_gets_nothing_even_while_the_primary_is_not_heard<O: Orm>() {
    let cluster = TestCluster::start().await;
    let proxies = cluster.proxies().await;
    let router = router::<O>(impatient(cluster.config_through(&proxies))).await;
    let writers = Writers::start(&router, 10);
    writers.go_on(50).await;
    quiet(&cluster, &writers).await;
    let before = cluster.notes_by("pg2", "traffic").await;
    cluster.sql("pg2", "SELECT pg_promote()").await;
    eventually(PATIENCE, "it is seen", async || {
        router.refuses("pg2", "claims to be the primary on timeline 2")
    })
    .await;
    writers.release();
    writers.go_on(50).await;
    assert_eq!(served_by(&reader(&router)).await.expect("a read"), "pg3");

    let nothing_changes = async || {
        router.status().epoch == 1
            && router.refuses("pg2", "claims to be the primary on timeline 2")
            && router.status().primary.as_deref() != Some("pg2")
            && cluster.notes_by("pg2", "traffic").await == before
    };
    // One answer is late, one is lost, and all are.
    for silence in [500, 1_300, 4_000].map(Duration::from_millis) {
        proxies.get(PRIMARY).set(Mode::Blackhole);
        throughout(silence, "the promoted one gets nothing", nothing_changes).await;
        proxies.get(PRIMARY).set(Mode::Pass);
        writers.go_on(50).await;
        throughout(Duration::from_millis(300), "nor afterwards", nothing_changes).await;
    }
    let writes = writers.stop().await;
    writes.assert_typed();
    writes.assert_kept(&cluster, &[PRIMARY, "pg3"]).await;
    assert_eq!(cluster.app_processes("pg2", "query ILIKE '%insert%'").await, 0);
}
