//! One thing that breaks.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use routing_cluster::{Login, SilentProgress};
use tokio::time::sleep;

use crate::chaos::disk;
use crate::chaos::scene::{ALL_NODES, Scene};
use crate::chaos::tally::Broken;
use crate::process::{Signal, signal};
use crate::proxy::Mode;
use crate::wait::{PATIENCE, eventually};

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A replica is killed with all its processes, and started again.
    KillReplica,
    /// So is the primary; nobody is promoted.
    KillPrimary,
    /// One server process of a request is killed: the others of its node end as well, and it recovers.
    CrashProcess,
    /// All processes of a replica stand still.
    FreezeReplica,
    /// All processes of the primary stand still.
    FreezePrimary,
    /// One server process of a request stands still.
    FreezeProcess,
    /// Between one process and a replica nothing passes, and nobody is told.
    BlackholeReplica,
    /// Between one process and the primary nothing passes, and nobody is told.
    BlackholePrimary,
    /// Every connection of both processes to a node is reset, some times over.
    Reset,
    /// What passes between one process and a node is late.
    Delay,
    /// Two replicas of three do not replay.
    PausedReplay,
    /// The primary's disk is full.
    DiskFull,
    /// A replica takes over in order.
    Switchover,
    /// The primary is killed, a replica promoted, and the old primary taken back.
    Failover,
}

/// All of them.
pub(super) const KINDS: [Kind; 14] = [
    Kind::KillReplica,
    Kind::KillPrimary,
    Kind::CrashProcess,
    Kind::FreezeReplica,
    Kind::FreezePrimary,
    Kind::FreezeProcess,
    Kind::BlackholeReplica,
    Kind::BlackholePrimary,
    Kind::Reset,
    Kind::Delay,
    Kind::PausedReplay,
    Kind::DiskFull,
    Kind::Switchover,
    Kind::Failover,
];

/// One thing that breaks: where, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// For how long.
    pub lasts: Duration,
    /// Which of the nodes or replicas, in their order, and of the processes; taken modulo their number.
    place: usize,
}

impl Fault {
    /// How many kinds there are.
    pub const KINDS: usize = KINDS.len();

    /// Every kind once, in an order, at places and for times that are drawn.
    #[must_use]
    pub fn round(rng: &mut Rng) -> Vec<Self> {
        let mut kinds = KINDS;
        rng.shuffle(&mut kinds);
        let fault =
            |kind| Self { kind, lasts: Duration::from_millis(rng.u64(800..2_500)), place: rng.usize(..60) };
        kinds.into_iter().map(fault).collect()
    }

    /// Has it happen, ends it, and waits until both processes see every node serve.
    ///
    /// # Panics
    /// When the servers do not do what they are told.
    pub async fn strike(self, scene: &mut Scene) -> Broken {
        let from = scene.recorder.now();
        let (primary, replicas) = (scene.primary, scene.replicas());
        let (replica, any) = (replicas[self.place % 3], ALL_NODES[self.place % 4]);
        let mut of_primary = false;
        eprintln!(
            "  {:.3} s: {self}, {}",
            from.as_secs_f64(),
            match self.kind {
                Kind::KillPrimary
                | Kind::FreezePrimary
                | Kind::BlackholePrimary
                | Kind::DiskFull
                | Kind::Failover => primary,
                Kind::CrashProcess | Kind::FreezeProcess | Kind::Reset | Kind::Delay => any,
                _ => replica,
            }
        );
        match self.kind {
            Kind::KillReplica => self.kill(scene, replica).await,
            Kind::KillPrimary => {
                of_primary = true;
                self.kill(scene, primary).await;
            }
            Kind::CrashProcess => {
                of_primary = any == primary;
                self.signal_one(scene, any, Signal::SIGKILL).await;
                // The postmaster notices, ends the others, and recovers.
                sleep(self.lasts).await;
                await_node(scene, any).await;
            }
            Kind::FreezeReplica => self.freeze(scene, replica).await,
            Kind::FreezePrimary => {
                of_primary = true;
                self.freeze(scene, primary).await;
            }
            Kind::FreezeProcess => {
                of_primary = any == primary;
                if let Some(pid) = self.signal_one(scene, any, Signal::SIGSTOP).await {
                    sleep(self.lasts).await;
                    signal(pid, Signal::SIGCONT);
                }
            }
            Kind::BlackholeReplica => self.disturb(scene, replica, Mode::Blackhole).await,
            Kind::BlackholePrimary => {
                of_primary = true;
                self.disturb(scene, primary, Mode::Blackhole).await;
            }
            Kind::Reset => {
                of_primary = any == primary;
                for _ in 0..3 {
                    scene.processes.iter().for_each(|process| process.proxies.get(any).cut());
                    sleep(self.lasts / 3).await;
                }
            }
            Kind::Delay => {
                let late = Duration::from_millis(20);
                self.disturb(scene, any, Mode::Jitter { to_server: late, to_client: late }).await;
            }
            Kind::PausedReplay => {
                for replica in &replicas[..2] {
                    scene.cluster.sql(replica, "SELECT pg_wal_replay_pause()").await;
                }
                sleep(self.lasts).await;
                for replica in &replicas[..2] {
                    scene.cluster.sql(replica, "SELECT pg_wal_replay_resume()").await;
                }
            }
            Kind::DiskFull => {
                of_primary = true;
                disk::fill(scene, self.lasts).await;
            }
            Kind::Switchover => {
                of_primary = true;
                switch_over(scene, replica).await;
            }
            Kind::Failover => {
                of_primary = true;
                fail_over(scene).await;
            }
        }
        scene.settle().await;
        scene.broken(&self.kind.to_string(), of_primary, from)
    }

    async fn kill(self, scene: &Scene, node: &str) {
        scene.cluster.kill(node).await;
        sleep(self.lasts).await;
        scene.cluster.start_node(node).await;
    }

    async fn freeze(self, scene: &Scene, node: &str) {
        scene.cluster.servers().pause(node).await.expect("it runs");
        sleep(self.lasts).await;
        scene.cluster.servers().resume(node).await.expect("it runs");
    }

    async fn disturb(self, scene: &Scene, node: &str, mode: Mode) {
        let process = &scene.processes[self.place / 4 % scene.processes.len()];
        process.proxies.get(node).set(mode);
        sleep(self.lasts).await;
        process.proxies.get(node).set(Mode::Pass);
    }

    /// Sends a signal to one server process of the application on a node; its number.
    async fn signal_one(self, scene: &Scene, node: &str, what: Signal) -> Option<i32> {
        let pids =
            "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE usename = 'app'";
        let pids: String = scene.cluster.value(node, pids).await;
        let pids: Vec<i32> = pids.split(' ').filter_map(|pid| pid.parse().ok()).collect();
        let pid = *pids.get(self.place % pids.len().max(1))?;
        signal(pid, what);
        Some(pid)
    }
}

async fn await_node(scene: &Scene, node: &str) {
    let mut login = scene.cluster.servers().credentials(Login::Superuser);
    Login::Application.database().clone_into(&mut login.database);
    let port = scene.cluster.port(node);
    eventually(PATIENCE, "the node lets clients in", async || {
        crate::database::Database::connect(port, &login).await.is_ok()
    })
    .await;
}

async fn switch_over(scene: &mut Scene, successor: &'static str) {
    // The old primary ends its sessions when it stops: from then on it acknowledges nothing.
    let witness = scene.cluster.database(scene.primary, Login::Superuser).await;
    let recorder = scene.recorder.clone();
    let stopped = tokio::spawn(async move {
        while witness.run("SELECT 1").await.is_ok() {
            sleep(Duration::from_millis(2)).await;
        }
        recorder.now()
    });
    let switched = scene.cluster.servers().switchover(successor, &SilentProgress).await;
    let switched = switched.unwrap_or_else(|error| panic!("{successor} did not take over: {error}"));
    assert_eq!(switched.primary, successor);
    let stopped = stopped.await.expect("it was watched");
    scene.deposed.push((stopped, scene.primary, false));
    scene.primary = successor;
    follow_all(scene).await;
}

async fn fail_over(scene: &mut Scene) {
    scene.cluster.kill(scene.primary).await;
    scene.deposed.push((scene.recorder.now(), scene.primary, true));
    let mut successors = Vec::new();
    for node in scene.replicas() {
        let received =
            "SELECT (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn)::bigint";
        successors.push((scene.cluster.value::<i64>(node, received).await, node));
    }
    let (_, successor) = successors.into_iter().max().expect("there are replicas");
    let promoted = scene.cluster.servers().promote(successor, false, &SilentProgress).await;
    promoted.unwrap_or_else(|error| panic!("{successor} was not promoted: {error}"));
    let old = std::mem::replace(&mut scene.primary, successor);
    let rejoined = scene.cluster.servers().rejoin(old, false, &SilentProgress).await;
    rejoined.unwrap_or_else(|error| panic!("{old} was not taken back: {error}"));
    follow_all(scene).await;
}

/// Waits until every replica streams from the primary.
async fn follow_all(scene: &Scene) {
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    let wanted = i64::try_from(ALL_NODES.len() - 1).expect("a small number");
    eventually(PATIENCE, "every replica follows", async || {
        scene.cluster.value::<i64>(scene.primary, streaming).await >= wanted
    })
    .await;
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillReplica => "kill replica",
            Self::KillPrimary => "kill primary",
            Self::CrashProcess => "crash of a process",
            Self::FreezeReplica => "freeze replica",
            Self::FreezePrimary => "freeze primary",
            Self::FreezeProcess => "freeze of a process",
            Self::BlackholeReplica => "blackhole to replica",
            Self::BlackholePrimary => "blackhole to primary",
            Self::Reset => "resets",
            Self::Delay => "delay",
            Self::PausedReplay => "paused replay",
            Self::DiskFull => "disk full",
            Self::Switchover => "switchover",
            Self::Failover => "failover",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} ms", self.kind, self.lasts.as_millis())
    }
}
