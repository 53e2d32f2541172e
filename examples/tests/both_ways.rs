//! The four apps answer alike on one cluster, and moving one is a diff of a few lines.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header::CONTENT_TYPE};
use routing_cluster::{ClusterOptions, LocalCluster, Login, SilentProgress};
use routing_core::{NodeConfig, RouterConfig};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Kills the cluster's servers however the test ends.
struct Killed(PathBuf);

impl Drop for Killed {
    fn drop(&mut self) {
        LocalCluster::kill_all_in(&self.0);
    }
}

async fn send(app: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn get(app: &Router, path: &str) -> (StatusCode, Value) {
    send(app, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn add(app: &Router, text: &str) -> (StatusCode, Value) {
    let body = Body::from(json!({ "text": text }).to_string());
    send(app, Request::post("/notes").header(CONTENT_TYPE, "application/json").body(body).unwrap()).await
}

async fn cluster(dir: &Path) -> LocalCluster {
    let options = ClusterOptions {
        dir: dir.to_owned(),
        replicas: 2,
        port: 0,
        durable: false,
        ..ClusterOptions::default()
    };
    LocalCluster::up(options, &SilentProgress).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_app_answers_the_same_before_and_after_it_moves() {
    let parent =
        if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let mut builder = tempfile::Builder::new();
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let folder = builder.tempdir_in(parent).unwrap();
    let dir = folder.path().join("cluster");
    let _killed = Killed(dir.clone());
    let cluster = cluster(&dir).await;
    let url = cluster.url("pg1", Login::Application).unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE notes (id serial PRIMARY KEY, text text NOT NULL)").await.unwrap();

    let nodes = cluster.nodes().iter().map(|node| {
        NodeConfig::new(&*node.name, cluster.url(&node.name, Login::Application).unwrap().parse().unwrap())
    });
    let config = RouterConfig { nodes: nodes.collect(), ..RouterConfig::default() };
    let apps = [
        ("SeaORM before", examples::seaorm_before::app(&url).await.unwrap()),
        ("SeaORM after", examples::seaorm_after::app(config.clone()).unwrap()),
        ("Diesel before", examples::diesel_before::app(&url).unwrap()),
        ("Diesel after", examples::diesel_after::app(config).unwrap()),
    ];
    let mut written = Vec::new();
    for (name, app) in &apps {
        let (status, note) = add(app, name).await;
        assert_eq!((status, &note["text"]), (StatusCode::CREATED, &json!(name)));
        written.push(note);
    }
    for (name, app) in &apps {
        // Replicas receive the notes a moment later.
        let all = json!(written);
        for _ in 0..200 {
            if get(app, "/notes").await == (StatusCode::OK, all.clone()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(get(app, "/notes").await, (StatusCode::OK, all), "{name}");
        let one = format!("/notes/{}", written[2]["id"]);
        assert_eq!(get(app, &one).await, (StatusCode::OK, written[2].clone()), "{name}");
        assert_eq!(get(app, "/notes/999").await.0, StatusCode::NOT_FOUND, "{name}");
    }
}

/// The lines of code of one file that the other has not.
fn only_in<'a>(one: &'a str, other: &str) -> Vec<&'a str> {
    let code = one.lines().filter(|line| !line.starts_with("//"));
    code.filter(|line| !other.lines().any(|there| there == *line)).collect()
}

#[test]
fn moving_changes_a_few_lines_and_the_guide_shows_them() {
    let guide = include_str!("../../docs/adapters.md");
    let pairs = [
        (include_str!("../src/seaorm_before.rs"), include_str!("../src/seaorm_after.rs")),
        (include_str!("../src/diesel_before.rs"), include_str!("../src/diesel_after.rs")),
    ];
    for (before, after) in pairs {
        let (removed, added) = (only_in(before, after), only_in(after, before));
        assert!(removed.len() <= 20 && added.len() <= 20, "{removed:#?} {added:#?}");
        for (sign, lines) in [('-', removed), ('+', added)] {
            for line in lines {
                assert!(guide.contains(&format!("\n{sign}{line}\n")), "docs/adapters.md lacks {sign}{line}");
            }
        }
    }
}
