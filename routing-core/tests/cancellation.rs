//! A future dropped at any await gives everything back: every call, every way it can go, every point at which it waits.
//!
//! Each case polls its future a number of times and drops it there; the next case of the row polls once more, until the
//! future ends before it is dropped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use routing_core::testing::{FakeBackend, FakeCluster, FakeError, Reach};
use routing_core::{
    Admission, BreakerConfig, Consistency, Fault, Lease, Lsn, Node, Routed, Router, RouterConfig, Session,
};
use tokio::time::{Instant, advance, sleep};

type Request = Routed<FakeBackend>;
type Call = Pin<Box<dyn Future<Output = Result<(), FakeError>> + Send>>;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Makes a call.
type Make = fn(Request) -> Call;

/// What is called.
const CALLS: [(&str, Make); 7] = [
    ("read", |request| Box::pin(async move { request.acquire_read().await.map(drop) })),
    ("write", |request| Box::pin(async move { request.acquire_write().await.map(drop) })),
    ("run_read", |request| {
        Box::pin(async move {
            request.run_read(async |lease: &mut Lease<FakeBackend>| lease.query().await.map(drop)).await
        })
    }),
    ("run_read of two statements", |request| {
        Box::pin(async move {
            request
                .run_read(async |lease: &mut Lease<FakeBackend>| {
                    lease.query().await?;
                    lease.query().await.map(drop)
                })
                .await
        })
    }),
    ("run_statement", |request| {
        Box::pin(async move {
            request.run_statement(async |lease: &mut Lease<FakeBackend>| lease.write().await.map(drop)).await
        })
    }),
    ("run_write", |request| {
        Box::pin(async move {
            request.run_write(async |lease: &mut Lease<FakeBackend>| lease.write().await.map(drop)).await
        })
    }),
    ("acquire_write_after", |request| {
        Box::pin(async move {
            let begin = async |lease: &mut Lease<FakeBackend>| lease.query().await.map(drop);
            request.acquire_write_after::<FakeError, _>(begin).await.map(drop)
        })
    }),
];

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// All is well.
    Success,
    /// The closure meets a fault of its node each time.
    Fault,
    /// Each node lets nobody in the first time.
    Refused,
    /// Every connection is taken.
    Saturated,
    /// Breakers are half-open.
    Trial,
    /// There is no replica: the primary serves within its cap.
    Fallback,
    /// There is no replica, and one is read that is ahead of them all; the primary serves.
    BehindToken,
    /// There is no primary: writers wait.
    Waiting,
    /// A node freezes while its statement runs.
    Frozen,
}

const WAYS: [Way; 9] = [
    Way::Success,
    Way::Fault,
    Way::Refused,
    Way::Saturated,
    Way::Trial,
    Way::Fallback,
    Way::BehindToken,
    Way::Waiting,
    Way::Frozen,
];

/// The most polls of one call: one that waits for its deadline is polled with each tick of the clock below.
const MOST: usize = 700;

/// Up to here a call is dropped after every number of polls; beyond, where it waits and nothing but time passes, after some.
const EACH: usize = 45;

struct Scene {
    servers: FakeCluster,
    router: Router<FakeBackend>,
    /// Leases that others hold.
    held: Vec<Lease<FakeBackend>>,
    session: Session,
}

impl Scene {
    async fn new(way: Way) -> Self {
        let servers = FakeCluster::new(2);
        let config = RouterConfig {
            read_pool_size: 2,
            write_pool_size: 2,
            fallback_no_replica: Some(1),
            fallback_behind_token: Some(1),
            checkout_timeout: ms(100),
            acquire_deadline: ms(400),
            write_wait: ms(300),
            session_wait: ms(20),
            probe_timeout: ms(60),
            breaker: BreakerConfig { first_open: ms(200), longest_open: ms(200), ..BreakerConfig::default() },
            ..servers.config()
        };
        let router = Router::<FakeBackend>::start(config, servers.clone()).unwrap();
        assert!(router.cluster().settled(secs(5)).await);
        for server in servers.servers() {
            server.set_connect_time(ms(3));
            server.set_latency(ms(5));
        }
        let mut scene = Self { servers, router, held: Vec::new(), session: Session::new() };
        scene.make(way).await;
        scene
    }

    /// Brings about what the way needs before the call.
    async fn make(&mut self, way: Way) {
        let servers = &self.servers;
        match way {
            Way::Success | Way::Fault | Way::Frozen => {}
            Way::Refused => servers.servers().iter().for_each(|server| server.refuse_next(1)),
            Way::Saturated => {
                for _ in 0..4 {
                    self.held.push(self.router.read(Consistency::Eventual).await.unwrap());
                }
                for _ in 0..2 {
                    self.held.push(self.router.write().await.unwrap());
                }
            }
            Way::Trial => {
                for server in servers.servers() {
                    server.refuse_next(40);
                }
                for _ in 0..40 {
                    let _ = self.router.read(Consistency::Eventual).await;
                    let _ = self.router.write().await;
                }
                servers.servers().iter().for_each(|server| server.refuse_next(0));
                sleep(ms(400)).await;
            }
            Way::Fallback => {
                for node in ["pg2", "pg3"] {
                    servers.server(node).set_reach(Reach::Refused);
                }
                sleep(secs(3)).await;
            }
            Way::BehindToken => {
                for node in ["pg2", "pg3"] {
                    servers.server(node).set_paused(true);
                }
                let writer = self.router.routed(Session::new(), Consistency::Strong);
                let write = writer
                    .run_statement(async |lease: &mut Lease<FakeBackend>| lease.write().await.map(drop));
                write.await.unwrap();
                self.session.observe(writer.session().token().await.unwrap());
            }
            Way::Waiting => {
                servers.server("pg1").set_reach(Reach::Refused);
                sleep(secs(3)).await;
            }
        }
    }

    fn request(&self) -> Request {
        self.router.routed(self.session.clone(), Consistency::Session)
    }

    /// What the call meets on the way.
    fn meet(&self, way: Way, polls: usize) {
        if way == Way::Frozen && polls == 6 {
            for server in self.servers.servers() {
                server.set_reach(Reach::Frozen);
            }
        }
        if way == Way::Fault && polls.is_multiple_of(5) && polls > 0 {
            // Connections break under whatever runs on them, and the next are let in.
            for server in self.servers.servers() {
                server.crash_back_to(Lsn::from(1_000));
            }
        }
    }

    /// Nothing is counted, held or under way that the test itself does not hold.
    fn assert_all_is_back(&self, what: &str) {
        let held = u32::try_from(self.held.len()).unwrap();
        let status = self.router.status();
        let in_flight: u32 = status.nodes.iter().map(|node| node.in_flight).sum();
        assert_eq!(in_flight, held, "{what}: requests in flight");
        assert_eq!(self.servers.connections(), held, "{what}: connections in use");
        assert_eq!(self.servers.executing(), 0, "{what}: statements under way");
        assert_eq!(
            self.servers.servers().iter().map(|server| server.opening()).sum::<u32>(),
            0,
            "{what}: connections being opened"
        );
        let caps = (status.fallback_in_use, status.fallback_behind_token_in_use, status.waiting_writes);
        assert_eq!(caps, (0, 0, 0), "{what}: permits");
        let open: usize = status.nodes.iter().map(|node| node.read_pool.open + node.write_pool.open).sum();
        assert_eq!(open, self.held.len(), "{what}: places in pools");
        assert!(!self.router.cluster().nodes().iter().any(trial_is_taken), "{what}: half-open slots");
    }
}

/// Whether somebody has the half-open state's only slot.
fn trial_is_taken(node: &Arc<Node>) -> bool {
    node.admission(Instant::now()) == Admission::Refused(Duration::ZERO)
}

/// Polls a call so many times, a moment between each, and drops it; its outcome if it ended.
async fn poll(call: &mut Call, scene: &Scene, way: Way, polls: usize) -> Option<Result<(), FakeError>> {
    for number in 0..polls {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(outcome) = call.as_mut().poll(&mut context) {
            return Some(outcome);
        }
        scene.meet(way, number);
        advance(ms(1)).await;
        // Others, the monitor among them, have their turn.
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_await_of_any_way_leaves_nothing_behind() {
    let mut cases = 0;
    for way in WAYS {
        for (name, call) in CALLS {
            let mut ends = None;
            for polls in (0..EACH).chain((EACH..MOST).step_by(23)) {
                let scene = Scene::new(way).await;
                let mut future = call(scene.request());
                let outcome = poll(&mut future, &scene, way, polls).await;
                drop(future);
                scene.assert_all_is_back(&format!("{name}, {way:?}, dropped after {polls} polls"));
                cases += 1;
                if outcome.is_some() {
                    ends = outcome.map(|outcome| (polls, outcome));
                    break;
                }
                // What was dropped holds up nobody.
                if way == Way::Success {
                    assert_eq!(call(scene.request()).await, Ok(()), "{name}: the next");
                }
            }
            let (polls, outcome) =
                ends.unwrap_or_else(|| panic!("{name}, {way:?} does not end within {MOST} polls"));
            eprintln!(
                "{name}, {way:?}: ends with poll {polls}: {}",
                outcome.map_or_else(|error| error.to_string(), |()| "done".to_owned())
            );
        }
    }
    eprintln!("{cases} cases");
    assert!(cases > 500, "{cases} cases");
}

/// A read that holds its trial slot, or its place under a cap, gives it up to the next with its drop.
#[tokio::test(start_paused = true)]
async fn what_was_dropped_is_there_for_the_next() {
    for way in [Way::Trial, Way::Fallback, Way::BehindToken] {
        let scene = Scene::new(way).await;
        let (_, run_read) = CALLS[2];
        let mut first = run_read(scene.request());
        // A read that is ahead of the replicas waits for them first.
        let polls = if way == Way::BehindToken { 24 } else { 2 };
        assert!(poll(&mut first, &scene, way, polls).await.is_none());
        let taken = scene.router.cluster().nodes().iter().any(trial_is_taken);
        let status = scene.router.status();
        let places = status.fallback_in_use + status.fallback_behind_token_in_use;
        assert!(taken || places == 1, "{way:?}: it holds what is scarce");
        drop(first);
        assert_eq!(run_read(scene.request()).await, Ok(()), "{way:?}");
    }
}

#[test]
fn every_fault_is_met_by_some_way() {
    // A fault that is added asks for a way of its own.
    for fault in Fault::ALL {
        let met = match fault {
            Fault::Unreachable => Some(Way::Fault),
            Fault::Refusing => Some(Way::Refused),
            Fault::Unresponsive => Some(Way::Frozen),
            Fault::Saturated => Some(Way::Saturated),
            // They end a call as any error of a statement does.
            Fault::Conflict | Fault::NotPrimary | Fault::Misrouted => None,
        };
        assert!(met.is_none_or(|way| WAYS.contains(&way)));
    }
}
