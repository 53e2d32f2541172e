//! An application that is busy with other things still opens connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use routing_tests::{Handle as _, Orm, PATIENCE, TestCluster, eventually, figures, router, writer};
use tokio::task::yield_now;
use tokio::time::Instant;

routing_tests::on_both! {
    a_busy_runtime_does_not_keep_connections_from_opening,
}

async fn a_busy_runtime_does_not_keep_connections_from_opening<O: Orm>() {
    const TASKS: usize = 64;
    const STEP: Duration = Duration::from_millis(1);
    let cluster = TestCluster::start().await;
    let stop = Arc::<AtomicBool>::default();
    for _ in 0..TASKS {
        let stop = stop.clone();
        tokio::spawn(async move {
            while !stop.load(Relaxed) {
                let began = Instant::now();
                while began.elapsed() < STEP {
                    std::hint::spin_loop();
                }
                yield_now().await;
            }
        });
    }
    let began = Instant::now();
    let router = router::<O>(cluster.config()).await;
    figures::gap::<O>("a busy runtime", "until every node is seen", began.elapsed());
    let began = Instant::now();
    eventually(PATIENCE, "a write", async || writer(&router).insert_note("busy", "kept").await.is_ok()).await;
    figures::gap::<O>("a busy runtime", "until the first write", began.elapsed());
    stop.store(true, Relaxed);
}
