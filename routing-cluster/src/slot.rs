//! Replication slots: each replica has one on its upstream, named like the replica, and nobody else has one.

use serde::Serialize;
use tokio_postgres::Row;

use crate::{
    node::NodeRecord,
    operation::{Operation, OperationError, asked},
    process,
    sql::{Session, SqlError},
    state::State,
    status::{NodeRole, NodeStatus},
};

/// One replication slot.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SlotStatus {
    /// The slot's name, which is that of the node it is kept for.
    pub name: String,
    /// Whether a standby uses it now.
    pub active: bool,
    /// Whether its WAL is still there: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL between what it keeps and the node's position; `None` when it keeps nothing.
    pub retained_bytes: Option<u64>,
    /// Whether it is kept for nobody: no node of the cluster should stream from here by this name.
    pub leftover: bool,
}

/// The node's slots; those that end with their connection are left out.
pub(crate) async fn slots(session: &Session) -> Result<Vec<SlotStatus>, SqlError> {
    let slots = "SELECT slot_name::text, active, wal_status, greatest(0, (CASE WHEN s.recovering
                THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - restart_lsn))::bigint
        FROM pg_replication_slots, (SELECT pg_is_in_recovery() AS recovering OFFSET 0) s
        WHERE NOT temporary ORDER BY 1";
    let slot = |row: &Row| SlotStatus {
        name: row.get(0),
        active: row.get(1),
        wal_status: row.get(2),
        retained_bytes: row.get::<_, Option<i64>>(3).and_then(|bytes| u64::try_from(bytes).ok()),
        leftover: false,
    };
    Ok(session.rows("ask for the slots", slots, &[]).await?.iter().map(slot).collect())
}

/// Finds the slots that are kept for nobody.
pub(crate) fn judge(nodes: &mut [NodeStatus], state: &State) {
    let mut primaries = nodes.iter().filter(|node| node.role == Some(NodeRole::Primary));
    let primary = match (primaries.next(), primaries.next()) {
        (Some(only), None) => Some(only.name.clone()),
        _ => None,
    };
    for node in nodes {
        for slot in &mut node.slots {
            let known = state.nodes.iter().find(|plan| plan.name == slot.name && plan.name != node.name);
            slot.leftover = known.is_none_or(|plan| {
                // Without one primary it is unknown who follows it.
                let of = plan.upstream.as_ref().or(primary.as_ref());
                of.is_some_and(|of| *of != node.name)
            });
        }
    }
}

/// What an operator does about slots, one sentence each.
pub(crate) fn remedies(nodes: &[NodeStatus]) -> Vec<String> {
    let mut remedies = Vec::new();
    for node in nodes {
        for slot in &node.slots {
            let (on, name) = (&node.name, &slot.name);
            if slot.leftover {
                let kept = slot.retained_bytes.unwrap_or(0);
                remedies.push(format!(
                    "{on} has the slot {name}, which no node uses and which keeps {kept} bytes of WAL: drop it there with `SELECT pg_drop_replication_slot('{name}')`"
                ));
            } else if slot.wal_status.as_deref() == Some("lost") {
                remedies.push(format!(
                    "the slot of {name} on {on} is lost, and WAL that {name} needs is gone from {on}: `rejoin {name}`"
                ));
            }
        }
    }
    remedies
}

impl Operation<'_> {
    /// Makes the slot of `node` on `upstream` unless it is there; a lost one is made anew.
    pub(crate) async fn keep_slot(
        &self,
        node: &NodeRecord,
        upstream: &NodeRecord,
    ) -> Result<(), OperationError> {
        let session = self.session(upstream).await?;
        let lost = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                    WHERE slot_name = $1 AND NOT active AND wal_status = 'lost'";
        session.rows("drop the lost slot", lost, &[&node.name]).await.map_err(asked(upstream))?;
        // It reserves WAL at once: what is written before the standby connects must not go.
        let make = "SELECT pg_create_physical_replication_slot($1, true)
                    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";
        session.rows("make a slot", make, &[&node.name]).await.map_err(asked(upstream))?;
        Ok(())
    }

    /// The nodes that are to stream from `upstream`.
    fn followers(&self, upstream: &NodeRecord, primary: &NodeRecord) -> Vec<String> {
        let follows = |node: &&NodeRecord| {
            let of = self.state.upstream(&node.name).unwrap_or_else(|| primary.name.clone());
            node.name != upstream.name && of == upstream.name
        };
        self.nodes().iter().filter(follows).map(|node| node.name.clone()).collect()
    }

    /// Drops our nodes' slots where the nodes no longer stream from; other slots are not ours to drop.
    pub(crate) async fn drop_old_slots(&self, primary: &NodeRecord) -> Result<(), OperationError> {
        let ours: Vec<String> = self.nodes().into_iter().map(|node| node.name).collect();
        for node in self.nodes() {
            if process::postmaster(&node.data_dir).is_none_or(|process| process.is_paused()) {
                continue;
            }
            let kept = self.followers(&node, primary);
            let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                        WHERE NOT active AND slot_type = 'physical'
                          AND slot_name::text = ANY ($1) AND NOT slot_name::text = ANY ($2)";
            // A node that does not answer now keeps them; `status` names them then.
            let Ok(session) = self.session(&node).await else { continue };
            session.rows("drop old slots", drop, &[&ours, &kept]).await.map_err(asked(&node))?;
        }
        Ok(())
    }
}
