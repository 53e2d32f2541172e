//! The whole primary stands still, a standby is promoted, and the old primary goes on as if nothing had happened.

use routing_tests::{
    NodeView as _, Orm, PATIENCE, PRIMARY, TestCluster, Writers, eventually, figures, router, throughout,
};
use std::time::Duration;
use tokio::time::Instant;

use crate::{follow, furthest, patient, quiet};

routing_tests::on_both! {
    a_primary_that_thaws_after_its_successor_was_promoted_has_nothing_acknowledged_alone,
}

async fn a_primary_that_thaws_after_its_successor_was_promoted_has_nothing_acknowledged_alone<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = router::<O>(patient(cluster.config())).await;
    let writers = Writers::start(&router, 20);
    writers.go_on(100).await;
    quiet(&cluster, &writers).await;
    let frozen = Instant::now();
    cluster.servers().pause(PRIMARY).await.expect("it runs");
    // Their statements lie in the frozen server's sockets.
    writers.release();
    eventually(PATIENCE, "it counts as dead", async || router.refuses(PRIMARY, "down")).await;
    figures::gap::<O>("the primary freezes", "until it counts as dead", frozen.elapsed());
    let (successor, other) = furthest(&cluster).await;
    cluster.sql(successor, "SELECT pg_promote()").await;
    let promoted = Instant::now();
    follow(&cluster, other, successor).await;
    writers.go_on(100).await;
    let first = writers.writes().first_after(promoted).expect("writes go on");
    figures::gap::<O>("the primary freezes", "from the promotion to the first write", first - promoted);

    cluster.servers().resume(PRIMARY).await.expect("it stands still");
    eventually(PATIENCE, "it is fenced", async || router.refuses(PRIMARY, "fenced")).await;
    writers.go_on(200).await;
    throughout(Duration::from_secs(1), "it stays fenced", async || router.refuses(PRIMARY, "fenced")).await;
    let writes = writers.stop().await;
    writes.assert_typed();
    writes.assert_kept(&cluster, &[successor, other]).await;
    let sql = "SELECT coalesce(string_agg(text, ' '), '') FROM note WHERE author = 'traffic'";
    let (old, new): (String, String) =
        (cluster.value(PRIMARY, sql).await, cluster.value(successor, sql).await);
    let alone = old.split(' ').filter(|text| !new.split(' ').any(|other| other == *text)).count();
    figures::count::<O>("the primary freezes", "writes that it executed alone, none acknowledged", alone);
    figures::count::<O>("the primary freezes", "writes of unknown outcome", writes.unknown());
    assert_eq!(router.status().epoch, 2);
}
