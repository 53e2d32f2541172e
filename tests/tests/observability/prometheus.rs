//! A real Prometheus with the shipped configuration and rules, which scrapes a screener every second.

use std::fs;
use std::process::{Child, Command, Stdio};

use reqwest::{Client, Url};
use routing_tests::{PATIENCE, Signal, eventually, signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::screener::{Screener, free_port, workspace};

/// A running Prometheus. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Prometheus {
    process: Child,
    dir: TempDir,
    address: String,
    client: Client,
}

impl Prometheus {
    pub(crate) async fn start(screener: &Screener) -> Self {
        let dir = tempfile::tempdir().expect("a directory for Prometheus");
        let shipped = |file: &str| fs::read_to_string(workspace("ops/prometheus").join(file)).unwrap();
        fs::write(dir.path().join("alerts.yml"), shipped("alerts.yml")).unwrap();
        let mut configuration = shipped("prometheus.yml");
        for (old, new) in [
            ("scrape_interval: 15s", "scrape_interval: 1s"),
            ("scrape_timeout: 10s", "scrape_timeout: 1s"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ("'10.0.0.21:3000', '10.0.0.22:3000'", &*format!("'{}'", screener.address)),
            ("'10.0.0.11:9187', '10.0.0.12:9187', '10.0.0.13:9187'", ""),
            ("'10.0.0.11:9100', '10.0.0.12:9100', '10.0.0.13:9100'", ""),
            ("'localhost:9093'", ""),
        ] {
            assert!(configuration.contains(old), "the shipped configuration has no {old:?} any more");
            configuration = configuration.replace(old, new);
        }
        fs::write(dir.path().join("prometheus.yml"), configuration).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("prometheus is missing: ./test --observability installs it");
        let mut prometheus = Self { process, dir, address, client: Client::new() };
        eventually(PATIENCE, "Prometheus scrapes the screener", async || {
            let ended = prometheus.process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(prometheus.dir.path().join("log")).unwrap());
            let ready = prometheus.client.get(format!("http://{}/-/ready", prometheus.address)).send().await;
            ready.is_ok_and(|answer| answer.status().is_success())
                && prometheus.query("up{job=\"app\"} == 1").await.is_ok_and(|found| !found.is_empty())
        })
        .await;
        prometheus
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = Url::parse_with_params(&format!("http://{}{path}", self.address), parameters).unwrap();
        let answer = self.client.get(url).send().await.map_err(|error| error.to_string())?;
        let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// What an expression gives now.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let data = self.get("/api/v1/query", &[("query", expression)]).await?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// All alert rules, with their state.
    pub(crate) async fn rules(&self) -> Vec<Value> {
        let data = self.get("/api/v1/rules", &[]).await.unwrap();
        let groups = data["groups"].as_array().unwrap();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    /// One alert rule's state: `inactive`, `pending` or `firing`.
    pub(crate) async fn state(&self, alert: &str) -> String {
        let rules = self.rules().await;
        let rule = rules.iter().find(|rule| rule["name"] == alert).unwrap_or_else(|| panic!("no {alert}"));
        rule["state"].as_str().unwrap().to_owned()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            signal(i32::try_from(self.process.id()).unwrap(), Signal::SIGKILL);
        }
        let _ = self.process.wait();
    }
}
