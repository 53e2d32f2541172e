//! The screener goes through a failover and a switchover without a restart, on both ORMs.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use example_screener::prepare;
use routing_cluster::{SilentProgress, SyncMode};
use routing_core::{Backend as _, Cluster, Router, RouterConfig};
use routing_diesel::{Diesel, DieselOptions};
use routing_seaorm::{SeaOrm, SeaOrmOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

/// Far more than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often each answer came, and which stocks a user was told to have on the watchlist.
#[derive(Debug, Default)]
struct Seen {
    reads: BTreeMap<String, u64>,
    writes: BTreeMap<String, u64>,
    added: BTreeSet<u64>,
}

/// One ORM's application and its clients: some page through the stocks, one fills a watchlist.
struct Clients {
    app: axum::Router,
    user: &'static str,
    seen: Arc<Mutex<Seen>>,
}

impl Clients {
    fn new(app: axum::Router, user: &'static str) -> Self {
        Self { app, user, seen: Arc::default() }
    }

    fn start(&self, tasks: &mut JoinSet<()>, stop: &Arc<AtomicBool>) {
        for page in 1..=5 {
            let (app, seen, stop) = (self.app.clone(), self.seen.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.load(Relaxed) {
                    let request = Request::get(format!("/stocks?page={page}&page_size=20"));
                    let (status, body) = ask(&app, request.body(Body::empty()).unwrap()).await;
                    *seen.lock().unwrap().reads.entry(words(status, &body)).or_default() += 1;
                    sleep(Duration::from_millis(50)).await;
                }
            });
        }
        let (app, seen, stop, user) = (self.app.clone(), self.seen.clone(), stop.clone(), self.user);
        tasks.spawn(async move {
            for stock in 1_u64.. {
                if stop.load(Relaxed) {
                    return;
                }
                let add = Request::post("/watchlist").header("x-user", user);
                let add = add.header(CONTENT_TYPE, "application/json");
                let add = add.body(Body::from(format!(r#"{{"stock_id": {stock}}}"#))).unwrap();
                let (status, body) = ask(&app, add).await;
                {
                    let mut seen = seen.lock().unwrap();
                    *seen.writes.entry(words(status, &body)).or_default() += 1;
                    if status == 201 {
                        seen.added.insert(stock);
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
    }

    fn added(&self) -> usize {
        self.seen.lock().unwrap().added.len()
    }

    async fn watchlist(&self) -> BTreeSet<u64> {
        let list = Request::get("/watchlist").header("x-user", self.user).body(Body::empty()).unwrap();
        let (status, body) = ask(&self.app, list).await;
        assert_eq!(status, 200, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let items = body["items"].as_array().unwrap().iter();
        items.map(|item| item["stock_id"].as_u64().unwrap()).collect()
    }
}

async fn ask(app: &axum::Router, request: Request<Body>) -> (u16, String) {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

/// The status, and the code of an error.
fn words(status: u16, body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    format!("{status} {}", body["error"]["code"].as_str().unwrap_or(""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_orms_go_through_a_failover_and_a_switchover_without_a_restart() {
    let (servers, nodes, _place) = place::servers().await;
    servers.set_sync(SyncMode::Quorum, &SilentProgress).await.unwrap();
    let waits = RouterConfig { write_wait: PATIENCE, acquire_deadline: PATIENCE, ..RouterConfig::default() };
    let config = RouterConfig { nodes, ..waits };
    let prober = Diesel::prober(&config, &DieselOptions::default());
    let cluster = Cluster::start(config, prober).unwrap();
    let seaorm = Router::<SeaOrm>::new(&cluster, SeaOrmOptions::default()).unwrap();
    let diesel = Router::<Diesel>::new(&cluster, DieselOptions::default()).unwrap();
    prepare(&seaorm, &SilentProgress).await.unwrap();
    let all = [
        Clients::new(example_screener::seaorm::app(seaorm, String::new), "sea"),
        Clients::new(example_screener::diesel::app(diesel, String::new), "diesel"),
    ];
    let (mut tasks, stop) = (JoinSet::new(), Arc::<AtomicBool>::default());
    all.iter().for_each(|clients| clients.start(&mut tasks, &stop));
    let go_on = async |what: &str| {
        let targets: Vec<usize> = all.iter().map(|clients| clients.added() + 30).collect();
        let (began, deadline) = (Instant::now(), Instant::now() + PATIENCE);
        while all.iter().zip(&targets).any(|(clients, target)| clients.added() < *target) {
            assert!(Instant::now() < deadline, "no writes {what}: {:?}", all.each_ref().map(|c| c.added()));
            sleep(Duration::from_millis(20)).await;
        }
        eprintln!("{what}: writes go on, {:?} later 30 of each", began.elapsed());
    };

    go_on("at first").await;
    servers.kill("pg1").await.unwrap();
    // The one that has received most is not refused.
    let promoted = match servers.promote("pg2", false, &SilentProgress).await {
        Ok(promoted) => promoted,
        Err(_) => servers.promote("pg3", false, &SilentProgress).await.unwrap(),
    };
    go_on("after the failover").await;
    servers.rejoin("pg1", false, &SilentProgress).await.unwrap();
    go_on("after the old primary's return").await;
    servers.switchover("pg1", &SilentProgress).await.unwrap();
    go_on("after the switchover").await;
    stop.store(true, Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }

    assert_ne!(promoted.primary, "pg1");
    assert_eq!(cluster.status().primary.as_deref(), Some("pg1"));
    assert_eq!(cluster.status().epoch, 3, "it changed twice");
    for clients in &all {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let watched = clients.watchlist().await;
            let added = clients.seen.lock().unwrap().added.clone();
            let lost: Vec<_> = added.difference(&watched).collect();
            if lost.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{} lost {lost:?}", clients.user);
            sleep(Duration::from_millis(20)).await;
        }
        let seen = clients.seen.lock().unwrap();
        eprintln!("{}: reads {:?}, writes {:?}", clients.user, seen.reads, seen.writes);
        assert_eq!(seen.reads.keys().collect::<Vec<_>>(), ["200 "], "{}", clients.user);
        // Whatever was not added has its reason, and says when to try again or that nobody knows.
        assert!(
            seen.writes.keys().all(|words| words == "201 " || words.starts_with("503 ")),
            "{:?}",
            seen.writes
        );
    }
    cluster.close();
}
