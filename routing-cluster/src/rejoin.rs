//! Taking a node back as a replica of the primary: by rewinding it, else by a new base backup.

use std::{fs, io, path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    change::READ_ONLY,
    cluster::LocalCluster,
    condition::Condition,
    error::with_causes,
    fence::FenceError,
    layout::DirectoryError,
    node::NodeRecord,
    operation::{Operation, OperationError, asked, files},
    ports::Reservation,
    process::{self, KillGuard},
    progress::Progress,
};

/// How long a rewound node may take to start and stream before a base backup is thought to be quicker.
const CATCH_UP: Duration = Duration::from_secs(45);

/// How a node was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejoined {
    /// It only had to be told whom to follow.
    Repointed,
    /// `pg_rewind` took back what only it had, and copied what it lacked.
    Rewound,
    /// A base backup has replaced its data.
    Copied,
}

/// Why a node was not taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RejoinError {
    /// The node is the primary.
    #[error("{node} is the primary: the other nodes rejoin it")]
    IsPrimary {
        /// The node.
        node: String,
    },
    /// The node is a replica that streams from where it should.
    #[error("{node} already follows {upstream}: nothing to do")]
    Follows {
        /// The node.
        node: String,
        /// Whom it streams from.
        upstream: String,
    },
    /// The node is being removed.
    #[error("{node} was not taken back: {remedy}")]
    Unfit {
        /// The node.
        node: String,
        /// What it is, and what to do.
        remedy: String,
    },
    /// The node still runs as a primary and could not be stopped.
    #[error("{node} was not taken back")]
    Unfenced {
        /// The node.
        node: String,
        /// Why it is not certain that it has ended.
        source: FenceError,
    },
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl From<DirectoryError> for RejoinError {
    fn from(error: DirectoryError) -> RejoinError {
        RejoinError::Operation(error.into())
    }
}

impl LocalCluster {
    /// Makes a deposed primary, or a replica that does not stream any more, a streaming replica again.
    ///
    /// Writes that only this node has are lost. A running replica is first only told whom to follow; otherwise the
    /// node is stopped and rewound (`pg_rewind`), and where that does not lead to streaming, its data is replaced by a
    /// base backup; at once if `base_backup`.
    ///
    /// # Errors
    ///
    /// No node is the primary, the node is it, or it streams already; otherwise the failed step. Nothing of the node
    /// is left running then, and a repeated call goes on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what works on the node. Until a repeated call has succeeded, `start` and `up`
    /// leave the node alone.
    pub async fn rejoin(
        &self,
        node: &str,
        base_backup: bool,
        progress: &dyn Progress,
    ) -> Result<Rejoined, RejoinError> {
        let mut operation = self.operation().await?;
        let node = operation.node(node).map_err(OperationError::from)?;
        if operation.state.condition(&node.name) == Condition::Removing {
            let remedy = Condition::Removing.remedy(&node.name).unwrap_or_default();
            return Err(RejoinError::Unfit { node: node.name, remedy });
        }
        let upstream = operation.rejoin_upstream(&node).await?;
        let rejoined = operation.rejoin(&node, &upstream, base_backup, progress).await?;
        let how = match rejoined {
            Rejoined::Repointed => "",
            Rejoined::Rewound => ", rewound",
            Rejoined::Copied => ", from a new base backup",
        };
        progress.finish(&format!("{} follows {}{how}", node.name, upstream.name));
        Ok(rejoined)
    }
}

impl Operation<'_> {
    /// Whom the node is to follow. A deposed node that runs does not count as a primary.
    async fn rejoin_upstream(&self, node: &NodeRecord) -> Result<NodeRecord, RejoinError> {
        match self.upstream(node).await {
            Err(OperationError::SeveralPrimaries { nodes })
                if self.state.condition(&node.name) == Condition::Deposed && nodes.len() == 2 =>
            {
                let other = nodes.iter().find(|name| **name != node.name);
                Ok(self.node(other.map_or("", String::as_str)).map_err(OperationError::from)?)
            }
            Ok(upstream) if upstream.name == node.name => {
                Err(RejoinError::IsPrimary { node: node.name.clone() })
            }
            found => Ok(found?),
        }
    }

    /// The steps of [`LocalCluster::rejoin`].
    pub(crate) async fn rejoin(
        &mut self,
        node: &NodeRecord,
        upstream: &NodeRecord,
        base_backup: bool,
        progress: &dyn Progress,
    ) -> Result<Rejoined, RejoinError> {
        let condition = self.state.condition(&node.name);
        let runs = process::postmaster(&node.data_dir).is_some_and(|process| !process.is_paused());
        // An archive has what the upstream no longer has.
        let lost = self.state.archive.is_none() && self.slot_is_lost(node, upstream).await?;
        if runs && condition.may_start() && !lost && !base_backup && node.starts_as_standby() {
            if condition == Condition::Sound && self.streams(node, upstream).await? {
                let (node, upstream) = (node.name.clone(), upstream.name.clone());
                return Err(RejoinError::Follows { node, upstream });
            }
            progress.step(&format!("telling {} to follow {}", node.name, upstream.name));
            match self.repoint(node, upstream).await {
                Ok(()) => return self.rejoined(node, Rejoined::Repointed).await,
                Err(error) => progress.step(&with_causes(&error)),
            }
        }
        progress.step(&format!("making sure that {} has stopped", node.name));
        let unfenced = |source| RejoinError::Unfenced { node: node.name.clone(), source };
        self.fence(node).await.map_err(unfenced)?;
        // The port is only held against a server that would start in between.
        drop(Reservation::of(&[node.port]).map_err(OperationError::from)?);
        let mut guard = KillGuard::default();
        guard.watch(node.data_dir.clone());
        self.state.set_condition(&node.name, Condition::Rejoining);
        self.save()?;
        // An interrupted rewind leaves a mixture that no other rewind can trust.
        let rewinds = condition != Condition::Rejoining && !lost && !base_backup;
        let rejoined = match rewinds && self.rewind_and_start(node, upstream, progress).await? {
            true => Rejoined::Rewound,
            false => {
                self.copy(node, upstream, progress).await?;
                Rejoined::Copied
            }
        };
        guard.disarm();
        self.rejoined(node, rejoined).await
    }

    async fn rejoined(&mut self, node: &NodeRecord, how: Rejoined) -> Result<Rejoined, RejoinError> {
        self.state.set_condition(&node.name, Condition::Sound);
        self.save()?;
        let primary = self.primary().await?;
        self.drop_old_slots(&primary).await?;
        Ok(how)
    }

    async fn slot_is_lost(&self, node: &NodeRecord, upstream: &NodeRecord) -> Result<bool, OperationError> {
        let lost =
            "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND wal_status = 'lost')";
        let session = self.session(upstream).await?;
        session.value("ask for the slot", lost, &[&node.name]).await.map_err(asked(upstream))
    }

    pub(crate) async fn streams(
        &self,
        node: &NodeRecord,
        upstream: &NodeRecord,
    ) -> Result<bool, OperationError> {
        let streams = "SELECT EXISTS (SELECT FROM pg_stat_replication
                       WHERE application_name = $1 AND state = 'streaming')";
        let session = self.session(upstream).await?;
        session.value("ask for the standby", streams, &[&node.name]).await.map_err(asked(upstream))
    }

    /// Rewinds the node and starts it as a standby; false when that did not lead to streaming.
    async fn rewind_and_start(
        &self,
        node: &NodeRecord,
        upstream: &NodeRecord,
        progress: &dyn Progress,
    ) -> Result<bool, RejoinError> {
        progress.step(&format!("rewinding {} to {}", node.name, upstream.name));
        if let Err(error) = self.rewind(node, upstream).await {
            progress.step(&format!("{} cannot be rewound: {}", node.name, with_causes(&error)));
            return Ok(false);
        }
        self.become_standby(node, upstream)?;
        self.keep_slot(node, upstream).await?;
        progress.step(&format!("starting {} as a replica", node.name));
        // A node that lacks WAL which is gone would wait for it for ever.
        let started = timeout(CATCH_UP, async {
            self.launch(node).await?;
            Ok::<_, OperationError>(self.provision().streaming(node, upstream).await?)
        });
        match started.await {
            Ok(Ok(())) => return Ok(true),
            Ok(Err(error)) => {
                progress.step(&format!("{} was rewound, but: {}", node.name, with_causes(&error)))
            }
            Err(_) => progress.step(&format!("{} was rewound, but does not stream", node.name)),
        }
        Ok(false)
    }

    /// Writes the configuration of a standby: a rewind has brought the source's, with its port.
    pub(crate) fn become_standby(
        &self,
        node: &NodeRecord,
        upstream: &NodeRecord,
    ) -> Result<(), OperationError> {
        let provision = self.provision();
        let signal = node.data_dir.join("standby.signal");
        provision
            .configure(node, false)
            .and_then(|()| self.tools.account().write(&signal, ""))
            .and_then(|()| provision.follow(node, upstream))
            .and_then(|()| self.forget_setting(node, READ_ONLY))
            .map_err(files("write the configuration of", node))
    }

    /// Replaces the node's data by a base backup of `upstream`, and starts it. The old data goes only when the copy streams:
    /// until then it may be the last that is left.
    async fn copy(
        &mut self,
        node: &NodeRecord,
        upstream: &NodeRecord,
        progress: &dyn Progress,
    ) -> Result<(), OperationError> {
        progress.step(&format!("copying {} to {}", upstream.name, node.name));
        process::end_family(&node.data_dir).map_err(files("stop", node))?;
        let old = self.layout.old_data_dir(&node.name);
        set_aside(&node.data_dir, &old).map_err(files("set aside the old data of", node))?;
        match self.provision().replica(node, upstream).await {
            Ok(()) => remove(&old).map_err(files("remove the old data of", node)),
            Err(error) => {
                process::end_family(&node.data_dir).map_err(files("stop", node))?;
                remove(&node.data_dir)
                    .and_then(|()| fs::rename(&old, &node.data_dir))
                    .map_err(files("put back the old data of", node))?;
                Err(error.into())
            }
        }
    }
}

/// Moves data away; where an interrupted copy has done that already, what lies there now is a part of that copy.
fn set_aside(data: &Path, old: &Path) -> io::Result<()> {
    if old.exists() {
        return remove(data);
    }
    match fs::rename(data, old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
