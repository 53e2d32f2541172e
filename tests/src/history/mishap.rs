//! What breaks, drawn from a seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::cluster::NODES;
use crate::history::scene::Scene;
use crate::orm::Orm;
use crate::proxy::{Mode, Proxies};

/// How late replicas may apply commits, in milliseconds.
const DELAYS: [u64; 5] = [0, 5, 5, 50, 200];

/// One fault, how long it lasts, and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// A replica applies commits this late, until it is told otherwise.
    LateReplay(&'static str, Duration),
    /// A replica is killed with all its processes, and started after this time.
    Kill(&'static str, Duration),
    /// One process of a replica is killed: all its connections are lost, and it recovers. What it had replayed since its last
    /// checkpoint it replays again, after this time.
    Crash(&'static str, Duration),
    /// A replica does not replay for this time.
    PausedReplay(&'static str, Duration),
    /// The primary sends nothing to any replica for this time.
    StalledReplication(Duration),
    /// The connections of one process's requests to a node are reset.
    CutRequests(usize, &'static str),
    /// One process's monitor loses its connection to a node.
    CutProbes(usize, &'static str),
    /// Whatever one process's requests send to a node and receive is late by up to so much, for a time.
    LateRequests(usize, &'static str, Duration, Duration),
    /// The same of its monitor.
    LateProbes(usize, &'static str, Duration, Duration),
    /// One process's monitor hears nothing from a node for this time.
    DeafProbes(usize, &'static str, Duration),
}

impl Mishap {
    /// A fault of a server among these replicas.
    #[must_use]
    pub fn of_servers(rng: &mut Rng, replicas: &[&'static str]) -> Self {
        let replica = replicas[rng.usize(..replicas.len())];
        match rng.u32(..12) {
            0..4 => Self::LateReplay(replica, Duration::from_millis(DELAYS[rng.usize(..DELAYS.len())])),
            4 => Self::Kill(replica, millis(rng, 0..800)),
            5..7 => Self::Crash(replica, millis(rng, 0..800)),
            7..10 => Self::PausedReplay(replica, millis(rng, 50..1_500)),
            _ => Self::StalledReplication(millis(rng, 20..700)),
        }
    }

    /// A fault of the network between one of so many processes and a node.
    #[must_use]
    pub fn of_networks(rng: &mut Rng, processes: usize, replicas: &[&'static str]) -> Self {
        let (process, node) = (rng.usize(..processes), NODES[rng.usize(..NODES.len())]);
        match rng.u32(..10) {
            0..2 => Self::CutRequests(process, node),
            2..5 => Self::CutProbes(process, node),
            5..7 => Self::LateRequests(process, node, millis(rng, 1..20), millis(rng, 100..800)),
            7..9 => Self::LateProbes(process, node, millis(rng, 1..100), millis(rng, 100..1_000)),
            // Without its monitor's word a process would not write for long enough to refuse writes.
            _ => Self::DeafProbes(process, replicas[rng.usize(..replicas.len())], millis(rng, 100..1_500)),
        }
    }

    /// Has it happen, and ends it.
    ///
    /// # Panics
    /// When the servers do not do what they are told.
    pub async fn strike<O: Orm>(self, scene: &Scene<O>) {
        let cluster = &scene.cluster;
        match self {
            Self::LateReplay(replica, delay) => scene.delay_replay(&[replica], delay).await,
            Self::Kill(replica, pause) => {
                cluster.kill(replica).await;
                sleep(pause).await;
                cluster.start_node(replica).await;
            }
            Self::Crash(replica, pause) => {
                scene.delay_replay(&[replica], Duration::from_secs(3_600)).await;
                scene.crash(replica).await;
                sleep(pause).await;
                scene.delay_replay(&[replica], Duration::ZERO).await;
            }
            Self::PausedReplay(replica, pause) => {
                cluster.sql(replica, "SELECT pg_wal_replay_pause()").await;
                sleep(pause).await;
                cluster.sql(replica, "SELECT pg_wal_replay_resume()").await;
            }
            Self::StalledReplication(pause) => {
                scene.stall_replication(true).await;
                sleep(pause).await;
                scene.stall_replication(false).await;
            }
            Self::CutRequests(process, node) => scene.instances[process].requests.get(node).cut(),
            Self::CutProbes(process, node) => scene.instances[process].probes.get(node).cut(),
            Self::LateRequests(process, node, late, pause) => {
                disturb(&scene.instances[process].requests, node, jitter(late), pause).await;
            }
            Self::LateProbes(process, node, late, pause) => {
                disturb(&scene.instances[process].probes, node, jitter(late), pause).await;
            }
            Self::DeafProbes(process, node, pause) => {
                disturb(&scene.instances[process].probes, node, Mode::Blackhole, pause).await;
            }
        }
    }

    /// Has faults of servers and of networks happen until a time, each kind one after the other. It prints them.
    ///
    /// # Panics
    /// When the servers do not do what they are told.
    pub async fn plague<O: Orm>(scene: &Scene<O>, mut rng: Rng, until: Instant) {
        let replicas = scene.replicas();
        let (mut first, mut second) = (rng.fork(), rng.fork());
        let servers = async {
            while Instant::now() < until {
                let mishap = Self::of_servers(&mut first, &replicas);
                eprintln!("  {:.3} s: {mishap}", scene.recorder.now().as_secs_f64());
                mishap.strike(scene).await;
                sleep(millis(&mut first, 50..600)).await;
            }
        };
        let networks = async {
            while Instant::now() < until {
                let mishap = Self::of_networks(&mut second, scene.instances.len(), &replicas);
                eprintln!("  {:.3} s: {mishap}", scene.recorder.now().as_secs_f64());
                mishap.strike(scene).await;
                sleep(millis(&mut second, 50..600)).await;
            }
        };
        tokio::join!(servers, networks);
    }
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

/// Late by up to so much towards the server, and by up to half of it back.
fn jitter(late: Duration) -> Mode {
    Mode::Jitter { to_server: late, to_client: late / 2 }
}

async fn disturb(proxies: &Proxies, node: &str, mode: Mode, pause: Duration) {
    let proxy = proxies.get(node);
    proxy.set(mode);
    sleep(pause).await;
    proxy.set(Mode::Pass);
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LateReplay(replica, delay) => write!(f, "{replica} applies commits after {delay:?}"),
            Self::Kill(replica, pause) => write!(f, "{replica} is killed for {pause:?}"),
            Self::Crash(replica, pause) => {
                write!(f, "a process of {replica} is killed, which then is behind for {pause:?}")
            }
            Self::PausedReplay(replica, pause) => write!(f, "{replica} does not replay for {pause:?}"),
            Self::StalledReplication(pause) => write!(f, "the replicas receive nothing for {pause:?}"),
            Self::CutRequests(process, node) => {
                write!(f, "process {process} loses its connections to {node}")
            }
            Self::CutProbes(process, node) => write!(f, "the monitor of process {process} loses {node}"),
            Self::LateRequests(process, node, late, pause) => {
                write!(f, "between process {process} and {node} all is up to {late:?} late for {pause:?}")
            }
            Self::LateProbes(process, node, late, pause) => {
                write!(f, "the monitor of process {process} hears {node} up to {late:?} late for {pause:?}")
            }
            Self::DeafProbes(process, node, pause) => {
                write!(f, "the monitor of process {process} hears nothing of {node} for {pause:?}")
            }
        }
    }
}
