//! What Patroni's REST API says of a cluster, and does to it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::engines::patroni::{NAMES, PatroniCluster};
use crate::wait::{PATIENCE, eventually};

impl PatroniCluster {
    /// What a node's Patroni answers; `None` when it does not.
    pub async fn ask(&self, name: &str, path: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.rest_port(name));
        self.http.get(url).timeout(Duration::from_secs(1)).send().await.ok()?.json().await.ok()
    }

    /// The members, as any Patroni knows them.
    pub async fn members(&self) -> Vec<Value> {
        for name in NAMES {
            if let Some(answer) = self.ask(name, "/cluster").await {
                return answer["members"].as_array().cloned().unwrap_or_default();
            }
        }
        Vec::new()
    }

    async fn leading(&self) -> Option<String> {
        let members = self.members().await;
        let leader = members.iter().find(|member| member["role"] == "leader" && member["state"] == "running");
        leader.and_then(|leader| leader["name"].as_str()).map(str::to_owned)
    }

    /// Waits for a leader and returns its name.
    ///
    /// # Panics
    /// When there is none.
    pub async fn leader(&self) -> String {
        let mut leader = None;
        eventually(PATIENCE, "somebody leads", async || {
            leader = self.leading().await;
            leader.is_some()
        })
        .await;
        leader.expect("it was waited for")
    }

    /// Waits until another node than this leads, and returns its name.
    ///
    /// # Panics
    /// When none does.
    pub async fn leader_after(&self, old: &str) -> String {
        let mut leader = None;
        eventually(PATIENCE, "another one leads", async || {
            leader = self.leading().await.filter(|name| name != old);
            leader.is_some()
        })
        .await;
        leader.expect("it was waited for")
    }

    /// Waits until there are so many members, one leads, and the others stream.
    ///
    /// # Panics
    /// When they do not; with the end of their logs.
    pub async fn whole(&self, count: usize) {
        for _ in 0..300 {
            let members = self.members().await;
            let leads = |member: &&Value| member["role"] == "leader" && member["state"] == "running";
            let streams = |member: &&Value| member["role"] == "replica" && member["state"] == "streaming";
            let (leaders, replicas) =
                (members.iter().filter(leads).count(), members.iter().filter(streams).count());
            if leaders == 1 && replicas + 1 == count && members.len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for name in NAMES {
            let log = self.log(name);
            let lines: Vec<&str> = log.lines().rev().take(25).collect();
            eprintln!("--- {name}\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        panic!("there is no cluster of {count}: {:?}", self.members().await);
    }

    /// Has another node lead, as an operator does. Returns when Patroni has answered.
    ///
    /// # Panics
    /// When Patroni refuses.
    pub async fn switchover(&self, from: &str, to: &str) {
        let url = format!("http://127.0.0.1:{}/switchover", self.rest_port(from));
        let answer = self.http.post(url).json(&json!({ "leader": from, "candidate": to })).send().await;
        let answer = answer.expect("Patroni answers");
        let status = answer.status();
        assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap_or_default());
    }
}
