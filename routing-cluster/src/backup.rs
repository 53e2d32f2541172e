//! Taking a backup of a running cluster, and keeping no more of them than wanted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    account::AccountError,
    archive::{self, Archive, ArchiveError, backups_dir},
    base_backup::Source,
    catalog,
    cluster::LocalCluster,
    command::CommandError,
    description::{Backup, Circumstances},
    expiry::expire,
    layout::DirectoryError,
    node::NodeRecord,
    operation::{OperationError, asked},
    position::Moment,
    progress::Progress,
    sql::SqlError,
    state::State,
};

/// A moment in the form that descriptions have.
pub(crate) const RFC3339: &str = r#"YYYY-MM-DD"T"HH24:MI:SS.US"Z""#;

/// Where a backup goes, and how many are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupOptions {
    /// The folder in which the backup's own directory is made. Default: `backups` in the cluster's archive, or where that
    /// would be, in `DIR-archive`.
    pub to: Option<PathBuf>,
    /// How many of the cluster's backups in that folder remain, the new one among them; older ones are removed. In the
    /// default folder the archived WAL that only they needed goes, too. At least 1. Default: all.
    pub keep: Option<u32>,
}

/// Why no backup was made, or old ones were not removed. Nothing half-made is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Another backup is being made in the same folder.
    #[error("another backup is being made in {}: wait for it to end", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// PostgreSQL's program that verifies copies is missing or broken.
    #[error("no backup was made: the program that verifies backups does not run")]
    NoVerifier {
        /// What became of it.
        source: CommandError,
    },
    /// The server was not copied.
    #[error("no backup was made in {}", folder.display())]
    NotCopied {
        /// The folder.
        folder: PathBuf,
        /// What the program said.
        source: CommandError,
    },
    /// The copy is not what its manifest says, and was removed.
    #[error("the copy in {} does not match its manifest, and was removed", folder.display())]
    NotVerified {
        /// The folder.
        folder: PathBuf,
        /// What the program said.
        source: CommandError,
    },
    /// The new backup is there; WAL that only older ones needed is, too.
    #[error("the backup {label} was made, but old WAL was not removed from {}", wal.display())]
    NotCleaned {
        /// The new backup.
        label: String,
        /// The directory of the archive's WAL.
        wal: PathBuf,
        /// What the program said.
        source: CommandError,
    },
    /// A file or a folder could not be read, written or removed.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The servers' user cannot enter the folder.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The archive's directory cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl From<DirectoryError> for BackupError {
    fn from(error: DirectoryError) -> BackupError {
        BackupError::Operation(error.into())
    }
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::Io { doing, path: path.to_owned(), source }
}

impl LocalCluster {
    /// Copies the running primary, with the WAL that the copy needs, and verifies the copy against its manifest (SHA-256).
    ///
    /// The primary is copied, not a replica: its copy is as new as the moment, its end is marked in the archive, and no
    /// promotion can make it useless. Until it is verified, the copy has a name that nobody takes for a backup. It is as
    /// secret as the database: it has all data, and the cluster's passwords. Tablespaces are not supported.
    ///
    /// With an archive that works it waits until that has everything up to the backup's end.
    ///
    /// Other operations may go on meanwhile; a promotion or switchover ends the backup with an error.
    ///
    /// # Errors
    ///
    /// No node is the primary, another backup is under way, there is no room, or the copy is not what its manifest says.
    /// Nothing half-made is left, except of removals: [`BackupError::NotCleaned`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or the end of this process, ends the copying. The next call removes what was half made.
    pub async fn backup(
        &self,
        options: &BackupOptions,
        progress: &dyn Progress,
    ) -> Result<Backup, BackupError> {
        let (source, folder) = self.backup_source(options).await?;
        let Some(lock) = catalog::lock(&folder).map_err(io_error("lock", &folder))? else {
            return Err(BackupError::Busy { folder });
        };
        let remains = catalog::remove_unfinished(&folder);
        if remains.map_err(io_error("remove what an interrupted backup has left in", &folder))? > 0 {
            progress.step("removed what an interrupted backup had left");
        }
        let label = free_label(&folder, source.known.started);
        let unfinished = catalog::unfinished(&folder, &label);
        let made = source.make(&folder, &unfinished, label, progress).await;
        if made.is_err() {
            // The first error counts; what cannot be removed now, the next call finds.
            let _ = fs::remove_dir_all(&unfinished);
        }
        let backup = made?;
        if let Some(keep) = options.keep {
            let with_wal = options.to.is_none();
            expire(&source.tools, &folder, &backup, keep.max(1), with_wal, progress).await?;
        }
        drop(lock);
        let megabytes = backup.bytes.div_ceil(1 << 20);
        progress.finish(&format!(
            "{} ({megabytes} MB) is a backup up to {}",
            backup.dir.display(),
            backup.stopped
        ));
        Ok(backup)
    }

    /// The backups in the cluster's default folder, the oldest first; also those of other clusters that were there before.
    ///
    /// # Errors
    ///
    /// When the folder or a description in it cannot be read.
    pub fn backups(&self) -> Result<Vec<Backup>, BackupError> {
        let folder = backups_dir(&self.archive_dir()?);
        catalog::list(&folder).map_err(io_error("read", &folder))
    }

    /// Where the cluster's archive lies, or would lie.
    fn archive_dir(&self) -> Result<PathBuf, BackupError> {
        match State::read(&self.layout)?.archive {
            Some(archive) => Ok(archive.dir),
            None => Ok(Archive::beside(self.dir())?),
        }
    }

    /// What is to be copied, and where to. The cluster's lock is not held longer: nobody should have to wait for hours with
    /// a promotion.
    async fn backup_source(&self, options: &BackupOptions) -> Result<(Source, PathBuf), BackupError> {
        let operation = self.operation().await?;
        let node = operation.primary().await?;
        let session = operation.session(&node).await?;
        let facts = format!(
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), current_setting('server_version'),
                    current_setting('server_version_num')::int / 10000,
                    to_char(clock_timestamp() AT TIME ZONE 'UTC', '{RFC3339}')"
        );
        let rows = session.rows("ask for the system", &facts, &[]).await.map_err(asked(&node))?;
        let row = rows.first().ok_or_else(|| nothing(&node))?;
        let archive = operation.state.archive.as_ref().filter(|archive| archive.claimed);
        let known = Circumstances {
            label: String::new(),
            system_identifier: row.get(0),
            postgres: row.get(1),
            major: u32::try_from(row.get::<_, i32>(2)).unwrap_or_default(),
            started: moment(&node, row.get(3))?,
            stopped: moment(&node, row.get(3))?,
            archive: archive.map(|archive| archive.dir.clone()),
            durable: operation.state.durable,
            access: operation.state.access.clone(),
        };
        let folder = match &options.to {
            Some(folder) => std::path::absolute(folder).map_err(io_error("find", folder))?,
            None => {
                let dir = self.archive_dir()?;
                archive::make_dir(&dir, 0o755, None)?;
                backups_dir(&dir)
            }
        };
        fs::create_dir_all(folder.parent().unwrap_or(&folder)).map_err(io_error("create", &folder))?;
        archive::make_dir(&folder, 0o755, None)?;
        let folder = fs::canonicalize(&folder).map_err(io_error("open", &folder))?;
        operation.tools.account().check_reach(&folder)?;
        let conninfo = operation.provision().conninfo(&node, "backup");
        let conninfo = conninfo.map_err(io_error("find the primary of", self.dir()))?;
        let (tools, credentials) = (operation.tools.clone(), self.layout.credentials_file());
        let credentials = fs::read_to_string(&credentials).map_err(io_error("read", &credentials))?;
        Ok((Source { node, session, tools, conninfo, credentials, known }, folder))
    }
}

/// A name that sorts by time, and that nothing in the folder has.
fn free_label(folder: &Path, begun: Moment) -> String {
    let begun = begun.to_string();
    let digits = begun.split('.').next().unwrap_or(&begun).replace(['-', ':'], "");
    let name = |number: u32| if number == 1 { format!("{digits}Z") } else { format!("{digits}Z-{number}") };
    let taken = |name: &String| folder.join(name).symlink_metadata().is_ok();
    (1..).map(name).find(|name| !taken(name)).unwrap_or(digits.clone())
}

pub(crate) fn moment(node: &NodeRecord, text: &str) -> Result<Moment, OperationError> {
    let odd = |_| SqlError::Statement { doing: "tell the time", answer: text.to_owned() };
    text.parse().map_err(|error| asked(node)(odd(error)))
}

fn nothing(node: &NodeRecord) -> OperationError {
    asked(node)(SqlError::Statement { doing: "tell its system", answer: "no row".to_owned() })
}
