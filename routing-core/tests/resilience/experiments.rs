//! What the defaults of the breaker rest on: the same fault under several settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use routing_core::testing::{FakeBackend, FakeError};
use routing_core::{Fault, Lease, RouteError};
use tokio::time::sleep;

use crate::{Scene, ms};

#[derive(Debug, Default)]
struct Counts {
    served: AtomicU32,
    by_primary: AtomicU32,
    shed: AtomicU32,
    errors: AtomicU32,
    failed_attempts: AtomicU32,
}

impl Counts {
    fn all(&self) -> [u32; 5] {
        [&self.served, &self.by_primary, &self.shed, &self.errors, &self.failed_attempts]
            .map(|count| count.load(SeqCst))
    }
}

/// 400 reads a second for 20 s, of which a node fails this share of what it is sent.
async fn load(scene: &Scene, failing: fn(&str) -> f64) -> [u32; 5] {
    scene.set_latency(ms(5));
    let counts = Arc::new(Counts::default());
    let mut random = fastrand::Rng::with_seed(17);
    let mut reads = Vec::new();
    for _ in 0..8_000 {
        sleep(ms(5) / 2).await;
        let (request, counts, drawn) = (scene.request(), counts.clone(), random.f64());
        reads.push(tokio::spawn(async move {
            let counts_here = &counts;
            let outcome = request
                .run_read(async |lease: &mut Lease<FakeBackend>| {
                    lease.query().await?;
                    if drawn < failing(lease.node().name()) {
                        counts_here.failed_attempts.fetch_add(1, SeqCst);
                        return Err(FakeError::Fault(Fault::Unreachable));
                    }
                    Ok(lease.is_on_primary())
                })
                .await;
            let count = match outcome {
                Ok(true) => &counts.by_primary,
                Ok(false) => &counts.served,
                Err(FakeError::Route(RouteError::Overloaded { .. })) => &counts.shed,
                Err(_) => &counts.errors,
            };
            count.fetch_add(1, SeqCst);
        }));
    }
    for read in reads {
        read.await.unwrap();
    }
    counts.all()
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_fails_everything_costs_few_attempts_whatever_opens_its_breaker() {
    for failures in [1, 5, 20] {
        let scene = Scene::new(3, |config| config.breaker.failures = failures).await;
        let [.., errors, dead] = load(&scene, |node| if node == "pg4" { 1.0 } else { 0.0 }).await;
        assert_eq!(errors, 0, "another replica serves");
        let scene = Scene::new(3, |config| config.breaker.failures = failures).await;
        let [.., errors, some] = load(&scene, |node| if node == "pg4" { 0.02 } else { 0.0 }).await;
        let served = scene.servers.server("pg4").statements();
        assert_eq!(errors, 0, "another replica serves");
        eprintln!(
            "experiment | breaker.failures = {failures} | of 8000 reads in 20 s, one of three replicas fails all: {dead} \
             failed attempts | fails one in fifty: {some}, and it serves {served}"
        );
        assert!(dead < 60 && some < 60, "{dead} {some}");
        assert!(served > 200, "one that fails sometimes is not lost: {served}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_of_half_serves_more_than_the_whole_when_a_fault_hits_all_alike() {
    let mut served = Vec::new();
    for share in [0.0, 0.5, 1.0] {
        let scene = Scene::new(4, |config| {
            config.breaker.max_ejected = share;
            config.fallback_rate = Some(50);
        })
        .await;
        let [by_replicas, by_primary, shed, errors, failed] =
            load(&scene, |node| if node == "pg1" { 0.0 } else { 0.6 }).await;
        eprintln!(
            "experiment | breaker.max_ejected = {share} | every replica fails 6 in 10 | {by_replicas} served by replicas, \
             {by_primary} by the primary, {shed} shed, {errors} errors, {failed} failed attempts of 8000"
        );
        served.push(by_replicas + by_primary);
    }
    assert!(served[1] > served[2], "with everybody kept away most are shed: {served:?}");
}
