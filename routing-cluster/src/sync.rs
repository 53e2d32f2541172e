//! Whether a commit waits for replicas.

use serde::{Deserialize, Serialize};

use crate::{
    cluster::LocalCluster,
    layout::DirectoryError,
    operation::{OperationError, asked},
    process,
    progress::Progress,
    sql::{Session, SqlError},
};

/// Whether a commit on the primary waits for replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SyncMode {
    /// It waits for none: the commits of the last moments are lost with the primary.
    #[default]
    Off,
    /// It waits until any one replica has it on disk. Without a running replica every commit waits.
    Quorum,
    /// It waits until any one replica has applied it, so that a read there sees it; which one is not said.
    RemoteApply,
}

impl SyncMode {
    fn words(self) -> &'static str {
        match self {
            SyncMode::Off => "wait for no replica",
            SyncMode::Quorum => "wait until one replica has them on disk",
            SyncMode::RemoteApply => "wait until one replica has applied them",
        }
    }

    /// The values of `synchronous_standby_names` and `synchronous_commit`; `None` is PostgreSQL's default.
    fn settings(self) -> [(&'static str, Option<&'static str>); 2] {
        let (names, commit) = match self {
            SyncMode::Off => (None, None),
            SyncMode::Quorum => (Some("ANY 1 (*)"), None),
            SyncMode::RemoteApply => (Some("ANY 1 (*)"), Some("remote_apply")),
        };
        [("synchronous_standby_names", names), ("synchronous_commit", commit)]
    }
}

/// Why commits were not made to wait for replicas, or no longer to wait.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// No replica streams, so every commit would wait for ever.
    #[error(
        "no replica streams from {primary}, so every commit would wait for one: start or add a replica first"
    )]
    NoReplica {
        /// The primary.
        primary: String,
    },
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl From<DirectoryError> for SyncError {
    fn from(error: DirectoryError) -> SyncError {
        SyncError::Operation(error.into())
    }
}

impl LocalCluster {
    /// Sets whether commits wait for replicas, on all running nodes now and on the others when they start.
    ///
    /// The choice stays with the cluster: whichever node becomes the primary, keeps it.
    ///
    /// # Errors
    ///
    /// No node is the primary, no replica streams that a commit could wait for, or a node refuses the setting.
    ///
    /// # Cancel safety
    ///
    /// The state file comes first. A repeated call sets what is missing.
    pub async fn set_sync(&self, mode: SyncMode, progress: &dyn Progress) -> Result<(), SyncError> {
        let mut operation = self.operation().await?;
        let primary = operation.primary().await?;
        if mode != SyncMode::Off {
            let session = operation.session(&primary).await?;
            let streams = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')";
            let streams: bool =
                session.value("ask for the standbys", streams, &[]).await.map_err(asked(&primary))?;
            if !streams {
                return Err(SyncError::NoReplica { primary: primary.name });
            }
        }
        progress.step(&format!("setting how commits wait: {}", mode.words()));
        operation.state.sync = mode;
        operation.save()?;
        for node in operation.nodes() {
            if process::postmaster(&node.data_dir).is_some_and(|process| !process.is_paused()) {
                let session = operation.session(&node).await?;
                apply(&session, mode).await.map_err(asked(&node))?;
            }
        }
        progress.finish(&format!("commits {}", mode.words()));
        Ok(())
    }
}

/// Brings a running node's settings in line: on replicas too, because any of them may become the primary.
pub(crate) async fn apply(session: &Session, mode: SyncMode) -> Result<(), SqlError> {
    let now: String = session
        .value(
            "ask for the synchronous settings",
            "SELECT current_setting('synchronous_standby_names') || '/' || current_setting('synchronous_commit')",
            &[],
        )
        .await?;
    let [(_, names), (_, commit)] = mode.settings();
    if now == format!("{}/{}", names.unwrap_or(""), commit.unwrap_or("on")) {
        return Ok(());
    }
    for (name, value) in mode.settings() {
        let statement = match value {
            Some(value) => format!("ALTER SYSTEM SET {name} = '{value}'"),
            None => format!("ALTER SYSTEM RESET {name}"),
        };
        session.run("set the synchronous settings", &statement).await?;
    }
    session.run("reload the settings", "SELECT pg_reload_conf()").await
}
