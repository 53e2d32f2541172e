//! The application on a cluster, from its start to its judgement.

use std::time::Duration;

use routing_cluster::{Login, SilentProgress};
use routing_core::RouterConfig;

use crate::cluster::{NODES, PRIMARY, TestCluster, ready};
use crate::history::check::{History, check};
use crate::history::instance::Instance;
use crate::history::ledger;
use crate::history::operation::{Answer, Key, Operation, Value};
use crate::history::recorder::Recorder;
use crate::history::report::Report;
use crate::orm::Orm;
use crate::process::{Signal, signal};
use crate::proxy::Mode;
use crate::wait::{PATIENCE, eventually};

/// One application as two processes on one cluster, and what has become of it.
///
/// Its methods panic when the servers do not do what they are told: that is a failure of the set-up.
#[derive(Debug)]
pub struct Scene<O: Orm> {
    /// The servers.
    pub cluster: TestCluster,
    /// The processes of the application.
    pub instances: Vec<Instance<O>>,
    /// Takes down what clients do.
    pub recorder: Recorder,
    primary: String,
    deposed: Vec<Duration>,
}

impl<O: Orm> Scene<O> {
    /// Two processes that have seen every node.
    ///
    /// # Panics
    /// When the servers do not start.
    pub async fn start() -> Self {
        Self::tuned(|_| {}).await
    }

    /// The same with changes to the configuration of their routers.
    ///
    /// # Panics
    /// When the servers do not start.
    pub async fn tuned(tune: impl Fn(&mut RouterConfig)) -> Self {
        let cluster = TestCluster::start().await;
        let app = cluster.database(PRIMARY, Login::Application).await;
        app.run(ledger::CREATE).await.expect("the table of entries");
        cluster.wait_replayed().await;
        let mut instances = Vec::new();
        for _ in 0..2 {
            instances.push(Instance::start(&cluster, &tune).await);
        }
        for instance in &instances {
            ready(&instance.router).await;
        }
        let (recorder, primary, deposed) = (Recorder::default(), PRIMARY.to_owned(), Vec::new());
        let scene = Self { cluster, instances, recorder, primary, deposed };
        scene.clear().await;
        scene
    }

    /// Where the processes are.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.instances.iter().map(|instance| instance.url().to_owned()).collect()
    }

    /// How late the replicas apply commits from now on.
    ///
    /// # Panics
    /// When a replica refuses it.
    pub async fn delay_replay(&self, replicas: &[&str], delay: Duration) {
        for replica in replicas {
            let delay = format!("{}ms", delay.as_millis());
            self.cluster.set(replica, "recovery_min_apply_delay", &delay).await;
        }
    }

    /// Kills a server process as a crash would: the others of its node end as well, and the node recovers by itself.
    ///
    /// # Panics
    /// When the node does not come back.
    pub async fn crash(&self, node: &str) {
        let victim = self.cluster.database(node, Login::Superuser).await;
        let pid: i32 = victim.value("SELECT pg_backend_pid()").await.expect("its number");
        let witness = self.cluster.database(node, Login::Superuser).await;
        signal(pid, Signal::SIGKILL);
        // Only then the server has noticed, and lets nobody in before it has recovered.
        eventually(PATIENCE, "all connections end", async || witness.run("SELECT 1").await.is_err()).await;
        self.await_node(node).await;
    }

    /// Writes a checkpoint on every node: recovery after a crash begins there, not where its data began.
    ///
    /// # Panics
    /// When a node does not do it.
    pub async fn checkpoint(&self) {
        self.cluster.sql(&self.primary, "CHECKPOINT").await;
        let flushed: String =
            self.cluster.value(&self.primary, "SELECT pg_current_wal_flush_lsn()::text").await;
        for replica in self.replicas() {
            let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{flushed}'");
            eventually(PATIENCE, "it is replayed", async || self.cluster.value(replica, &replayed).await)
                .await;
            self.cluster.sql(replica, "CHECKPOINT").await;
        }
    }

    /// Stops what the primary sends to its replicas, or lets it go on. It goes on by itself with a new connection.
    ///
    /// # Panics
    /// When the primary does not say who sends.
    pub async fn stall_replication(&self, stall: bool) {
        let senders = "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_replication";
        let senders: String = self.cluster.value(&self.primary, senders).await;
        let what = if stall { Signal::SIGSTOP } else { Signal::SIGCONT };
        for pid in senders.split_whitespace() {
            signal(pid.parse().expect("the number of a process"), what);
        }
    }

    /// Kills the primary and promotes the replica that has received most; the old primary then follows it.
    ///
    /// # Panics
    /// When no replica takes over, or the old primary does not come back.
    pub async fn fail_over(&mut self) {
        self.cluster.kill(&self.primary).await;
        self.deposed.push(self.recorder.now());
        let mut successors = Vec::new();
        for node in NODES.into_iter().filter(|node| *node != self.primary) {
            let received =
                "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn";
            let received: String =
                self.cluster.value(node, &format!("SELECT ({received})::bigint::text")).await;
            successors.push((received.parse::<u64>().expect("a position"), node));
        }
        let (_, successor) = successors.into_iter().max().expect("there are replicas");
        let promoted = self.cluster.servers().promote(successor, false, &SilentProgress).await;
        let promoted = promoted.unwrap_or_else(|error| panic!("{successor} was not promoted: {error}"));
        eprintln!("  {} follows {} on timeline {}", promoted.primary, self.primary, promoted.timeline);
        let old = std::mem::replace(&mut self.primary, promoted.primary);
        let rejoined = self.cluster.servers().rejoin(&old, false, &SilentProgress).await;
        rejoined.unwrap_or_else(|error| panic!("{old} was not taken back: {error}"));
    }

    /// Waits until a node lets clients in.
    ///
    /// # Panics
    /// When it does not.
    pub async fn await_node(&self, node: &str) {
        let mut login = self.cluster.servers().credentials(Login::Superuser);
        Login::Application.database().clone_into(&mut login.database);
        let port = self.cluster.port(node);
        eventually(PATIENCE, "the node lets clients in", async || {
            crate::database::Database::connect(port, &login).await.is_ok()
        })
        .await;
    }

    /// Ends every fault and waits until both processes have seen every node serve.
    ///
    /// # Panics
    /// When a node does not come back.
    pub async fn heal(&self) {
        for instance in &self.instances {
            for node in NODES {
                instance.requests.get(node).set(Mode::Pass);
                instance.probes.get(node).set(Mode::Pass);
            }
        }
        for node in NODES {
            self.await_node(node).await;
            self.cluster.set(node, "recovery_min_apply_delay", "0").await;
            let resume = "SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()";
            self.cluster.sql(node, resume).await;
        }
        for instance in &self.instances {
            ready(&instance.router).await;
        }
    }

    /// All that happened since the beginning or the last call, judged. It prints what was found. When a promise was broken
    /// the operations that show it follow.
    ///
    /// # Panics
    /// When the primary does not say what it has.
    pub async fn judge(&mut self, what: &str) -> Report {
        let rows = "SELECT coalesce(string_agg(key || ' ' || value, ','), '') FROM entry";
        let rows: String = self.cluster.value(&self.primary, rows).await;
        let kept = rows.split(',').filter(|row| !row.is_empty()).map(|row| {
            let (key, value) = row.split_once(' ').expect("key and value");
            (key.parse().expect("a key"), value.parse().expect("a value"))
        });
        let kept: Vec<(Key, Value)> = kept.collect();
        let token_lifetime = RouterConfig::default().token_lifetime;
        let operations = self.recorder.take();
        let deposed = std::mem::take(&mut self.deposed);
        let history = History { operations, kept, deposed, token_lifetime };
        let report = check(&history);
        eprintln!("{what}:\n{report}");
        show_failures(&history.operations);
        for lost in &report.lost {
            eprintln!("  lost with its primary: {}", history.operations[*lost]);
        }
        if !report.violations.is_empty() {
            eprintln!("{}", report.describe(&history.operations));
        }
        self.clear().await;
        report
    }

    /// No entries on any node, and replicas that apply commits at once.
    async fn clear(&self) {
        for replica in self.replicas() {
            self.delay_replay(&[replica], Duration::ZERO).await;
        }
        self.cluster.sql(&self.primary, "TRUNCATE entry").await;
        for replica in self.replicas() {
            let empty = "SELECT NOT EXISTS (SELECT FROM entry)";
            eventually(PATIENCE, "the replicas are empty", async || self.cluster.value(replica, empty).await)
                .await;
        }
        self.checkpoint().await;
    }

    /// The nodes that are replicas by now.
    #[must_use]
    pub fn replicas(&self) -> Vec<&'static str> {
        NODES.into_iter().filter(|node| *node != self.primary).collect()
    }
}

/// What was not served, in short: each kind once, with its number.
fn show_failures(operations: &[Operation]) {
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for operation in operations.iter().filter(|operation| operation.instance.is_some()) {
        let what = if operation.written().is_some() { "write" } else { "read" };
        match &operation.answer {
            Answer::Refused(why) => *kinds.entry(format!("{what} refused: {why}")).or_default() += 1,
            Answer::Unknown(why) => *kinds.entry(format!("{what} failed: {why}")).or_default() += 1,
            Answer::Written(_) | Answer::Read(_) | Answer::Nothing => {}
        }
    }
    for (kind, count) in kinds {
        eprintln!("  {count} times {kind}");
    }
}
