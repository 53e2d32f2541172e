//! A folder of backups: which there are, which one a restore takes, and which are left over or too old.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::{
    archive::backups_dir,
    description::Backup,
    position::{Lsn, Moment},
    process,
};

/// The ending of a backup that is not finished; its name begins with a dot, too.
const UNFINISHED: &str = ".unfinished";
const LOCK: &str = ".lock";

/// Up to where a cluster is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RestoreTarget {
    /// To the end of the archive: everything that it holds. Without an archive, to the backup's own end.
    #[default]
    End,
    /// To the end of the backup; needs no archive.
    BackupEnd,
    /// To the last transaction that was committed at this moment or before, by the primary's clock.
    Time(Moment),
    /// To this position: every record that begins before it.
    Lsn(Lsn),
}

impl fmt::Display for RestoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreTarget::End => f.write_str("its end"),
            RestoreTarget::BackupEnd => f.write_str("the end of the backup"),
            RestoreTarget::Time(moment) => moment.fmt(f),
            RestoreTarget::Lsn(lsn) => lsn.fmt(f),
        }
    }
}

/// The folder of an unfinished backup, which nobody takes for a backup.
pub(crate) fn unfinished(folder: &Path, label: &str) -> PathBuf {
    folder.join(format!(".{label}{UNFINISHED}"))
}

/// Lets no other backup into the folder until the file is dropped; `None` when one is being made there.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes what interrupted backups have left in a folder that is locked; returns how many there were.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let unfinished =
            name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(UNFINISHED));
        if unfinished && entry.file_type()?.is_dir() {
            // Where a leash does not hold, the program may still run.
            process::end_family(&entry.path().join("data"))?;
            fs::remove_dir_all(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The finished backups in a folder, the oldest first; one whose description cannot be read is an error that names it.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<Backup>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut backups = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let read = Backup::read(&entry.path());
        let named = |error: io::Error| {
            let problem = format!("the description of {}: {error}", entry.path().display());
            io::Error::new(error.kind(), problem)
        };
        backups.extend(read.map_err(named)?);
    }
    backups.sort_by(|a, b| (a.stopped, &a.label).cmp(&(b.stopped, &b.label)));
    Ok(backups)
}

/// What `--from` names: one backup, a folder of backups, or an archive with such a folder.
pub(crate) fn find(from: &Path) -> io::Result<Vec<Backup>> {
    if let Some(backup) = Backup::read(from)? {
        return Ok(vec![backup]);
    }
    let found = list(from)?;
    if found.is_empty() { list(&backups_dir(from)) } else { Ok(found) }
}

/// Which backup a restore to `target` begins from: the newest that ends before it, as least is then to be replayed.
pub(crate) fn choose(backups: &[Backup], target: RestoreTarget) -> Option<&Backup> {
    let ends_before = |backup: &&Backup| match target {
        RestoreTarget::End | RestoreTarget::BackupEnd => true,
        RestoreTarget::Time(moment) => backup.stopped <= moment,
        RestoreTarget::Lsn(lsn) => backup.stop_lsn <= lsn,
    };
    backups.iter().rfind(ends_before)
}
