//! The real router, monitor and breaker on servers in memory, on tokio's paused clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use routing_core::testing::{FakeBackend, FakeCluster, FakeError, Reach, Written};
use routing_core::{
    Access, Consistency, Fault, Lease, Primary, Priority, Refusal, RouteError, Routed, Router, RouterConfig,
    Session,
};
use tokio::time::{Instant, sleep};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

struct Scene {
    servers: FakeCluster,
    router: Router<FakeBackend>,
}

impl Scene {
    /// pg1 is the primary, pg2 and pg3 follow it.
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RouterConfig)) -> Self {
        let servers = FakeCluster::new(2);
        let mut config = servers.config();
        change(&mut config);
        let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
        assert!(router.cluster().settled(secs(5)).await);
        Self { servers, router }
    }

    fn request(&self, consistency: Consistency) -> Routed<FakeBackend> {
        self.router.routed(Session::new(), consistency)
    }

    /// One read; the node that served it.
    async fn read(&self, consistency: Consistency) -> Result<String, FakeError> {
        read(&self.request(consistency)).await
    }

    /// How many of `count` reads each node serves.
    async fn spread(&self, consistency: Consistency, count: usize) -> BTreeMap<String, usize> {
        let mut served = BTreeMap::new();
        for _ in 0..count {
            *served.entry(self.read(consistency).await.unwrap()).or_default() += 1;
        }
        served
    }

    fn refusal(&self, node: &str) -> Option<Refusal> {
        let topology = self.router.cluster().topology();
        let state = topology.nodes.iter().find(|state| state.node.name() == node).unwrap();
        state.blocked.clone()
    }

    fn in_flight(&self) -> u32 {
        self.router.cluster().nodes().iter().map(|node| node.in_flight()).sum()
    }
}

async fn read(request: &Routed<FakeBackend>) -> Result<String, FakeError> {
    request
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            lease.query().await?;
            Ok::<_, FakeError>(lease.node().name().to_owned())
        })
        .await
}

async fn write(request: &Routed<FakeBackend>) -> Result<String, FakeError> {
    request
        .run_statement(async |lease: &mut Lease<FakeBackend>| {
            lease.write().await?;
            Ok::<_, FakeError>(lease.node().name().to_owned())
        })
        .await
}

fn route_error(error: FakeError) -> RouteError {
    match error {
        FakeError::Route(error) => error,
        other => panic!("not the router's error: {other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn reads_spread_over_the_replicas_and_writes_go_to_the_primary() {
    let scene = Scene::new().await;
    let served = scene.spread(Consistency::Eventual, 400).await;
    assert_eq!(served.keys().collect::<Vec<_>>(), ["pg2", "pg3"]);
    assert!(served.values().all(|count| *count > 140), "{served:?}");
    assert_eq!(scene.spread(Consistency::Strong, 10).await.keys().collect::<Vec<_>>(), ["pg1"]);
    assert_eq!(write(&scene.request(Consistency::Session)).await.unwrap(), "pg1");
}

#[tokio::test(start_paused = true)]
async fn the_reads_of_one_request_keep_to_one_node_while_it_serves() {
    let scene = Scene::new().await;
    let request = scene.request(Consistency::Session);
    let first = read(&request).await.unwrap();
    for _ in 0..20 {
        assert_eq!(read(&request).await.unwrap(), first);
    }
    scene.servers.server(&first).set_reach(Reach::Refused);
    assert_ne!(read(&request).await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn losing_a_replica_costs_none_of_fifty_readers_an_error() {
    let scene = Arc::new(Scene::new().await);
    let end = Instant::now() + secs(5);
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let scene = scene.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while Instant::now() < end {
                    scene.read(Consistency::Eventual).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    sleep(ms(500)).await;
    scene.servers.server("pg3").set_reach(Reach::Refused);
    sleep(secs(2)).await;
    scene.servers.server("pg3").set_reach(Reach::Up);
    for reader in readers {
        assert!(reader.await.unwrap() > 1_000);
    }
    // It has begun slowly.
    sleep(secs(10)).await;
    let served = scene.spread(Consistency::Eventual, 100).await;
    assert!(served["pg3"] > 20, "it serves again: {served:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_replica_holds_no_read_longer_than_its_monitor_needs() {
    let scene = Scene::new().await;
    scene.servers.server("pg2").set_reach(Reach::Frozen);
    let began = Instant::now();
    for _ in 0..40 {
        assert_eq!(scene.read(Consistency::Eventual).await.unwrap(), "pg3");
    }
    // One probe must time out, and one attempt to connect after it.
    assert!(began.elapsed() < ms(3_000), "{:?}", began.elapsed());
    let began = Instant::now();
    scene.spread(Consistency::Eventual, 100).await;
    assert!(
        began.elapsed() < ms(300),
        "once it is known to be down nobody waits for it: {:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_in_flight_on_a_node_that_dies_silently_moves_on() {
    let scene = Scene::new().await;
    scene.servers.server("pg2").set_latency(secs(60));
    scene.servers.server("pg3").set_latency(secs(60));
    let reads: Vec<_> = (0..6)
        .map(|_| {
            let request = scene.request(Consistency::Eventual);
            tokio::spawn(async move { read(&request).await })
        })
        .collect();
    sleep(ms(50)).await;
    for node in ["pg2", "pg3"] {
        scene.servers.server(node).set_reach(Reach::Frozen);
    }
    let began = Instant::now();
    for outcome in reads {
        assert_eq!(outcome.await.unwrap().unwrap(), "pg1");
    }
    assert!(began.elapsed() < secs(4), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn when_all_replicas_are_gone_the_primary_serves_up_to_its_cap_and_the_rest_is_shed_at_once() {
    let scene = Arc::new(Scene::new().await);
    for node in ["pg2", "pg3"] {
        scene.servers.server(node).set_reach(Reach::Refused);
    }
    sleep(secs(1)).await;
    assert_eq!(scene.spread(Consistency::Eventual, 20).await.keys().collect::<Vec<_>>(), ["pg1"]);

    scene.servers.server("pg1").set_latency(secs(2));
    let began = Instant::now();
    let reads: Vec<_> = (0..50)
        .map(|_| {
            let scene = scene.clone();
            tokio::spawn(async move { (scene.read(Consistency::Eventual).await, Instant::now()) })
        })
        .collect();
    let mut served = 0;
    for read in reads {
        match read.await.unwrap() {
            (Ok(_), _) => served += 1,
            (Err(error), at) => {
                assert!(matches!(route_error(error), RouteError::Overloaded { cap: 10, .. }));
                assert!(at - began < ms(10), "shed at once");
            }
        }
    }
    assert_eq!(served, 10);
    assert_eq!(scene.router.status().fallback_in_use, 0, "the permits are back");
}

#[tokio::test(start_paused = true)]
async fn batch_reads_are_shed_first_and_critical_ones_last() {
    let scene = Scene::new().await;
    for node in ["pg2", "pg3"] {
        scene.servers.server(node).set_reach(Reach::Refused);
    }
    sleep(secs(1)).await;
    let mut held = Vec::new();
    let mut admitted = async |priority| {
        let before = held.len();
        let refused = loop {
            let request = scene.request(Consistency::Eventual).prioritized(priority);
            match request.acquire_read().await {
                Ok(lease) => held.push(lease),
                Err(error) => break route_error(error),
            }
        };
        assert!(matches!(refused, RouteError::Overloaded { cap: 10, priority: of, .. } if of == priority));
        held.len() - before
    };
    assert_eq!(admitted(Priority::Batch).await, 5);
    assert_eq!(admitted(Priority::Normal).await, 5);
    assert_eq!(admitted(Priority::Batch).await, 0);
    assert_eq!(admitted(Priority::Critical).await, 2);
    // While a replica serves, nobody asks for a priority.
    scene.servers.server("pg2").set_reach(Reach::Up);
    sleep(secs(2)).await;
    let request = scene.request(Consistency::Eventual).prioritized(Priority::Batch);
    assert_eq!(read(&request).await.unwrap(), "pg2");
}

#[tokio::test(start_paused = true)]
async fn reads_for_lost_replicas_are_limited_by_rate_as_well() {
    let scene = Scene::with(|config| config.fallback_rate = Some(20)).await;
    for node in ["pg2", "pg3"] {
        scene.servers.server(node).set_reach(Reach::Refused);
    }
    sleep(secs(2)).await;
    let mut served = 0;
    // One at a time, each a millisecond: never many at once.
    for _ in 0..3_000 {
        match scene.read(Consistency::Eventual).await {
            Ok(_) => served += 1,
            Err(error) => {
                assert!(matches!(route_error(error), RouteError::Overloaded { .. }));
                sleep(ms(1)).await;
            }
        }
    }
    assert!((60..=85).contains(&served), "twenty a second for three seconds, and a burst: {served}");
    assert_eq!(scene.read(Consistency::Strong).await.unwrap(), "pg1", "it asked for the primary itself");
}

#[tokio::test(start_paused = true)]
async fn strong_reads_are_not_limited_by_the_fallback_cap() {
    let scene = Arc::new(Scene::new().await);
    scene.servers.server("pg1").set_latency(ms(500));
    let reads: Vec<_> = (0..20)
        .map(|_| {
            let scene = scene.clone();
            tokio::spawn(async move { scene.read(Consistency::Strong).await })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap(), "pg1");
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_node_a_read_fails_within_its_deadline_with_a_reason_for_each() {
    let scene = Scene::new().await;
    for server in scene.servers.servers() {
        server.set_reach(Reach::Refused);
    }
    let began = Instant::now();
    let error = route_error(scene.read(Consistency::Eventual).await.unwrap_err());
    assert!(began.elapsed() <= ms(5_100), "{:?}", began.elapsed());
    let text = error.to_string();
    for node in ["pg1", "pg2", "pg3"] {
        assert!(text.contains(node), "{text}");
    }

    sleep(secs(10)).await;
    let began = Instant::now();
    scene.read(Consistency::Eventual).await.unwrap_err();
    assert!(began.elapsed() < ms(100), "an outage that is old makes nobody wait: {:?}", began.elapsed());

    for server in scene.servers.servers() {
        server.set_reach(Reach::Up);
    }
    sleep(ms(1_000)).await;
    scene.read(Consistency::Eventual).await.unwrap();
    write(&scene.request(Consistency::Session)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn frozen_nodes_alone_cost_a_read_no_more_than_its_deadline() {
    let scene = Scene::new().await;
    for server in scene.servers.servers() {
        server.set_reach(Reach::Frozen);
    }
    let began = Instant::now();
    scene.read(Consistency::Eventual).await.unwrap_err();
    assert!(began.elapsed() <= ms(6_000), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_primary_for_a_minute_raises_no_lag() {
    let scene = Scene::new().await;
    for _ in 0..240 {
        sleep(ms(250)).await;
        for node in scene.router.status().nodes {
            assert_eq!((node.lag_seconds, node.lag_bytes), (Some(0.0), Some(0)), "{}", node.name);
            assert!(node.staleness_seconds.unwrap() < 1.0, "{node:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lags_too_far_serves_nothing_until_it_has_caught_up() {
    let scene = Scene::new().await;
    scene.servers.server("pg2").set_paused(true);
    for _ in 0..70 {
        scene.servers.server("pg1").append();
        sleep(ms(100)).await;
    }
    assert_eq!(scene.spread(Consistency::Eventual, 50).await.keys().collect::<Vec<_>>(), ["pg3"]);
    let status = scene.router.status();
    assert!(status.nodes[1].refused.as_deref().unwrap().starts_with("stale"), "{status:?}");
    scene.servers.server("pg2").set_paused(false);
    sleep(secs(1)).await;
    assert_eq!(scene.spread(Consistency::Eventual, 50).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn when_all_replicas_are_too_stale_the_least_stale_still_serves_reads_without_a_bound() {
    let scene = Scene::new().await;
    scene.servers.server("pg2").set_paused(true);
    scene.servers.server("pg1").append();
    sleep(secs(2)).await;
    scene.servers.server("pg3").set_paused(true);
    for _ in 0..70 {
        scene.servers.server("pg1").append();
        sleep(ms(100)).await;
    }
    assert_eq!(scene.spread(Consistency::Eventual, 20).await.keys().collect::<Vec<_>>(), ["pg3"]);
    let bounded = Consistency::BoundedStaleness(secs(1));
    assert_eq!(scene.spread(bounded, 20).await.keys().collect::<Vec<_>>(), ["pg1"]);
}

#[tokio::test(start_paused = true)]
async fn a_bounded_read_never_sees_anything_older_than_its_bound() {
    let bound = ms(600);
    let scene = Scene::new().await;
    let primary = scene.servers.server("pg1").clone();
    let mut truth = vec![(Instant::now(), primary.append())];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut by_replicas = 0;
    for step in 0..2_000 {
        if step % 50 == 0 {
            scene.servers.server("pg2").set_apply_lag(ms(random.u64(0..1_500)));
            scene.servers.server("pg3").set_apply_lag(ms(random.u64(0..1_500)));
        }
        truth.push((Instant::now(), primary.append()));
        sleep(ms(random.u64(0..40))).await;
        // The proof is about the moment when the statement begins.
        let (began, seen, on_primary) = scene
            .request(Consistency::BoundedStaleness(bound))
            .run_read(async |lease: &mut Lease<FakeBackend>| {
                Ok::<_, FakeError>((Instant::now(), lease.query().await?, lease.is_on_primary()))
            })
            .await
            .unwrap();
        by_replicas += u32::from(!on_primary);
        let missed = truth.iter().find(|(at, lsn)| *lsn > seen && *at + bound < began);
        assert_eq!(missed, None, "seed {seed}, step {step}: {seen:?} at {began:?}");
    }
    assert!(by_replicas > 100, "the proof is about replicas, and only {by_replicas} reads were theirs");
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_a_receiver_is_not_taken_for_a_fresh_one() {
    let scene = Scene::new().await;
    scene.servers.server("pg2").set_receiving(None);
    sleep(ms(400)).await;
    assert_eq!(scene.refusal("pg2"), Some(Refusal::NotReceiving));
    assert_eq!(scene.spread(Consistency::Eventual, 20).await.keys().collect::<Vec<_>>(), ["pg3"]);
}

#[tokio::test(start_paused = true)]
async fn reads_keep_flowing_while_there_is_no_primary_and_writes_wait_for_the_next_one() {
    let scene = Arc::new(Scene::new().await);
    scene.servers.server("pg1").set_reach(Reach::Refused);
    scene.servers.server("pg2").set_receiving(None);
    scene.servers.server("pg3").set_receiving(None);
    sleep(ms(500)).await;
    assert_eq!(scene.router.cluster().topology().primary, Primary::Unknown);
    let writer = {
        let scene = scene.clone();
        tokio::spawn(async move { write(&scene.request(Consistency::Session)).await })
    };
    for _ in 0..20 {
        assert_ne!(scene.read(Consistency::Eventual).await.unwrap(), "pg1");
        sleep(ms(50)).await;
    }
    scene.servers.promote("pg2");
    scene.servers.follow("pg3", "pg2");
    assert_eq!(writer.await.unwrap().unwrap(), "pg2", "the pause was not an error");
}

#[tokio::test(start_paused = true)]
async fn a_deposed_primary_that_comes_back_gets_nothing() {
    let scene = Scene::new().await;
    scene.servers.server("pg1").set_reach(Reach::Refused);
    scene.servers.promote("pg2");
    scene.servers.follow("pg3", "pg2");
    sleep(ms(500)).await;
    scene.servers.server("pg1").set_reach(Reach::Up);
    sleep(secs(2)).await;
    let before = scene.servers.server("pg1").statements();
    for _ in 0..20 {
        scene.read(Consistency::Eventual).await.unwrap();
        scene.read(Consistency::Strong).await.unwrap();
        write(&scene.request(Consistency::Session)).await.unwrap();
    }
    assert_eq!(scene.servers.server("pg1").statements(), before);
    assert!(matches!(scene.refusal("pg1"), Some(Refusal::Fenced { .. })));
}

#[tokio::test(start_paused = true)]
async fn two_primaries_on_one_timeline_get_no_write() {
    let scene = Scene::with(|config| config.write_wait = ms(500)).await;
    scene.servers.server("pg3").set_receiving(None);
    scene.servers.promote_onto("pg2", 1);
    sleep(secs(1)).await;
    let error = route_error(write(&scene.request(Consistency::Session)).await.unwrap_err());
    assert!(matches!(&error, RouteError::AmbiguousPrimary(claims) if claims.0.len() == 2), "{error}");
    assert!(scene.router.status().primary_missing.unwrap().starts_with("ambiguous: pg1 on timeline 1"));
    scene.servers.follow("pg2", "pg1");
    assert_eq!(write(&scene.request(Consistency::Session)).await.unwrap(), "pg1", "it has resolved");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_refused_when_no_primary_comes_within_the_wait() {
    let scene = Scene::with(|config| config.write_wait = ms(700)).await;
    scene.servers.server("pg1").set_reach(Reach::Refused);
    sleep(ms(500)).await;
    let began = Instant::now();
    let error = route_error(write(&scene.request(Consistency::Session)).await.unwrap_err());
    assert!(matches!(error, RouteError::NoPrimary(_)), "{error}");
    assert!((ms(700)..ms(900)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn only_so_many_writes_wait_for_a_primary() {
    let scene = Arc::new(Scene::with(|config| config.write_waiters = 3).await);
    scene.servers.server("pg1").set_reach(Reach::Refused);
    sleep(ms(500)).await;
    let writes: Vec<_> = (0..10)
        .map(|_| {
            let scene = scene.clone();
            tokio::spawn(async move { write(&scene.request(Consistency::Session)).await })
        })
        .collect();
    let mut turned_away = 0;
    for write in writes {
        let error = route_error(write.await.unwrap().unwrap_err());
        turned_away += u32::from(matches!(error, RouteError::TooManyWaiters { limit: 3 }));
    }
    assert_eq!(turned_away, 7);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_unknown_and_sent_once() {
    let scene = Scene::new().await;
    scene.servers.server("pg1").set_latency(secs(1));
    let request = scene.request(Consistency::Session);
    let before = scene.servers.server("pg1").statements();
    let writing = tokio::spawn(async move { (write(&request).await, request.session().wrote()) });
    sleep(ms(500)).await;
    scene.servers.server("pg1").set_reach(Reach::Refused);
    let (outcome, wrote) = writing.await.unwrap();
    assert!(matches!(outcome, Err(FakeError::CommitUnknown(_))), "{outcome:?}");
    assert!(wrote);
    assert_eq!(scene.servers.server("pg1").statements(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_in_flight_is_cut_when_the_writer_changes() {
    let scene = Scene::new().await;
    scene.servers.server("pg1").set_latency(secs(3_600));
    let request = scene.request(Consistency::Session);
    let writing = tokio::spawn(async move { write(&request).await });
    sleep(ms(100)).await;
    scene.servers.server("pg1").set_reach(Reach::Frozen);
    scene.servers.promote("pg2");
    scene.servers.follow("pg3", "pg2");
    let began = Instant::now();
    assert!(matches!(writing.await.unwrap(), Err(FakeError::CommitUnknown(_))));
    assert!(began.elapsed() < secs(3), "{:?}", began.elapsed());
    assert_eq!(scene.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_on_a_frozen_primary_does_not_wait_for_ever() {
    let scene = Scene::new().await;
    scene.servers.server("pg1").set_latency(secs(3_600));
    let request = scene.request(Consistency::Session);
    let writing = tokio::spawn(async move { write(&request).await });
    sleep(ms(100)).await;
    scene.servers.server("pg1").set_reach(Reach::Frozen);
    let began = Instant::now();
    assert!(matches!(writing.await.unwrap(), Err(FakeError::CommitUnknown(_))));
    assert!(began.elapsed() < secs(3), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_run_again_only_when_it_was_not_committed() {
    let scene = Scene::new().await;
    let runs = std::sync::atomic::AtomicU32::new(0);
    scene
        .router
        .run_write(async |lease: &mut Lease<FakeBackend>| {
            let run = runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            lease.write().await?;
            if run == 0 { Err(FakeError::Fault(Fault::Conflict)) } else { Ok(()) }
        })
        .await
        .unwrap();
    assert_eq!(runs.into_inner(), 2);
    let own =
        scene.router.run_write(async |_: &mut Lease<FakeBackend>| Err::<(), _>(FakeError::Statement)).await;
    assert_eq!(own, Err(FakeError::Statement), "an error of the caller's own is not retried");
}

#[tokio::test(start_paused = true)]
async fn a_recovery_conflict_goes_once_to_the_primary_and_opens_no_breaker() {
    let scene = Scene::new().await;
    for _ in 0..30 {
        let node = scene
            .request(Consistency::Eventual)
            .run_read(async |lease: &mut Lease<FakeBackend>| {
                if lease.is_on_primary() {
                    Ok(lease.node().name().to_owned())
                } else {
                    Err(FakeError::Fault(Fault::Conflict))
                }
            })
            .await
            .unwrap();
        assert_eq!(node, "pg1");
    }
    assert!(scene.router.status().nodes.iter().all(|node| node.breaker == "closed"));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_only_the_primary_could_avoid_is_handed_out_once_the_primary_has_it_too() {
    let scene = Scene::new().await;
    let outcome = scene
        .request(Consistency::Eventual)
        .run_read(async |_: &mut Lease<FakeBackend>| Err::<(), _>(FakeError::Fault(Fault::Misrouted)))
        .await;
    assert_eq!(outcome, Err(FakeError::Fault(Fault::Misrouted)));
}

#[tokio::test(start_paused = true)]
async fn a_busy_pool_is_not_a_dead_server_and_does_not_load_the_primary() {
    let scene = Arc::new(
        Scene::with(|config| {
            config.read_pool_size = 2;
            config.fallback_no_replica = Some(1);
            config.fallback_behind_token = Some(1);
        })
        .await,
    );
    for node in ["pg2", "pg3"] {
        scene.servers.server(node).set_latency(secs(3));
    }
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let scene = scene.clone();
            tokio::spawn(async move { scene.read(Consistency::Eventual).await })
        })
        .collect();
    let before = scene.servers.server("pg1").statements();
    for read in reads {
        let outcome = read.await.unwrap();
        assert!(
            matches!(outcome, Ok(_) | Err(FakeError::Route(RouteError::DeadlineExceeded { .. }))),
            "{outcome:?}"
        );
    }
    assert_eq!(scene.servers.server("pg1").statements(), before);
    assert!(scene.router.status().nodes.iter().all(|node| node.breaker == "closed"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_the_line_for_a_full_pool_blames_the_pool() {
    // The first pool is waited for as long as pools are; then the deadline comes before the second one's patience ends.
    let scene = Scene::with(|config| {
        config.read_pool_size = 1;
        config.fallback_no_replica = Some(1);
        config.fallback_behind_token = Some(1);
        (config.acquire_deadline, config.write_wait) = (secs(1), secs(1));
    })
    .await;
    let held = [
        scene.router.read(Consistency::Eventual).await.unwrap(),
        scene.router.read(Consistency::Eventual).await.unwrap(),
    ];
    let error = route_error(scene.read(Consistency::Eventual).await.unwrap_err());
    assert!(
        error.to_string().contains("saturated") && !error.to_string().contains("unresponsive"),
        "{error}"
    );
    drop(held);
    // Nobody holds a connection, and no answer comes: that is the server's doing.
    for node in ["pg2", "pg3"] {
        scene.servers.server(node).set_connect_time(secs(30));
    }
    let error = route_error(scene.read(Consistency::Eventual).await.unwrap_err());
    assert!(
        error.to_string().contains("unresponsive") && !error.to_string().contains("saturated"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn half_open_lets_one_request_through_and_its_success_closes_the_breaker() {
    let scene = Arc::new(Scene::new().await);
    // The monitor sees nothing of it: only checkouts are refused.
    scene.servers.server("pg2").refuse_next(5);
    let reads = |count| {
        let scene = scene.clone();
        let read = move |_| {
            let scene = scene.clone();
            tokio::spawn(async move { scene.read(Consistency::Eventual).await.unwrap() })
        };
        (0..count).map(read).collect::<Vec<_>>()
    };
    for read in reads(30) {
        read.await.unwrap();
    }
    let breaker = |scene: &Scene| scene.router.status().nodes[1].breaker;
    assert_eq!(breaker(&scene), "open");
    scene.servers.server("pg2").set_latency(ms(400));
    sleep(secs(1)).await;
    assert_eq!(breaker(&scene), "half_open");
    let mut trials = 0;
    for read in reads(30) {
        trials += u32::from(read.await.unwrap() == "pg2");
    }
    assert_eq!(trials, 1);
    assert_eq!(breaker(&scene), "closed");
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_gets_no_new_work() {
    let scene = Scene::new().await;
    scene.router.cluster().nodes()[1].set_draining(true);
    assert_eq!(scene.spread(Consistency::Eventual, 20).await.keys().collect::<Vec<_>>(), ["pg3"]);
    scene.router.cluster().nodes()[1].set_draining(false);
    assert_eq!(scene.spread(Consistency::Eventual, 50).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_cluster_gets_nothing() {
    let servers = FakeCluster::new(2);
    servers.server("pg3").set_system_id(8);
    let router = Router::<FakeBackend>::start(servers.config(), servers.clone()).unwrap();
    assert!(router.cluster().settled(secs(1)).await);
    sleep(ms(300)).await;
    for _ in 0..20 {
        let lease = router.read(Consistency::Eventual).await.unwrap();
        assert_eq!(lease.node().name(), "pg2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_promoted_node_that_is_still_read_only_is_waited_for() {
    let scene = Scene::new().await;
    scene.servers.server("pg1").set_reach(Reach::Refused);
    scene.servers.server("pg2").set_read_only(true);
    scene.servers.promote("pg2");
    scene.servers.follow("pg3", "pg2");
    sleep(secs(2)).await;
    assert_eq!(scene.router.cluster().topology().primary, Primary::Unknown);
    scene.servers.server("pg2").set_read_only(false);
    sleep(ms(300)).await;
    assert_eq!(write(&scene.request(Consistency::Session)).await.unwrap(), "pg2");
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_at_any_moment_leaves_nothing_behind() {
    is_dropped_at_any_moment(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_goes_on_when_its_future_is_dropped_leaves_nothing_behind_when_it_has_ended() {
    is_dropped_at_any_moment(ms(50)).await;
}

/// `last_word`: how long statements go on that nobody waits for.
async fn is_dropped_at_any_moment(last_word: Duration) {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = Scene::new().await;
    for server in scene.servers.servers() {
        server.set_last_word(last_word);
    }
    let mut went_on = 0;
    for round in 0..600 {
        match random.u8(0..10) {
            0 => scene.servers.server("pg2").set_reach(Reach::Frozen),
            1 => scene.servers.server("pg2").set_reach(Reach::Refused),
            2 => scene.servers.server("pg3").refuse_next(3),
            _ => scene.servers.server("pg2").set_reach(Reach::Up),
        }
        let limit = ms(random.u64(0..6));
        let request = scene.request(Consistency::Eventual);
        match random.u8(0..4) {
            0 => drop(tokio::time::timeout(limit, read(&request)).await),
            1 => drop(tokio::time::timeout(limit, write(&request)).await),
            2 => drop(tokio::time::timeout(limit, request.acquire_read()).await),
            _ => {
                let transaction =
                    scene.router.run_write(async |lease: &mut Lease<FakeBackend>| lease.write().await);
                drop(tokio::time::timeout(limit, transaction).await);
            }
        }
        went_on += scene.in_flight();
        if !last_word.is_zero() {
            sleep(last_word).await;
        }
        assert_eq!(scene.in_flight(), 0, "seed {seed}, round {round}");
        assert_eq!(
            (scene.servers.connections(), scene.servers.executing()),
            (0, 0),
            "seed {seed}, round {round}"
        );
        assert_eq!(scene.router.status().fallback_in_use, 0, "seed {seed}, round {round}");
    }
    scene.servers.server("pg2").set_reach(Reach::Up);
    scene.servers.server("pg3").refuse_next(0);
    sleep(secs(70)).await;
    assert_eq!(
        scene.spread(Consistency::Eventual, 50).await.len(),
        2,
        "seed {seed}: no half-open slot is lost"
    );
    assert_eq!(went_on > 20, !last_word.is_zero(), "seed {seed}: {went_on}");
}

#[tokio::test(start_paused = true)]
async fn retries_stay_within_their_budget_when_every_node_fails() {
    let scene = Scene::with(|config| config.breaker.failures = u32::MAX).await;
    let attempts = std::sync::atomic::AtomicU32::new(0);
    sleep(secs(1)).await;
    for _ in 0..2_000 {
        let _ = scene
            .request(Consistency::Eventual)
            .run_read(async |_: &mut Lease<FakeBackend>| {
                attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Err::<(), _>(FakeError::Fault(Fault::Unresponsive))
            })
            .await;
    }
    let attempts = attempts.into_inner();
    assert!(attempts < 2_000 * 13 / 10, "{attempts} attempts for 2,000 requests");
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_does_not_delay_news_of_the_others() {
    let scene = Scene::new().await;
    scene.servers.server("pg3").set_reach(Reach::Frozen);
    sleep(ms(300)).await;
    scene.servers.server("pg2").set_reach(Reach::Refused);
    sleep(ms(400)).await;
    assert!(matches!(scene.refusal("pg2"), Some(Refusal::Down { .. })), "{:?}", scene.refusal("pg2"));
}

#[tokio::test(start_paused = true)]
async fn a_single_node_serves_all_its_reads() {
    let servers = FakeCluster::new(0);
    let router = Router::<FakeBackend>::start(servers.config(), servers.clone()).unwrap();
    assert!(router.cluster().settled(secs(1)).await);
    servers.server("pg1").set_latency(ms(500));
    let reads: Vec<_> = (0..20)
        .map(|_| {
            let request = router.routed(Session::new(), Consistency::Eventual);
            tokio::spawn(async move { read(&request).await })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap(), "pg1", "there is no replica that could be lost");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_primary_has_served_does_not_go_back_in_time() {
    let scene = Scene::new().await;
    let request = scene.request(Consistency::Eventual);
    read(&request.with(Consistency::Strong)).await.unwrap();
    for _ in 0..20 {
        assert_eq!(read(&request).await.unwrap(), "pg1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_lease_does_not_hold_the_half_open_slot() {
    let scene = Scene::new().await;
    scene.servers.server("pg3").set_reach(Reach::Refused);
    scene.servers.server("pg2").refuse_next(5);
    sleep(ms(500)).await;
    for _ in 0..10 {
        scene.read(Consistency::Eventual).await.unwrap();
    }
    assert_eq!(scene.router.status().nodes[1].breaker, "open");
    sleep(secs(1)).await;
    let request = scene.request(Consistency::Eventual);
    let (_, long) =
        request.run_read_keeping(async |lease: &mut Lease<FakeBackend>| lease.query().await).await.unwrap();
    assert_eq!(long.node().name(), "pg2");
    assert_eq!(scene.router.status().nodes[1].breaker, "closed", "its first answer is proof enough");
    assert_eq!(scene.read(Consistency::Eventual).await.unwrap(), "pg2");

    // The lease goes on while the breaker opens anew: the next trial is not its own to hold up.
    scene.servers.server("pg2").refuse_next(5);
    for _ in 0..10 {
        scene.read(Consistency::Eventual).await.unwrap();
    }
    assert_eq!(scene.router.status().nodes[1].breaker, "open");
    sleep(secs(1)).await;
    assert_eq!(scene.read(Consistency::Eventual).await.unwrap(), "pg2");
    drop(long);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_answered_with_no_is_no_death() {
    let scene = Scene::new().await;
    scene.servers.server("pg1").set_latency(secs(30));
    let request = scene.request(Consistency::Session);
    let writing = tokio::spawn(async move { write(&request).await });
    sleep(ms(100)).await;
    scene.servers.server("pg1").reject_probes(true);
    sleep(secs(20)).await;
    assert!(!writing.is_finished(), "a monitor that may not log in any more cuts no one's write");
    scene.servers.server("pg1").reject_probes(false);
    assert_eq!(writing.await.unwrap().unwrap(), "pg1");
}

#[tokio::test(start_paused = true)]
async fn the_monitor_survives_a_panic_of_a_prober() {
    let scene = Scene::new().await;
    scene.servers.server("pg2").panic_at_next_probe();
    sleep(secs(2)).await;
    let status = scene.router.status();
    assert!(status.monitor_age_seconds < 1.0, "{status:?}");
    assert_eq!((status.primary.as_deref(), status.epoch), (Some("pg1"), 1), "and remembers whom it accepted");
    assert_eq!(scene.spread(Consistency::Eventual, 50).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn closing_one_of_two_routers_on_a_cluster_leaves_the_other_alone() {
    let scene = Scene::new().await;
    let second = Router::<FakeBackend>::new(scene.router.cluster(), scene.servers.clone()).unwrap();
    second.close();
    assert_eq!(
        route_error(second.write().await.map(|lease| lease.decision()).unwrap_err()),
        RouteError::Closed
    );
    write(&scene.request(Consistency::Session)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_everything_and_no_secret() {
    let servers = FakeCluster::new(1);
    let mut config = servers.config();
    for node in &mut config.nodes {
        node.url = node.url.with_credentials("app", "hunter2");
    }
    let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
    assert!(router.cluster().settled(secs(1)).await);
    let status = router.status();
    assert_eq!(status.primary.as_deref(), Some("pg1"));
    let json = serde_json::to_string(&status).unwrap();
    assert!(!format!("{json} {router:?} {status:?} {:?}", router.cluster()).contains("hunter2"));
    assert!(json.contains("\"staleness_seconds\""));
}

#[tokio::test(start_paused = true)]
async fn a_closed_router_says_so() {
    let scene = Scene::new().await;
    scene.router.close();
    assert_eq!(route_error(scene.read(Consistency::Eventual).await.unwrap_err()), RouteError::Closed);
    assert_eq!(
        route_error(scene.router.write().await.map(|lease| lease.decision()).unwrap_err()),
        RouteError::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_configuration_is_refused_at_the_start() {
    let servers = FakeCluster::new(1);
    let config = RouterConfig { probe_interval: Duration::ZERO, ..servers.config() };
    let error = Router::<FakeBackend>::start(config, servers.clone()).unwrap_err();
    assert!(error.to_string().contains("probe_interval must be above 0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_within_a_span_that_names_the_node_and_the_reason() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _subscribed = tracing::subscriber::set_default(subscriber);
    let scene = Scene::new().await;
    scene
        .request(Consistency::Strong)
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            tracing::info!("within");
            lease.query().await
        })
        .await
        .unwrap();
    let text = written.text();
    let line = text.lines().find(|line| line.contains("within")).unwrap();
    assert!(
        line.contains("db.routing.node=\"pg1\"") && line.contains("db.routing.reason=\"strong\""),
        "{line}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_decision_tells_its_reason() {
    let scene = Scene::new().await;
    let request = scene.request(Consistency::Eventual);
    read(&request).await.unwrap();
    let decision = request.session().last_decision().unwrap();
    assert_eq!((decision.access, decision.reason.as_str()), (Access::Read, "least_in_flight"));
    read(&request).await.unwrap();
    assert_eq!(request.session().last_decision().unwrap().reason.as_str(), "same_request");
    read(&request.with(Consistency::Strong)).await.unwrap();
    assert_eq!(scene.router.status().nodes[0].last_reason.map(|reason| reason.as_str()), Some("strong"));
    assert_eq!(request.session().last_decision().unwrap().reason.as_str(), "strong");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_one_says_at_its_start_that_the_primary_serves_every_read() {
    for (replicas, warned) in [(0, true), (1, false)] {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        let servers = FakeCluster::new(replicas);
        let _router = Router::<FakeBackend>::start(servers.config(), servers.clone()).unwrap();
        let said = written.text().contains("the primary serves every read");
        assert_eq!(said, warned, "{replicas} replicas: {}", written.text());
    }
}
