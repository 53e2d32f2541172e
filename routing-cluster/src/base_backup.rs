//! The copy of a primary that becomes a backup when it is verified.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    archive::{self, sync_parent},
    archiver::archiver,
    backup::{BackupError, RFC3339, io_error, moment},
    command::{CommandError, Tools, run},
    description::{Backup, Circumstances, credentials_file},
    error::with_causes,
    node::NodeRecord,
    operation::{OperationError, asked},
    position::Moment,
    progress::Progress,
    sql::Session,
};

/// The longest that a backup may be copied, and again verified.
pub(crate) const COPY: Duration = Duration::from_secs(24 * 3600);
/// How long a working archiver may take for the backup's last WAL file; it takes milliseconds on a local disk.
const ARCHIVED: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A program that only tells its version.
const VERSION: Duration = Duration::from_secs(10);

/// A primary that is copied.
pub(crate) struct Source {
    pub(crate) node: NodeRecord,
    pub(crate) session: Session,
    pub(crate) tools: Tools,
    pub(crate) conninfo: String,
    /// The cluster's passwords, as their file has them.
    pub(crate) credentials: String,
    pub(crate) known: Circumstances,
}

impl Source {
    /// Copies the primary into `dir`, verifies the copy, and gives it its name in `folder`.
    pub(crate) async fn make(
        &self,
        folder: &Path,
        dir: &Path,
        label: String,
        progress: &dyn Progress,
    ) -> Result<Backup, BackupError> {
        let no_verifier = |source| BackupError::NoVerifier { source };
        check_verifier(&self.tools).await.map_err(no_verifier)?;
        archive::make_dir(dir, 0o700, Some(self.tools.account()))?;
        progress.step(&format!("copying {} to {}", self.node.name, folder.display()));
        let data = dir.join("data");
        let mut command = self.tools.leashed("pg_basebackup");
        command.arg("--dbname").arg(&self.conninfo).arg("--pgdata").arg(&data);
        command.args(["--wal-method", "stream", "--checkpoint", "fast", "--no-password"]);
        command.args(["--manifest-checksums", "SHA256", "--label", &label]);
        if !self.known.durable {
            command.arg("--no-sync");
        }
        let not_copied = |source| BackupError::NotCopied { folder: folder.to_owned(), source };
        run(command, COPY).await.map_err(not_copied)?;
        let now = format!("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', '{RFC3339}')");
        let now: String =
            self.session.value("ask for the time", &now, &[]).await.map_err(asked(&self.node))?;
        let stopped = moment(&self.node, &now)?;
        progress.step("verifying the copy");
        let not_verified = |source| BackupError::NotVerified { folder: folder.to_owned(), source };
        verify(&self.tools, &data).await.map_err(not_verified)?;
        let backup = self.finish(folder, dir, label, stopped);
        let backup = backup.map_err(io_error("describe the backup in", folder))?;
        if let Some(archive) = &backup.archive {
            let waited = self.wait_for_archive(&archive::wal_dir(archive), &backup, progress).await;
            if let Err(error) = waited {
                // The backup itself is made.
                let error = with_causes(&error);
                progress.step(&format!("the archive may not have everything up to its end: {error}"));
            }
        }
        Ok(backup)
    }

    /// Waits until the archive has everything up to the backup's end, while the archiver does its work. The backup needs
    /// none of it; but what was written before it is then out of the primary's hands.
    async fn wait_for_archive(
        &self,
        wal: &Path,
        backup: &Backup,
        progress: &dyn Progress,
    ) -> Result<(), OperationError> {
        let sql = asked(&self.node);
        let name = "SELECT pg_walfile_name($1::text::pg_lsn)";
        let name = self.session.value("name a WAL file", name, &[&backup.stop_lsn.to_string()]).await;
        let name: String = name.map_err(&sql)?;
        let begun = Instant::now();
        while !wal.join(&name).exists() {
            let archiver = archiver(&self.session).await.map_err(&sql)?;
            if archiver.is_none_or(|archiver| archiver.failing) || begun.elapsed() > ARCHIVED {
                progress.step(&format!("the archive does not have {name} yet: see `status`"));
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Describes the verified copy and gives it the name of a backup.
    fn finish(&self, folder: &Path, dir: &Path, label: String, stopped: Moment) -> io::Result<Backup> {
        let known = Circumstances { label, stopped, ..self.known.clone() };
        let mut backup = Backup::describe(dir, known)?;
        let account = self.tools.account();
        account.write(&credentials_file(dir), &self.credentials)?;
        backup.write(account)?;
        if self.known.durable {
            for entry in fs::read_dir(dir)? {
                File::open(entry?.path())?.sync_all()?;
            }
            File::open(dir)?.sync_all()?;
        }
        let finished = folder.join(&backup.label);
        fs::rename(dir, &finished)?;
        sync_parent(&finished)?;
        backup.dir = finished;
        Ok(backup)
    }
}

/// Sees that copies can be verified, before hours are spent on one.
pub(crate) async fn check_verifier(tools: &Tools) -> Result<(), CommandError> {
    let mut command = tools.command("pg_verifybackup");
    command.arg("--version");
    run(command, VERSION).await.map(drop)
}

/// Compares a copy with its manifest, every byte of it, and sees that it has the WAL that it needs.
pub(crate) async fn verify(tools: &Tools, data: &Path) -> Result<(), CommandError> {
    let mut command = tools.leashed("pg_verifybackup");
    command.arg("--quiet").arg(data);
    run(command, COPY).await.map(drop)
}
