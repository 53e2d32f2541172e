//! Expiry: removing older backups, and the archived WAL that only they needed.

use std::{fs, path::Path, time::Duration};

use crate::{
    archive,
    backup::{BackupError, io_error},
    catalog,
    command::{Tools, run},
    description::Backup,
    progress::Progress,
};

/// Removing WAL files reads one directory.
const CLEANUP: Duration = Duration::from_secs(600);

/// Removes the older backups of the cluster of `newest` in its folder but `keep`, and then, with `with_wal`, the archived
/// WAL that none of the others needs.
pub(crate) async fn expire(
    tools: &Tools,
    folder: &Path,
    newest: &Backup,
    keep: u32,
    with_wal: bool,
    progress: &dyn Progress,
) -> Result<(), BackupError> {
    let backups = catalog::list(folder).map_err(io_error("read", folder))?;
    let (expired, kept) = divide(backups, &newest.system_identifier, keep);
    for backup in &expired {
        progress.step(&format!("removing the backup {}", backup.label));
        // A removal that is interrupted must not leave half a backup.
        let name = backup.dir.file_name().unwrap_or_default().to_string_lossy();
        let remains = catalog::unfinished(folder, &name);
        let removed = fs::rename(&backup.dir, &remains).and_then(|()| fs::remove_dir_all(&remains));
        removed.map_err(io_error("remove", &backup.dir))?;
    }
    let first = kept.iter().min_by_key(|backup| backup.start_lsn);
    let (Some(archive), Some(first), true) = (&newest.archive, first, with_wal) else { return Ok(()) };
    let wal = archive::wal_dir(archive);
    let mut command = tools.leashed("pg_archivecleanup");
    command.arg(&wal).arg(&first.first_wal);
    let label = newest.label.clone();
    run(command, CLEANUP).await.map(drop).map_err(|source| BackupError::NotCleaned { label, wal, source })
}

/// Divides a folder's backups, the oldest first, into those of this system that are to go and those that stay.
fn divide(backups: Vec<Backup>, system: &str, keep: u32) -> (Vec<Backup>, Vec<Backup>) {
    let own = |backup: &Backup| backup.system_identifier == system;
    let mut backups: Vec<Backup> = backups.into_iter().filter(own).collect();
    let surplus = backups.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    let kept = backups.split_off(surplus);
    (backups, kept)
}
