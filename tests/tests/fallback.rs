//! All replicas are dead, and their readers keep coming: the primary goes on writing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router as AxumRouter;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fastrand::Rng;
use routing_axum::{ReadDb, RoutingLayer, Unavailable, WriteDb, priority};
use routing_cluster::Login;
use routing_core::{Priority, Router, RouterConfig};
use routing_tests::{
    Handle as _, Http, Lost, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, Reply, TestCluster, eventually,
    figures, open_loop, router,
};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

routing_tests::on_both! {
    the_primary_goes_on_writing_under_the_reads_of_lost_replicas,
}

/// What readers of lost replicas may use of the primary at once.
const CAP: u32 = 6;
/// What batch reads may use of that.
const BATCH: i64 = 3;
/// Reads a second of each class, each of which takes a tenth of a second and some work: six times the cap.
const READS: f64 = 180.0;
/// Writes a second.
const WRITES: f64 = 20.0;

/// One read that takes a connection for a while. The name is for `pg_stat_activity`.
fn read_sql(class: &str) -> String {
    format!("SELECT count(*)::text AS {class} FROM generate_series(1, 10000), pg_sleep(0.1)")
}

enum Failed<O: Orm> {
    Database(O::Failure),
}

impl<O: Orm> IntoResponse for Failed<O> {
    fn into_response(self) -> Response {
        let Self::Database(failure) = self;
        match O::route_error(&failure) {
            Some(refused) => Unavailable::from(refused).into_response(),
            None => (StatusCode::INTERNAL_SERVER_ERROR, failure.to_string()).into_response(),
        }
    }
}

async fn browse<O: Orm>(ReadDb(db): ReadDb<O>) -> Result<String, Failed<O>> {
    db.text(&read_sql("normal")).await.map_err(Failed::Database)
}

async fn report<O: Orm>(ReadDb(db): ReadDb<O>) -> Result<String, Failed<O>> {
    db.text(&read_sql("batch")).await.map_err(Failed::Database)
}

async fn add<O: Orm>(WriteDb(db): WriteDb<O>) -> Result<StatusCode, Failed<O>> {
    db.insert_note("fallback", "kept").await.map_err(Failed::Database)?;
    Ok(StatusCode::CREATED)
}

async fn serve<O: Orm>(router: Router<O>) -> String {
    let app = AxumRouter::new()
        .route("/browse", get(browse::<O>))
        .route("/report", get(report::<O>).layer(priority(Priority::Batch)))
        .route("/notes", post(add::<O>))
        .layer(RoutingLayer::new())
        .with_state(router);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// What requests of one kind came to.
#[derive(Debug, Default)]
struct Told {
    latencies: Vec<Duration>,
    shed: usize,
    wrong: Vec<String>,
}

impl Told {
    fn percentile(&mut self, percent: usize) -> Duration {
        self.latencies.sort_unstable();
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)]
    }

    /// How many of a hundred were served.
    fn served(&self) -> usize {
        100 * self.latencies.len() / (self.latencies.len() + self.shed).max(1)
    }
}

type Board = Arc<Mutex<BTreeMap<&'static str, Told>>>;

/// Requests of one kind at moments drawn in advance.
async fn load(http: Arc<Http>, board: Board, kind: &'static str, per_second: f64, duration: Duration) {
    let arrivals = open_loop::arrivals(&mut Rng::with_seed(per_second as u64), per_second, duration);
    open_loop::run(Instant::now(), &arrivals, |_, moment| {
        let (http, board) = (http.clone(), board.clone());
        async move {
            let reply: Result<Reply, Lost> = match kind {
                "write" => http.ask("POST", "/notes", &[], None).await,
                "batch" => http.get("/report").await,
                _ => http.get("/browse").await,
            };
            let mut board = board.lock().expect("no panic");
            let told = board.entry(kind).or_default();
            match reply {
                Ok(reply) if reply.is_success() => told.latencies.push(moment.elapsed()),
                Ok(reply) if reply.status == 503 && reply.code() == "overloaded" => {
                    let again = reply.header("retry-after").and_then(|after| after.parse::<u32>().ok());
                    if again.is_none_or(|after| after == 0) {
                        told.wrong.push(format!("it does not say when to try again: {reply:?}"));
                    }
                    told.shed += 1;
                }
                other => told.wrong.push(format!("{other:?}")),
            }
        }
    })
    .await;
}

async fn the_primary_goes_on_writing_under_the_reads_of_lost_replicas<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = RouterConfig { fallback_no_replica: Some(CAP), ..cluster.config() };
    let router = router::<O>(config).await;
    let http = Arc::new(Http::new(&serve(router.clone()).await));
    let quiet = Board::default();
    load(http.clone(), quiet.clone(), "write", WRITES, Duration::from_secs(1)).await;
    quiet.lock().expect("no panic").clear();
    load(http.clone(), quiet.clone(), "write", WRITES, Duration::from_secs(5)).await;

    for replica in REPLICAS {
        cluster.kill(replica).await;
    }
    for replica in REPLICAS {
        eventually(PATIENCE, "the dead are known", async || router.refuses(replica, "down")).await;
    }
    let fire = Board::default();
    let duration = Duration::from_secs(6);
    let watched = cluster.database(PRIMARY, Login::Superuser).await;
    let watching = tokio::spawn(async move {
        let running = |class: &str| {
            format!(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' \
                 AND query LIKE '%AS {class}%'"
            )
        };
        let (mut normal, mut batch, mut looks) = (0, 0, 0);
        let began = Instant::now();
        while began.elapsed() < duration {
            normal = normal.max(watched.value::<i64>(&running("normal")).await.expect("a count"));
            batch = batch.max(watched.value::<i64>(&running("batch")).await.expect("a count"));
            looks += 1;
            sleep(Duration::from_millis(20)).await;
        }
        (normal, batch, looks)
    });
    tokio::join!(
        load(http.clone(), fire.clone(), "write", WRITES, duration),
        load(http.clone(), fire.clone(), "normal", READS, duration),
        load(http.clone(), fire.clone(), "batch", READS, duration),
    );
    let (normal, batch, looks) = watching.await.expect("no panic");
    eventually(PATIENCE, "the permits are back", async || router.status().fallback_in_use == 0).await;

    let [mut quiet, mut fire] =
        [quiet, fire].map(|board| std::mem::take(&mut *board.lock().expect("no panic")));
    for (percent, what) in [(50, "half of the writes within"), (95, "95 % of the writes within")] {
        let [calm, hot] =
            [&mut quiet, &mut fire].map(|board| board.get_mut("write").expect("writes").percentile(percent));
        figures::gap::<O>("reads of lost replicas", &format!("{what}, quiet"), calm);
        figures::gap::<O>("reads of lost replicas", &format!("{what}, under fire"), hot);
        let ratio = (100.0 * hot.as_secs_f64() / calm.as_secs_f64()) as usize;
        figures::count::<O>("reads of lost replicas", &format!("{what}, % of quiet"), ratio);
    }
    for kind in ["normal", "batch"] {
        let told = fire.get(kind).expect("reads");
        figures::count::<O>("reads of lost replicas", &format!("{kind} reads served"), told.latencies.len());
        figures::count::<O>("reads of lost replicas", &format!("{kind} reads shed"), told.shed);
    }
    figures::count::<O>(
        "reads of lost replicas",
        &format!("reads on the primary at once, at most, seen in {looks} looks"),
        usize::try_from(normal.max(batch)).expect("a count"),
    );
    for board in [&quiet, &fire] {
        for (kind, told) in board {
            assert!(told.wrong.is_empty(), "{kind}: {:?}", told.wrong);
        }
        let writes = &board["write"];
        assert!(writes.shed == 0 && writes.latencies.len() >= 60, "all writes succeed: {}", writes.shed);
    }
    let (normal_told, batch_told) = (&fire["normal"], &fire["batch"]);
    assert!(normal_told.shed > 100 && batch_told.shed > 100, "most reads are shed");
    assert!(normal_told.latencies.len() > 100, "the primary does serve");
    assert!(
        batch_told.served() * 2 < normal_told.served(),
        "batch reads are shed first: {} % of them are served, {} % of the others",
        batch_told.served(),
        normal_told.served()
    );
    assert!((1..=i64::from(CAP)).contains(&normal), "{normal} reads at once on the primary");
    assert!(batch <= BATCH, "{batch} batch reads at once on the primary");
    let kept = quiet["write"].latencies.len() + fire["write"].latencies.len();
    assert!(cluster.notes_by(PRIMARY, "fallback").await >= i64::try_from(kept).expect("a count"));
}
