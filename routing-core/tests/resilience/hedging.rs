//! Hedged reads: a second replica is asked when the first keeps a read waiting.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use routing_core::balance::Candidate;
use routing_core::testing::{FakeBackend, FakeError, Reach};
use routing_core::{
    Consistency, Fault, HedgeConfig, Lease, Lsn, Node, Priority, Routed, RouterConfig, Session,
};
use tokio::time::{Instant, sleep, timeout};

use crate::counters::Counters;
use crate::{Scene, chosen, ms, read, secs};

/// Reads prefer `pg2`, so that the tests know whom they stall.
fn second_first(candidates: &[Candidate<'_>]) -> usize {
    candidates.iter().position(|candidate| candidate.name == "pg2").unwrap_or(0)
}

/// A millisecond's delay is enough here.
fn soon() -> HedgeConfig {
    HedgeConfig { minimum_delay: ms(1), ..HedgeConfig::default() }
}

fn hedged(config: &mut RouterConfig) {
    config.hedge = Some(soon());
}

/// Two replicas that answer in 5 ms, with 200 reads behind them: 95 of 100 took less than 5.2 ms.
async fn scene(change: impl FnOnce(&mut RouterConfig)) -> Scene {
    let scene = Scene::balanced(2, second_first, |config| {
        hedged(config);
        change(config);
    })
    .await;
    scene.set_latency(ms(5));
    for _ in 0..200 {
        assert_eq!(scene.read().await.unwrap().0, "pg2");
    }
    scene
}

fn stall(scene: &Scene, latency: Duration) {
    scene.servers.server("pg2").set_latency(latency);
}

/// `pg2`, late by 40 ms, of which it has 50 when nobody waits any more.
fn late_and_last_to_speak(scene: &Scene) -> Arc<Node> {
    scene.servers.server("pg2").set_last_word(ms(50));
    stall(scene, ms(40));
    scene.node("pg2")
}

fn hedges(scene: &Scene, name: &str) -> u64 {
    chosen(&scene.node(name), "hedge", &scene.router)
}

fn left_over(scene: &Scene) -> (u32, u32, u32) {
    let in_flight = scene.router.cluster().nodes().iter().map(|node| node.in_flight()).sum();
    (scene.servers.executing(), scene.servers.connections(), in_flight)
}

#[tokio::test(start_paused = true)]
async fn a_read_on_a_stalled_replica_takes_what_most_take_and_what_another_needs() {
    let scene = scene(|_| {}).await;
    stall(&scene, secs(60));
    let began = Instant::now();
    assert_eq!(scene.read().await.unwrap(), ("pg3".to_owned(), "hedge"));
    let took = began.elapsed();
    eprintln!("hedging | a stalled replica, 5 ms on both otherwise | {took:?} instead of 60 s");
    assert!((ms(10)..ms(12)).contains(&took), "{took:?}");
    assert_eq!(left_over(&scene), (0, 0, 0), "the loser is dropped");
    assert!(
        scene.node("pg2").latency() >= ms(9),
        "who lost is at least as slow: {:?}",
        scene.node("pg2").latency()
    );
}

#[tokio::test(start_paused = true)]
async fn who_lost_stays_in_flight_until_its_statement_ends_and_its_node_hears_how_long_it_took() {
    let scene = scene(|_| {}).await;
    let node = late_and_last_to_speak(&scene);
    assert_eq!(scene.read().await.unwrap(), ("pg3".to_owned(), "hedge"));
    assert_eq!(node.in_flight(), 1, "it is at work still");
    assert!((ms(9)..ms(12)).contains(&node.latency()), "so far: {:?}", node.latency());
    sleep(ms(40)).await;
    assert_eq!(left_over(&scene), (0, 0, 0));
    assert!((ms(39)..ms(42)).contains(&node.latency()), "{:?}", node.latency());
    // One that does not end is ended.
    stall(&scene, secs(60));
    assert_eq!(scene.read().await.unwrap(), ("pg3".to_owned(), "hedge"));
    sleep(ms(60)).await;
    assert_eq!(left_over(&scene), (0, 0, 0));
    assert!((ms(55)..ms(65)).contains(&node.latency()), "{:?}", node.latency());
}

#[tokio::test(start_paused = true)]
async fn a_statement_of_a_lease_that_was_handed_out_stays_in_flight_and_says_nothing_of_its_node() {
    let scene = scene(|_| {}).await;
    let node = late_and_last_to_speak(&scene);
    let before = node.latency();
    let lease = scene.request().acquire_read().await.unwrap();
    assert!(timeout(ms(5), lease.query()).await.is_err());
    drop(lease);
    assert_eq!(node.in_flight(), 1);
    sleep(ms(40)).await;
    assert_eq!(left_over(&scene), (0, 0, 0));
    assert!(node.latency() <= before, "{:?}", node.latency());
}

#[tokio::test(start_paused = true)]
async fn a_read_with_a_token_is_counted_once_whoever_has_answered() {
    const READS: &str = "db_routing_session_reads_total";
    let counters = Counters::default();
    let _recording = metrics::set_default_local_recorder(&counters);
    let scene = scene(|_| {}).await;
    let session = Session::new();
    write(&scene.router.routed(session.clone(), Consistency::Session)).await;
    let token = session.signed_token().await.expect("it wrote");
    sleep(ms(300)).await;
    let read_with_token = async || {
        let session = Session::new();
        session.present(&*token);
        read(&scene.router.routed(session, Consistency::Session)).await.unwrap()
    };
    assert_eq!(read_with_token().await, "pg2");
    assert_eq!((counters.of(READS, "replica"), counters.all(READS)), (1, 1));
    stall(&scene, secs(60));
    for number in 2..5 {
        assert_eq!(read_with_token().await, "pg3");
        assert_eq!((counters.of(READS, "replica"), counters.all(READS)), (number, number));
    }
    assert_eq!(counters.of("db_routing_hedges_total", "won"), 3);
    // And one without a token not at all.
    scene.read().await.unwrap();
    assert_eq!(counters.all(READS), 4);
}

async fn write(request: &Routed<FakeBackend>) {
    request.run_write(async |lease: &mut Lease<FakeBackend>| lease.write().await).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_for_a_connection_is_sent_to_another_replica_too() {
    let scene = scene(|_| {}).await;
    scene.servers.server("pg2").set_connect_time(ms(500));
    let began = Instant::now();
    assert_eq!(scene.read().await.unwrap(), ("pg3".to_owned(), "hedge"));
    assert!((ms(10)..ms(12)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(left_over(&scene), (0, 0, 0));
    // Where nobody lets anybody in, it is one wait and not two.
    scene.servers.server("pg3").set_connect_time(ms(500));
    scene.read().await.unwrap();
    assert!(began.elapsed() < ms(530), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_late_by_little_is_waited_for() {
    let scene = scene(|config| config.hedge = Some(HedgeConfig::default())).await;
    stall(&scene, ms(9));
    for _ in 0..5 {
        assert_eq!(scene.read().await.unwrap().0, "pg2");
    }
    stall(&scene, secs(60));
    let began = Instant::now();
    assert_eq!(scene.read().await.unwrap(), ("pg3".to_owned(), "hedge"));
    let took = began.elapsed();
    eprintln!("hedging | a stalled replica, not before 10 ms | {took:?} instead of 60 s");
    assert!((ms(15)..ms(17)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_twentieth_of_the_reads_is_sent_twice() {
    let scene = scene(|config| {
        // Many more would be worth it than may be.
        config.hedge = Some(HedgeConfig { percentile: 0.5, ..soon() });
    })
    .await;
    let mut random = fastrand::Rng::with_seed(1);
    let (mut sent, mut slow, mut waited) = (0, 0, 0);
    for _ in 0..10_000 {
        let stalls = random.f64() < 0.4;
        slow += u32::from(stalls);
        let (runs, began) = (Mutex::new(0), Instant::now());
        let stalls_first = async |lease: &mut Lease<FakeBackend>| {
            let run = {
                let mut runs = runs.lock().unwrap();
                *runs += 1;
                *runs
            };
            lease.query().await?;
            sleep(if stalls && run == 1 { ms(50) } else { ms(0) }).await;
            Ok::<_, FakeError>(())
        };
        scene.request().run_read(stalls_first).await.unwrap();
        sent += *runs.lock().unwrap();
        waited += u32::from(began.elapsed() > ms(20));
    }
    eprintln!(
        "hedging | 10,000 reads, 4 in 10 stall | {} sent twice, {waited} of {slow} still waited",
        sent - 10_000
    );
    assert!((10_450..=10_510).contains(&sent), "a twentieth, and what was saved up: {sent}");
    assert_eq!(slow - waited, sent - 10_000, "each spares one read its wait");
    assert_eq!(left_over(&scene), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tail_of_slow_answers_is_cut_off() {
    let percentile = |mut times: Vec<Duration>, share: f64| {
        times.sort_unstable();
        times[(times.len() as f64 * share) as usize]
    };
    let mut shown = Vec::new();
    for hedge in [None, Some(soon())] {
        let scene = Scene::new(3, |config| config.hedge = hedge.clone()).await;
        let mut random = fastrand::Rng::with_seed(3);
        let mut times = Vec::new();
        for _ in 0..5_000 {
            // Three in a hundred statements take 100 ms, wherever they run.
            let slow = random.f64() < 0.03;
            let began = Instant::now();
            let first = Arc::new(Mutex::new(slow));
            scene
                .request()
                .run_read(async |lease: &mut Lease<FakeBackend>| {
                    let slow = std::mem::take(&mut *first.lock().unwrap());
                    lease.query().await?;
                    sleep(if slow { ms(100) } else { ms(4) }).await;
                    Ok::<_, FakeError>(())
                })
                .await
                .unwrap();
            times.push(began.elapsed());
        }
        shown.push((percentile(times.clone(), 0.5), percentile(times, 0.99)));
    }
    eprintln!("hedging | 3 in 100 take 100 ms | p50 and p99 {:?} without, {:?} with", shown[0], shown[1]);
    assert!(shown[0].1 > ms(100) && shown[1].1 < ms(15), "{shown:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_run_counts_and_not_what_got_no_connection() {
    let scene = scene(|config| config.checkout_timeout = ms(50)).await;
    scene.servers.server("pg2").set_connect_time(secs(1));
    let runs = Arc::new(Mutex::new(Vec::new()));
    let outcome = scene
        .request()
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            runs.lock().unwrap().push(lease.node().name().to_owned());
            sleep(ms(10)).await;
            Err::<(), _>(FakeError::Statement)
        })
        .await;
    assert_eq!(outcome, Err(FakeError::Statement));
    assert_eq!(*runs.lock().unwrap(), ["pg3"], "its error is the statement's own: it is not run again");
}

#[tokio::test(start_paused = true)]
async fn a_read_earns_its_share_once_however_many_nodes_let_it_wait() {
    // Less than a hedge waits: the read moves on by itself.
    let scene = scene(|config| config.checkout_timeout = ms(4)).await;
    let sent_twice = async |reads| {
        let before = hedges(&scene, "pg3");
        stall(&scene, ms(100));
        for _ in 0..reads {
            scene.read().await.unwrap();
        }
        stall(&scene, ms(5));
        hedges(&scene, "pg3") - before
    };
    assert!(sent_twice(40).await < 40, "what was saved up is spent");
    scene.servers.server("pg2").set_connect_time(secs(1));
    for _ in 0..120 {
        assert_eq!(scene.read().await.unwrap().0, "pg3");
    }
    scene.servers.server("pg2").set_connect_time(ms(0));
    let earned = sent_twice(10).await;
    assert!((5..=7).contains(&earned), "a twentieth of 130: {earned}");
}

#[tokio::test(start_paused = true)]
async fn how_fast_a_replica_was_that_serves_no_more_makes_nobody_impatient() {
    let third_first = |candidates: &[Candidate<'_>]| {
        let named = |name| candidates.iter().position(|candidate| candidate.name == name);
        named("pg3").or_else(|| named("pg2")).unwrap_or(0)
    };
    let scene = Scene::balanced(3, third_first, hedged).await;
    scene.set_latency(ms(1));
    for _ in 0..200 {
        assert_eq!(scene.read().await.unwrap().0, "pg3");
    }
    scene.router.cluster().drain("pg3").unwrap();
    scene.set_latency(ms(30));
    for _ in 0..3_000 {
        scene.read().await.unwrap();
    }
    let before = hedges(&scene, "pg4");
    for _ in 0..100 {
        assert_eq!(scene.read().await.unwrap().0, "pg2");
    }
    assert_eq!(hedges(&scene, "pg4"), before, "each takes what most take");
}

#[tokio::test(start_paused = true)]
async fn a_slow_replica_is_not_waited_for_as_long_as_it_always_takes() {
    // Every third read begins on it: what most reads take is what it takes.
    let turns = AtomicUsize::new(0);
    let in_turns = move |candidates: &[Candidate<'_>]| turns.fetch_add(1, Relaxed) % candidates.len();
    let hedge = HedgeConfig { ratio: 1.0, ..soon() };
    let scene = Scene::balanced(3, in_turns, |config| config.hedge = Some(hedge)).await;
    scene.set_latency(ms(5));
    stall(&scene, ms(100));
    for _ in 0..1_000 {
        scene.read().await.unwrap();
    }
    for _ in 0..30 {
        let began = Instant::now();
        scene.read().await.unwrap();
        assert!(began.elapsed() < ms(13), "{:?}", began.elapsed());
    }
    assert_eq!(left_over(&scene), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_being_asked_for_nothing_is_sent_twice() {
    assert_eq!(RouterConfig::default().hedge, None);
    let scene = scene(|config| config.hedge = None).await;
    stall(&scene, secs(1));
    assert_eq!(scene.read().await.unwrap().0, "pg2");
    assert_eq!(scene.servers.server("pg3").statements(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_single_reads_on_replicas_are_sent_twice() {
    let scene = scene(|_| {}).await;
    scene.servers.servers().iter().for_each(|server| server.set_latency(ms(200)));
    // A transaction or a stream begins with this, and goes on on the lease.
    let query = async |lease: &mut Lease<FakeBackend>| lease.query().await;
    let (_, lease) = scene.request().run_read_keeping(query).await.unwrap();
    assert_eq!(lease.node().name(), "pg2");
    drop(lease);
    let lease = scene.request().acquire_read().await.unwrap();
    lease.query().await.unwrap();
    drop(lease);
    scene.router.run_read(Consistency::Strong, query).await.unwrap();
    scene.request().prioritized(Priority::Batch).run_read(query).await.unwrap();
    let written = scene.router.routed(Session::new(), Consistency::Session);
    written.run_statement(async |lease: &mut Lease<FakeBackend>| lease.write().await).await.unwrap();
    written.run_read(query).await.unwrap();
    assert_eq!(scene.servers.server("pg3").statements(), 0);
    assert_eq!((hedges(&scene, "pg1"), hedges(&scene, "pg2"), hedges(&scene, "pg3")), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_node_is_asked_twice_and_the_primary_never_for_that() {
    let scene = scene(|_| {}).await;
    let asked = async |scene: &Scene| {
        let nodes = Arc::new(Mutex::new(Vec::new()));
        let outcome = scene
            .request()
            .run_read(async |lease: &mut Lease<FakeBackend>| {
                nodes.lock().unwrap().push(lease.node().name().to_owned());
                lease.query().await
            })
            .await;
        (outcome.is_ok(), Arc::into_inner(nodes).unwrap().into_inner().unwrap())
    };
    stall(&scene, ms(500));
    assert_eq!(asked(&scene).await, (true, vec!["pg2".to_owned(), "pg3".to_owned()]));
    // The second is no faster, and nobody else is left.
    scene.servers.server("pg3").set_latency(ms(800));
    assert_eq!(asked(&scene).await, (true, vec!["pg2".to_owned(), "pg3".to_owned()]));
    // The second fails: the first is waited for.
    scene.servers.server("pg3").refuse_next(1);
    assert_eq!(asked(&scene).await, (true, vec!["pg2".to_owned()]));
    scene.router.cluster().drain("pg3").unwrap();
    assert_eq!(asked(&scene).await, (true, vec!["pg2".to_owned()]));
    assert_eq!(hedges(&scene, "pg1"), 0);
    assert_eq!(left_over(&scene), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn when_the_first_fails_the_second_goes_on_in_its_place() {
    let scene = scene(|_| {}).await;
    scene.servers.server("pg3").set_latency(ms(300));
    let nodes = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    scene
        .request()
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            nodes.lock().unwrap().push(lease.node().name().to_owned());
            if lease.node().name() == "pg2" {
                sleep(ms(100)).await;
                return Err(FakeError::Fault(Fault::Unreachable));
            }
            lease.query().await.map(drop)
        })
        .await
        .unwrap();
    assert!(began.elapsed() < ms(320), "it had begun already: {:?}", began.elapsed());
    assert_eq!(*nodes.lock().unwrap(), ["pg2", "pg3"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_statement_is_handed_out_by_whoever_was_asked_first() {
    let scene = scene(|_| {}).await;
    let outcome = scene
        .request()
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            let first = lease.node().name() == "pg2";
            sleep(if first { ms(50) } else { ms(1) }).await;
            if first { Ok(()) } else { Err(FakeError::Statement) }
        })
        .await;
    assert_eq!(outcome, Ok(()), "an error is no answer while another may come");
}

async fn seen(request: &Routed<FakeBackend>) -> (String, Lsn) {
    let query = async |lease: &mut Lease<FakeBackend>| {
        let lsn = lease.query().await?;
        Ok::<_, FakeError>((lease.node().name().to_owned(), lsn))
    };
    request.run_read(query).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_moved_by_a_hedge_does_not_go_back_in_time() {
    let scene = scene(|config| config.hedge = Some(HedgeConfig { ratio: 1.0, ..soon() })).await;
    let request = scene.router.routed(Session::new(), Consistency::Session);
    let newest = scene.servers.server("pg1").append();
    scene.servers.server("pg3").set_paused(true);
    let newer = scene.servers.server("pg1").append();
    assert!(newer > newest);
    assert_eq!(seen(&request).await, ("pg2".to_owned(), newer));
    // pg3 is behind what the request has seen: it is not asked, however long pg2 takes.
    stall(&scene, ms(400));
    assert_eq!(seen(&request).await.0, "pg2");
    assert_eq!(scene.servers.server("pg3").statements(), 0);
    // Once it has caught up it is, after the primary was asked where the request may stand.
    scene.servers.server("pg3").set_paused(false);
    stall(&scene, secs(10));
    let began = Instant::now();
    let (node, lsn) = seen(&request).await;
    assert!(began.elapsed() < ms(100), "{:?}", began.elapsed());
    assert_eq!((&*node, lsn), ("pg3", newer));
    // And what comes next is behind neither.
    let last = scene.servers.server("pg1").append();
    scene.servers.server("pg2").set_paused(true);
    assert_eq!(seen(&request).await, ("pg3".to_owned(), last));
}

#[tokio::test(start_paused = true)]
async fn a_request_stays_where_a_hedge_has_moved_it() {
    let scene = scene(|_| {}).await;
    let request = scene.router.routed(Session::new(), Consistency::Session);
    assert_eq!(seen(&request).await.0, "pg2");
    stall(&scene, secs(10));
    assert_eq!(seen(&request).await.0, "pg3");
    // What is written since then the request has not seen, and needs not.
    scene.servers.server("pg3").set_paused(true);
    scene.servers.server("pg1").append();
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(seen(&request).await.0, "pg3");
        assert!(began.elapsed() < ms(6), "it waits for nobody: {:?}", began.elapsed());
        assert_eq!(request.session().last_decision().unwrap().reason.as_str(), "same_request");
    }
    assert_eq!(scene.servers.server("pg1").statements(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_another_read_has_shown_while_a_hedge_ran_binds_what_comes_next() {
    let scene = scene(|_| {}).await;
    scene.servers.server("pg3").set_latency(ms(400));
    let request = scene.router.routed(Session::new(), Consistency::Session);
    assert_eq!(seen(&request).await.0, "pg2");
    // Reports are not hedged.
    let report = request.clone().prioritized(Priority::Batch);
    stall(&scene, ms(200));
    let reported = tokio::spawn(async move { seen(&report).await });
    sleep(ms(1)).await;
    stall(&scene, secs(10));
    let hedged = request.clone();
    let hedged = tokio::spawn(async move { seen(&hedged).await });
    while hedges(&scene, "pg3") == 0 {
        sleep(ms(1)).await;
    }
    assert!(!reported.is_finished());
    scene.servers.server("pg3").set_paused(true);
    let newest = scene.servers.server("pg1").append();
    assert_eq!(reported.await.unwrap(), ("pg2".to_owned(), newest));
    assert_eq!(hedged.await.unwrap().0, "pg3");
    // The next read is over before it could be hedged.
    scene.set_latency(ms(1));
    assert!(seen(&request).await.1 >= newest, "it was shown before");
}

#[tokio::test(start_paused = true)]
async fn reads_in_one_request_never_go_back_whoever_wins() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let hedge = HedgeConfig { ratio: 1.0, percentile: 0.3, ..soon() };
    let scene = scene(|config| config.hedge = Some(hedge)).await;
    let mut moved = BTreeSet::new();
    for round in 0..300 {
        for name in ["pg2", "pg3"] {
            let server = scene.servers.server(name);
            server.set_apply_lag(ms(*random.choice(&[0, 0, 2, 40, 300]).unwrap()));
        }
        let request = scene.router.routed(Session::new(), Consistency::Session);
        let mut last = Lsn::default();
        for _ in 0..4 {
            for name in ["pg2", "pg3"] {
                scene.servers.server(name).set_latency(ms(*random.choice(&[1, 5, 30, 200]).unwrap()));
            }
            scene.servers.server("pg1").append();
            sleep(ms(random.u64(0..20))).await;
            let (node, lsn) = seen(&request).await;
            assert!(lsn >= last, "seed {seed}, round {round}: {node} shows {lsn} after {last}");
            last = lsn;
            moved.insert(node);
        }
    }
    assert!(hedges(&scene, "pg3") > 20, "seed {seed}: {}", hedges(&scene, "pg3"));
    assert!(moved.len() > 1);
    assert_eq!(left_over(&scene), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_heeds_the_token_of_the_client() {
    let scene = scene(|_| {}).await;
    scene.servers.server("pg3").set_paused(true);
    let writer = scene.router.routed(Session::new(), Consistency::Session);
    writer.run_statement(async |lease: &mut Lease<FakeBackend>| lease.write().await).await.unwrap();
    let token = writer.session().token().await.unwrap();
    sleep(ms(500)).await;
    stall(&scene, ms(300));
    let reader = scene.router.routed(Session::new(), Consistency::Session);
    reader.session().observe(token);
    assert_eq!(seen(&reader).await.0, "pg2");
    assert_eq!(scene.servers.server("pg3").statements(), 0, "it has not replayed that");
    // A client without a token may see it.
    assert_eq!(scene.read().await.unwrap().0, "pg3");
}

#[tokio::test(start_paused = true)]
async fn a_node_in_doubt_is_not_asked_second() {
    let scene = scene(|_| {}).await;
    stall(&scene, ms(300));
    scene.open_breaker("pg3").await;
    assert_eq!(scene.read().await.unwrap().0, "pg2");
    sleep(secs(2)).await;
    assert_eq!(scene.breaker("pg3"), "half_open");
    assert_eq!(scene.read().await.unwrap().0, "pg2");
    assert_eq!(hedges(&scene, "pg3"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hedged_read_dropped_at_any_moment_leaves_nothing_behind() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = scene(|config| config.hedge = Some(HedgeConfig { ratio: 1.0, ..soon() })).await;
    for round in 0..500 {
        for name in ["pg2", "pg3"] {
            let server = scene.servers.server(name);
            server.set_latency(ms(random.u64(1..40)));
            server.set_connect_time(ms(random.u64(0..4)));
            server.set_reach(if random.u8(0..20) == 0 { Reach::Refused } else { Reach::Up });
        }
        let request = scene.router.routed(Session::new(), Consistency::Session);
        drop(timeout(ms(random.u64(0..40)), read(&request)).await);
        assert_eq!(left_over(&scene), (0, 0, 0), "seed {seed}, round {round}");
    }
}
