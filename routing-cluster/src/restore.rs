//! Restoring a cluster from a backup and its archive, up to a moment or a position.

use std::{fs, io, path::PathBuf};

use crate::{
    account::{Account, AccountError},
    archive::ArchiveError,
    archiving::ClaimError,
    base_backup::{check_verifier, verify},
    binaries::BinariesError,
    catalog::RestoreTarget,
    cluster::LocalCluster,
    command::{CommandError, Tools},
    description::Backup,
    error::UpError,
    layout::{DirectoryError, Layout},
    operation::OperationError,
    ports::PortError,
    position::{Lsn, Moment},
    progress::Progress,
    recovery::Recovery,
    restoring::{clear, make},
    server::ServerError,
    source::{self, SourceError},
    state::State,
    up,
};

/// What is restored, where to, and up to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOptions {
    /// A backup, a folder of backups of one cluster, or the archive with that folder; of several backups the newest that
    /// ends before the target is taken.
    pub from: PathBuf,
    /// The new cluster's directory: new or empty. Default: `./.cluster`.
    pub dir: PathBuf,
    /// Up to where. Default: the archive's end.
    pub target: RestoreTarget,
    /// The new cluster's port. Default: 5500. 0 takes a free one below 32768.
    pub port: u16,
    /// Whether the new cluster archives its WAL, in an archive of its own: `DIR-archive`, or the first of `DIR-archive-2`
    /// and so on that nobody uses. Default: false.
    pub archive: bool,
}

impl RestoreOptions {
    /// Restores everything that the archive holds into `./.cluster`.
    pub fn new(from: impl Into<PathBuf>) -> RestoreOptions {
        RestoreOptions {
            from: from.into(),
            dir: PathBuf::from(".cluster"),
            target: RestoreTarget::End,
            port: 5500,
            archive: false,
        }
    }
}

/// How far a restore has come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The backup that it began with.
    pub backup: Backup,
    /// When the last transaction was committed that it has replayed; `None` when it has replayed none.
    pub time: Option<Moment>,
    /// The end of the last record that it has replayed.
    pub lsn: Lsn,
    /// The timeline that the new cluster writes.
    pub timeline: i32,
}

/// Why a cluster was not restored. Nothing half-made is left, unless the removal of it failed, too: then the next call
/// does that.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backup, or its archive, does not lead to the target.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// PostgreSQL's program that verifies copies is missing or broken.
    #[error("nothing was restored: the program that verifies backups does not run")]
    NoVerifier {
        /// What became of it.
        source: CommandError,
    },
    /// A file of the backup is not what its manifest says.
    #[error("the backup {} is damaged, and nothing was restored", dir.display())]
    Damaged {
        /// The backup.
        dir: PathBuf,
        /// What the program said, with the names of the files.
        source: CommandError,
    },
    /// The directory holds a cluster.
    #[error("{} holds a cluster: restore into a new directory with --dir", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// What an interrupted restore has left, or this one, could not be removed.
    #[error("could not remove the half-made cluster in {}", dir.display())]
    Remains {
        /// The directory.
        dir: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The backup's data could not be copied.
    #[error("could not copy the backup to {}", dir.display())]
    NotCopied {
        /// The new cluster's directory.
        dir: PathBuf,
        /// What the program said.
        source: CommandError,
    },
    /// The backup's passwords could not be read.
    #[error("could not read the passwords in {}", file.display())]
    Passwords {
        /// Their file.
        file: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The archive ends before the target.
    #[error(
        "the archive ends before {target}; {}. Nothing was restored: choose an earlier target, or none for all that is there.\n{log}",
        last_commit(.last.as_deref())
    )]
    NotReached {
        /// The target.
        target: RestoreTarget,
        /// When the last transaction in the archive was committed, in the server's words.
        last: Option<String>,
        /// The last lines of the server's log.
        log: String,
    },
    /// The server ended in the middle of its recovery.
    #[error("the recovery failed")]
    Recovery(#[source] ServerError),
    /// The new cluster could not be set up.
    #[error(transparent)]
    Up(Box<UpError>),
    /// PostgreSQL's programs were not found.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// There is no user to run the server as.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The new directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A port cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The new cluster's own archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

fn last_commit(last: Option<&str>) -> String {
    last.map_or_else(
        || "no transaction is in it".to_owned(),
        |last| format!("its last transaction was committed at {last}"),
    )
}

impl From<UpError> for RestoreError {
    fn from(error: UpError) -> RestoreError {
        RestoreError::Up(Box::new(error))
    }
}

impl From<ClaimError> for RestoreError {
    fn from(error: ClaimError) -> RestoreError {
        match error {
            ClaimError::Archive(error) => error.into(),
            ClaimError::Operation(error) => error.into(),
        }
    }
}

impl LocalCluster {
    /// Makes a new cluster with one node, `pg1`, from a backup and the archive of its cluster, and starts it.
    ///
    /// The backup is verified first, the WAL after it is replayed up to the target, and the node goes on from there on a new
    /// timeline, with the passwords of the old cluster, encrypting if that did. It shares nothing with the old cluster and
    /// never writes to its archive, so both may run. Replicas are added with [`LocalCluster::add_replica`].
    ///
    /// It takes as long as the replay does, without a deadline.
    ///
    /// # Errors
    ///
    /// The directory is another's, the backup is damaged or of another release, the target is before its end, or the
    /// archive does not lead to the target. The directory is then as it was before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills what works on the new cluster. A repeated call begins anew; until then `up` leaves the
    /// directory alone.
    pub async fn restore(
        options: &RestoreOptions,
        progress: &dyn Progress,
    ) -> Result<(LocalCluster, Restored), RestoreError> {
        let binaries = up::find_binaries().await?;
        let backup = source::backup(&options.from, options.target, binaries.release())?;
        let account = Account::owning(&backup.dir)?;
        if let Some(parent) = up::existing_parent(&options.dir) {
            account.check_reach(&parent)?;
        }
        account.check_reach(&backup.dir)?;
        account.check_reach(binaries.dir())?;
        let tools = Tools::new(binaries.clone(), account.clone(), backup.dir.clone());
        check_verifier(&tools).await.map_err(|source| RestoreError::NoVerifier { source })?;
        progress.step(&format!("verifying the backup {}", backup.label));
        let damaged = |source| RestoreError::Damaged { dir: backup.dir.clone(), source };
        verify(&tools, &backup.data_dir()).await.map_err(damaged)?;
        let wal = source::wal(&tools, &backup, options.target).await?;

        let existed = options.dir.exists();
        let layout = Layout::prepare(&options.dir)?;
        let lock = layout.lock().await?;
        if layout.is_cluster() {
            if State::read(&layout)?.restoring.is_none() {
                return Err(RestoreError::Exists { dir: layout.dir().to_owned() });
            }
            progress.step("removing what an interrupted restore has left");
            clear(&layout).map_err(remains(&layout))?;
        }
        let recovery = Recovery { backup, wal, target: options.target };
        let made = make(options, &layout, lock, (binaries, account), &recovery, progress).await;
        if made.is_err() {
            clear(&layout).map_err(remains(&layout))?;
            if !existed {
                fs::remove_dir_all(layout.dir()).map_err(remains(&layout))?;
            }
        }
        made
    }
}

fn remains(layout: &Layout) -> impl Fn(io::Error) -> RestoreError + use<> {
    let dir = layout.dir().to_owned();
    move |source| RestoreError::Remains { dir: dir.clone(), source }
}
