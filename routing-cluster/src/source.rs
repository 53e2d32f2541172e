//! What a restore begins from: a fitting backup, and an archive that leads from it to the target.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    archive::{ArchiveError, marker, wal_dir},
    catalog::{self, RestoreTarget},
    command::{CommandError, Tools, run},
    description::Backup,
    handover::control_value,
    wal::{Hole, SegmentSize, ancestors, history_name, hole},
};

/// `pg_controldata` reads one small file.
const CONTROL_DATA: Duration = Duration::from_secs(10);

/// Why a backup and its archive do not lead to the target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// There is no backup.
    #[error("there is no backup in {}: `backup --list` shows those of a cluster", from.display())]
    NoBackup {
        /// Where it was looked for.
        from: PathBuf,
    },
    /// The folder has backups of several clusters.
    #[error("{} has backups of several clusters: name one of them", from.display())]
    SeveralClusters {
        /// The folder.
        from: PathBuf,
    },
    /// No backup ends before the target.
    #[error("{target} is before the end of every backup in {}: the earliest that can be restored is {earliest}", from.display())]
    TooEarly {
        /// The target.
        target: RestoreTarget,
        /// Where backups were looked for.
        from: PathBuf,
        /// The end of the oldest backup.
        earliest: String,
    },
    /// The backup is of another major release than the programs.
    #[error(
        "the backup {label} is of PostgreSQL {major}, and PostgreSQL {found} was found, which cannot start its data: set PG_BIN_DIR to the programs of {major}"
    )]
    Release {
        /// The backup.
        label: String,
        /// Its release.
        major: u32,
        /// The programs' release.
        found: u32,
    },
    /// There is no archive with the WAL after the backup.
    #[error("the backup {label} has no archive, so it can be restored to its own end alone, {}", stopped)]
    NoArchive {
        /// The backup.
        label: String,
        /// Its end.
        stopped: String,
    },
    /// The archive is not where it was.
    #[error(
        "the archive of the backup {label} is not in {}: put it back, or restore the backup alone with --to-backup-end",
        dir.display()
    )]
    ArchiveGone {
        /// The backup.
        label: String,
        /// Where the archive was.
        dir: PathBuf,
    },
    /// A WAL file is missing in the middle of the archive.
    #[error(
        "the archive in {} lacks {missing}, although it goes on to {last}: bring the file back, or restore to a time or position before it",
        wal.display()
    )]
    Hole {
        /// The directory of the archive's WAL.
        wal: PathBuf,
        /// The first missing file.
        missing: String,
        /// The last file that is there.
        last: String,
    },
    /// The archive's marker cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The backup's control file cannot be read.
    #[error("could not read the control file of the backup {label}")]
    Control {
        /// The backup.
        label: String,
        /// What the program said.
        source: CommandError,
    },
    /// A file of the backup or the archive cannot be read.
    #[error("could not read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    move |source| SourceError::Io { path: path.to_owned(), source }
}

/// The backup that a restore to `target` begins with.
pub(crate) fn backup(from: &Path, target: RestoreTarget, release: u32) -> Result<Backup, SourceError> {
    // The recovery runs elsewhere, and the folder may be a link.
    let path = fs::canonicalize(from).map_err(io_error(from))?;
    let backups = catalog::find(&path).map_err(io_error(from))?;
    let from = from.to_owned();
    let Some(first) = backups.first() else { return Err(SourceError::NoBackup { from }) };
    if backups.iter().any(|backup| backup.system_identifier != first.system_identifier) {
        return Err(SourceError::SeveralClusters { from });
    }
    let Some(chosen) = catalog::choose(&backups, target) else {
        let earliest = match target {
            RestoreTarget::Lsn(_) => first.stop_lsn.to_string(),
            _ => first.stopped.to_string(),
        };
        return Err(SourceError::TooEarly { target, from, earliest });
    };
    if chosen.major != release {
        let label = chosen.label.clone();
        return Err(SourceError::Release { label, major: chosen.major, found: release });
    }
    Ok(chosen.clone())
}

/// The directory with the WAL after the backup; `None` when the target needs none and there is none.
pub(crate) async fn wal(
    tools: &Tools,
    backup: &Backup,
    target: RestoreTarget,
) -> Result<Option<PathBuf>, SourceError> {
    let label = backup.label.clone();
    let found = archive_of(backup)?.map(|archive| wal_dir(&archive));
    match (found, &backup.archive, target) {
        (Some(wal), _, RestoreTarget::End) => {
            let size = segment_size(tools, backup).await?;
            match archive_hole(&wal, backup, size)? {
                Some(Hole { missing, last }) => {
                    let (missing, last) = (size.name(missing), size.name(last));
                    Err(SourceError::Hole { wal, missing, last })
                }
                None => Ok(Some(wal)),
            }
        }
        (None, _, RestoreTarget::BackupEnd) | (None, None, RestoreTarget::End) => Ok(None),
        (None, Some(dir), _) => Err(SourceError::ArchiveGone { label, dir: dir.clone() }),
        (None, None, _) => Err(SourceError::NoArchive { label, stopped: backup.stopped.to_string() }),
        (Some(wal), _, _) => Ok(Some(wal)),
    }
}

/// The archive of the backup's cluster: the one that it lies in, which may have been moved, or the one that it names.
fn archive_of(backup: &Backup) -> Result<Option<PathBuf>, SourceError> {
    let around = backup.dir.parent().and_then(Path::parent).map(Path::to_owned);
    for dir in around.iter().chain(&backup.archive) {
        if marker(dir)?.is_some_and(|marker| marker.system_identifier == backup.system_identifier) {
            return Ok(Some(dir.clone()));
        }
    }
    Ok(None)
}

async fn segment_size(tools: &Tools, backup: &Backup) -> Result<SegmentSize, SourceError> {
    let mut command = tools.command("pg_controldata");
    command.arg("--pgdata").arg(backup.data_dir());
    let control = |source| SourceError::Control { label: backup.label.clone(), source };
    let text = run(command, CONTROL_DATA).await.map_err(control)?;
    let bytes = control_value(&text, "Bytes per WAL segment").parse().ok();
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "it tells no size of WAL files");
    bytes.and_then(SegmentSize::new).ok_or_else(|| io_error(&backup.data_dir())(odd()))
}

/// Looks for a hole on the way to the newest timeline that the archive has, which a recovery follows.
fn archive_hole(wal: &Path, backup: &Backup, size: SegmentSize) -> Result<Option<Hole>, SourceError> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(wal).map_err(io_error(wal))? {
        let name = entry.map_err(io_error(wal))?.file_name();
        held.extend(name.to_str().and_then(|name| size.parse(name)));
    }
    let (mut newest, mut left) = (backup.timeline, Vec::new());
    // PostgreSQL looks for them one by one, too, and stops at the first that is missing.
    while let Some(next) = newest.checked_add(1) {
        let path = wal.join(history_name(next));
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            history => left = ancestors(&history.map_err(io_error(&path))?),
        }
        newest = next;
    }
    Ok(hole(&held, size, backup.stop_lsn, &left, newest))
}
