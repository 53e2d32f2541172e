//! Members that join, leave, keep away from reads, or come and go.

use routing_tests::engines::{NAMES, PatroniCluster, PatroniSettings};
use routing_tests::{NodeView as _, Orm, PATIENCE, Servers as _, Writers, eventually, figures};

use crate::behind::{WRITERS, assert_no_errors, patient, readers};

routing_tests::on_both! {
    members_that_join_and_leave_are_followed_without_a_failed_request,
    a_member_with_noloadbalance_serves_no_reads_and_may_lead,
    a_member_that_comes_and_goes_waits_longer_each_time_and_costs_no_reader_an_error,
}

async fn members_that_join_and_leave_are_followed_without_a_failed_request<O: Orm>() {
    let mut cluster = PatroniCluster::start(PatroniSettings::default()).await;
    let router = cluster.router::<O>(patient()).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    writers.go_on(50).await;
    let leader = cluster.leader().await;
    let leaves = *NAMES[..3].iter().find(|name| **name != leader).expect("a replica");

    cluster.start_agent("n4");
    cluster.whole(4).await;
    readers.go_on_at("n4", 30).await;

    // Its server goes on, so what the router leaves there can be seen.
    cluster.kill_agent(leaves);
    cluster.delete_key(&format!("members/{leaves}"));
    eventually(PATIENCE, "it has left", async || {
        router.cluster().nodes().iter().all(|node| node.name() != leaves)
    })
    .await;
    eventually(PATIENCE, "nothing of the application is left there", async || {
        cluster.app_processes(leaves).await == 0
    })
    .await;
    let answered = readers.tally().of(leaves);
    readers.go_on(200).await;
    writers.go_on(50).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    assert_eq!(tally.of(leaves), answered, "nobody goes there any more");
    assert_no_errors(&tally);
    writes.assert_all_acknowledged();
    assert_eq!(router.status().nodes.len(), 3);
}

async fn a_member_with_noloadbalance_serves_no_reads_and_may_lead<O: Orm>() {
    let settings = PatroniSettings { noloadbalance: &["n3"], ..PatroniSettings::default() };
    let mut cluster = PatroniCluster::start(settings).await;
    if cluster.leader().await == "n3" {
        cluster.switchover("n3", "n1").await;
        cluster.whole(3).await;
    }
    let router = cluster.router::<O>(patient()).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    readers.go_on(200).await;
    assert_eq!(readers.tally().of("n3"), 0);
    let old = cluster.leader().await;
    cluster.switchover(&old, "n3").await;
    eventually(PATIENCE, "it leads", async || router.status().primary.as_deref() == Some("n3")).await;
    writers.go_on(100).await;
    cluster.whole(3).await;
    readers.go_on(200).await;
    let replicas: Vec<&str> = NAMES[..3].iter().copied().filter(|name| *name != "n3").collect();
    readers.go_on_at(&old, 50).await;
    cluster.switchover("n3", replicas[0]).await;
    cluster.whole(3).await;
    writers.go_on(50).await;
    assert_eq!(readers.tally().of("n3"), 0, "neither as a leader nor as a replica");
    // The tag goes.
    cluster.drop_tags("n3");
    readers.go_on_at("n3", 30).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    assert_no_errors(&tally);
    writes.assert_typed();
    writes.assert_kept(&cluster, &replicas).await;
}

async fn a_member_that_comes_and_goes_waits_longer_each_time_and_costs_no_reader_an_error<O: Orm>() {
    const RETURNS: usize = 5;
    let cluster = PatroniCluster::start(PatroniSettings::default()).await;
    let router = cluster.router::<O>(patient()).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    let leader = cluster.leader().await;
    let flaps = *NAMES[..3].iter().find(|name| **name != leader).expect("a replica");
    readers.go_on_at(flaps, 20).await;

    let mut waits = Vec::new();
    for _ in 0..RETURNS {
        cluster.kill_server(flaps);
        eventually(PATIENCE, "its death is seen", async || router.refuses(flaps, "down")).await;
        // Its Patroni starts it again in a second or two.
        let mut wait = 0.0;
        eventually(PATIENCE, "it answers again", async || {
            let node = router.node(flaps);
            wait = seconds_to_stay_up(node.refused.as_deref());
            wait > 0.0 || node.serving
        })
        .await;
        waits.push(wait);
    }
    eprintln!("each return had to stay up for: {waits:.1?} s");
    let doubled = waits.windows(2).skip(1).all(|pair| pair[1] > 1.5 * pair[0]);
    assert!(waits[0] == 0.0 && waits[1] > 0.0 && doubled, "{waits:?}");
    let answered = readers.tally().of(flaps);
    readers.go_on(100).await;
    assert_eq!(readers.tally().of(flaps), answered, "it waits");
    let waited = eventually(PATIENCE, "it has stayed up", async || router.serves(flaps)).await;
    readers.go_on_at(flaps, 20).await;
    figures::gap::<O>("a replica dies five times in a row", "until it serves again", waited);
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    assert_no_errors(&tally);
    writes.assert_all_acknowledged();
    assert_eq!(router.status().epoch, 1);
}

/// How much longer a refused node must stay up, if that is why it is refused; else 0.
fn seconds_to_stay_up(refused: Option<&str>) -> f64 {
    let left =
        refused.and_then(|refused| refused.strip_prefix("came back again and again, must stay up for "));
    left.and_then(|left| left.split(' ').next()?.parse().ok()).unwrap_or(0.0)
}
