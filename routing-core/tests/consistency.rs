//! What a read may miss: tokens, waiting, and reads of one request, on servers in memory and tokio's paused clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::future::join_all;
use routing_core::testing::{FakeBackend, FakeCluster, FakeError, Reach};
use routing_core::{
    Consistency, Fault, Lease, Lsn, Mark, Reason, RouteError, Routed, Router, RouterConfig, Session,
    SessionToken, SystemId, Timeline, UnixMillis,
};
use tokio::time::{Instant, sleep};

const KEYS: &str = "the-key-of-all-processes-of-this-application";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Two processes of one application on the same servers.
struct Scene {
    servers: FakeCluster,
    one: Router<FakeBackend>,
    two: Router<FakeBackend>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with a log of three writes, which every replica has applied.
    async fn written() -> Self {
        let scene = Self::new().await;
        for _ in 0..3 {
            scene.write().await;
        }
        sleep(ms(300)).await;
        scene
    }

    async fn with(change: impl Fn(&mut RouterConfig)) -> Self {
        let servers = FakeCluster::new(2);
        let process = async || {
            let mut config = servers.config();
            config.token_keys = Some(KEYS.parse().unwrap());
            change(&mut config);
            let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
            assert!(router.cluster().settled(Duration::from_secs(5)).await);
            router
        };
        let (one, two) = (process().await, process().await);
        Self { servers, one, two }
    }

    fn lag(&self, lag: Duration) {
        for replica in ["pg2", "pg3"] {
            self.servers.server(replica).set_apply_lag(lag);
        }
    }

    /// One write by the first process; its position and the token that the client gets.
    async fn write(&self) -> (Lsn, String) {
        let session = Session::new();
        let lsn = write(&self.one.routed(session.clone(), Consistency::Session)).await.unwrap();
        (lsn, session.signed_token().await.unwrap())
    }

    /// A request of the client to the second process.
    fn request(&self, token: &str) -> Routed<FakeBackend> {
        self.request_with(token, Consistency::Session)
    }

    fn request_with(&self, token: &str, consistency: Consistency) -> Routed<FakeBackend> {
        let session = Session::new();
        session.present(token);
        self.two.routed(session, consistency)
    }

    /// A token of our making, as if another process had issued it.
    fn token(&self, timeline: u32, mark: Mark) -> String {
        let token = SessionToken {
            system_id: SystemId(7),
            timeline: Timeline(timeline),
            mark,
            issued_at: UnixMillis::now(),
        };
        token.encode(&KEYS.parse().unwrap())
    }
}

async fn write(request: &Routed<FakeBackend>) -> Result<Lsn, FakeError> {
    request
        .run_statement(async |lease: &mut Lease<FakeBackend>| Ok::<_, FakeError>(lease.write().await?))
        .await
}

/// A read: who served it, why, and the position that it saw.
async fn read(request: &Routed<FakeBackend>) -> Result<(String, Reason, Lsn), FakeError> {
    request
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            let seen = lease.query().await?;
            let decision = lease.decision();
            Ok::<_, FakeError>((decision.node.to_string(), decision.reason, seen))
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn a_client_reads_its_write_on_another_process_from_a_replica_that_catches_up_in_time() {
    let scene = Scene::new().await;
    scene.lag(ms(5));
    let mut reasons = Vec::new();
    for _ in 0..100 {
        let (written, token) = scene.write().await;
        let began = Instant::now();
        let (node, reason, seen) = read(&scene.request(&token)).await.unwrap();
        assert!(seen >= written, "{node} served {seen} after a write at {written}");
        assert!(began.elapsed() <= ms(30 + 2), "{:?}", began.elapsed());
        reasons.push(reason);
    }
    let waited = reasons.iter().filter(|reason| **reason == Reason::WaitedForReplay).count();
    assert!(waited >= 95, "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn when_every_replica_lags_too_far_the_primary_serves_the_session_after_a_bounded_wait() {
    let scene = Scene::new().await;
    scene.lag(ms(200));
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let (written, token) = scene.write().await;
        let began = Instant::now();
        let (node, reason, seen) = read(&scene.request(&token)).await.unwrap();
        assert_eq!((node.as_str(), reason), ("pg1", Reason::FallbackBehindToken));
        assert!(seen >= written);
        slowest = slowest.max(began.elapsed());
        // A client without a token does not pay for it.
        assert_ne!(read(&scene.two.routed(Session::new(), Consistency::Session)).await.unwrap().0, "pg1");
        sleep(ms(70)).await;
    }
    assert!(slowest <= ms(30 + 2), "{slowest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_known_to_lag_by_more_is_not_waited_for() {
    let scene = Scene::new().await;
    // More than the time between two looks at the primary: the monitor knows it whenever it looks.
    scene.lag(ms(1_000));
    // Writes that never cease: the monitor knows the lag.
    for _ in 0..200 {
        scene.write().await;
        sleep(ms(10)).await;
    }
    let (_, token) = scene.write().await;
    let began = Instant::now();
    assert_eq!(read(&scene.request(&token)).await.unwrap().0, "pg1");
    assert!(began.elapsed() <= ms(2), "it waited for {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_nobody_has_looked_at_for_a_while_is_not_taken_for_late() {
    let scene = Scene::new().await;
    scene.lag(ms(5));
    // Writes that never cease, and now and then a read, at any time after the last look at the primary.
    let mut reasons = Vec::new();
    for _ in 0..100 {
        for _ in 0..9 {
            scene.write().await;
            sleep(ms(7)).await;
        }
        let (written, token) = scene.write().await;
        let (node, reason, seen) = read(&scene.request(&token)).await.unwrap();
        assert!(seen >= written, "{node} served {seen} after a write at {written}");
        reasons.push(reason);
    }
    let waited = reasons.iter().filter(|reason| **reason == Reason::WaitedForReplay).count();
    assert!(waited >= 95, "{waited} of 100 were served by a replica: {reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn one_probe_of_each_replica_answers_all_who_wait() {
    let scene = Scene::new().await;
    scene.lag(ms(5));
    let (written, token) = scene.write().await;
    let probes = || scene.servers.servers().iter().map(|server| server.probes()).sum::<u32>();
    let before = probes();
    let requests: Vec<_> = (0..500).map(|_| scene.request(&token)).collect();
    for served in join_all(requests.iter().map(read)).await {
        assert!(served.unwrap().2 >= written);
    }
    assert!(probes() - before <= 12, "{} probes", probes() - before);
}

#[tokio::test(start_paused = true)]
async fn reads_of_a_token_ahead_of_every_replica_are_capped_on_the_primary() {
    let scene = Scene::with(|config| config.fallback_behind_token = Some(4)).await;
    scene.lag(ms(60_000));
    sleep(ms(1_000)).await;
    let (_, token) = scene.write().await;
    // Everybody knows by now that waiting is of no use.
    sleep(ms(300)).await;
    scene.servers.server("pg1").set_latency(ms(100));
    let requests: Vec<_> = (0..20).map(|_| scene.request(&token)).collect();
    let served = join_all(requests.iter().map(read)).await;
    let (served, shed): (Vec<_>, Vec<_>) = served.into_iter().partition(Result::is_ok);
    assert_eq!(served.len(), 4);
    for refused in shed {
        let FakeError::Route(RouteError::Overloaded { cap: 4, refusals, .. }) = refused.unwrap_err() else {
            panic!("shed for another reason");
        };
        assert!(refusals.to_string().contains("pg2: behind token by 10 bytes"), "{refusals}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_at_every_level_but_eventual_and_strong_needs_none() {
    let scene = Scene::new().await;
    scene.lag(ms(1_000));
    let (written, token) = scene.write().await;
    let bounded = Consistency::BoundedStaleness(Duration::from_secs(4));
    for (consistency, sees) in [
        (Consistency::Session, true),
        (bounded, true),
        (Consistency::Strong, true),
        (Consistency::Eventual, false),
    ] {
        let (node, _, seen) = read(&scene.request_with(&token, consistency)).await.unwrap();
        assert_eq!(seen >= written, sees, "{consistency}: {node}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_token_of_ours_changes_nothing() {
    let scene = Scene::new().await;
    scene.lag(ms(1_000));
    let (_, token) = scene.write().await;
    let foreign = SessionToken {
        system_id: SystemId(8),
        timeline: Timeline(9),
        mark: Mark::Position(Lsn::from(u64::MAX)),
        issued_at: UnixMillis::now(),
    };
    let keys = KEYS.parse().unwrap();
    let other_keys = "some-key-that-nobody-here-has-ever-used-before".parse().unwrap();
    for text in [
        foreign.encode(&keys),
        SessionToken { system_id: SystemId(7), ..foreign }.encode(&other_keys),
        SessionToken { system_id: SystemId(7), issued_at: UnixMillis(1), ..foreign }.encode(&keys),
        token[..token.len() - 1].to_owned(),
        "x".repeat(10_000),
        String::new(),
        "\u{1f980}".to_owned(),
    ] {
        let (node, reason, _) = read(&scene.request(&text)).await.unwrap();
        assert!(node != "pg1" && reason == Reason::LeastInFlight, "{text}: {node} {reason}");
    }
    assert_eq!(write(&scene.request(&foreign.encode(&keys))).await.unwrap(), Lsn::from(1_020));
}

#[tokio::test(start_paused = true)]
async fn of_several_tokens_the_strictest_counts_and_of_more_than_four_the_first() {
    let scene = Scene::new().await;
    scene.lag(ms(1_000));
    let (_, old) = scene.write().await;
    sleep(ms(1_500)).await;
    let (newest, new) = scene.write().await;
    for order in [[&old, &new], [&new, &old]] {
        let request = scene.request(order[0]);
        request.session().present(order[1].as_str());
        assert!(read(&request).await.unwrap().2 >= newest);
    }
    let request = scene.request(&old);
    for _ in 0..3 {
        request.session().present(old.as_str());
    }
    request.session().present(new.as_str());
    assert_ne!(read(&request).await.unwrap().0, "pg1");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_wrote_reads_from_the_primary_unless_its_write_needs_no_token() {
    let scene = Scene::new().await;
    scene.lag(ms(1_000));
    let request = scene.one.routed(Session::new(), Consistency::Session);
    write(&request.untracked()).await.unwrap();
    assert!(!request.session().wrote());
    assert_eq!(request.session().signed_token().await, None);
    assert_ne!(read(&request).await.unwrap().0, "pg1");

    let request = scene.one.routed(Session::new(), Consistency::Session);
    let written = write(&request).await.unwrap();
    let (node, reason, seen) = read(&request).await.unwrap();
    assert_eq!((node.as_str(), reason), ("pg1", Reason::PinnedBySession));
    assert!(seen >= written);
}

#[tokio::test(start_paused = true)]
async fn without_a_position_the_client_is_pinned_to_the_primary() {
    let scene = Scene::new().await;
    let session = Session::new();
    write(&scene.one.routed(session.clone(), Consistency::Session)).await.unwrap();
    scene.servers.server("pg1").set_reach(Reach::Frozen);
    let began = Instant::now();
    let token = session.signed_token().await.unwrap();
    assert!(began.elapsed() <= ms(1_100), "the response waits {:?}", began.elapsed());
    scene.servers.server("pg1").set_reach(Reach::Up);
    sleep(ms(2_000)).await;
    let (node, reason, _) = read(&scene.request(&token)).await.unwrap();
    assert_eq!((node.as_str(), reason), ("pg1", Reason::PinnedBySession));
}

#[tokio::test(start_paused = true)]
async fn a_position_of_another_epoch_is_none_of_the_write() {
    let scene = Scene::new().await;
    let session = Session::new();
    write(&scene.one.routed(session.clone(), Consistency::Session)).await.unwrap();
    scene.servers.server("pg1").set_reach(Reach::Refused);
    scene.servers.promote("pg2");
    scene.servers.follow("pg3", "pg2");
    sleep(ms(1_500)).await;
    assert_eq!(scene.one.status().primary.as_deref(), Some("pg2"));
    assert!(matches!(session.token().await.unwrap().mark, Mark::Pin(_)));
}

#[tokio::test(start_paused = true)]
async fn after_a_failover_a_token_of_the_time_before_goes_to_the_primary_and_never_hangs() {
    let scene = Scene::new().await;
    // A write that no replica ever gets.
    scene.lag(ms(60_000));
    let (_, lost) = scene.write().await;
    scene.servers.server("pg1").set_reach(Reach::Refused);
    scene.lag(ms(0));
    scene.servers.promote("pg2");
    scene.servers.follow("pg3", "pg2");
    assert!(scene.two.cluster().settled(Duration::from_secs(5)).await);
    sleep(ms(1_000)).await;
    let began = Instant::now();
    let (node, reason, _) = read(&scene.request(&lost)).await.unwrap();
    assert_eq!((node.as_str(), reason), ("pg2", Reason::PinnedBySession));
    assert!(began.elapsed() <= ms(50), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_timeline_that_is_not_known_yet_holds_back_reads_and_writes_until_it_is() {
    let scene = Scene::with(|config| config.write_wait = ms(400)).await;
    let token = scene.token(2, Mark::Position(Lsn::from(1_000)));
    let request = scene.request(&token);
    let reading = tokio::spawn(async move { read(&request).await });
    sleep(ms(100)).await;
    // pg1 still is what this process takes for the primary, and must not get anything.
    let refused = write(&scene.two.routed(Session::new(), Consistency::Session)).await.unwrap_err();
    assert!(matches!(refused, FakeError::Route(RouteError::NoPrimary(_))), "{refused}");
    assert!(!reading.is_finished());
    scene.servers.follow("pg1", "pg2");
    scene.servers.promote_onto("pg2", 2);
    scene.servers.follow("pg3", "pg2");
    scene.servers.follow("pg1", "pg2");
    reading.await.unwrap().unwrap();
    assert_eq!(scene.two.status().highest_timeline, Some(Timeline(2)));
    write(&scene.two.routed(Session::new(), Consistency::Session)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_replacement_of_a_lost_node_is_never_behind_it() {
    for (lag_of_the_other, expected) in [(0, "a replica"), (10_000, "the primary")] {
        let scene = Scene::new().await;
        let request = scene.two.routed(Session::new(), Consistency::Eventual);
        write(&scene.one.routed(Session::new(), Consistency::Session)).await.unwrap();
        sleep(ms(300)).await;
        let (first, _, seen) = read(&request).await.unwrap();
        let other = if first == "pg2" { "pg3" } else { "pg2" };
        scene.servers.server(other).set_apply_lag(ms(lag_of_the_other));
        // The first one shows more than the other has when it goes.
        let newest = write(&scene.one.routed(Session::new(), Consistency::Session)).await.unwrap();
        let (again, _, seen_then) = read(&request).await.unwrap();
        assert_eq!((again, seen_then), (first.clone(), newest));
        assert!(seen_then > seen);
        scene.servers.server(&first).set_reach(Reach::Refused);
        let (replacement, _, seen_last) = read(&request).await.unwrap();
        assert!(seen_last >= seen_then, "{replacement} went back from {seen_then} to {seen_last}");
        assert_eq!(replacement == "pg1", expected == "the primary", "{replacement}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_crashed_between_two_reads_of_a_request_does_not_show_the_second_less() {
    let scene = Scene::written().await;
    let request = scene.two.routed(Session::new(), Consistency::Eventual);
    let (first, _, seen) = read(&request).await.unwrap();
    // It is back before the monitor has looked, on new connections only.
    scene.servers.server(&first).crash_back_to(Lsn::from(1_000));
    let (node, _, seen_then) = read(&request).await.unwrap();
    assert!(seen_then >= seen, "{node} went back from {seen} to {seen_then}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_takes_over_however_long_the_lost_one_was_waited_for() {
    let scene = Scene::new().await;
    let request = scene.two.routed(Session::new(), Consistency::Session);
    let (first, _, _) = read(&request).await.unwrap();
    // Far longer than a read waits for replay.
    let lost = scene.servers.server(&first).clone();
    lost.set_latency(ms(500));
    let reading = tokio::spawn(async move { read(&request).await });
    sleep(ms(200)).await;
    lost.set_reach(Reach::Refused);
    let (node, _, _) = reading.await.unwrap().unwrap();
    assert!(node != first && node != "pg1", "{node} took over from {first}");
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_on_from_what_its_request_has_written() {
    let scene = Scene::new().await;
    scene.lag(ms(1_000));
    let session = Session::new();
    let written = write(&scene.one.routed(session.clone(), Consistency::Session)).await.unwrap();
    let token = session.token().await.unwrap();
    let job = Session::new();
    job.observe(token);
    assert_eq!(job.token().await, Some(token));
    assert!(read(&scene.two.routed(job, Consistency::Session)).await.unwrap().2 >= written);
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_probe_was_lost_has_no_position_until_it_is_asked_again() {
    let scene = Scene::new().await;
    let (written, token) = scene.write().await;
    sleep(ms(500)).await;
    assert_ne!(read(&scene.request(&token)).await.unwrap().0, "pg1");
    // Both crash, and come back behind what they had shown, while this process has not looked yet.
    for replica in ["pg2", "pg3"] {
        scene.servers.server(replica).crash_back_to(Lsn::from(1_000));
    }
    for _ in 0..20 {
        let (node, _, seen) = read(&scene.request(&token)).await.unwrap();
        assert!(seen >= written, "{node} served {seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_crashed_while_a_request_was_busy_with_what_it_had_read_does_not_show_it_less() {
    let scene = Scene::written().await;
    let request = scene.two.routed(Session::new(), Consistency::Eventual);
    let (first, seen) = request
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            let seen = lease.query().await?;
            // The server crashes behind what was read, and is back, while the caller still looks at it.
            let node = lease.decision().node.to_string();
            scene.servers.server(&node).crash_back_to(Lsn::from(1_000));
            sleep(ms(500)).await;
            Ok::<_, FakeError>((node, seen))
        })
        .await
        .unwrap();
    for _ in 0..5 {
        let (node, _, seen_then) = read(&request).await.unwrap();
        assert!(seen_then >= seen, "{first}, then {node}, went back from {seen} to {seen_then}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_reads_at_once_share_a_node_and_what_comes_after_both_shows_no_less_than_either() {
    let scene = Scene::new().await;
    // pg3 shows less than pg2 for as long as the test lasts.
    scene.servers.server("pg3").set_paused(true);
    scene.write().await;
    sleep(ms(100)).await;
    let mut shared = 0;
    for _ in 0..40 {
        let request = scene.two.routed(Session::new(), Consistency::Eventual);
        let (one, other) = tokio::join!(read(&request), read(&request));
        let ((one, _, saw), (other, _, saw_too)) = (one.unwrap(), other.unwrap());
        shared += u32::from(one == other);
        for _ in 0..3 {
            let (then, _, seen) = read(&request).await.unwrap();
            assert!(seen >= saw.max(saw_too), "{one} and {other} showed more than {then} did then");
        }
    }
    assert_eq!(shared, 40, "two reads at once went to two nodes");
}

#[tokio::test(start_paused = true)]
async fn reads_at_once_that_two_nodes_had_to_serve_bind_what_comes_after_them() {
    let scene = Scene::with(|config| config.read_pool_size = 20).await;
    scene.servers.server("pg3").set_paused(true);
    scene.write().await;
    sleep(ms(100)).await;
    let request = scene.two.routed(Session::new(), Consistency::Eventual);
    // pg2 refuses the second of two reads, which pg3 then serves, and comes last.
    let pg2 = scene.servers.server("pg2").clone();
    let on = async |name: &'static str, pause: Duration| {
        request
            .run_read(async |lease: &mut Lease<FakeBackend>| {
                if &*lease.decision().node != name {
                    return Err(FakeError::Fault(Fault::Refusing));
                }
                let seen = lease.query().await?;
                sleep(pause).await;
                Ok::<_, FakeError>(seen)
            })
            .await
            .unwrap()
    };
    let (saw, saw_less) = tokio::join!(on("pg2", ms(5)), on("pg3", ms(30)));
    assert!(saw > saw_less);
    let (then, _, seen) = read(&request).await.unwrap();
    assert!(seen >= saw, "pg2 showed {saw}, then {then} {seen}");
    assert_eq!(pg2.lsn(), saw);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_for_a_connection_hears_that_its_request_has_left_the_node() {
    let scene = Scene::with(|config| config.read_pool_size = 1).await;
    for _ in 0..3 {
        scene.write().await;
    }
    sleep(ms(300)).await;
    let request = scene.two.routed(Session::new(), Consistency::Eventual);
    let (first, _, seen) = read(&request).await.unwrap();
    let server = scene.servers.server(&first).clone();
    let cluster = scene.two.cluster().clone();
    let probe = || cluster.nodes().iter().find(|node| node.name() == first).unwrap().probe_now();

    // Another request holds the node's only connection, so the next read waits for it.
    let mut held = Vec::new();
    while !held.iter().any(|lease: &Lease<FakeBackend>| *lease.decision().node == *first) {
        held.push(scene.two.read(Consistency::Eventual).await.unwrap());
    }
    held.retain(|lease| *lease.decision().node == *first);
    let waits = request.clone();
    let waiting = tokio::spawn(async move { read(&waits).await });
    sleep(ms(10)).await;
    assert!(!waiting.is_finished());
    // The node crashes. Another read of the request finds it gone, and it comes back behind what it had shown.
    server.set_reach(Reach::Refused);
    server.crash_back_to(Lsn::from(1_000));
    probe();
    sleep(ms(20)).await;
    let (other, ..) = read(&request).await.unwrap();
    assert_ne!(other, first);
    server.set_reach(Reach::Up);
    for _ in 0..10 {
        probe();
        sleep(ms(20)).await;
    }
    drop(held);
    let (node, _, seen_then) = waiting.await.unwrap().unwrap();
    assert!(seen_then >= seen, "{first}, then {node}, went back from {seen} to {seen_then}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_only_writes_heeds_a_token_of_a_timeline_that_is_not_known_yet() {
    let scene = Scene::with(|config| config.write_wait = ms(400)).await;
    let token = scene.token(2, Mark::Position(Lsn::from(1_000)));
    // pg1 still is what this process takes for the primary. The client has been told by another that it is not.
    let refused = write(&scene.request(&token)).await.unwrap_err();
    assert!(matches!(refused, FakeError::Route(RouteError::NoPrimary(_))), "{refused}");
    let refused = scene.request_with(&token, Consistency::Eventual).acquire_write().await.unwrap_err();
    assert!(matches!(refused, FakeError::Route(RouteError::NoPrimary(_))), "{refused}");
    scene.servers.promote_onto("pg2", 2);
    scene.servers.follow("pg3", "pg2");
    scene.servers.follow("pg1", "pg2");
    write(&scene.request(&token)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_newer_timeline_is_heard_of_for_as_long_as_tokens_of_it_arrive() {
    let lifetime = Duration::from_secs(60);
    let scene = Scene::with(|config| {
        config.write_wait = ms(400);
        config.token_lifetime = lifetime;
    })
    .await;
    let refuses = async || {
        let written = write(&scene.two.routed(Session::new(), Consistency::Session)).await;
        matches!(written, Err(FakeError::Route(RouteError::NoPrimary(_))))
    };
    let present = async || {
        let token = scene.token(2, Mark::Position(Lsn::from(1_000)));
        let _ = tokio::time::timeout(ms(50), read(&scene.request(&token))).await;
    };
    present().await;
    assert!(refuses().await);
    sleep(lifetime - ms(2_000)).await;
    present().await;
    sleep(ms(10_000)).await;
    assert!(refuses().await, "the second token of the timeline counted for nothing");
    sleep(lifetime).await;
    assert!(!refuses().await, "no token of the timeline can count any more");
    present().await;
    assert!(refuses().await, "the timeline was heard of anew");
}

#[tokio::test(start_paused = true)]
async fn a_pin_hides_neither_a_position_nor_a_newer_timeline_of_another_token() {
    let scene = Scene::new().await;
    scene.lag(ms(1_000));
    let (written, token) = scene.write().await;
    // A pin that is over, of a process whose tokens live for a shorter time.
    let ago = |seconds: u64| UnixMillis(UnixMillis::now().0 - 1_000 * seconds);
    let over = SessionToken {
        system_id: SystemId(7),
        timeline: Timeline(1),
        mark: Mark::Pin(ago(100)),
        issued_at: ago(200),
    };
    let request = scene.request(&token);
    request.session().observe(over);
    assert!(read(&request).await.unwrap().2 >= written);
    assert!(matches!(request.session().token().await.unwrap().mark, Mark::Position(_)));
    let over = over.encode(&KEYS.parse().unwrap());
    for tokens in [[&over, &token], [&token, &over]] {
        let request = scene.request(tokens[0]);
        request.session().present(tokens[1].as_str());
        let (node, _, seen) = read(&request).await.unwrap();
        assert!(seen >= written, "{node} served {seen} after a write at {written}");
    }
    // A pin that is not, of a timeline before that of the other token.
    let pin = scene.token(1, Mark::Pin(UnixMillis::now().after(Duration::from_secs(60))));
    let newer = scene.token(2, Mark::Position(Lsn::from(1_000)));
    for tokens in [[&pin, &newer], [&newer, &pin]] {
        let request = scene.request(tokens[0]);
        request.session().present(tokens[1].as_str());
        let read = tokio::time::timeout(ms(500), read(&request)).await;
        assert!(read.is_err(), "{read:?} was served below timeline 2");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_standby_said_before_it_crashed_counts_for_nothing_while_the_monitor_is_not_let_in_again() {
    let scene = Scene::new().await;
    let (written, token) = scene.write().await;
    sleep(ms(500)).await;
    let pg2 = scene.servers.server("pg2").clone();
    pg2.reject_probes(true);
    pg2.crash_back_to(Lsn::from(1_000));
    sleep(ms(500)).await;
    for consistency in
        [Consistency::Eventual, Consistency::Session, Consistency::BoundedStaleness(Duration::from_secs(2))]
    {
        for _ in 0..10 {
            let (node, _, seen) = read(&scene.request_with(&token, consistency)).await.unwrap();
            assert!(node == "pg3" && seen >= written, "{consistency}: {node} served {seen}");
        }
    }
    pg2.reject_probes(false);
    sleep(ms(500)).await;
    let (node, _, seen) = read(&scene.request(&token)).await.unwrap();
    assert!(seen >= written, "{node} served {seen}");
}

#[tokio::test(start_paused = true)]
async fn a_session_hands_on_what_counts_here_and_not_what_another_cluster_has_written() {
    let scene = Scene::new().await;
    let (_, token) = scene.write().await;
    let foreign = SessionToken {
        system_id: SystemId(8),
        timeline: Timeline(9),
        mark: Mark::Position(Lsn::from(u64::MAX)),
        issued_at: UnixMillis::now(),
    };
    let request = scene.request(&foreign.encode(&KEYS.parse().unwrap()));
    request.session().present(token.as_str());
    read(&request).await.unwrap();
    assert_eq!(request.session().token().await.unwrap().system_id, SystemId(7));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_another_request_loses_moves_no_request_from_its_node() {
    let scene = Scene::new().await;
    sleep(ms(300)).await;
    let request = scene.two.routed(Session::new(), Consistency::Eventual);
    let (first, _, seen) = read(&request).await.unwrap();
    // It has less than the other replica from here on, which is no reason to leave it.
    scene.servers.server(&first).set_paused(true);
    scene.write().await;
    let mut lost = false;
    while !lost {
        let other = scene.two.routed(Session::new(), Consistency::Eventual);
        let lease = other.acquire_read().await.unwrap();
        lost = *lease.decision().node == *first;
        lease.end(lost.then_some(Fault::Unreachable));
    }
    for _ in 0..3 {
        let (node, _, seen_then) = read(&request).await.unwrap();
        assert_eq!((node, seen_then), (first.clone(), seen));
    }
}

#[tokio::test(start_paused = true)]
async fn reads_that_a_token_pins_to_the_primary_are_capped_there() {
    let scene = Scene::with(|config| config.fallback_behind_token = Some(4)).await;
    let pin = scene.token(1, Mark::Pin(UnixMillis::now().after(Duration::from_secs(60))));
    scene.servers.server("pg1").set_latency(ms(100));
    let requests: Vec<_> = (0..20).map(|_| scene.request(&pin)).collect();
    let served = join_all(requests.iter().map(read)).await;
    let (served, shed): (Vec<_>, Vec<_>) = served.into_iter().partition(Result::is_ok);
    assert_eq!((served.len(), shed.len()), (4, 16));
    for served in served {
        assert_eq!(served.unwrap().1, Reason::PinnedBySession);
    }
    for refused in shed {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, FakeError::Route(RouteError::Overloaded { cap: 4, .. })), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_timeline_in_a_token_has_every_node_looked_at_at_once() {
    let rarely = |config: &mut RouterConfig| {
        config.probe_interval = Duration::from_secs(60);
        (config.max_staleness, config.max_staleness_return) =
            (Duration::from_secs(600), Duration::from_secs(600));
    };
    let scene = Scene::with(rarely).await;
    // Until the primary is known the monitor looks often.
    sleep(ms(1_000)).await;
    scene.servers.promote("pg2");
    scene.servers.follow("pg1", "pg2");
    scene.servers.follow("pg3", "pg2");
    let token = scene.token(2, Mark::Position(Lsn::from(1_000)));
    let began = Instant::now();
    read(&scene.request(&token)).await.unwrap();
    assert!(began.elapsed() <= ms(500), "{:?}", began.elapsed());
    assert_eq!(scene.two.status().primary.as_deref(), Some("pg2"));
}

#[tokio::test(start_paused = true)]
async fn where_timelines_are_hidden_positions_count_until_the_first_failover_alone() {
    let scene = Scene::new().await;
    for replica in ["pg2", "pg3"] {
        scene.servers.server(replica).hide_timeline(true);
    }
    sleep(ms(500)).await;
    let bounded = Consistency::BoundedStaleness(Duration::from_secs(4));
    let nodes = async |token: &str| {
        let mut nodes = Vec::new();
        for consistency in [Consistency::Session, bounded, Consistency::Eventual] {
            nodes.push(read(&scene.request_with(token, consistency)).await.unwrap().0);
        }
        nodes
    };
    let (_, token) = scene.write().await;
    sleep(ms(500)).await;
    assert!(nodes(&token).await.iter().all(|node| node != "pg1"));
    scene.servers.server("pg1").set_reach(Reach::Refused);
    scene.servers.promote("pg2");
    scene.servers.follow("pg3", "pg2");
    sleep(ms(2_000)).await;
    let (_, token) = scene.write().await;
    sleep(ms(500)).await;
    let began = Instant::now();
    let served = nodes(&token).await;
    assert_eq!(served, ["pg2", "pg2", "pg3"]);
    assert!(began.elapsed() <= ms(20), "it waited {:?} for what cannot be known", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_for_a_connection_hears_of_a_newer_timeline() {
    let scene = Scene::with(|config| {
        config.write_pool_size = 1;
        config.write_wait = ms(400);
    })
    .await;
    let held = scene.two.write().await.unwrap();
    let waits = scene.two.routed(Session::new(), Consistency::Session);
    let waiting = tokio::spawn(async move { write(&waits).await });
    sleep(ms(10)).await;
    let token = scene.token(2, Mark::Position(Lsn::from(1_000)));
    let _ = tokio::time::timeout(ms(20), read(&scene.request(&token))).await;
    drop(held);
    let refused = waiting.await.unwrap().unwrap_err();
    assert!(matches!(refused, FakeError::Route(RouteError::NoPrimary(_))), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_counts_as_written_once_its_commit_is_sent_and_not_when_it_was_rolled_back() {
    let scene = Scene::new().await;
    scene.lag(ms(1_000));
    let request = scene.one.routed(Session::new(), Consistency::Session);
    let failed = request.run_write(async |lease: &mut Lease<FakeBackend>| {
        lease.write().await?;
        Err::<(), _>(FakeError::Statement)
    });
    failed.await.unwrap_err();
    assert!(!request.session().wrote());
    assert_ne!(read(&request).await.unwrap().0, "pg1");

    let request = scene.one.routed(Session::new(), Consistency::Session);
    let written =
        request.run_write(async |lease: &mut Lease<FakeBackend>| lease.write().await).await.unwrap();
    let token = request.session().signed_token().await.unwrap();
    assert!(read(&scene.request(&token)).await.unwrap().2 >= written);

    // The answer to COMMIT is lost: it may have been committed.
    let request = scene.one.routed(Session::new(), Consistency::Session);
    let pg1 = scene.servers.server("pg1").clone();
    let unknown = request.run_write(async |lease: &mut Lease<FakeBackend>| {
        let written = lease.write().await?;
        let pg1 = pg1.clone();
        tokio::spawn(async move { pg1.set_reach(Reach::Refused) });
        Ok::<_, FakeError>(written)
    });
    assert!(matches!(unknown.await, Err(FakeError::CommitUnknown(_))));
    assert!(request.session().wrote());
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_may_do_with_a_write_connection_counts_as_written() {
    let scene = Scene::new().await;
    let request = || scene.one.routed(Session::new(), Consistency::Session);
    let (taken, begun, failed) = (request(), request(), request());
    let _lease = taken.acquire_write().await.unwrap();
    let begin = async |lease: &mut Lease<FakeBackend>| lease.query().await.map(drop);
    let _transaction = begun.acquire_write_after::<FakeError, _>(begin).await.unwrap();
    let fail = async |_: &mut Lease<FakeBackend>| Err(FakeError::Statement);
    failed.acquire_write_after::<FakeError, _>(fail).await.unwrap_err();
    let wrote = [&taken, &begun, &failed].map(|request| request.session().wrote());
    assert_eq!(wrote, [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_the_primary_that_waits_for_a_connection_hears_that_another_took_over() {
    let scene = Scene::with(|config| {
        config.read_pool_size = 1;
        config.fallback_no_replica = Some(1);
        config.fallback_behind_token = Some(1);
    })
    .await;
    let held = scene.two.read(Consistency::Strong).await.unwrap();
    let waits = scene.two.routed(Session::new(), Consistency::Strong);
    let waiting = tokio::spawn(async move { read(&waits).await });
    sleep(ms(10)).await;
    // The old primary goes on answering.
    scene.servers.promote("pg2");
    scene.servers.follow("pg3", "pg2");
    while scene.two.status().primary.as_deref() != Some("pg2") {
        scene.two.cluster().nodes().iter().for_each(|node| node.probe_now());
        sleep(ms(20)).await;
    }
    assert!(!waiting.is_finished());
    drop(held);
    let (node, reason, _) = waiting.await.unwrap().unwrap();
    assert_eq!((node.as_str(), reason), ("pg2", Reason::Strong));
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_to_its_node_while_all_replicas_are_stale() {
    let scene = Scene::with(|config| config.min_serving_replicas = 2).await;
    for replica in ["pg2", "pg3"] {
        scene.servers.server(replica).set_paused(true);
    }
    for _ in 0..20 {
        scene.write().await;
        sleep(ms(500)).await;
    }
    let request = scene.two.routed(Session::new(), Consistency::Eventual);
    let (first, reason, _) = read(&request).await.unwrap();
    assert_eq!(reason, Reason::LeastStale);
    // Others keep it busy, so the other replica would be the choice.
    let busy = scene.two.routed(request.session().clone(), Consistency::Eventual);
    let _busy = [busy.acquire_read().await.unwrap(), busy.acquire_read().await.unwrap()];
    for _ in 0..3 {
        let (node, reason, _) = read(&request).await.unwrap();
        assert_eq!((node, reason), (first.clone(), Reason::LeastStale));
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_was_started_again_as_a_standby_is_not_read_as_the_primary() {
    let scene = Scene::written().await;
    scene.servers.promote("pg2");
    scene.servers.server("pg1").crash_back_to(Lsn::from(1_000));
    scene.servers.follow("pg1", "pg2");
    // The monitor has not looked since, and a new connection is let in.
    let (node, ..) = read(&scene.two.routed(Session::new(), Consistency::Strong)).await.unwrap();
    assert_eq!(node, "pg2");
}
