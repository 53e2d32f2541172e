//! The leader's Patroni is killed, and its server goes on: two primaries that both take writes, for as long as nobody looks.

use std::time::{Duration, SystemTime};

use routing_core::RouterConfig;
use routing_tests::engines::{NAMES, PatroniCluster, PatroniSettings};
use routing_tests::{NodeView as _, Orm, PATIENCE, Servers as _, Writers, eventually, figures};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::behind::{READERS, WRITERS, assert_no_errors, patient, readers};

routing_tests::on_both! {
    a_leader_whose_patroni_is_dead_gets_no_statement_once_another_leads,
}

/// When a server began the statements of the application that it has logged, in seconds of the epoch.
fn statements(log: &str) -> Vec<f64> {
    let of_app =
        |line: &&str| line.contains(" app@") && (line.contains("statement:") || line.contains("execute"));
    log.lines().filter(of_app).filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

/// When the first of the others is out of recovery.
async fn watch_promotions(cluster: &PatroniCluster, leader: &str) -> JoinHandle<Instant> {
    let mut others = Vec::new();
    for name in NAMES[..3].iter().filter(|name| **name != leader) {
        others.push(cluster.superuser(name).await);
    }
    tokio::spawn(async move {
        loop {
            for other in &others {
                if !other.value::<bool>("SELECT pg_is_in_recovery()").await.expect("an answer") {
                    return Instant::now();
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    })
}

fn since_epoch() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs_f64()
}

async fn a_leader_whose_patroni_is_dead_gets_no_statement_once_another_leads<O: Orm>() {
    const SCENARIO: &str = "Patroni: kill -9 of the leader's Patroni alone";
    let mut cluster = PatroniCluster::start(PatroniSettings::default()).await;
    let old = cluster.leader().await;
    for setting in ["ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"] {
        cluster.sql(&old, setting).await;
    }
    let interval = RouterConfig::default().probe_interval;
    // The third node may have received what the old leader wrote past the fork. Until it is rewound nobody but the new leader
    // serves, which takes over only so many reads.
    let fallback_no_replica = u32::try_from(READERS).ok();
    let router = cluster.router::<O>(RouterConfig { fallback_no_replica, ..patient() }).await;
    let (readers, writers) = (readers(&router), Writers::start(&router, WRITERS));
    writers.go_on(100).await;

    let promotions = watch_promotions(&cluster, &old).await;
    cluster.kill_agent(&old);
    cluster.delete_key("leader");
    eventually(PATIENCE, "another writer is accepted", async || router.status().epoch == 2).await;
    let (changed, changed_at) = (Instant::now(), since_epoch());
    let new = router.status().primary.expect("the accepted one");
    assert_ne!(new, old);
    let promoted = promotions.await.expect("it was watched");
    writers.go_on(200).await;
    // Both would take writes, each on its own timeline.
    let timeline = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int";
    let (of_old, of_new): (i32, i32) =
        (cluster.value(&old, timeline).await, cluster.value(&new, timeline).await);
    assert_eq!(of_new, of_old + 1);
    cluster.sql(&old, "INSERT INTO note (author, text) VALUES ('past the router', 'it is writable')").await;
    assert!(router.refuses(&old, "fenced"), "{:?}", router.node(&old).refused);
    // Some more reads and writes, for several probe intervals.
    let (answered, patience) = (readers.tally().of(&old), 10 * interval);
    eventually(PATIENCE, "time passes", async || changed.elapsed() > 2 * patience).await;
    readers.go_on(100).await;
    writers.go_on(100).await;
    assert_eq!(router.status().epoch, 2, "nobody went back");
    assert_eq!(readers.tally().of(&old), answered, "nobody reads there");

    let sent = statements(&cluster.log(&old));
    let late = sent.iter().filter(|at| **at > changed_at + patience.as_secs_f64()).count();
    assert!(sent.len() > 100, "the log shows what the application does: {}", sent.len());
    assert_eq!(late, 0, "statements of the application after another was accepted");
    let last = sent.iter().copied().fold(0.0_f64, f64::max) - changed_at;
    figures::gap::<O>(SCENARIO, "from the new leader's promotion to its acceptance", changed - promoted);
    eprintln!("the last statement began {last:.3} s after the change was seen");

    let third = NAMES[..3].iter().find(|name| **name != old && **name != new).expect("the third node");
    let log = cluster.log(third);
    let past = log.contains("forked off") || log.contains("servers diverged");
    eprintln!("the third node was past the fork: {past}");

    // Its Patroni returns: it is rewound, and serves again.
    cluster.start_agent(&old);
    cluster.whole(3).await;
    eventually(PATIENCE, "it serves again", async || router.serves(&old)).await;
    readers.go_on_at(&old, 20).await;
    let (tally, writes) = (readers.stop().await, writers.stop().await);
    assert_no_errors(&tally);
    writes.assert_typed();
    let lost = writes.lost_on(&cluster, &new).await;
    let after: Vec<Duration> =
        lost.iter().map(|write| write.ended.saturating_duration_since(changed)).collect();
    assert!(after.iter().all(Duration::is_zero), "acknowledged by the old one after the change: {after:?}");
    figures::gap::<O>(SCENARIO, "between acknowledged writes", writes.longest_gap());
    figures::count::<O>(SCENARIO, "writes of unknown outcome", writes.unknown());
    figures::count::<O>(SCENARIO, "acknowledged by the old leader alone, and lost", lost.len());
    let both = lost.iter().filter(|write| write.ended > promoted).count();
    figures::count::<O>(SCENARIO, "of these, after the new leader's promotion", both);
    let last = lost.iter().map(|write| write.ended).max();
    let last = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(promoted));
    figures::gap::<O>(SCENARIO, "from the promotion to the last that the old leader acknowledged", last);
    assert!(last < 10 * interval, "a probe interval is {interval:?}");
}
