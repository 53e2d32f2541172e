//! Retries: how many there are when everything fails, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use routing_core::testing::{FakeBackend, FakeError};
use routing_core::{Fault, Lease};
use tokio::time::{Instant, sleep};

use crate::{Scene, ms, secs};

const REQUESTS: u32 = 12_000;
const SECONDS: u32 = 60;

/// Requests of one kind, 200 a second for a minute.
async fn fire<F: Future<Output = ()> + Send + 'static>(request: impl Fn() -> F) {
    let mut requests = Vec::new();
    for _ in 0..REQUESTS {
        sleep(secs(1) * SECONDS / REQUESTS).await;
        requests.push(tokio::spawn(request()));
    }
    for request in requests {
        request.await.unwrap();
    }
}

fn within_budget(what: &str, attempts: u32) {
    eprintln!("retries | {what} | {REQUESTS} requests, every node fails | {attempts} attempts");
    // A fifth, and ten a second, of which the budget has ten seconds' worth saved up at first.
    // What opens the breakers, and their trials, are beside it: a hundred.
    let most = REQUESTS + REQUESTS / 5 + 10 * (SECONDS + 10) + 100;
    assert!((REQUESTS..=most).contains(&attempts), "{what}: {attempts}");
}

#[tokio::test(start_paused = true)]
async fn when_every_statement_fails_attempts_stay_within_the_budget() {
    for writes in [false, true] {
        let scene = Scene::new(3, |_| {}).await;
        let attempts = Arc::new(AtomicU32::new(0));
        fire(|| {
            let (router, request, attempts) = (scene.router.clone(), scene.request(), attempts.clone());
            async move {
                let attempts = &attempts;
                let fails = async |_: &mut Lease<FakeBackend>| {
                    attempts.fetch_add(1, SeqCst);
                    // It opens no breaker: only the budget is left.
                    let fault = if writes { Fault::Conflict } else { Fault::Unresponsive };
                    Err::<(), _>(FakeError::Fault(fault))
                };
                let outcome =
                    if writes { router.run_write(fails).await } else { request.run_read(fails).await };
                outcome.unwrap_err();
            }
        })
        .await;
        within_budget(if writes { "run_write" } else { "run_read" }, attempts.load(SeqCst));
    }
}

#[tokio::test(start_paused = true)]
async fn when_no_node_lets_anybody_in_connections_are_asked_for_within_the_budget() {
    let scene = Scene::new(3, |_| {}).await;
    scene.servers.servers().iter().for_each(|server| server.refuse_next(u32::MAX));
    let before: u32 = scene.servers.servers().iter().map(|server| server.asked()).sum();
    fire(|| {
        let scene = scene.clone();
        async move { drop(scene.read().await.unwrap_err()) }
    })
    .await;
    let asked = scene.servers.servers().iter().map(|server| server.asked()).sum::<u32>() - before;
    within_budget("checkouts for reads", asked);

    let scene = Scene::new(3, |_| {}).await;
    scene.servers.server("pg1").refuse_next(u32::MAX);
    fire(|| {
        let router = scene.router.clone();
        async move { drop(router.write().await.unwrap_err()) }
    })
    .await;
    let asked = scene.servers.server("pg1").asked();
    eprintln!("retries | checkouts for writes | {REQUESTS} requests, the primary refuses | {asked} attempts");
    assert!(asked < REQUESTS / 5, "whoever waits for the primary does not hammer it: {asked}");
}

#[tokio::test(start_paused = true)]
async fn one_deadline_bounds_all_checkouts_and_retries_of_a_call() {
    let scene = Scene::new(10, |_| {}).await;
    // The monitor is answered; whoever wants a connection is not.
    scene.servers.servers().iter().for_each(|server| server.set_connect_time(secs(30)));
    let began = Instant::now();
    scene.read().await.unwrap_err();
    assert!(began.elapsed() <= ms(5_001), "a second for each of ten would be more: {:?}", began.elapsed());
    let began = Instant::now();
    scene.router.run_write(async |lease: &mut Lease<FakeBackend>| lease.write().await).await.unwrap_err();
    assert!(began.elapsed() <= ms(5_001), "{:?}", began.elapsed());

    scene.servers.servers().iter().for_each(|server| server.set_connect_time(ms(900)));
    let fails = async |_: &mut Lease<FakeBackend>| {
        sleep(ms(900)).await;
        Err::<(), _>(FakeError::Fault(Fault::Unresponsive))
    };
    let began = Instant::now();
    scene.request().run_read(fails).await.unwrap_err();
    assert!(began.elapsed() <= ms(5_901), "no attempt begins after it: {:?}", began.elapsed());
}
