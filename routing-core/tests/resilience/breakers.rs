//! Breakers: how many nodes they keep away, and what becomes of their trials.

use routing_core::{Admission, Consistency};
use tokio::time::{Instant, sleep, timeout};

use crate::{Scene, chosen, ms, read, secs};

#[tokio::test(start_paused = true)]
async fn when_every_breaker_refuses_each_node_is_tried_once_instead_of_failing_everyone() {
    let scene = Scene::new(1, |_| {}).await;
    scene.open_breaker("pg2").await;
    assert_eq!(
        scene.read().await.unwrap(),
        ("pg1".to_owned(), "fallback_no_replica"),
        "one of one is kept away"
    );
    scene.open_breaker("pg1").await;
    let began = Instant::now();
    assert_eq!(scene.read().await.unwrap(), ("pg2".to_owned(), "last_resort"));
    scene.servers.server("pg2").refuse_next(1);
    assert_eq!(scene.read().await.unwrap(), ("pg1".to_owned(), "last_resort"));
    assert!(began.elapsed() < ms(50), "nobody waits for a breaker: {:?}", began.elapsed());

    let strong = scene.router.read(Consistency::Strong).await.unwrap();
    assert_eq!(strong.decision().reason.as_str(), "last_resort");
}

#[tokio::test(start_paused = true)]
async fn beyond_a_share_of_the_nodes_open_breakers_keep_nobody_away() {
    // share, and how many of the four replicas serve while the breakers of three are open
    for (share, serving) in [(0.5, 2), (1.0, 1), (0.25, 3), (0.0, 4)] {
        let scene = Scene::new(4, |config| config.breaker.max_ejected = share).await;
        for node in ["pg2", "pg3", "pg4"] {
            scene.open_breaker(node).await;
        }
        let shown = scene.router.status().nodes.into_iter();
        let shown = shown.filter(|node| !node.is_primary && node.serving).count();
        let reads: Vec<_> = (0..100)
            .map(|_| {
                let scene = scene.clone();
                tokio::spawn(async move { scene.read().await.unwrap().0 })
            })
            .collect();
        let mut nodes = Vec::new();
        for read in reads {
            nodes.push(read.await.unwrap());
        }
        nodes.sort();
        nodes.dedup();
        assert_eq!(nodes.len(), serving, "{share}: {nodes:?}");
        assert_eq!(shown, serving, "{share}: the status says who serves");
        let spared: u64 = scene
            .router
            .cluster()
            .nodes()
            .iter()
            .map(|node| chosen(node, "ejection_limit", &scene.router))
            .sum();
        assert_eq!(spared > 0, serving > 1, "{share}: the reason is seen");
    }
}

/// Four replicas, and the breaker of each is open.
async fn all_breakers_open() -> Scene {
    let scene = Scene::new(4, |_| {}).await;
    for node in ["pg2", "pg3", "pg4", "pg5"] {
        scene.open_breaker(node).await;
    }
    scene
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_to_a_node_that_serves_in_spite_of_its_breaker() {
    let scene = all_breakers_open().await;
    let request = scene.request();
    let first = read(&request).await.unwrap();
    for _ in 0..10 {
        assert_eq!(read(&request).await.unwrap(), first);
        assert_eq!(request.session().last_decision().unwrap().reason.as_str(), "ejection_limit");
    }
    assert_ne!(first, "pg1");
    assert_eq!(scene.servers.server("pg1").statements(), 0, "the primary is spared");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_loses_its_node_waits_for_another_that_serves_in_spite_of_its_breaker() {
    let scene = all_breakers_open().await;
    let request = scene.request();
    let first = read(&request).await.unwrap();
    scene.node(&first).set_draining(true);
    scene.servers.server("pg1").append();
    let second = read(&request).await.unwrap();
    assert_eq!(read(&request).await.unwrap(), second);
    assert!(second != first && second != "pg1", "{second}");
    assert_eq!(scene.servers.server("pg1").statements(), 0, "the primary is spared");
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_dropped_anywhere_gives_its_place_back() {
    let scene = Scene::new(1, |_| {}).await;
    scene.open_breaker("pg2").await;
    sleep(secs(2)).await;
    let pg2 = scene.servers.server("pg2");
    pg2.set_connect_time(ms(50));
    pg2.set_latency(ms(50));
    // While it waits for its connection, and while its statement runs.
    for limit in [25, 75] {
        assert_eq!(scene.node("pg2").admission(Instant::now()), Admission::Trial);
        let trial = timeout(ms(limit), scene.read());
        let watched = async {
            sleep(ms(limit - 1)).await;
            scene.node("pg2").admission(Instant::now())
        };
        let (outcome, meanwhile) = tokio::join!(trial, watched);
        assert!(outcome.is_err());
        assert_eq!(meanwhile, Admission::Refused(ms(0)), "one at a time");
    }
    assert_eq!(scene.read().await.unwrap().0, "pg2");
    assert_eq!(scene.breaker("pg2"), "closed");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_statement_itself_proves_the_node_well() {
    let scene = Scene::new(1, |_| {}).await;
    scene.open_breaker("pg2").await;
    sleep(secs(2)).await;
    assert_eq!(scene.breaker("pg2"), "half_open");
    let failing = async |_: &mut routing_core::Lease<routing_core::testing::FakeBackend>| {
        Err::<(), _>(routing_core::testing::FakeError::Statement)
    };
    scene.request().run_read(failing).await.unwrap_err();
    assert_eq!(scene.breaker("pg2"), "closed");
    for _ in 0..50 {
        scene.request().run_read(failing).await.unwrap_err();
    }
    assert_eq!(scene.breaker("pg2"), "closed");
}
