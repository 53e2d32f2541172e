//! The screener as a process of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use routing_core::RouterConfig;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Http;
use crate::orm::Orm;
use crate::process::{Signal, signal};
use crate::wait::{PATIENCE, eventually};

/// A running screener. Dropping it kills it.
#[derive(Debug)]
pub struct Screener {
    process: Child,
    /// Its configuration and its log.
    dir: TempDir,
    http: Http,
    address: String,
}

impl Screener {
    /// Starts it on one ORM and the nodes of a configuration, with more lines of TOML and more arguments; waits until it
    /// serves and sees every node serve. The first one on a cluster gives it its tables and data.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start<O: Orm>(config: &RouterConfig, settings: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the screener");
        let file = dir.path().join("routing.toml");
        // It holds passwords.
        let mut toml =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).expect("a file");
        toml.write_all(toml_of(config, settings).as_bytes()).expect("it is written");
        let port = free_port();
        let output = fs::File::create(dir.path().join("log")).expect("a file");
        let process = Command::new(program())
            .args(["--orm", &O::NAME.to_lowercase(), "--port", &port.to_string()])
            .args(["--config", &file.display().to_string()])
            .args(arguments)
            .env("RUST_LOG", "warn,example_screener=info")
            .env("ROUTING_TOKEN_KEY", "the key that all screeners of a test share")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .expect("the screener starts");
        let address = format!("127.0.0.1:{port}");
        let mut screener = Self { process, dir, http: Http::new(&address), address };
        let limit = PATIENCE * 3;
        eventually(limit, "the screener serves", async || {
            let ended = screener.process.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "the screener ended: {ended:?}\n{}", screener.log());
            let Ok(status) = screener.http.get("/routing").await else { return false };
            let status = status.json();
            let nodes = status["nodes"].as_array();
            nodes.is_some_and(|nodes| nodes.iter().all(|node| node["serving"] == true))
        })
        .await;
        screener
    }

    /// A client of its own.
    #[must_use]
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Where it listens, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What `/routing` says; null when it does not answer.
    pub async fn status(&self) -> Value {
        self.http.get("/routing").await.map(|reply| reply.json()).unwrap_or_default()
    }

    /// All that it has written to its standard streams.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("its log")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Never: processes have small numbers.
    pub fn signal(&self, what: Signal) {
        signal(i32::try_from(self.process.id()).expect("the number of a process"), what);
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually(PATIENCE, "the screener ends", async || {
            ended = self.process.try_wait().expect("it can be asked");
            ended.is_some()
        })
        .await;
        ended.expect("it has ended")
    }
}

impl Drop for Screener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The nodes as a configuration file names them.
fn toml_of(config: &RouterConfig, settings: &str) -> String {
    let mut text = format!("{settings}\n");
    for node in &config.nodes {
        let _ = writeln!(text, "\n[[nodes]]\nname = \"{}\"\nurl = \"{}\"", node.name, node.url.expose());
        if let Some(probe) = &node.probe_url {
            let _ = writeln!(text, "probe_url = \"{}\"", probe.expose());
        }
    }
    text
}

/// A program of the workspace: beside this one, or a folder above where this is a test.
fn program() -> PathBuf {
    let this = std::env::current_exe().expect("a test knows its program");
    let beside = this.ancestors().skip(1).take(2).map(|dir| dir.join("example-screener"));
    let mut there = beside.filter(|program| program.is_file());
    there.next().expect("example-screener is missing: cargo build -p example-screener")
}

/// A port that nobody has.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
