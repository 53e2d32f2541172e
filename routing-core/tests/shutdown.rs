//! The end of a router and of a cluster: what has begun ends, nothing begins, nothing stays behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use routing_core::testing::{FakeBackend, FakeCluster, FakeError, Reach};
use routing_core::{
    Cluster, Consistency, Lease, RouteError, Routed, Router, RouterConfig, Session, Shutdown,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

type Request = Routed<FakeBackend>;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn scene() -> (FakeCluster, Router<FakeBackend>) {
    let servers = FakeCluster::new(2);
    let router = Router::<FakeBackend>::start(servers.config(), servers.clone()).unwrap();
    assert!(router.cluster().settled(secs(5)).await);
    (servers, router)
}

fn request(router: &Router<FakeBackend>) -> Request {
    router.routed(Session::new(), Consistency::Eventual)
}

/// A read, and who served it.
async fn read(request: Request) -> Result<String, FakeError> {
    request
        .run_read(async |lease: &mut Lease<FakeBackend>| {
            lease.query().await?;
            Ok::<_, FakeError>(lease.node().name().to_owned())
        })
        .await
}

/// A write by one statement.
async fn write(request: Request) -> Result<(), FakeError> {
    request.run_statement(async |lease: &mut Lease<FakeBackend>| lease.write().await.map(drop)).await
}

/// A transaction of one statement.
async fn transaction(request: Request) -> Result<(), FakeError> {
    request.run_write(async |lease: &mut Lease<FakeBackend>| lease.write().await.map(drop)).await
}

/// Begins something and lets it come to the server.
async fn begun<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let task = tokio::spawn(work);
    sleep(ms(20)).await;
    task
}

fn shutdown(router: &Router<FakeBackend>, limit: Duration) -> JoinHandle<Shutdown> {
    let router = router.clone();
    tokio::spawn(async move { router.shutdown(limit).await })
}

const CLOSED: Result<(), FakeError> = Err(FakeError::Route(RouteError::Closed));

/// No connection of anybody, and nobody who looks.
async fn assert_nothing_is_left(servers: &FakeCluster) {
    assert_eq!((servers.connections(), servers.executing()), (0, 0));
    let probes = || servers.servers().iter().map(|server| server.probes()).sum::<u32>();
    let (before, connections) =
        (probes(), servers.servers().iter().map(|server| server.probe_connections()).sum::<u32>());
    assert_eq!(connections, 0, "the monitor's connections are gone");
    sleep(secs(60)).await;
    assert_eq!(probes(), before, "nobody probes");
}

#[tokio::test(start_paused = true)]
async fn what_has_begun_ends_and_nothing_begins() {
    let (servers, router) = scene().await;
    for server in servers.servers() {
        server.set_latency(secs(1));
    }
    let handle = request(&router);
    let reading = begun(read(request(&router))).await;
    let writing = begun(write(request(&router))).await;
    let transacting = begun(transaction(request(&router))).await;
    let lease = router.read(Consistency::Eventual).await.unwrap();
    let ending = shutdown(&router, secs(30));
    sleep(ms(1)).await;
    assert!(router.is_closed());
    let closed = Err(FakeError::Route(RouteError::Closed));
    assert_eq!(read(request(&router)).await, closed);
    assert_eq!(read(handle).await, closed, "a handle from before begins nothing either");
    assert_eq!(write(request(&router)).await, CLOSED);
    assert_eq!(transaction(request(&router)).await, CLOSED);
    assert_eq!(router.read(Consistency::Strong).await.map(drop), CLOSED);
    assert_eq!(router.write().await.map(drop), CLOSED);

    reading.await.unwrap().unwrap();
    writing.await.unwrap().unwrap();
    transacting.await.unwrap().unwrap();
    lease.query().await.unwrap();
    assert!(!ending.is_finished(), "a lease that a caller keeps is in use");
    drop(lease);
    let ended = ending.await.unwrap();
    assert!(ended.is_clean() && ended.left == 0, "{ended:?}");
    assert!((secs(3)..secs(5)).contains(&ended.took), "{ended:?}");
    assert!(router.cluster().is_closed());
    assert_nothing_is_left(&servers).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_router_ends_at_once_and_ending_it_again_changes_nothing() {
    let (servers, router) = scene().await;
    let ended = router.shutdown(secs(30)).await;
    assert!(ended.is_clean() && ended.took < ms(100), "{ended:?}");
    assert_nothing_is_left(&servers).await;
    assert!(router.shutdown(Duration::MAX).await.took < ms(100));
    router.close();
}

#[tokio::test(start_paused = true)]
async fn what_still_runs_at_the_limit_is_cut_and_says_what_is_known() {
    let (servers, router) = scene().await;
    for server in servers.servers() {
        server.set_latency(secs(60));
    }
    let reading = begun(read(request(&router))).await;
    let writing = begun(write(request(&router))).await;
    let transacting = begun(transaction(request(&router))).await;
    let committing = {
        servers.server("pg1").set_latency(ms(1));
        let request = request(&router);
        let slow = servers.clone();
        begun(async move {
            request
                .run_write(async move |lease: &mut Lease<FakeBackend>| {
                    lease.write().await?;
                    // What comes next is COMMIT.
                    slow.server("pg1").set_latency(secs(60));
                    Ok::<_, FakeError>(())
                })
                .await
        })
        .await
    };
    let kept = router.read(Consistency::Eventual).await.unwrap();
    let ended = router.shutdown(secs(2)).await;
    assert_eq!((ended.cut, ended.left), (9, 1), "four calls with a lease each, and one that a caller keeps");
    assert!(!ended.is_clean() && ended.took < secs(5), "{ended:?}");
    assert_eq!(reading.await.unwrap(), Err(FakeError::Route(RouteError::Closed)));
    assert_eq!(transacting.await.unwrap(), CLOSED, "it was not committed, and is not repeated");
    for unknown in [writing.await.unwrap(), committing.await.unwrap()] {
        let Err(FakeError::CommitUnknown(unknown)) = unknown else { panic!("{unknown:?}") };
        assert!(unknown.to_string().contains("shut down"), "{unknown}");
    }
    assert_eq!(servers.connections(), 1);
    drop(kept);
    assert_nothing_is_left(&servers).await;
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_at_the_limit_are_refused() {
    let servers = FakeCluster::new(1);
    let config = RouterConfig {
        write_wait: secs(60),
        acquire_deadline: secs(60),
        checkout_timeout: secs(50),
        read_pool_size: 1,
        ..servers.config()
    };
    let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
    assert!(router.cluster().settled(secs(5)).await);
    let held = router.read(Consistency::Eventual).await.unwrap();
    let reading = begun(read(request(&router))).await;
    servers.server("pg1").set_reach(Reach::Refused);
    sleep(secs(3)).await;
    let writing = begun(write(request(&router))).await;
    let ending = shutdown(&router, secs(5));
    sleep(secs(4)).await;
    assert!(!reading.is_finished() && !writing.is_finished(), "they have begun, and go on");
    let began = Instant::now();
    assert_eq!(writing.await.unwrap(), CLOSED);
    assert_eq!(reading.await.unwrap(), Err(FakeError::Route(RouteError::Closed)));
    assert!(began.elapsed() < secs(2));
    drop(held);
    assert_eq!(ending.await.unwrap().left, 0);
    assert_nothing_is_left(&servers).await;
}

#[tokio::test(start_paused = true)]
async fn what_ends_under_a_shutdown_is_still_protected_by_the_monitor() {
    let (servers, router) = scene().await;
    for server in servers.servers() {
        server.set_latency(secs(1));
    }
    let reading = begun(read(request(&router))).await;
    let busy = router.status().nodes.iter().find(|node| node.in_flight > 0).unwrap().name.clone();
    let ending = shutdown(&router, secs(30));
    sleep(ms(100)).await;
    servers.server(&busy).set_reach(Reach::Frozen);
    let other = reading.await.unwrap().unwrap();
    assert_ne!(other, busy, "it has moved on, as at any other time");
    let ended = ending.await.unwrap();
    assert!(ended.is_clean() && ended.took < secs(15), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_waits_for_its_primary_gets_it_under_a_shutdown() {
    let (servers, router) = scene().await;
    servers.server("pg1").set_reach(Reach::Refused);
    sleep(secs(2)).await;
    let writing = begun(write(request(&router))).await;
    let ending = shutdown(&router, secs(30));
    sleep(ms(500)).await;
    servers.promote("pg2");
    servers.follow("pg3", "pg2");
    writing.await.unwrap().unwrap();
    assert!(ending.await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_dropped_drains_on_and_can_be_called_again() {
    let (servers, router) = scene().await;
    let lease = router.read(Consistency::Eventual).await.unwrap();
    assert!(timeout(secs(1), router.shutdown(secs(30))).await.is_err());
    assert_eq!(write(request(&router)).await, CLOSED);
    assert!(!router.cluster().is_closed(), "nothing is closed yet");
    lease.query().await.unwrap();
    // Two at once: the shorter limit counts, and both end.
    let (patient, hurried) = (shutdown(&router, secs(3_600)), shutdown(&router, secs(1)));
    let (patient, hurried) = (patient.await.unwrap(), hurried.await.unwrap());
    assert_eq!((hurried.cut, hurried.left), (1, 1));
    assert!(patient.took < secs(10), "{patient:?}");
    drop(lease);
    assert_nothing_is_left(&servers).await;
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_wait_of_a_shutdown() {
    let (servers, router) = scene().await;
    let lease = router.read(Consistency::Eventual).await.unwrap();
    let ending = shutdown(&router, secs(3_600));
    sleep(secs(1)).await;
    router.close();
    assert!(ending.await.unwrap().took < secs(5));
    drop(lease);
    assert_nothing_is_left(&servers).await;
}

#[tokio::test(start_paused = true)]
async fn a_router_on_a_shared_cluster_ends_alone_and_cuts_only_its_own() {
    let (servers, owner) = scene().await;
    let guest = Router::<FakeBackend>::new(owner.cluster(), servers.clone()).unwrap();
    for server in servers.servers() {
        server.set_latency(secs(10));
    }
    let (own, other) = (begun(write(request(&guest))).await, begun(write(request(&owner))).await);
    let ended = guest.shutdown(secs(1)).await;
    assert_eq!((ended.cut, ended.left), (2, 0));
    assert!(matches!(own.await.unwrap(), Err(FakeError::CommitUnknown(_))));
    other.await.unwrap().unwrap();
    assert!(!owner.is_closed());
    read(request(&owner)).await.unwrap();
    assert!(owner.shutdown(secs(1)).await.is_clean());
    assert_nothing_is_left(&servers).await;
}

#[tokio::test(start_paused = true)]
async fn a_shared_cluster_ends_all_routers_on_it_when_its_owner_says() {
    let servers = FakeCluster::new(2);
    let cluster = Cluster::start(servers.config(), std::sync::Arc::new(servers.clone())).unwrap();
    assert!(cluster.settled(secs(5)).await);
    let both = [(); 2].map(|()| Router::<FakeBackend>::new(&cluster, servers.clone()).unwrap());
    let leases = [both[0].write().await.unwrap(), both[1].read(Consistency::Eventual).await.unwrap()];
    let ending = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.shutdown(secs(30)).await }
    });
    sleep(ms(10)).await;
    for router in &both {
        assert_eq!(write(request(router)).await, CLOSED);
    }
    let [first, second] = leases;
    drop(first);
    sleep(secs(1)).await;
    assert!(!ending.is_finished());
    drop(second);
    assert!(ending.await.unwrap().is_clean());
    for server in servers.servers() {
        assert_eq!(server.closed(), 2, "the pools of both");
    }
    assert_nothing_is_left(&servers).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_cut_ends_at_once_however_long_a_probe_may_take() {
    let servers = FakeCluster::new(2);
    let config = RouterConfig { probe_timeout: secs(30), ..servers.config() };
    let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
    assert!(router.cluster().settled(secs(5)).await);
    servers.server("pg1").set_latency(secs(60));
    let transacting = begun(transaction(request(&router))).await;
    servers.server("pg1").set_reach(Reach::Frozen);
    let ended = router.shutdown(secs(1)).await;
    assert_eq!((ended.cut > 0, ended.left), (true, 0), "{ended:?}");
    assert_eq!(transacting.await.unwrap(), CLOSED);
}
