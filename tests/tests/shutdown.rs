//! The end of a process: of a router under load, and of the screener as a program.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt as _;
use routing_cluster::Login;
use routing_core::{Cluster, RouteError, Router};
use routing_tests::{
    Fate, Handle as _, Http, Lost, NODES, Orm, PATIENCE, PRIMARY, Screener, Signal, TestCluster, Writers,
    eventually, open_loop, reader, served_by, served_by_slowly, writer,
};
use tokio::time::{Instant, sleep};

routing_tests::on_both! {
    a_router_that_is_shut_down_under_load_leaves_nothing_on_the_servers,
    what_is_cut_at_the_limit_ends_on_the_servers_too,
    a_stream_that_is_cut_says_so_and_nothing_about_its_node,
    the_screener_ends_under_load_without_a_failed_response,
    a_second_signal_cuts_what_runs_and_says_what_is_known,
}

/// Waits until no node has a process of the application, nor one of the monitor.
async fn nothing_is_left(cluster: &TestCluster) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('app', 'monitor')";
    for node in NODES {
        eventually(PATIENCE, "no connection of the application or its monitor is left", async || {
            cluster.value::<i64>(node, sql).await == 0
        })
        .await;
    }
}

async fn a_router_that_is_shut_down_under_load_leaves_nothing_on_the_servers<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = cluster.config();
    let shared = Cluster::start(config.clone(), O::prober(&config, &O::Options::default())).expect("valid");
    let router = Router::<O>::new(&shared, O::Options::default()).expect("valid");
    let other = Router::<O>::new(&shared, O::Options::default()).expect("valid");
    routing_tests::ready(&router).await;
    let writers = Writers::start(&router, 20);
    let reads: Vec<_> = (0..20)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move { served_by_slowly(&reader(&router), 1.0).await })
        })
        .collect();
    writers.go_on(100).await;
    served_by(&writer(&other)).await.expect("a statement");

    let ended = router.shutdown(PATIENCE).await;
    assert!(ended.is_clean() && ended.left == 0, "{ended:?}");
    for read in reads {
        read.await.expect("no panic").expect("a read that has begun ends");
    }
    let writes = writers.stop().await;
    for write in writes.all() {
        let refused =
            matches!(&write.fate, Fate::Refused(why) if why.ends_with(&RouteError::Closed.to_string()));
        assert!(write.fate == Fate::Acknowledged || refused, "{write:?}");
    }
    writes.assert_kept(&cluster, &[PRIMARY]).await;
    served_by(&writer(&other)).await.expect("a router on the same cluster goes on");

    assert!(shared.shutdown(PATIENCE).await.is_clean());
    let error = served_by(&writer(&other)).await.expect_err("it is closed with its cluster");
    assert_eq!(O::route_error(&error), Some(&RouteError::Closed));
    // Both routers are still held: it is the shutdown that has closed the connections.
    nothing_is_left(&cluster).await;
    drop((router, other));
}

async fn a_stream_that_is_cut_says_so_and_nothing_about_its_node<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = cluster.config();
    let shared = Cluster::start(config.clone(), O::prober(&config, &O::Options::default())).expect("valid");
    let guest = Router::<O>::new(&shared, O::Options::default()).expect("valid");
    let other = Router::<O>::new(&shared, O::Options::default()).expect("valid");
    routing_tests::ready(&guest).await;
    // Rows that are large enough to be sent before the last one is there.
    let sql = "SELECT n, repeat('x', 20000) || pg_sleep(CASE WHEN n < 5 THEN 0 ELSE 600 END) \
               FROM generate_series(1, 5) AS n";
    let mut streams = Vec::new();
    // More than a breaker would stand, on each replica.
    for _ in 0..12 {
        let mut rows = O::rows(&reader(&guest), sql).await.expect("rows");
        rows.next().await.expect("a row").expect("the first row");
        streams.push(rows);
    }
    let cut = tokio::spawn({
        let guest = guest.clone();
        async move { guest.shutdown(Duration::ZERO).await }
    });
    for mut rows in streams {
        let error = loop {
            if let Err(error) = rows.next().await.expect("an end with a reason") {
                break error;
            }
        };
        assert_eq!(O::route_error(&error), Some(&RouteError::Closed), "{error}");
    }
    cut.await.expect("no panic");
    for node in other.status().nodes {
        assert_eq!((node.breaker, node.in_flight), ("closed", 0), "{}", node.name);
    }
    served_by(&reader(&other)).await.expect("the other router reads on");
}

async fn what_is_cut_at_the_limit_ends_on_the_servers_too<O: Orm>() {
    let cluster = TestCluster::start().await;
    let router = cluster.router::<O>().await;
    let lock = cluster.database(PRIMARY, Login::Superuser).await;
    lock.run("BEGIN; LOCK TABLE note IN EXCLUSIVE MODE").await.expect("the lock");
    let waiting = |wait: &'static str| {
        let cluster = &cluster;
        async move || cluster.app_processes(PRIMARY, &format!("wait_event_type = '{wait}'")).await == 1
    };
    let write = {
        let db = writer(&router);
        tokio::spawn(async move { db.insert_note("cut", "by a statement").await })
    };
    eventually(PATIENCE, "the write waits for its lock", waiting("Lock")).await;
    let read = {
        let router = router.clone();
        tokio::spawn(async move { served_by_slowly(&reader(&router), 600.0).await })
    };
    let transaction = {
        let db = writer(&router);
        let undone = "INSERT INTO note (author, text) VALUES ('cut', 'in a transaction') RETURNING text";
        tokio::spawn(async move { db.transaction(&["SELECT pg_sleep(600)::text", undone]).await.map(drop) })
    };
    eventually(PATIENCE, "the transaction runs", waiting("Timeout")).await;

    let ended = router.shutdown(Duration::from_secs(1)).await;
    assert!(ended.cut >= 3 && ended.left == 0, "{ended:?}");
    assert!(ended.took < Duration::from_secs(10), "{ended:?}");
    let closed = |error: O::Failure| {
        assert_eq!(O::route_error(&error), Some(&RouteError::Closed), "{error}");
    };
    closed(read.await.expect("no panic").expect_err("it was cut"));
    closed(transaction.await.expect("no panic").expect_err("it was cut"));
    let unknown = write.await.expect("no panic").expect_err("it was cut");
    assert!(O::is_commit_unknown(&unknown), "{unknown}");
    // The lock is still held: nothing waits for it any more.
    nothing_is_left(&cluster).await;
    drop(lock);
    assert_eq!(cluster.notes_by(PRIMARY, "cut").await, 0);
}

/// What clients of the screener were told.
#[derive(Debug, Default)]
struct Told {
    succeeded: usize,
    refused_connections: usize,
    failures: Vec<String>,
    added: Vec<usize>,
}

/// Requests a second.
const RATE: f64 = 80.0;

async fn the_screener_ends_under_load_without_a_failed_response<O: Orm>() {
    let cluster = TestCluster::start().await;
    let mut screener = Screener::start::<O>(&cluster.config(), "", &["--drain-delay", "1"]).await;
    let seed = fastrand::u64(..1_000_000);
    eprintln!("seed {seed}");
    let arrivals = open_loop::arrivals(&mut Rng::with_seed(seed), RATE, Duration::from_secs(8));
    let (http, told) = (Arc::new(Http::new(screener.address())), Arc::<Mutex<Told>>::default());
    let running = Arc::<AtomicUsize>::default();
    let began = Instant::now();
    let load = tokio::spawn({
        let (http, told, running) = (http.clone(), told.clone(), running.clone());
        async move {
            open_loop::run(began, &arrivals, |number, _| {
                let (http, told, running) = (http.clone(), told.clone(), running.clone());
                async move {
                    running.fetch_add(1, SeqCst);
                    request(&http, number, &told).await;
                    running.fetch_sub(1, SeqCst);
                }
            })
            .await;
        }
    });
    let pings: Vec<_> = (0..PINGERS).map(|_| tokio::spawn(ping(screener.address().to_owned()))).collect();
    sleep(Duration::from_secs(3)).await;
    // Writes pile up behind a lock: they are in flight when the signal comes, and for longer than connections are taken.
    let lock = cluster.database(PRIMARY, Login::Superuser).await;
    lock.run("BEGIN; LOCK TABLE watchlist IN EXCLUSIVE MODE").await.expect("the lock");
    eventually(PATIENCE, "writes wait", async || running.load(SeqCst) >= 3).await;
    let succeeded = told.lock().expect("no panic").succeeded;
    assert!(succeeded > 100, "{succeeded} requests succeeded before the signal");
    screener.signal(Signal::SIGTERM);
    let stranger = Http::new(screener.address());
    eventually(PATIENCE, "readiness is gone while connections are taken", async || {
        stranger
            .get("/health/ready")
            .await
            .is_ok_and(|reply| reply.status == 503 && reply.code() == "stopping")
    })
    .await;
    assert_eq!(stranger.get("/health/live").await.map(|reply| reply.status), Ok(200));
    eventually(PATIENCE, "no connection is taken any more", async || {
        matches!(Http::new(screener.address()).get("/health/live").await, Err(Lost::NotConnected(_)))
    })
    .await;
    let waiting = running.load(SeqCst);
    assert!(waiting > 0, "requests are still in flight then");
    drop(lock);
    let status = screener.ended().await;
    assert!(status.success(), "{status}\n{}", screener.log());
    load.await.expect("no panic");
    for pinged in pings {
        pinged
            .await
            .expect("no panic")
            .unwrap_or_else(|lost| panic!("a request on a kept connection: {lost:?}"));
    }

    let told = std::mem::take(&mut *told.lock().expect("no panic"));
    eprintln!(
        "{}: {} requests succeeded, {waiting} of them in flight when it stopped listening, {} found no listener",
        O::NAME,
        told.succeeded,
        told.refused_connections
    );
    assert!(told.failures.is_empty(), "{} failures: {:#?}", told.failures.len(), told.failures);
    assert!(told.refused_connections > 0, "the load went on after the end");
    let kept = "SELECT coalesce(string_agg(stock_id::text, ' '), '') FROM watchlist WHERE user_name = 'load'";
    let kept: String = cluster.value(PRIMARY, kept).await;
    let kept: Vec<usize> = kept.split_whitespace().map(|id| id.parse().expect("a number")).collect();
    assert!(told.added.iter().all(|added| kept.contains(added)), "every acknowledged write is there");
    nothing_is_left(&cluster).await;
}

/// Clients that ask again and again on one kept connection each: some request is always on its way.
const PINGERS: usize = 16;

/// Asks until the server says that it closes the connection, or has closed it between two requests.
async fn ping(address: String) -> Result<(), Lost> {
    let http = Http::new(&address);
    loop {
        match http.get("/health/live").await {
            Ok(reply) if reply.header("connection") == Some("close") => return Ok(()),
            Ok(_) => {}
            Err(Lost::NotConnected(_)) => return Ok(()),
            Err(lost) => return Err(lost),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// One of some reads and writes, and what came of it.
async fn request(http: &Http, number: usize, told: &Mutex<Told>) {
    let added = number + 1;
    let body = format!("{{\"stock_id\": {added}}}");
    let is_write = number % 5 == 4;
    let answered = match number % 5 {
        4 => http.ask("POST", "/watchlist", &[("x-user", "load")], Some(&body)).await,
        3 => http.get(&format!("/stocks/{added}")).await,
        _ => http.get(&format!("/stocks?page={}&page_size=20", number % 50 + 1)).await,
    };
    let mut told = told.lock().expect("no panic");
    match answered {
        Ok(reply) if reply.is_success() => {
            told.succeeded += 1;
            if is_write {
                told.added.push(added);
            }
        }
        Err(Lost::NotConnected(why)) if why.contains("refused") => told.refused_connections += 1,
        other => told.failures.push(format!("request {number}: {other:?}")),
    }
}

async fn a_second_signal_cuts_what_runs_and_says_what_is_known<O: Orm>() {
    let cluster = TestCluster::start().await;
    let mut screener = Screener::start::<O>(&cluster.config(), "", &[]).await;
    let lock = cluster.database(PRIMARY, Login::Superuser).await;
    lock.run("BEGIN; LOCK TABLE watchlist IN EXCLUSIVE MODE").await.expect("the lock");
    let write = {
        let http = Http::new(screener.address());
        tokio::spawn(async move { http.ask("POST", "/watchlist", &[], Some("{\"stock_id\": 1}")).await })
    };
    eventually(PATIENCE, "the write waits", async || {
        cluster.app_processes(PRIMARY, "wait_event_type = 'Lock'").await == 1
    })
    .await;
    screener.signal(Signal::SIGINT);
    eventually(PATIENCE, "it does not listen any more", async || {
        matches!(Http::new(screener.address()).get("/health/live").await, Err(Lost::NotConnected(_)))
    })
    .await;
    assert!(!write.is_finished(), "the request may end");
    screener.signal(Signal::SIGINT);
    let reply = write.await.expect("no panic").expect("it is answered, not cut off");
    assert_eq!((reply.status, reply.code()), (503, "commit_unknown".to_owned()));
    assert!(screener.ended().await.success(), "{}", screener.log());
    nothing_is_left(&cluster).await;
}
