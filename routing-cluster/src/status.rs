//! What every node says of itself, side by side.

use std::{path::PathBuf, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;
use tokio_postgres::Row;

use crate::{
    archiver::{self, ArchiverStatus},
    condition::Condition,
    credentials::Credentials,
    layout::Layout,
    node::NodeRecord,
    process,
    slot::{self, SlotStatus},
    sql::{Session, SqlError},
    state::State,
};

/// How long a node may take to connect, and for each question; a healthy one takes milliseconds.
const ANSWER: Duration = Duration::from_secs(1);

/// The state of a cluster at one moment.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The cluster's directory.
    pub dir: PathBuf,
    /// The directory of its WAL archive; `None` when it has none.
    pub archive: Option<PathBuf>,
    /// The nodes, `pg1` first.
    pub nodes: Vec<NodeStatus>,
    /// What is to be done before the cluster is whole, one sentence each with the command.
    pub remedies: Vec<String>,
}

/// The state of one node. What only a server can say is `None` while it does not answer.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node's name.
    pub name: String,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The postmaster's process id, if it runs.
    pub pid: Option<i32>,
    /// Whether it runs and answers.
    pub state: NodeState,
    /// Why a running node is unreachable.
    pub problem: Option<String>,
    /// Whether it may start as it is, or needs `rejoin`.
    pub condition: Condition,
    /// The role that the server reports.
    pub role: Option<NodeRole>,
    /// The timeline that the node writes or receives.
    pub timeline: Option<i32>,
    /// The position that the node has written or replayed, as PostgreSQL prints it (`0/3000148`).
    pub lsn: Option<String>,
    /// Bytes that a replica's replay is behind the primary; `None` without exactly one primary that answers.
    pub lag_bytes: Option<u64>,
    /// A replica's connection to its primary, in `pg_stat_wal_receiver`'s words; `None` when there is none.
    pub receiver: Option<String>,
    /// Who streams from this node.
    pub standbys: Vec<StandbyStatus>,
    /// The node's replication slots.
    pub slots: Vec<SlotStatus>,
    /// A primary's archiving; `None` on a replica, which archives nothing, and without an archive.
    pub archiver: Option<ArchiverStatus>,
}

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NodeState {
    /// It runs and answers.
    Running,
    /// It does not run.
    Stopped,
    /// It was stopped by a signal and answers nothing.
    Paused,
    /// It runs and does not answer.
    Unreachable,
}

/// The role that a server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NodeRole {
    /// Not in recovery: it accepts writes.
    Primary,
    /// In recovery.
    Replica,
}

/// One connection of a standby, as its upstream sees it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct StandbyStatus {
    /// The application name, which is the standby's node name.
    pub name: String,
    /// `streaming`, `catchup`, `backup`, …
    pub state: String,
    /// `async`, `sync`, `quorum` or `potential`.
    pub sync_state: String,
}

/// Asks all nodes at once.
pub(crate) async fn status(layout: &Layout, nodes: &[NodeRecord], monitor: &Credentials) -> ClusterStatus {
    let mut nodes = join_all(nodes.iter().map(|node| node_status(node, monitor))).await;
    fill_lag(&mut nodes);
    // Whoever cannot be told about the state file still wants to know what the servers say.
    let state = State::read(layout).ok();
    let mut remedies = state.as_ref().map_or_else(Vec::new, State::remedies);
    if let Some(state) = &state {
        for node in &mut nodes {
            node.condition = state.condition(&node.name);
        }
        slot::judge(&mut nodes, state);
    }
    let primaries = nodes.iter().filter(|node| node.role == Some(NodeRole::Primary));
    let primaries: Vec<&str> = primaries.map(|node| node.name.as_str()).collect();
    if primaries.len() > 1 {
        remedies.push(format!(
            "{} are primaries at the same time: `promote` the right one, which stops the others",
            primaries.join(" and ")
        ));
    }
    remedies.extend(slot::remedies(&nodes));
    remedies.extend(archiver::remedies(&nodes));
    let archive = state.and_then(|state| state.archive).map(|archive| archive.dir);
    ClusterStatus { dir: layout.dir().to_owned(), archive, nodes, remedies }
}

async fn node_status(node: &NodeRecord, monitor: &Credentials) -> NodeStatus {
    let postmaster = process::postmaster(&node.data_dir);
    let mut status = NodeStatus {
        name: node.name.clone(),
        port: node.port,
        pid: postmaster.as_ref().map(|process| process.pid),
        state: match &postmaster {
            None => NodeState::Stopped,
            Some(process) if process.is_paused() => NodeState::Paused,
            Some(_) => NodeState::Running,
        },
        problem: None,
        condition: Condition::Sound,
        role: None,
        timeline: None,
        lsn: None,
        lag_bytes: None,
        receiver: None,
        standbys: Vec::new(),
        slots: Vec::new(),
        archiver: None,
    };
    if status.state == NodeState::Running
        && let Err(error) = ask(&mut status, monitor).await
    {
        status.state = NodeState::Unreachable;
        status.problem = Some(error.to_string());
    }
    status
}

async fn ask(status: &mut NodeStatus, monitor: &Credentials) -> Result<(), SqlError> {
    let session = Session::connect(status.port, monitor, ANSWER).await?;
    // OFFSET 0 evaluates the role once, so that a promotion in between cannot mix the branches.
    let position = "SELECT s.recovering,
            CASE WHEN s.recovering THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text,
            CASE WHEN s.recovering THEN r.received_tli
                 ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int END,
            r.status
        FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) s LEFT JOIN pg_stat_wal_receiver r ON true";
    if let Some(row) = session.rows("ask for the position", position, &[]).await?.first() {
        status.role = Some(if row.get(0) { NodeRole::Replica } else { NodeRole::Primary });
        status.lsn = row.get(1);
        status.timeline = row.get(2);
        status.receiver = row.get(3);
    }
    let standbys = "SELECT application_name, coalesce(state, ''), coalesce(sync_state, '')
        FROM pg_stat_replication ORDER BY 1";
    let standby = |row: &Row| StandbyStatus { name: row.get(0), state: row.get(1), sync_state: row.get(2) };
    status.standbys =
        session.rows("ask for the standbys", standbys, &[]).await?.iter().map(standby).collect();
    status.slots = slot::slots(&session).await?;
    if status.role == Some(NodeRole::Primary) {
        status.archiver = archiver::archiver(&session).await?;
    }
    Ok(())
}

fn fill_lag(nodes: &mut [NodeStatus]) {
    let mut primaries = nodes.iter().filter(|node| node.role == Some(NodeRole::Primary));
    // With two of them nobody can say whose position counts.
    let (Some(primary), None) = (primaries.next(), primaries.next()) else { return };
    let Some(newest) = primary.lsn.as_deref().and_then(parse_lsn) else { return };
    for node in nodes.iter_mut().filter(|node| node.role == Some(NodeRole::Replica)) {
        let replayed = node.lsn.as_deref().and_then(parse_lsn);
        // A replica that was asked later may be ahead of the primary's older answer.
        node.lag_bytes = replayed.map(|replayed| newest.saturating_sub(replayed));
    }
}

/// The two halves of a position, `high/low` in hexadecimal digits.
pub(crate) fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: NodeRole, lsn: &str) -> NodeStatus {
        NodeStatus {
            name: "pg".to_owned(),
            port: 1,
            pid: None,
            state: NodeState::Running,
            problem: None,
            condition: Condition::Sound,
            role: Some(role),
            timeline: None,
            lsn: Some(lsn.to_owned()),
            lag_bytes: None,
            receiver: None,
            standbys: Vec::new(),
            slots: Vec::new(),
            archiver: None,
        }
    }

    #[test]
    fn lag_is_the_distance_to_the_only_primary() {
        let mut nodes = [
            node(NodeRole::Primary, "1/10"),
            node(NodeRole::Replica, "0/FFFFFFF0"),
            node(NodeRole::Replica, "1/20"),
        ];
        fill_lag(&mut nodes);
        assert_eq!(nodes.map(|node| node.lag_bytes), [None, Some(32), Some(0)]);
    }

    #[test]
    fn two_primaries_leave_the_lag_unknown() {
        let mut nodes = [
            node(NodeRole::Primary, "1/10"),
            node(NodeRole::Primary, "1/20"),
            node(NodeRole::Replica, "1/0"),
        ];
        fill_lag(&mut nodes);
        assert!(nodes.iter().all(|node| node.lag_bytes.is_none()));
    }
}
