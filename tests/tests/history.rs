//! The consistency promises, over everything that many clients of one application in two processes did and saw.
//!
//! `ROUTING_SEED` repeats a schedule of faults; `ROUTING_SOAK_MINUTES` has the test under faults go on for so long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use routing_core::RouterConfig;
use routing_tests::history::{
    Answer, Ask, Carelessness, Client, Counts, Mishap, Operation, PULSE, Plan, Pulse, Report, Scene, Seed,
    Violation, Workload, WriteForm,
};
use routing_tests::{Orm, PATIENCE, PRIMARY, REPLICAS, SeaOrm, eventually, on_both};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

on_both! {
    no_promise_is_broken_while_replicas_and_networks_fail,
    no_promise_is_broken_by_a_failover_but_what_went_with_the_old_primary,
    a_standby_that_crashed_and_came_back_behind_shows_no_client_less_than_its_token,
    sessions_read_from_replicas_that_apply_at_once_and_never_stale_from_late_ones,
    a_request_whose_node_is_lost_between_two_reads_does_not_go_back,
}

const ROUND: Duration = Duration::from_secs(15);

const PLAN: Plan = Plan { clients: 24, pause: Duration::from_millis(120), carelessness: Carelessness::None };

/// Nothing is shed: that losing replicas is bounded on the primary is tested elsewhere.
fn roomy(config: &mut RouterConfig) {
    config.read_pool_size = PLAN.clients;
    config.fallback_no_replica = Some(PLAN.clients);
    config.fallback_behind_token = Some(PLAN.clients);
}

fn assert_kept(report: &Report, seed: Seed) {
    assert!(report.violations.is_empty(), "{} promises were broken with {seed}", report.violations.len());
}

fn assert_looked(report: &Report) {
    let counts = &report.counts;
    let looked = [
        counts.acknowledged,
        counts.session.total(),
        counts.bounded.total(),
        counts.repeated,
        counts.read_back,
    ];
    assert!(looked.iter().all(|count| *count >= 20), "too little happened to tell: {looked:?}");
}

/// Goes on until so many requests were answered: a busy machine takes longer for them.
async fn requests<O: Orm>(scene: &Scene<O>, number: usize) {
    let asked = |operation: &Operation| operation.instance.is_some();
    eventually(PATIENCE, "requests are answered", async || scene.recorder.count(asked) >= number).await;
}

/// Clients and the pulse, while `meanwhile` goes on.
async fn run<O: Orm>(scene: &Scene<O>, plan: Plan, seed: Seed, meanwhile: impl Future<Output = ()>) {
    let pulse = Pulse::start(&scene.cluster, scene.recorder.clone());
    let workload = Workload::start(&scene.urls(), &scene.recorder, plan, seed);
    meanwhile.await;
    workload.stop().await;
    pulse.stop().await;
}

async fn no_promise_is_broken_while_replicas_and_networks_fail<O: Orm>() {
    let soak = std::env::var("ROUTING_SOAK_MINUTES").ok();
    let minutes: f64 = soak.map_or(0.0, |text| text.parse().expect("ROUTING_SOAK_MINUTES must be a number"));
    let (first, began) = (Seed::from_env(), Instant::now());
    let mut scene = Scene::<O>::tuned(roomy).await;
    for round in 0.. {
        let seed = Seed(first.0 + round);
        eprintln!("{seed}");
        let until = Instant::now() + ROUND;
        run(&scene, PLAN, seed, async {
            Mishap::plague(&scene, seed.part(0), until).await;
            requests(&scene, 600).await;
        })
        .await;
        scene.heal().await;
        let report = scene.judge("under faults").await;
        assert_kept(&report, seed);
        assert_looked(&report);
        let Counts { reads, reads_failed, .. } = report.counts;
        assert!(20 * reads_failed <= reads, "{reads_failed} reads failed beside {reads}");
        if began.elapsed() >= Duration::from_secs_f64(60.0 * minutes) {
            return;
        }
        if round % 3 == 2 {
            go_through_a_failover(&mut scene, seed).await;
        }
    }
}

async fn no_promise_is_broken_by_a_failover_but_what_went_with_the_old_primary<O: Orm>() {
    let seed = Seed::from_env();
    eprintln!("{seed}");
    let mut scene = Scene::<O>::tuned(roomy).await;
    go_through_a_failover(&mut scene, seed).await;
}

async fn go_through_a_failover<O: Orm>(scene: &mut Scene<O>, seed: Seed) {
    let (recorder, urls) = (scene.recorder.clone(), scene.urls());
    let workload = Workload::start(&urls, &recorder, PLAN, seed);
    let pulse = Pulse::start(&scene.cluster, recorder.clone());
    sleep(Duration::from_secs(3)).await;

    // What is acknowledged from here on reaches no replica.
    scene.stall_replication(true).await;
    let mut loser = Client::new(1_000, urls, recorder, Carelessness::None);
    let asked = |value| Ask::Write { key: 1_000, value, form: WriteForm::Statement };
    let read = Ask::Read { key: 1_000, times: 1, bound: None };
    assert_eq!(loser.ask(0, asked(1), None, 0).await, Answer::Written(None));
    assert_eq!(loser.ask(1, read, None, 0).await, Answer::Read(vec![1]));
    scene.fail_over().await;

    // The client whose write is gone is served by the new timeline, at once and for good.
    let read_after = async |loser: &mut Client| {
        let mut seen = Vec::new();
        eventually(PATIENCE, "its reads are served again", async || {
            let mut answers = Vec::new();
            for process in [0, 1] {
                answers.push(loser.ask(process, read, None, 0).await);
            }
            seen = answers;
            seen.iter().all(|answer| matches!(answer, Answer::Read(_)))
        })
        .await;
        seen
    };
    assert_eq!(read_after(&mut loser).await, [Answer::Read(vec![0]), Answer::Read(vec![0])], "it is gone");
    eventually(PATIENCE, "it writes again", async || {
        matches!(loser.ask(0, asked(2), None, 0).await, Answer::Written(_))
    })
    .await;
    assert_eq!(read_after(&mut loser).await, [Answer::Read(vec![2]), Answer::Read(vec![2])]);
    requests(scene, 600).await;
    sleep(Duration::from_secs(2)).await;

    workload.stop().await;
    pulse.stop().await;
    scene.heal().await;
    let report = scene.judge("over a failover").await;
    assert_kept(&report, seed);
    assert_looked(&report);
    assert!(!report.lost.is_empty(), "the first write of that client is among the lost");
}

async fn a_standby_that_crashed_and_came_back_behind_shows_no_client_less_than_its_token<O: Orm>() {
    let mut scene = Scene::<O>::tuned(roomy).await;
    let mut client = Client::new(1, scene.urls(), scene.recorder.clone(), Carelessness::None);
    let mut behind = 0;
    for value in 1..=6 {
        // Recovery will begin here.
        scene.checkpoint().await;
        let wrote = client.ask(0, Ask::Write { key: 1, value, form: WriteForm::Statement }, None, 0).await;
        assert_eq!(wrote, Answer::Written(None));
        scene.cluster.wait_replayed().await;
        let read = Ask::Read { key: 1, times: 1, bound: None };
        for process in [0, 1] {
            assert_eq!(client.ask(process, read, None, 0).await, Answer::Read(vec![value]));
        }
        // What they have shown stays; what they replay again after the crash stops before it.
        scene.delay_replay(&REPLICAS, Duration::from_secs(3_600)).await;
        let crashes = async {
            for replica in REPLICAS {
                scene.crash(replica).await;
            }
            for replica in REPLICAS {
                let newest = "SELECT coalesce(max(value), 0) FROM entry WHERE key = 1";
                let newest: i64 = scene.cluster.value(replica, newest).await;
                behind += u64::from(newest < i64::try_from(value).expect("a small number"));
            }
        };
        let mut reads = 0;
        tokio::pin!(crashes);
        let mut crashed = false;
        // Before, while and after they are away.
        while !crashed || reads < 50 {
            let process = reads % 2;
            let asked = Ask::Read { key: 1, times: 1 + u32::from(reads % 5 == 0), bound: None };
            tokio::select! {
                biased;
                () = &mut crashes, if !crashed => crashed = true,
                answer = client.ask(process, asked, None, 5) => {
                    reads += 1;
                    let Answer::Read(seen) = answer else { panic!("{answer}") };
                    assert!(seen.iter().all(|seen| *seen == value), "{seen:?} after {value}");
                }
            }
        }
        scene.heal().await;
    }
    let report = scene.judge("standbys that crash").await;
    eprintln!("{behind} of 12 came back behind what they had shown");
    assert!(report.violations.is_empty());
    assert!(behind >= 6, "{behind} of 12 came back behind what they had shown");
}

async fn sessions_read_from_replicas_that_apply_at_once_and_never_stale_from_late_ones<O: Orm>() {
    let seed = Seed::from_env();
    eprintln!("{seed}");
    let mut scene = Scene::<O>::tuned(roomy).await;
    let plan = Plan { clients: 6, pause: Duration::from_millis(100), ..PLAN };
    let mut share = async |delay| {
        scene.delay_replay(&REPLICAS, Duration::from_millis(delay)).await;
        run(&scene, plan, seed, requests(&scene, 600)).await;
        let report = scene.judge(&format!("commits applied after {delay} ms")).await;
        assert_kept(&report, seed);
        assert_looked(&report);
        report.counts.session
    };
    share(200).await;
    // A busy machine can hold a replica up for longer than anybody waits, but not each time.
    let mut served = share(5).await;
    for _ in 0..3 {
        if served.of_replicas() < 95 {
            served = share(5).await;
        }
    }
    assert!(served.of_replicas() >= 95, "at 5 ms, of {served}");
}

async fn a_request_whose_node_is_lost_between_two_reads_does_not_go_back<O: Orm>() {
    let mut scene = Scene::<O>::tuned(|config| {
        // The node is to be used again, however often its connections are reset.
        config.breaker.failures = 10_000;
        config.breaker.minimum_requests = 10_000;
        roomy(config);
    })
    .await;
    let pulse = Pulse::start(&scene.cluster, scene.recorder.clone());
    scene.delay_replay(&["pg3"], Duration::from_millis(300)).await;
    let stop = Arc::<AtomicBool>::default();
    let mut readers = JoinSet::new();
    for number in 1..=8 {
        let mut client = Client::new(number, scene.urls(), scene.recorder.clone(), Carelessness::None);
        let (process, stop) = (number as usize % 2, stop.clone());
        readers.spawn(async move {
            while !stop.load(Relaxed) {
                client.ask(process, Ask::Read { key: PULSE, times: 2, bound: None }, None, 30).await;
            }
        });
    }
    // To the primary, or else back in time.
    let moved = |operation: &Operation| {
        let by = operation.served.as_ref();
        by.is_some_and(|by| by.node == PRIMARY && by.reason.starts_with("fallback"))
            || !operation.seen().1.is_sorted()
    };
    eventually(PATIENCE, "some requests lose their node", async || {
        sleep(Duration::from_millis(200)).await;
        for instance in &scene.instances {
            instance.requests.get("pg2").cut();
        }
        scene.recorder.count(moved) >= 10
    })
    .await;
    stop.store(true, Relaxed);
    while let Some(ended) = readers.join_next().await {
        ended.expect("a reader does not panic");
    }
    pulse.stop().await;
    let report = scene.judge("nodes lost between two reads").await;
    assert!(report.violations.is_empty());
}

/// The proof that the check can fail.
#[tokio::test(flavor = "multi_thread")]
async fn every_carelessness_is_found() {
    let seed = Seed::from_env();
    eprintln!("{seed}");
    let mut scene = Scene::<SeaOrm>::tuned(roomy).await;
    // How late each replica is meanwhile, in milliseconds.
    let cases = [
        (Carelessness::NoToken, [200, 200]),
        (Carelessness::Eventual, [200, 200]),
        (Carelessness::TwoSessions, [0, 200]),
        (Carelessness::NoBound, [800, 800]),
    ];
    for (carelessness, delays) in cases {
        let kind = |violation: &Violation| match carelessness {
            Carelessness::None => false,
            Carelessness::NoToken | Carelessness::Eventual => matches!(violation, Violation::Stale { .. }),
            Carelessness::TwoSessions => matches!(violation, Violation::WentBack { .. }),
            Carelessness::NoBound => matches!(violation, Violation::OlderThanBound { .. }),
        };
        let plan = Plan { clients: 6, pause: Duration::from_millis(20), carelessness };
        let mut broken = 0;
        for _ in 0..5 {
            for (replica, delay) in REPLICAS.into_iter().zip(delays) {
                scene.delay_replay(&[replica], Duration::from_millis(delay)).await;
            }
            run(&scene, plan, seed, sleep(Duration::from_secs(2))).await;
            broken += scene.judge(&format!("{carelessness:?}")).await.broken(kind);
            if broken >= 10 {
                break;
            }
        }
        assert!(broken >= 10, "{carelessness:?} breaks more than {broken}");
    }
}
