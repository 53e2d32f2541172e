//! The screener as a process of its own, on a test's cluster.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use routing_cluster::Login;
use routing_tests::{NODES, PATIENCE, Signal, TestCluster, eventually, signal};
use serde_json::Value;
use tempfile::TempDir;

/// How many reads the primary takes over from replicas: few, so that a test can exceed them.
pub(crate) const FALLBACK_CAP: u32 = 2;

/// A running screener. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Screener {
    process: Child,
    /// Its configuration and its log.
    dir: TempDir,
    pub(crate) address: String,
    pub(crate) client: Client,
}

impl Screener {
    /// Starts it and waits until it serves.
    pub(crate) async fn start(cluster: &TestCluster, log: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the screener");
        let config = dir.path().join("routing.toml");
        // It holds passwords.
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&config).unwrap();
        file.write_all(configuration(cluster).as_bytes()).unwrap();
        let port = free_port();
        let output = fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new(program())
            .args(["--config", config.to_str().unwrap(), "--port", &port.to_string()])
            .env("RUST_LOG", log)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("the screener starts");
        let client = Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        let mut screener = Self { process, dir, address: format!("127.0.0.1:{port}"), client };
        let limit = PATIENCE * 3;
        eventually(limit, "the screener serves", async || {
            let ended = screener.process.try_wait().unwrap();
            assert!(ended.is_none(), "the screener ended: {ended:?}\n{}", screener.log());
            let status = screener.client.get(screener.url("/routing")).send().await;
            let Ok(status) = status else { return false };
            let status: Value = status.json().await.unwrap();
            status["nodes"].as_array().unwrap().iter().all(|node| node["serving"] == true)
        })
        .await;
        screener
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that it has written to its standard streams.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.expect("the screener answers")
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.get(path).await.text().await.unwrap()
    }

    pub(crate) async fn status(&self) -> Value {
        self.get("/routing").await.json().await.unwrap()
    }

    /// Reads, and writes whose client comes back with its token: at once, so that some tokens are ahead of replicas.
    pub(crate) async fn load(&self, rounds: usize) {
        for round in 0..rounds {
            self.get(&format!("/stocks?page={}&page_size=20", round % 50 + 1)).await;
            self.get("/screen?window=30&limit=5").await;
            let body = serde_json::json!({ "stock_id": round % 100 + 1 });
            let written = self.client.post(self.url("/watchlist")).json(&body).send().await.unwrap();
            let cookie = written.headers().get("set-cookie").and_then(|value| value.to_str().ok());
            let Some(cookie) = cookie.and_then(|value| value.split(';').next()) else { continue };
            self.client.get(self.url("/watchlist")).header("cookie", cookie).send().await.unwrap();
        }
    }

    /// Many reads at once; how many were refused.
    pub(crate) async fn crowd(&self, size: usize) -> usize {
        let reads = (0..size).map(|_| self.get("/stocks?page_size=100&sort=-employees"));
        let answers = futures_util::future::join_all(reads).await;
        answers.iter().filter(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE).count()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Screener {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            signal(i32::try_from(self.process.id()).unwrap(), Signal::SIGKILL);
        }
        let _ = self.process.wait();
    }
}

fn configuration(cluster: &TestCluster) -> String {
    let mut text = format!("fallback_no_replica = {FALLBACK_CAP}\n");
    for node in NODES {
        let url = |login| cluster.url(cluster.port(node), login).expose().to_owned();
        let (app, monitor) = (url(Login::Application), url(Login::Monitor));
        text += &format!("\n[[nodes]]\nname = \"{node}\"\nurl = \"{app}\"\nprobe_url = \"{monitor}\"\n");
    }
    text
}

/// A program of the workspace, beside this one.
fn program() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let programs = this.ancestors().nth(2).unwrap();
    let screener = programs.join("example-screener");
    assert!(screener.exists(), "example-screener is missing: cargo build -p example-screener");
    screener
}

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A folder for what a person may want to look at, beside the programs.
pub(crate) fn output() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let folder = this.ancestors().nth(2).unwrap().join("observability");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A file of the workspace.
pub(crate) fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
