//! The API answers alike on both ORMs: one real cluster, one `Cluster` that carries both routers, the same requests.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod place;

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use example_screener::{Prepared, prepare};
use routing_cluster::{LocalCluster, Login, SilentProgress};
use routing_core::{Backend as _, Cluster, Router, RouterConfig};
use routing_diesel::{Diesel, DieselOptions};
use routing_seaorm::{SeaOrm, SeaOrmOptions};
use sea_orm::{ConnectionTrait as _, DatabaseConnection};
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

/// Far more than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both APIs over the same servers.
struct Screeners {
    seaorm: axum::Router,
    diesel: axum::Router,
    /// Past the router, to set the scene.
    primary: DatabaseConnection,
    servers: LocalCluster,
    cluster: Cluster,
    /// What another instance of the application would be started with.
    config: RouterConfig,
    _place: place::Place,
}

impl Screeners {
    async fn start() -> Self {
        let (servers, nodes, place) = place::servers().await;
        // Short: at the end no primary comes.
        let write_wait = Duration::from_secs(2);
        let token_keys = Some("the key of all instances of the application".parse().unwrap());
        let config = RouterConfig { nodes, write_wait, token_keys, ..RouterConfig::default() };
        let prober = Diesel::prober(&config, &DieselOptions::default());
        let cluster = Cluster::start(config.clone(), prober).unwrap();
        let seaorm = Router::<SeaOrm>::new(&cluster, SeaOrmOptions::default()).unwrap();
        let diesel = Router::<Diesel>::new(&cluster, DieselOptions::default()).unwrap();
        let prepared = prepare(&seaorm, &SilentProgress).await.unwrap();
        assert_eq!(prepared, Prepared { stocks_added: 1_827, closes_added: 62_130 });
        let primary = routing_seaorm::connect_primary(&seaorm, PATIENCE).await.unwrap();
        Self {
            seaorm: example_screener::seaorm::app(seaorm, String::new),
            diesel: example_screener::diesel::app(diesel, String::new),
            primary,
            servers,
            cluster,
            config,
            _place: place,
        }
    }

    /// The answer of both, which is the same.
    async fn both(&self, ask: &Ask) -> Answer {
        let (seaorm, diesel) = tokio::join!(ask.of(&self.seaorm), ask.of(&self.diesel));
        assert_eq!(seaorm.contract(), diesel.contract(), "SeaORM on the left, Diesel on the right: {ask:?}");
        seaorm
    }

    /// The answer of both once both say so: replicas receive what was written a little later.
    async fn both_until(&self, ask: &Ask, arrived: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (seaorm, diesel) = tokio::join!(ask.of(&self.seaorm), ask.of(&self.diesel));
            if arrived(&seaorm) && arrived(&diesel) {
                assert_eq!(
                    seaorm.contract(),
                    diesel.contract(),
                    "SeaORM on the left, Diesel on the right: {ask:?}"
                );
                return seaorm;
            }
            assert!(Instant::now() < deadline, "{ask:?}: {seaorm:?}, {diesel:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the next stock that is added get the number 5000, as if none had been added before.
    async fn forget_added_stocks(&self) {
        let sql = "DELETE FROM stocks WHERE id >= 5000; ALTER TABLE stocks ALTER id RESTART WITH 5000";
        self.primary.execute_unprepared(sql).await.unwrap();
    }
}

#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    uri: String,
    user: Option<&'static str>,
    body: Option<String>,
}

impl Ask {
    fn new(method: &'static str, uri: impl Into<String>) -> Self {
        Self { method, uri: uri.into(), user: None, body: None }
    }

    fn get(uri: impl Into<String>) -> Self {
        Self::new("GET", uri)
    }

    fn post(uri: &str, body: impl Into<String>) -> Self {
        Self { body: Some(body.into()), ..Self::new("POST", uri) }
    }

    fn user(self, user: &'static str) -> Self {
        Self { user: Some(user), ..self }
    }

    async fn of(&self, app: &axum::Router) -> Answer {
        let mut request = Request::builder().method(self.method).uri(&self.uri);
        if let Some(user) = self.user {
            request = request.header("x-user", user);
        }
        if self.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Body::from(self.body.clone().unwrap_or_default())).unwrap();
        let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: [CONTENT_TYPE, LOCATION, RETRY_AFTER, ALLOW].map(|name| header(name.as_str())),
            body: String::from_utf8(body.to_vec()).unwrap(),
            role: header("x-db-role"),
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    /// Its kind, where what was made is, when to try again, and which methods there are.
    headers: [Option<String>; 4],
    body: String,
    /// The role of the node that served it.
    role: Option<String>,
}

impl Answer {
    /// What is the same on both ORMs. Which node serves is not: a replica may be a little behind for a moment.
    fn contract(&self) -> (u16, &[Option<String>; 4], &str) {
        (self.status, &self.headers, &self.body)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn code(&self) -> String {
        let body = self.json();
        assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        body["error"]["code"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_orms_answer_alike() {
    let screeners = Screeners::start().await;
    reads(&screeners).await;
    known_figures(&screeners).await;
    bad_input(&screeners).await;
    stocks_are_added(&screeners).await;
    watchlists_are_kept(&screeners).await;
    another_instance_shows_a_client_its_watchlist(&screeners).await;
    replicas_serve(&screeners).await;
    without_servers(&screeners).await;
    screeners.cluster.close();
}

async fn reads(screeners: &Screeners) {
    let mut uris: Vec<String> = [
        "/",
        "/health/live",
        "/health/ready",
        "/routing/dashboard",
        "/stocks",
        "/stocks?page=2",
        "/stocks?page=19&page_size=100",
        "/stocks?page=20&page_size=100",
        "/stocks?page=4294967295&page_size=100",
        "/stocks?page=&page_size=",
        "/stocks?country=Germany",
        "/stocks?country=germany",
        "/stocks?index=S%26P%20500",
        "/stocks?index=S%26P",
        "/stocks?industry=Banks&page_size=100",
        "/stocks?min_employees=100000",
        "/stocks?min_employees=-1",
        "/stocks?min_employees=2147483647",
        "/stocks?q=bank",
        "/stocks?q=BANK",
        "/stocks?q=%26",
        "/stocks?q=%25",
        "/stocks?q=_",
        "/stocks?q=%5C",
        "/stocks?q=Cr%C3%A9dit",
        "/stocks?country=Germany&index=DAX&industry=Industrials&min_employees=1000&q=a&sort=-founded",
        "/stocks?country=&index=&industry=&min_employees=&q=&sort=",
        "/stocks?q=%27%3B%20DROP%20TABLE%20stocks%3B%20--",
        "/stocks?country=%27%20OR%20%271%27%3D%271",
        "/stocks?index=%7Ba%2Cb%7D",
        "/stocks?unknown=1",
        "/stocks/1",
        "/stocks/1827",
        "/screen",
        "/screen?window=&sort=&limit=",
        "/screen?window=2&sort=symbol&limit=100",
        "/screen?window=1000&sort=return&limit=5",
        "/screen?window=252&sort=volatility&limit=100",
        "/watchlist",
    ]
    .map(str::to_owned)
    .into();
    for key in ["symbol", "name", "employees", "founded"] {
        for sign in ["", "-"] {
            uris.push(format!("/stocks?sort={sign}{key}&page_size=100"));
            // Where the known figures end.
            uris.push(format!("/stocks?sort={sign}{key}&page_size=100&page=15"));
            uris.push(format!("/stocks?sort={sign}{key}&page_size=100&page=19"));
        }
    }
    let with_closes = stock_id(screeners, "MRK").await;
    for days in ["", "from=2022-01-01", "to=2010-02-01", "from=2015-03-02&to=2015-03-31", "from=&to="] {
        uris.push(format!("/stocks/{with_closes}/closes?{days}"));
        uris.push(format!("/stocks/1/closes?{days}"));
    }
    uris.push(format!("/stocks/{with_closes}/closes?from=9999-12-31"));
    uris.push(format!("/stocks/{with_closes}/closes?to=0001-01-01"));
    for uri in uris {
        let answer = screeners.both(&Ask::get(uri)).await;
        assert!(answer.status == 200 && !answer.body.is_empty(), "{answer:?}");
    }
    // What changes by itself is compared by its kind.
    for uri in ["/metrics", "/routing"] {
        let ask = Ask::get(uri);
        let (seaorm, diesel) = (ask.of(&screeners.seaorm).await, ask.of(&screeners.diesel).await);
        assert_eq!((seaorm.status, &seaorm.headers), (200, &diesel.headers), "{uri}");
        assert_eq!(diesel.status, 200, "{uri}");
        assert!(!seaorm.body.is_empty() && !diesel.body.is_empty(), "{uri}");
    }
}

async fn known_figures(screeners: &Screeners) {
    let total = async |uri: &str| screeners.both(&Ask::get(uri)).await.json()["total"].as_u64().unwrap();
    assert_eq!(total("/stocks").await, 1_827);
    assert_eq!(total("/stocks?country=Germany").await, 130);
    assert_eq!(total("/stocks?index=S%26P%20500").await, 503);
    assert_eq!(total("/stocks?index=S%26P").await, 0, "membership is no prefix");
    assert_eq!(total("/stocks?q=bank").await, 45);
    assert_eq!(total("/stocks?q=%25").await, 0, "a wildcard is text");
    assert_eq!(total("/stocks?q=%27%3B%20DROP%20TABLE%20stocks%3B%20--").await, 0);

    let page = screeners.both(&Ask::get("/stocks?sort=-employees&page_size=1&page=3")).await;
    assert!(page.body.starts_with(r#"{"items":[{"id":"#), "{}", page.body);
    assert!(page.body.ends_with(r#"],"page":3,"page_size":1,"total":1827}"#), "{}", page.body);
    let unknown_last = screeners.both(&Ask::get("/stocks?sort=-employees&page_size=100&page=19")).await;
    let items = unknown_last.json()["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 27);
    assert!(items.iter().all(|item| item["employees"].is_null()), "unknown figures come last");
    assert!(items.is_sorted_by_key(|item| item["id"].as_i64()), "the number decides a tie");

    let screen = screeners.both(&Ask::get("/screen?window=30&sort=return&limit=100")).await.json();
    let ranked = screen["items"].as_array().unwrap();
    assert_eq!((screen["window"].as_u64(), ranked.len()), (Some(30), 19));
    let merck = ranked.iter().find(|item| item["symbol"] == "MRK").unwrap();
    assert_eq!(merck["return"].as_f64(), Some(0.122_652_624_245_715_1));
    assert_eq!(merck["closes"].as_u64(), Some(30));
    assert!(merck["volatility"].as_f64().is_some_and(|volatility| volatility > 0.0));

    let closes = format!("/stocks/{}/closes", merck["id"]);
    let closes = screeners.both(&Ask::get(closes)).await.json()["items"].as_array().unwrap().clone();
    assert_eq!(closes.len(), 3_270);
    assert_eq!(closes[0]["date"], "2010-01-04");
}

async fn bad_input(screeners: &Screeners) {
    let get = |uri: &str| Ask::get(uri);
    let table = [
        (get("/stocks?page=0"), 400, "bad_query"),
        (get("/stocks?page=one"), 400, "bad_query"),
        (get("/stocks?page=4294967296"), 400, "bad_query"),
        (get("/stocks?page_size=0"), 400, "bad_query"),
        (get("/stocks?page_size=1000"), 400, "bad_query"),
        (get("/stocks?page=1&page=2"), 400, "bad_query"),
        (get("/stocks?sort=price"), 400, "bad_query"),
        (get("/stocks?sort=name%3B%20DROP%20TABLE%20stocks"), 400, "bad_query"),
        (get("/stocks?min_employees=1e3"), 400, "bad_query"),
        (get("/stocks?q=%00"), 400, "bad_query"),
        (get(&format!("/stocks?q={}", "x".repeat(201))), 400, "bad_query"),
        (get("/stocks/one"), 400, "bad_path"),
        (get("/stocks/2147483648"), 400, "bad_path"),
        (get("/stocks/0"), 404, "not_found"),
        (get("/stocks/2147483647"), 404, "not_found"),
        (get("/stocks/2147483647/closes"), 404, "not_found"),
        (get("/stocks/1/closes?from=2022-02-30"), 400, "bad_query"),
        (get("/stocks/1/closes?from=2022-02-02&to=2022-02-01"), 400, "bad_query"),
        (get("/stocks/1/closes?to=%2B262142-12-31"), 400, "bad_query"),
        (get("/screen?window=1"), 400, "bad_query"),
        (get("/screen?window=1001"), 400, "bad_query"),
        (get("/screen?limit=0"), 400, "bad_query"),
        (get("/screen?limit=101"), 400, "bad_query"),
        (get("/screen?sort=name"), 400, "bad_query"),
        (get("/watchlist").user(""), 400, "bad_user"),
        (get("/watchlist").user("a\tb"), 400, "bad_user"),
        (Ask::post("/stocks", "{"), 400, "bad_json"),
        (Ask::post("/stocks", ""), 400, "bad_json"),
        (Ask::post("/stocks", "{}"), 422, "bad_json"),
        (Ask::new("POST", "/stocks"), 415, "bad_json"),
        (Ask::post("/stocks", r#"{"symbol": "", "name": "A"}"#), 422, "invalid"),
        (Ask::post("/stocks", r#"{"symbol": "A'; --", "name": "A"}"#), 422, "invalid"),
        (Ask::post("/stocks", r#"{"symbol": "A", "name": "A\u0000"}"#), 422, "invalid"),
        (Ask::post("/stocks", r#"{"symbol": "A", "name": "A", "employees": -1}"#), 422, "invalid"),
        (Ask::post("/stocks", r#"{"symbol": "MRK", "name": "A"}"#), 409, "duplicate_symbol"),
        (Ask::post("/watchlist", r#"{"stock_id": "x"}"#), 422, "bad_json"),
        (Ask::post("/watchlist", r#"{"stock_id": 2147483647}"#), 404, "not_found"),
        (Ask::post("/watchlist", r#"{"stock_id": -1}"#), 404, "not_found"),
        (Ask::new("DELETE", "/watchlist/x"), 400, "bad_path"),
        (Ask::new("DELETE", "/watchlist/2147483647"), 404, "not_found"),
        (get("/nothing"), 404, "not_found"),
        (Ask::new("PUT", "/stocks"), 405, "method_not_allowed"),
        (Ask::new("POST", "/health/live"), 405, "method_not_allowed"),
    ];
    for (ask, status, code) in table {
        let answer = screeners.both(&ask).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{ask:?}: {answer:?}");
    }
    let total = screeners.both(&get("/stocks")).await.json()["total"].clone();
    assert_eq!(total, 1_827, "nothing is lost");
}

async fn stocks_are_added(screeners: &Screeners) {
    let news = [
        r#"{"symbol": "new", "name": "Newcomer"}"#,
        r#"{"symbol": "new", "name": "Société d'essai \"%_\\", "country": "France", "currency": "EUR",
            "industries": ["Tests", "a,b {\"c\"}"], "indices": ["NULL"], "founded": 1999, "employees": 0}"#,
    ];
    for new in news {
        let ask = Ask::post("/stocks", new);
        let mut answers = Vec::new();
        for (app, other) in [(&screeners.seaorm, &screeners.diesel), (&screeners.diesel, &screeners.seaorm)] {
            screeners.forget_added_stocks().await;
            let added = ask.of(app).await;
            assert_eq!((added.status, added.headers[1].as_deref()), (201, Some("/stocks/5000")), "{added:?}");
            assert_eq!(added.role.as_deref(), Some("primary"));
            let again = ask.of(other).await;
            assert_eq!((again.status, again.code().as_str()), (409, "duplicate_symbol"));
            // Numbers of rows that were refused are used up, not given to others.
            let seen = |answer: &Answer| answer.body == added.body;
            screeners.both_until(&Ask::get("/stocks/5000"), seen).await;
            answers.push(added);
        }
        assert_eq!(
            answers[0].contract(),
            answers[1].contract(),
            "SeaORM on the left, Diesel on the right: {ask:?}"
        );
    }
    let found = screeners.both(&Ask::get("/stocks?q=%25_%5C&industry=a%2Cb%20%7B%22c%22%7D")).await.json();
    assert_eq!((&found["total"], &found["items"][0]["symbol"]), (&1.into(), &"NEW".into()));
    screeners.forget_added_stocks().await;
    screeners.both_until(&Ask::get("/stocks/5000"), |answer| answer.status == 404).await;
}

async fn watchlists_are_kept(screeners: &Screeners) {
    let add = |id: i32| Ask::post("/watchlist", format!(r#"{{"stock_id": {id}}}"#));
    let list = Ask::get("/watchlist").user("anna");
    let items = |answer: &Answer| answer.json()["items"].as_array().unwrap().len();
    // Each ORM writes what the other one reads, repeats and removes.
    for (writer, other) in [(&screeners.seaorm, &screeners.diesel), (&screeners.diesel, &screeners.seaorm)] {
        let added = add(7).user("anna").of(writer).await;
        assert_eq!((added.status, added.body.as_str()), (201, r#"{"stock_id":7}"#));
        let again = add(7).user("anna").of(other).await;
        assert_eq!((again.status, again.body.as_str()), (200, r#"{"stock_id":7}"#));
        assert_eq!(add(3).user("anna").of(other).await.status, 201);
        let both = screeners.both_until(&list, |answer| items(answer) == 2).await;
        let listed = both.json();
        let ids = [0, 1].map(|entry| listed["items"][entry]["stock_id"].as_i64());
        assert_eq!(ids, [Some(7), Some(3)], "in the order in which they were added");
        assert!(listed["items"][0]["added_at"].as_str().unwrap().ends_with('Z'), "{both:?}");
        assert_eq!(items(&screeners.both(&Ask::get("/watchlist")).await), 0, "it is anna's alone");
        for id in [7, 3] {
            let remove = Ask::new("DELETE", format!("/watchlist/{id}")).user("anna");
            let removed = remove.of(other).await;
            assert_eq!((removed.status, removed.body.as_str()), (204, ""));
            assert_eq!(screeners.both(&remove).await.status, 404);
        }
        screeners.both_until(&list, |answer| items(answer) == 0).await;
    }
    // A whole second, and the first of all days, are written alike too.
    let sql = "INSERT INTO watchlist VALUES ('anna', 1, '2026-01-01 00:00:00+00'), \
               ('anna', 2, '2026-01-01 12:00:00.5+02'), ('anna', 3, '0001-01-01 00:00:00.000001+00')";
    screeners.primary.execute_unprepared(sql).await.unwrap();
    screeners.both_until(&list, |answer| items(answer) == 3).await;
}

/// Another instance has a router, a monitor and pools of its own; only the keys are the same. A browser brings its cookie.
async fn another_instance_shows_a_client_its_watchlist(screeners: &Screeners) {
    let delay = "ALTER SYSTEM SET recovery_min_apply_delay = '400ms'";
    for replica in ["pg2", "pg3"] {
        on_server(screeners, replica, &[delay, "SELECT pg_reload_conf()"]).await;
    }
    let other = Router::<Diesel>::start(screeners.config.clone(), DieselOptions::default()).unwrap();
    assert!(other.cluster().settled(PATIENCE).await);
    let other = example_screener::diesel::app(other, String::new);
    let mut missed = 0;
    for id in 1..=10 {
        let add =
            Request::post("/watchlist").header("x-user", "olga").header(CONTENT_TYPE, "application/json");
        let add = add.body(Body::from(format!(r#"{{"stock_id": {id}}}"#))).unwrap();
        let added = screeners.seaorm.clone().oneshot(add).await.unwrap();
        assert_eq!(added.status().as_u16(), 201);
        let cookie = added.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        for (brings, cookie) in [(true, cookie.as_str()), (false, "theme=dark")] {
            let list = Request::get("/watchlist").header("x-user", "olga").header("cookie", cookie);
            let listed = other.clone().oneshot(list.body(Body::empty()).unwrap()).await.unwrap();
            let body = axum::body::to_bytes(listed.into_body(), usize::MAX).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let shown = body["items"].as_array().unwrap().len();
            assert!(shown == id || !brings, "{shown} of {id} with the token: {body}");
            missed += usize::from(shown < id);
        }
    }
    assert!(missed > 0, "replicas are late enough for the token to matter");
    for replica in ["pg2", "pg3"] {
        let reset = "ALTER SYSTEM RESET recovery_min_apply_delay";
        on_server(screeners, replica, &[reset, "SELECT pg_reload_conf()"]).await;
    }
}

/// Statements of the superuser on one server, past the router.
async fn on_server(screeners: &Screeners, node: &str, statements: &[&str]) {
    let url = screeners.servers.url(node, Login::Superuser).unwrap();
    let database = sea_orm::Database::connect(url).await.unwrap();
    for statement in statements {
        database.execute_unprepared(statement).await.unwrap();
    }
    database.close().await.unwrap();
}

async fn replicas_serve(screeners: &Screeners) {
    let by_replica = |answer: &Answer| answer.role.as_deref() == Some("replica");
    screeners.both_until(&Ask::get("/stocks/1"), by_replica).await;
    screeners.both_until(&Ask::get("/screen"), by_replica).await;
}

async fn without_servers(screeners: &Screeners) {
    LocalCluster::kill_all_in(screeners.servers.dir());
    // At first requests wait for the servers to come back.
    let given_up = |answer: &Answer| answer.status == 503 && answer.code() == "no_node";
    screeners.both_until(&Ask::get("/stocks"), given_up).await;
    for (ask, code) in [
        (Ask::get("/stocks/1/closes"), "no_node"),
        (Ask::get("/screen"), "no_node"),
        (Ask::get("/watchlist"), "no_node"),
        (Ask::post("/stocks", r#"{"symbol": "NEW", "name": "A"}"#), "no_primary"),
        (Ask::post("/watchlist", r#"{"stock_id": 1}"#), "no_primary"),
    ] {
        let answer = screeners.both(&ask).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, code), "{ask:?}");
        assert!(answer.headers[2].is_some(), "it says when to try again: {answer:?}");
        assert!(!answer.body.contains("127.0.0.1"), "{answer:?}");
    }
    assert_eq!(screeners.both(&Ask::get("/health/live")).await.status, 200);
}

async fn stock_id(screeners: &Screeners, symbol: &str) -> i64 {
    let found = screeners.both(&Ask::get(format!("/stocks?q={symbol}&page_size=100"))).await.json();
    let items = found["items"].as_array().unwrap();
    items.iter().find(|item| item["symbol"] == symbol).unwrap()["id"].as_i64().unwrap()
}
